//! Actors: as their supervisor and their callers know them, and as the worker knows them where
//! they live.
//!
//! ```text
//!             supervisor (the worker of who made the actor)
//!   Pending --1--> At(worker, life) --3--> Dead
//!      ^  |             |
//!      |  +------4------|----------------> Dead
//!      +-------2--------+
//! ```
//! 1 the creation task returned there; 2 its process or its worker is lost, and it has restarts
//! left: the creation task runs again as the next life; 3 lost with none left, or killed; 4 its
//! creation failed for good, or it was killed before it lived.
//!
//! Lives are numbered by the attempts of the creation task. A caller that has seen a life end
//! waits for a higher one, whatever older news still arrives.
//!
//! Invariants: AC-1 a hosted actor's executor lists it, and its life holds its request.
//! AC-2 a lane holds each waiting call of its submitter once, in the order of submission; of an
//! actor that allows calls out of order, each call that has its arguments. AC-3 see
//! `local::direct`. AC-4 calls of an actor that are on their way from here, or run elsewhere, are
//! all of one life: those that come back from the one before go first into the next.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::group::Slot;
use crate::hash::FastMap;
use crate::id::{ExecutorId, WorkerId};
use crate::local::Unkept;
use crate::outcome::TaskError;
use crate::spec::TaskSpec;
use crate::task::TaskKey;

/// A waiting call: its place in order, its entry, and the entry's stamp.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) order: u64,
    pub(crate) key: TaskKey,
    pub(crate) stamp: u64,
}

/// An actor that is supervised or called from here.
#[derive(Debug)]
pub(crate) struct ActorEntry {
    /// Its supervisor.
    pub(crate) owner: WorkerId,
    pub(crate) place: ActorState,
    /// Lives below this one have ended.
    pub(crate) floor: u32,
    /// Calls from here that another worker has, and of which life.
    pub(crate) out: Out,
    /// Calls that wait, for each submitter.
    pub(crate) lanes: FastMap<ExecutorId, VecDeque<Call>>,
    /// Present at its supervisor.
    pub(crate) supervised: Option<Box<Supervised>>,
}

/// Calls that were sent to one life of an actor, and are not back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Out {
    pub(crate) life: u32,
    pub(crate) calls: u32,
}

impl Out {
    /// Whether calls may go to that life.
    pub(crate) fn lets_go(self, life: u32) -> bool {
        self.calls == 0 || self.life == life
    }
}

/// Where an actor is.
#[derive(Debug, Clone)]
pub(crate) enum ActorState {
    Pending,
    At { worker: WorkerId, life: u32 },
    Dead(Arc<TaskError>),
}

/// What its supervisor keeps.
#[derive(Debug)]
pub(crate) struct Supervised {
    /// How it is made; its references are held while it may be made again.
    pub(crate) spec: Arc<TaskSpec>,
    pub(crate) max_restarts: u32,
    pub(crate) name: Option<String>,
    /// The current life, or the one that is being made.
    pub(crate) life: u32,
    /// Lives that ended because their worker was to leave: they count for no restart.
    pub(crate) moves: u32,
    /// Workers that want to hear of changes.
    pub(crate) subscribers: Vec<WorkerId>,
}

/// An actor that lives on this worker.
#[derive(Debug)]
pub(crate) struct Hosted {
    pub(crate) spec: Arc<TaskSpec>,
    pub(crate) owner: WorkerId,
    pub(crate) life: u32,
    pub(crate) executor: ExecutorId,
    /// It shares its executor with others.
    pub(crate) shared: bool,
    pub(crate) assigned: bool,
    /// The bundle of a placement group here that pays for it.
    pub(crate) bundle: Slot,
    /// Calls of it that are blocked: while there are some, its CPUs are free.
    pub(crate) blocked: u32,
    /// Calls that wait, for each calling worker.
    pub(crate) mailboxes: FastMap<WorkerId, VecDeque<Call>>,
    /// Ends of calls that are told when the state that they are in is kept elsewhere.
    pub(crate) unkept: Unkept,
    /// Processes that call it directly.
    pub(crate) routes: Vec<ExecutorId>,
}

impl ActorEntry {
    pub(crate) fn new(owner: WorkerId) -> Self {
        Self {
            owner,
            place: ActorState::Pending,
            floor: 0,
            out: Out::default(),
            lanes: FastMap::default(),
            supervised: None,
        }
    }
}

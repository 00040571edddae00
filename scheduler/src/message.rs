//! What the cores say to each other: between workers, and between a worker and the head.
//!
//! A link between two processes delivers messages in order, also over a broken and remade
//! connection (the runtime repeats what may not have come), or reports the other side lost.
//! Values' bytes travel beside a message: the sender's runtime attaches the inline values of the
//! objects that the message announces, the receiver's runtime stores them before its core sees
//! the message.
//!
//! Every message is idempotent by its number. A process numbers what its core says, in order and
//! over all that it says it to; a head begins above whatever the heads before it have used. The
//! core that it is said to tells whether it has taken that number
//! ([`LocalCore::is_news`](crate::local::LocalCore::is_news),
//! [`ClusterCore::is_news`](crate::cluster::ClusterCore::is_news)): what comes again, at once or
//! after later ones, is dropped with its values. What is said again to a head that has lost what
//! it knew is another message, idempotent by task, attempt and owner.
#![allow(missing_docs, reason = "rkyv derives archived fields without docs")]

mod group;
mod head;
mod held;
mod taken;

use rkyv::{Archive, Deserialize, Serialize};

pub use group::{BundlePlace, GroupMessage, GroupPlace, GroupRequest};
pub use head::{FromHead, Load, ToHead};
pub use held::{Held, HeldTask};

use crate::checkpoint::Applied;
use crate::id::{ActorId, ObjectId, TaskId, WorkerId};
use crate::outcome::{Death, Outcome, Returned, TaskError};
use crate::spec::Assignment;

pub(crate) use taken::Taken;

/// Worker to worker. Tasks are apart, so that nothing else is as long as they are.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum PeerMessage {
    /// Who ran a task, to its owner. Inline values of `outcome` are attached.
    Finished {
        /// The task.
        task: TaskId,
        /// Which try.
        attempt: u32,
        /// How it ended.
        outcome: Outcome,
    },
    /// Who runs a task that yields, to its owner. An inline value is attached; `Settled` answers
    /// as it does `Finished`.
    Yielded {
        /// The task.
        task: TaskId,
        /// Which try.
        attempt: u32,
        /// Which item.
        index: u32,
        /// What it is.
        value: Returned,
    },
    /// The task waits until so many of its items are taken; answered by `Credit`.
    CreditWanted {
        /// The task.
        task: TaskId,
        /// Which try.
        attempt: u32,
        /// How many.
        wanted: u32,
    },
    /// From the owner: so many items are taken.
    Credit {
        /// The task.
        task: TaskId,
        /// How many; `u32::MAX`: nobody will hold it back.
        consumed: u32,
    },
    /// To the owner, from where its consumer is: it has taken so many items.
    Consumed {
        /// The task.
        task: TaskId,
        /// How many.
        count: u32,
    },
    /// The owner counts every reference inside the values of a `Finished` now: the worker that
    /// ran the task need not keep them alive any longer. Sent only where there are some.
    Settled {
        /// The task.
        task: TaskId,
        /// Which try.
        attempt: u32,
    },
    /// A call, from the caller's worker to the worker where the actor lives; the sender owns its
    /// results.
    Call(Box<Assignment>),
    /// The receiver owns `object`: say where it is as soon as it exists. Or its owner is dead, and
    /// the receiver may keep a copy: say at once whether it does.
    Locate {
        /// The object.
        object: ObjectId,
        /// The sender fetches a copy as soon as it knows, and hands it on to others meanwhile.
        fetches: bool,
    },
    /// Answer of an owner, or of a keeper. An inline value is attached.
    Located {
        /// The object.
        object: ObjectId,
        /// Where it is.
        place: Place,
    },
    /// The sender refers to an object of the receiver.
    Retain {
        /// The object.
        object: ObjectId,
    },
    /// The owner counts the sender's reference now.
    Retained {
        /// The object.
        object: ObjectId,
    },
    /// The sender refers to it no longer.
    Release {
        /// The object.
        object: ObjectId,
    },
    /// The sender holds a copy now.
    CopyMade {
        /// The object.
        object: ObjectId,
    },
    /// The sender's copy is gone, or could not be read; it wants another place.
    CopyLost {
        /// The object.
        object: ObjectId,
        /// Whose copy it was.
        at: WorkerId,
    },
    /// The owner needs the receiver's copy no longer.
    Free {
        /// The object.
        object: ObjectId,
    },
    /// The sender owns the object: get a copy, and keep it until it is freed; answered by
    /// `CopyMade` or `NotKept`.
    Replicate {
        /// The object.
        object: ObjectId,
        /// Bytes.
        size: u64,
        /// Workers with a copy; the first, where to fetch it, may be receiving it still.
        copies: Vec<WorkerId>,
    },
    /// The sender was to keep a copy of an object of the receiver, and has none any longer.
    NotKept {
        /// The object.
        object: ObjectId,
    },
    /// The sender needs an object whose owner is dead, and runs tasks of the receiver.
    OwnerWanted {
        /// The object.
        object: ObjectId,
    },
    /// Answer; `Located` is another, where the sender has a copy.
    OwnerIs {
        /// The object.
        object: ObjectId,
        /// Who owns it now that it is made again; `None`: it is not.
        owner: Option<WorkerId>,
    },
    /// The receiver supervises `actor`: say where it lives, now and whenever that changes.
    ActorLocate {
        /// The actor.
        actor: ActorId,
    },
    /// Answer, and notice of a change.
    ActorLocated {
        /// The actor.
        actor: ActorId,
        /// Where it lives.
        place: ActorPlace,
    },
    /// From the worker where the actor lived, to its supervisor.
    ActorLost {
        /// The actor.
        actor: ActorId,
        /// Which life, counted from 0: the attempt of its creation.
        life: u32,
        /// How its process ended.
        death: Death,
    },
    /// From the worker where the actor lives, to its supervisor: the actor saved its state.
    ActorSaved {
        /// The actor.
        actor: ActorId,
        /// Which life.
        life: u32,
        /// Counted in that life.
        number: u64,
        /// What it saved; opaque.
        state: Vec<u8>,
        /// Calls in it that were not in the one before.
        calls: Vec<Applied>,
    },
    /// The supervisor has that state, and all before.
    SavedKept {
        /// The actor.
        actor: ActorId,
        /// Which life.
        life: u32,
        /// Which state.
        number: u64,
    },
    /// To the supervisor, from the worker that is to make the actor again.
    ActorStateWanted {
        /// The actor.
        actor: ActorId,
        /// Which life it is to be.
        life: u32,
    },
    /// A part of the answer.
    ActorNotes {
        /// The actor.
        actor: ActorId,
        /// From the question.
        life: u32,
        /// Calls that are in the saved state.
        calls: Vec<Applied>,
    },
    /// The last part of the answer.
    ActorStateSent {
        /// The actor.
        actor: ActorId,
        /// From the question.
        life: u32,
        /// What it saved last, if anything.
        state: Option<Vec<u8>>,
        /// Calls that are in it.
        calls: Vec<Applied>,
    },
    /// To the supervisor, and from it to the worker where the actor lives: these calls will not
    /// come again.
    CallsSettled {
        /// The actor.
        actor: ActorId,
        /// The calls.
        calls: Vec<TaskId>,
    },
    /// To the supervisor, and from it to the worker where the actor lives.
    ActorKill {
        /// The actor.
        actor: ActorId,
    },
    /// From the owner of a task to where it runs, or will.
    Cancel {
        /// The task.
        task: TaskId,
        /// Which try; earlier ones, too.
        attempt: u32,
        /// How.
        mode: CancelMode,
    },
    /// Answer to a `Cancel`.
    CancelHeard {
        /// The task.
        task: TaskId,
        /// Which try.
        attempt: u32,
        /// How.
        mode: CancelMode,
        /// Whether the sender has the task. Else it has ended there, which was said before, or it
        /// has not come.
        found: bool,
    },
    /// The receiver owns `task`, and the sender refers to a result of it: cancel it.
    CancelRequested {
        /// The task.
        task: TaskId,
        /// How.
        mode: CancelMode,
    },
    /// The sender is about to leave: values of the receiver that lie there alone are to be copied.
    Leaves,
    /// About a placement group.
    Group(GroupMessage),
}

impl PeerMessage {
    /// A call, for the actor's worker.
    pub fn call(assignment: Assignment) -> Self {
        Self::Call(Box::new(assignment))
    }
}

/// How a task is to be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
pub struct CancelMode {
    /// Kill its process if it runs, instead of asking. Not for calls of actors.
    pub force: bool,
    /// And what it has submitted, and so on.
    pub children: bool,
}

/// Where a value is.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Place {
    /// Attached to this message.
    Inline,
    /// In the arenas of these workers.
    At {
        /// Bytes of the value.
        size: u64,
        /// Workers with a sealed copy; the first, where to fetch it, may be receiving it still.
        copies: Vec<WorkerId>,
    },
    /// It will never be there.
    Failed(TaskError),
}

/// Where an actor lives.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ActorPlace {
    /// Not yet anywhere, or being made again: the owner will tell.
    Pending,
    /// On that worker.
    At {
        /// The worker.
        worker: WorkerId,
        /// Which life, counted from 0.
        life: u32,
    },
    /// Gone for good.
    Dead(TaskError),
}

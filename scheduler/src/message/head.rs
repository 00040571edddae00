//! What a worker and the head say to each other.
#![allow(missing_docs, reason = "rkyv derives archived fields without docs")]

use rkyv::{Archive, Deserialize, Serialize};

use super::GroupRequest;
use crate::id::{ActorId, GroupId, JobId, TaskId, WorkerId};
use crate::outcome::Outcome;
use crate::resource::Resources;
use crate::spec::Assignment;

/// Worker to head.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ToHead {
    /// What the worker has free and what waits there; sent when it changes, at most every few
    /// milliseconds.
    Load(Load),
    /// Tasks and actors that should run elsewhere.
    Spilled(Vec<Assignment>),
    /// Tasks that the head assigned have ended there (whatever the outcome); their resources are
    /// free. The outcome went to the owner.
    Ended(Vec<(TaskId, u32)>),
    /// A task or an actor that the head assigned, of a job with a quota, waits for objects and has
    /// given back its CPUs, or goes on.
    Blocked {
        /// The task, or the creation of the actor.
        task: TaskId,
        /// Which try.
        attempt: u32,
        /// Whether it waits.
        blocked: bool,
    },
    /// A driver ended.
    DriverFinished {
        /// The job.
        job: JobId,
        /// Which try.
        attempt: u32,
        /// How.
        outcome: Outcome,
    },
    /// Workers that the sender has dealings with since now, or since before the head was there:
    /// the head says which of them are gone, or will be said to be when it knows.
    Met(Vec<WorkerId>),
    /// An owner wants a task that it spilled back: drop it if it is not placed yet.
    Unspill {
        /// The task.
        task: TaskId,
    },
    /// Claims a cluster-wide name.
    ActorNamed {
        /// The name.
        name: String,
        /// The actor.
        actor: ActorId,
        /// Its supervisor.
        owner: WorkerId,
    },
    /// The named actor is gone for good.
    ActorUnnamed {
        /// The name.
        name: String,
        /// The actor that held it.
        actor: ActorId,
    },
    /// Asks who has a name.
    ActorLookup {
        /// Echoed in the answer.
        request: u64,
        /// The name.
        name: String,
    },
    /// A placement group wants workers for bundles that do not fit where it was asked for.
    GroupWanted(GroupRequest),
    /// It does so no longer.
    GroupUnwanted(GroupId),
    /// The sender wants to know all workers, now and whenever some come or go.
    MembersWanted,
    /// Asks what all workers offer.
    OffersWanted {
        /// Echoed in the answer.
        request: u64,
    },
}

/// What a worker has free, and what waits there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
pub struct Load {
    /// Free now, less what assigned tasks that still wait there (for dependencies, for an
    /// executor) will take. Less than nothing while unblocked tasks overlap.
    pub available: Resources,
    /// How many assignments of the head `available` takes into account, counted since the worker
    /// met a head that is `fresh`: the head subtracts the ones still on their way by itself. What
    /// a message [`ToHead::Ended`] gave back before counts as free, what a later one will give
    /// back does not.
    pub assignments: u64,
    /// Ready tasks that wait for resources and may run elsewhere, by what they ask for; at most
    /// [`Load::SHAPES`] entries, the most frequent first.
    pub backlog: Vec<(Resources, u32)>,
}

impl Load {
    /// Most entries of a backlog.
    pub const SHAPES: usize = 16;
}

/// Head to worker.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum FromHead {
    /// Run these.
    Assigned(Vec<Assignment>),
    /// To an owner: where its spilled tasks went.
    Placed(Vec<(TaskId, u32, WorkerId)>),
    /// To an owner: a spilled task waits in the head, and why (for `explain`).
    Waiting {
        /// The task.
        task: TaskId,
        /// One line for people.
        reason: String,
    },
    /// There is room elsewhere for `count` of the backlog's tasks of this shape: spill them.
    SpillRequested {
        /// What each asks for.
        request: Resources,
        /// At most so many.
        count: u32,
    },
    /// A worker leaves that has told all others all that it had to say: calls that it has not
    /// answered have not run.
    WorkerLeft {
        /// The worker.
        worker: WorkerId,
    },
    /// A worker is gone for good; it will come back only under another id.
    WorkerDied {
        /// The worker.
        worker: WorkerId,
        /// What happened.
        reason: String,
    },
    /// A job has ended: end its executors, forget its tasks and objects.
    JobEnded {
        /// The job.
        job: JobId,
    },
    /// Whether a claimed name was free.
    ActorNameResult {
        /// The name.
        name: String,
        /// The actor that claimed it.
        actor: ActorId,
        /// `None`: granted. Else who has it.
        taken_by: Option<ActorId>,
    },
    /// Answer to a look-up: the actor and its supervisor.
    ActorFound {
        /// From the question.
        request: u64,
        /// `None`: nobody has the name.
        actor: Option<(ActorId, WorkerId)>,
    },
    /// To a group's leader: these workers are told to reserve the bundles that it asked for, and
    /// will tell it.
    GroupPlaced {
        /// The group.
        group: GroupId,
        /// From the request.
        round: u32,
        /// One worker for each bundle of the request, in its order.
        workers: Vec<WorkerId>,
    },
    /// To who wants to know: all workers that do not leave.
    Members(Vec<WorkerId>),
    /// Answer to `OffersWanted`: all that each worker has that does not leave, whoever holds it.
    Offers {
        /// From the question.
        request: u64,
        /// In the order of the workers' ids.
        offers: Vec<(WorkerId, Resources)>,
    },
    /// To a group's leader: why it waits.
    GroupWaiting {
        /// The group.
        group: GroupId,
        /// One line for people.
        reason: String,
    },
}

//! What the worker's core is told.

use std::sync::Arc;

use crate::checkpoint::EndedCall;
use crate::id::{ActorId, ExecutorId, GroupId, JobId, ObjectId, TaskId, WorkerId};
use crate::message::{CancelMode, FromHead, PeerMessage};
use crate::outcome::{Death, Outcome, Returned, TaskError};
use crate::resource::Resources;
use crate::spec::{Reference, TaskSpec};

/// What happened on this worker, or was said to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalEvent {
    /// A process that the core asked for is connected and takes tasks.
    ExecutorStarted {
        /// The process.
        executor: ExecutorId,
    },
    /// It ended, or never started. Its messages are all handled by now.
    ExecutorDied {
        /// The process.
        executor: ExecutorId,
        /// How.
        death: Death,
    },
    /// Code in `by` submitted a task, made an actor or called one. It refers to every return.
    Submitted {
        /// The process.
        by: ExecutorId,
        /// The task. A repeated id is a no-op, but the submitter refers to the returns again.
        spec: Arc<TaskSpec>,
    },
    /// A task ended in `executor`; its values are in the runtime's table.
    Finished {
        /// The process.
        executor: ExecutorId,
        /// The task.
        task: TaskId,
        /// Which try, as given by `Run`.
        attempt: u32,
        /// How.
        outcome: Outcome,
    },
    /// `executor` saved the state of an actor, with calls that have ended since the last time;
    /// their values are in the runtime's table.
    Saved {
        /// The process.
        executor: ExecutorId,
        /// The actor.
        actor: ActorId,
        /// Its state after the last of the calls; opaque.
        state: Vec<u8>,
        /// The calls.
        calls: Vec<EndedCall>,
    },
    /// A task that runs in `executor` yields a value, which is in the runtime's table.
    Yielded {
        /// The process.
        executor: ExecutorId,
        /// The task.
        task: TaskId,
        /// Which try.
        attempt: u32,
        /// Which item.
        index: u32,
        /// What it is.
        value: Returned,
    },
    /// A task that runs in `executor` waits until so many of its items are taken.
    CreditWanted {
        /// The process.
        executor: ExecutorId,
        /// The task.
        task: TaskId,
        /// How many.
        wanted: u32,
    },
    /// A program here has taken so many items of a stream.
    Consumed {
        /// The task that yields them.
        task: TaskId,
        /// Its owner.
        owner: WorkerId,
        /// How many.
        count: u32,
    },
    /// `by` put a value, which is in the runtime's table, and refers to it.
    Put {
        /// The process.
        by: ExecutorId,
        /// The object.
        object: ObjectId,
        /// Bytes.
        size: u64,
        /// Whether it lies inline in the table instead of in the arena.
        inline: bool,
        /// In how many workers' arenas it is to be kept.
        copies: u32,
        /// References inside the value.
        contains: Vec<Reference>,
    },
    /// `by` has an object that has failed, and passes it on.
    PutFailed {
        /// The process.
        by: ExecutorId,
        /// The object.
        object: ObjectId,
        /// Why.
        error: TaskError,
    },
    /// `by` wants to call an actor without passing through here (see `local::direct`).
    RouteWanted {
        /// The process.
        by: ExecutorId,
        /// The actor.
        actor: ActorId,
    },
    /// `by` passes on the object of a direct call, or of a leased task, that has no answer yet.
    Promised {
        /// The process.
        by: ExecutorId,
        /// The call.
        spec: Arc<TaskSpec>,
        /// It was lost with that end of its actor, or of its host.
        lost: Option<Death>,
    },
    /// A promised call was answered, to `by`; its value is in the runtime's table.
    Answered {
        /// The process.
        by: ExecutorId,
        /// The call.
        task: TaskId,
        /// How.
        outcome: Outcome,
    },
    /// A direct call made a value that `caller` is to refer to; it is in the runtime's table.
    Made {
        /// Where the call ran.
        executor: ExecutorId,
        /// Who made the call.
        caller: ExecutorId,
        /// The object.
        object: ObjectId,
        /// The value.
        value: Returned,
    },
    /// `by` wants to give short tasks to its job's pool without passing through here (see
    /// `local::lease`).
    LeaseWanted {
        /// The process.
        by: ExecutorId,
    },
    /// A lease is over.
    LeaseOver {
        /// The host.
        executor: ExecutorId,
        /// Whose lease it was.
        caller: ExecutorId,
        /// Which.
        number: u64,
        /// What ran by it, and goes on as [`LEASED_ATTEMPT`](super::LEASED_ATTEMPT).
        running: Option<Arc<TaskSpec>>,
    },
    /// `by`, which refers to the object, waits for it to be readable here.
    Wanted {
        /// The process.
        by: ExecutorId,
        /// The object.
        reference: Reference,
    },
    /// `by` got hold of a reference out of an argument or a value. Nested counts: each process is
    /// one holder, however many references it has inside.
    Retained {
        /// The process.
        by: ExecutorId,
        /// The object.
        reference: Reference,
    },
    /// `by` refers to it no longer, and reads it no longer.
    Released {
        /// The process.
        by: ExecutorId,
        /// The object.
        object: ObjectId,
    },
    /// The task waits for objects: its CPUs are free meanwhile.
    Blocked {
        /// The process.
        executor: ExecutorId,
        /// The task.
        task: TaskId,
        /// Which try, as given by `Run`.
        attempt: u32,
    },
    /// It goes on.
    Unblocked {
        /// The process.
        executor: ExecutorId,
        /// The task.
        task: TaskId,
        /// Which try, as given by `Run`.
        attempt: u32,
    },
    /// The executor has forgotten the tasks that waited for their turn; it took no turn between
    /// that and saying so.
    Recalled {
        /// The process.
        executor: ExecutorId,
    },
    /// Somebody here wants a task ended.
    CancelRequested {
        /// The task.
        task: TaskId,
        /// Its owner.
        owner: WorkerId,
        /// How.
        mode: CancelMode,
    },
    /// Somebody here wants an actor ended for good.
    ActorKillRequested {
        /// The actor.
        actor: ActorId,
        /// Its supervisor.
        owner: WorkerId,
    },
    /// Somebody here gives a placement group back: what is in it ends.
    GroupRemoveRequested {
        /// The group.
        group: GroupId,
        /// The worker that leads it.
        owner: WorkerId,
    },
    /// Somebody here asks what all workers offer.
    OffersWanted {
        /// The process.
        by: ExecutorId,
        /// Echoed in the answer.
        request: u64,
    },
    /// Somebody here asks for an actor by name.
    ActorLookup {
        /// The process.
        by: ExecutorId,
        /// Echoed in the answer.
        request: u64,
        /// The name.
        name: String,
    },
    /// A pull is complete: the object is sealed in the arena here.
    Pulled {
        /// The object.
        object: ObjectId,
        /// Bytes.
        size: u64,
    },
    /// A pull failed: the copy, or the way to it, is gone.
    PullFailed {
        /// The object.
        object: ObjectId,
        /// Where from.
        from: WorkerId,
    },
    /// The copy here, which the core counts, can no longer be read: it was damaged on disk.
    CopyUnreadable {
        /// The object.
        object: ObjectId,
    },
    /// A plain task that was to run has not been given to its executor, because one of its
    /// dependencies can no longer be read here.
    NotStarted {
        /// The process.
        executor: ExecutorId,
        /// The task.
        task: TaskId,
        /// Which try, as given by `Run`.
        attempt: u32,
    },
    /// A worker said something.
    FromPeer {
        /// The worker.
        from: WorkerId,
        /// What it said.
        message: PeerMessage,
    },
    /// The head said something.
    FromHead(FromHead),
    /// A head is there: at first, or again. `fresh`: it lost what it knew about this worker's
    /// messages, so that spilled and named things are told again.
    HeadFound {
        /// Whether it lost what it knew.
        fresh: bool,
    },
    /// The head does not answer. Local work goes on; spilled tasks wait.
    HeadLost,
    /// The worker is leaving: nothing new starts here.
    Drain,
    /// A job gets more than others where both want something, or less.
    JobWeighed {
        /// The job.
        job: JobId,
        /// Its part is this many times that of a job which nothing is said of.
        weight: u32,
    },
    /// A job may hold no more than that at a time, over the whole cluster; said before anything of
    /// it runs here. Where it is zero, there is no limit.
    JobLimited {
        /// The job.
        job: JobId,
        /// The most.
        quota: Resources,
    },
    /// The driver of a job, which starts here, submits tasks as soon as it runs: the pooled process
    /// for them is started beside it where a CPU is free, instead of one after the other.
    PoolExpected {
        /// The job.
        job: JobId,
    },
    /// A job's executors here are to end, as after [`FromHead::JobEnded`].
    JobEnded {
        /// The job.
        job: JobId,
    },
}

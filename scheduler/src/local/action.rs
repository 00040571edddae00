//! What the worker's core wants done. The runtime does it, in order, and decides nothing.

use std::sync::Arc;

use super::LeaseEnd;
use crate::id::{ActorId, ExecutorId, JobId, ObjectId, TaskId, WorkerId};
use crate::message::{PeerMessage, ToHead};
use crate::outcome::{Death, TaskError};
use crate::resource::Resources;
use crate::spec::TaskSpec;

/// What an executor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExecutorRole {
    /// Runs the job's tasks and light actors, many at a time.
    Pool,
    /// Runs tasks that ask for memory, one at a time, so that it can be held to what they ask for;
    /// or a single one that asks for GPUs, which it sees alone.
    Alone,
    /// Runs the job's main function alone.
    Driver,
    /// Runs one actor alone.
    Actor(ActorId),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalAction {
    /// Start a process for the job; answered by `ExecutorStarted` or `ExecutorDied`.
    StartExecutor {
        /// The process-to-be.
        executor: ExecutorId,
        /// Whose program.
        job: JobId,
        /// What for.
        role: ExecutorRole,
        /// What it may use: limits and the number of intra-op threads follow from it.
        resources: Resources,
        /// The GPUs that it may see, by their number among the worker's.
        gpus: Vec<u32>,
    },
    /// End a process; answered by `ExecutorDied`. Not `force`: it may finish its output first.
    StopExecutor {
        /// The process.
        executor: ExecutorId,
        /// Kill it at once.
        force: bool,
    },
    /// Run a task. Every dependency is readable in the table here and stays so until the task
    /// has ended.
    Run {
        /// Where.
        executor: ExecutorId,
        /// What.
        spec: Arc<TaskSpec>,
        /// Which try.
        attempt: u32,
    },
    /// Run a task, which depends on nothing, when a turn later than `after` comes (see
    /// `local::ahead`).
    RunAhead {
        /// Where.
        executor: ExecutorId,
        /// What.
        spec: Arc<TaskSpec>,
        /// Which try.
        attempt: u32,
        /// The last turn that was heard of.
        after: u64,
    },
    /// Let the executor forget the tasks that wait for their turn; answered by `Recalled`.
    Recall {
        /// Which.
        executor: ExecutorId,
    },
    /// The actor that `executor` is to make next is made from this saved state.
    Restore {
        /// Where.
        executor: ExecutorId,
        /// The actor.
        actor: ActorId,
        /// What was saved; opaque.
        state: Vec<u8>,
    },
    /// Take an inline value into the table: the result of a call that is not run again.
    Keep {
        /// The object.
        object: ObjectId,
        /// Its bytes; opaque.
        value: Vec<u8>,
    },
    /// Tell `executor` that an object it wanted is readable (it is in the table), or failed.
    Deliver {
        /// To whom.
        executor: ExecutorId,
        /// The object.
        object: ObjectId,
        /// Why it will never be there.
        error: Option<Arc<TaskError>>,
    },
    /// Ask a running task to end itself.
    Cancel {
        /// Where it runs.
        executor: ExecutorId,
        /// The task.
        task: TaskId,
    },
    /// Tell a running task how many of its items are taken.
    Credit {
        /// Where it runs.
        executor: ExecutorId,
        /// The task.
        task: TaskId,
        /// How many.
        consumed: u32,
    },
    /// End an actor that shares its executor with others. Its calls there are answered; they
    /// keep their arguments until the executor says `Finished` of each, or dies.
    DropActor {
        /// Where it lives.
        executor: ExecutorId,
        /// The actor.
        actor: ActorId,
    },
    /// Answer to `RouteWanted`. Calls that were given to the actor's executor by now come before
    /// direct ones.
    Route {
        /// Who asked.
        caller: ExecutorId,
        /// The actor.
        actor: ActorId,
        /// Where it lives; `None`: it cannot be called directly now.
        executor: Option<ExecutorId>,
    },
    /// Direct calls that have no answer are lost.
    RouteEnded {
        /// Who was granted the route.
        caller: ExecutorId,
        /// The actor.
        actor: ActorId,
        /// How its life ended.
        death: Death,
    },
    /// Answer to `LeaseWanted`.
    Lease {
        /// Who asked.
        caller: ExecutorId,
        /// The host, and the lease's number; `None`: not now.
        granted: Option<(ExecutorId, u64)>,
    },
    /// Ask a host for a lease; answered by `LeaseOver`, or by its death.
    EndLease {
        /// The host.
        executor: ExecutorId,
        /// Whose lease.
        caller: ExecutorId,
        /// Which.
        number: u64,
        /// How.
        how: LeaseEnd,
    },
    /// Answer to the question what all workers offer.
    Offers {
        /// Who asked.
        executor: ExecutorId,
        /// From the question.
        request: u64,
        /// All that each worker has that does not leave.
        offers: Vec<(WorkerId, Resources)>,
    },
    /// Answer to a look-up by name.
    ActorFound {
        /// Who asked.
        executor: ExecutorId,
        /// From the question.
        request: u64,
        /// The actor and its supervisor.
        actor: Option<(ActorId, WorkerId)>,
    },
    /// Fetch a copy into the arena here; answered by `Pulled` or `PullFailed`.
    Pull {
        /// The object.
        object: ObjectId,
        /// Bytes.
        size: u64,
        /// Whose copy.
        from: WorkerId,
    },
    /// Take a value of nothing (`()`) into the table, as the inline value of the object.
    PutNothing {
        /// The object.
        object: ObjectId,
    },
    /// Forget the value: nobody here needs it any longer.
    Free {
        /// The object.
        object: ObjectId,
    },
    /// Say something to a worker. Inline values that the message announces are attached.
    Send {
        /// To whom.
        to: WorkerId,
        /// What.
        message: PeerMessage,
    },
    /// Say something to the head.
    SendHead(ToHead),
}

//! Between a worker and its executors, through two rings in shared memory and one Unix socket.
//!
//! ```text
//! worker ──ToExecutor ring──► executor      hot: tasks, values that became readable
//! worker ◄─FromExecutor ring─ executor      hot: submits, results, references
//! worker ◄────Unix socket────► executor     cold: Welcome, segments' descriptors, end of life
//! ```
//! Participants: one worker, one executor that it started; the socket is the executor's inherited
//! descriptor, and its end of file is the death notice of either side. Not a goal: any other
//! process. Each ring frame is one archived message of at most [`MAX_PIECED_FRAME_BYTES`]; what is
//! larger lies in the arena and is named by a [`Block`]. The worker treats all of it as hostile
//! input.
#![allow(missing_docs, reason = "rkyv derives archived fields without docs")]

use rdist_scheduler::id::{ActorId, ExecutorId, GroupId, JobId, ObjectId, TaskId, WorkerId};
use rdist_scheduler::local::LeaseEnd;
use rdist_scheduler::message::CancelMode;
use rdist_scheduler::outcome::{Death, Outcome, TaskError};
use rdist_scheduler::resource::Resources;
use rdist_scheduler::spec::{Reference, TaskSpec};
use rkyv::with::{AsBox, Map};
use rkyv::{Archive, Deserialize, Serialize};

/// Largest frame that goes through a ring in one piece.
pub const MAX_FRAME_BYTES: usize = 256 << 10;
/// Largest frame; a value with a million references inside is announced by 32 MB.
pub const MAX_PIECED_FRAME_BYTES: usize = 64 << 20;
/// Values up to this size ride inline; larger ones lie in the arena.
pub const MAX_INLINE_BYTES: usize = 4 << 10;
/// Largest `TaskSpec::body`; argument values that do not fit are put into the arena first.
pub const MAX_BODY_BYTES: usize = 64 << 10;
/// Most values that a task returns.
pub const MAX_RETURNS: u32 = 100_000;
/// Most objects that a task depends on: their values, if all are inline, fit into a frame.
pub const MAX_DEPENDENCIES: usize = 15_000;
/// Largest saved state of an actor.
pub const MAX_STATE_BYTES: usize = 1 << 20;
/// Most calls whose ends are told with one saved state.
pub const MAX_SAVED_CALLS: usize = 64;
/// Longest error text of user code; longer ones are cut in the middle.
pub const MAX_ERROR_BYTES: usize = 32 << 10;

/// A sealed block of the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
pub struct Block {
    /// The segment, numbered by the worker.
    pub segment: u32,
    /// First byte of the value, a multiple of 64.
    pub offset: u64,
    /// Bytes of the value.
    pub len: u64,
}

/// Where a value's bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Value {
    /// Here.
    Inline(Vec<u8>),
    /// In the arena.
    Block(Block),
}

/// What becomes of a detached actor.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Detached {
    /// It has its name, and is made or being made.
    Named {
        /// The actor.
        actor: ActorId,
        /// Its supervisor.
        owner: WorkerId,
    },
    /// Another one has the name.
    NameTaken {
        /// Who.
        by: ActorId,
    },
    /// It will not be made.
    Refused {
        /// Why.
        reason: String,
    },
}

/// The end of a call, told with the state that it left.
#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
pub struct CallEnd {
    /// The call.
    pub task: TaskId,
    /// Which try, from `Run`.
    pub attempt: u32,
    /// How.
    pub outcome: Outcome,
    /// The returned values.
    pub values: Vec<Value>,
}

/// Executor to worker, through the ring.
#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
pub enum FromExecutor {
    /// First message: the program's functions, for names that people read.
    Hello {
        /// Function ids and names.
        functions: Vec<(u64, String)>,
    },
    /// Submits a task, makes an actor or calls one.
    Submit(#[rkyv(with = AsBox)] TaskSpec),
    /// A task ended. `values` has one entry for each return of a successful outcome.
    Finished {
        /// The task.
        task: TaskId,
        /// Which try, from `Run`.
        attempt: u32,
        /// How.
        outcome: Outcome,
        /// The returned values.
        values: Vec<Value>,
    },
    /// An actor saved its state; calls that ended before are in it.
    Saved {
        /// The actor.
        actor: ActorId,
        /// At most [`MAX_STATE_BYTES`].
        state: Vec<u8>,
        /// At most [`MAX_SAVED_CALLS`].
        calls: Vec<CallEnd>,
    },
    /// A task that runs here yields a value.
    Yielded {
        /// The task.
        task: TaskId,
        /// Which try, from `Run`.
        attempt: u32,
        /// Which item.
        index: u32,
        /// The value.
        value: Value,
        /// References inside it.
        contains: Vec<Reference>,
    },
    /// It waits until so many of its items are taken; answered by `Credit`.
    CreditWanted {
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
    /// A value was put; a block lies in a segment that this executor may write.
    Put {
        /// The object.
        object: ObjectId,
        /// The value.
        value: Value,
        /// In how many copies it is to be kept, one on each worker.
        copies: u32,
        /// References inside it.
        contains: Vec<Reference>,
    },
    /// An object that has failed, and of which the worker knows nothing, is passed on.
    PutFailed {
        /// The object.
        object: ObjectId,
        /// Why.
        #[rkyv(with = AsBox)]
        error: TaskError,
    },
    /// Wants to call an actor directly (see [`direct`](super::direct)); answered by `Route`.
    RouteWanted(ActorId),
    /// The object of a direct call, or of a leased task, without an answer is passed on.
    Promised {
        /// The call.
        #[rkyv(with = AsBox)]
        spec: TaskSpec,
        /// It was lost with that end of its actor, or of its host.
        lost: Option<Death>,
    },
    /// The answer to a promised call.
    Answered {
        /// The call.
        task: TaskId,
        /// How it ended.
        outcome: Outcome,
        /// The returned values.
        values: Vec<Value>,
    },
    /// A direct call made a value here that does not go through a ring.
    Made {
        /// Who made the call.
        caller: ExecutorId,
        /// The object.
        object: ObjectId,
        /// The value.
        value: Value,
        /// References inside it.
        contains: Vec<Reference>,
    },
    /// Wants to give short tasks to the job's pool itself (see [`direct`](super::direct)); answered
    /// by `Lease`.
    LeaseWanted,
    /// A lease is over here.
    LeaseOver {
        /// Whose.
        caller: ExecutorId,
        /// Its number.
        number: u64,
        /// What ran by it, and goes on as other tasks do.
        #[rkyv(with = Map<AsBox>)]
        running: Option<TaskSpec>,
    },
    /// Waits for an object.
    Wanted(Reference),
    /// Got hold of a reference that was inside an argument or a value.
    Retained(Reference),
    /// Dropped its last reference and its last view.
    Released(ObjectId),
    /// That try of a task waits for objects.
    Blocked(TaskId, u32),
    /// It goes on.
    Unblocked(TaskId, u32),
    /// What waited for its turn is forgotten.
    Recalled,
    /// Asks for a task's end.
    Cancel {
        /// The task.
        task: TaskId,
        /// Its owner.
        owner: WorkerId,
        /// How.
        mode: CancelMode,
    },
    /// Asks for an actor's end.
    KillActor {
        /// The actor.
        actor: ActorId,
        /// Its supervisor.
        owner: WorkerId,
    },
    /// Makes a detached actor: the task that makes it, with a name and without objects, becomes
    /// a job of its own. Answered by `Detached`.
    Detach(#[rkyv(with = AsBox)] TaskSpec),
    /// Gives a placement group back.
    RemoveGroup {
        /// The group.
        group: GroupId,
        /// The worker that leads it.
        owner: WorkerId,
    },
    /// Asks what all workers offer.
    OffersWanted {
        /// Echoed in the answer.
        request: u64,
    },
    /// Asks for an actor by name.
    ActorLookup {
        /// Echoed in the answer.
        request: u64,
        /// The name.
        name: String,
    },
    /// Needs a segment to write into, with room for `len` bytes in one block. Answered over the
    /// socket by `Segment` (writable) or `SegmentRefused`; not at once where room has to be made.
    SegmentWanted {
        /// Bytes; 0: room was found, what was asked for is no longer needed.
        len: u64,
    },
    /// Answer to `MemoryWanted`.
    MemoryGiven {
        /// Objects that are not read here any longer, until they are wanted again.
        objects: Vec<ObjectId>,
        /// Segments of this executor without a block, which it no longer writes.
        segments: Vec<u32>,
    },
    /// A driver's event for who submitted the job: one JSON object in text.
    Event(String),
}

/// Worker to executor, through the ring.
#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
pub enum ToExecutor {
    /// Run a task.
    Run {
        /// The task.
        #[rkyv(with = AsBox)]
        spec: TaskSpec,
        /// Which try.
        attempt: u32,
        /// Values of `spec.dependencies`, in their order.
        dependencies: Vec<Value>,
        /// `None`: at once. Else when a turn later than that one comes: a task that takes turns
        /// ends or blocks.
        after: Option<u64>,
    },
    /// Forget the tasks that wait for their turn; answered by `Recalled`.
    Recall,
    /// The actor that is made next is made from this.
    Restore {
        /// The actor.
        actor: ActorId,
        /// What it saved.
        state: Vec<u8>,
    },
    /// A wanted object is readable until it is released.
    Ready {
        /// The object.
        object: ObjectId,
        /// Its value.
        value: Value,
    },
    /// A wanted object will never be readable.
    Failed {
        /// The object.
        object: ObjectId,
        /// Why.
        #[rkyv(with = AsBox)]
        error: TaskError,
    },
    /// The task should end itself.
    Cancel(TaskId),
    /// So many items of a running task are taken.
    Credit {
        /// The task.
        task: TaskId,
        /// How many.
        consumed: u32,
    },
    /// The actor ends; its pending calls are answered by the worker.
    DropActor(ActorId),
    /// Answer to `OffersWanted`: all that each worker has that does not leave.
    Offers {
        /// From the question.
        request: u64,
        /// In the order of the workers' ids.
        offers: Vec<(WorkerId, Resources)>,
    },
    /// Answer to a look-up: the actor and its supervisor.
    ActorFound {
        /// From the question.
        request: u64,
        /// `None`: nobody has the name.
        actor: Option<(ActorId, WorkerId)>,
    },
    /// Answer to a `Detach`.
    Detached {
        /// The task that it named.
        task: TaskId,
        /// What became of it.
        answer: Detached,
    },
    /// Direct calls of that executor which name this number come after all messages before this
    /// one. The first one of a caller comes with `Link` over the socket.
    Fence {
        /// Counts up.
        number: u64,
        /// The caller.
        caller: ExecutorId,
    },
    /// Answer to `RouteWanted`.
    Route {
        /// The actor.
        actor: ActorId,
        /// Where it lives, and the number of the fence there; `None`: not now. The first one to
        /// an executor comes with `Link` over the socket.
        granted: Option<(ExecutorId, u64)>,
    },
    /// The actor cannot be called directly any longer; calls without an answer are lost.
    RouteEnded {
        /// The actor.
        actor: ActorId,
        /// How its life ended.
        death: Death,
    },
    /// The executor has ended, and with it its rings.
    LinkEnded {
        /// Which.
        peer: ExecutorId,
        /// How.
        death: Death,
    },
    /// A direct call has made this object, or a task that has left its lease will; this executor
    /// is counted to refer to it.
    Made(ObjectId),
    /// Answer to `LeaseWanted`.
    Lease {
        /// The host, the number of the fence there, and the lease's; `None`: not now. The first
        /// one to an executor comes with `Link` over the socket.
        granted: Option<(ExecutorId, u64, u64)>,
    },
    /// That executor's lease is wanted back; answered by `LeaseOver`.
    EndLease {
        /// Whose.
        caller: ExecutorId,
        /// Its number.
        number: u64,
        /// How.
        how: LeaseEnd,
    },
    /// Blocks of this executor's segments that nobody needs any longer: use them again.
    Reclaim(Vec<Block>),
    /// The store has no room: give up what is not in use. Answered by `MemoryGiven`.
    MemoryWanted {
        /// Objects whose values this executor was told.
        objects: Vec<ObjectId>,
    },
    /// Finish writing output and exit with status 0.
    Shutdown,
}

/// Worker to executor, over the socket; descriptors are attached where the text says so.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum SocketMessage {
    /// First message. Attached: the rings' segment, the worker's bell, the executor's bell.
    Welcome {
        /// Who the executor is.
        executor: ExecutorId,
        /// Its worker.
        worker: WorkerId,
        /// The job that it works for.
        job: JobId,
        /// Bytes of each ring's data area.
        ring_bytes: u64,
    },
    /// To a process that was started ahead of need, before its `Welcome`, which comes over another
    /// socket. Attached: that socket, standard output, and standard error.
    Begin {
        /// Its variables, `NAME=VALUE` each; those that it was started with count no longer.
        environment: Vec<Vec<u8>>,
        /// Where it works.
        folder: Option<Vec<u8>>,
        /// Bytes of data that it may have (`RLIMIT_DATA`).
        data_limit: Option<u64>,
    },
    /// A segment of the arena. Attached: its descriptor; it can be mapped writable only where
    /// `writable` says so. Sent before the first ring message that names the segment.
    Segment {
        /// Its number.
        segment: u32,
        /// Its size in bytes.
        len: u64,
        /// Whether this executor may write.
        writable: bool,
    },
    /// Rings with another executor. Attached: their segment, the other's bell.
    Link {
        /// The other.
        peer: ExecutorId,
        /// Whether this executor makes the calls, or answers them.
        is_caller: bool,
        /// Bytes of each ring's data area.
        ring_bytes: u64,
    },
    /// No segment can be had for a `SegmentWanted`.
    SegmentRefused {
        /// Why, and what to do.
        reason: String,
    },
}

/// First byte of a mark in an executor's output; no text has it (it is ASCII's record separator).
pub const MARK: u8 = 0x1e;
/// Length of a mark: its first byte and 32 hexadecimal digits.
pub const MARK_BYTES: usize = 33;

/// What an executor puts before bytes that another task prints than the bytes before. Zeros: it is
/// not known whose the bytes are.
pub fn mark_output(task: Option<TaskId>) -> [u8; MARK_BYTES] {
    let mut mark = [b'0'; MARK_BYTES];
    mark[0] = MARK;
    if let Some(task) = task {
        let name = task.to_string();
        if let Some(digits) = name.as_bytes().last_chunk::<{ MARK_BYTES - 1 }>() {
            mark[1..].copy_from_slice(digits);
        }
    }
    mark
}

/// Whose the bytes after a mark are; an error where it is no mark.
pub fn read_mark(mark: &[u8; MARK_BYTES]) -> Result<Option<TaskId>, NoMark> {
    let digits = std::str::from_utf8(&mark[1..]).map_err(|_| NoMark)?;
    let task: TaskId = digits.parse().map_err(|_| NoMark)?;
    Ok(Some(task).filter(|task| *task != TaskId::default()))
}

/// Bytes that look like a mark in an executor's output, and are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no mark")]
pub struct NoMark;

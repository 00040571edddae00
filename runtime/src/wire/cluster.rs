//! Between a worker and the head, and between two workers, over QUIC.
//!
//! A connection's first bidirectional stream is the link: numbered frames in order, repeated after
//! a broken connection (`transport::link`). A frame holds one archived [`WorkerToHead`],
//! [`HeadToWorker`] or [`PeerFrame`]. Every further bidirectional stream starts with one archived
//! [`StreamRequest`] from whoever opened it, answered by a [`StreamReply`] and then the bytes.
#![allow(missing_docs, reason = "rkyv derives archived fields without docs")]

use rdist_scheduler::id::{JobId, ObjectId, TaskId, WorkerId};
use rdist_scheduler::message::{FromHead, Held, PeerMessage, ToHead};
use rdist_scheduler::resource::Resources;
use rdist_scheduler::spec::TaskSpec;
use rkyv::{Archive, Deserialize, Serialize};

use super::executor::Detached;
use super::files::{BlobHash, JobFiles, SmallFile};

/// Largest link frame.
pub const MAX_LINK_FRAME_BYTES: usize = 16 << 20;
/// Largest blob: a program, or a file of a job.
pub const MAX_BLOB_BYTES: u64 = 16 << 30;

/// Worker to head.
#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
pub enum WorkerToHead {
    /// First frame to a head that does not know this worker's link.
    Register(Registration),
    /// From core to core.
    Core {
        /// Of all that this worker's core says to anybody: grows with each, so that one that comes
        /// twice is taken once.
        number: u64,
        /// What.
        message: ToHead,
    },
    /// What is known of a job is wanted.
    JobWanted(JobId),
    /// Something that a job said, for who follows it.
    Said {
        /// Grows by one with each that this worker sends; a head that finds the number in the
        /// job's file already has been told before it was killed.
        number: u64,
        /// What.
        said: Said,
    },
    /// A program wants a detached actor; answered by `Detached`. A repeated task is a no-op that
    /// is answered again.
    Detach {
        /// The task that makes it, of the job whose program it is.
        spec: TaskSpec,
    },
    /// Answer to a `Query`: JSON text.
    Answer {
        /// From the query.
        request: u64,
        /// JSON: for a list an object with the `rows` and, where some were left out, how many there
        /// are in `total`; an object for explanations, `null` for not known.
        json: String,
    },
    /// What its store holds; sent when that has changed, now and then.
    Usage(WorkerUsage),
    /// The worker leaves by its own will.
    Leaving {
        /// Every other worker has acknowledged all that this one has said to it.
        told: bool,
    },
}

/// What a worker's store holds, and what else people are told of the worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct WorkerUsage {
    /// Bytes of objects in shared memory.
    pub live_bytes: u64,
    /// Bytes of objects on disk, some of them in memory as well.
    pub spilled_bytes: u64,
    /// Objects on disk.
    pub spilled_files: u64,
    /// How it holds executors to what they asked for: `cgroup v2`, `cgroup v1`,
    /// `rlimit, watch (memory alone)`.
    pub limits: String,
}

/// Who a worker is.
#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
pub struct Registration {
    /// This incarnation.
    pub worker: WorkerId,
    /// Host name, for people.
    pub host: String,
    /// Process id, for people.
    pub pid: u32,
    /// Where other workers reach it, `HOST:PORT`; host `0.0.0.0`: where its packets come from.
    pub address: String,
    /// All that it has.
    pub total: Resources,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// Bytes of its arena.
    pub store_bytes: u64,
    /// What a head had assigned to it.
    pub held: Held,
}

/// What a job says.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Said {
    /// Output of one of its processes.
    Output(Output),
    /// An event of its driver.
    Event {
        /// The job.
        job: JobId,
        /// One JSON object.
        json: String,
    },
}

/// Some lines of output.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Output {
    /// The job.
    pub job: JobId,
    /// Where.
    pub worker: WorkerId,
    /// Which task, where that is known.
    pub task: Option<TaskId>,
    /// Who wrote, for people: `driver`, `pool`, `actor Replica`.
    pub source: String,
    /// Standard error instead of standard output.
    pub stderr: bool,
    /// Whole lines, each ended by a line feed; bytes that are no UTF-8 are replaced.
    pub text: String,
}

/// Head to worker.
#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
pub enum HeadToWorker {
    /// The head knows the worker now.
    Registered {
        /// Grows with every start of the head; a worker that sees a new one registers again.
        epoch: u64,
    },
    /// From core to core.
    Core {
        /// Grows with each, also from one head to the next one in its place.
        number: u64,
        /// What.
        message: FromHead,
    },
    /// A member that the worker may have to talk to; sent for all at registration, then for each
    /// that joins, and again with another address for one that has moved.
    Member {
        /// The member.
        worker: WorkerId,
        /// Its address.
        address: String,
    },
    /// Answer to `JobWanted`; sent also unasked before the first task of the job.
    Job(JobInfo),
    /// Answer to a `Detach`.
    Detached {
        /// The task that it named.
        task: TaskId,
        /// What became of it.
        answer: Detached,
    },
    /// Something that a person asks; answered by `Answer`.
    Query {
        /// Echoed in the answer.
        request: u64,
        /// What.
        query: Query,
    },
    /// Take nothing new, then leave when nothing runs.
    Drain,
    /// End now: the head was told to end the cluster, or this worker.
    Shutdown,
    /// It was silent for too long: what it ran was given to others. It ends all of that, and may
    /// join again as another worker.
    GivenUp,
}

/// How to run a job's executors.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct JobInfo {
    /// The job.
    pub job: JobId,
    /// For people.
    pub name: String,
    /// What to run.
    pub program: BlobHash,
    /// Its arguments, after the program's name.
    pub arguments: Vec<String>,
    /// Environment variables, added to the worker's.
    pub environment: Vec<(String, String)>,
    /// Where relative paths start, if that folder exists on the worker; `files` goes before.
    pub working_directory: String,
    /// Folders that travel with the job.
    pub files: JobFiles,
    /// The driver's files instead of such a folder, where they are few and small; ordered by name.
    pub small_files: Vec<SmallFile>,
    /// It gets this many times what a job of weight 1 gets, where both want more.
    pub weight: u32,
    /// The most that it may hold at a time, over the whole cluster; zero is no limit.
    pub quota: Resources,
    /// Its driver submits tasks as soon as it runs: a process for them is started beside it.
    pub eager_pool: bool,
}

/// What a person can ask about a worker.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Query {
    /// What there is.
    List {
        /// Of which kind.
        what: Things,
        /// Most rows of the answer.
        limit: u32,
    },
    /// Why a task or an actor is where it is; by id in text.
    Explain(String),
}

/// What a worker can list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Things {
    /// Tasks that it owns or runs.
    Tasks,
    /// Actors that it supervises or hosts.
    Actors,
    /// Objects that it owns or holds.
    Objects,
    /// Placement groups that it leads.
    Groups,
}

/// Worker to worker.
#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
pub struct PeerFrame {
    /// As in [`WorkerToHead::Core`].
    pub number: u64,
    /// From core to core.
    pub message: PeerMessage,
    /// Inline values that the message announces.
    pub values: Vec<(ObjectId, Vec<u8>)>,
}

/// First frame of a stream that moves bytes.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum StreamRequest {
    /// The bytes of a blob, from the head.
    Blob(BlobHash),
    /// The bytes of an object, from a worker that has a sealed copy.
    Object {
        /// Which.
        object: ObjectId,
        /// The asker's machine, where it would rather read the bytes there than have them sent.
        host: Option<HostId>,
        /// Bytes of its beginning that the asker has, from before a connection broke: what is sent
        /// begins after them.
        from: u64,
    },
}

/// Names a machine, as far as processes can reach each other's memory on it.
pub type HostId = [u8; 32];

/// Where an object's bytes lie on a machine.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Place {
    /// The process that has the file open.
    pub process: u32,
    /// Its descriptor there.
    pub descriptor: i32,
    /// The file's inode.
    pub inode: u64,
    /// Where the object begins, in bytes.
    pub offset: u64,
    /// How many bytes it has.
    pub len: u64,
}

/// Answer to a [`StreamRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum StreamReply {
    /// It has so many bytes. Those that the asker does not have follow, then the stream ends.
    Bytes(u64),
    /// The asker is on the same machine and finds the bytes there until it closes the stream.
    Here(Place),
    /// It is not here.
    Missing,
}

//! Between a client and the head, over QUIC.
//!
//! ```text
//! client ──ClientRequest [bytes of blobs]───► head     one bidirectional stream for each request
//! client ◄──ClientReply [bytes of updates]─── head
//! ```
//! Participants: somebody with a client's certificate, or a read-only one, which may only look
//! ([`ClientRequest::changes`]); the head. Limits: a request has at most [`MAX_REQUEST_BYTES`], a
//! reply [`MAX_REPLY_BYTES`]. After `Watching`, the stream carries the job's updates: one JSON
//! object in each line, the form that the head keeps them in ([`JobUpdate`]), until the job has
//! ended and the stream with it.
#![allow(missing_docs, reason = "rkyv derives archived fields without docs")]

use super::cluster::WorkerUsage;
use rdist_scheduler::id::{JobId, WorkerId};
use rdist_scheduler::resource::Resources;
use rkyv::{Archive, Deserialize, Serialize};

use super::files::{BlobHash, JobFiles, SmallFile};
use super::join::Role;

/// Largest request.
pub const MAX_REQUEST_BYTES: usize = 4 << 20;
/// Largest reply.
pub const MAX_REPLY_BYTES: usize = 64 << 20;
/// Longest line of a job's updates.
pub const MAX_UPDATE_BYTES: usize = 64 << 20;

/// Client to head.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ClientRequest {
    /// Which of these blobs does the head lack? Answered by `Lacking`.
    Lacking(Vec<BlobHash>),
    /// The bytes of these blobs follow, so many of each. Answered by `Done` once all are durable.
    Upload(Vec<(BlobHash, u64)>),
    /// Run a program that the head has. Answered by `Submitted` once the job is durable; one whose
    /// id the head knows is no other job, and is answered again.
    Submit(Submission),
    /// All that a job says. Answered by `Watching` and the updates.
    Watch {
        /// The job.
        job: JobId,
        /// From its first update, instead of what comes from now on.
        from_start: bool,
    },
    /// All jobs. Answered by `Jobs`.
    Jobs,
    /// The cluster. Answered by `Status`.
    Status,
    /// End a job. Answered by `Done`.
    StopJob(JobId),
    /// What there is. Answered by `Json`, an object with `rows` and the `total` that there are.
    List {
        /// Of which kind.
        what: Listed,
        /// Most rows of the answer; it has fewer where more do not fit into a message.
        limit: u32,
    },
    /// Why a task, an actor, an object or a job is where it is, and what happened to it, by its id
    /// in text. Answered by `Json`.
    Explain(String),
    /// Take nothing new, then leave. Answered by `Done`.
    DrainWorker(WorkerId),
    /// End a worker at once and for good. Answered by `Done`.
    RemoveWorker(WorkerId),
    /// End the head. Answered by `Done`.
    Shutdown {
        /// End all workers too.
        workers: bool,
    },
    /// Make a token. Answered by `Token`; asked twice, it makes two, of which one whose answer was
    /// lost is of use to nobody.
    TokenCreate {
        /// For whom.
        role: Role,
        /// Seconds until it ends.
        ttl_seconds: Option<u64>,
        /// How often it may be used.
        uses: Option<u32>,
    },
    /// All tokens. Answered by `Tokens`.
    TokenList,
    /// Take a token back. Answered by `Done`.
    TokenRevoke(u64),
}

impl ClientRequest {
    /// Whether it takes more than looking.
    pub fn changes(&self) -> bool {
        match self {
            Self::Watch { .. }
            | Self::Jobs
            | Self::Status
            | Self::List { .. }
            | Self::Explain(_) => false,
            Self::Lacking(_)
            | Self::Upload(_)
            | Self::Submit(_)
            | Self::StopJob(_)
            | Self::DrainWorker(_)
            | Self::RemoveWorker(_)
            | Self::Shutdown { .. }
            | Self::TokenCreate { .. }
            | Self::TokenList
            | Self::TokenRevoke(_) => true,
        }
    }
}

/// Names one submission, whatever number its job gets: a client that does not know whether it was
/// heard says the same again. Drawn at random by the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub struct SubmissionId(pub [u8; 16]);

impl SubmissionId {
    /// One that nobody has.
    pub fn random() -> Self {
        let mut id = [0; 16];
        getrandom::fill(&mut id).expect("the system's random numbers do not fail after start");
        Self(id)
    }
}

/// A job-to-be.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Submission {
    /// Of all that say this id, the first one makes the job.
    pub id: SubmissionId,
    /// For people.
    pub name: String,
    /// What to run.
    pub program: BlobHash,
    /// Its arguments, after the program's name.
    pub arguments: Vec<String>,
    /// Environment variables, added to the workers'.
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

/// What can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Listed {
    /// Tasks, asked of all workers.
    Tasks,
    /// Actors, asked of all workers.
    Actors,
    /// Objects, asked of all workers.
    Objects,
    /// Placement groups, asked of all workers.
    PlacementGroups,
    /// Workers.
    Workers,
}

/// Head to client.
#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
pub enum ClientReply {
    /// It is done, and durable.
    Done,
    /// Those that are lacking, each once.
    Lacking(Vec<BlobHash>),
    /// The job.
    Submitted(JobId),
    /// Updates follow.
    Watching,
    /// All jobs, by id.
    Jobs(Vec<JobStatus>),
    /// The cluster.
    Status(ClusterStatus),
    /// JSON text.
    Json(String),
    /// A token's text; the head does not keep it.
    Token(String),
    /// All tokens.
    Tokens(Vec<TokenStatus>),
    /// No.
    Refused(ClientRefusal),
}

/// Why the head does not do something.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, thiserror::Error)]
pub enum ClientRefusal {
    /// The certificate is read-only.
    #[error("a read-only client may only look; use a token of the role client")]
    ReadOnly,
    /// No such job.
    #[error("there is no {0}; `rdist jobs` lists all")]
    NoJob(JobId),
    /// No such worker.
    #[error("there is no {0}; `rdist status` lists all")]
    NoWorker(WorkerId),
    /// No such token.
    #[error("there is no token {0:016x}; `rdist token list` lists all")]
    NoToken(u64),
    /// The program, or a file of the job, must be uploaded first.
    #[error("the head does not have {what}: upload it first")]
    BlobMissing {
        /// What the job needs it for.
        what: String,
    },
    /// A manifest of the job's files that cannot be unpacked.
    #[error("the list of the job's files is malformed: {0}")]
    Files(String),
    /// A blob did not arrive as it was announced.
    #[error("the upload failed: {0}")]
    Upload(String),
    /// The id means nothing.
    #[error(
        "`{0}` is no id of a task, an actor, an object or a job; `rdist list tasks` shows some"
    )]
    NotAnId(String),
    /// Nothing more can be written down.
    #[error(
        "its disk is full: {folder} has {free} bytes free, and {needed} are needed; what runs goes \
         on, and nothing is lost: make room on the head's machine, then try again"
    )]
    DiskFull {
        /// Where on the head's machine.
        folder: String,
        /// What there is.
        free: u64,
        /// What it takes, with a reserve for jobs that run.
        needed: u64,
    },
    /// Something that this head does not understand.
    #[error("the request is malformed: {0}")]
    Malformed(String),
    /// The head could not do it.
    #[error("the head failed: {0}; its log says more")]
    HeadFailed(String),
    /// The head is ending.
    #[error("the head is ending")]
    Ending,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct JobStatus {
    /// Its number.
    pub job: JobId,
    /// For people.
    pub name: String,
    /// Where it stands.
    pub state: JobProgress,
    /// Which try of the driver this is, from 0.
    pub attempt: u32,
    /// Milliseconds since 1970.
    pub submitted_at: u64,
    /// When a driver was first placed.
    pub started_at: Option<u64>,
    /// When it ended.
    pub finished_at: Option<u64>,
    /// JSON: the last metrics that its driver told.
    pub metrics: Option<String>,
}

/// Where a job stands.
#[derive(
    Debug,
    Clone,
    PartialEq,
    Eq,
    Archive,
    Serialize,
    Deserialize,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "snake_case", tag = "status")]
pub enum JobProgress {
    /// The driver is not placed.
    Waiting {
        /// For what.
        reason: String,
    },
    /// The driver runs.
    Running {
        /// Number of the worker.
        worker: u64,
    },
    /// The driver returned.
    Succeeded,
    /// The driver failed for good.
    Failed {
        /// How, for people.
        error: String,
    },
    /// Somebody stopped it.
    Stopped,
}

impl JobProgress {
    /// Whether nothing more will come.
    pub fn is_ended(&self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed { .. } | Self::Stopped)
    }

    /// One word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Running { .. } => "running",
            Self::Succeeded => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Stopped => "stopped",
        }
    }
}

/// Something that a job said, or that happened to it: one line of its file.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", tag = "update")]
pub enum JobUpdate {
    /// Output of its processes.
    Output {
        /// Milliseconds since 1970.
        at: u64,
        /// Number of the worker.
        worker: u64,
        /// Who wrote, for people.
        source: String,
        /// The task, where that is known.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        task: Option<String>,
        /// Standard error instead of standard output.
        stderr: bool,
        /// Whole lines.
        text: String,
    },
    /// An event of its driver.
    Event {
        /// Milliseconds since 1970.
        at: u64,
        /// What the driver gave.
        event: serde_json::Value,
    },
    /// Its state changed.
    State {
        /// Milliseconds since 1970.
        at: u64,
        /// Which try.
        attempt: u32,
        /// Its state.
        #[serde(flatten)]
        state: JobProgress,
    },
}

/// The cluster.
#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Release of the head.
    pub version: String,
    /// Protocol version of the head.
    pub protocol: u32,
    /// Where it listens.
    pub address: String,
    /// Process id.
    pub pid: u32,
    /// Milliseconds since its start.
    pub uptime_ms: u64,
    /// How often a head has started in its state folder.
    pub epoch: u64,
    /// Members.
    pub workers: Vec<WorkerStatus>,
    /// Jobs that have not ended.
    pub active_jobs: u32,
    /// All jobs.
    pub jobs: u32,
    /// Tasks that wait in the head for room.
    pub waiting_tasks: u64,
}

/// A worker.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its id.
    pub worker: WorkerId,
    /// Host name.
    pub host: String,
    /// Process id there.
    pub pid: u32,
    /// Where other workers reach it.
    pub address: String,
    /// All that it has.
    pub total: Resources,
    /// What may still be placed there.
    pub available: Resources,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// Bytes of its arena.
    pub store_bytes: u64,
    /// What the arena and the disk hold.
    pub usage: WorkerUsage,
    /// It has a connection at this moment.
    pub connected: bool,
    /// It takes nothing new.
    pub draining: bool,
    /// Tasks and actors that the head placed there.
    pub placed: u64,
    /// Tasks that wait there for room.
    pub backlog: u64,
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct TokenStatus {
    /// Its number.
    pub id: u64,
    /// For whom.
    pub role: Role,
    /// Seconds since 1970.
    pub created_at: u64,
    /// Seconds since 1970.
    pub expires_at: Option<u64>,
    /// How often it may still be used.
    pub uses_left: Option<u32>,
    /// Taken back.
    pub revoked: bool,
}

//! Records of the head's books.
#![allow(missing_docs, reason = "rkyv derives archived fields without docs")]

use rdist_scheduler::id::{TaskId, WorkerId};
use rdist_scheduler::spec::{TaskKind, TaskSpec};
use rkyv::{Archive, Deserialize, Serialize};

use crate::wire::client::{JobProgress, JobStatus, SubmissionId};
use crate::wire::cluster::JobInfo;

/// How often a driver is run again when its worker or its process is lost.
const DRIVER_RETRIES: u32 = 3;

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct JobRecord {
    /// How to run it.
    pub info: JobInfo,
    /// Where it stands.
    pub state: JobProgress,
    /// Which try of the driver this is.
    pub attempt: u32,
    /// Milliseconds since 1970.
    pub submitted_at: u64,
    /// When a driver was first placed.
    pub started_at: Option<u64>,
    /// When it ended.
    pub finished_at: Option<u64>,
    /// JSON: the last metrics that its driver told.
    pub metrics: Option<String>,
    /// Why each try of its driver was followed by another one; the first few.
    pub notes: Vec<String>,
    /// Who asked for it.
    pub asked_by: AskedBy,
}

/// Who asks for jobs.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum AskedBy {
    /// A client, perhaps several times: it did not hear the answer.
    Client(SubmissionId),
    /// The job is a detached actor: this task of another job asked for it, which its driver submits
    /// in the name of this one.
    Task(Box<TaskSpec>),
}

impl JobRecord {
    /// The task that runs its main function.
    pub fn driver(&self) -> TaskSpec {
        let id = TaskId::driver(self.info.job);
        let (body, restarts) = match self.detached() {
            None => (Vec::new(), 0),
            Some(spec) => (crate::wire::encode(spec).into_vec(), restarts(spec)),
        };
        let max_retries = DRIVER_RETRIES.saturating_add(restarts);
        TaskSpec { kind: TaskKind::Driver, max_retries, body, ..TaskSpec::plain(id, id) }
    }

    /// Where the job is a detached actor: the task that makes it.
    pub fn detached(&self) -> Option<&TaskSpec> {
        match &self.asked_by {
            AskedBy::Client(_) => None,
            AskedBy::Task(spec) => Some(spec),
        }
    }

    /// For clients.
    pub fn status(&self) -> JobStatus {
        JobStatus {
            job: self.info.job,
            name: self.info.name.clone(),
            state: self.state.clone(),
            attempt: self.attempt,
            submitted_at: self.submitted_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
            metrics: self.metrics.clone(),
        }
    }
}

/// How often an actor may be made again.
fn restarts(spec: &TaskSpec) -> u32 {
    match &spec.kind {
        TaskKind::ActorCreate(options) => options.max_restarts,
        _ => 0,
    }
}

impl Standing {
    /// Whether it has registered, and is not gone.
    pub fn takes_part(self) -> bool {
        matches!(self, Self::Member | Self::Draining)
    }

    /// Whether it may connect and register.
    pub fn is_welcome(self) -> bool {
        self == Self::Admitted || self.takes_part()
    }
}

/// A worker's incarnation.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct WorkerRecord {
    /// Its id.
    pub worker: WorkerId,
    /// Where it stands.
    pub standing: Standing,
    /// When it got its certificate, in milliseconds since 1970.
    pub joined_at: u64,
}

/// ```text
/// Admitted --1--> Member --2--> Draining --3--> Gone | Removed
///    |              +--------------3------------^
///    +-----------------------------3------------^
/// ```
/// 1 it registered; 2 somebody wants it to leave; 3 it left or was lost, or somebody removed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Standing {
    /// It has a certificate.
    Admitted,
    /// It takes part.
    Member,
    /// It takes part until it has nothing left to do.
    Draining,
    /// It left, or was lost: its next incarnation is welcome.
    Gone,
    /// Somebody removed it: it needs a new token.
    Removed,
}

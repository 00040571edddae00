//! What the head's core is told.

use crate::id::{ActorId, JobId, WorkerId};
use crate::message::{Held, ToHead};
use crate::resource::Resources;
use crate::spec::TaskSpec;

/// What happened in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterEvent {
    /// A worker came, or came back to a restarted head with what it still holds.
    WorkerJoined {
        /// The worker's incarnation.
        worker: WorkerId,
        /// All that it has.
        total: Resources,
        /// Labels, `key=value`.
        labels: Vec<(String, String)>,
        /// What a head had assigned to it before.
        held: Held,
    },
    /// A worker left or is lost; it never comes back under this id.
    WorkerLost {
        /// The worker.
        worker: WorkerId,
        /// What is known, for people.
        reason: String,
    },
    /// A worker leaves, and others have heard all that it said: what else was sent to it has not
    /// run. Then it is lost.
    WorkerLeft {
        /// The worker.
        worker: WorkerId,
    },
    /// A worker takes nothing new.
    WorkerDraining {
        /// The worker.
        worker: WorkerId,
    },
    /// A worker said something.
    FromWorker {
        /// Who.
        from: WorkerId,
        /// What.
        message: ToHead,
    },
    /// A job was submitted, and is durable.
    JobSubmitted {
        /// The job.
        job: JobId,
        /// Its driver; `max_retries` bounds restarts after a lost worker or executor.
        driver: TaskSpec,
    },
    /// A job gets more than others where both want something, or less; said before it is submitted.
    JobWeighed {
        /// The job.
        job: JobId,
        /// Its part is this many times that of a job which nothing is said of.
        weight: u32,
    },
    /// A job may hold no more than that at a time, over the whole cluster; said before it is
    /// submitted. Where it is zero, there is no limit.
    JobLimited {
        /// The job.
        job: JobId,
        /// The most.
        quota: Resources,
    },
    /// A job is to end.
    JobStopRequested {
        /// The job.
        job: JobId,
    },
    /// At the start, from durable state: jobs that had not ended, and workers that may return.
    /// Placement of these jobs' drivers waits until the workers are back, or a grace is over.
    Restored {
        /// Jobs, their drivers, and the number of the driver's last known try.
        jobs: Vec<(JobId, TaskSpec, u32)>,
        /// Workers that were members.
        workers: Vec<WorkerId>,
        /// Named actors and their supervisors.
        names: Vec<(String, ActorId, WorkerId)>,
    },
}

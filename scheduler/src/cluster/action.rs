//! What the head's core wants done.

use crate::id::{ActorId, JobId, WorkerId};
use crate::message::FromHead;
use crate::outcome::TaskError;

/// What is to be done. The runtime makes durable what must be before it sends what follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterAction {
    /// Say something to a worker.
    Send {
        /// To whom.
        to: WorkerId,
        /// What.
        message: FromHead,
    },
    /// A job changed; durable when it ended or its attempt grew.
    JobChanged {
        /// The job.
        job: JobId,
        /// To what.
        state: JobState,
    },
    /// A name was granted, or given back (`None`); durable.
    NameChanged {
        /// The name.
        name: String,
        /// Who has it now, and the supervisor.
        actor: Option<(ActorId, WorkerId)>,
    },
}

/// ```text
/// Waiting --1--> Running --2--> Succeeded | Failed | Stopped
///    ^              |
///    +------3-------+
/// ```
/// 1 the driver was assigned; 2 it ended, or the job was stopped (also from `Waiting`); 3 its
/// worker or executor was lost and it has tries left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// The driver is not placed.
    Waiting {
        /// For what, for people.
        reason: String,
        /// The number of the coming try.
        attempt: u32,
    },
    /// The driver runs.
    Running {
        /// Where.
        worker: WorkerId,
        /// Which try.
        attempt: u32,
    },
    /// The driver returned.
    Succeeded,
    /// The driver failed for good.
    Failed(TaskError),
    /// Somebody stopped it.
    Stopped,
}

//! How a task ended, with causes that are types, not text.
#![allow(missing_docs, reason = "rkyv derives archived fields without docs")]

use core::fmt;
use core::time::Duration;

use rkyv::with::AsBox;
use rkyv::{Archive, Deserialize, Serialize};

use crate::id::{ActorId, JobId, TaskId};
use crate::spec::Reference;

/// How one attempt of a task ended. The values' bytes travel beside it, never inside. An archived
/// error lies apart: it would make each good end as long.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Outcome {
    /// It returned; one entry for each return value.
    Returned(Vec<Returned>),
    /// It has yielded so many values, and is done. They came before, one by one.
    Streamed(u32),
    /// It did not.
    Failed(#[rkyv(with = AsBox)] TaskError),
    /// It did not, in a way that its submitter wants tried again: its predicate has said so. The
    /// owner of the task counts, and turns the last one into `Failed`.
    Retryable(#[rkyv(with = AsBox)] TaskError),
}

/// One value that a task returned.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Returned {
    /// Bytes of the value.
    pub size: u64,
    /// Whether the value rides inside messages instead of lying in the arena of the worker that
    /// ran the task.
    pub inline: bool,
    /// References inside the value.
    pub contains: Vec<Reference>,
}

/// Why a value will never be there.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct TaskError {
    /// The task that failed first: a dependent's error names the origin, not itself.
    pub task: TaskId,
    /// What happened.
    pub cause: Cause,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Cause {
    /// User code panicked. `message` holds the panic's text and place, and the backtrace.
    Panicked {
        /// Text, place, backtrace.
        message: String,
    },
    /// User code returned an error.
    Returned {
        /// The error as its author displays it, with its sources.
        message: String,
    },
    /// The executor under it ended, more often than retries allow.
    ExecutorDied(Death),
    /// The worker that ran it was lost, more often than retries allow.
    WorkerDied {
        /// What the head knows.
        reason: String,
    },
    /// The actor is gone for good.
    ActorDied(Death),
    /// Its task has yielded fewer values, and has ended well.
    EndOfStream,
    /// Somebody cancelled it, or stopped its job.
    Cancelled,
    /// A try ran longer than the task's time limit, more often than retries allow.
    TimedOut {
        /// The limit.
        limit: Duration,
    },
    /// The value's owner is gone, and with it the knowledge of how to make the value again.
    OwnerDied,
    /// All copies are lost and it could not be made again.
    ObjectLost,
    /// Another actor has the name that this one was to have.
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        by: ActorId,
    },
    /// It cannot run here or anywhere: a malformed request, an unknown function, a program that
    /// does not start.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Death {
    /// It exited by itself with this status.
    Exited {
        /// Exit status.
        status: i32,
        /// Its last lines of standard error.
        stderr: String,
    },
    /// A signal ended it.
    Killed {
        /// Number of the signal.
        signal: i32,
        /// Its last lines of standard error.
        stderr: String,
    },
    /// It could not be started.
    NotStarted {
        /// Why.
        reason: String,
    },
    /// It was killed because it, or all of the machine, had too little memory.
    OutOfMemory {
        /// What happened, with figures in bytes.
        reason: String,
    },
    /// It was killed because it had been stopped, by SIGSTOP or its like, for too long.
    Stopped {
        /// How long.
        seconds: u64,
    },
    /// It was killed because another task that ran in it had to be ended by force.
    Beside {
        /// The other task.
        task: TaskId,
    },
    /// It broke the protocol with its worker.
    Misbehaved {
        /// What it did.
        reason: String,
    },
    /// Its worker was lost.
    WorkerLost,
    /// It was ended on purpose: killed by a caller, or its job stopped.
    Ended,
    /// It ended with its job, to which the caller does not belong.
    JobEnded {
        /// The job.
        job: JobId,
    },
    /// It ended because the process of its job's driver died: the driver's next try makes others.
    DriverLost {
        /// The job.
        job: JobId,
    },
    /// Its worker leaves. It ended between two calls, and goes on elsewhere.
    Moved,
}

impl Death {
    /// Whether somebody wanted it, so that nothing is tried again.
    pub fn is_wanted(&self) -> bool {
        matches!(self, Self::Ended | Self::JobEnded { .. } | Self::DriverLost { .. })
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tail = |f: &mut fmt::Formatter<'_>, stderr: &str| match stderr.trim() {
            "" => Ok(()),
            lines => write!(f, "; its last lines of stderr:\n{lines}"),
        };
        match self {
            Self::Exited { status, stderr } => {
                write!(f, "the process exited with status {status}")?;
                tail(f, stderr)
            }
            Self::Killed { signal, stderr } => {
                write!(f, "the process was killed by signal {signal}")?;
                tail(f, stderr)
            }
            Self::NotStarted { reason } => write!(f, "the process did not start: {reason}"),
            Self::OutOfMemory { reason } => write!(f, "the process ran out of memory: {reason}"),
            Self::Stopped { seconds } => write!(
                f,
                "the process was stopped (by SIGSTOP or its like) for {seconds} s and then killed"
            ),
            Self::Beside { task } => {
                write!(f, "the process was killed to end {task}, which ran beside it")
            }
            Self::Misbehaved { reason } => write!(f, "the process broke the protocol: {reason}"),
            Self::WorkerLost => f.write_str("its worker was lost"),
            Self::Ended => f.write_str("it was ended on purpose"),
            Self::JobEnded { job } => write!(
                f,
                "its job, {job}, has ended; an actor that is to outlive its job is made detached"
            ),
            Self::DriverLost { job } => {
                write!(f, "the driver of its job, {job}, was lost, and its next try makes others")
            }
            Self::Moved => f.write_str("its worker leaves, and it goes on on another one"),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked { message } => write!(f, "panicked: {message}"),
            Self::Returned { message } => write!(f, "returned an error: {message}"),
            Self::ExecutorDied(death) => write!(f, "its executor died: {death}"),
            Self::WorkerDied { reason } => write!(f, "its worker died: {reason}"),
            Self::ActorDied(death) => write!(f, "its actor died: {death}"),
            Self::EndOfStream => f.write_str("has no further value: its stream has ended"),
            Self::Cancelled => f.write_str("was cancelled"),
            Self::TimedOut { limit } => write!(
                f,
                "ran longer than its time limit of {limit:?} and was ended; allow more with \
                 `timeout`, or let it be tried again with `retry_timeouts`"
            ),
            Self::OwnerDied => f.write_str(
                "is lost: the worker that owned it died, and no task can be run again to make it",
            ),
            Self::ObjectLost => f.write_str("is lost: no copy is left and it cannot be re-run"),
            Self::NameTaken { name, by } => write!(
                f,
                "was refused: the name {name:?} belongs to {by}; choose another one, look that \
                 actor up, or say get_if_exists"
            ),
            Self::Refused { reason } => write!(f, "was refused: {reason}"),
        }
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.task, self.cause)
    }
}

impl std::error::Error for TaskError {}

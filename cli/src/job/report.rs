//! How a command went, for its driver and for people.

use std::time::Duration;

use rdist::prelude::*;

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[rdist::value]
pub(crate) enum Ended {
    /// By itself, with this status.
    Exit(i32),
    /// By a signal.
    Signal(i32),
    /// It ran longer than it may.
    TimedOut,
    /// Its task was cancelled.
    Cancelled,
    /// It did not start, and why.
    NotStarted(String),
    /// It ended well, and left an output not behind that it should have.
    NoOutput(String),
    /// Its task failed under it: its worker or its executor was lost, or a file could not be had.
    Lost(String),
}

impl Ended {
    /// Whether it did what it should.
    pub(crate) fn is_success(&self) -> bool {
        *self == Self::Exit(0)
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Exit(status) => format!("exit status {status}"),
            Self::Signal(signal) => match signal_name(*signal) {
                Some(name) => format!("killed by signal {signal} ({name})"),
                None => format!("killed by signal {signal}"),
            },
            Self::TimedOut => "ran longer than its time limit".to_owned(),
            Self::Cancelled => "cancelled".to_owned(),
            Self::NotStarted(reason) | Self::Lost(reason) => reason.clone(),
            Self::NoOutput(path) => format!("ended without its output `{path}`"),
        }
    }

    /// The exit status, where it has one.
    pub(crate) fn status(&self) -> Option<i32> {
        match self {
            Self::Exit(status) => Some(*status),
            Self::NoOutput(_) => Some(0),
            _ => None,
        }
    }

    /// The signal that ended it.
    pub(crate) fn signal(&self) -> Option<i32> {
        match self {
            Self::Signal(signal) => Some(*signal),
            _ => None,
        }
    }
}

/// Names of the signals that end commands most often.
fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        _ => return None,
    })
}

/// What a command used, with what it waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Usage {
    /// From start to end.
    pub wall: Duration,
    /// CPU time of its own code.
    pub user: Duration,
    /// CPU time of the kernel for it.
    pub system: Duration,
    /// Largest resident size of a process, in bytes.
    pub max_rss: u64,
}

/// What a task tells of its command.
#[derive(Debug, Clone)]
#[rdist::value]
pub(crate) struct Report {
    /// How it ended.
    pub ended: Ended,
    /// Nanoseconds: from start to end, of its own code, of the kernel for it.
    pub nanoseconds: [u64; 3],
    /// Largest resident size of a process, in bytes.
    pub max_rss: u64,
    /// The last of its standard error.
    pub tail: String,
    /// Number of the worker.
    pub worker: u64,
    /// Its outputs, and whether they can be executed.
    pub outputs: Vec<(ObjectRef<Vec<u8>>, bool)>,
}

impl Report {
    /// Of a task that did not come to its end.
    pub(crate) fn lost(reason: String) -> Self {
        let (tail, outputs) = (String::new(), Vec::new());
        let ended = Ended::Lost(reason);
        Self { ended, nanoseconds: [0; 3], max_rss: 0, tail, worker: 0, outputs }
    }

    /// What it used.
    pub(crate) fn usage(&self) -> Usage {
        let [wall, user, system] = self.nanoseconds.map(Duration::from_nanos);
        Usage { wall, user, system, max_rss: self.max_rss }
    }
}

/// For a report.
pub(crate) fn nanoseconds(usage: &Usage) -> [u64; 3] {
    let whole = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    [usage.wall, usage.user, usage.system].map(whole)
}

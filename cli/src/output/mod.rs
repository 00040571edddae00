//! What commands print: for people, or one JSON object per line.

mod commands;
mod human;
mod json;
mod table;

pub(crate) use human::Human;
pub(crate) use json::Json;
pub(crate) use table::rows;

use serde_json::{Map, Value};

/// One JSON object, an event of a job's driver.
pub(crate) type Event = Map<String, Value>;

/// Some lines that a job's process has printed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lines<'a> {
    /// Who wrote: `driver`, `pool`, `actor Replica`.
    pub source: &'a str,
    /// On which worker.
    pub worker: &'a str,
    /// Which task, where that is known.
    pub task: Option<&'a str>,
    /// The command that the task runs, if it is one.
    pub name: Option<&'a str>,
    /// To standard error instead of standard output.
    pub stderr: bool,
    /// Whole lines, each ended by a line feed.
    pub text: &'a str,
}

/// How a job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The driver has no place yet, and why.
    Waiting(String),
    /// It runs there.
    Running(String),
    /// It ended well.
    Succeeded,
    /// It did not, and why.
    Failed(String),
    /// Somebody stopped it.
    Stopped,
}

impl Standing {
    /// The word that scripts see.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Waiting(_) => "waiting",
            Self::Running(_) => "running",
            Self::Succeeded => "succeeded",
            Self::Failed(_) => "failed",
            Self::Stopped => "stopped",
        }
    }

    /// Whether nothing follows.
    pub(crate) fn is_end(&self) -> bool {
        !matches!(self, Self::Waiting(_) | Self::Running(_))
    }
}

/// The end of a job.
#[derive(Debug)]
pub(crate) struct Finished<'a> {
    /// Its id.
    pub job: &'a str,
    /// How it ended.
    pub standing: &'a Standing,
    /// From its submission to its end.
    pub seconds: f64,
    /// What its events measured, the last value of each name.
    pub metrics: &'a Event,
}

/// Shows a job to whoever follows it.
pub(crate) trait Reporter {
    /// The head has accepted it.
    fn submitted(&mut self, job: &str, name: &str) -> std::io::Result<()>;
    /// It stands otherwise than before.
    fn standing(&mut self, job: &str, standing: &Standing) -> std::io::Result<()>;
    /// It has printed something.
    fn lines(&mut self, job: &str, lines: Lines<'_>) -> std::io::Result<()>;
    /// Its driver has said something in JSON.
    fn event(&mut self, job: &str, event: &Event) -> std::io::Result<()>;
    /// One of its commands has ended, or never will.
    fn command(&mut self, job: &str, command: &Event) -> std::io::Result<()>;
    /// It has ended; nothing follows.
    fn finished(&mut self, finished: &Finished<'_>) -> std::io::Result<()>;
}

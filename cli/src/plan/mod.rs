//! Plain command jobs: what is to be run, after what, with what, and with which files.
//!
//! ```text
//! [[task]] of a TOML ── document ──► build ──► Plan ── JSON ──► job::commands, on the cluster
//! --each 'cmd {}'    ───────────────► each ──►
//! ```
//! A plan is checked whole before anything starts, and every complaint names its line. How its
//! steps run is `job`'s.

mod build;
mod document;
mod each;
mod graph;
mod range;

use std::path::PathBuf;

use rdist::scheduler::resource::Resources;
use serde::{Deserialize, Serialize};

pub(crate) use build::build;
pub(crate) use each::{Each, each};
pub(crate) use graph::graph;

/// Most steps of a plan.
pub(crate) const MAX_STEPS: usize = 200_000;

/// The name of the plan among the driver's files.
pub(crate) const PLAN_FILE: &str = "plan.json";

/// The folder of the client's files among the driver's files.
pub(crate) const INPUTS_FOLDER: &str = "inputs";

/// Steps, in the order of the file; each comes after those that it needs only in time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The job's name.
    pub name: String,
    /// Where the outputs of steps are written in the end, if anywhere: on the driver's machine.
    pub results: Option<PathBuf>,
    /// The most that the job may hold: for the head, not for the driver.
    #[serde(skip)]
    pub quota: Resources,
    /// Names of files on the client, which travel with the job.
    pub files: Vec<PathBuf>,
    /// What is to be run.
    pub steps: Vec<Step>,
}

/// One command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// `build`, or `work[3]`.
    pub name: String,
    /// The task that it is an element of, and its index there.
    pub element: Option<(String, u64)>,
    /// What to run.
    pub command: Invocation,
    /// Where to run; by default the job's folder, or a fresh one if there are files.
    pub folder: Option<String>,
    /// Variables on top of the job's.
    pub environment: Vec<(String, String)>,
    /// Files that are there when it starts.
    pub inputs: Vec<Input>,
    /// Files that it must leave, for others.
    pub outputs: Vec<String>,
    /// Steps that must have succeeded, by their places in the plan.
    pub after: Vec<usize>,
    /// What it holds and how it is run.
    pub limits: Limits,
}

/// A command in one of the two ways that people write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Invocation {
    /// A program and its arguments, as they are.
    Words(Vec<String>),
    /// A line for the shell.
    Line(String),
}

impl Invocation {
    /// For people.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Words(words) => words.join(" "),
            Self::Line(line) => line.clone(),
        }
    }
}

/// A file that a step finds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Input {
    /// Where, relative to its folder.
    pub path: String,
    /// What.
    pub source: InputSource,
}

/// Where an input comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum InputSource {
    /// The client, by the place in [`Plan::files`].
    File(usize),
    /// Another step.
    Output {
        /// Its place in the plan.
        step: usize,
        /// Which of its outputs.
        output: usize,
    },
}

/// What a step holds while it runs, and how often and how long it may.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// CPUs.
    pub cpus: f64,
    /// GPUs.
    pub gpus: f64,
    /// Bytes of memory.
    pub memory: u64,
    /// Custom resources.
    pub resources: Vec<(String, f64)>,
    /// How often it is run again after it failed.
    pub retries: u32,
    /// Milliseconds after which it is ended.
    pub time_limit: Option<u64>,
    /// Larger runs first among those that could start.
    pub priority: i32,
}

impl Default for Limits {
    fn default() -> Self {
        let (resources, time_limit) = (Vec::new(), None);
        Self { cpus: 1.0, gpus: 0.0, memory: 0, resources, retries: 0, time_limit, priority: 0 }
    }
}

/// A plan that cannot be: where, what and why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub(crate) struct PlanError {
    /// File and line, or the option.
    pub place: String,
    /// For people.
    pub what: String,
}

/// Whether the text is a plain command job, rather than a workload.
pub(crate) fn is_plan(text: &str) -> bool {
    match text.parse::<toml::Table>() {
        Ok(table) => table.contains_key("task"),
        // Its mistake is to be shown by whoever it was written for.
        Err(_) => text.lines().any(|line| line.trim_start().starts_with("[[task]]")),
    }
}

/// Puts an element's index where a text says `{index}`; `${index}` is the shell's own.
fn with_index(text: &str, index: Option<u64>) -> String {
    const MARK: &str = "{index}";
    let Some(index) = index.filter(|_| text.contains(MARK)) else { return text.to_owned() };
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(MARK) {
        out.push_str(&rest[..at]);
        if out.ends_with('$') {
            out.push_str(MARK);
        } else {
            out.push_str(&index.to_string());
        }
        rest = &rest[at + MARK.len()..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_stands_where_it_is_named() {
        assert_eq!(with_index("a{index}b{index}", Some(12)), "a12b12");
        assert_eq!(with_index("${index} {index}", Some(1)), "${index} 1");
        assert_eq!(with_index("{index}", None), "{index}");
    }
}

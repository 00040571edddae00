//! The TOML of a plain command job, as it is written. What it means is `build`'s.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

/// A whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    /// The job's name.
    pub name: Option<String>,
    /// Where outputs are written in the end.
    pub results: Option<String>,
    /// The most that the job may hold at a time.
    #[serde(default)]
    pub quota: BTreeMap<String, Spanned<AmountText>>,
    /// What all tasks have that say nothing else.
    #[serde(default)]
    pub defaults: Task,
    /// The tasks.
    #[serde(default)]
    pub task: Vec<Spanned<Task>>,
}

/// A task, or what all have in common.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Task {
    /// Its name; by default, that of its program.
    pub name: Option<String>,
    /// What to run.
    pub command: Option<CommandText>,
    /// What must have succeeded.
    #[serde(default)]
    pub after: Vec<Spanned<String>>,
    /// Indices, one command for each.
    pub array: Option<Spanned<ArrayText>>,
    /// Files that it finds.
    #[serde(default)]
    pub inputs: Vec<Spanned<InputText>>,
    /// Files that it leaves.
    #[serde(default)]
    pub outputs: Vec<Spanned<String>>,
    /// Where to run.
    pub dir: Option<String>,
    /// Variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// CPUs that it holds.
    pub cpus: Option<Spanned<f64>>,
    /// GPUs that it holds.
    pub gpus: Option<Spanned<f64>>,
    /// Memory that it holds.
    pub memory: Option<Spanned<SizeText>>,
    /// Custom resources that it holds.
    #[serde(default)]
    pub resources: BTreeMap<String, Spanned<f64>>,
    /// How often it is run again after it failed.
    pub retries: Option<u32>,
    /// How long it may run.
    pub time_limit: Option<Spanned<TimeText>>,
    /// Larger runs first.
    pub priority: Option<i32>,
}

/// A command.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a command line in text, or a list of words")]
pub(super) enum CommandText {
    Line(String),
    Words(Vec<String>),
}

/// Indices.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected indices, as \"1-10\" or \"1,5,7-9\"")]
pub(super) enum ArrayText {
    Range(String),
    Single(u64),
}

/// A file.
#[derive(Debug, Clone, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a file's name, { file = \"..\", as = \"..\" } or \
                 { from = \"task\", path = \"..\", as = \"..\" }"
)]
pub(super) enum InputText {
    Path(String),
    File(FileText),
    Output(OutputText),
}

/// A file of the client under another name.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileText {
    pub file: String,
    #[serde(rename = "as")]
    pub name: String,
}

/// Outputs of a task.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OutputText {
    pub from: String,
    /// Which; all if it is not said.
    pub path: Option<String>,
    #[serde(rename = "as")]
    pub name: Option<String>,
}

/// An amount of a resource.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected an amount, as 4 or \"8GiB\"")]
pub(super) enum AmountText {
    Text(String),
    Number(f64),
}

impl std::fmt::Display for AmountText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

/// A size.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a size, as \"512MiB\" or a number of bytes")]
pub(super) enum SizeText {
    Text(String),
    Bytes(u64),
}

/// A time.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a time, as \"30s\", \"5m\" or a number of seconds")]
pub(super) enum TimeText {
    Text(String),
    Seconds(f64),
}

//! One command as a task: its folder, its files through the object store, its variables.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rdist::prelude::*;

use super::child::{self, Outcome};
use super::report::{Ended, Report, nanoseconds};
use crate::plan::Invocation;

/// What a task is to run.
#[derive(Debug, Clone)]
#[rdist::value]
pub(super) struct Order {
    /// `build`, or `work[3]`.
    pub name: String,
    /// The index, of an element of an array.
    pub index: Option<u64>,
    /// Which try this is, from 0.
    pub attempt: u32,
    /// A program and its arguments; or one line for the shell.
    pub words: Vec<String>,
    /// Whether `words` is such a line.
    pub is_line: bool,
    /// Where to run.
    pub folder: Option<String>,
    /// Variables on top of the job's.
    pub environment: Vec<(String, String)>,
    /// CPUs that it holds.
    pub cpus: f64,
    /// Milliseconds after which it is ended.
    pub time_limit: Option<u64>,
    /// Files that it finds: where, what, and whether they can be executed.
    pub inputs: Vec<(String, ObjectRef<Vec<u8>>, bool)>,
    /// Files that it leaves.
    pub outputs: Vec<String>,
}

/// Runs a command. Its own failure is a report; an error is one of the cluster.
#[rdist::task]
pub(super) fn command(cx: &Context, order: Order) -> Result<Report> {
    let folder = Folder::of(cx, &order)?;
    for (path, object, executable) in &order.inputs {
        let path = folder.place(path);
        let bytes = object.read()?;
        write(&path, bytes.as_slice(), *executable).map_err(|error| failed(&path, &error))?;
    }
    let invocation = match order.words.first() {
        Some(line) if order.is_line => Invocation::Line(line.clone()),
        _ => Invocation::Words(order.words.clone()),
    };
    let Outcome { mut ended, usage, tail } = child::run(
        &child::Order {
            command: &invocation,
            environment: environment(&order),
            folder: folder.path.as_deref(),
            time_limit: order.time_limit.map(Duration::from_millis),
        },
        || cx.is_cancelled(),
    );
    let mut outputs = Vec::new();
    if ended.is_success() {
        for path in &order.outputs {
            match read(cx, &folder.place(path))? {
                Some(output) => outputs.push(output),
                None => ended = Ended::NoOutput(path.clone()),
            }
        }
    }
    Ok(Report {
        ended,
        nanoseconds: nanoseconds(&usage),
        max_rss: usage.max_rss,
        tail,
        worker: cx.worker_id().0,
        outputs,
    })
}

/// The job's variables, with what tells the command which one it is.
fn environment(order: &Order) -> Vec<(String, String)> {
    let threads = (order.cpus.ceil() as u64).max(1);
    let mut all = vec![
        ("RDIST_TASK_NAME".to_owned(), order.name.clone()),
        ("RDIST_TASK_ATTEMPT".to_owned(), order.attempt.to_string()),
        ("OMP_NUM_THREADS".to_owned(), threads.to_string()),
    ];
    all.extend(order.index.map(|index| ("RDIST_TASK_INDEX".to_owned(), index.to_string())));
    all.retain(|(name, _)| !order.environment.iter().any(|(other, _)| other == name));
    all.extend(order.environment.iter().cloned());
    all
}

/// Where a command runs.
struct Folder {
    /// `None`: where this process does.
    path: Option<PathBuf>,
    /// It is the command's own, and removed after it.
    is_private: bool,
}

impl Folder {
    /// The one that is asked for; else, for a command with files, a fresh one.
    fn of(cx: &Context, order: &Order) -> Result<Self> {
        if let Some(folder) = &order.folder {
            return Ok(Self { path: Some(PathBuf::from(folder)), is_private: false });
        }
        if order.inputs.is_empty() && order.outputs.is_empty() {
            return Ok(Self { path: None, is_private: false });
        }
        let scratch = std::env::var_os(rdist::SCRATCH).map_or_else(std::env::temp_dir, Into::into);
        let name = format!("{}-{}-{}", cx.task_id(), cx.attempt(), order.attempt);
        let path = scratch.join(name);
        fs::create_dir_all(&path).map_err(|error| failed(&path, &error))?;
        Ok(Self { path: Some(path), is_private: true })
    }

    fn place(&self, path: &str) -> PathBuf {
        self.path.as_deref().unwrap_or(Path::new("")).join(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(path) = self.path.as_ref().filter(|_| self.is_private) {
            // What stays goes with the job's folder.
            let _ = fs::remove_dir_all(path);
        }
    }
}

/// The cluster could not do its part.
fn failed(path: &Path, error: &io::Error) -> Error {
    Error::Refused(format!("{}: {error}", path.display()))
}

/// Writes an input.
pub(super) fn write(path: &Path, bytes: &[u8], executable: bool) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mode = if executable { 0o755 } else { 0o644 };
    let mut file = File::options().write(true).create(true).truncate(true).mode(mode).open(path)?;
    io::Write::write_all(&mut file, bytes)
}

/// Takes a file into the object store; `None` where there is none.
pub(super) fn read(cx: &Context, path: &Path) -> Result<Option<(ObjectRef<Vec<u8>>, bool)>> {
    let (mut file, metadata) = match File::open(path).and_then(|file| Ok((file.metadata()?, file)))
    {
        Ok((metadata, file)) if metadata.is_file() => (file, metadata),
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path, &error)),
    };
    let len = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    let mut writing = cx.create(len)?;
    file.read_exact(&mut writing).map_err(|error| failed(path, &error))?;
    Ok(Some((writing.seal(), metadata.permissions().mode() & 0o100 != 0)))
}

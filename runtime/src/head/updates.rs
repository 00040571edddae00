//! What a job said: one file for each job, one JSON object in each line, read by watchers while it
//! grows.
//!
//! A watcher reads the file itself up to the length that it knows, then waits for a larger one: so
//! nothing is missed or doubled between history and the present, and a slow watcher costs no
//! memory here.
//!
//! A worker tells a new head again what the old one had not confirmed. Each line of a worker keeps
//! the number that the worker gave it, so that it is written once.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rdist_scheduler::id::{JobId, WorkerId};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::wire::client::JobUpdate;

/// Largest piece that a watcher reads at once.
const PIECE_BYTES: usize = 256 << 10;

/// A job that prints without end fills no disk: what goes beyond is dropped.
const MAX_OUTPUT_BYTES: u64 = 1 << 30;

/// How far a job's file has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Progress {
    len: u64,
    ended: bool,
}

/// Who told an update: the worker, and the number that it gave to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) worker: WorkerId,
    pub(super) number: u64,
}

/// A line of the file.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    update: &'a JobUpdate,
    #[serde(skip_serializing_if = "Option::is_none")]
    told: Option<Told>,
}

/// The part of a line that says where it is from: the worker's number, and its own.
#[derive(Deserialize)]
struct LineOrigin {
    told: Option<Told>,
}

type Told = (u64, u64);

/// The writing end.
#[derive(Debug)]
pub(super) struct UpdateFile {
    path: PathBuf,
    file: File,
    /// The last number of each worker.
    heard: HashMap<u64, u64>,
    /// Bytes up to which output is written.
    limit: u64,
    /// Output goes no further, which was told.
    is_full: bool,
    progress: watch::Sender<Progress>,
}

/// The file of `job` in the folder of all.
pub(super) fn path_of(folder: &Path, job: JobId) -> PathBuf {
    folder.join(format!("{job}.jsonl"))
}

impl UpdateFile {
    /// Opens the file to go on with it. A last line that was cut off by a crash is removed.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        let len = whole_lines(&mut file)?;
        file.set_len(len)?;
        file.rewind()?;
        let heard = heard(&file)?;
        file.seek(SeekFrom::Start(len))?;
        let (progress, _) = watch::channel(Progress { len, ended: false });
        Ok(Self { path, file, heard, limit: MAX_OUTPUT_BYTES, is_full: false, progress })
    }

    /// Appends an update, unless its worker has told it before.
    pub(super) fn append(&mut self, update: &JobUpdate, origin: Option<Origin>) -> io::Result<()> {
        let told = origin.map(|Origin { worker, number }| (worker.0, number));
        if let Some((worker, number)) = told
            && self.heard.get(&worker).is_some_and(|last| number <= *last)
        {
            return Ok(());
        }
        let len = self.progress.borrow().len;
        let last_words;
        let update = match update {
            JobUpdate::Output { at, worker, source, task, .. } if len >= self.limit => {
                if std::mem::replace(&mut self.is_full, true) {
                    return Ok(());
                }
                let (at, worker, source, task) = (*at, *worker, source.clone(), task.clone());
                let text = format!("rdist: after {len} bytes, this job's output is dropped\n");
                last_words = JobUpdate::Output { at, worker, source, task, stderr: true, text };
                &last_words
            }
            other => other,
        };
        let mut line = serde_json::to_vec(&Line { update, told }).map_err(io::Error::other)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.heard.extend(told);
        self.progress.send_modify(|progress| progress.len += line.len() as u64);
        Ok(())
    }

    /// No watcher needs to wait any longer.
    pub(super) fn end(&mut self) {
        self.progress.send_modify(|progress| progress.ended = true);
    }

    /// A reader of all updates, or of those that come after `first`.
    pub(super) fn watch(&self, from_start: bool, first: Vec<u8>) -> io::Result<Watcher> {
        let progress = self.progress.subscribe();
        let at = if from_start { 0 } else { progress.borrow().len };
        let first = if from_start { Vec::new() } else { first };
        let file = Some(File::open(&self.path)?);
        Ok(Watcher { file, at, first, progress: Some(progress) })
    }
}

/// The last number of each worker in a file.
fn heard(file: &File) -> io::Result<HashMap<u64, u64>> {
    let mut heard = HashMap::new();
    for line in BufReader::with_capacity(PIECE_BYTES, file).split(b'\n') {
        // A line that somebody has damaged says nothing of where it is from.
        let origin = serde_json::from_slice(&line?).ok();
        heard.extend(origin.and_then(|LineOrigin { told }| told));
    }
    Ok(heard)
}

/// Length up to the last line feed.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut piece = vec![0; PIECE_BYTES];
    while end > 0 {
        let start = end.saturating_sub(PIECE_BYTES as u64);
        let piece = &mut piece[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(piece)?;
        if let Some(at) = piece.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// The reading end.
#[derive(Debug)]
pub(super) struct Watcher {
    /// `None`: a job whose file was never made has said nothing.
    file: Option<File>,
    at: u64,
    first: Vec<u8>,
    /// `None`: the job has ended, and its file with it.
    progress: Option<watch::Receiver<Progress>>,
}

impl Watcher {
    /// Of a job that has ended.
    pub(super) fn ended(path: &Path, from_start: bool, first: Vec<u8>) -> io::Result<Self> {
        let (at, first) = if from_start { (0, Vec::new()) } else { (u64::MAX, first) };
        let file = match File::open(path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self { file, at, first, progress: None })
    }

    /// Writes all updates to the stream until the job has ended or the client is gone.
    pub(super) async fn run(mut self, stream: &mut quinn::SendStream) -> io::Result<()> {
        stream.write_all(&self.first).await?;
        let Some(mut file) = self.file.take() else { return Ok(()) };
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let (end, ended) = match &mut self.progress {
                None => (file.metadata()?.len(), true),
                Some(progress) => {
                    let now = *progress.borrow_and_update();
                    (now.len, now.ended)
                }
            };
            file.seek(SeekFrom::Start(self.at.min(end)))?;
            while self.at < end {
                let part = piece.len().min((end - self.at) as usize);
                file.read_exact(&mut piece[..part])?;
                stream.write_all(&piece[..part]).await?;
                self.at += part as u64;
            }
            if ended {
                return Ok(());
            }
            let Some(progress) = &mut self.progress else { return Ok(()) };
            tokio::select! {
                changed = progress.changed() => if changed.is_err() {
                    return Ok(());
                },
                _ = stream.stopped() => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::client::JobProgress;

    #[test]
    fn a_torn_last_line_is_removed_and_writing_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = path_of(folder.path(), JobId(3));
        let update = JobUpdate::State { at: 1, attempt: 0, state: JobProgress::Succeeded };
        UpdateFile::open(path.clone()).unwrap().append(&update, None).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let mut torn = whole.clone();
        torn.extend(vec![b'x'; PIECE_BYTES * 2]);
        std::fs::write(&path, &torn).unwrap();
        UpdateFile::open(path.clone()).unwrap().append(&update, None).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole.repeat(2));
    }

    #[test]
    fn what_a_worker_tells_again_is_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = path_of(folder.path(), JobId(3));
        let event = |n: u64| JobUpdate::Event { at: 1, event: n.into() };
        let by = |worker, number| Some(Origin { worker: WorkerId(worker), number });
        let mut file = UpdateFile::open(path.clone()).unwrap();
        file.append(&event(1), by(1, 7)).unwrap();
        file.append(&event(2), by(2, 5)).unwrap();
        file.append(&event(1), by(1, 7)).unwrap();
        drop(file);
        let mut file = UpdateFile::open(path.clone()).unwrap();
        file.append(&event(1), by(1, 7)).unwrap();
        file.append(&event(3), by(1, 9)).unwrap();
        file.append(&event(4), by(2, 6)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<JobUpdate> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines, [1, 2, 3, 4].map(event));
    }

    #[test]
    fn output_without_end_is_dropped_and_the_end_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = UpdateFile::open(path_of(folder.path(), JobId(3))).unwrap();
        file.limit = 1_000;
        let output = |text: &str| JobUpdate::Output {
            at: 1,
            worker: 1,
            source: "pool".to_owned(),
            task: None,
            stderr: false,
            text: text.to_owned(),
        };
        for _ in 0..100 {
            file.append(&output("a line of output\n"), None).unwrap();
        }
        let end = JobUpdate::State { at: 1, attempt: 0, state: JobProgress::Succeeded };
        file.append(&end, None).unwrap();
        let text = std::fs::read_to_string(&file.path).unwrap();
        assert!(text.len() < 1_500, "{} bytes", text.len());
        assert_eq!(text.matches("is dropped").count(), 1);
        assert!(text.lines().last().unwrap().contains("succeeded"));
    }

    #[test]
    fn updates_survive_their_text_form() {
        let state = JobProgress::Failed { error: "line\nbreak".to_owned() };
        let update = JobUpdate::State { at: 1, attempt: 2, state };
        let text = serde_json::to_string(&update).unwrap();
        assert_eq!(
            text,
            r#"{"update":"state","at":1,"attempt":2,"status":"failed","error":"line\nbreak"}"#
        );
        assert_eq!(serde_json::from_str::<JobUpdate>(&text).unwrap(), update);
    }
}

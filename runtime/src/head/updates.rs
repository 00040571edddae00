//! What a job said: one file for each job, one JSON object in each line, read by watchers while it
//! grows.
//!
//! A watcher reads the file itself up to the length that it knows, then waits for a larger one: so
//! nothing is missed or doubled between history and the present, and a slow watcher costs no
//! memory here.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rdist_scheduler::id::JobId;
use tokio::sync::watch;

use crate::wire::client::JobUpdate;

/// Largest piece that a watcher reads at once.
const PIECE_BYTES: usize = 256 << 10;

/// How far a job's file has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Progress {
    len: u64,
    ended: bool,
}

/// The writing end.
#[derive(Debug)]
pub(super) struct UpdateFile {
    path: PathBuf,
    file: File,
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
        file.seek(SeekFrom::Start(len))?;
        let (progress, _) = watch::channel(Progress { len, ended: false });
        Ok(Self { path, file, progress })
    }

    /// Appends an update.
    pub(super) fn append(&mut self, update: &JobUpdate) -> io::Result<()> {
        let mut line = serde_json::to_vec(update).map_err(io::Error::other)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.progress.send_modify(|progress| progress.len += line.len() as u64);
        Ok(())
    }

    /// No watcher needs to wait any longer.
    pub(super) fn end(&mut self) {
        self.progress.send_modify(|progress| progress.ended = true);
    }

    /// A reader of all updates, or of those that come after `first`.
    pub(super) fn watch(&self, from_start: bool, first: Vec<u8>) -> Watcher {
        let progress = self.progress.subscribe();
        let at = if from_start { 0 } else { progress.borrow().len };
        let first = if from_start { Vec::new() } else { first };
        Watcher { path: self.path.clone(), at, first, progress: Some(progress) }
    }
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
    path: PathBuf,
    at: u64,
    first: Vec<u8>,
    /// `None`: the job has ended, and its file with it.
    progress: Option<watch::Receiver<Progress>>,
}

impl Watcher {
    /// Of a job that has ended.
    pub(super) fn ended(path: PathBuf, from_start: bool, first: Vec<u8>) -> Self {
        let (at, first) = if from_start { (0, Vec::new()) } else { (u64::MAX, first) };
        Self { path, at, first, progress: None }
    }

    /// Writes all updates to the stream until the job has ended or the client is gone.
    pub(super) async fn run(mut self, stream: &mut quinn::SendStream) -> io::Result<()> {
        stream.write_all(&self.first).await?;
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            // A job whose file was never made has said nothing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
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
        UpdateFile::open(path.clone()).unwrap().append(&update).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let mut torn = whole.clone();
        torn.extend(vec![b'x'; PIECE_BYTES * 2]);
        std::fs::write(&path, &torn).unwrap();
        UpdateFile::open(path.clone()).unwrap().append(&update).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole.repeat(2));
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

//! Programs and files from the head, and the processes that run them.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use rdist_scheduler::id::JobId;
use rdist_scheduler::outcome::Death;
use tokio::sync::{Mutex, mpsc};

use super::Command;
use super::folders::Folders;
use super::uplink::Uplink;
use crate::transfer;
use crate::transport::Connection;
use crate::wire;
use crate::wire::cluster::{JobInfo, Output, Said};
use crate::wire::files::{BlobHash, MAX_MANIFEST_BYTES, Manifest};
use crate::worker::inbox::{Inbox, Note};
use crate::worker::launch::{self, Host, Launch, Prepared, Processes};
use crate::worker::limits::Limits;
use crate::worker::spares::Spares;

/// So many bytes of files are written while another thread would be woken.
const FEW_BYTES: u64 = 64 << 10;
/// To make and to name a file takes as long as to write so many bytes.
const ENTRY_BYTES: u64 = 4 << 10;

/// See the module's text.
pub(super) struct Launcher {
    blobs: PathBuf,
    folders: RefCell<Folders>,
    inbox: Inbox,
    host: Host,
    commands: mpsc::UnboundedSender<Command>,
    /// One fetch at a time; whoever comes second finds the file.
    fetching: Mutex<()>,
}

impl Launcher {
    pub(super) fn new(
        blobs: PathBuf,
        folders: Folders,
        inbox: Inbox,
        (processes, limits): (Processes, Limits),
        commands: mpsc::UnboundedSender<Command>,
    ) -> Self {
        let host = Host { processes, limits, spares: Spares::default() };
        let (folders, fetching) = (RefCell::new(folders), Mutex::new(()));
        Self { blobs, folders, inbox, host, commands, fetching }
    }

    /// Runs an executor until it ends, and reports that.
    pub(super) async fn launch(&self, launch: Launch, job: &JobInfo, uplink: &Uplink) {
        let executor = launch.executor;
        let (death, lease) = match self.prepare(&launch, job, uplink).await {
            Ok(prepared) => {
                let commands = self.commands.clone();
                let output = move |output: Output| {
                    // The receiver lives as long as this thread's loop.
                    let _ = commands.send(Command::Say(Said::Output(output)));
                };
                let (inbox, is_driver) = (self.inbox.clone(), launch.is_driver());
                let silent = move || {
                    if is_driver {
                        inbox.tell(Note::DriverSilent(executor));
                    }
                };
                if job.eager_pool {
                    self.host.spares.expect(job.job, &prepared.program, &job.arguments);
                }
                launch::run(launch, job, &prepared, &self.host, (output, silent)).await
            }
            Err(reason) => (Death::NotStarted { reason }, None),
        };
        self.inbox.tell(Note::ExecutorEnded { executor, death });
        // Last: to remove control groups takes the kernel a while.
        drop(lease);
    }

    /// A job has ended: its folders are removed, and another one like it may come.
    pub(super) fn job_ended(&self, job: JobId) {
        self.host.spares.renew(job, &self.host.limits);
        tokio::task::spawn_blocking(self.folders.borrow_mut().job_ended(job));
    }

    /// The worker ends: so does all that it started.
    pub(super) fn end(&self) {
        launch::end_all(&self.host.processes);
        self.host.spares.end();
        self.folders.borrow().remove_all();
    }

    /// The program's file and the job's folders, fetched from the head if they are not here yet.
    async fn prepare(
        &self,
        launch: &Launch,
        job: &JobInfo,
        uplink: &Uplink,
    ) -> Result<Prepared, String> {
        let _alone = self.fetching.lock().await;
        let scratch = self.folders.borrow().scratch(job.job);
        let scratch = scratch.map_err(|error| format!("no folder for the job: {error}"))?;
        let program = self.fetch(job.program, "the program", uplink).await?;
        let driver_files = job.files.driver.filter(|_| launch.is_driver());
        let working = self.folder(job.job, job.files.working, uplink).await?;
        let driver_files = match self.folder(job.job, driver_files, uplink).await? {
            None if launch.is_driver() && !job.small_files.is_empty() => {
                let written = self.folders.borrow().write(job.job, &job.small_files);
                Some(written.map_err(|error| format!("the driver's files: {error}"))?)
            }
            folder => folder,
        };
        Ok(Prepared { program, working, driver_files, scratch })
    }

    /// A version of a folder.
    async fn folder(
        &self,
        job: JobId,
        version: Option<BlobHash>,
        uplink: &Uplink,
    ) -> Result<Option<PathBuf>, String> {
        let Some(version) = version else { return Ok(None) };
        let (path, is_there) = self.folders.borrow_mut().claim(job, version);
        if is_there {
            return Ok(Some(path));
        }
        let failed = |what: &dyn std::fmt::Display| format!("the job's files: {what}");
        let list = self.fetch(version, "the list of the job's files", uplink).await?;
        let bytes = list.metadata().map_err(|error| failed(&error))?.len();
        let reading = wherever(bytes, move || read_manifest(&list, bytes)).await;
        let manifest = reading.map_err(|error| failed(&error))?;
        for entry in &manifest.entries {
            if let wire::files::Content::File { blob, .. } = entry.content {
                self.fetch(blob, &entry.path, uplink).await?;
            }
        }
        let entries = manifest.entries.len() as u64;
        let bytes = manifest.files().fold(entries * ENTRY_BYTES, |sum, (_, bytes)| sum + bytes);
        let unpacking = self.folders.borrow().unpacking(version, manifest);
        let unpacked = wherever(bytes, unpacking).await;
        unpacked.map_err(|error| failed(&format!("{}: {error}", path.display())))?;
        Ok(Some(path))
    }

    /// A blob's file. `what` is for people.
    async fn fetch(&self, hash: BlobHash, what: &str, uplink: &Uplink) -> Result<PathBuf, String> {
        let path = self.blobs.join(blake3::Hash::from_bytes(hash).to_hex().as_str());
        if is_file(&path) {
            return Ok(path);
        }
        let failed = |why: &dyn std::fmt::Display| format!("{what} cannot be fetched: {why}");
        loop {
            let connection: Option<Connection> = uplink.connection().await;
            let connection = connection.ok_or_else(|| failed(&"there is no head"))?;
            match transfer::pull_blob(&connection, hash, &path).await {
                Ok(()) => return Ok(path),
                // That says nothing of the file: the next connection brings it.
                Err(error) if connection.is_closed() => {
                    tracing::debug!(what, %error, "it is fetched again");
                }
                Err(error) => return Err(failed(&error)),
            }
        }
    }
}

/// Work with so many bytes of files: at once if they are few, which takes less time than to hand
/// them to another thread; or else in a thread that may wait for the disk.
async fn wherever<T, E>(
    bytes: u64,
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, String>
where
    T: Send + 'static,
    E: std::fmt::Display + Send + 'static,
{
    if bytes <= FEW_BYTES {
        return work().map_err(|error| error.to_string());
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn read_manifest(path: &Path, bytes: u64) -> Result<Manifest, String> {
    if bytes > MAX_MANIFEST_BYTES {
        return Err(format!("a list of {bytes} bytes"));
    }
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let manifest: Manifest = wire::decode(&bytes).map_err(|error| error.to_string())?;
    manifest.check().map_err(|error| error.to_string())?;
    Ok(manifest)
}

/// One system call, which takes less time than handing it to another thread.
fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}

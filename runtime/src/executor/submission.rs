//! A program that a person started: it submits its own file as a job, and shows what the job says.
//!
//! Where no head runs, a cluster of this process alone is made first, in a folder that is removed
//! at the end: nothing of it stays, and it takes no port that somebody could want.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rdist_scheduler::id::JobId;

use crate::client::{Client, ClientError, JobRequest, JobStream, JobUpdate, WatchError};
use crate::config::{HeadConfig, Home, WorkerConfig};
use crate::head::{self, Head, HeadError, HeadHandle};
use crate::machine::Machine;
use crate::transport::event_loop;
use crate::wire::client::JobProgress;
use crate::worker::{Worker, WorkerError, WorkerHandle};

/// Variables that a job has from its submitter; all others are the worker's.
const PASSED_ON: [&str; 3] = ["RUST_LOG", "RUST_BACKTRACE", "RDIST_DATA"];

/// Why the program could not be run as a job.
#[derive(Debug, thiserror::Error)]
enum SubmissionError {
    #[error("the program's own file cannot be found: {0}")]
    OwnFile(std::io::Error),
    #[error("the folder {} of the embedded cluster cannot be made: {source}", path.display())]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("no random number for the embedded cluster's folder: {0}")]
    Random(getrandom::Error),
    #[error("the embedded head did not start: {0}")]
    Head(#[from] HeadError),
    #[error("the embedded worker did not start: {0}")]
    Worker(#[from] WorkerError),
    #[error("no async runtime: {0}")]
    Runtime(std::io::Error),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Watch(#[from] WatchError),
}

/// Runs this program as a job; its exit status is the job's.
pub(super) fn submit_this_program() -> ExitCode {
    match run() {
        Ok(status) => status,
        Err(error) => {
            eprintln!("rdist: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode, SubmissionError> {
    let runtime = event_loop().map_err(SubmissionError::Runtime)?;
    let home = Home::from_environment();
    if head::is_running(&home) {
        return runtime.block_on(submit(&home, true));
    }
    let cluster = EmbeddedCluster::start()?;
    let result = runtime.block_on(submit(&cluster.home, false));
    cluster.end();
    result
}

/// Submits and watches. `stays`: the cluster goes on without this process.
async fn submit(home: &Home, stays: bool) -> Result<ExitCode, SubmissionError> {
    let client = Client::connect(home).await?;
    let job = client.submit(request()?).await?;
    let mut updates = client.watch(job, true).await?;
    let status = tokio::select! {
        state = show(&mut updates) => end(state?),
        // Without a handler for the signal, it ends the process as ever.
        Ok(()) = tokio::signal::ctrl_c() => {
            if stays {
                eprintln!("rdist: {job} goes on; `rdist logs -f {job}` follows it, \
                           `rdist stop {job}` ends it");
            } else {
                stop(&client, job, &mut updates).await;
            }
            ExitCode::from(130)
        }
    };
    client.close().await;
    Ok(status)
}

/// Ends a job whose cluster ends with this process.
async fn stop(client: &Client, job: JobId, updates: &mut JobStream) {
    match client.stop_job(job).await {
        // A second Ctrl-C ends the wait.
        Ok(()) => tokio::select! {
            _ = show(updates) => {}
            _ = tokio::signal::ctrl_c() => {}
        },
        Err(error) => eprintln!("rdist: {job} cannot be stopped: {error}"),
    }
}

/// This process as a job.
fn request() -> Result<JobRequest, SubmissionError> {
    let program = std::env::current_exe().map_err(SubmissionError::OwnFile)?;
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    let folder = std::env::current_dir().unwrap_or_default();
    // The rest of the environment may hold secrets, and names of folders of this machine.
    let environment = PASSED_ON
        .iter()
        .filter_map(|name| std::env::var(name).ok().map(|value| ((*name).to_owned(), value)));
    Ok(JobRequest {
        name,
        program,
        arguments: std::env::args_os().skip(1).map(text).collect(),
        environment: environment.collect(),
        working_directory: text(folder.into_os_string()),
        ..Default::default()
    })
}

/// Shows what the job says, until its end.
async fn show(updates: &mut JobStream) -> Result<JobProgress, WatchError> {
    let mut last = JobProgress::Stopped;
    while let Some(update) = updates.next().await? {
        match update {
            JobUpdate::Output { stderr, text, .. } => {
                // There is nobody to tell if the pipe is closed.
                let _ = match stderr {
                    true => std::io::stderr().write_all(text.as_bytes()),
                    false => std::io::stdout().write_all(text.as_bytes()),
                };
            }
            JobUpdate::Event { event, .. } => eprintln!("rdist: event {event}"),
            JobUpdate::State { state, .. } => last = state,
        }
    }
    Ok(last)
}

fn end(state: JobProgress) -> ExitCode {
    match state {
        JobProgress::Succeeded => ExitCode::SUCCESS,
        JobProgress::Failed { error } => {
            eprintln!("rdist: the job failed: {error}");
            ExitCode::FAILURE
        }
        other => {
            eprintln!("rdist: the job was {}", other.word());
            ExitCode::FAILURE
        }
    }
}

/// A head and a worker inside this process.
struct EmbeddedCluster {
    home: Home,
    head: HeadHandle,
    worker: WorkerHandle,
    /// Removed last.
    folder: Folder,
}

impl EmbeddedCluster {
    fn start() -> Result<Self, SubmissionError> {
        let folder = Folder::new()?;
        let home = Home::at(&folder.0);
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let head = Head::start(HeadConfig { listen: loopback, ..HeadConfig::new(home.clone()) })?;
        let machine = Machine::detect();
        let store_bytes = machine.store_bytes();
        let resources = machine.resources(store_bytes);
        eprintln!(
            "rdist: no cluster runs here, so this program brings its own ({resources}); \
             `rdist head start` makes one that stays"
        );
        let worker = Worker::start(WorkerConfig {
            home: home.clone(),
            head: None,
            token: None,
            listen: loopback,
            advertise: None,
            resources,
            labels: Vec::new(),
            store_bytes,
            spill_folder: None,
            spill_limit: None,
            rotate_every: WorkerConfig::ROTATE_EVERY,
        })?;
        Ok(Self { home, head, worker, folder })
    }

    fn end(self) {
        self.worker.shutdown();
        if let Err(error) = self.worker.wait(|_| {}) {
            eprintln!("rdist: the embedded worker ended badly: {error}");
        }
        self.head.shutdown();
        if let Err(error) = self.head.wait() {
            eprintln!("rdist: the embedded head ended badly: {error}");
        }
        drop(self.folder);
    }
}

/// A private folder that is removed with everything in it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, SubmissionError> {
        let number = getrandom::u64().map_err(SubmissionError::Random)?;
        let path = std::env::temp_dir().join(format!("rdist-embedded-{number:016x}"));
        match std::fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(Self(path)),
            Err(source) => Err(SubmissionError::Folder { path, source }),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let path: &Path = &self.0;
        if let Err(error) = std::fs::remove_dir_all(path) {
            eprintln!("rdist: {} cannot be removed: {error}", path.display());
        }
    }
}

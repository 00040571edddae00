//! The cluster that is measured: daemons as a user would start them, with a folder of their own.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail};
use rdist::client::{Client, JobProgress, JobRequest, JobUpdate};
use rdist::config::Home;
use serde_json::Value;

use crate::daemon;

/// The folder of the cluster that runs, for whoever ends this process; and whether signals do.
static RUNNING: Mutex<(Option<PathBuf>, bool)> = Mutex::new((None, false));

/// A head and its workers with a state folder of their own; both end with this value.
pub(super) struct Cluster {
    pub home: Home,
    pub program: PathBuf,
}

impl Cluster {
    /// With one worker.
    pub(super) fn start(cpus: usize) -> anyhow::Result<Self> {
        let cluster = Self::start_head()?;
        // Ray's groups are of a resource of that name, so that no task is in their way.
        let cpus = cpus.to_string();
        cluster.command(&["worker", "join", "--cpus", &cpus, "--resource", "custom=100"])?;
        Ok(cluster)
    }

    /// Without workers.
    pub(super) fn start_head() -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("rdist-bench-{}", std::process::id()));
        let program = std::env::current_exe().context("finding this program's own file")?;
        let cluster = Self { home: Home::at(folder), program };
        end_on_signals(&cluster)?;
        cluster.command(&["head", "start", "--listen", "127.0.0.1:0"])?;
        Ok(cluster)
    }

    /// Runs a command of this program, and returns what it prints.
    pub(super) fn command(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("RDIST_HOME", self.home.path()).stdin(Stdio::null());
        // For the rows in which objects travel.
        command.env("RDIST_SAME_HOST", "off");
        let output = command.output().with_context(|| format!("running {command:?}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("rdist {}: {}", arguments.join(" "), said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs this program as a job; its events go to `tell`, its output to standard error.
    pub(super) fn run_job(
        &self,
        name: &str,
        arguments: Vec<String>,
        mut tell: impl FnMut(Value),
    ) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let state = runtime.block_on(async {
            let client = Client::connect(&self.home).await?;
            let request = JobRequest {
                name: name.to_owned(),
                program: self.program.clone(),
                arguments,
                working_directory: self.home.path().display().to_string(),
                ..Default::default()
            };
            let job = client.submit(request).await?;
            let mut updates = client.watch(job, true).await?;
            let mut state = JobProgress::Stopped;
            while let Some(update) = updates.next().await? {
                match update {
                    JobUpdate::Event { event, .. } => tell(event),
                    JobUpdate::Output { text, .. } => eprint!("{text}"),
                    JobUpdate::State { state: now, .. } => state = now,
                }
            }
            client.close().await;
            anyhow::Ok(state)
        })?;
        match state {
            JobProgress::Succeeded => Ok(()),
            JobProgress::Failed { error } => bail!("the job `{name}` failed: {error}"),
            other => bail!("the job `{name}` was {}", other.word()),
        }
    }

    pub(super) fn stop(self) -> anyhow::Result<()> {
        self.command(&["head", "stop"]).map(drop)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A signal that ends this process ends the cluster too, and does not give this back.
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        self.end();
        running.0 = None;
    }
}

impl Cluster {
    fn end(&self) {
        if !self.home.path().exists() {
            return;
        }
        // After a failure; after `stop` nothing runs any more, and it says so.
        let _ = self.command(&["head", "stop"]);
        // A folder in the system's temporary place, at worst left to the system.
        let _ = std::fs::remove_dir_all(self.home.path());
    }
}

/// When a signal ends this process, the daemons end too: they are no children of it.
fn end_on_signals(cluster: &Cluster) -> anyhow::Result<()> {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    running.0 = Some(cluster.home.path().to_owned());
    if std::mem::replace(&mut running.1, true) {
        return Ok(());
    }
    let program = cluster.program.clone();
    daemon::stop_on_signals(Arc::new(move || {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(home) = running.0.take() {
            let cluster = Cluster { home: Home::at(home), program: program.clone() };
            cluster.end();
            // It has ended; to drop it would wait for the lock.
            std::mem::forget(cluster);
        }
        // With the lock, so that no other thread says that its cluster has gone.
        std::process::exit(130);
    }))
}

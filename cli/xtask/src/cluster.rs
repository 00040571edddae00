//! A cluster on this machine in a state folder of its own, stopped when it goes out of scope.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::{interrupt, step};

/// A head and its workers. Dropping it ends them, politely first, and removes the state folder.
pub(crate) struct Cluster {
    rdist: PathBuf,
    home: tempfile::TempDir,
    environment: Vec<(&'static str, String)>,
}

impl Cluster {
    /// Starts a head on a free port and `workers` workers with one CPU each.
    pub(crate) fn start(
        rdist: &Path,
        workers: usize,
        environment: Vec<(&'static str, String)>,
    ) -> anyhow::Result<Self> {
        let home = tempfile::Builder::new()
            .prefix("rdist-demo-")
            .tempdir()
            .context("cannot make a folder for the demo's state")?;
        let cluster = Self { rdist: rdist.to_owned(), home, environment };
        step::run(&mut cluster.command(&["head", "start", "--listen", "127.0.0.1:0"]))?;
        for _ in 0..workers {
            step::run(&mut cluster.command(&["worker", "join", "--cpus", "1"]))?;
        }
        Ok(cluster)
    }

    /// `rdist` with these arguments, against this cluster.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.rdist);
        command
            .args(arguments)
            .current_dir(crate::repository())
            .env("RDIST_HOME", self.home.path())
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Processes that were started with this cluster's state folder and still run.
    fn processes(&self) -> Vec<Pid> {
        let mut wanted = b"RDIST_HOME=".to_vec();
        wanted.extend_from_slice(self.home.path().as_os_str().as_encoded_bytes());
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| {
                let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                environment.split(|byte| *byte == 0).any(|entry| entry == wanted)
            })
            .filter_map(Pid::from_raw)
            .collect()
    }

    /// Asks what is left to end, waits a little, and kills what does not.
    fn end_processes(&self) {
        for (signal, patience) in [(Signal::TERM, 5), (Signal::KILL, 5)] {
            for pid in self.processes() {
                // Gone meanwhile is as good.
                let _ = kill_process(pid, signal);
            }
            let deadline = Instant::now() + Duration::from_secs(patience);
            while !self.processes().is_empty() && Instant::now() < deadline {
                interrupt::pause(Duration::from_millis(20));
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        eprintln!("stopping the cluster");
        let mut stop = self.command(&["head", "stop"]);
        // In a process group of its own: a second Ctrl-C does not stop the stopping.
        std::os::unix::process::CommandExt::process_group(&mut stop, 0);
        let stopped = stop.stdin(Stdio::null()).stdout(Stdio::null()).status();
        if !stopped.is_ok_and(|status| status.success()) {
            eprintln!("`rdist head stop` failed; ending its processes one by one");
        }
        self.end_processes();
    }
}

/// Fails early when a program that the build should have made is not there.
pub(crate) fn require(program: &Path) -> anyhow::Result<()> {
    if !program.is_file() {
        bail!("the build left no {}", program.display());
    }
    Ok(())
}

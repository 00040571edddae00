//! The worker daemons of this machine: who they are, and how to end them without the head.
//!
//! Each leaves `daemons/PID.json` in the state folder while it runs. A file whose process is gone,
//! or whose process id belongs to a younger process, is stale and removed when it is seen.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rdist::config::Home;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A worker daemon of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LocalWorker {
    /// Its id, as in `rdist status`.
    pub worker: String,
    /// Its process.
    pub pid: i32,
    /// When that process started, in the kernel's ticks since boot: tells it from a later process
    /// with the same id.
    started: u64,
}

/// Removes the entry when the daemon ends in order.
#[derive(Debug)]
pub(crate) struct Entry(PathBuf);

impl Drop for Entry {
    fn drop(&mut self) {
        // What is left is recognised as stale.
        let _ = fs::remove_file(&self.0);
    }
}

impl LocalWorker {
    /// Notes that this process is the daemon of `worker`.
    pub(crate) fn register(home: &Home, worker: String) -> anyhow::Result<Entry> {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let started = start_time(pid).context("cannot read /proc/self/stat")?;
        let folder = folder(home);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join(format!("{pid}.json"));
        let text = serde_json::to_string(&Self { worker, pid, started })?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Entry(path))
    }

    /// All that run, by process id.
    pub(crate) fn all(home: &Home) -> Vec<Self> {
        let Ok(entries) = fs::read_dir(folder(home)) else { return Vec::new() };
        let mut workers = Vec::new();
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let text = fs::read_to_string(&path).unwrap_or_default();
            // A file that is just being written does not parse, and is nobody's to remove.
            let Ok(worker) = serde_json::from_str::<Self>(&text) else { continue };
            if start_time(worker.pid) == Some(worker.started) {
                workers.push(worker);
            } else {
                let _ = fs::remove_file(&path);
            }
        }
        workers.sort_by_key(|worker| worker.pid);
        workers
    }

    /// Asks the daemon to end, and waits until it has.
    pub(crate) fn end(&self, patience: Duration) -> anyhow::Result<()> {
        let Some(process) = Process::find(self.pid, Some(self.started)) else { return Ok(()) };
        process.terminate()?;
        if !process.wait(patience)? {
            let seconds = patience.as_secs();
            bail!("{} (process {}) still runs after {seconds} s", self.worker, self.pid);
        }
        Ok(())
    }
}

fn folder(home: &Home) -> PathBuf {
    home.path().join("daemons")
}

/// A process, by a descriptor: what is sent to it cannot reach a later one with the same id.
#[derive(Debug)]
pub(crate) struct Process(std::os::fd::OwnedFd);

impl Process {
    /// The process `pid`, if it runs, and if it started at `started` when that is given.
    pub(crate) fn find(pid: i32, started: Option<u64>) -> Option<Self> {
        let descriptor = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        // Looked at after opening: from here on the descriptor and the id mean the same process.
        if started.is_some() && start_time(pid) != started {
            return None;
        }
        Some(Self(descriptor))
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) -> anyhow::Result<()> {
        match pidfd_send_signal(&self.0, Signal::TERM) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error).context("cannot send SIGTERM"),
        }
    }

    /// Waits until it has ended; `false` when it runs on.
    pub(crate) fn wait(&self, patience: Duration) -> anyhow::Result<bool> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = left.try_into().ok();
            let mut descriptors = [PollFd::new(&self.0, PollFlags::IN)];
            match poll(&mut descriptors, timeout.as_ref()) {
                Ok(0) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot wait for a process"),
            }
        }
    }
}

/// When a process started, in ticks since boot: field 22 of `/proc/PID/stat`.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the program's name in parentheses, may hold anything.
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_worker_is_listed_while_it_runs() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        assert_eq!(LocalWorker::all(&home), []);
        let entry = LocalWorker::register(&home, "worker-7".into()).unwrap();
        let listed = LocalWorker::all(&home);
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].worker, "worker-7");
        drop(entry);
        assert_eq!(LocalWorker::all(&home), []);
    }

    #[test]
    fn an_entry_of_an_older_process_is_stale() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        let entry = LocalWorker::register(&home, "worker-7".into()).unwrap();
        let text = fs::read_to_string(&entry.0).unwrap();
        let mut worker: LocalWorker = serde_json::from_str(&text).unwrap();
        worker.started -= 1;
        fs::write(&entry.0, serde_json::to_string(&worker).unwrap()).unwrap();
        assert_eq!(LocalWorker::all(&home), []);
        assert!(!entry.0.exists());
    }

    #[test]
    fn ending_a_process_waits_for_it() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let process = Process::find(pid, start_time(pid)).unwrap();
        assert!(!process.wait(Duration::from_millis(1)).unwrap());
        let worker =
            LocalWorker { worker: "worker-7".into(), pid, started: start_time(pid).unwrap() };
        worker.end(Duration::from_secs(10)).unwrap();
        assert!(!child.wait().unwrap().success());
        worker.end(Duration::ZERO).unwrap();
    }
}

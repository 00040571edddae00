//! A request is a limit: how much memory an executor may use, and which share of the CPUs it gets
//! when they are wanted by more than there are.
//!
//! Three ways, the first that works: control groups of version 2, of version 1, or resource limits
//! and a watch. With each, a *watch* adds up the private memory of the executor's processes, and
//! kills the executor when that exceeds the limit. Objects in shared memory do not count: they are
//! the store's, which has a limit of its own. A control group cannot tell them apart, so its limit
//! is higher by the store's size; it is there for what is faster than the watch.
//!
//! Whatever ends an executor for want of memory ends that one alone. What an executor is for, and
//! how much it was promised, is the core's decision.

mod groups;

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rdist_scheduler::id::WorkerId;

use groups::Groups;

/// How often the watch looks, where there are control groups, and where there are none.
const WATCH_WITH_GROUPS: Duration = Duration::from_millis(200);
const WATCH_ALONE: Duration = Duration::from_millis(50);

/// What an executor may use.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Limit {
    /// Bytes of private memory; `None`: as much as there is.
    pub memory: Option<u64>,
    /// Its share, where CPUs are scarce, is in proportion to this.
    pub cpus: f64,
}

/// How limits are enforced on this machine.
#[derive(Debug)]
pub(super) struct Limits {
    groups: Option<Groups>,
    /// What executors may touch of the store.
    store_bytes: u64,
}

impl Limits {
    /// Finds out what this process may do.
    pub(super) fn detect(worker: WorkerId, store_bytes: u64) -> Self {
        Self { groups: Groups::make(&format!("{worker}")), store_bytes }
    }

    /// For people.
    pub(super) fn describe(&self) -> String {
        match &self.groups {
            Some(groups) => groups.to_string(),
            None => "rlimit, watch (memory alone)".to_owned(),
        }
    }

    /// Prepares the limits of a process that is about to start. `name` is that of its groups.
    pub(super) fn lease(&self, name: &str, limit: Limit) -> Lease {
        let folders = self.groups.as_ref().map(|groups| groups.enter(name)).unwrap_or_default();
        let mut lease = Lease { folders, limit };
        self.change(&mut lease, limit);
        lease
    }

    /// Gives a process other limits.
    pub(super) fn change(&self, lease: &mut Lease, limit: Limit) {
        let hard = limit.memory.map(|bytes| bytes.saturating_add(self.store_bytes));
        groups::set(&lease.folders, hard, limit.cpus);
        lease.limit = limit;
    }
}

/// One executor's limits, as long as it runs.
#[derive(Debug)]
pub(super) struct Lease {
    /// Its control groups, that of memory first.
    folders: Vec<PathBuf>,
    limit: Limit,
}

impl Lease {
    /// The files into which the new process, of a single thread yet, writes `0` to come under its
    /// limits. A thread that moves itself does not hold up the machine; a process that moves waits
    /// until all others have been seen between two system calls, some 10 ms. Version 2 lets a
    /// thread move only together with its process.
    pub(super) fn doors(&self) -> Vec<OwnedFd> {
        let open = |folder: &PathBuf| {
            let open = |name| fs::File::options().write(true).open(folder.join(name));
            open("tasks").or_else(|_| open("cgroup.procs")).ok().map(OwnedFd::from)
        };
        self.folders.iter().filter_map(open).collect()
    }

    /// What the process may allocate before it fails by itself, where only the watch limits it: so
    /// much that the watch comes first, unless it is overtaken.
    pub(super) fn data_limit(&self) -> Option<u64> {
        let memory = self.limit.memory.filter(|_| self.folders.is_empty())?;
        Some(memory.saturating_mul(2).saturating_add(1 << 30))
    }

    /// Ends when the executor uses too much; says how much that is.
    pub(super) async fn watch(&self, pid: u32) -> String {
        let Some(limit) = self.limit.memory else { return std::future::pending().await };
        let period = if self.folders.is_empty() { WATCH_ALONE } else { WATCH_WITH_GROUPS };
        loop {
            let used = self.private_bytes(pid);
            if used > limit {
                return format!(
                    "it used {} where {} are its limit (`memory` of its task or actor, or \
                     `--memory` of its worker)",
                    show(used),
                    show(limit),
                );
            }
            tokio::time::sleep(period).await;
        }
    }

    /// Why the kernel killed it, if it was for want of memory.
    pub(super) fn kernel_verdict(&self) -> Option<String> {
        let (folder, limit) = (self.folders.first()?, self.limit.memory?);
        let kills = ["memory.events", "memory.oom_control"].iter().find_map(|file| {
            let text = fs::read_to_string(folder.join(file)).ok()?;
            text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok())
        })?;
        if kills == 0 {
            return None;
        }
        let most = ["memory.peak", "memory.max_usage_in_bytes"].iter().find_map(|file| {
            fs::read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok()
        });
        let used = most.map_or_else(|| "more".to_owned(), show);
        Some(format!(
            "it used {used} with what it touched of the object store, where {} are its limit \
             (`memory` of its task or actor, or `--memory` of its worker)",
            show(limit),
        ))
    }

    /// Bytes of the executor's processes that nobody else sees.
    fn private_bytes(&self, pid: u32) -> u64 {
        let in_group = |folder: &PathBuf| fs::read_to_string(folder.join("cgroup.procs")).ok();
        let pids: Vec<u32> = match self.folders.first().and_then(in_group) {
            Some(text) => text.lines().filter_map(|line| line.parse().ok()).collect(),
            None => with_descendants(pid),
        };
        pids.into_iter().filter_map(private_bytes).sum()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        for folder in &self.folders {
            groups::remove(folder);
        }
    }
}

/// A process and all that it has started.
fn with_descendants(pid: u32) -> Vec<u32> {
    let mut pids = vec![pid];
    let mut next = 0;
    while let Some(&pid) = pids.get(next) {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        pids.extend(children.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        next += 1;
    }
    pids
}

/// Resident pages that are neither of files nor of shared memory.
fn private_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("statm")).ok()?;
    let mut pages = text.split_ascii_whitespace().skip(1).map_while(|word| word.parse().ok());
    let (resident, shared): (u64, u64) = (pages.next()?, pages.next()?);
    Some(resident.saturating_sub(shared) * rustix::param::page_size() as u64)
}

/// A size for people.
fn show(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_memory_counts_and_shared_does_not() {
        // In a process of its own: other tests of this one take and give back memory meanwhile.
        const ALONE: &str = "RDIST_TEST_ALONE";
        if std::env::var_os(ALONE).is_none() {
            let name = "worker::limits::tests::private_memory_counts_and_shared_does_not";
            let mut command = std::process::Command::new(std::env::current_exe().unwrap());
            command.args([name, "--exact"]).env(ALONE, "1");
            let output = command.output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let before = private_bytes(std::process::id()).unwrap();
        let grown = vec![1_u8; 64 << 20];
        let after = private_bytes(std::process::id()).unwrap();
        assert!(after >= before + (60 << 20), "{before} {after} {}", grown.len());
        let mut shared = crate::store::Arena::new(64 << 20).create(32 << 20).unwrap();
        shared.fill(1);
        let with_shared = private_bytes(std::process::id()).unwrap();
        assert!(with_shared < after + (16 << 20), "{after} {with_shared}");
    }

    #[test]
    fn limits_come_and_go_with_their_executor() {
        let limits = Limits::detect(WorkerId(4_242), 1 << 20);
        let mut lease = limits.lease("executor-1", Limit { memory: Some(64 << 20), cpus: 1.0 });
        let folders = lease.folders.clone();
        assert_eq!(folders.is_empty(), limits.describe().starts_with("rlimit"));
        assert!(folders.iter().all(|folder| folder.is_dir()));
        assert_eq!(lease.doors().len(), folders.len());
        assert_eq!(lease.kernel_verdict(), None);
        limits.change(&mut lease, Limit { memory: Some(32 << 20), cpus: 2.0 });
        for file in ["memory.max", "memory.limit_in_bytes"] {
            let set = folders.first().and_then(|folder| fs::read_to_string(folder.join(file)).ok());
            assert!(set.is_none_or(|set| set.trim() == (33 << 20).to_string()));
        }
        for (file, of_two_cpus) in [("cpu.weight", "200"), ("cpu.shares", "2048")] {
            let read = |folder: &PathBuf| fs::read_to_string(folder.join(file)).ok();
            let set = folders.iter().find_map(read);
            assert!(set.is_none_or(|set| set.trim() == of_two_cpus), "{file}");
        }
        drop(lease);
        drop(limits);
        for folder in folders {
            assert!(!folder.parent().unwrap().exists(), "{} is left", folder.display());
        }
    }
}

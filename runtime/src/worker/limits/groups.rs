//! Control groups, of version 2 or 1.
//!
//! ```text
//! version 2   OWN/rdist-PID-worker-N/executor-N               memory.max, cpu.weight
//! version 1   memory: OWN/rdist-PID-worker-N/executor-N       memory.limit_in_bytes
//!             cpu:    OWN/rdist-PID-worker-N/executor-N       cpu.shares
//! ```
//! `OWN` is the group of this process. Groups that a killed worker left behind are removed by the
//! next one: their names hold its process id.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

const PREFIX: &str = "rdist-";

/// The groups of one worker.
#[derive(Debug)]
pub(super) struct Groups {
    version: Version,
    /// The worker's own folders, that of memory first.
    folders: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Groups {
    /// `None` where this process may make none.
    pub(super) fn make(worker: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let membership = fs::read_to_string("/proc/self/cgroup").ok()?;
        let name = format!("{PREFIX}{}-{worker}", std::process::id());
        Self::version_two(&mounts, &membership, &name)
            .or_else(|| Self::version_one(&mounts, &membership, &name))
    }

    fn version_two(mounts: &str, membership: &str, name: &str) -> Option<Self> {
        let own = folder_of(mounts, membership, None)?;
        let has = |file: &str| {
            let text = fs::read_to_string(own.join(file)).unwrap_or_default();
            ["memory", "cpu"].iter().all(|wanted| text.split_whitespace().any(|is| is == *wanted))
        };
        if !has("cgroup.controllers") {
            return None;
        }
        remove_left_overs(&own);
        // A group with processes of its own may give nothing on; the kernel says so then.
        if !has("cgroup.subtree_control") {
            fs::write(own.join("cgroup.subtree_control"), "+memory +cpu").ok()?;
        }
        let folder = own.join(name);
        fs::create_dir(&folder).ok()?;
        let groups = Self { version: Version::Two, folders: vec![folder.clone()] };
        fs::write(folder.join("cgroup.subtree_control"), "+memory +cpu").ok()?;
        Some(groups)
    }

    fn version_one(mounts: &str, membership: &str, name: &str) -> Option<Self> {
        let mut folders = Vec::new();
        for controller in ["memory", "cpu"] {
            let Some(own) = folder_of(mounts, membership, Some(controller)) else { continue };
            remove_left_overs(&own);
            let folder = own.join(name);
            match fs::create_dir(&folder) {
                Ok(()) => folders.push(folder),
                // Without a limit of memory the groups are of little use.
                Err(_) if controller == "memory" => return None,
                Err(_) => {}
            }
        }
        let is_memory = folders.first()?.join("memory.limit_in_bytes").exists();
        is_memory.then_some(Self { version: Version::One, folders })
    }

    /// Makes the groups of a process.
    pub(super) fn enter(&self, name: &str) -> Vec<PathBuf> {
        let mut made = Vec::new();
        for folder in &self.folders {
            let folder = folder.join(name);
            if let Err(error) = fs::create_dir(&folder) {
                tracing::warn!(folder = %folder.display(), %error, "no control group");
                break;
            }
            made.push(folder);
        }
        made
    }
}

/// Sets the limits of a process's groups, as far as the kernel takes them.
pub(super) fn set(folders: &[PathBuf], memory: Option<u64>, cpus: f64) {
    for folder in folders {
        let set = |file: &str, value: String| {
            let path = folder.join(file);
            if path.exists()
                && let Err(error) = fs::write(&path, value)
            {
                tracing::warn!(path = %path.display(), %error, "a limit is not set");
            }
        };
        if let Some(memory) = memory {
            set("memory.max", memory.to_string());
            set("memory.limit_in_bytes", memory.to_string());
        }
        set("cpu.weight", ((cpus * 100.0) as u64).clamp(1, 10_000).to_string());
        set("cpu.shares", ((cpus * 1024.0) as u64).clamp(2, 262_144).to_string());
    }
}

impl fmt::Display for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.version, self.folders.len()) {
            (Version::Two, _) => f.write_str("cgroup v2"),
            (Version::One, 1) => f.write_str("cgroup v1 (memory)"),
            (Version::One, _) => f.write_str("cgroup v1"),
        }
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for folder in &self.folders {
            remove_with_children(folder);
        }
    }
}

/// Removes a group; what still runs there is killed.
pub(super) fn remove(folder: &Path) {
    for _ in 0..100 {
        match fs::remove_dir(folder) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            _ => return,
        }
        let procs = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        for pid in procs.lines().filter_map(|line| line.parse().ok()) {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                // It may be gone meanwhile.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        // The kernel takes a moment to empty the group of what was killed.
        std::thread::sleep(std::time::Duration::from_micros(200));
    }
    tracing::warn!(folder = %folder.display(), "a control group cannot be removed");
}

/// Removes a group and those in it, also of workers that ran in an executor: they are gone with it,
/// or have groups that they remove themselves.
fn remove_with_children(folder: &Path) {
    let children = fs::read_dir(folder).into_iter().flatten().flatten();
    for child in children.map(|child| child.path()).filter(|child| child.is_dir()) {
        if worker_of(&child).is_none_or(is_gone) {
            remove_with_children(&child);
        }
    }
    remove(folder);
}

/// Removes groups of workers that are gone.
fn remove_left_overs(own: &Path) {
    for entry in fs::read_dir(own).into_iter().flatten().flatten() {
        let folder = entry.path();
        if worker_of(&folder).is_some_and(is_gone) {
            remove_with_children(&folder);
        }
    }
}

/// The process whose group that is, if it is a worker's.
fn worker_of(folder: &Path) -> Option<u32> {
    folder.file_name()?.to_str()?.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

fn is_gone(pid: u32) -> bool {
    !Path::new("/proc").join(pid.to_string()).exists()
}

/// Where the group of this process is: of a version 1 controller, or of version 2.
fn folder_of(mounts: &str, membership: &str, controller: Option<&str>) -> Option<PathBuf> {
    let path = membership.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        let is_it = match controller {
            Some(controller) => names.split(',').any(|name| name == controller),
            None => names.is_empty(),
        };
        is_it.then_some(path)
    })?;
    mounts.lines().find_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        let mut front = front.split(' ').skip(3);
        let (root, mount_point) = (front.next()?, front.next()?);
        let mut back = back.split(' ');
        let (kind, options) = (back.next()?, back.nth(1)?);
        let is_it = match controller {
            Some(controller) => {
                kind == "cgroup" && options.split(',').any(|option| option == controller)
            }
            None => kind == "cgroup2",
        };
        if !is_it {
            return None;
        }
        // In a container the mount shows a part of the hierarchy only.
        let inside = path.strip_prefix(root.trim_end_matches('/')).unwrap_or("");
        Some(Path::new(mount_point).join(inside.trim_start_matches('/')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_found() {
        let mounts = "\
35 28 0:30 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
36 28 0:31 /box /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct
37 28 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup rw";
        let membership = "4:memory:/a/b\n1:cpu,cpuacct:/box/c\n0::/\n";
        let folder = |controller| folder_of(mounts, membership, controller);
        assert_eq!(folder(Some("memory")).unwrap(), Path::new("/sys/fs/cgroup/memory/a/b"));
        assert_eq!(folder(Some("cpu")).unwrap(), Path::new("/sys/fs/cgroup/cpu/c"));
        assert_eq!(folder(None).unwrap(), Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(folder(Some("pids")), None);
    }

    #[test]
    fn what_dead_workers_left_goes_with_what_ran_in_it() {
        // Above any that the kernel gives.
        const DEAD: u32 = 1 << 22;
        let own = tempfile::tempdir().unwrap();
        let group = |path: String| {
            let folder = own.path().join(path);
            fs::create_dir_all(&folder).unwrap();
            folder
        };
        let dead = group(format!("{PREFIX}{DEAD}-worker-1"));
        group(format!("{PREFIX}{DEAD}-worker-1/executor-1/{PREFIX}{DEAD}-worker-2/executor-1"));
        let alive = group(format!("{PREFIX}{}-worker-3/executor-1", std::process::id()));
        let other = group("somebody".to_owned());
        remove_left_overs(own.path());
        assert!(!dead.exists());
        assert!(alive.exists() && other.exists());
    }
}

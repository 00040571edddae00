//! What this machine has, as far as this process may use it: the defaults of a worker.

use std::fs;
use std::path::Path;

use rdist_scheduler::resource::{Amount, Resources};

/// What tells CUDA which GPUs a process sees.
pub const VISIBLE_GPUS: &str = "CUDA_VISIBLE_DEVICES";

/// CPUs, GPUs and memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// CPUs that this process may run on: affinity and control-group quota count.
    pub cpus: usize,
    /// GPUs of NVIDIA, those of `CUDA_VISIBLE_DEVICES` if that is set.
    pub gpus: usize,
    /// Bytes of memory: the machine's, or its control group's if that is less.
    pub memory_bytes: u64,
}

impl Machine {
    /// Share of the memory that the object store takes by default.
    const STORE_PERCENT: u64 = 30;

    /// Looks at this machine.
    pub fn detect() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let visible = std::env::var(VISIBLE_GPUS).ok();
        let gpus = match visible {
            Some(list) => visible_gpus(&list).count(),
            None => device_files(Path::new("/dev")),
        };
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let group = fs::read_to_string("/sys/fs/cgroup/memory.max").unwrap_or_default();
        Self { cpus, gpus, memory_bytes: memory(&meminfo, &group) }
    }

    /// What the object store gets by default.
    pub fn store_bytes(&self) -> u64 {
        self.memory_bytes / 100 * Self::STORE_PERCENT
    }

    /// What a worker with a store of `store_bytes` offers by default.
    pub fn resources(&self, store_bytes: u64) -> Resources {
        let mut resources = Resources::NONE;
        resources.cpu = Amount::whole(self.cpus as u64);
        resources.gpu = Amount::whole(self.gpus as u64);
        resources.memory = Amount::whole(self.memory_bytes.saturating_sub(store_bytes));
        resources
    }
}

/// What CUDA calls each GPU that makes `total`: as `CUDA_VISIBLE_DEVICES` names them, which may be
/// numbers or UUIDs, else by their numbers. CUDA ignores what it does not have.
pub(crate) fn gpu_names(total: Amount) -> Vec<String> {
    names(std::env::var(VISIBLE_GPUS).ok().as_deref(), total)
}

fn names(visible: Option<&str>, total: Amount) -> Vec<String> {
    let count = total.as_f64().ceil() as usize;
    match visible {
        Some(list) => visible_gpus(list).take(count).map(str::to_owned).collect(),
        None => (0..count).map(|number| number.to_string()).collect(),
    }
}

/// Entries of `CUDA_VISIBLE_DEVICES` before the first that hides the rest.
fn visible_gpus(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).take_while(|entry| !matches!(*entry, "" | "-1"))
}

/// Files `nvidia0`, `nvidia1`, ...
fn device_files(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let is_gpu = |name: &str| {
        let number = name.strip_prefix("nvidia").unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| is_gpu(name)).count()
}

/// The lesser of `MemTotal` and the control group's limit; 1 GiB when neither can be read.
fn memory(meminfo: &str, group: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| {
        let kib: u64 = line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib << 10)
    });
    let limit = group.trim().parse().ok();
    total.into_iter().chain(limit).min().unwrap_or(1 << 30)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_the_lesser_of_machine_and_control_group() {
        let meminfo = "MemTotal:       2048 kB\nMemFree:         1024 kB\n";
        assert_eq!(memory(meminfo, "max\n"), 2 << 20);
        assert_eq!(memory(meminfo, "1048576\n"), 1 << 20);
        assert_eq!(memory(meminfo, "9223372036854771712\n"), 2 << 20);
        assert_eq!(memory("", ""), 1 << 30);
    }

    #[test]
    fn gpus_are_counted() {
        assert_eq!(visible_gpus("").count(), 0);
        assert_eq!(visible_gpus("0,1").count(), 2);
        assert_eq!(visible_gpus("0,-1,2").count(), 1);
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["nvidia0", "nvidia12", "nvidiactl", "nvidia-uvm", "null"] {
            fs::write(folder.path().join(name), "").expect("a file");
        }
        assert_eq!(device_files(folder.path()), 2);
    }

    #[test]
    fn gpus_keep_the_names_that_the_environment_has_for_them() {
        let two = Amount::whole(2);
        assert_eq!(names(None, Amount::from_f64(1.5)), ["0", "1"]);
        assert_eq!(names(Some("5, GPU-8f1,7"), two), ["5", "GPU-8f1"]);
        assert_eq!(names(Some("3,-1,4"), two), ["3"]);
        assert!(names(None, Amount::ZERO).is_empty());
    }

    #[test]
    fn this_machine_has_something() {
        let machine = Machine::detect();
        assert!(machine.cpus > 0 && machine.memory_bytes > 0);
        let store = machine.store_bytes();
        let offered = machine.resources(store);
        assert_eq!(offered.cpu, Amount::whole(machine.cpus as u64));
        assert_eq!(offered.memory, Amount::whole(machine.memory_bytes - store));
    }
}

//! What the kernel says of a process.

use std::fs;
use std::time::Duration;

/// Its memory in bytes; what it shares with others is divided among them.
pub(super) fn pss_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

/// Who started it.
pub(super) fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    field(&status, "PPid:").and_then(|pid| u32::try_from(pid).ok())
}

/// Whom its threads have started.
pub(super) fn children(pid: u32) -> Vec<u32> {
    let lists = threads(pid, "children");
    lists.iter().flat_map(|list| list.split_ascii_whitespace()).flat_map(str::parse).collect()
}

/// Itself and whom it has started.
pub(super) fn with_children(pid: u32) -> Vec<u32> {
    let mut pids = children(pid);
    pids.push(pid);
    pids
}

/// What it has done so far, by all threads that it has now.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Activity {
    /// On a CPU.
    pub cpu: Duration,
    /// How often it went to sleep, and so was woken.
    pub sleeps: u64,
}

impl Activity {
    pub(super) fn of(pid: u32) -> Self {
        // Nanoseconds on a CPU, nanoseconds of waiting for one, and turns.
        let nanoseconds = |text: &String| text.split(' ').next()?.parse::<u64>().ok();
        let cpu = threads(pid, "schedstat").iter().filter_map(nanoseconds).sum();
        let sleeps = |text: &String| field(text, "voluntary_ctxt_switches:");
        let sleeps = threads(pid, "status").iter().filter_map(sleeps).sum();
        Self { cpu: Duration::from_nanos(cpu), sleeps }
    }

    pub(super) fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            sleeps: self.sleeps.saturating_sub(before.sleeps),
        }
    }
}

/// Waits until it does next to nothing for a moment; at most so long that one which always has
/// something to do is not waited for forever.
pub(super) fn wait_until_idle(pid: u32) {
    const QUIET: Duration = Duration::from_millis(1);
    const LOOK: Duration = Duration::from_millis(100);
    const LOOKS: u32 = 30;
    let mut before = Activity::of(pid);
    for _ in 0..LOOKS {
        std::thread::sleep(LOOK);
        let now = Activity::of(pid);
        if now.since(before).cpu < QUIET {
            return;
        }
        before = now;
    }
}

/// That file of each of its threads.
fn threads(pid: u32, file: &str) -> Vec<String> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    threads.flatten().flat_map(|thread| fs::read_to_string(thread.path().join(file))).collect()
}

/// The number after that word at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_known() {
        let me = std::process::id();
        assert!(pss_bytes(me).unwrap() > 100_000);
        assert!(children(parent(me).unwrap()).contains(&me));
        let before = Activity::of(me);
        std::thread::sleep(Duration::from_millis(1));
        let mut sum = 0_u64;
        for number in 0..10_000_000_u64 {
            sum = std::hint::black_box(sum.wrapping_add(number));
        }
        let done = Activity::of(me).since(before);
        assert!(done.cpu > Duration::from_millis(1), "{done:?}");
        assert!(done.sleeps >= 1, "{done:?}");
        assert_eq!(pss_bytes(u32::MAX), None);
    }
}

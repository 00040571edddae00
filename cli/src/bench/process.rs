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
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};
    use std::time::Instant;

    use super::*;

    /// A process of its own is looked at: threads of other tests begin and end in this one.
    #[test]
    fn a_process_is_known() {
        const WORKS_WHEN_TOLD: &str = "
            while read -r rounds; do
                i=0
                while [ $i -lt $rounds ]; do i=$((i + 1)); done
                echo done
            done";
        let mut process = Command::new("sh")
            .args(["-c", WORKS_WHEN_TOLD])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = process.stdin.take().unwrap();
        let mut answers = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut work = |rounds: u32| {
            writeln!(told, "{rounds}").unwrap();
            assert_eq!(answers.next().unwrap().unwrap(), "done");
        };
        let pid = process.id();
        assert_eq!(parent(pid), Some(std::process::id()));
        assert!(children(std::process::id()).contains(&pid));

        work(1);
        assert!(pss_bytes(pid).unwrap() > 10_000);
        let before = Activity::of(pid);
        work(100_000);
        // It has nothing more to do now, and so goes to sleep.
        let deadline = Instant::now() + Duration::from_secs(30);
        let done = loop {
            let done = Activity::of(pid).since(before);
            if done.sleeps > 0 || Instant::now() > deadline {
                break done;
            }
            std::thread::yield_now();
        };
        assert!(done.cpu > Duration::from_millis(1), "{done:?}");
        assert!(done.sleeps > 0, "{done:?}");

        drop(told);
        assert!(process.wait().unwrap().success());
        assert_eq!(pss_bytes(u32::MAX), None);
    }
}

//! Whether more threads want to run on this machine than it has cores: where they do, a thread that
//! polls keeps another one from a core, and it may be the one that it waits for.
//!
//! A thread cannot see that by itself. The kernel leaves a core to whoever runs there for a while,
//! and an offer to others (`sched_yield`) goes to threads of the same group alone; executors have
//! groups of their own (cgroups), and so have sessions. So the kernel is asked what it counts.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

/// Where the kernel says how many threads run or want to, on the whole machine.
const COUNTS: &str = "/proc/loadavg";
/// Where it says which cores the whole machine has. Those that this process may use are fewer in
/// some containers, and would not be what the threads are to be compared with.
const CORES: &str = "/sys/devices/system/cpu/online";

#[derive(Debug)]
struct Counter {
    file: File,
    cores: u32,
}

/// Whether there are too many. Takes about 1.5 us. Where the kernel does not say, there never are.
pub(super) fn is_here() -> bool {
    static COUNTER: OnceLock<Option<Counter>> = OnceLock::new();
    COUNTER.get_or_init(Counter::open).as_ref().is_some_and(Counter::exceeds)
}

impl Counter {
    fn open() -> Option<Self> {
        let cores = cores(&std::fs::read_to_string(CORES).ok()?)?;
        Some(Self { file: File::open(COUNTS).ok()?, cores })
    }

    fn exceeds(&self) -> bool {
        let mut text = [0; 128];
        let Ok(len) = self.file.read_at(&mut text, 0) else { return false };
        runnable(&text[..len]).is_some_and(|runnable| runnable > self.cores)
    }
}

/// Of a line like `0.20 0.18 0.12 3/80 11206`: the 3, threads that run or want to.
fn runnable(line: &[u8]) -> Option<u32> {
    let threads = line.split(|byte| *byte == b' ').nth(3)?;
    let running = threads.split(|byte| *byte == b'/').next()?;
    std::str::from_utf8(running).ok()?.parse().ok()
}

/// How many there are in a list like `0-3,6`.
fn cores(list: &str) -> Option<u32> {
    let count = |range: &str| -> Option<u32> {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        last.parse::<u32>().ok()?.checked_sub(first.parse().ok()?)?.checked_add(1)
    };
    list.trim().split(',').try_fold(0, |sum: u32, range| sum.checked_add(count(range)?))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn the_kernels_line_is_read() {
        assert_eq!(runnable(b"0.20 0.18 0.12 3/80 11206\n"), Some(3));
        assert_eq!(runnable(b"0.20 0.18 0.12 128/4000 7\n"), Some(128));
        for other in ["", "0.20 0.18 0.12", "a b c d/e f", "1 2 3 /4"] {
            assert_eq!(runnable(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn cores_are_counted() {
        assert_eq!(cores("0-1\n"), Some(2));
        assert_eq!(cores("0\n"), Some(1));
        assert_eq!(cores("0-3,6,8-9\n"), Some(7));
        for other in ["", "a", "3-1", "0-", "0-4294967295"] {
            assert_eq!(cores(other), None, "{other}");
        }
    }

    #[test]
    fn a_crowd_is_noticed() {
        let cores = cores(&std::fs::read_to_string(CORES).unwrap()).unwrap();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..=cores {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            let deadline = Instant::now() + Duration::from_secs(30);
            while !is_here() && Instant::now() < deadline {}
            is_over.store(true, Ordering::Relaxed);
            assert!(Instant::now() < deadline, "{cores} cores and more busy threads");
        });
    }
}

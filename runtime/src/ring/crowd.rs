//! Whether more threads want to run on this machine than it has cores: where they do, a thread that
//! polls keeps another one from a core, and it may be the one that it waits for.
//!
//! A thread cannot see that by itself. The kernel leaves a core to whoever runs there for a while,
//! and an offer to others (`sched_yield`) goes to threads of the same group alone; executors have
//! groups of their own (cgroups), and so have sessions. So the kernel is asked what it counts.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

/// Where the kernel says how many threads run or want to.
const COUNTS: &str = "/proc/loadavg";

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
        let cores = u32::try_from(std::thread::available_parallelism().ok()?.get()).ok()?;
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
    fn a_crowd_is_noticed() {
        let cores = std::thread::available_parallelism().unwrap().get();
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

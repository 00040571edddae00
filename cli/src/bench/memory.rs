//! What memory a driver, its worker and that worker's executors take while a row runs.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::process::{self, children, parent, pss_bytes};

/// Between two looks: each walks the page tables of all the processes.
const INTERVAL: Duration = Duration::from_millis(200);

/// Bytes by process, at the moment when their sum was largest. What processes share is counted
/// once (PSS).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Peak {
    pub driver: u64,
    pub worker: u64,
    pub executors: u64,
}

impl Peak {
    pub(super) fn sum(&self) -> u64 {
        self.driver + self.worker + self.executors
    }
}

/// Looks at the memory of this process, which is a driver, and of those around it.
pub(super) struct Watch {
    stop: Sender<()>,
    watching: JoinHandle<Peak>,
}

impl Watch {
    pub(super) fn start() -> Self {
        Self::by(look, INTERVAL)
    }

    fn by(mut look: impl FnMut() -> Peak + Send + 'static, interval: Duration) -> Self {
        let (stop, stopped) = channel();
        let watching = std::thread::spawn(move || {
            let mut peak = Peak::default();
            loop {
                let now = look();
                if now.sum() > peak.sum() {
                    peak = now;
                }
                if stopped.recv_timeout(interval) != Err(RecvTimeoutError::Timeout) {
                    return peak;
                }
            }
        });
        Self { stop, watching }
    }

    /// The largest that was seen.
    pub(super) fn stop(self) -> Peak {
        // It waits for this, or for the sender's end.
        let _ = self.stop.send(());
        self.watching.join().unwrap_or_default()
    }
}

fn look() -> Peak {
    let driver = std::process::id();
    let bytes = |pid| pss_bytes(pid).unwrap_or_default();
    let Some(worker) = parent(driver) else { return Peak::default() };
    let executors = children(worker).into_iter().filter(|pid| *pid != driver);
    let executors = executors.flat_map(process::with_children).map(bytes).sum();
    Peak { driver: bytes(driver), worker: bytes(worker), executors }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_sum_is_the_peak() {
        let (looked, looks) = channel();
        let mut bytes = [(3, 3), (9, 0), (4, 4)].into_iter();
        let look = move || {
            let (driver, executors) = bytes.next().unwrap_or_default();
            // The last looks are after the test.
            let _ = looked.send(());
            Peak { driver, worker: 1, executors }
        };
        let watch = Watch::by(look, Duration::from_millis(1));
        for _ in 0..4 {
            looks.recv().unwrap();
        }
        assert_eq!(watch.stop(), Peak { driver: 9, worker: 1, executors: 0 });
    }

    #[test]
    fn this_process_and_its_parent_take_memory() {
        let now = look();
        assert!(now.driver > 100_000 && now.worker > 0, "{now:?}");
    }
}

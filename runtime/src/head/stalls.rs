//! Times in which the head's process did not run: stopped by a signal, frozen with its machine, or
//! starved. Its peers were not silent then; it was deaf.
//!
//! The loop of the head looks at least four times in `dead_after`, by the monotonic clock. A gap
//! that is longer than half of `dead_after` is a stall.

use std::time::Duration;

use tokio::time::Instant;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Stalls {
    dead_after: Duration,
    last_look: Instant,
    /// When the last stall was noticed.
    last_stall: Option<Instant>,
}

impl Stalls {
    pub(super) fn new(now: Instant, dead_after: Duration) -> Self {
        Self { dead_after, last_look: now, last_stall: None }
    }

    /// Waits until it is time to look again.
    pub(super) async fn next_look(&self) {
        tokio::time::sleep_until(self.last_look + self.dead_after / 4).await;
    }

    /// Looks at the clock; says how long this process did not run before, if it did not.
    pub(super) fn look(&mut self, now: Instant) -> Option<Duration> {
        let gap = now - self.last_look;
        self.last_look = now;
        if gap < self.dead_after / 2 {
            return None;
        }
        self.last_stall = Some(now);
        Some(gap)
    }

    /// Whether silence of others may be due to a stall.
    pub(super) fn is_recent(&self, now: Instant) -> bool {
        self.last_stall.is_some_and(|at| now < at + self.dead_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_a_stall_and_is_remembered_for_as_long_as_silence_takes() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut stalls = Stalls::new(start, Duration::from_secs(3));
        assert_eq!(stalls.look(at(750)), None);
        assert_eq!(stalls.look(at(1_900)), None);
        assert!(!stalls.is_recent(at(1_900)));
        assert_eq!(stalls.look(at(6_900)), Some(Duration::from_secs(5)));
        assert_eq!(stalls.look(at(7_000)), None);
        assert!(stalls.is_recent(at(9_800)));
        assert!(!stalls.is_recent(at(9_900)));
    }
}

//! How long to look for work before sleeping.
//!
//! A sleep and its wake-up cost tens of microseconds, a poll of a ring a few nanoseconds. So an
//! idle side polls for about twice as long as the last waits took, if they were short, and hardly
//! at all if they were long. Every 64 polls it offers its core to others (`sched_yield`): on few
//! cores the peer that it waits for may need that very core. With three processes on two cores a
//! round trip takes 5 to 9 us that way, and 50 to 110 us without the yield. There is no `pause`
//! between polls: 64 of them last for microseconds, and made that round trip five times as long.

use std::time::{Duration, Instant};

/// The policy of one waiting thread.
#[derive(Debug)]
pub struct Spin {
    /// Polls without success since the last progress.
    idle_polls: u32,
    /// When the first of them was noticed.
    idle_since: Option<Instant>,
    /// How long to poll before sleeping.
    limit: Duration,
}

/// Polls between two looks at the clock and offers of the core.
const POLLS_PER_YIELD: u32 = 64;
/// Polls this long when waits are long.
const MIN_LIMIT: Duration = Duration::from_micros(4);
/// Never polls longer; longer waits count as long.
const MAX_LIMIT: Duration = Duration::from_micros(200);

impl Spin {
    /// Starts with waits that are expected to be short.
    pub fn new() -> Self {
        Self { idle_polls: 0, idle_since: None, limit: MAX_LIMIT / 4 }
    }

    /// After a poll without success: true to poll again, false to sleep (and poll again after it).
    pub fn again(&mut self) -> bool {
        self.idle_polls += 1;
        if !self.idle_polls.is_multiple_of(POLLS_PER_YIELD) {
            return true;
        }
        let now = Instant::now();
        let since = *self.idle_since.get_or_insert(now);
        if now - since >= self.limit {
            self.idle_polls = 0;
            return false;
        }
        rustix::thread::sched_yield();
        true
    }

    /// After a poll with success.
    pub fn progress(&mut self) {
        self.idle_polls = 0;
        if let Some(since) = self.idle_since.take() {
            self.learn(since.elapsed());
        }
    }

    /// Adapts the limit to a wait that has ended.
    fn learn(&mut self, wait: Duration) {
        let wanted = if wait <= MAX_LIMIT { wait * 2 } else { Duration::ZERO };
        // Up at once, down by halves: one long wait in a busy phase is no reason to sleep.
        self.limit = wanted.max(self.limit / 2).clamp(MIN_LIMIT, MAX_LIMIT);
    }
}

impl Default for Spin {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Polls until the policy says sleep; how often.
    fn polls_until_sleep(spin: &mut Spin) -> u32 {
        (1..).find(|_| !spin.again()).unwrap()
    }

    #[test]
    fn long_waits_shorten_the_spin_and_short_waits_lengthen_it() {
        let mut spin = Spin::new();
        for _ in 0..10 {
            spin.learn(Duration::from_millis(5));
        }
        assert_eq!(spin.limit, MIN_LIMIT);
        spin.learn(Duration::from_micros(60));
        assert_eq!(spin.limit, Duration::from_micros(120));
        spin.learn(Duration::from_micros(190));
        assert_eq!(spin.limit, MAX_LIMIT);
    }

    #[test]
    fn an_idle_side_goes_to_sleep() {
        let mut spin = Spin::new();
        assert!(polls_until_sleep(&mut spin) >= 2 * POLLS_PER_YIELD);
        assert!(polls_until_sleep(&mut spin) >= POLLS_PER_YIELD);
    }
}

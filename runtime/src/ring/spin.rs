//! How long to look for work before sleeping, and where.
//!
//! A sleep and its wake-up cost tens of microseconds, a poll of a ring a few nanoseconds. So an
//! idle side polls for about twice as long as the last waits took, if they were short, and hardly
//! at all if they were long. Every 64 polls it offers its core to others (`sched_yield`): on few
//! cores the peer that it waits for may need that very core. There is no `pause` between polls:
//! 64 of them last for microseconds.
//!
//! Two things tell it that it keeps somebody from a core all the same:
//!
//! - More threads want to run than there are cores ([`crowd`]): it sleeps. On a busy core a wake-up
//!   costs two microseconds.
//! - It was woken on the core from which its bell was rung ([`Rung::FromHere`]): whoever rang was
//!   interrupted, and goes on when it is gone. It moves to another core, and polls there. A kernel
//!   that takes its cores for far from each other, as on many virtual machines, would leave both
//!   on one while another idles.
//!
//! On a machine with two cores, bursts of 1,000 calls of one actor went from 350,000 a second to
//! 1,000,000 by that, and calls of four in turn from 120,000 to 500,000.

use std::time::{Duration, Instant};

use rustix::thread::{sched_getaffinity, sched_getcpu, sched_setaffinity};

use super::bell::Rung;
use super::crowd;

/// The policy of one waiting thread.
#[derive(Debug)]
pub struct Spin {
    /// Polls without success since the last progress.
    idle_polls: u32,
    /// When the first of them was noticed.
    idle_since: Option<Instant>,
    /// How long to poll before sleeping.
    limit: Duration,
    /// There was a crowd when it looked last.
    crowded: bool,
    /// Whoever rang is likely to wait for this core.
    is_in_the_way: bool,
    /// When it last went to another core.
    moved: Option<Instant>,
}

/// Polls between two looks at the clock and offers of the core.
const POLLS_PER_YIELD: u32 = 64;
/// Polls between two looks for a crowd.
const POLLS_PER_LOOK: u32 = 2 * POLLS_PER_YIELD;
/// It moves no more often: that takes tens of microseconds.
const MOVE_EVERY: Duration = Duration::from_millis(1);
/// Polls this long when waits are long.
const MIN_LIMIT: Duration = Duration::from_micros(4);
/// Never polls longer; longer waits count as long.
const MAX_LIMIT: Duration = Duration::from_micros(200);

impl Spin {
    /// Starts with waits that are expected to be short.
    pub fn new() -> Self {
        Self {
            idle_polls: 0,
            idle_since: None,
            limit: MAX_LIMIT / 4,
            crowded: false,
            is_in_the_way: false,
            moved: None,
        }
    }

    /// After a sleep: how it ended, if that was by a bell.
    pub fn woken(&mut self, rung: Option<Rung>) {
        self.is_in_the_way = rung == Some(Rung::FromHere);
    }

    /// After a poll without success: true to poll again, false to sleep (and poll again after it).
    pub fn again(&mut self) -> bool {
        self.idle_polls += 1;
        if self.is_unwelcome() {
            self.idle_polls = 0;
            return false;
        }
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

    /// Whether a poll here would keep somebody from a core; looks now and then.
    fn is_unwelcome(&mut self) -> bool {
        let is_in_the_way = std::mem::take(&mut self.is_in_the_way);
        let is_first = self.crowded && self.idle_polls == 1;
        let is_time = is_first || self.idle_polls.is_multiple_of(POLLS_PER_LOOK);
        if !is_in_the_way && !is_time {
            return false;
        }
        self.crowded = crowd::is_here();
        self.crowded || (is_in_the_way && !self.moves_away())
    }

    /// Goes to another core; whether it did.
    fn moves_away(&mut self) -> bool {
        let now = Instant::now();
        if self.moved.is_some_and(|at| now - at < MOVE_EVERY) {
            return false;
        }
        self.moved = Some(now);
        leave_core()
    }

    /// Adapts the limit to a wait that has ended.
    fn learn(&mut self, wait: Duration) {
        let wanted = if wait <= MAX_LIMIT { wait * 2 } else { Duration::ZERO };
        // Up at once, down by halves: one long wait in a busy phase is no reason to sleep.
        self.limit = wanted.max(self.limit / 2).clamp(MIN_LIMIT, MAX_LIMIT);
    }
}

/// Moves the present thread to another core on which it may run; false: there is none.
fn leave_core() -> bool {
    let Ok(allowed) = sched_getaffinity(None) else { return false };
    let mut others = allowed;
    others.unset(sched_getcpu());
    let moved = others.count() > 0 && sched_setaffinity(None, &others).is_ok();
    // It stays there only as long as the kernel likes.
    moved && sched_setaffinity(None, &allowed).is_ok()
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
        // After a crowd it looks for one at once.
        let fewest = if spin.crowded { 1 } else { POLLS_PER_YIELD };
        assert!(polls_until_sleep(&mut spin) >= fewest);
    }

    #[test]
    fn a_side_that_was_woken_where_it_was_rung_from_moves_or_sleeps() {
        let allowed = sched_getaffinity(None).unwrap();
        let mut spin = Spin::new();
        let begin = Instant::now();
        let mut moves = 0;
        for _ in 0..20 {
            spin.woken(Some(Rung::FromHere));
            moves += u128::from(spin.again());
            spin.progress();
        }
        let most = 1 + begin.elapsed().as_nanos() / MOVE_EVERY.as_nanos();
        assert!(moves <= if allowed.count() > 1 { most } else { 0 }, "{moves} of {most}");
        assert_eq!(sched_getaffinity(None).unwrap(), allowed, "it may go back");
    }

    #[test]
    fn a_thread_leaves_its_core_where_there_is_another() {
        let others = sched_getaffinity(None).unwrap().count() - 1;
        assert_eq!(leave_core(), others > 0);
    }
}

//! Who sleeps says so first: the protocol that loses no wake-up.
//!
//! One side moves an index forward, the other waits for it to move. Both directions of a ring use
//! it: the sender moves `tail` and the receiver waits in `asleep`; the receiver moves `head` and
//! the sender waits in `starved`. Every shared word has one writer. The waiter's word counts its
//! announcements: it is odd while one stands, and different for each, so that the mover rings
//! once for each and needs no write to say so.
//!
//! ```text
//! mover                                   waiter
//! M1 index = new                          W1 word = next odd number
//! M2 fence                                W2 fence
//! M3 word is odd and new to me? ring      W3 index moved? stay awake : sleep until the bell rings
//! ```
//! The two fences are totally ordered. If M2 is first, W3 sees M1 and the waiter stays awake; if
//! W2 is first, M3 sees W1 and the mover rings. The bell remembers a ring that comes before the
//! sleep. This file is compiled a second time by the test `ring_model`, against loom's atomics.

use super::sync::{AtomicU64, Ordering, fence};

/// The mover's private half.
#[derive(Debug, Default)]
pub(super) struct Mover {
    /// The last announcement that was answered.
    rung: u64,
}

impl Mover {
    /// Moves the index; true: the waiter announced a sleep, ring its bell.
    pub(super) fn advance(&mut self, index: &AtomicU64, value: u64, word: &AtomicU64) -> bool {
        index.store(value, Ordering::Release);
        fence(Ordering::SeqCst);
        let announced = word.load(Ordering::Relaxed);
        let is_new = announced % 2 == 1 && announced != self.rung;
        if is_new {
            self.rung = announced;
        }
        is_new
    }
}

/// The waiter's private half.
#[derive(Debug, Default)]
pub(super) struct Waiter {
    /// What the shared word holds.
    turn: u64,
}

impl Waiter {
    /// Announces a sleep until the index differs from `seen`; false: it does already, do not
    /// sleep.
    pub(super) fn announce(&mut self, index: &AtomicU64, seen: u64, word: &AtomicU64) -> bool {
        self.turn = self.turn.wrapping_add(1) | 1;
        word.store(self.turn, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if index.load(Ordering::Relaxed) == seen {
            return true;
        }
        self.withdraw(word);
        false
    }

    /// Takes an announcement back, if there is one; after a wake-up, or instead of a sleep.
    pub(super) fn withdraw(&mut self, word: &AtomicU64) {
        if self.turn % 2 == 1 {
            self.turn = self.turn.wrapping_add(1);
            word.store(self.turn, Ordering::Relaxed);
        }
    }
}

//! Who sleeps says so first: the protocol that loses no wake-up.
//!
//! One side moves an index forward, the other waits for it to move. Both directions of a ring use
//! it: the sender moves `tail` and the receiver waits in `asleep`; the receiver moves `head` and
//! the sender waits in `starved`.
//!
//! ```text
//! mover                          waiter
//! M1 index = new                 W1 flag = 1
//! M2 fence                       W2 fence
//! M3 flag was 1? ring            W3 index moved? stay awake : sleep until the bell rings
//! ```
//! The two fences are totally ordered. If M2 is first, W3 sees M1 and the waiter stays awake; if
//! W2 is first, M3 sees W1 and the mover rings. The bell remembers a ring that comes before the
//! sleep. This file is compiled a second time by the test `ring_model`, against loom's atomics.

use super::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// Moves the index; true: the waiter announced a sleep, ring its bell.
pub(super) fn advance(index: &AtomicU64, value: u64, flag: &AtomicU32) -> bool {
    index.store(value, Ordering::Release);
    fence(Ordering::SeqCst);
    flag.load(Ordering::Relaxed) != 0 && flag.swap(0, Ordering::Relaxed) != 0
}

/// Announces a sleep until the index differs from `seen`; false: it does already, do not sleep.
pub(super) fn announce(index: &AtomicU64, seen: u64, flag: &AtomicU32) -> bool {
    flag.store(1, Ordering::Relaxed);
    fence(Ordering::SeqCst);
    if index.load(Ordering::Relaxed) == seen {
        return true;
    }
    withdraw(flag);
    false
}

/// Takes an announcement back; after a wake-up, or instead of a sleep.
pub(super) fn withdraw(flag: &AtomicU32) {
    flag.store(0, Ordering::Relaxed);
}

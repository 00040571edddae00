//! Every interleaving of the ring's sleep protocol, under the memory model, by loom. The protocol
//! is the very file that the ring uses. A lost wake-up is a deadlock, which loom reports.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../src/ring/announce.rs"]
mod announce;

mod sync {
    pub(super) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
}

use announce::{advance, announce, withdraw};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use sync::{AtomicU32, AtomicU64, Ordering, fence};

/// An eventfd.
struct Bell {
    is_rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.is_rung.lock().unwrap() = true;
        self.changed.notify_one();
    }

    fn wait(&self) {
        let mut is_rung = self.is_rung.lock().unwrap();
        while !*is_rung {
            is_rung = self.changed.wait(is_rung).unwrap();
        }
        *is_rung = false;
    }
}

struct Shared {
    index: AtomicU64,
    flag: AtomicU32,
    bell: Bell,
}

type Advance = fn(&AtomicU64, u64, &AtomicU32) -> bool;
type Announce = fn(&AtomicU64, u64, &AtomicU32) -> bool;

/// One side moves the index `moves` times, the other waits until it has seen the last.
fn explore(moves: u64, advance: Advance, announce: Announce) {
    loom::model(move || {
        let bell = Bell { is_rung: Mutex::new(false), changed: Condvar::new() };
        let shared = Shared { index: AtomicU64::new(0), flag: AtomicU32::new(0), bell };
        let shared = Arc::new(shared);
        let mover = {
            let shared = shared.clone();
            thread::spawn(move || {
                for value in 1..=moves {
                    if advance(&shared.index, value, &shared.flag) {
                        shared.bell.ring();
                    }
                }
            })
        };
        let mut seen = 0;
        while seen < moves {
            let index = shared.index.load(Ordering::Acquire);
            if index != seen {
                seen = index;
            } else if announce(&shared.index, seen, &shared.flag) {
                shared.bell.wait();
                withdraw(&shared.flag);
            }
        }
        mover.join().unwrap();
    });
}

#[test]
fn no_interleaving_loses_a_wake_up() {
    explore(1, advance, announce);
    explore(2, advance, announce);
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_movers_fence_a_wake_up_is_lost() {
    fn advance_unfenced(index: &AtomicU64, value: u64, flag: &AtomicU32) -> bool {
        index.store(value, Ordering::Release);
        flag.load(Ordering::Relaxed) != 0 && flag.swap(0, Ordering::Relaxed) != 0
    }
    explore(1, advance_unfenced, announce);
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_second_look_a_wake_up_is_lost() {
    fn announce_blind(_: &AtomicU64, _: u64, flag: &AtomicU32) -> bool {
        flag.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        true
    }
    explore(1, advance, announce_blind);
}

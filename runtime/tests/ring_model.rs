//! Every interleaving of the ring's sleep protocol, under the memory model, by loom. The protocol
//! is the very file that the ring uses. A lost wake-up is a deadlock, which loom reports.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../src/ring/announce.rs"]
mod announce;

mod sync {
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering, fence};
}

use std::sync::atomic::AtomicBool;

use announce::{Mover, Waiter};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use sync::{AtomicU64, Ordering, fence};

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
    word: AtomicU64,
    bell: Bell,
}

/// One side moves the index `moves` times, the other waits until it has seen the last. With
/// more than one move, threads are interrupted at most `preemptions` times in each execution.
fn explore(moves: u64, preemptions: Option<usize>) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = preemptions;
    model.check(move || {
        let bell = Bell { is_rung: Mutex::new(false), changed: Condvar::new() };
        let shared = Shared { index: AtomicU64::new(0), word: AtomicU64::new(0), bell };
        let shared = Arc::new(shared);
        let thread = {
            let shared = shared.clone();
            let mut mover = Mover::default();
            thread::spawn(move || {
                for value in 1..=moves {
                    if mover.advance(&shared.index, value, &shared.word) {
                        shared.bell.ring();
                    }
                }
            })
        };
        let mut seen = 0;
        let mut waiter = Waiter::default();
        while seen < moves {
            let index = shared.index.load(Ordering::Acquire);
            if index != seen {
                seen = index;
            } else if waiter.announce(&shared.index, seen, &shared.word) {
                shared.bell.wait();
                waiter.withdraw(&shared.word);
            }
        }
        thread.join().unwrap();
    });
}

#[test]
fn no_interleaving_loses_a_wake_up() {
    explore(1, None);
    explore(2, Some(4));
    explore(3, Some(2));
}

type Advance = fn(&AtomicU64, &AtomicU64) -> bool;
type Announce = fn(&AtomicU64, &AtomicU64) -> bool;

/// Whether some interleaving of one move ends with the waiter asleep, the index moved and the bell
/// silent. Unlike [`explore`], it does not end in loom's deadlock, which aborts the process.
fn loses_a_wake_up(advance: Advance, announce: Announce) -> bool {
    let is_lost = std::sync::Arc::new(AtomicBool::new(false));
    let found = is_lost.clone();
    loom::model(move || {
        let shared = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
        let mover = {
            let shared = shared.clone();
            thread::spawn(move || advance(&shared.0, &shared.1))
        };
        let is_asleep = announce(&shared.0, &shared.1);
        let is_rung = mover.join().unwrap();
        if is_asleep && !is_rung {
            found.store(true, Ordering::Relaxed);
        }
    });
    is_lost.load(Ordering::Relaxed)
}

#[test]
fn each_part_of_the_protocol_is_needed() {
    fn advance(index: &AtomicU64, word: &AtomicU64) -> bool {
        Mover::default().advance(index, 1, word)
    }
    fn announce(index: &AtomicU64, word: &AtomicU64) -> bool {
        Waiter::default().announce(index, 0, word)
    }
    fn advance_unfenced(index: &AtomicU64, word: &AtomicU64) -> bool {
        index.store(1, Ordering::Release);
        word.load(Ordering::Relaxed) % 2 == 1
    }
    fn announce_unfenced(index: &AtomicU64, word: &AtomicU64) -> bool {
        word.store(1, Ordering::Relaxed);
        index.load(Ordering::Relaxed) == 0
    }
    fn announce_blind(_: &AtomicU64, word: &AtomicU64) -> bool {
        word.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        true
    }
    assert!(!loses_a_wake_up(advance, announce));
    assert!(loses_a_wake_up(advance_unfenced, announce));
    assert!(loses_a_wake_up(advance, announce_unfenced));
    assert!(loses_a_wake_up(advance, announce_blind));
}

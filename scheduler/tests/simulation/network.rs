//! Time, chance, and messages under way.
//!
//! A pair of addresses is a link: what goes over it arrives in order, each message after its own
//! random delay; links are independent of each other. Now and then a connection breaks and the
//! link layer sends again: everything behind comes late, in order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rdist_scheduler::hash::FastMap;
use rdist_scheduler::id::{ExecutorId, WorkerId};

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0, 0)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.below(from.len() as u64) as usize])
    }
}

/// A hash of two words, for values that follow from others.
pub fn mix(a: u64, b: u64) -> u64 {
    let x = a ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Address {
    Head,
    Worker(WorkerId),
    Executor(WorkerId, ExecutorId),
}

/// What happens when, in order of time, then of arrival. Events are large: they lie still while
/// their places in the heap move.
#[derive(Debug)]
pub struct Agenda<E> {
    /// When, the how-manieth, and where the event lies.
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    events: Vec<Option<E>>,
    free: Vec<u32>,
    arrivals: u64,
    free_at: FastMap<(Address, Address), u64>,
}

impl<E> Agenda<E> {
    pub fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            arrivals: 0,
            free_at: FastMap::default(),
        }
    }

    pub fn at(&mut self, at: u64, event: E) {
        self.arrivals += 1;
        let place = match self.free.pop() {
            Some(place) => {
                self.events[place as usize] = Some(event);
                place
            }
            None => {
                self.events.push(Some(event));
                self.events.len() as u32 - 1
            }
        };
        self.heap.push(Reverse((at, self.arrivals, place)));
    }

    /// Over a link: no earlier than what was sent before. Returns when.
    pub fn send(&mut self, link: (Address, Address), at: u64, event: E) -> u64 {
        let free_at = self.free_at.entry(link).or_default();
        *free_at = at.max(*free_at);
        let at = *free_at;
        self.at(at, event);
        at
    }

    /// The link's next connection owes nothing to the last one's delays.
    pub fn reset(&mut self, link: (Address, Address)) {
        self.free_at.remove(&link);
    }

    pub fn pop(&mut self) -> Option<(u64, E)> {
        let Reverse((at, _, place)) = self.heap.pop()?;
        self.free.push(place);
        self.events[place as usize].take().map(|event| (at, event))
    }
}

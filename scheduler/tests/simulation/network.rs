//! Time, chance, and messages under way.
//!
//! A pair of addresses is a link: what goes over it arrives in order, each message after its own
//! random delay; links are independent of each other. Now and then a connection breaks and the
//! link layer sends again: everything behind comes late, in order.

use std::cmp::Ordering;
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

/// What happens when, in order of time, then of arrival.
#[derive(Debug)]
pub struct Agenda<E> {
    heap: BinaryHeap<Entry<E>>,
    arrivals: u64,
    free_at: FastMap<(Address, Address), u64>,
}

#[derive(Debug)]
struct Entry<E> {
    at: u64,
    arrival: u64,
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.arrival) == (other.at, other.arrival)
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.arrival).cmp(&(self.at, self.arrival))
    }
}

impl<E> Agenda<E> {
    pub fn new() -> Self {
        Self { heap: BinaryHeap::new(), arrivals: 0, free_at: FastMap::default() }
    }

    pub fn at(&mut self, at: u64, event: E) {
        self.arrivals += 1;
        self.heap.push(Entry { at, arrival: self.arrivals, event });
    }

    /// Over a link: no earlier than what was sent before.
    pub fn send(&mut self, link: (Address, Address), at: u64, event: E) {
        let free_at = self.free_at.entry(link).or_default();
        *free_at = at.max(*free_at);
        let at = *free_at;
        self.at(at, event);
    }

    /// The link's next connection owes nothing to the last one's delays.
    pub fn reset(&mut self, link: (Address, Address)) {
        self.free_at.remove(&link);
    }

    pub fn pop(&mut self) -> Option<(u64, E)> {
        self.heap.pop().map(|entry| (entry.at, entry.event))
    }
}

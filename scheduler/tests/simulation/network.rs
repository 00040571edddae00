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

/// What happens when, in order of time, then of arrival. Of what is under way on a link only the
/// first is in the heap: a program that submits a million tasks at once fills a link, and the heap
/// stays small. Events are large: they lie still while their places move.
#[derive(Debug)]
pub struct Agenda<E> {
    /// When, the how-manieth, and where the event lies.
    heap: BinaryHeap<Reverse<(u64, u64, Place)>>,
    entries: Vec<Entry<E>>,
    free: Vec<Place>,
    arrivals: u64,
    /// The number of the last event that happened.
    happened: u64,
    links: FastMap<(Address, Address), Link>,
}

type Place = u32;

#[derive(Debug)]
struct Entry<E> {
    at: u64,
    arrival: u64,
    /// `None`: it has happened.
    event: Option<E>,
    /// What comes behind it on its link.
    next: Option<Place>,
}

#[derive(Debug, Default)]
struct Link {
    free_at: u64,
    /// The last event on it: its place and its arrival.
    last: Option<(Place, u64)>,
}

impl<E> Agenda<E> {
    pub fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            entries: Vec::new(),
            free: Vec::new(),
            arrivals: 0,
            happened: 0,
            links: FastMap::default(),
        }
    }

    pub fn at(&mut self, at: u64, event: E) {
        let (place, arrival) = self.next();
        self.keep(place, Entry { at, arrival, event: Some(event), next: None });
        self.heap.push(Reverse((at, arrival, place)));
    }

    /// Over a link: no earlier than what was sent before. Returns when.
    pub fn send(&mut self, link: (Address, Address), at: u64, event: E) -> u64 {
        let (place, arrival) = self.next();
        let link = self.links.entry(link).or_default();
        let at = at.max(link.free_at);
        link.free_at = at;
        let before = link.last.replace((place, arrival));
        self.keep(place, Entry { at, arrival, event: Some(event), next: None });
        let before = before.map(|(place, arrival)| (&mut self.entries[place as usize], arrival));
        match before {
            Some((entry, arrival)) if entry.arrival == arrival && entry.event.is_some() => {
                entry.next = Some(place);
            }
            _ => self.heap.push(Reverse((at, arrival, place))),
        }
        at
    }

    /// The link's next connection owes nothing to the last one's delays.
    pub fn reset(&mut self, link: (Address, Address)) {
        self.links.remove(&link);
    }

    /// Whether all that was sent from there has arrived.
    pub fn has_delivered(&self, from: Address, now: u64) -> bool {
        self.links.iter().all(|(link, state)| link.0 != from || state.free_at <= now)
    }

    pub fn pop(&mut self) -> Option<(u64, E)> {
        let Reverse((at, arrival, place)) = self.heap.pop()?;
        self.happened = arrival;
        let entry = &mut self.entries[place as usize];
        let (event, next) = (entry.event.take(), entry.next.take());
        if let Some(next) = next {
            let Entry { at, arrival, .. } = self.entries[next as usize];
            self.heap.push(Reverse((at, arrival, next)));
        }
        self.free.push(place);
        event.map(|event| (at, event))
    }

    /// The event that was taken last happens then, before those that came after it.
    pub fn put_off(&mut self, at: u64, event: E) {
        let place = self.free.pop().unwrap_or(self.entries.len() as Place);
        let arrival = self.happened;
        self.keep(place, Entry { at, arrival, event: Some(event), next: None });
        self.heap.push(Reverse((at, arrival, place)));
    }

    /// Where the next event goes, and its number.
    fn next(&mut self) -> (Place, u64) {
        self.arrivals += 1;
        (self.free.pop().unwrap_or(self.entries.len() as Place), self.arrivals)
    }

    fn keep(&mut self, place: Place, entry: Entry<E>) {
        match self.entries.get_mut(place as usize) {
            Some(free) => *free = entry,
            None => self.entries.push(entry),
        }
    }
}

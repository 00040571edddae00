//! Which worker gets an object from which: many that want the same one get it as a tree.
//!
//! The owner remembers whom it pointed where until the reader says that it has its copy. A reader
//! hands on what it receives while it receives it, so the next one is pointed to the first source
//! with a free slot: a copy, or a reader that is still receiving. A reader that could not get it
//! from there is pointed to whole copies alone.
//!
//! BC-1: an object with readers is owned here and lies in arenas.

use super::LocalCore;
use crate::id::{ObjectId, WorkerId};
use crate::object::Value;

/// Readers that one source serves at a time, before others are preferred.
const SLOTS: usize = 2;

/// A worker that was told where an object is, and has not got it yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) reader: WorkerId,
    pub(super) source: WorkerId,
}

impl LocalCore {
    /// Where `reader` is to get the object: the best source first, then the whole copies.
    pub(super) fn sources(&mut self, object: ObjectId, reader: WorkerId) -> Vec<WorkerId> {
        let Some(entry) = self.objects.get(&object) else { return Vec::new() };
        let Value::Arena { copies, .. } = &entry.value else { return Vec::new() };
        let readings = self.readings.entry(object).or_default();
        readings.retain(|reading| reading.reader != reader);
        let receivers = readings.iter().map(|reading| reading.reader);
        let candidates: Vec<WorkerId> =
            copies.iter().copied().chain(receivers).filter(|at| *at != reader).collect();
        let load = |at: &WorkerId| readings.iter().filter(|reading| reading.source == *at).count();
        let free = candidates.iter().find(|at| load(at) < SLOTS);
        let best = free.or_else(|| candidates.iter().min_by_key(|at| load(at))).copied();
        let rest = copies.iter().copied().filter(|at| *at != reader && Some(*at) != best);
        let sources: Vec<WorkerId> = best.into_iter().chain(rest).collect();
        match best {
            Some(source) => readings.push(Reading { reader, source }),
            None if readings.is_empty() => drop(self.readings.remove(&object)),
            None => {}
        }
        sources
    }

    /// The reader has its copy, or wants it no longer from there.
    pub(super) fn end_reading(&mut self, object: ObjectId, reader: WorkerId) {
        if let Some(readings) = self.readings.get_mut(&object) {
            readings.retain(|reading| reading.reader != reader);
            if readings.is_empty() {
                self.readings.remove(&object);
            }
        }
    }

    /// A worker is gone: it reads nothing.
    pub(super) fn end_readings_of(&mut self, reader: WorkerId) {
        self.readings.retain(|_, readings| {
            readings.retain(|reading| reading.reader != reader);
            !readings.is_empty()
        });
    }
}

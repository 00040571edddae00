//! The entries of all objects that a process knows, by id. An entry has its object's id, which the
//! tables therefore need not repeat: a process may know millions.

use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;
use rdist_scheduler::hash::BuildIdHasher;
use rdist_scheduler::id::ObjectId;

use super::objects::Entry;

/// Parts with a lock each.
const SHARDS: usize = 16;

type Entries = HashTable<Arc<Entry>>;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Known([Shard; SHARDS]);

/// On cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(Mutex<Entries>);

impl Known {
    /// Locks what belongs to `object`; nobody else changes it meanwhile.
    #[inline]
    pub(super) fn lock(&self, object: ObjectId) -> Slot<'_> {
        let hash = hash_of(object);
        // Tables go by the lowest and the highest bits.
        let Shard(entries) = &self.0[(hash >> 40) as usize % SHARDS];
        let entries = entries.lock().unwrap_or_else(PoisonError::into_inner);
        Slot { entries, object, hash }
    }

    /// The entry of `object`.
    #[inline]
    pub(super) fn get(&self, object: ObjectId) -> Option<Arc<Entry>> {
        self.lock(object).get().cloned()
    }
}

fn hash_of(object: ObjectId) -> u64 {
    BuildIdHasher::default().hash_one(object)
}

/// Where an object's entry is, or would be.
pub(super) struct Slot<'a> {
    entries: MutexGuard<'a, Entries>,
    object: ObjectId,
    hash: u64,
}

impl Slot<'_> {
    /// The entry, if there is one.
    #[inline]
    pub(super) fn get(&self) -> Option<&Arc<Entry>> {
        self.entries.find(self.hash, |entry| entry.reference.object == self.object)
    }

    /// Puts one where there is none.
    #[inline]
    pub(super) fn insert(&mut self, entry: Arc<Entry>) {
        debug_assert!(entry.reference.object == self.object && self.get().is_none());
        self.entries.insert_unique(self.hash, entry, |entry| hash_of(entry.reference.object));
    }

    /// Takes it out.
    pub(super) fn remove(&mut self) -> Option<Arc<Entry>> {
        let is_it = |entry: &Arc<Entry>| entry.reference.object == self.object;
        let found = self.entries.find_entry(self.hash, is_it).ok()?;
        Some(found.remove().0)
    }
}

//! The objects that this process refers to: one entry each, shared by all references to it.
//!
//! ```text
//! (absent) ──1── held ──2── held, wanted ──3── held, settled ──4── (absent)
//!                  └────────────────4─────────────────────────────────┘
//! ```
//! 1. the process submits, puts, or reads a reference out of a value (which sends `Retained`)
//! 2. somebody waits: `Wanted` is sent, once
//! 3. `Ready` or `Failed` came, or the process put the value itself
//! 4. the last reference was dropped: `Released` is sent
//!
//! **OB-1** The worker counts this process as one holder of an object exactly while the entry is in
//! the map. Steps 1 and 4 change the map and send their message under the lock of the map's shard,
//! so the messages leave in the order of the changes.
//! **OB-2** An entry that waits for its answer stays in the map without references until the answer
//! is there. Otherwise an old answer could be taken for a new one, and name a block whose space
//! already holds another object.

use std::any::TypeId;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Waker;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use rdist_scheduler::id::ObjectId;
use rdist_scheduler::outcome::TaskError;
use rdist_scheduler::spec::Reference;

use super::outbox::Outbox;
use super::process::Process;
use crate::api::value::Aligned;
use crate::store;
use crate::wire::executor::FromExecutor;

/// What became of an object.
#[derive(Debug)]
pub(crate) enum Settled {
    /// Its value is here.
    Inline(Aligned),
    /// Its value lies in a mapped segment; readable until the object is released.
    Block(store::View),
    /// It will never have one.
    Failed(TaskError),
}

/// One object that this process refers to.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The object and its owner.
    pub(crate) reference: Reference,
    /// References to it in this process.
    references: AtomicUsize,
    wanted: AtomicBool,
    settled: OnceLock<Settled>,
    waiters: Mutex<Vec<Waker>>,
    /// The type that the bytes were checked for; reading as this type needs no second check.
    pub(crate) checked: OnceLock<TypeId>,
}

impl Entry {
    fn new(reference: Reference) -> Self {
        Self {
            reference,
            references: AtomicUsize::new(1),
            wanted: AtomicBool::new(false),
            settled: OnceLock::new(),
            waiters: Mutex::new(Vec::new()),
            checked: OnceLock::new(),
        }
    }

    /// What became of it, if that is known.
    #[inline]
    pub(crate) fn settled(&self) -> Option<&Settled> {
        self.settled.get()
    }

    /// The error in the value's place, if that is known.
    pub(crate) fn failure(&self) -> Option<&TaskError> {
        match self.settled.get() {
            Some(Settled::Failed(error)) => Some(error),
            _ => None,
        }
    }

    /// Wakes `waker` once it is settled; false: it is already.
    pub(crate) fn register(&self, waker: &Waker) -> bool {
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        if self.settled.get().is_some() {
            return false;
        }
        if !waiters.iter().any(|other| other.will_wake(waker)) {
            waiters.push(waker.clone());
        }
        true
    }

    /// Forgets a waker that does not wait any longer.
    pub(crate) fn unregister(&self, waker: &Waker) {
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        waiters.retain(|other| !other.will_wake(waker));
    }

    fn settle(&self, settled: Settled) {
        // A second answer brings the same value.
        let _ = self.settled.set(settled);
        let waiters = {
            let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *waiters)
        };
        waiters.into_iter().for_each(Waker::wake);
    }
}

/// A counted reference: everything in this process that keeps an object alive holds one.
#[derive(Debug)]
pub(crate) struct Held(Arc<Entry>);

impl std::ops::Deref for Held {
    type Target = Arc<Entry>;

    fn deref(&self) -> &Arc<Entry> {
        &self.0
    }
}

impl Clone for Held {
    fn clone(&self) -> Self {
        self.0.references.fetch_add(1, Ordering::Relaxed);
        Self(self.0.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Ok(process) = Process::current() {
            process.objects.dropped(&self.0, &process.outbox);
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    entries: DashMap<ObjectId, Arc<Entry>, BuildHasherDefault<IdHasher>>,
}

impl Objects {
    /// A reference that this process has by making the object: the message that makes it, which
    /// the caller sends next, counts the process as a holder.
    pub(crate) fn made(&self, reference: Reference) -> Held {
        self.reference(reference, || {})
    }

    /// A reference to something that was never sent: in no map, known to no worker.
    pub(crate) fn failed(reference: Reference, error: TaskError) -> Held {
        let entry = Entry::new(reference);
        entry.settle(Settled::Failed(error));
        Held(Arc::new(entry))
    }

    /// A reference out of an argument or a value.
    pub(crate) fn retained(&self, reference: Reference, outbox: &Outbox) -> Held {
        self.reference(reference, || outbox.send(&FromExecutor::Retained(reference)))
    }

    fn reference(&self, reference: Reference, first: impl FnOnce()) -> Held {
        match self.entries.entry(reference.object) {
            Slot::Occupied(slot) => {
                slot.get().references.fetch_add(1, Ordering::SeqCst);
                Held(slot.get().clone())
            }
            Slot::Vacant(slot) => {
                let entry = Arc::new(Entry::new(reference));
                slot.insert(entry.clone());
                first();
                Held(entry)
            }
        }
    }

    /// One reference fewer.
    fn dropped(&self, entry: &Arc<Entry>, outbox: &Outbox) {
        if entry.references.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.retire(entry, outbox);
        }
    }

    /// Asks the worker for the value, unless that was done, or is of no use.
    pub(crate) fn want(&self, entry: &Entry, outbox: &Outbox) {
        if entry.settled.get().is_none() && !entry.wanted.swap(true, Ordering::SeqCst) {
            outbox.send(&FromExecutor::Wanted(entry.reference));
        }
    }

    /// The worker's answer, or a value made here.
    pub(crate) fn settle(&self, object: ObjectId, settled: Settled, outbox: &Outbox) {
        let Some(entry) = self.entries.get(&object).map(|entry| entry.clone()) else { return };
        entry.settle(settled);
        if entry.references.load(Ordering::SeqCst) == 0 {
            self.retire(&entry, outbox);
        }
    }

    fn retire(&self, entry: &Arc<Entry>, outbox: &Outbox) {
        let object = entry.reference.object;
        self.entries.remove_if(&object, |_, current| {
            // Somebody may have found it again meanwhile, or retired it (OB-1).
            let is_unused = Arc::ptr_eq(current, entry)
                && current.references.load(Ordering::SeqCst) == 0
                && (!current.wanted.load(Ordering::SeqCst) || current.settled.get().is_some());
            if is_unused {
                outbox.send(&FromExecutor::Released(object));
            }
            is_unused
        });
    }
}

/// Ids are mixed already; this folds them.
#[derive(Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(5) ^ n).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

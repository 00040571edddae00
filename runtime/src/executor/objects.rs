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
//! A value in the store may be given up while it is settled: when the worker needs its room and
//! nobody here reads it (`give_up`). Whoever wants to read it then asks again (step 2).
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
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
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
    /// Its value lies in the store, or on the worker's disk.
    Block(InStore),
    /// It will never have one.
    Failed(TaskError),
}

impl Settled {
    /// A value in the store, which can be read until it is given up or released.
    pub(crate) fn block(view: store::View) -> Self {
        let content = Content { bytes: ContentBytes::Block(view), checked: OnceLock::new() };
        Self::Block(InStore(Mutex::new(Presence::Here {
            content: Arc::new(content),
            is_fresh: true,
        })))
    }

    /// A value in the store that this process does not read.
    pub(crate) fn away() -> Self {
        Self::Block(InStore(Mutex::new(Presence::Away)))
    }
}

/// A value in the store, as this process sees it.
#[derive(Debug)]
pub(crate) struct InStore(Mutex<Presence>);

#[derive(Debug)]
enum Presence {
    /// The worker has to be asked for it.
    Away,
    /// It can be read: the worker counts this process as a reader. `is_fresh`: it has not been
    /// read since it came, nor was it to be given up.
    Here { content: Arc<Content>, is_fresh: bool },
    /// It was lost while it was away.
    Lost(TaskError),
}

impl InStore {
    fn lock(&self) -> MutexGuard<'_, Presence> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to a second question.
    fn fill(&self, settled: Settled) {
        *self.lock() = match settled {
            Settled::Block(other) => other.0.into_inner().unwrap_or_else(PoisonError::into_inner),
            Settled::Failed(error) => Presence::Lost(error),
            // Made again, it became smaller.
            Settled::Inline(bytes) => {
                let bytes = ContentBytes::Inline(bytes);
                let content = Arc::new(Content { bytes, checked: OnceLock::new() });
                Presence::Here { content, is_fresh: true }
            }
        };
    }
}

/// Bytes that do not move, and what is known of them.
#[derive(Debug)]
pub(crate) struct Content {
    bytes: ContentBytes,
    checked: OnceLock<TypeId>,
}

#[derive(Debug)]
enum ContentBytes {
    Inline(Aligned),
    Block(store::View),
}

/// The bytes of a value, for a reader: they stay where they are while this and its entry live.
#[derive(Debug)]
pub(crate) enum Bytes<'a> {
    /// In the entry.
    Inline(&'a Aligned, &'a OnceLock<TypeId>),
    /// In the store, mostly.
    Shared(Arc<Content>),
}

impl Bytes<'_> {
    /// The type that the bytes were checked for; reading as this type needs no second check.
    pub(crate) fn checked(&self) -> &OnceLock<TypeId> {
        match self {
            Self::Inline(_, checked) => checked,
            Self::Shared(content) => &content.checked,
        }
    }
}

impl std::ops::Deref for Bytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Inline(bytes, _) => bytes,
            Self::Shared(content) => match &content.bytes {
                ContentBytes::Inline(bytes) => bytes,
                ContentBytes::Block(view) => view,
            },
        }
    }
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
    /// Views that came another way, and that this entry keeps from being given up.
    views: AtomicUsize,
    /// The type that inline bytes were checked for.
    checked: OnceLock<TypeId>,
}

impl Entry {
    fn new(reference: Reference) -> Self {
        Self {
            reference,
            references: AtomicUsize::new(1),
            wanted: AtomicBool::new(false),
            settled: OnceLock::new(),
            waiters: Mutex::new(Vec::new()),
            views: AtomicUsize::new(0),
            checked: OnceLock::new(),
        }
    }

    /// Whether it is known what became of it.
    #[inline]
    pub(crate) fn is_settled(&self) -> bool {
        self.settled.get().is_some()
    }

    /// The value's bytes, if they can be read at once.
    #[inline]
    pub(crate) fn bytes(&self) -> Option<Result<Bytes<'_>, TaskError>> {
        match self.settled.get()? {
            Settled::Inline(bytes) => Some(Ok(Bytes::Inline(bytes, &self.checked))),
            Settled::Failed(error) => Some(Err(error.clone())),
            Settled::Block(value) => match &mut *value.lock() {
                Presence::Away => None,
                Presence::Here { content, is_fresh } => {
                    *is_fresh = false;
                    Some(Ok(Bytes::Shared(content.clone())))
                }
                Presence::Lost(error) => Some(Err(error.clone())),
            },
        }
    }

    /// Whether a reader need not wait.
    pub(crate) fn has_bytes(&self) -> bool {
        match self.settled.get() {
            None => false,
            Some(Settled::Block(value)) => !matches!(*value.lock(), Presence::Away),
            Some(_) => true,
        }
    }

    /// Lets go of bytes in the store that nobody reads; whether there were any. Bytes that have
    /// just come for a reader are spared once.
    fn give_up(&self) -> bool {
        let Some(Settled::Block(value)) = self.settled.get() else { return false };
        let mut presence = value.lock();
        let Presence::Here { content, is_fresh } = &mut *presence else { return false };
        let is_block = matches!(content.bytes, ContentBytes::Block(_));
        let is_viewed = self.views.load(Ordering::SeqCst) > 0;
        if !is_block || is_viewed || std::mem::take(is_fresh) || Arc::strong_count(content) > 1 {
            return false;
        }
        *presence = Presence::Away;
        self.wanted.store(false, Ordering::SeqCst);
        true
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
        self.register_unless(waker, || self.settled.get().is_some())
    }

    /// Wakes `waker` once it can be read; false: it can already.
    pub(crate) fn register_reader(&self, waker: &Waker) -> bool {
        self.register_unless(waker, || self.has_bytes())
    }

    fn register_unless(&self, waker: &Waker, is_over: impl FnOnce() -> bool) -> bool {
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        if is_over() {
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
        if let Err(settled) = self.settled.set(settled)
            && let Some(Settled::Block(value)) = self.settled.get()
        {
            value.fill(settled);
        }
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

/// A reference that keeps the worker from moving the value, for views of an argument that outlive
/// its task.
#[derive(Debug)]
pub(crate) struct Kept(Held);

impl Kept {
    /// Before the task's end is told, after which the worker no longer counts it as a reader.
    pub(crate) fn new(held: Held, outbox: &Outbox, objects: &Objects) -> Self {
        held.views.fetch_add(1, Ordering::SeqCst);
        objects.want(&held, outbox);
        Self(held)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.views.fetch_sub(1, Ordering::SeqCst);
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
        if !entry.has_bytes() && !entry.wanted.swap(true, Ordering::SeqCst) {
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

    /// Gives up what nobody reads among `objects`; the worker is told which these are.
    pub(crate) fn give_up(&self, objects: Vec<ObjectId>) -> Vec<ObjectId> {
        let is_given_up =
            |object: &ObjectId| self.entries.get(object).is_some_and(|entry| entry.give_up());
        objects.into_iter().filter(is_given_up).collect()
    }

    fn retire(&self, entry: &Arc<Entry>, outbox: &Outbox) {
        let object = entry.reference.object;
        self.entries.remove_if(&object, |_, current| {
            // Somebody may have found it again meanwhile, or retired it (OB-1).
            let is_unused = Arc::ptr_eq(current, entry)
                && current.references.load(Ordering::SeqCst) == 0
                && (!current.wanted.load(Ordering::SeqCst) || current.has_bytes());
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

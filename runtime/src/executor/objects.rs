//! The objects that this process refers to: one entry each, shared by all references to it.
//!
//! ```text
//! (absent) ──1── held ──2── held, wanted ──3── held, settled ──4── (absent)
//!                  └────────────────4─────────────────────────────────┘
//! ```
//! 1. the process submits, puts, or reads a reference out of a value (which sends `Retained`, but
//!    for what the value covers)
//! 2. somebody waits: `Wanted` is sent, once
//! 3. `Ready` or `Failed` came, or the process put the value itself
//! 4. the last reference was dropped: `Released` is sent
//!
//! A value in the store may be given up while it is settled: when the worker needs its room and
//! nobody here reads it (`give_up`). Whoever wants to read it then asks again (step 2).
//!
//! **OB-1** The worker counts this process as one holder of an object exactly while the entry is in
//! the map and *told*. Steps 1 and 4 change the map and send their message under the lock of the
//! map's shard, so the messages leave in the order of the changes.
//! **OB-2** An entry that waits for its answer stays in the map without references until the answer
//! is there. Otherwise an old answer could be taken for a new one, and name a block whose space
//! already holds another object.
//! **OB-3** An entry that is not told is covered: it was read out of a value that this process
//! holds, and whose owner, this worker, keeps what is inside for as long. It is told before a
//! message names it, and before the value that covers it is released ([`cover`]).

use std::any::TypeId;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;

use rdist_scheduler::id::ObjectId;
use rdist_scheduler::outcome::TaskError;
use rdist_scheduler::spec::Reference;
use smallvec::SmallVec;

use super::cover::Covered;
use super::direct::Link;
use super::known::Known;
use super::outbox::Outbox;
use super::process::Process;
use super::settled::{Bytes, Settled};
use crate::wire::executor::FromExecutor;

/// Most objects have one waiter at most.
type Wakers = SmallVec<[Waker; 1]>;

/// One object that this process refers to.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The object and its owner.
    pub(crate) reference: Reference,
    /// References to it in this process.
    references: AtomicU32,
    /// Whether the worker knows that this process refers to it; changes under the lock of the
    /// map's shard.
    told: AtomicBool,
    /// Entries that were read out of its value.
    pub(super) covered: Covered,
    wanted: AtomicBool,
    settled: OnceLock<Settled>,
    waiters: Mutex<Wakers>,
    /// Whether those who wait for some of many want to hear of it; changes under `waiters`.
    watched: AtomicBool,
    /// Views that came another way, and that this entry keeps from being given up.
    views: AtomicU32,
    /// The type that inline bytes were checked for.
    checked: OnceLock<TypeId>,
    /// The worker does not know it: it failed before it was sent, or is of a direct call.
    is_own: AtomicBool,
    /// Somebody wants it, and the worker was not told.
    is_awaited: AtomicBool,
    /// Its bytes are inline, and no references are among them.
    is_plain: AtomicBool,
    /// The direct call that makes it.
    call: Option<(Arc<Link>, u64)>,
}

impl Entry {
    fn new(reference: Reference, told: bool) -> Self {
        Self {
            reference,
            references: AtomicU32::new(1),
            told: AtomicBool::new(told),
            covered: Covered::default(),
            wanted: AtomicBool::new(false),
            settled: OnceLock::new(),
            waiters: Mutex::default(),
            watched: AtomicBool::new(false),
            views: AtomicU32::new(0),
            checked: OnceLock::new(),
            is_own: AtomicBool::new(false),
            is_awaited: AtomicBool::new(false),
            is_plain: AtomicBool::new(false),
            call: None,
        }
    }

    /// Whether the worker knows nothing of it.
    #[inline]
    pub(super) fn is_own(&self) -> bool {
        self.is_own.load(Ordering::SeqCst)
    }

    /// The direct call that makes it, or has made it.
    pub(super) fn call(&self) -> Option<&(Arc<Link>, u64)> {
        self.call.as_ref()
    }

    /// Its answer comes to this process, and needs no question.
    pub(super) fn is_promised(&self) {
        self.wanted.store(true, Ordering::SeqCst);
    }

    /// Its value is inline, and has no references inside.
    pub(super) fn has_no_references(&self) {
        self.is_plain.store(true, Ordering::Relaxed);
    }

    /// Such a value, if it is there.
    pub(crate) fn plain_bytes(&self) -> Option<&[u8]> {
        match self.settled.get()? {
            Settled::Inline(bytes) if self.is_plain.load(Ordering::Relaxed) => Some(bytes),
            _ => None,
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
            Settled::Failed(error) => Some(Err(TaskError::clone(error))),
            Settled::Block(value) => value.bytes(),
        }
    }

    /// Whether a reader need not wait.
    pub(crate) fn has_bytes(&self) -> bool {
        match self.settled.get() {
            None => false,
            Some(Settled::Block(value)) => !value.is_away(),
            Some(_) => true,
        }
    }

    /// Lets go of bytes in the store that nobody reads; whether there were any. Bytes that have
    /// just come for a reader are spared once.
    fn give_up(&self) -> bool {
        let Some(Settled::Block(value)) = self.settled.get() else { return false };
        value.give_up(|| self.views.load(Ordering::SeqCst) > 0, &self.wanted)
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

    /// The worker is told by `tell`, unless it was before; under the lock of the map's shard.
    fn tell(&self, tell: impl FnOnce()) {
        if !self.told.load(Ordering::Acquire) {
            tell();
            self.told.store(true, Ordering::Release);
        }
    }

    /// Makes its end known to those who wait for some of many.
    fn watch(&self) {
        if !self.watched.load(Ordering::Acquire) {
            let _waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
            self.watched.store(true, Ordering::Release);
        }
    }

    /// Whether those who wait for some of many are to be woken.
    fn settle(&self, settled: Settled) -> bool {
        self.set(settled);
        self.wake()
    }

    /// It is known what became of it; those who wait are woken by [`Self::wake`].
    pub(super) fn set(&self, settled: Settled) {
        if let Err(settled) = self.settled.set(settled)
            && let Some(Settled::Block(value)) = self.settled.get()
        {
            value.fill(settled);
        }
    }

    /// Wakes those who wait for it; whether those who wait for some of many are to be woken too.
    fn wake(&self) -> bool {
        let (waiters, watched) = {
            let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
            (std::mem::take(&mut *waiters), self.watched.load(Ordering::Relaxed))
        };
        waiters.into_iter().for_each(Waker::wake);
        watched
    }
}

/// A counted reference: everything in this process that keeps an object alive holds one.
#[derive(Debug)]
pub(crate) struct Held(Arc<Entry>);

impl Held {
    /// Of something that the worker knows nothing of.
    pub(super) fn own(reference: Reference) -> Self {
        let mut entry = Entry::new(reference, false);
        *entry.is_own.get_mut() = true;
        Self(Arc::new(entry))
    }

    /// That direct call makes it; nobody else has heard of it yet.
    pub(super) fn made_by(&mut self, link: Arc<Link>, token: u64) -> Arc<Entry> {
        if let Some(entry) = Arc::get_mut(&mut self.0) {
            entry.call = Some((link, token));
        }
        self.0.clone()
    }
}

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
    entries: Known,
    /// Threads that wait for some of many objects.
    watchers: Mutex<Vec<Waker>>,
}

impl Objects {
    /// A reference that this process has by making the object: the message that makes it, which
    /// the caller sends next, counts the process as a holder.
    pub(crate) fn made(&self, reference: Reference) -> Held {
        self.reference(reference, || {})
    }

    /// A reference to something that was never sent: in no map, known to no worker.
    pub(crate) fn failed(reference: Reference, error: TaskError) -> Held {
        let held = Held::own(reference);
        held.settle(Settled::failed(error));
        held
    }

    /// A reference out of an argument or a value.
    pub(crate) fn retained(&self, reference: Reference, outbox: &Outbox) -> Held {
        self.reference(reference, || outbox.send(&FromExecutor::Retained(reference)))
    }

    /// A reference that the worker is told of: by `tell`, if it was not before.
    fn reference(&self, reference: Reference, tell: impl FnOnce()) -> Held {
        let mut slot = self.entries.lock(reference.object);
        if let Some(entry) = slot.get() {
            entry.references.fetch_add(1, Ordering::SeqCst);
            entry.tell(tell);
            return Held(entry.clone());
        }
        let entry = Arc::new(Entry::new(reference, true));
        slot.insert(entry.clone());
        tell();
        Held(entry)
    }

    /// A reference out of the value of `container`, which is held, and which this worker owns: it
    /// needs no message as long as nothing is done with it (OB-3).
    pub(super) fn covered(&self, reference: Reference, container: &Entry) -> Held {
        let mut slot = self.entries.lock(reference.object);
        if let Some(entry) = slot.get() {
            entry.references.fetch_add(1, Ordering::SeqCst);
            return Held(entry.clone());
        }
        let entry = Arc::new(Entry::new(reference, false));
        slot.insert(entry.clone());
        container.covered.push(&entry);
        Held(entry)
    }

    /// The reference, for a message that names it.
    pub(crate) fn told(&self, entry: &Arc<Entry>, outbox: &Outbox) -> Reference {
        if !entry.told.load(Ordering::Acquire) {
            let slot = self.entries.lock(entry.reference.object);
            if slot.get().is_some_and(|current| Arc::ptr_eq(current, entry)) {
                entry.tell(|| outbox.send(&FromExecutor::Retained(entry.reference)));
            }
        }
        entry.reference
    }

    /// One reference fewer.
    fn dropped(&self, entry: &Arc<Entry>, outbox: &Outbox) {
        if entry.references.fetch_sub(1, Ordering::SeqCst) == 1 && !entry.is_own() {
            self.retire(entry, outbox);
        }
    }

    /// The worker hears of an object of this process by `tell`, and from then on counts it.
    pub(super) fn adopt(&self, entry: &Arc<Entry>, tell: impl FnOnce()) {
        let mut slot = self.entries.lock(entry.reference.object);
        if let Some(other) = slot.get()
            && other.references.load(Ordering::SeqCst) > 0
        {
            // One that a former try of the same task left, and uses, is the one that is counted.
            tell();
            other.told.store(true, Ordering::Release);
            return;
        }
        slot.remove();
        slot.insert(entry.clone());
        // First, so that nobody asks the worker for what it has not heard of.
        tell();
        entry.told.store(true, Ordering::Release);
        entry.is_own.store(false, Ordering::SeqCst);
    }

    /// After that, where its value comes by the worker: who waits for it asks there.
    pub(super) fn adopted(&self, entry: &Arc<Entry>, outbox: &Outbox) {
        if entry.is_awaited.load(Ordering::SeqCst) {
            entry.is_own.store(false, Ordering::SeqCst);
            self.want(entry, outbox);
        }
        self.retire_unused(entry, outbox);
    }

    /// Lets go of an entry to which nobody refers.
    pub(super) fn retire_unused(&self, entry: &Arc<Entry>, outbox: &Outbox) {
        if !entry.is_own() && entry.references.load(Ordering::SeqCst) == 0 {
            self.retire(entry, outbox);
        }
    }

    /// Asks the worker for the value, unless that was done, or is of no use.
    pub(crate) fn want(&self, entry: &Arc<Entry>, outbox: &Outbox) {
        if entry.is_own() {
            entry.is_awaited.store(true, Ordering::SeqCst);
            // The worker may have heard of it just now.
            if entry.is_own() {
                return;
            }
        }
        let is_wanted = || entry.wanted.load(Ordering::SeqCst);
        if !is_wanted() && !entry.has_bytes() && !entry.wanted.swap(true, Ordering::SeqCst) {
            outbox.send(&FromExecutor::Wanted(self.told(entry, outbox)));
        }
    }

    /// The worker's answer, or a value made here.
    pub(crate) fn settle(&self, object: ObjectId, settled: Settled, outbox: &Outbox) {
        let Some(entry) = self.entries.get(object) else { return };
        entry.set(settled);
        self.wake(&entry);
        if entry.references.load(Ordering::SeqCst) == 0 {
            self.retire(&entry, outbox);
        }
    }

    /// Wakes those who wait for an entry, or for it among others.
    pub(super) fn wake(&self, entry: &Entry) {
        if entry.wake() {
            self.watchers().iter().for_each(Waker::wake_by_ref);
        }
    }

    /// Wakes `waker` whenever one of `open` is settled, until [`unwatch`](Self::unwatch).
    pub(crate) fn watch<'a>(&self, waker: &Waker, open: impl Iterator<Item = &'a Arc<Entry>>) {
        self.watchers().push(waker.clone());
        open.for_each(|entry| entry.watch());
    }

    /// Ends one [`watch`](Self::watch).
    pub(crate) fn unwatch(&self, waker: &Waker) {
        let mut watchers = self.watchers();
        if let Some(place) = watchers.iter().position(|other| other.will_wake(waker)) {
            watchers.swap_remove(place);
        }
    }

    fn watchers(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives up what nobody reads among `objects`; the worker is told which these are.
    pub(crate) fn give_up(&self, objects: Vec<ObjectId>) -> Vec<ObjectId> {
        let is_given_up = |object: &ObjectId| {
            self.entries.lock(*object).get().is_some_and(|entry| entry.give_up())
        };
        objects.into_iter().filter(is_given_up).collect()
    }

    fn retire(&self, entry: &Arc<Entry>, outbox: &Outbox) {
        let object = entry.reference.object;
        for covered in entry.covered.take() {
            self.told(&covered, outbox);
        }
        let mut slot = self.entries.lock(object);
        // Somebody may have found it again meanwhile, read it, or retired it (OB-1, OB-3).
        let is_unused = |current: &Arc<Entry>| {
            Arc::ptr_eq(current, entry)
                && current.references.load(Ordering::SeqCst) == 0
                && (!current.wanted.load(Ordering::SeqCst) || current.has_bytes())
                && current.covered.is_empty()
        };
        if slot.get().is_some_and(is_unused) {
            if entry.told.load(Ordering::Acquire) {
                outbox.send(&FromExecutor::Released(object));
            }
            slot.remove();
        }
    }
}

//! References that need no message: those inside a value that this process holds.
//!
//! As long as a process holds an object, its owner keeps what the value refers to. A reference
//! that is only read out of such a value and dropped again, or is still unused, is therefore alive
//! without the worker being told: reading an object with thousands of references costs no message.
//! The value's entry knows which entries it covers, and tells the worker of those that are left
//! before it is itself released.
//!
//! Only values that this worker owns cover: what another one owns may be lost with that worker,
//! whereas what is inside belongs to a third.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rdist_scheduler::spec::Reference;

use super::objects::{Entry, Held};
use super::process::Process;

/// Entries that were read out of a value, and were covered by it then; most values have none.
#[derive(Debug, Default)]
pub(super) struct Covered(Mutex<Option<Box<Entries>>>);

#[derive(Debug, Default)]
struct Entries {
    entries: Vec<Weak<Entry>>,
    /// At that many, those that are gone are left out.
    sweep_at: usize,
}

impl Covered {
    fn lock(&self) -> MutexGuard<'_, Option<Box<Entries>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One entry more.
    pub(super) fn push(&self, entry: &Arc<Entry>) {
        let mut covered = self.lock();
        let covered = covered.get_or_insert_default();
        if covered.entries.len() >= covered.sweep_at {
            covered.entries.retain(|entry| entry.strong_count() > 0);
            covered.sweep_at = (2 * covered.entries.len()).max(64);
        }
        covered.entries.push(Arc::downgrade(entry));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().as_ref().is_none_or(|covered| covered.entries.is_empty())
    }

    /// Those that are still there; none is covered any longer.
    pub(super) fn take(&self) -> impl Iterator<Item = Arc<Entry>> {
        let covered = self.lock().take();
        let entries = covered.map(|covered| covered.entries).unwrap_or_default();
        entries.into_iter().filter_map(|entry| entry.upgrade())
    }
}

thread_local! {
    /// Whose value this thread takes references out of.
    static READING: RefCell<Option<Held>> = const { RefCell::new(None) };
}

/// Bytes of the shortest value that has a reference inside.
const MIN_BYTES: usize = size_of::<rkyv::Archived<Reference>>();

/// Runs `read`, which takes the value of `held` out of its `len` bytes.
pub(crate) fn reading<R>(held: &Held, len: usize, read: impl FnOnce() -> R) -> R {
    if len < MIN_BYTES {
        return read();
    }
    /// Puts back what was read before, also after a panic in user code.
    struct Restore(Option<Held>);
    impl Drop for Restore {
        fn drop(&mut self) {
            let inner = READING.replace(self.0.take());
            drop(inner);
        }
    }
    let _restore = Restore(READING.replace(Some(held.clone())));
    read()
}

impl Process {
    /// Gets hold of a reference that this thread reads out of a value.
    pub(crate) fn retain_inside(&self, reference: Reference) -> Held {
        READING.with_borrow(|container| match container {
            Some(container) if container.reference.owner == self.worker => {
                self.objects.covered(reference, container)
            }
            _ => self.retain(reference),
        })
    }
}

//! What became of an object, and its bytes as this process sees them.

use std::any::TypeId;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rdist_scheduler::outcome::TaskError;

use crate::api::value::Aligned;
use crate::store;

/// What became of an object. Small, since a process may refer to millions.
#[derive(Debug)]
pub(crate) enum Settled {
    /// Its value is here.
    Inline(Aligned),
    /// Its value lies in the store, or on the worker's disk.
    Block(Box<InStore>),
    /// It will never have one.
    Failed(Box<TaskError>),
}

impl Settled {
    /// It will never have a value.
    pub(crate) fn failed(error: TaskError) -> Self {
        Self::Failed(Box::new(error))
    }

    /// A value in the store, which can be read until it is given up or released.
    pub(crate) fn block(view: store::View) -> Self {
        let content = Content { bytes: ContentBytes::Block(view), checked: OnceLock::new() };
        let presence = Presence::Here { content: Arc::new(content), is_fresh: true };
        Self::Block(Box::new(InStore(Mutex::new(presence))))
    }

    /// A value in the store that this process does not read.
    pub(crate) fn away() -> Self {
        Self::Block(Box::new(InStore(Mutex::new(Presence::Away))))
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

    /// The bytes, if they can be read at once.
    pub(super) fn bytes(&self) -> Option<Result<Bytes<'_>, TaskError>> {
        match &mut *self.lock() {
            Presence::Away => None,
            Presence::Here { content, is_fresh } => {
                *is_fresh = false;
                Some(Ok(Bytes::Shared(content.clone())))
            }
            Presence::Lost(error) => Some(Err(error.clone())),
        }
    }

    /// Whether the worker has to be asked for it.
    pub(super) fn is_away(&self) -> bool {
        matches!(*self.lock(), Presence::Away)
    }

    /// Lets go of a block that nobody reads and that has not just come; whether it did. `wanted` is
    /// false when whoever then finds no bytes looks at it.
    pub(super) fn give_up(&self, is_viewed: impl FnOnce() -> bool, wanted: &AtomicBool) -> bool {
        let mut presence = self.lock();
        let Presence::Here { content, is_fresh } = &mut *presence else { return false };
        let is_block = matches!(content.bytes, ContentBytes::Block(_));
        if !is_block || is_viewed() || std::mem::take(is_fresh) || Arc::strong_count(content) > 1 {
            return false;
        }
        *presence = Presence::Away;
        wanted.store(false, Ordering::SeqCst);
        true
    }

    /// The answer to a second question.
    pub(super) fn fill(&self, settled: Settled) {
        *self.lock() = match settled {
            Settled::Block(other) => other.0.into_inner().unwrap_or_else(PoisonError::into_inner),
            Settled::Failed(error) => Presence::Lost(*error),
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

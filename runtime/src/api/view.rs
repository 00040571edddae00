//! Reading a value where it lies.

use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

use rdist_scheduler::spec::Reference;

use super::error::Error;
use super::value::{self, Aligned, Value};
use crate::executor::objects::{Held, Kept};
use crate::executor::settled::{Bytes, Content};
use crate::store;

/// A value read in place, without a copy: in the object store's shared memory, or in the message
/// that brought it. Dereferences to the archived form of `T`: `View<Vec<f32>>` to a vector whose
/// elements are read as they are in memory.
///
/// As a parameter of a task or of an actor's method, it takes the argument without copying it.
/// The value stays readable for as long as the view lives, also after its task has ended.
pub struct View<T: Value> {
    source: Source,
    root: NonNull<T::Archived>,
}

/// What keeps the bytes where they are.
#[derive(Clone)]
enum Source {
    Object {
        #[expect(dead_code, reason = "kept for its Drop")]
        held: Held,
        /// `None`: the bytes lie in the entry that is held.
        #[expect(dead_code, reason = "kept for its Drop")]
        content: Option<Arc<Content>>,
    },
    Argument(#[expect(dead_code, reason = "kept for its Drop")] Arc<Lent>),
}

/// The bytes of an argument, good until the task ends; longer once they are kept.
#[derive(Debug)]
pub(crate) struct Lent {
    pub(crate) bytes: LentBytes,
    pub(crate) reference: Option<Reference>,
    pub(crate) kept: OnceLock<Kept>,
}

#[derive(Debug)]
pub(crate) enum LentBytes {
    Inline(Aligned),
    Block(store::View),
}

impl Deref for LentBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Inline(bytes) => bytes,
            Self::Block(bytes) => bytes,
        }
    }
}

// Safety: a view hands out `&T::Archived` only, whose memory nobody writes while `source` lives;
// `source` is itself `Send` and `Sync`.
unsafe impl<T: Value> Send for View<T> where T::Archived: Sync {}
// Safety: as above.
unsafe impl<T: Value> Sync for View<T> where T::Archived: Sync {}

impl<T: Value> View<T> {
    /// `root` lies in `bytes`, which are those of `held`.
    pub(crate) fn of_object(held: Held, bytes: Bytes<'_>, root: NonNull<T::Archived>) -> Self {
        // Inline bytes are set once and freed with the entry; what is shared is kept here, and
        // `held` counts for the worker.
        let content = match bytes {
            Bytes::Inline(..) => None,
            Bytes::Shared(content) => Some(content),
        };
        Self { source: Source::Object { held, content }, root }
    }

    pub(crate) fn of_argument(
        lent: Arc<Lent>,
        what: impl FnOnce() -> String,
    ) -> Result<Self, Error> {
        let root = NonNull::from(value::check::<T>(&lent.bytes, what)?);
        Ok(Self { source: Source::Argument(lent), root })
    }

    /// The value as an owned `T`.
    ///
    /// # Errors
    /// [`Error::Decode`], for types whose `Deserialize` can fail.
    pub fn to_owned_value(&self) -> Result<T, Error> {
        value::revive::<T>(self, || "a value".to_owned())
    }
}

impl<T: Value> Deref for View<T> {
    type Target = T::Archived;

    fn deref(&self) -> &T::Archived {
        // Safety: `root` points into bytes that were checked for `T`, do not move, are not
        // written, and live at least as long as `source`.
        unsafe { self.root.as_ref() }
    }
}

impl<T: Value> Clone for View<T> {
    fn clone(&self) -> Self {
        Self { source: self.source.clone(), root: self.root }
    }
}

impl<T: Value> fmt::Debug for View<T>
where
    T::Archived: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

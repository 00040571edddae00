//! References to values that tasks return, or that were put.

use std::any::TypeId;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use rdist_scheduler::id::ObjectId;
use rdist_scheduler::spec::{ArchivedReference, Reference};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::{Fallible, Source};
use rkyv::{Archive, Deserialize, Place, Portable, Serialize};

use super::context::Context;
use super::error::Error;
use super::value::{self, Value};
use super::view::View;
use crate::executor::cover;
use crate::executor::objects::{Entry, Held};
use crate::executor::process::Process;
use crate::executor::settled::Bytes;
use crate::executor::wait::thread_waker;

/// A value that exists somewhere in the cluster, or will. Cheap to clone, and itself a value:
/// tasks can take and return references, and keep them in larger values.
///
/// In a task, [`get`](Self::get) waits; in the driver and in other async code, `.await`. The value
/// is kept as long as a reference to it exists in any process, or inside any value.
pub struct ObjectRef<T> {
    held: Held,
    marker: PhantomData<fn() -> T>,
}

impl<T> ObjectRef<T> {
    pub(crate) fn of(held: Held) -> Self {
        Self { held, marker: PhantomData }
    }

    pub(crate) fn held(&self) -> &Held {
        &self.held
    }

    pub(crate) fn into_held(self) -> Held {
        self.held
    }

    /// The object's id.
    pub fn id(&self) -> ObjectId {
        self.held.reference.object
    }

    /// Whether the value, or the error in its place, is known in this process. True after a `get`
    /// or a wait; asking does not fetch it.
    pub fn is_settled(&self) -> bool {
        self.held.is_settled()
    }
}

impl<T: Value> ObjectRef<T> {
    /// The value; waits until it is there.
    ///
    /// # Errors
    /// [`Error::Task`] when it never will be, [`Error::Cancelled`] when the running task is
    /// cancelled meanwhile.
    pub fn get(&self) -> Result<T, Error> {
        self.get_before(None)
    }

    /// The value, if it is there within `timeout`.
    ///
    /// # Errors
    /// [`Error::Timeout`], and those of [`get`](Self::get).
    pub fn get_within(&self, timeout: Duration) -> Result<T, Error> {
        match self.get_before(Instant::now().checked_add(timeout)) {
            Err(Error::Timeout(_)) => Err(Error::Timeout(timeout)),
            result => result,
        }
    }

    fn get_before(&self, deadline: Option<Instant>) -> Result<T, Error> {
        revive(&self.held, &wait_readable(&self.held, deadline)?)
    }

    /// The value in place, without a copy; waits until it is there.
    ///
    /// # Errors
    /// Those of [`get`](Self::get).
    pub fn read(&self) -> Result<View<T>, Error> {
        let bytes = wait_readable(&self.held, None)?;
        let root = NonNull::from(root::<T>(&self.held, &bytes)?);
        Ok(View::of_object(self.held.clone(), bytes, root))
    }
}

/// Waits until an object can be read, or is known to have failed.
pub(crate) fn wait_readable(
    entry: &Arc<Entry>,
    deadline: Option<Instant>,
) -> Result<Bytes<'_>, Error> {
    if let Some(bytes) = entry.bytes() {
        return bytes.map_err(Error::Task);
    }
    let process = Process::current()?;
    let waker = thread_waker();
    let (mut bytes, mut is_asked) = (None, false);
    let is_over = || {
        bytes = entry.bytes();
        // For the first time, or again where it has come and gone.
        if bytes.is_none() && (!std::mem::replace(&mut is_asked, true) || entry.is_settled()) {
            process.want(entry);
            entry.register_reader(&waker);
        }
        bytes.is_some()
    };
    let in_time = match Context::current() {
        Ok(cx) => cx.running().wait(deadline, is_over),
        Err(_) => Ok(process.wait_for_answer(deadline, is_over)),
    };
    match bytes {
        Some(bytes) => bytes.map_err(Error::Task),
        None => {
            entry.unregister(&waker);
            in_time?;
            Err(Error::Timeout(Duration::ZERO))
        }
    }
}

/// The checked root of a value.
fn root<'a, T: Value>(entry: &Entry, bytes: &'a Bytes<'_>) -> Result<&'a T::Archived, Error> {
    if bytes.checked().get() == Some(&TypeId::of::<T>()) {
        // Safety: the same bytes were checked for the same type, and they never change.
        return Ok(unsafe { rkyv::access_unchecked::<T::Archived>(bytes) });
    }
    let root = value::check::<T>(bytes, || entry.reference.object.to_string())?;
    let _ = bytes.checked().set(TypeId::of::<T>());
    Ok(root)
}

fn revive<T: Value>(held: &Held, bytes: &Bytes<'_>) -> Result<T, Error> {
    let root = root::<T>(held, bytes)?;
    cover::reading(held, bytes.len(), || value::revive(root, || held.reference.object.to_string()))
}

/// The future of a value; see [`ObjectRef`].
#[derive(Debug)]
pub struct ObjectFuture<T> {
    object: ObjectRef<T>,
    waker: Option<Waker>,
}

impl<T: Value> ObjectFuture<T> {
    pub(crate) fn of(held: Held) -> Self {
        Self { object: ObjectRef::of(held), waker: None }
    }

    /// Waits for the value without async; see [`ObjectRef::get`].
    ///
    /// # Errors
    /// Those of [`ObjectRef::get`].
    pub fn get(self) -> Result<T, Error> {
        self.object.get()
    }
}

impl<T: Value> Future for ObjectFuture<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let entry = &this.object.held;
        if let Some(bytes) = entry.bytes() {
            return Poll::Ready(revive(entry, &bytes.map_err(Error::Task)?));
        }
        Process::current()?.want(entry);
        if let Some(old) = this.waker.take_if(|old| !old.will_wake(cx.waker())) {
            entry.unregister(&old);
        }
        if entry.register_reader(cx.waker()) {
            this.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        match entry.bytes() {
            Some(bytes) => Poll::Ready(revive(entry, &bytes.map_err(Error::Task)?)),
            // It came and went: the next poll asks again.
            None => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for ObjectFuture<T> {
    fn drop(&mut self) {
        if let Some(waker) = &self.waker {
            self.object.held.unregister(waker);
        }
    }
}

impl<T: Value> IntoFuture for ObjectRef<T> {
    type Output = Result<T, Error>;
    type IntoFuture = ObjectFuture<T>;

    fn into_future(self) -> ObjectFuture<T> {
        ObjectFuture { object: self, waker: None }
    }
}

impl<T: Value> IntoFuture for &ObjectRef<T> {
    type Output = Result<T, Error>;
    type IntoFuture = ObjectFuture<T>;

    fn into_future(self) -> ObjectFuture<T> {
        self.clone().into_future()
    }
}

impl<T> Clone for ObjectRef<T> {
    fn clone(&self) -> Self {
        Self::of(self.held.clone())
    }
}

impl<T> fmt::Debug for ObjectRef<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectRef({:?})", self.id())
    }
}

impl<T> PartialEq for ObjectRef<T> {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl<T> Eq for ObjectRef<T> {}

impl<T> std::hash::Hash for ObjectRef<T> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

/// An [`ObjectRef`] inside an archive.
#[derive(Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
pub struct ArchivedObjectRef<T> {
    reference: ArchivedReference,
    marker: PhantomData<fn() -> T>,
}

impl<T> ArchivedObjectRef<T> {
    /// The reference, to be used; keeps the object.
    ///
    /// # Errors
    /// [`Error::NotInTask`] outside a cluster's processes.
    pub fn to_ref(&self) -> Result<ObjectRef<T>, Error> {
        let reference = rkyv::deserialize::<Reference, rkyv::rancor::Error>(&self.reference);
        let reference = reference.map_err(|error| Error::Refused(error.to_string()))?;
        Ok(ObjectRef::of(Process::current()?.retain(reference)))
    }
}

impl<T> fmt::Debug for ArchivedObjectRef<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ArchivedObjectRef")
    }
}

impl<T> Archive for ObjectRef<T> {
    type Archived = ArchivedObjectRef<T>;
    type Resolver = <Reference as Archive>::Resolver;

    fn resolve(&self, resolver: Self::Resolver, out: Place<Self::Archived>) {
        rkyv::munge::munge!(let ArchivedObjectRef { reference, .. } = out);
        self.held.reference.resolve(resolver, reference);
    }
}

impl<T, S> Serialize<S> for ObjectRef<T>
where
    S: Fallible + ?Sized,
    Reference: Serialize<S>,
{
    fn serialize(&self, serializer: &mut S) -> Result<Self::Resolver, S::Error> {
        value::note_contained(&self.held);
        self.held.reference.serialize(serializer)
    }
}

impl<T, D> Deserialize<ObjectRef<T>, D> for ArchivedObjectRef<T>
where
    D: Fallible + ?Sized,
    D::Error: Source,
    ArchivedReference: Deserialize<Reference, D>,
{
    fn deserialize(&self, deserializer: &mut D) -> Result<ObjectRef<T>, D::Error> {
        let reference = self.reference.deserialize(deserializer)?;
        match Process::current() {
            Ok(process) => Ok(ObjectRef::of(process.retain_inside(reference))),
            Err(error) => Err(D::Error::new(error)),
        }
    }
}

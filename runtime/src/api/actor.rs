//! Actors: state that lives in one place, and is reached by calls in order.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::ops::Deref;
use std::pin::Pin;

use rdist_scheduler::id::{ActorId, WorkerId};
use rdist_scheduler::outcome::{Cause, TaskError};
use rdist_scheduler::spec::{self, TaskKind};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Fallible;
use rkyv::{Archive, Deserialize, Place, Portable, Serialize};

use super::argument::Argument;
use super::context::Context;
use super::error::Error;
use super::object::{ObjectFuture, ObjectRef};
use super::options::TaskOptions;
use super::value::Value;
use crate::executor::detached::READY;
use crate::executor::process::Process;
use crate::executor::registry::TERMINATE;
use crate::wire::executor::FromExecutor;

/// A type whose `impl` block carries `#[rdist::actor]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no actor",
    note = "put #[rdist::actor] on the `impl {Self}` block that has `fn new` and the methods"
)]
pub trait Actor: Sized + Send + 'static {
    /// The methods, as a handle has them.
    type Methods: From<RawActor> + Send + Sync;

    /// How calls are dealt with.
    #[doc(hidden)]
    const RULES: CallRules;
}

/// How the calls of all actors of a type are dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallRules {
    /// A call starts as soon as its arguments are there.
    pub out_of_order: bool,
    /// A call counts once, however often it is sent.
    pub exactly_once: bool,
    /// How often a call is made again that was lost with the actor's process.
    pub retries: u32,
}

/// Where an actor's calls go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
#[allow(missing_docs, reason = "rkyv derives archived fields without docs")]
pub struct RawActor {
    id: ActorId,
    owner: WorkerId,
    /// How often calls are made again, where that is not left to the actor's type.
    retries: Option<u32>,
}

impl RawActor {
    pub(crate) fn of(id: ActorId, owner: WorkerId) -> Self {
        Self { id, owner, retries: None }
    }

    /// A call of no method, which is made again whenever it is lost.
    pub(crate) fn call_hidden(self, function: u64) -> ObjectRef<()> {
        let rules = CallRules { out_of_order: false, exactly_once: false, retries: 0 };
        self.call::<()>(function, rules, |_| Vec::new()).retries(u32::MAX).submit()
    }

    /// Makes a call; the macros' methods do.
    pub fn call<R>(
        self,
        function: u64,
        rules: CallRules,
        arguments: impl FnOnce(&Context) -> Vec<Argument>,
    ) -> Call<R> {
        let arguments = Context::current().map(|cx| {
            let arguments = arguments(&cx);
            (cx, arguments)
        });
        let CallRules { out_of_order, exactly_once, retries } = rules;
        let kind = TaskKind::ActorCall {
            actor: self.id,
            actor_owner: self.owner,
            rules: spec::CallRules { out_of_order, exactly_once },
        };
        let options = TaskOptions::of_call(self.retries.unwrap_or(retries));
        Call { kind, function, options, arguments, marker: PhantomData }
    }
}

/// A handle of an actor, with the actor's methods. Cheap to clone, and itself a value: tasks and
/// other actors can take it and keep it. The actor lives until it is [killed](Self::kill) or its
/// job ends; a detached one is a job of its own.
pub struct ActorHandle<A: Actor> {
    raw: RawActor,
    methods: A::Methods,
}

impl<A: Actor> ActorHandle<A> {
    fn of(raw: RawActor) -> Self {
        Self { raw, methods: raw.into() }
    }

    /// The actor's id.
    pub fn id(&self) -> ActorId {
        self.raw.id
    }

    /// Ends the actor once the calls that were made before, through this process, have ended; its
    /// value is dropped then. The object is there when it has been.
    ///
    /// # Panics
    /// On a thread that belongs to no task.
    pub fn terminate(&self) -> ObjectRef<()> {
        let rules = CallRules { out_of_order: false, exactly_once: false, retries: 0 };
        self.raw.call::<()>(TERMINATE, rules, |_| Vec::new()).retries(0).submit()
    }

    /// Ends the actor for good, and at once: a call that runs is cut off, calls that wait fail.
    ///
    /// # Errors
    /// [`Error::NotInTask`] outside a cluster's processes.
    pub fn kill(&self) -> Result<(), Error> {
        let RawActor { id: actor, owner, .. } = self.raw;
        Process::current()?.send(&FromExecutor::KillActor { actor, owner });
        Ok(())
    }
}

impl<A: Actor> Deref for ActorHandle<A> {
    type Target = A::Methods;

    fn deref(&self) -> &A::Methods {
        &self.methods
    }
}

impl<A: Actor> Clone for ActorHandle<A> {
    fn clone(&self) -> Self {
        Self::of(self.raw)
    }
}

impl<A: Actor> PartialEq for ActorHandle<A> {
    fn eq(&self, other: &Self) -> bool {
        self.raw.id == other.raw.id
    }
}

impl<A: Actor> Eq for ActorHandle<A> {}

impl<A: Actor> fmt::Debug for ActorHandle<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActorHandle({:?})", self.raw.id)
    }
}

/// An [`ActorHandle`] inside an archive.
#[derive(Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
pub struct ArchivedActorHandle<A> {
    raw: ArchivedRawActor,
    marker: PhantomData<fn() -> A>,
}

impl<A> fmt::Debug for ArchivedActorHandle<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ArchivedActorHandle")
    }
}

impl<A: Actor> Archive for ActorHandle<A> {
    type Archived = ArchivedActorHandle<A>;
    type Resolver = <RawActor as Archive>::Resolver;

    fn resolve(&self, resolver: Self::Resolver, out: Place<Self::Archived>) {
        rkyv::munge::munge!(let ArchivedActorHandle { raw, .. } = out);
        self.raw.resolve(resolver, raw);
    }
}

impl<A, S> Serialize<S> for ActorHandle<A>
where
    A: Actor,
    S: Fallible + ?Sized,
    RawActor: Serialize<S>,
{
    fn serialize(&self, serializer: &mut S) -> Result<Self::Resolver, S::Error> {
        self.raw.serialize(serializer)
    }
}

impl<A, D> Deserialize<ActorHandle<A>, D> for ArchivedActorHandle<A>
where
    A: Actor,
    D: Fallible + ?Sized,
    ArchivedRawActor: Deserialize<RawActor, D>,
{
    fn deserialize(&self, deserializer: &mut D) -> Result<ActorHandle<A>, D::Error> {
        Ok(ActorHandle::of(self.raw.deserialize(deserializer)?))
    }
}

/// A call that has not been made yet: choose how.
#[derive(Debug)]
#[must_use = "a call is made by `.call().await`, `.submit()` or `.send()`"]
pub struct Call<R> {
    kind: TaskKind,
    function: u64,
    options: TaskOptions,
    arguments: Result<(Context, Vec<Argument>), Error>,
    marker: PhantomData<fn() -> R>,
}

impl<R: Value> Call<R> {
    /// Is made again so often when it is lost with the actor's process, once the actor is there
    /// again. It may then run twice, unless the actor [saves](crate::Checkpoint) its state.
    pub fn retries(mut self, n: u32) -> Self {
        self.options.max_retries = n;
        self
    }

    /// Calls; the future is of the method's result. `.call().get()` waits without async.
    ///
    /// # Panics
    /// On a thread that belongs to no task.
    pub fn call(self) -> ObjectFuture<R> {
        ObjectFuture::of(self.submit().into_held())
    }

    /// Calls; the result is an object, which can be passed on before it is there.
    ///
    /// # Panics
    /// On a thread that belongs to no task.
    pub fn submit(self) -> ObjectRef<R> {
        match self.try_submit() {
            Ok(object) => object,
            Err(error) => panic!("{error}"),
        }
    }

    /// Calls, and forgets the result.
    ///
    /// # Errors
    /// [`Error::NotInTask`], and what is wrong with an argument.
    pub fn send(self) -> Result<(), Error> {
        let object = self.try_submit()?;
        match object.held().failure() {
            Some(error) => Err(Error::Task(error.clone())),
            None => Ok(()),
        }
    }

    fn try_submit(self) -> Result<ObjectRef<R>, Error> {
        let (cx, arguments) = self.arguments?;
        Ok(ObjectRef::of(cx.submit(self.function, self.kind, self.options, arguments)))
    }
}

/// An actor that is being made. Await it (or [`get`](Self::get) it) to learn that it is there, or
/// take its [`handle`](Self::handle) at once: calls wait for it.
#[derive(Debug)]
#[must_use = "await it to learn whether the actor could be made"]
pub struct Spawning<A> {
    created: ObjectRef<()>,
    raw: RawActor,
    /// Whether the actor that has the name already is as good.
    get_if_exists: bool,
    marker: PhantomData<fn() -> A>,
}

impl<A: Actor> Spawning<A> {
    /// Makes an actor; the macros' `spawn` does.
    #[doc(hidden)]
    pub fn new(
        cx: &Context,
        function: u64,
        mut options: TaskOptions,
        arguments: Vec<Argument>,
    ) -> Self {
        let (retries, get_if_exists) = (options.call_retries, options.get_if_exists);
        if options.detached {
            return Self::detached(cx, function, options, arguments);
        }
        let kind = TaskKind::ActorCreate(Box::new(std::mem::take(&mut options.actor)));
        let created = ObjectRef::of(cx.submit(function, kind, options, arguments));
        let id = ActorId(created.id().task);
        let raw = RawActor { id, owner: cx.process().worker, retries };
        Self { created, raw, get_if_exists, marker: PhantomData }
    }

    /// A job of its own makes it; the name is had, or refused, when this returns.
    fn detached(
        cx: &Context,
        function: u64,
        mut options: TaskOptions,
        arguments: Vec<Argument>,
    ) -> Self {
        let (retries, get_if_exists) = (options.call_retries, options.get_if_exists);
        let kind = TaskKind::ActorCreate(Box::new(std::mem::take(&mut options.actor)));
        let process = cx.process();
        let made = cx
            .request((function, kind, 1), options, arguments)
            .and_then(|(spec, _held)| process.detach(spec).map_err(|error| (error.task, error)));
        let (raw, created) = match made {
            Ok((id, owner)) => {
                let raw = RawActor { id, owner, retries };
                (raw, raw.call_hidden(READY))
            }
            Err((task, error)) => {
                let raw = RawActor { id: ActorId(task), owner: process.worker, retries };
                (raw, ObjectRef::of(process.failed(task.object(0), error)))
            }
        };
        Self { created, raw, get_if_exists, marker: PhantomData }
    }

    /// The handle, without waiting. With `get_if_exists` it may be of an actor that is never made.
    pub fn handle(&self) -> ActorHandle<A> {
        ActorHandle::of(self.raw)
    }

    /// The handle, once the actor is there; waits.
    ///
    /// # Errors
    /// [`Error::Task`] with what its constructor returned, or why there is no room for it.
    pub fn get(self) -> Result<ActorHandle<A>, Error> {
        let created = self.created.get();
        self.made(created)
    }

    fn made(&self, created: Result<(), Error>) -> Result<ActorHandle<A>, Error> {
        match created {
            Ok(()) => Ok(self.handle()),
            Err(Error::Task(TaskError { cause: Cause::NameTaken { name, .. }, .. }))
                if self.get_if_exists =>
            {
                named_actor(&name)
            }
            Err(error) => Err(error),
        }
    }
}

impl<A: Actor> IntoFuture for Spawning<A> {
    type Output = Result<ActorHandle<A>, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let created = (&self.created).await;
            self.made(created)
        })
    }
}

/// The actor that was made with [`name`](crate::TaskOptions::name), anywhere in the cluster.
/// Waits for the answer.
///
/// # Errors
/// [`Error::NoSuchActor`].
pub fn named_actor<A: Actor>(name: &str) -> Result<ActorHandle<A>, Error> {
    match Process::current()?.look_up(name) {
        Some((id, owner)) => Ok(ActorHandle::of(RawActor { id, owner, retries: None })),
        None => Err(Error::NoSuchActor(name.to_owned())),
    }
}

//! Actors whose state outlives their process.

use std::any::Any;

use super::actor::Actor;
use super::error::{Error, Failure};
use super::value::{self, Archived, Value};
use crate::executor::registry::State;
use crate::wire::executor::MAX_STATE_BYTES;

/// An actor that saves its state, and is made again from what it saved; declared by
/// `#[rdist::actor(checkpoint)]`.
///
/// ```
/// use rdist::prelude::*;
///
/// struct Counter { total: u64 }
///
/// #[rdist::actor(checkpoint)]
/// impl Counter {
///     fn new() -> Self { Self { total: 0 } }
///     fn add(&mut self, by: u64) -> u64 { self.total += by; self.total }
/// }
///
/// impl Checkpoint for Counter {
///     type State = u64;
///     fn save(&self) -> u64 { self.total }
///     fn restore(total: u64) -> Self { Self { total } }
/// }
///
/// # async fn f(cx: &Context) -> Result<()> {
/// let counter = Counter::with().max_restarts(u32::MAX).spawn(cx).await?;
/// # Ok(())
/// # }
/// ```
/// # Calls count once
/// A caller hears of a call's end only after the state with that call in it was saved, together
/// with the note that the call is in it and with its result. When the process dies, the actor is
/// made again from the last state saved; calls in flight are made again by themselves, and one
/// that is in the saved state is answered from the note instead of being run. So each call takes
/// effect once, however often processes die, as long as the worker that made the actor lives.
///
/// [`save`](Self::save) is called after each call; what it returns is sent on once for all calls
/// that were waiting. What a call does to the world outside of the actor happens again when the
/// call does; tasks and calls that it submits have the same ids then.
///
/// # Limits
/// The state may have 1 MiB in bytes and no [`ObjectRef`](crate::ObjectRef) inside; larger data
/// belongs into objects. A result of more than 4 KiB, or with references inside, is lost with the
/// machine on which the actor ran, if its caller had not got it by then: the call counts, and
/// fails with [`Cause::ObjectLost`](crate::scheduler::outcome::Cause::ObjectLost).
pub trait Checkpoint: Actor {
    /// What is saved.
    type State: Value;

    /// The state, after a number of whole calls.
    fn save(&self) -> Self::State;

    /// The actor, as it was when it was saved.
    fn restore(state: Self::State) -> Self;
}

/// How a type saves its state, with the type worn off.
#[derive(Debug)]
pub struct Checkpointing {
    pub(crate) save: fn(&(dyn Any + Send)) -> Result<Vec<u8>, Failure>,
    pub(crate) restore: fn(Vec<u8>) -> Result<State, Failure>,
}

impl Checkpointing {
    /// That of `A`.
    pub const fn of<A: Checkpoint>() -> Self {
        Self { save: save::<A>, restore: restore::<A> }
    }
}

fn save<A: Checkpoint>(actor: &(dyn Any + Send)) -> Result<Vec<u8>, Failure> {
    let Some(actor) = actor.downcast_ref::<A>() else {
        return Err(Failure::Refused("an actor of another type is to be saved".to_owned()));
    };
    let refuse = |reason: String| Error::Refused(format!("the actor's state {reason}"));
    let (archived, contains) = value::archive(&actor.save(), |len| match len {
        0..=MAX_STATE_BYTES => Ok(vec![0; len]),
        _ => Err(refuse(format!("has {len} bytes, more than {MAX_STATE_BYTES}"))),
    })?;
    if !contains.is_empty() {
        return Err(refuse("holds references to objects; save what is in them".to_owned()).into());
    }
    Ok(match archived {
        Archived::Inline(bytes) => bytes.into_vec(),
        Archived::Large(bytes) => bytes,
    })
}

fn restore<A: Checkpoint>(bytes: Vec<u8>) -> Result<State, Failure> {
    let what = || "the saved state of an actor".to_owned();
    let bytes = value::aligned(bytes);
    let state = value::revive(value::check::<A::State>(&bytes, what)?, what)?;
    Ok(State::exclusive(A::restore(state)))
}

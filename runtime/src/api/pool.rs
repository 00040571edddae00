//! Work spread over a number of actors, as Ray's `ActorPool` does it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context as PollContext, Poll};
use std::time::{Duration, Instant};

use super::actor::{Actor, ActorHandle, Call};
use super::context::Context;
use super::error::{Error, Result};
use super::object::ObjectFuture;
use super::value::Value;

/// Actors that work off calls: each has one call at a time, and the next one that waits goes to the
/// actor that is free first.
///
/// Results come in the order of [`submit`](Self::submit) or as they are ready. Free actors get
/// their next calls while somebody waits for results or submits.
///
/// ```
/// use rdist::prelude::*;
///
/// struct Worker;
///
/// #[rdist::actor]
/// impl Worker {
///     fn new() -> Self { Self }
///     fn double(&mut self, x: u64) -> u64 { 2 * x }
/// }
///
/// # async fn f(cx: &Context) -> Result<()> {
/// let mut pool = ActorPool::new((0..4).map(|_| Worker::spawn(cx).handle()));
/// for doubled in pool.map(0..100_u64, |worker, x| worker.double(x)) {
///     println!("{}", doubled?);
/// }
/// pool.submit(|worker| worker.double(7_u64));
/// while let Some(doubled) = pool.next_unordered().await {
///     println!("{}", doubled?);
/// }
/// # Ok(())
/// # }
/// ```
pub struct ActorPool<A: Actor, R: Value> {
    idle: VecDeque<ActorHandle<A>>,
    running: Vec<Running<A, R>>,
    waiting: VecDeque<(u64, Submitted<A, R>)>,
    /// Results that nobody has taken, by the number of their call.
    done: BTreeMap<u64, Result<R>>,
    submitted: u64,
}

type Submitted<A, R> = Box<dyn FnOnce(&ActorHandle<A>) -> Call<R> + Send>;

struct Running<A: Actor, R: Value> {
    number: u64,
    actor: ActorHandle<A>,
    result: ObjectFuture<R>,
}

impl<A: Actor, R: Value> ActorPool<A, R> {
    /// A pool of these actors.
    pub fn new(actors: impl IntoIterator<Item = ActorHandle<A>>) -> Self {
        Self {
            idle: actors.into_iter().collect(),
            running: Vec::new(),
            waiting: VecDeque::new(),
            done: BTreeMap::new(),
            submitted: 0,
        }
    }

    /// Makes a call on the next actor that is free.
    ///
    /// # Panics
    /// On a thread that belongs to no task.
    pub fn submit(&mut self, call: impl FnOnce(&ActorHandle<A>) -> Call<R> + Send + 'static) {
        self.waiting.push_back((self.submitted, Box::new(call)));
        self.submitted += 1;
        self.start();
    }

    /// Whether there are results to come, or to be taken.
    pub fn has_next(&self) -> bool {
        !(self.done.is_empty() && self.running.is_empty() && self.waiting.is_empty())
    }

    /// Whether an actor is free.
    pub fn has_free(&self) -> bool {
        !self.idle.is_empty()
    }

    /// Adds an actor.
    pub fn push(&mut self, actor: ActorHandle<A>) {
        self.idle.push_back(actor);
        self.start();
    }

    /// Takes a free actor out of the pool.
    pub fn pop_idle(&mut self) -> Option<ActorHandle<A>> {
        self.idle.pop_front()
    }

    /// The result of the first call whose result was not taken yet; `None`: there is none.
    pub async fn next(&mut self) -> Option<Result<R>> {
        poll_fn(|cx| self.poll_next(cx, true)).await
    }

    /// The next result that is there, of whichever call; `None`: none is to come.
    pub async fn next_unordered(&mut self) -> Option<Result<R>> {
        poll_fn(|cx| self.poll_next(cx, false)).await
    }

    /// [`next`](Self::next) in a task, without async.
    pub fn get_next(&mut self) -> Option<Result<R>> {
        wait_for(self.next())
    }

    /// [`next_unordered`](Self::next_unordered) in a task, without async.
    pub fn get_next_unordered(&mut self) -> Option<Result<R>> {
        wait_for(self.next_unordered())
    }

    /// [`get_next`](Self::get_next), if the result is there within `timeout`.
    ///
    /// # Errors
    /// [`Error::Timeout`]; the result can still be taken later.
    pub fn get_next_within(&mut self, timeout: Duration) -> Option<Result<R>> {
        self.within(timeout, true)
    }

    /// [`get_next_unordered`](Self::get_next_unordered), if one is there within `timeout`.
    ///
    /// # Errors
    /// [`Error::Timeout`]; the result can still be taken later.
    pub fn get_next_unordered_within(&mut self, timeout: Duration) -> Option<Result<R>> {
        self.within(timeout, false)
    }

    /// Makes a call for each value; the results in the order of the values. Waits for them.
    pub fn map<V: Send + 'static>(
        &mut self,
        values: impl IntoIterator<Item = V>,
        call: impl Fn(&ActorHandle<A>, V) -> Call<R> + Clone + Send + 'static,
    ) -> impl Iterator<Item = Result<R>> {
        self.submit_all(values, call);
        std::iter::from_fn(|| self.get_next())
    }

    /// Makes a call for each value; the results as they come. Waits for them.
    pub fn map_unordered<V: Send + 'static>(
        &mut self,
        values: impl IntoIterator<Item = V>,
        call: impl Fn(&ActorHandle<A>, V) -> Call<R> + Clone + Send + 'static,
    ) -> impl Iterator<Item = Result<R>> {
        self.submit_all(values, call);
        std::iter::from_fn(|| self.get_next_unordered())
    }

    fn submit_all<V: Send + 'static>(
        &mut self,
        values: impl IntoIterator<Item = V>,
        call: impl Fn(&ActorHandle<A>, V) -> Call<R> + Clone + Send + 'static,
    ) {
        for value in values {
            let call = call.clone();
            self.submit(move |actor| call(actor, value));
        }
    }

    fn poll_next(&mut self, cx: &mut PollContext<'_>, in_order: bool) -> Poll<Option<Result<R>>> {
        self.progress(cx);
        let first = [
            self.running.iter().map(|running| running.number).min(),
            self.waiting.front().map(|(number, _)| *number),
        ];
        let first = first.into_iter().flatten().min();
        let is_next = |number: &u64| !in_order || first.is_none_or(|first| *number < first);
        match self.done.first_entry() {
            Some(done) if is_next(done.key()) => Poll::Ready(Some(done.remove())),
            None if first.is_none() => Poll::Ready(None),
            _ => Poll::Pending,
        }
    }

    /// Takes the results that are there, and gives free actors their next calls.
    fn progress(&mut self, cx: &mut PollContext<'_>) {
        let mut at = 0;
        while let Some(running) = self.running.get_mut(at) {
            match Pin::new(&mut running.result).poll(cx) {
                Poll::Pending => at += 1,
                Poll::Ready(result) => {
                    let Running { number, actor, .. } = self.running.swap_remove(at);
                    self.done.insert(number, result);
                    self.idle.push_back(actor);
                    // At the end, where this loop polls it.
                    self.start();
                }
            }
        }
    }

    fn start(&mut self) {
        while !self.waiting.is_empty()
            && let Some(actor) = self.idle.pop_front()
            && let Some((number, call)) = self.waiting.pop_front()
        {
            let result = call(&actor).call();
            self.running.push(Running { number, actor, result });
        }
    }

    fn within(&mut self, timeout: Duration, in_order: bool) -> Option<Result<R>> {
        let deadline = Instant::now().checked_add(timeout);
        let cx = match Context::current() {
            Ok(cx) => cx,
            Err(error) => return Some(Err(error)),
        };
        let next = poll_fn(|poll_cx| self.poll_next(poll_cx, in_order));
        match cx.block_on_until(next, deadline) {
            Ok(Some(next)) => next,
            Ok(None) => Some(Err(Error::Timeout(timeout))),
            Err(error) => Some(Err(error)),
        }
    }
}

fn wait_for<T>(next: impl Future<Output = Option<Result<T>>>) -> Option<Result<T>> {
    match Context::current().and_then(|cx| cx.block_on(next)) {
        Ok(next) => next,
        Err(error) => Some(Err(error)),
    }
}

impl<A: Actor, R: Value> fmt::Debug for ActorPool<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActorPool")
            .field("idle", &self.idle.len())
            .field("running", &self.running.len())
            .field("waiting", &self.waiting.len())
            .field("done", &self.done.len())
            .finish()
    }
}

//! Tasks that yield values while they run: `#[rdist::task(stream)]`, and their consumers.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};

use rdist_scheduler::id::TaskId;
use rdist_scheduler::outcome::{Cause, TaskError};
use rdist_scheduler::spec::Reference;

use super::argument::Argument;
use super::context::Context;
use super::error::{Error, Failure};
use super::object::{ObjectRef, wait_readable};
use super::options::TaskOptions;
use super::value::Value;
use crate::executor::objects::Held;
use crate::executor::process::{Encoded, Process};
use crate::wire::executor::{self, FromExecutor};

/// Items that may be there and are not taken, if nothing else is said.
const DEFAULT_BUFFER: u32 = 64;
/// Most items that a consumer asks for ahead.
const MAX_AHEAD: u32 = 8;

/// The values that a task yields, in order, as it makes them.
///
/// ```
/// use rdist::prelude::*;
///
/// #[rdist::task(stream)]
/// fn batches(count: u32) -> impl Iterator<Item = Vec<f32>> {
///     (0..count).map(|n| vec![n as f32; 1_000])
/// }
///
/// # async fn f(cx: &Context) -> Result<()> {
/// let mut stream = batches.with().buffer(4).submit(cx, 100_u32);
/// while let Some(batch) = stream.next().await {
///     let batch: ObjectRef<Vec<f32>> = batch?;
///     println!("{}", batch.read()?.len());
/// }
/// // In code that is not async:
/// for batch in batches.submit(cx, 100_u32) {
///     let batch = batch?;
/// }
/// # Ok(())
/// # }
/// ```
/// Each item is an object like every other, which may be passed on and outlives the stream. The
/// task waits while `buffer` items are not taken. When it is lost it runs again,
/// and goes on with the first item that is missing; it must yield the same values again, as every
/// task. An error, a panic or an item that is `Err` ends the stream with that error. To drop the
/// stream is to cancel the task.
pub struct ObjectStream<T> {
    whole: Held,
    buffer: u32,
    /// The number of the next item, and of the first one of which the worker was not told that it
    /// is taken.
    next: u32,
    told: u32,
    /// The next items, which are asked for.
    ahead: VecDeque<Held>,
    has_ended: bool,
    marker: PhantomData<fn() -> T>,
}

impl<T: Value> ObjectStream<T> {
    fn of(whole: Held, buffer: u32) -> Self {
        let (next, told, ahead) = (0, 0, VecDeque::new());
        Self { whole, buffer, next, told, ahead, has_ended: false, marker: PhantomData }
    }

    /// The task that yields.
    pub fn task_id(&self) -> TaskId {
        self.whole.reference.object.task
    }

    /// The next item, when it is there; `None` after the last one.
    ///
    /// # Errors
    /// [`Error::Task`] with what the task ended with, after the items before; then `None`.
    pub async fn next(&mut self) -> Option<Result<ObjectRef<T>, Error>> {
        let first = match self.ask()? {
            Ok(first) => first,
            Err(error) => return self.fail(error),
        };
        let mut waker: Option<Waker> = None;
        poll_fn(|cx| {
            if let Some(old) = waker.take_if(|old| !old.will_wake(cx.waker())) {
                first.unregister(&old);
            }
            if first.is_settled() || !first.register(cx.waker()) {
                return Poll::Ready(());
            }
            waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        self.take()
    }

    /// The next item, when it is there; waits on this thread.
    fn wait_for_next(&mut self) -> Option<Result<ObjectRef<T>, Error>> {
        let waited = self.ask()?.and_then(|first| wait_readable(&first, None).map(drop));
        match waited {
            // The item's own error is for `take` to look at.
            Err(error) if !matches!(error, Error::Task(_)) => self.fail(error),
            _ => self.take(),
        }
    }

    /// Asks for the next items; the first of them. `None`: the stream has ended.
    fn ask(&mut self) -> Option<Result<Held, Error>> {
        if self.has_ended {
            return None;
        }
        if let Some(error) = self.whole.failure() {
            return Some(Err(Error::Task(error.clone())));
        }
        let process = match Process::current() {
            Ok(process) => process,
            Err(error) => return Some(Err(error)),
        };
        let Reference { object, owner } = self.whole.reference;
        let most = (self.buffer / 2).clamp(1, MAX_AHEAD);
        while (self.ahead.len() as u32) < most {
            let index = self.next + self.ahead.len() as u32;
            let item = Reference { object: object.task.object(index), owner };
            self.ahead.push_back(process.want_item(item));
        }
        self.ahead.front().cloned().map(Ok)
    }

    /// Takes the next item, which is settled.
    fn take(&mut self) -> Option<Result<ObjectRef<T>, Error>> {
        let item = self.ahead.pop_front()?;
        match item.failure() {
            Some(TaskError { cause: Cause::EndOfStream, .. }) => {
                self.end();
                None
            }
            Some(error) => {
                let error = Error::Task(error.clone());
                self.fail(error)
            }
            None => {
                self.next += 1;
                // Not each for itself: the producer waits for room for several.
                if self.next - self.told >= (self.buffer / 4).max(1) {
                    self.tell();
                }
                Some(Ok(ObjectRef::of(item)))
            }
        }
    }

    fn tell(&mut self) {
        self.told = self.next;
        let Reference { object, owner } = self.whole.reference;
        if let Ok(process) = Process::current() {
            let count = self.next;
            process.send(&FromExecutor::Consumed { task: object.task, owner, count });
        }
    }

    fn fail(&mut self, error: Error) -> Option<Result<ObjectRef<T>, Error>> {
        self.end();
        Some(Err(error))
    }

    fn end(&mut self) {
        self.has_ended = true;
        self.ahead.clear();
    }
}

impl<T> fmt::Debug for ObjectStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectStream({:?}, next {})", self.whole.reference.object.task, self.next)
    }
}

/// Items in order, each waited for on the present thread.
#[derive(Debug)]
pub struct Items<T>(ObjectStream<T>);

impl<T: Value> Iterator for Items<T> {
    type Item = Result<ObjectRef<T>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.wait_for_next()
    }
}

impl<T: Value> IntoIterator for ObjectStream<T> {
    type Item = Result<ObjectRef<T>, Error>;
    type IntoIter = Items<T>;

    fn into_iter(self) -> Items<T> {
        Items(self)
    }
}

/// Submits a task with `stream`.
pub fn submit_stream<T: Value>(
    cx: &Context,
    function: u64,
    mut options: TaskOptions,
    arguments: Vec<Argument>,
) -> ObjectStream<T> {
    let chosen = options.policy.as_ref().and_then(|policy| policy.stream);
    let buffer = chosen.map_or(DEFAULT_BUFFER, |stream| stream.window);
    if chosen.is_none() {
        options.buffer(buffer);
    }
    ObjectStream::of(cx.submit_stream(function, options, arguments), buffer)
}

/// Runs a task with `stream`: takes its items out of `items` and sends them on.
pub fn yield_all<I: IntoIterator, T: Value>(
    cx: &Context,
    items: I,
    value_of: impl Fn(I::Item) -> Result<T, Failure>,
) -> Result<Encoded, Failure> {
    let running = cx.running();
    let Some(stream) = &running.stream else {
        let reason = "it yields values, and was submitted as one that returns".to_owned();
        return Err(Failure::Refused(reason));
    };
    let process = cx.process();
    let (task, attempt) = (running.id, running.attempt);
    let mut index = 0;
    for item in items {
        let value = value_of(item)?;
        // What a try before this one has yielded is there.
        if index >= stream.start {
            running.wait_for_room(index)?;
            let Encoded { value, contains, .. } = process.encode(&value)?;
            let references = contains.iter().map(|held| process.told(held)).collect();
            process.send(&FromExecutor::Yielded {
                task,
                attempt,
                index,
                value,
                contains: references,
            });
            drop(contains);
        } else if running.is_cancelled() {
            return Err(Failure::Passed(Error::Cancelled));
        }
        index += 1;
    }
    stream.made.store(index, Ordering::Relaxed);
    Ok(Encoded::of(executor::Value::Inline(Vec::new()), Vec::new()))
}

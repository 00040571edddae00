//! Where user code stands: the running task, through which it submits, puts and waits.

use std::cell::RefCell;
use std::future::Future;
use std::ops::Deref;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Wake, Waker};
use std::time::{Duration, Instant};

use rdist_scheduler::id::{JobId, TaskId, WorkerId};
use rdist_scheduler::message::CancelMode;
use rdist_scheduler::outcome::{Cause, TaskError};
use rdist_scheduler::resource::Resources;
use rdist_scheduler::spec::{Reference, TaskKind, TaskSpec};

use super::argument::{self, Argument};
use super::error::Error;
use super::object::ObjectRef;
use super::options::TaskOptions;
use super::value::Value;
use super::writing::Writing;
use crate::executor::objects::Held;
use crate::executor::output::set_writer;
use crate::executor::process::{Encoded, Process};
use crate::executor::running::Running;
use crate::executor::wait::{Parker, WAITS_NEXT, thread_waker};
use crate::wire::executor::{FromExecutor, MAX_RETURNS, Value as Encoding};

/// The running task. Tasks submitted through it are its children: their ids follow from its own
/// and from their order, so that a repeated run finds them again.
///
/// A task takes it as a parameter `cx: &Context`, or asks for [`Context::current`]. It is cheap to
/// clone and can be handed to other threads.
#[derive(Debug, Clone)]
pub struct Context(Arc<Running>);

/// The context of a job's main function.
#[derive(Debug, Clone)]
pub struct Driver(Context);

impl Deref for Driver {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.0
    }
}

impl Driver {
    pub(crate) fn new(cx: Context) -> Self {
        // Threads of the async runtime, and threads that user code starts, belong to the driver.
        let _ = ROOT.set(cx.clone());
        Self(cx)
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Context>> = const { RefCell::new(None) };
}

/// The driver's context, in its process.
static ROOT: OnceLock<Context> = OnceLock::new();

impl Context {
    /// The task that runs on this thread; in the driver's process also on threads of its own.
    ///
    /// # Errors
    /// [`Error::NotInTask`] on other threads.
    pub fn current() -> Result<Self, Error> {
        let current = CURRENT.try_with(|current| current.borrow().clone()).ok().flatten();
        current.or_else(|| ROOT.get().cloned()).ok_or(Error::NotInTask)
    }

    /// The task's id.
    pub fn task_id(&self) -> TaskId {
        self.0.id
    }

    /// The job that it belongs to.
    pub fn job_id(&self) -> JobId {
        self.0.id.job()
    }

    /// The worker that it runs on.
    pub fn worker_id(&self) -> WorkerId {
        self.process().worker
    }

    /// Which try this is, from 0; larger after an executor or a worker was lost under the task.
    pub fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// What each worker of the cluster has in all, whoever holds it at the moment; workers that are
    /// about to leave are not named. Waits for the head's answer.
    pub fn offers(&self) -> Vec<(WorkerId, Resources)> {
        self.process().offers()
    }

    /// What the task holds while it runs.
    pub fn resources(&self) -> &Resources {
        &self.0.request
    }

    /// Whether somebody asked for the task's end. Long computations look now and then, and return;
    /// waits for objects end by themselves.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Puts a value into the object store, for tasks to read. Small ones travel inside messages.
    ///
    /// The value belongs to this worker. If that is lost and the reference had been returned by
    /// the task that put it, the task runs again, up to its retries, when somebody needs the value.
    /// What a driver or an actor put is lost with its worker; see
    /// [`put_replicated`](Self::put_replicated).
    ///
    /// # Errors
    /// [`Error::StoreFull`], [`Error::Encode`].
    pub fn put<T: Value>(&self, value: &T) -> Result<ObjectRef<T>, Error> {
        let encoded = self.process().encode(value)?;
        Ok(ObjectRef::of(self.put_encoded(encoded)))
    }

    /// As [`put`](Self::put), and keeps the value on `replicas` workers, this one among them, or
    /// on as many as there are until more join: it survives the loss of all but one of them, its
    /// own included. When one of them is lost or leaves, another gets a copy. Once this worker
    /// itself is lost, the copies that are left stay until the job ends, and are not made more;
    /// references inside the value may be lost with it. The copies are made after this returns.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), rdist::Error> {
    /// let cx = rdist::Context::current()?;
    /// let weights = cx.put_replicated(&vec![0.5_f32; 1_000_000], 3)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`put`](Self::put).
    pub fn put_replicated<T: Value>(
        &self,
        value: &T,
        replicas: u32,
    ) -> Result<ObjectRef<T>, Error> {
        if replicas < 2 {
            return self.put(value);
        }
        let process = self.process();
        let encoded = in_block(process, process.encode(value)?)?;
        let object = self.0.next_put(replicas);
        Ok(ObjectRef::of(process.put(object, replicas, encoded)))
    }

    /// Room for `len` bytes in the object store, to be written in place and sealed.
    ///
    /// # Errors
    /// [`Error::StoreFull`]; [`Error::Refused`] for 2 GiB and more.
    pub fn create(&self, len: usize) -> Result<Writing, Error> {
        Writing::new(self.clone(), len)
    }

    /// All values, in order; waits until they are there.
    ///
    /// # Errors
    /// The first error among them.
    pub fn get_all<T: Value>(&self, objects: &[ObjectRef<T>]) -> Result<Vec<T>, Error> {
        self.process().want_all(objects.iter().map(ObjectRef::held));
        objects.iter().map(ObjectRef::get).collect()
    }

    /// Waits until `count` of `objects` are settled (there, or failed), or `timeout` has passed.
    /// Returns those that are, at most `count`, and the others; both in order.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    #[expect(clippy::type_complexity, reason = "two lists of the argument's type")]
    pub fn wait<T: Value>(
        &self,
        mut objects: Vec<ObjectRef<T>>,
        count: usize,
        timeout: Option<Duration>,
    ) -> Result<(Vec<ObjectRef<T>>, Vec<ObjectRef<T>>), Error> {
        let count = count.min(objects.len());
        let mut settled = settled(&objects, count);
        if settled.len() < count {
            self.wait_for(&objects, count, timeout)?;
            settled = self::settled(&objects, count);
        }
        let end = settled.last().map_or(0, |last| last + 1);
        let (mut index, mut next) = (0, settled.iter().peekable());
        let ready = objects.extract_if(..end, |_| {
            index += 1;
            next.next_if(|place| **place + 1 == index).is_some()
        });
        Ok((ready.collect(), objects))
    }

    /// Sleeps until `count` of `objects` are settled, or `timeout` has passed.
    fn wait_for<T: Value>(
        &self,
        objects: &[ObjectRef<T>],
        count: usize,
        timeout: Option<Duration>,
    ) -> Result<(), Error> {
        let (process, waker) = (self.process(), thread_waker());
        // What is settled already need not be fetched for this.
        let open = objects.iter().filter(|object| !object.is_settled());
        process.watch(&waker, open.map(ObjectRef::held));
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        // What was settled stays so: the first place that is not moves on only.
        let (mut passed, mut found) = (0, 0);
        let result = self.0.wait(deadline, || {
            while objects.get(passed).is_some_and(ObjectRef::is_settled) {
                (passed, found) = (passed + 1, found + 1);
            }
            let missing = count.saturating_sub(found);
            let further = objects[passed..].iter().filter(|object| object.is_settled());
            further.take(missing).count() == missing
        });
        process.unwatch(&waker);
        result.map(drop)
    }

    /// Asks for the end of the task that makes `object`, and of all that it has submitted, and so
    /// on. One that waits never starts, and its object fails as cancelled. One that runs is asked:
    /// its waits end with [`Error::Cancelled`], [`is_cancelled`](Self::is_cancelled) tells, and
    /// it may still return what it has. With `force` its process is killed instead; what ran
    /// beside it there runs again, without its retries being counted, and light actors in it are
    /// lost with it. A call of an actor is asked even so: its actor would die with it.
    pub fn cancel<T>(&self, object: &ObjectRef<T>, force: bool) {
        self.send_cancel(object, CancelMode { force, children: true });
    }

    /// As [`cancel`](Self::cancel), but what the task has submitted goes on.
    pub fn cancel_alone<T>(&self, object: &ObjectRef<T>, force: bool) {
        self.send_cancel(object, CancelMode { force, children: false });
    }

    fn send_cancel<T>(&self, object: &ObjectRef<T>, mode: CancelMode) {
        let Reference { object, owner } = self.process().told(object.held());
        self.process().send(&FromExecutor::Cancel { task: object.task, owner, mode });
    }

    /// Sends an event to whoever submitted the job: a progress report, a metric.
    pub fn emit(&self, event: &serde_json::Value) {
        self.process().send(&FromExecutor::Event(event.to_string()));
    }

    /// Runs a future on this thread. While it waits, the thread reads this process's messages.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when the task is cancelled while it waits.
    pub fn block_on<F: Future>(&self, future: F) -> Result<F::Output, Error> {
        // Without a deadline the wait ends with an output.
        self.block_on_until(future, None).map(|output| output.expect("no deadline"))
    }

    /// The same until a deadline: `None`, it has passed.
    pub(crate) fn block_on_until<F: Future>(
        &self,
        future: F,
        deadline: Option<Instant>,
    ) -> Result<Option<F::Output>, Error> {
        let mut future = pin!(future);
        let signal = Arc::new(Signal { woken: AtomicBool::new(true), parker: Parker::current() });
        let waker = Waker::from(signal.clone());
        let mut poll_cx = std::task::Context::from_waker(&waker);
        loop {
            signal.woken.store(false, Ordering::SeqCst);
            let outer = WAITS_NEXT.replace(true);
            let polled = future.as_mut().poll(&mut poll_cx);
            WAITS_NEXT.set(outer);
            if let Poll::Ready(output) = polled {
                return Ok(Some(output));
            }
            if !self.0.wait(deadline, || signal.woken.load(Ordering::SeqCst))? {
                return Ok(None);
            }
        }
    }

    pub(crate) fn of(running: Arc<Running>) -> Self {
        Self(running)
    }

    pub(crate) fn running(&self) -> &Running {
        &self.0
    }

    pub(crate) fn process(&self) -> &'static Process {
        self.0.process
    }

    /// Runs `code` with this context as the thread's current one.
    pub(crate) fn scope<R>(&self, code: impl FnOnce() -> R) -> R {
        let outer = CURRENT.replace(Some(self.clone()));
        let writer = set_writer(Some(self.task_id()));
        let result = code();
        set_writer(writer);
        drop(CURRENT.replace(outer));
        result
    }

    pub(crate) fn put_encoded(&self, encoded: Encoded) -> Held {
        self.process().put(self.0.next_put(1), 1, encoded)
    }

    /// Submits a task; a request that cannot be sent comes back as an object that has failed.
    pub(crate) fn submit(
        &self,
        function: u64,
        kind: TaskKind,
        options: TaskOptions,
        arguments: Vec<Argument>,
    ) -> Held {
        let process = self.process();
        match self.request((function, kind, 1), options, arguments) {
            Ok((spec, arguments)) => {
                let held = match spec.kind {
                    TaskKind::ActorCall { .. } => process.call_actor(spec),
                    _ => process.submit_task(spec),
                };
                drop(arguments);
                held
            }
            Err((id, error)) => process.failed(id.object(0), error),
        }
    }

    /// Submits a plain task that makes so many values.
    pub(crate) fn submit_several(
        &self,
        function: u64,
        returns: u32,
        options: TaskOptions,
        arguments: Vec<Argument>,
    ) -> Vec<Held> {
        let process = self.process();
        match self.request((function, TaskKind::Plain, returns), options, arguments) {
            Ok((spec, arguments)) => {
                let held = process.submit_several(spec);
                drop(arguments);
                held
            }
            Err((id, error)) => {
                let failed = |index| process.failed(id.object(index), error.clone());
                (0..returns).map(failed).collect()
            }
        }
    }

    /// Submits a plain task that yields; the reference is to its stream.
    pub(crate) fn submit_stream(
        &self,
        function: u64,
        options: TaskOptions,
        arguments: Vec<Argument>,
    ) -> Held {
        let process = self.process();
        match self.request((function, TaskKind::Plain, 0), options, arguments) {
            Ok((spec, arguments)) => {
                let held = process.submit_stream(spec);
                drop(arguments);
                held
            }
            Err((id, error)) => process.failed(id.stream(), error),
        }
    }

    /// What is sent to submit a task, with what must be held until then; or its id, and why it
    /// cannot be sent.
    pub(crate) fn request(
        &self,
        (function, kind, returns): (u64, TaskKind, u32),
        options: TaskOptions,
        arguments: Vec<Argument>,
    ) -> Result<(TaskSpec, Vec<Held>), (TaskId, TaskError)> {
        self.0.leave_lease();
        let id = self.0.next_child();
        let refused = |reason| (id, TaskError { task: id, cause: Cause::Refused { reason } });
        if returns > MAX_RETURNS {
            let reason = format!("{returns} values; a task makes at most {MAX_RETURNS}");
            return Err(refused(reason));
        }
        let is_call = matches!(kind, TaskKind::ActorCall { .. });
        let packed = match argument::pack(arguments, is_call, self) {
            Ok(packed) => packed,
            Err(Error::Task(error)) => return Err((id, error)),
            Err(error) => return Err(refused(error.to_string())),
        };
        let spec = TaskSpec {
            id,
            parent: self.0.id,
            kind,
            function,
            request: options.request,
            dependencies: packed.dependencies,
            borrowed: packed.borrowed,
            returns,
            max_retries: options.max_retries,
            strategy: options.strategy,
            priority: options.priority,
            policy: options.policy,
            body: packed.body,
        };
        Ok((spec, packed.held))
    }
}

/// The same value in shared memory, from where it can be copied. Before a tiny one is room: an
/// archive is found from its end.
fn in_block(process: &'static Process, encoded: Encoded) -> Result<Encoded, Error> {
    const ROOM: usize = 64;
    let Encoding::Inline(bytes) = &encoded.value else { return Ok(encoded) };
    let mut draft = process.create(ROOM + bytes.len())?;
    let (before, value) = draft.0.split_at_mut(ROOM);
    before.fill(0);
    value.copy_from_slice(bytes);
    Ok(Encoded { value: Encoding::Block(draft.0.seal()), ..encoded })
}

/// Where the first `count` settled ones are.
fn settled<T: Value>(objects: &[ObjectRef<T>], count: usize) -> Vec<usize> {
    let places = objects.iter().enumerate().filter(|(_, object)| object.is_settled());
    places.map(|(place, _)| place).take(count).collect()
}

/// Wakes a thread in `block_on`.
struct Signal {
    woken: AtomicBool,
    parker: Arc<Parker>,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        self.parker.notify();
    }
}

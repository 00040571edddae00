//! One task: from `Run` to `Finished`.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use rdist_scheduler::id::ActorId;
use rdist_scheduler::outcome::{Cause, Death, Outcome, Returned, TaskError};
use rdist_scheduler::spec::{TaskKind, TaskSpec};

use super::direct::Reply;
use super::mailbox::{self, Mailbox};
use super::objects::Held;
use super::panic::guarded;
use super::process::{Encoded, Process};
use super::registry::{Body, DRIVER};
use super::running::Running;
use super::slots::Work;
use crate::api::argument::Arguments;
use crate::api::context::{Context, Driver};
use crate::api::error::{Error, Failure, shorten};
use crate::api::fault::{Fault, is_retryable};
use crate::wire::executor::{CallEnd, FromExecutor, MAX_ERROR_BYTES, Value};

/// A program's main function.
pub type DriverBody = fn(Driver) -> Result<(), Failure>;

/// What `main` said is to be run as the driver.
pub(crate) static DRIVER_BODY: OnceLock<DriverBody> = OnceLock::new();

/// A task that was given to this process.
#[derive(Debug)]
pub(crate) struct Job {
    pub(super) spec: TaskSpec,
    pub(super) dependencies: Vec<Value>,
    pub(super) running: Arc<Running>,
    /// Who made it, where that is not the worker's to know.
    pub(super) reply: Option<Reply>,
}

/// Takes a task from the worker; `after`: for the first turn later than that. Runs no user code.
pub(super) fn accept(
    process: &'static Process,
    (spec, attempt): (TaskSpec, u32),
    dependencies: Vec<Value>,
    after: Option<u64>,
) {
    let running = Arc::new(Running::new(process, &spec, attempt));
    process.running.insert(spec.id, running.clone());
    let job = Box::new(Job { spec, dependencies, running, reply: None });
    match &job.spec.kind {
        TaskKind::Plain | TaskKind::Driver => {
            let now = match after {
                Some(after) => process.turns.arrived(after, job),
                None => Some(job),
            };
            if let Some(job) = now {
                process.slots.push(Work::Task(job));
            }
        }
        TaskKind::GroupCreate(_) | TaskKind::Bundle { .. } => {
            let reason = "a placement group has no code to run".to_owned();
            finish(process, &job, Err(Ended::Failed(Failure::Refused(reason))));
        }
        TaskKind::ActorCreate(options) => {
            let actor = ActorId(job.spec.id);
            let class = match process.registry.get(job.spec.function).map(|function| function.body)
            {
                Some(Body::Actor(class)) => Some(class),
                _ => None,
            };
            let mailbox = Arc::new(Mailbox::new(actor, class, options.max_concurrency));
            process.actors.insert(actor, mailbox.clone());
            mailbox::deliver(process, &mailbox, job);
        }
        TaskKind::ActorCall { actor, .. } => {
            let mailbox = process.actors.get(actor).map(|mailbox| mailbox.clone());
            match mailbox {
                Some(mailbox) => {
                    if mailbox.saves() {
                        let _ = job.running.saves.set(mailbox.clone());
                    }
                    mailbox::deliver(process, &mailbox, job);
                }
                None => {
                    let reason = format!("{actor} does not live in this process");
                    finish(process, &job, Err(Ended::Failed(Failure::Refused(reason))));
                }
            }
        }
    }
}

/// Runs what a slot's thread took.
pub(super) fn work(process: &'static Process, work: Work) {
    match work {
        Work::Task(job) => {
            let mut next = Some(job);
            while let Some(job) = next {
                next = run(process, &job, |body, arguments, cx| match body {
                    Some(Body::Task(body)) => body(arguments, cx),
                    None if !job.spec.body.is_empty() => {
                        super::detached::serve(cx, &job.spec.body)?;
                        Ok(process.encode(&())?)
                    }
                    None => {
                        drive(cx)?;
                        Ok(process.encode(&())?)
                    }
                    Some(Body::Actor(_) | Body::Method(_) | Body::Predicate(_)) => {
                        Err(wrong_kind("a plain task"))
                    }
                });
            }
        }
        Work::Actor(mailbox) => mailbox::serve(process, &mailbox),
        Work::Lane(lane) => super::direct::serve(process, &lane),
        Work::Poll(call) => call.poll(process),
        Work::EndActor(mailbox) => mailbox.end(process),
    }
}

/// The job's main function. Whoever follows the job is told its error as the job's.
fn drive(cx: &Context) -> Result<(), Failure> {
    let Some(body) = DRIVER_BODY.get() else {
        let reason = "this program has no #[rdist::main]; add it to the main function";
        return Err(Failure::Refused(reason.to_owned()));
    };
    body(Driver::new(cx.clone()))
}

pub(super) fn wrong_kind(wanted: &str) -> Failure {
    Failure::Refused(format!("the function exists, but not as {wanted}: was the program rebuilt?"))
}

/// Why there is no value.
#[derive(Debug)]
pub(super) enum Ended {
    Panicked { message: String, retry: bool },
    Failed(Failure),
}

/// Runs the user code of a job by `call`, and says how it ended. `None`: the driver's. Returns the
/// task whose turn that is, for the same thread.
pub(super) fn run(
    process: &'static Process,
    job: &Job,
    call: impl FnOnce(Option<Body>, &mut Arguments<'_>, &Context) -> Result<Encoded, Failure>,
) -> Option<Box<Job>> {
    let result = execute(process, job, call);
    finish(process, job, result)
}

/// Runs the user code of a job by `call`. `None`: the driver's.
pub(super) fn execute<T>(
    process: &'static Process,
    job: &Job,
    call: impl FnOnce(Option<Body>, &mut Arguments<'_>, &Context) -> Result<T, Failure>,
) -> Result<T, Ended> {
    let cx = Context::of(job.running.clone());
    let mut arguments = arguments_of(process, job)?;
    if job.running.is_cancelled() {
        return Err(cancelled());
    }
    let body = match process.registry.get(job.spec.function) {
        Some(function) => Some(function.body),
        None if job.spec.function == DRIVER => None,
        None => {
            let reason = format!(
                "this program has no function {:#x}: was it rebuilt since the job started?",
                job.spec.function
            );
            return Err(Ended::Failed(Failure::Refused(reason)));
        }
    };
    let result = cx.scope(|| guarded(|| call(body, &mut arguments, &cx)));
    arguments.keep_what_is_used(process);
    process.calls_are_taken();
    match result {
        Ok(result) => result.map_err(Ended::Failed),
        Err(message) => {
            let retry = cx.scope(|| is_retryable(&Fault::panic(&message)));
            Err(Ended::Panicked { message, retry })
        }
    }
}

pub(super) fn cancelled() -> Ended {
    Ended::Failed(Failure::Passed(Error::Cancelled))
}

fn arguments_of<'a>(process: &'static Process, job: &'a Job) -> Result<Arguments<'a>, Ended> {
    Arguments::new(process, &job.spec, &job.dependencies)
        .map_err(|reason| Ended::Failed(Failure::Refused(reason)))
}

/// Says how a job ended.
pub(super) fn finish(
    process: &'static Process,
    job: &Job,
    result: Result<Encoded, Ended>,
) -> Option<Box<Job>> {
    let result = match (&job.reply, result) {
        (Some(reply), Ok(Encoded { value: Value::Inline(bytes), contains, more }))
            if contains.is_empty() && more.is_empty() =>
        {
            process.forget(job);
            reply.value(bytes);
            return None;
        }
        (_, result) => result,
    };
    let (end, held) = end_of(process, job, result);
    if let Some(reply) = &job.reply {
        reply.end(process, job.spec.id.object(0), end.outcome, end.values);
        drop(held);
        return None;
    }
    let CallEnd { task, attempt, outcome, values } = end;
    let next = job.running.ended(&FromExecutor::Finished { task, attempt, outcome, values });
    drop(held);
    next
}

/// Says how a call ended. It takes no turns, so that nothing is next.
pub(super) fn finish_call(process: &'static Process, job: &Job, result: Result<Encoded, Ended>) {
    let _ = finish(process, job, result);
}

/// Says of a call that its actor ended before it. The worker may have said so already.
pub(super) fn cut_off(process: &'static Process, job: &Job) {
    let cause = Cause::ActorDied(Death::Ended);
    let error = Error::Task(TaskError { task: job.spec.id, cause });
    finish_call(process, job, Err(Ended::Failed(Failure::Passed(error))));
}

/// How a job ended, with what its values refer to: it is held until the message is out.
pub(super) fn end_of(
    process: &'static Process,
    job: &Job,
    result: Result<Encoded, Ended>,
) -> (CallEnd, Vec<Held>) {
    let task = job.spec.id;
    process.forget(job);
    let error = |cause| Outcome::Failed(TaskError { task, cause });
    let mut held = Vec::new();
    let (outcome, values) = match result {
        Ok(_) if let Some(stream) = &job.running.stream => {
            (Outcome::Streamed(stream.made.load(Ordering::Relaxed)), Vec::new())
        }
        Ok(_) if job.spec.returns == 0 => (Outcome::Returned(Vec::new()), Vec::new()),
        Ok(mut encoded) if job.spec.returns as usize == 1 + encoded.more.len() => {
            let more = std::mem::take(&mut encoded.more);
            let mut returned = Vec::with_capacity(1 + more.len());
            let mut values = Vec::with_capacity(1 + more.len());
            for encoded in std::iter::once(encoded).chain(more) {
                returned.push(Returned {
                    size: encoded.len(),
                    inline: matches!(encoded.value, Value::Inline(_)),
                    contains: encoded.references(process),
                });
                held.extend(encoded.contains);
                values.push(encoded.value);
            }
            (Outcome::Returned(returned), values)
        }
        Ok(encoded) => {
            let (made, wanted) = (1 + encoded.more.len(), job.spec.returns);
            let reason = format!("it made {made} values where {wanted} are wanted");
            (error(Cause::Refused { reason }), Vec::new())
        }
        Err(Ended::Panicked { message, retry }) => {
            let error = TaskError { task, cause: Cause::Panicked { message } };
            let outcome = if retry { Outcome::Retryable } else { Outcome::Failed };
            (outcome(error), Vec::new())
        }
        Err(Ended::Failed(failure @ Failure::Retryable(_))) if !job.running.is_cancelled() => {
            let cause = cause_of(process, &job.running, &failure);
            (Outcome::Retryable(TaskError { task, cause }), Vec::new())
        }
        Err(Ended::Failed(Failure::Passed(Error::Task(origin)))) => {
            (Outcome::Failed(origin), Vec::new())
        }
        Err(Ended::Failed(failure)) => {
            (error(cause_of(process, &job.running, &failure)), Vec::new())
        }
    };
    (CallEnd { task, attempt: job.running.told_as(), outcome, values }, held)
}

impl Process {
    /// The job runs here no longer, or never did.
    pub(super) fn forget(&self, job: &Job) {
        self.running.remove_if(&job.spec.id, |_, running| Arc::ptr_eq(running, &job.running));
    }
}

fn cause_of(_process: &Process, running: &Running, failure: &Failure) -> Cause {
    match failure {
        _ if running.is_cancelled() => Cause::Cancelled,
        Failure::Refused(reason) => {
            Cause::Refused { reason: shorten(reason.clone(), MAX_ERROR_BYTES) }
        }
        Failure::Returned(text) | Failure::Retryable(text) => {
            Cause::Returned { message: shorten(text.clone(), MAX_ERROR_BYTES) }
        }
        Failure::Passed(Error::Task(origin)) => origin.cause.clone(),
        Failure::Passed(Error::Cancelled) => Cause::Cancelled,
        Failure::Passed(other) => {
            Cause::Returned { message: shorten(other.to_string(), MAX_ERROR_BYTES) }
        }
    }
}

//! One actor: its state, and its calls in the order of their arrival, one at a time.
//!
//! A mailbox with calls is work for any slot's thread; one without is memory and nothing else.
//! Actors whose calls run beside each other have a [`Concurrent`] mailbox instead.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rdist_scheduler::id::ActorId;
use rdist_scheduler::spec::TaskKind;

use super::concurrent::Concurrent;
use super::detached::{READY, WATCH};
use super::panic::guarded;
use super::process::Process;
use super::registry::{Body, Class, MethodBody, State, TERMINATE};
use super::run::{self, Ended, Job, wrong_kind};
use super::saving::Saving;
use super::slots::Work;
use crate::api::error::Failure;
use crate::wire::executor::FromExecutor;

/// Calls that a thread runs before other work gets its turn.
pub(super) const CALLS_PER_TURN: usize = 64;

/// An actor in this process.
#[derive(Debug)]
pub(crate) struct Mailbox {
    pub(super) id: ActorId,
    kind: Kind,
    /// Calls that are never answered, but by its end.
    watches: Mutex<Vec<Job>>,
}

#[derive(Debug)]
enum Kind {
    Serial(Serial),
    Concurrent(Concurrent),
}

/// An actor that runs one call at a time.
#[derive(Debug, Default)]
struct Serial {
    calls: Mutex<Calls>,
    /// The user's value; `None` before it is made and after it is dropped.
    state: Mutex<Option<Box<dyn Any + Send>>>,
    saving: Option<Saving>,
}

#[derive(Debug, Default)]
struct Calls {
    waiting: VecDeque<Box<Job>>,
    /// Whether a thread runs calls, or the mailbox is in the queue for one.
    is_scheduled: bool,
    is_ended: bool,
}

impl Mailbox {
    /// For an actor of `class`; `limit`: calls in flight, 0 for as many as the class says.
    pub(super) fn new(id: ActorId, class: Option<&'static Class>, limit: u32) -> Self {
        let kind = match class.filter(|class| class.is_concurrent) {
            Some(class) => Kind::Concurrent(Concurrent::new(class, limit)),
            None => {
                let how = class.and_then(|class| class.checkpoint.as_ref());
                Kind::Serial(Serial { saving: how.map(Saving::new), ..Serial::default() })
            }
        };
        Self { id, kind, watches: Mutex::default() }
    }

    /// Drops the state, after the call that runs. Of calls that wait it is said that they have
    /// ended: the worker may have answered them, but keeps their arguments until then.
    pub(super) fn end(&self, process: &'static Process) {
        let result = match &self.kind {
            Kind::Serial(serial) => guarded(|| serial.end(process)),
            Kind::Concurrent(concurrent) => guarded(|| concurrent.end(process)),
        };
        let watches = std::mem::take(&mut *self.lock_watches());
        watches.iter().for_each(|job| run::cut_off(process, job));
        if result.is_err() {
            eprintln!("rdist: {} panicked while its state was dropped", self.id);
        }
    }

    fn lock_watches(&self) -> MutexGuard<'_, Vec<Job>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the actor from inside, after the calls before.
    pub(super) fn terminate(&self, process: &'static Process, job: &Job) {
        self.flush(process);
        self.end(process);
        run::finish_call(process, job, process.encode(&()).map_err(|e| Ended::Failed(e.into())));
        if let TaskKind::ActorCall { actor, actor_owner: owner, .. } = job.spec.kind {
            process.outbox.send(&FromExecutor::KillActor { actor, owner });
        }
    }

    /// Whether the actor saves its state.
    pub(super) fn saves(&self) -> bool {
        self.saving().is_some()
    }

    /// Tells the ends of calls that wait for that.
    pub(super) fn flush(&self, process: &Process) -> bool {
        self.saving().is_some_and(|saving| saving.flush(process, self.id))
    }

    fn saving(&self) -> Option<&Saving> {
        match &self.kind {
            Kind::Serial(serial) => serial.saving.as_ref(),
            Kind::Concurrent(_) => None,
        }
    }

    /// The concurrent mailbox, of an actor that has one.
    pub(super) fn concurrent(&self) -> Option<&Concurrent> {
        match &self.kind {
            Kind::Concurrent(concurrent) => Some(concurrent),
            Kind::Serial(_) => None,
        }
    }

    /// Why a call finds no actor.
    pub(super) fn no_state(&self) -> Failure {
        Failure::Refused(format!("{} could not be made, or has ended", self.id))
    }

    /// Why the actor is not made twice.
    pub(super) fn is_there_already(&self) -> Failure {
        Failure::Refused(format!("{} is there already", self.id))
    }
}

/// Adds a call.
pub(super) fn deliver(process: &'static Process, mailbox: &Arc<Mailbox>, job: Box<Job>) {
    match job.spec.function {
        READY => {
            return run::finish_call(
                process,
                &job,
                process.encode(&()).map_err(|e| Ended::Failed(e.into())),
            );
        }
        WATCH => return mailbox.lock_watches().push(*job),
        _ => {}
    }
    let is_work = match &mailbox.kind {
        Kind::Serial(serial) => serial.deliver(process, job),
        Kind::Concurrent(concurrent) => concurrent.deliver(process, job),
    };
    if is_work {
        process.slots.push(Work::Actor(mailbox.clone()));
    }
}

/// Runs calls for a turn.
pub(super) fn serve(process: &'static Process, mailbox: &Arc<Mailbox>) {
    let goes_on = match &mailbox.kind {
        Kind::Serial(serial) => serial.serve(process, mailbox),
        Kind::Concurrent(concurrent) => concurrent.serve(process, mailbox),
    };
    if goes_on {
        process.slots.push(Work::Actor(mailbox.clone()));
    }
}

impl Serial {
    /// Adds a call; whether a thread is needed.
    fn deliver(&self, process: &'static Process, job: Box<Job>) -> bool {
        let mut calls = self.lock_calls();
        if calls.is_ended {
            drop(calls);
            run::cut_off(process, &job);
            return false;
        }
        calls.waiting.push_back(job);
        !std::mem::replace(&mut calls.is_scheduled, true)
    }

    /// Runs calls for a turn; whether there may be more.
    fn serve(&self, process: &'static Process, mailbox: &Mailbox) -> bool {
        let mut has_looked = false;
        for _ in 0..CALLS_PER_TURN {
            let job = {
                let mut calls = self.lock_calls();
                match calls.waiting.pop_front() {
                    Some(job) => job,
                    None if mailbox.flush(process) => continue,
                    None if !std::mem::replace(&mut has_looked, true) => {
                        // More may have come.
                        drop(calls);
                        process.pump();
                        continue;
                    }
                    None => {
                        calls.is_scheduled = false;
                        return false;
                    }
                }
            };
            has_looked = false;
            self.call(process, mailbox, &job);
        }
        mailbox.flush(process);
        true
    }

    fn call(&self, process: &'static Process, mailbox: &Mailbox, job: &Job) {
        if job.spec.function == TERMINATE {
            mailbox.terminate(process, job);
            return;
        }
        if let Some(saving) = &self.saving {
            saving.before(process, mailbox.id, job.spec.function);
        }
        let started = self.saving.as_ref().map(|_| Instant::now());
        let mut state = self.lock_state();
        let result =
            run::execute(process, job, |body, arguments, cx| match (body, state.as_mut()) {
                (Some(Body::Actor(class)), None) => {
                    let saved = process.restores.remove(&mailbox.id);
                    let made = match (saved, &self.saving) {
                        (Some((_, saved)), Some(saving)) => saving.restore(saved)?,
                        _ => (class.make)(arguments, cx)?,
                    };
                    match made {
                        State::Exclusive(actor) => {
                            *state = Some(actor);
                            Ok(process.encode(&())?)
                        }
                        State::Shared(_) => {
                            Err(wrong_kind("an actor that runs one call at a time"))
                        }
                    }
                }
                (Some(Body::Method(method)), Some(state)) => match method.body {
                    MethodBody::Exclusive(body) => body(&mut **state, arguments, cx),
                    _ => Err(wrong_kind("a method of an actor that runs one call at a time")),
                },
                (Some(Body::Method(_)), None) => Err(mailbox.no_state()),
                (Some(Body::Actor(_)), Some(_)) => Err(mailbox.is_there_already()),
                (Some(Body::Task(_) | Body::Predicate(_)) | None, _) => {
                    Err(wrong_kind("a method of an actor"))
                }
            });
        let is_call = ActorId(job.spec.id) != mailbox.id;
        match (&self.saving, &*state, started) {
            (Some(saving), Some(state), Some(started)) if is_call => {
                saving.ended(process, job, result, &**state, started.elapsed());
            }
            _ => run::finish_call(process, job, result),
        }
        if state.is_none() && ActorId(job.spec.id) == mailbox.id {
            // Its constructor failed, and the worker knows.
            drop(state);
            process.actors.remove(&mailbox.id);
        }
    }

    fn end(&self, process: &'static Process) {
        let waiting = {
            let mut calls = self.lock_calls();
            calls.is_ended = true;
            std::mem::take(&mut calls.waiting)
        };
        let state = self.lock_state().take();
        if let Some(saving) = &self.saving {
            saving.forget(process);
        }
        waiting.iter().for_each(|job| run::cut_off(process, job));
        drop(state);
    }

    fn lock_calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_state(&self) -> MutexGuard<'_, Option<Box<dyn Any + Send>>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

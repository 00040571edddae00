//! One actor: its state, and its calls in the order of their arrival, one at a time.
//!
//! A mailbox with calls is work for any slot's thread; one without is memory and nothing else.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdist_scheduler::id::ActorId;

use super::panic::guarded;
use super::process::Process;
use super::registry::Body;
use super::run::{self, Job, wrong_kind};
use super::slots::Work;
use crate::api::error::Failure;

/// Calls that a thread runs before other work gets its turn.
const CALLS_PER_TURN: usize = 64;

/// An actor in this process.
#[derive(Debug)]
pub(crate) struct Mailbox {
    id: ActorId,
    calls: Mutex<Calls>,
    /// The user's value; `None` before it is made and after it is dropped.
    state: Mutex<Option<Box<dyn Any + Send>>>,
}

#[derive(Debug, Default)]
struct Calls {
    waiting: VecDeque<Box<Job>>,
    /// Whether a thread runs calls, or the mailbox is in the queue for one.
    is_scheduled: bool,
    is_ended: bool,
}

impl Mailbox {
    pub(super) fn new(id: ActorId) -> Self {
        Self { id, calls: Mutex::default(), state: Mutex::default() }
    }

    /// Drops the state, after the call that runs. Calls that wait are the worker's to answer.
    pub(super) fn end(&self) {
        {
            let mut calls = self.lock_calls();
            calls.is_ended = true;
            calls.waiting.clear();
        }
        let state = self.lock_state().take();
        if guarded(|| drop(state)).is_err() {
            eprintln!("rdist: {} panicked while its state was dropped", self.id);
        }
    }

    fn lock_calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_state(&self) -> MutexGuard<'_, Option<Box<dyn Any + Send>>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds a call.
pub(super) fn deliver(process: &'static Process, mailbox: &Arc<Mailbox>, job: Box<Job>) {
    let mut calls = mailbox.lock_calls();
    if calls.is_ended {
        return;
    }
    calls.waiting.push_back(job);
    if !std::mem::replace(&mut calls.is_scheduled, true) {
        process.slots.push(Work::Actor(mailbox.clone()));
    }
}

/// Runs calls for a turn.
pub(super) fn serve(process: &'static Process, mailbox: &Arc<Mailbox>) {
    for _ in 0..CALLS_PER_TURN {
        let job = {
            let mut calls = mailbox.lock_calls();
            match calls.waiting.pop_front() {
                Some(job) => job,
                None => {
                    calls.is_scheduled = false;
                    return;
                }
            }
        };
        call(process, mailbox, &job);
    }
    process.slots.push(Work::Actor(mailbox.clone()));
}

fn call(process: &'static Process, mailbox: &Mailbox, job: &Job) {
    let mut state = mailbox.lock_state();
    // A call takes no turns, so nothing is next.
    let _ = run::run(process, job, |body, arguments, cx| match (body, state.as_mut()) {
        (Some(Body::Actor(body)), None) => {
            *state = Some(body(arguments, cx)?);
            Ok(process.encode(&())?)
        }
        (Some(Body::Method(body)), Some(state)) => body(&mut **state, arguments, cx),
        (Some(Body::Method(_)), None) => {
            Err(Failure::Refused(format!("{} could not be made, or has ended", mailbox.id)))
        }
        (Some(Body::Actor(_)), Some(_)) => {
            Err(Failure::Refused(format!("{} is there already", mailbox.id)))
        }
        (Some(Body::Task(_) | Body::Predicate(_)) | None, _) => {
            Err(wrong_kind("a method of an actor"))
        }
    });
    if state.is_none() && ActorId(job.spec.id) == mailbox.id {
        // Its constructor failed, and the worker knows.
        drop(state);
        process.actors.remove(&mailbox.id);
    }
}

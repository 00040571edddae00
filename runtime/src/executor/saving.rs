//! Calls of an actor that saves its state: their ends are told together, in one message with the
//! state that they are in.
//!
//! The state is archived after each call, since a later call may have changed it halfway when the
//! message has to leave. The message leaves when no call waits, after [`MAX_SAVED_CALLS`] calls or
//! [`MAX_DELAY`], when the running call waits for something (which may wait for the ends), and
//! before a call that is not known to be short.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdist_scheduler::id::ActorId;

use super::objects::Held;
use super::panic::guarded;
use super::process::{Encoded, Process};
use super::run::{self, Ended, Job};
use crate::api::checkpoint::Checkpointing;
use crate::api::error::Failure;
use crate::wire::executor::{CallEnd, FromExecutor, MAX_SAVED_CALLS};

/// How long an end waits for others, while calls are short.
const MAX_DELAY: Duration = Duration::from_millis(1);
/// A call that usually takes less than this does not hold up the ends of those before it.
const SHORT: Duration = Duration::from_micros(100);

/// What is to be told of one actor.
#[derive(Debug)]
pub(super) struct Saving {
    how: &'static Checkpointing,
    unsent: Mutex<Unsent>,
}

#[derive(Debug, Default)]
struct Unsent {
    /// After the last of the calls.
    state: Vec<u8>,
    calls: Vec<CallEnd>,
    /// What results refer to, until the message that names it is out.
    held: Vec<Held>,
    since: Option<Instant>,
    /// How long calls of a method take, smoothed.
    usual: HashMap<u64, Duration>,
}

impl Saving {
    pub(super) fn new(how: &'static Checkpointing) -> Self {
        Self { how, unsent: Mutex::default() }
    }

    /// A call is about to run.
    pub(super) fn before(&self, process: &Process, actor: ActorId, function: u64) {
        let mut unsent = self.lock();
        let is_short = unsent.usual.get(&function).is_some_and(|usual| *usual < SHORT);
        let is_late = unsent.since.is_some_and(|since| since.elapsed() > MAX_DELAY);
        if !is_short || is_late || unsent.calls.len() >= MAX_SAVED_CALLS {
            unsent.send(process, actor);
        }
    }

    /// A call has ended, and left `state`.
    pub(super) fn ended(
        &self,
        process: &'static Process,
        job: &Job,
        result: Result<Encoded, Ended>,
        state: &(dyn Any + Send),
        took: Duration,
    ) {
        let saved = match guarded(|| (self.how.save)(state)) {
            Ok(Ok(saved)) => saved,
            // The caller must not take for saved what is not.
            Ok(Err(failure)) => return run::finish_call(process, job, Err(Ended::Failed(failure))),
            Err(message) => {
                let panicked = Ended::Panicked { message, retry: false };
                return run::finish_call(process, job, Err(panicked));
            }
        };
        let (end, held) = run::end_of(process, job, result);
        let mut unsent = self.lock();
        let usual = unsent.usual.entry(job.spec.function).or_insert(took);
        *usual = (*usual * 7 + took) / 8;
        unsent.state = saved;
        unsent.calls.push(end);
        unsent.held.extend(held);
        unsent.since.get_or_insert_with(Instant::now);
    }

    /// Tells what there is; whether there was anything.
    pub(super) fn flush(&self, process: &Process, actor: ActorId) -> bool {
        self.lock().send(process, actor)
    }

    /// The actor, from what it saved.
    pub(super) fn restore(&self, state: Vec<u8>) -> Result<super::registry::State, Failure> {
        (self.how.restore)(state)
    }

    /// The actor has ended, and its calls were answered: that they have ended counts for nothing,
    /// but that they read their arguments no longer.
    pub(super) fn forget(&self, process: &Process) {
        let unsent = std::mem::take(&mut *self.lock());
        for CallEnd { task, attempt, outcome, values } in unsent.calls {
            process.outbox.send(&FromExecutor::Finished { task, attempt, outcome, values });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Unsent> {
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unsent {
    fn send(&mut self, process: &Process, actor: ActorId) -> bool {
        if self.calls.is_empty() {
            return false;
        }
        let (state, calls) = (std::mem::take(&mut self.state), std::mem::take(&mut self.calls));
        process.outbox.send(&FromExecutor::Saved { actor, state, calls });
        self.held.clear();
        self.since = None;
        true
    }
}

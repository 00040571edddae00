//! Short tasks that the worker gave ahead: each waits here until one before it ends or blocks.
//!
//! A *turn* is the end, or the beginning of a wait, of a task that takes turns
//! ([`TaskSpec::takes_turns`]). Turns are numbered in the order in which the worker hears of them:
//! the frame is sent under the lock under which the turn is counted. The worker counts the same
//! and so knows which task has started (`rdist_scheduler::local`, `ahead`).

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::outbox::Outbox;
use super::process::Process;
use super::run::Job;
use super::slots::Work;
use crate::wire::executor::FromExecutor;

/// Tasks that wait for their turn.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Turns so far.
    now: u64,
    /// The last turn that started a task.
    used: u64,
    /// With the last turn that the worker had heard of when it gave the task.
    waiting: VecDeque<(u64, Box<Job>)>,
}

impl Turns {
    /// Takes a task from the worker, which had heard of the turns up to `after`. Given back: a
    /// later turn has found nothing to start, so the task starts now.
    pub(super) fn arrived(&self, after: u64, job: Box<Job>) -> Option<Box<Job>> {
        let mut state = self.lock();
        let next = state.used.max(after) + 1;
        if state.waiting.is_empty() && next <= state.now {
            state.used = next;
            return Some(job);
        }
        state.waiting.push_back((after, job));
        None
    }

    /// Tells the worker of a turn; the task that starts by it.
    pub(super) fn turn(&self, outbox: &Outbox, message: &FromExecutor) -> Option<Box<Job>> {
        let mut state = self.lock();
        outbox.send(message);
        state.now += 1;
        let (after, job) = state.waiting.pop_front()?;
        state.used = state.used.max(after) + 1;
        Some(job)
    }

    /// Forgets what waits, and says so.
    fn recall(&self, outbox: &Outbox) -> VecDeque<(u64, Box<Job>)> {
        let mut state = self.lock();
        outbox.send(&FromExecutor::Recalled);
        std::mem::take(&mut state.waiting)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    /// The worker wants back what has not started.
    pub(super) fn recall(&self) {
        for (_, job) in self.turns.recall(&self.outbox) {
            self.forget(&job);
        }
    }

    /// A task waits for objects: the next one runs meanwhile, on another thread.
    pub(super) fn turn_of_blocked(&'static self, message: &FromExecutor) {
        if let Some(next) = self.turns.turn(&self.outbox, message) {
            self.slots.push(Work::Task(next));
            self.slots.call_threads(self);
        }
    }

    /// Tells the worker of the end of a task; the one that is next runs on this thread, as soon
    /// as the worker can know of it: what had not started is started again if this process dies.
    pub(super) fn turn_of_ended(&'static self, message: &FromExecutor) -> Option<Box<Job>> {
        let next = self.turns.turn(&self.outbox, message)?;
        self.wait_until_behind(0);
        Some(next)
    }
}

//! Tries of a task: how long one may take, and whether another one follows.
//!
//! A try can end in five ways that begin another one, each with a count of its own. A *loss* of
//! its executor or its worker counts against the task's `max_retries`; an *error* that its
//! predicate accepts, a try that *ran over* its time limit, and a process that *ran out of memory*
//! against the numbers of its [`Policy`](crate::spec::Policy), after a pause. A try whose process
//! was killed to end another task beside it counts against nothing, nor does a call that found its
//! actor gone from where it lived, and never ran. The owner counts; where a task
//! runs, its time is watched.
//!
//! A task that runs over its limit is asked to end, as if it were cancelled, and its children are.
//! If it still runs after [`LocalConfig::stop_grace`](super::LocalConfig), its process is killed.
//! Whatever it returns after the limit is dropped.
//!
//! Invariant: TM-1 a timer is set exactly where its task says so.

use core::time::Duration;
use std::collections::BTreeSet;

use super::submit::only_worker;
use super::{LocalAction, LocalCore};
use crate::actor::ActorState;
use crate::id::ActorId;
use crate::message::CancelMode;
use crate::outcome::{Cause, Death, Outcome, TaskError};
use crate::spec::{Backoff, TaskKind};
use crate::task::{TaskKey, TaskState};
use crate::time::Timestamp;

/// The shortest first pause after a want of memory: others have to end to make room.
const MEMORY_PAUSE: Duration = Duration::from_secs(1);

/// Times at which something is due for a task: the end of its limit or pause.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Timestamp, TaskKey)>);

impl Timers {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn due(&self) -> Option<Timestamp> {
        self.0.first().map(|&(due, ..)| due)
    }
}

/// Why a try is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Loss,
    Beside,
    Missed,
    Memory,
    Timeout,
    Error,
}

impl LocalCore {
    /// Starts the next attempt of an own task whose last one ended in that way, if it may.
    pub(super) fn runs_again(
        &mut self,
        key: TaskKey,
        error: &TaskError,
        is_retryable: bool,
    ) -> bool {
        let entry = &self.tasks[key];
        let spec = &entry.spec;
        let Some(kind) = kind(&spec.kind, &error.cause, is_retryable) else { return false };
        if error.task != spec.id || entry.cancelled {
            return false;
        }
        if only_worker(spec).is_some_and(|worker| self.is_dead(worker)) {
            return false;
        }
        if let TaskKind::ActorCall { .. } = spec.kind {
            self.life_is_over(key);
        }
        let Some(pause) = self.count(key, kind) else { return false };
        self.stop_timer(key);
        let entry = &mut self.tasks[key];
        entry.attempt += 1;
        entry.assigned = false;
        if let Some(extra) = &mut entry.extra {
            (extra.promised, extra.leased) = (false, false);
        }
        self.leave_bundle(key);
        if pause.is_zero() {
            self.begin(key);
        } else {
            self.back_off(key, pause);
        }
        true
    }

    /// Counts the try that ended; the pause before the next one, unless there is none.
    fn count(&mut self, key: TaskKey, kind: Kind) -> Option<Duration> {
        let entry = &mut self.tasks[key];
        let spec = &entry.spec;
        let (id, backoff) = (spec.id, spec.policy().backoff);
        if kind == Kind::Loss {
            let most = match &spec.kind {
                TaskKind::ActorCreate(options) => options.max_restarts.max(spec.max_retries),
                _ => spec.max_retries,
            };
            return (entry.tries().losses() < most).then_some(Duration::ZERO);
        }
        let policy = spec.policy();
        let most = match kind {
            Kind::Error => policy.error_retries,
            Kind::Timeout => policy.timeout_retries,
            Kind::Memory => policy.memory_retries,
            Kind::Loss | Kind::Beside | Kind::Missed => u32::MAX,
        };
        let extra = entry.extra();
        let before = match kind {
            Kind::Error => &mut extra.errors,
            Kind::Timeout => &mut extra.timeouts,
            Kind::Memory => &mut extra.memory,
            Kind::Loss | Kind::Beside | Kind::Missed => &mut 0,
        };
        if *before >= most {
            return None;
        }
        *before += 1;
        let again = *before;
        extra.spared += 1;
        extra.timed_out = false;
        Some(match kind {
            Kind::Loss | Kind::Beside | Kind::Missed => Duration::ZERO,
            Kind::Error | Kind::Timeout => backoff.pause(id, again),
            Kind::Memory => {
                let first = backoff.first.max(MEMORY_PAUSE);
                Backoff { first, most: backoff.most.max(first) }.pause(id, again)
            }
        })
    }

    /// A call was lost with a life of its actor: the next try waits for a later one.
    fn life_is_over(&mut self, key: TaskKey) {
        let TaskKind::ActorCall { actor, .. } = self.tasks[key].spec.kind else { return };
        let TaskState::Called { life, .. } = self.tasks[key].state else { return };
        self.past_life(actor, life);
    }

    /// Calls are for a later life of an actor than this one.
    pub(super) fn past_life(&mut self, actor: ActorId, life: u32) {
        if let Some(entry) = self.actors.get_mut(&actor) {
            entry.floor = entry.floor.max(life.saturating_add(1));
            // Its supervisor makes it again when it hears that it is lost, from where it is now.
            let is_over = matches!(entry.place, ActorState::At { life: at, .. } if at <= life);
            if is_over && entry.supervised.is_none() {
                entry.place = ActorState::Pending;
            }
        }
    }

    fn back_off(&mut self, key: TaskKey, pause: Duration) {
        let until = self.now + pause;
        self.tasks.restamp(key);
        self.tasks[key].state = TaskState::BackingOff { until };
        self.set_timer(key, until);
    }

    /// A task with a policy starts here.
    pub(super) fn limit_time(&mut self, key: TaskKey) {
        let spec = &self.tasks[key].spec;
        if let (TaskKind::Plain, Some(limit)) = (&spec.kind, spec.policy().timeout) {
            self.set_timer(key, self.now + limit);
        }
    }

    pub(super) fn set_timer(&mut self, key: TaskKey, due: Timestamp) {
        self.stop_timer(key);
        self.tasks[key].extra().due = Some(due);
        self.timers.0.insert((due, key));
    }

    /// Stops a task's timer: it goes, or waits for something else.
    pub(super) fn stop_timer(&mut self, key: TaskKey) {
        let entry = &mut self.tasks[key];
        if let Some(due) = entry.extra.as_mut().and_then(|extra| extra.due.take()) {
            self.timers.0.remove(&(due, key));
        }
    }

    /// Does what is due.
    pub(super) fn strike_timers(&mut self) {
        while let Some(&(due, key)) = self.timers.0.first()
            && due <= self.now
        {
            self.stop_timer(key);
            match self.tasks[key].state {
                TaskState::BackingOff { .. } => self.begin(key),
                TaskState::Running { .. } => self.over_time(key),
                TaskState::Placed { .. } | TaskState::Called { .. } => self.cancel_again(key),
                _ => {}
            }
        }
    }

    /// A task has run for as long as it may.
    fn over_time(&mut self, key: TaskKey) {
        let entry = &mut self.tasks[key];
        let TaskState::Running { executor, .. } = entry.state else { return };
        let task = entry.spec.id;
        if core::mem::replace(&mut entry.extra().timed_out, true) {
            return self.kill_under(task, executor);
        }
        self.set_timer(key, self.now + self.config.stop_grace);
        self.act(LocalAction::Cancel { executor, task });
        self.cancel_children(task, CancelMode { force: false, children: true });
    }

    /// What counts as the end of a try, whatever its executor says.
    pub(super) fn ruled(&mut self, key: TaskKey, outcome: Outcome) -> Outcome {
        let entry = &self.tasks[key];
        let task = entry.spec.id;
        if entry.has_timed_out() && !entry.cancelled {
            self.discard_values(task, &outcome);
            return Outcome::Failed(TaskError { task, cause: self.timed_out(key) });
        }
        match outcome {
            Outcome::Retryable(error) if !matches!(entry.spec.kind, TaskKind::Plain) => {
                Outcome::Failed(error)
            }
            Outcome::Streamed(_) if entry.spec.stream().is_none() => {
                let reason = "it yielded values, and was to return some".to_owned();
                Outcome::Failed(TaskError { task, cause: Cause::Refused { reason } })
            }
            outcome => outcome,
        }
    }

    /// What an end means to the owner: a try that says it yielded more than has come was lost.
    pub(super) fn complete(&self, key: TaskKey, outcome: Outcome) -> Outcome {
        let task = self.tasks[key].spec.id;
        match outcome {
            Outcome::Streamed(count) if self.misses_items(task, count) => {
                let reason = "items of its stream were lost on their way".to_owned();
                Outcome::Failed(TaskError { task, cause: Cause::WorkerDied { reason } })
            }
            outcome => outcome,
        }
    }

    pub(super) fn timed_out(&self, key: TaskKey) -> Cause {
        Cause::TimedOut { limit: self.tasks[key].spec.policy().timeout.unwrap_or_default() }
    }
}

/// Whether the system, not the task, is to blame.
pub(super) fn is_loss(cause: &Cause) -> bool {
    match cause {
        Cause::WorkerDied { .. } => true,
        Cause::ExecutorDied(death) | Cause::ActorDied(death) => !death.is_wanted(),
        _ => false,
    }
}

/// Why another try may follow; `None`: none does.
fn kind(of: &TaskKind, cause: &Cause, is_retryable: bool) -> Option<Kind> {
    let is_plain = matches!(of, TaskKind::Plain);
    match cause {
        _ if is_retryable => Some(Kind::Error),
        Cause::TimedOut { .. } => Some(Kind::Timeout),
        Cause::ExecutorDied(Death::Beside { .. }) if is_plain => Some(Kind::Beside),
        Cause::ExecutorDied(Death::OutOfMemory { .. }) if is_plain => Some(Kind::Memory),
        Cause::ActorDied(Death::Moved) => Some(Kind::Missed),
        cause => is_loss(cause).then_some(Kind::Loss),
    }
}

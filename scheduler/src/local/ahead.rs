//! Short tasks are given to an executor ahead of their turn, so that it goes from one to the next
//! without asking this worker in between: a round trip costs more than the task.
//!
//! They hold nothing. Whenever a task that takes turns ([`TaskSpec::takes_turns`]) ends or blocks
//! in an executor, that is a *turn*: the executor starts the first of the tasks that wait there,
//! which takes over the CPU of the one before, and this worker, when it hears of the end, counts
//! the same. Both sides number the turns. A task that is given ahead carries the number of the last
//! turn that was heard of (`after`); a turn that is later found nothing to start, so that the
//! task may start at once. In the executor, a task thus belongs to the first turn that is later
//! than `after` and than the turn of the task before it; here, the next turn that is heard of
//! belongs to the first task that was given. These are the same pairs, whatever is under way.
//!
//! ```text
//! Ready --1--> Ahead --2--> Running        1 only where the function's runs have been short,
//!   ^            |                           and the task would be the next one anyway
//!   +-----3------+                         2 a turn
//! ```
//! 3 the executor died, or was asked to give back what it has not started, because there was no
//! turn for [`STALL`]: what was short before may be long now.
//!
//! A task that goes on after it was blocked may have no CPU of its own; turns pass that debt on, so
//! nothing more is given ahead until the tasks there have run and it is paid.
//!
//! Invariants: TG-5 an entry is `Ahead` exactly where its executor lists it. TG-6 an executor with
//! tasks ahead runs one that takes turns and is not blocked.

use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use super::{LocalAction, LocalCore};
use crate::hash::FastMap;
use crate::id::{ExecutorId, JobId, TaskId};
use crate::outcome::{Cause, TaskError};
use crate::resource::Amount;
use crate::task::{Ready, TaskKey, TaskState};
use crate::time::Timestamp;

/// Most work that is given ahead to an executor.
const MOST_WORK: Duration = Duration::from_millis(6);
/// Most tasks of it.
const MOST_TASKS: u64 = 64;
/// Without a turn for that long, what waits in an executor is taken back.
const STALL: Duration = Duration::from_millis(5);

/// What an executor was given ahead.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// In the order of their start.
    pub(super) tasks: VecDeque<TaskKey>,
    /// Turns that were heard of.
    turns: u64,
    /// Tasks that take turns, run there and are not blocked.
    pub(super) lanes: u32,
    last_turn: Timestamp,
    /// A look at the last turn is due at some time.
    watched: bool,
    /// It was asked for what it has not started, and has not answered.
    recalling: bool,
}

/// How long runs of each function take.
#[derive(Debug, Default)]
pub(super) struct Paces {
    /// Nanoseconds, averaged with a weight of 1/8 for the last.
    runs: FastMap<(JobId, u64), u64>,
    /// Executors with tasks ahead, by the time of the next look.
    watches: VecDeque<(Timestamp, ExecutorId)>,
}

impl Paces {
    fn learn(&mut self, function: (JobId, u64), run: Duration) {
        let run = u64::try_from(run.as_nanos()).unwrap_or(u64::MAX);
        let average = self.runs.entry(function).or_insert(run);
        *average = *average - *average / 8 + run / 8;
    }

    /// How many runs may be given ahead.
    fn most_ahead(&self, function: (JobId, u64), short: Duration) -> u64 {
        match self.runs.get(&function) {
            Some(&run) if u128::from(run) < short.as_nanos() => {
                (MOST_WORK.as_nanos() as u64 / run.max(1)).min(MOST_TASKS)
            }
            _ => 0,
        }
    }

    pub(super) fn forget_job(&mut self, job: JobId) {
        self.runs.retain(|(of, _), _| *of != job);
    }

    pub(super) fn due(&self) -> Option<Timestamp> {
        self.watches.front().map(|&(due, _)| due)
    }
}

impl LocalCore {
    /// Gives ahead what would be next, as long as it is short.
    pub(super) fn run_ahead(&mut self) {
        while self.ledger.available.cpu >= Amount::ZERO {
            let tasks = &self.tasks;
            let is_current = |ready: Ready| tasks.current(ready.key, ready.stamp).is_some();
            let (shares, total) = (&self.shares, &self.ledger.total);
            let share = |job| shares.of(job, total);
            let Some(ready) = self.queue.first(share, is_current) else { return };
            let entry = &self.tasks[ready.key];
            let (id, function) = (entry.spec.id, entry.spec.function);
            if !entry.spec.takes_turns() || self.tasks.has_rival(ready.key) {
                return;
            }
            let Some(&executor) = self.pools.get(&id.job()) else { return };
            let most = self.paces.most_ahead((id.job(), function), self.config.short_runs);
            let Some(process) = self.executors.get_mut(&executor) else { return };
            let ahead = &mut process.ahead;
            if process.phase != super::executors::Phase::Up
                || ahead.recalling
                || ahead.lanes == 0
                || ahead.tasks.len() as u64 >= most
            {
                return;
            }
            ahead.tasks.push_back(ready.key);
            let after = ahead.turns;
            if !core::mem::replace(&mut ahead.watched, true) {
                ahead.last_turn = self.now;
                self.paces.watches.push_back((self.now + STALL, executor));
            }
            self.leave_queue(ready.key);
            self.shares.serve(id.job());
            self.tasks.restamp(ready.key);
            let entry = &mut self.tasks[ready.key];
            entry.state = TaskState::Ahead { executor, force: false };
            let (spec, attempt) = (Arc::clone(&entry.spec), entry.attempt);
            self.act(LocalAction::RunAhead { executor, spec, attempt, after });
        }
    }

    /// A task that takes turns starts, or goes on, in `executor`.
    pub(super) fn opens_lane(&mut self, executor: ExecutorId) {
        if let Some(process) = self.executors.get_mut(&executor) {
            process.ahead.lanes += 1;
        }
    }

    /// A task that takes turns has ended or blocks in `executor`. True: the next one that waits
    /// there has taken over its CPU.
    pub(super) fn turn(&mut self, executor: ExecutorId) -> bool {
        let now = self.now;
        let Some(process) = self.executors.get_mut(&executor) else { return false };
        let ahead = &mut process.ahead;
        ahead.turns += 1;
        ahead.last_turn = now;
        let Some(next) = ahead.tasks.pop_front() else {
            ahead.lanes -= 1;
            return false;
        };
        // More before the last one has started, and several at a time.
        self.dispatch_due |= ahead.tasks.len() as u64 <= MOST_TASKS / 2;
        let TaskState::Ahead { force, .. } = self.tasks[next].state else {
            unreachable!("TG-5: an executor lists tasks that are ahead");
        };
        self.list_running(next, executor);
        if force {
            let task = self.tasks[next].spec.id;
            self.kill_under(task, executor);
        }
        true
    }

    /// A run has ended: what it says about the next ones.
    pub(super) fn learn_pace(&mut self, task: TaskId, function: u64, since: Timestamp) {
        self.paces.learn((task.job(), function), self.now - since);
    }

    /// Looks for executors in which no turn has come for long.
    pub(super) fn recall_stalled(&mut self) {
        while let Some(&(due, executor)) = self.paces.watches.front()
            && due <= self.now
        {
            self.paces.watches.pop_front();
            let Some(process) = self.executors.get_mut(&executor) else { continue };
            let ahead = &mut process.ahead;
            if ahead.tasks.is_empty() {
                ahead.watched = false;
                continue;
            }
            self.paces.watches.push_back((self.now + STALL, executor));
            if self.now - ahead.last_turn < STALL || ahead.recalling {
                continue;
            }
            ahead.recalling = true;
            // They are long, though they have not ended yet.
            for key in &process.running {
                let entry = &self.tasks[*key];
                if entry.takes_turns()
                    && let TaskState::Running { since, .. } = entry.state
                {
                    let function = (entry.spec.id.job(), entry.spec.function);
                    self.paces.learn(function, 8 * (self.now - since));
                }
            }
            self.act(LocalAction::Recall { executor });
        }
    }

    /// The executor has forgotten what it had not started.
    pub(super) fn recalled(&mut self, executor: ExecutorId) {
        if !self.listens(executor) {
            return;
        }
        let Some(process) = self.executors.get_mut(&executor) else { return };
        process.ahead.recalling = false;
        let tasks = core::mem::take(&mut process.ahead.tasks);
        self.queue_again(tasks);
    }

    /// Tasks that were given ahead have not started, and will not.
    pub(super) fn queue_again(&mut self, tasks: VecDeque<TaskKey>) {
        for key in tasks {
            let entry = &self.tasks[key];
            if entry.cancelled {
                let error = TaskError { task: entry.spec.id, cause: Cause::Cancelled };
                self.tasks[key].state = TaskState::Waiting { here: true };
                self.fail(key, error);
            } else {
                self.enqueue(key);
            }
        }
    }
}

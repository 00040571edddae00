//! Tasks are cancelled: where they queue, where they run, and what they have submitted.
//!
//! Whoever refers to a result may ask its owner. What has not started fails at once. What runs is
//! asked to end, and may still return what it has; by force its process is killed, and what ran
//! beside it runs again without being counted. A call of an actor is never ended by force: that
//! would end the actor. Children are the tasks and calls that a running task has submitted so far;
//! they are owned where it runs.
//!
//! A `Cancel` may be on its way for long, and its task may have ended, been forgotten, and been
//! submitted again meanwhile, for a parent that runs again. So each is answered, and until it is, a
//! task of that name begins with a try that it cannot mean ([`Unanswered`]).

use core::time::Duration;

use smallvec::SmallVec;

use super::{LocalAction, LocalCore};
use crate::hash::{FastSet, IdMap};
use crate::id::{ExecutorId, JobId, TaskId, WorkerId};
use crate::message::{CancelMode, PeerMessage};
use crate::outcome::{Cause, TaskError};
use crate::spec::TaskKind;
use crate::task::{TaskKey, TaskState};

/// After that time a worker that does not have a task yet is told again to cancel it.
const TELL_AGAIN: Duration = Duration::from_millis(5);

/// `Cancel`s of own tasks that other workers have not answered.
#[derive(Debug, Default)]
pub(super) struct Unanswered(IdMap<TaskId, SmallVec<[Told; 1]>>);

#[derive(Debug)]
struct Told {
    worker: WorkerId,
    attempt: u32,
    times: u32,
}

impl Unanswered {
    /// That worker is told to end a try.
    fn tell(&mut self, task: TaskId, attempt: u32, worker: WorkerId) {
        let told = self.0.entry(task).or_default();
        match told.iter_mut().find(|told| told.worker == worker && told.attempt == attempt) {
            Some(told) => told.times += 1,
            None => told.push(Told { worker, attempt, times: 1 }),
        }
    }

    /// It has answered.
    fn answered(&mut self, task: TaskId, attempt: u32, worker: WorkerId) {
        let Some(all) = self.0.get_mut(&task) else { return };
        if let Some(told) = all.iter_mut().find(|t| t.worker == worker && t.attempt == attempt) {
            told.times -= 1;
            all.retain(|told| told.times > 0);
            if all.is_empty() {
                self.0.remove(&task);
            }
        }
    }

    /// The newest try of a task that a `Cancel` under way may end.
    pub(super) fn newest(&self, task: TaskId) -> Option<u32> {
        self.0.get(&task)?.iter().map(|told| told.attempt).max()
    }

    pub(super) fn forget_job(&mut self, job: JobId) {
        self.0.retain(|task, _| task.job() != job);
    }

    /// It will answer nothing.
    pub(super) fn forget_worker(&mut self, worker: WorkerId) {
        self.0.retain(|_, all| {
            all.retain(|told| told.worker != worker);
            !all.is_empty()
        });
    }
}

impl LocalCore {
    /// A program here wants a task of `owner` ended.
    pub(super) fn cancel_requested(&mut self, task: TaskId, owner: WorkerId, mode: CancelMode) {
        if owner != self.me {
            return self.send(owner, PeerMessage::CancelRequested { task, mode });
        }
        if let Some(key) = self.tasks.find(task, self.me) {
            self.cancel(key, mode);
        }
    }

    /// The owner of a task that is here, or on its way, wants it ended.
    pub(super) fn peer_cancels(
        &mut self,
        from: WorkerId,
        task: TaskId,
        attempt: u32,
        mode: CancelMode,
    ) {
        let key = self.tasks.find(task, from);
        // Else it comes from the head, over another link; or its end is on its way.
        let found = key.is_some();
        self.send(from, PeerMessage::CancelHeard { task, attempt, mode, found });
        if let Some(key) = key.filter(|key| self.tasks[*key].attempt <= attempt) {
            self.cancel(key, mode);
        }
    }

    /// A worker was told to cancel a task of this one. If it did not have it, then what ended there
    /// has been said before; else the task is still under way, and the worker is told again.
    pub(super) fn cancel_heard(
        &mut self,
        from: WorkerId,
        (task, attempt): (TaskId, u32),
        mode: CancelMode,
        found: bool,
    ) {
        self.unanswered.answered(task, attempt, from);
        if found {
            return;
        }
        let Some(key) = self.tasks.find(task, self.me) else { return };
        let entry = &mut self.tasks[key];
        let is_there = matches!(entry.state,
            TaskState::Placed { worker } | TaskState::Called { worker, .. } if worker == from);
        if is_there && entry.attempt == attempt && entry.cancelled {
            entry.extra().cancel = mode;
            self.set_timer(key, self.now + TELL_AGAIN);
        }
    }

    /// A worker is told again to cancel a task.
    pub(super) fn cancel_again(&mut self, key: TaskKey) {
        let mode = self.tasks[key].extra().cancel;
        self.cancel_alone(key, mode);
    }

    pub(super) fn cancel(&mut self, key: TaskKey, mode: CancelMode) {
        let mut open = vec![(key, self.tasks[key].stamp)];
        // Who a task's parent is, its program says: they may well go round in a circle.
        let mut parents = FastSet::default();
        while let Some((key, stamp)) = open.pop() {
            let Some(entry) = self.tasks.current(key, stamp) else { continue };
            let is_running = matches!(entry.state, TaskState::Running { .. });
            if mode.children && is_running && parents.insert(entry.spec.id) {
                open.extend(self.children_of(entry.spec.id));
            }
            self.cancel_alone(key, mode);
        }
    }

    /// Cancels what a task that runs here has submitted.
    pub(super) fn cancel_children(&mut self, parent: TaskId, mode: CancelMode) {
        for (key, stamp) in self.children_of(parent) {
            if self.tasks.current(key, stamp).is_some() {
                self.cancel(key, mode);
            }
        }
    }

    /// The last one first. Looks at every task: the price is paid by those who cancel.
    fn children_of(&self, parent: TaskId) -> Vec<(TaskKey, u64)> {
        let mut children: Vec<(u64, TaskKey, u64)> = self
            .tasks
            .iter()
            .filter(|(_, entry)| entry.spec.parent == parent && entry.owner == self.me)
            .filter(|(_, entry)| {
                matches!(entry.spec.kind, TaskKind::Plain | TaskKind::ActorCall { .. })
            })
            .map(|(key, entry)| (entry.order, key, entry.stamp))
            .collect();
        children.sort_unstable_by_key(|&(order, ..)| core::cmp::Reverse(order));
        children.into_iter().map(|(_, key, stamp)| (key, stamp)).collect()
    }

    fn cancel_alone(&mut self, key: TaskKey, mode: CancelMode) {
        let me = self.me;
        let entry = &mut self.tasks[key];
        let (task, attempt) = (entry.spec.id, entry.attempt);
        match entry.state {
            TaskState::Running { executor, .. } => {
                entry.cancelled = true;
                if mode.force && !entry.is_call() {
                    self.kill_under(task, executor);
                } else {
                    self.act(LocalAction::Cancel { executor, task });
                }
            }
            TaskState::Ahead { executor, .. } => {
                // Before it starts, as a rule; else its executor's next turn tells.
                entry.cancelled = true;
                entry.state = TaskState::Ahead { executor, force: mode.force };
                self.act(LocalAction::Cancel { executor, task });
            }
            TaskState::Placed { worker } | TaskState::Called { worker, .. } => {
                entry.cancelled = true;
                if worker != me {
                    // A call goes over the same link, and cannot be overtaken.
                    if !entry.is_call() {
                        self.unanswered.tell(task, attempt, worker);
                    }
                    self.send(worker, PeerMessage::Cancel { task, attempt, mode });
                }
            }
            _ => self.fail(key, TaskError { task, cause: Cause::Cancelled }),
        }
    }

    /// Ends a process for the sake of a task that runs in it.
    pub(super) fn kill_under(&mut self, task: TaskId, executor: ExecutorId) {
        if let Some(process) = self.executors.get_mut(&executor) {
            process.killed_for.get_or_insert(task);
        }
        self.stop_executor(executor, true);
    }
}

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
//!
//! The head may place a task that was cancelled, and so forgotten, while it waited there. Where it
//! goes a `Cancel` may be heard before the task is, over another link: it is said again, with
//! pauses that grow, until the task is found there, or has ended, or has had time enough to come.

use core::time::Duration;

use smallvec::SmallVec;

use super::{LocalAction, LocalCore};
use crate::hash::{FastSet, IdMap};
use crate::id::{ExecutorId, JobId, TaskId, WorkerId};
use crate::message::{CancelMode, PeerMessage};
use crate::outcome::{Cause, TaskError};
use crate::spec::TaskKind;
use crate::task::{TaskKey, TaskState};
use crate::time::Timestamp;

/// After that time a worker that does not have a task yet is told again to cancel it.
const TELL_AGAIN: Duration = Duration::from_millis(5);
/// The longest pause between two `Cancel`s of a task that is forgotten here: it does not come.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// `Cancel`s of own tasks that other workers have not answered.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    open: IdMap<TaskId, SmallVec<[Told; 1]>>,
    /// Tasks that are forgotten here, and on their way to another worker.
    strays: IdMap<TaskId, Stray>,
}

#[derive(Debug)]
struct Stray {
    worker: WorkerId,
    attempt: u32,
    /// When the worker is told again; `None`: it has not answered.
    due: Option<Timestamp>,
    pause: Duration,
}

#[derive(Debug)]
struct Told {
    worker: WorkerId,
    attempt: u32,
    times: u32,
}

impl Unanswered {
    /// That worker is told to end a try.
    fn tell(&mut self, task: TaskId, attempt: u32, worker: WorkerId) {
        let told = self.open.entry(task).or_default();
        match told.iter_mut().find(|told| told.worker == worker && told.attempt == attempt) {
            Some(told) => told.times += 1,
            None => told.push(Told { worker, attempt, times: 1 }),
        }
    }

    /// It has answered.
    fn answered(&mut self, task: TaskId, attempt: u32, worker: WorkerId) {
        let Some(all) = self.open.get_mut(&task) else { return };
        if let Some(told) = all.iter_mut().find(|t| t.worker == worker && t.attempt == attempt) {
            told.times -= 1;
            all.retain(|told| told.times > 0);
            if all.is_empty() {
                self.open.remove(&task);
            }
        }
    }

    /// The newest try of a task that a `Cancel` under way may end.
    pub(super) fn newest(&self, task: TaskId) -> Option<u32> {
        let open = self.open.get(&task).into_iter().flatten().map(|told| told.attempt);
        open.chain(self.strays.get(&task).map(|stray| stray.attempt)).max()
    }

    pub(super) fn forget_job(&mut self, job: JobId) {
        self.open.retain(|task, _| task.job() != job);
        self.strays.retain(|task, _| task.job() != job);
    }

    /// When a worker is told again to cancel a task that is forgotten here.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.strays.values().filter_map(|stray| stray.due).min()
    }

    /// A task that is forgotten here has ended there.
    pub(super) fn ended(&mut self, task: TaskId, attempt: u32, worker: WorkerId) {
        if self.stray(task, attempt, worker).is_some() {
            self.strays.remove(&task);
        }
    }

    /// It has not come there.
    fn is_not_there(&mut self, now: Timestamp, (task, attempt): (TaskId, u32), worker: WorkerId) {
        let Some(stray) = self.stray(task, attempt, worker) else { return };
        stray.due = Some(now + stray.pause);
        stray.pause = 2 * stray.pause;
        if stray.pause > LONGEST_PAUSE {
            self.strays.remove(&task);
        }
    }

    fn stray(&mut self, task: TaskId, attempt: u32, worker: WorkerId) -> Option<&mut Stray> {
        let stray = self.strays.get_mut(&task)?;
        ((stray.attempt, stray.worker) == (attempt, worker)).then_some(stray)
    }

    /// It will answer nothing.
    pub(super) fn forget_worker(&mut self, worker: WorkerId) {
        self.strays.retain(|_, stray| stray.worker != worker);
        self.open.retain(|_, all| {
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
            return self.unanswered.ended(task, attempt, from);
        }
        self.unanswered.is_not_there(self.now, (task, attempt), from);
        let Some(key) = self.tasks.find(task, self.me) else { return };
        let entry = &mut self.tasks[key];
        let is_there = matches!(entry.state,
            TaskState::Placed { worker } | TaskState::Called { worker, .. } if worker == from);
        if is_there && entry.attempt == attempt && entry.cancelled {
            entry.extra().cancel = mode;
            self.set_timer(key, self.now + TELL_AGAIN);
        }
    }

    /// A task that was cancelled, and is forgotten, has been placed on a worker.
    pub(super) fn cancel_stray(&mut self, task: TaskId, attempt: u32, worker: WorkerId) {
        let stray = Stray { worker, attempt, due: None, pause: TELL_AGAIN };
        self.unanswered.strays.insert(task, stray);
        self.tell_stray(task, attempt, worker);
    }

    fn tell_stray(&mut self, task: TaskId, attempt: u32, worker: WorkerId) {
        self.unanswered.tell(task, attempt, worker);
        let mode = CancelMode { force: false, children: true };
        self.send(worker, PeerMessage::Cancel { task, attempt, mode });
    }

    /// Tells those again that may have the tasks by now.
    pub(super) fn cancel_strays(&mut self) {
        let now = self.now;
        let due = |stray: &mut Stray| stray.due.take_if(|due| *due <= now).is_some();
        let strays = self.unanswered.strays.iter_mut();
        let due = strays
            .filter_map(|(task, stray)| due(stray).then_some((*task, stray.attempt, stray.worker)));
        let mut due: Vec<(TaskId, u32, WorkerId)> = due.collect();
        due.sort_unstable();
        for (task, attempt, worker) in due {
            self.tell_stray(task, attempt, worker);
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
            if let Some(extra) = &mut self.tasks[key].extra {
                extra.again = false;
            }
            let entry = &self.tasks[key];
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

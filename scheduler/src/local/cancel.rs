//! Tasks are cancelled: where they queue, where they run, and what they have submitted.
//!
//! Whoever refers to a result may ask its owner. What has not started fails at once. What runs is
//! asked to end, and may still return what it has; by force its process is killed, and what ran
//! beside it runs again without being counted. A call of an actor is never ended by force: that
//! would end the actor. Children are the tasks and calls that a running task has submitted so far;
//! they are owned where it runs.

use super::{LocalAction, LocalCore};
use crate::id::{ExecutorId, TaskId, WorkerId};
use crate::message::{CancelMode, PeerMessage};
use crate::outcome::{Cause, TaskError};
use crate::spec::TaskKind;
use crate::task::{TaskKey, TaskState};

/// Cancellations that came before their tasks and are kept, for each worker.
const MAX_EARLY: usize = 4_096;

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
        if let Some(key) = self.tasks.find(task, from) {
            if self.tasks[key].attempt <= attempt {
                self.cancel(key, mode);
            }
            return;
        }
        // The assignment comes from the head, over another link.
        let early = &mut self.peer(from).cancelled_early;
        if early.len() >= MAX_EARLY {
            early.clear();
        }
        early.insert((task, attempt));
    }

    /// Fails a task that has just come, if its end was asked for before.
    pub(super) fn was_cancelled_early(&mut self, key: TaskKey) -> bool {
        let entry = &self.tasks[key];
        let (task, attempt, owner) = (entry.spec.id, entry.attempt, entry.owner);
        let Some(peer) = self.peers.get_mut(&owner) else { return false };
        if peer.cancelled_early.is_empty() || !peer.cancelled_early.remove(&(task, attempt)) {
            return false;
        }
        self.fail(key, TaskError { task, cause: Cause::Cancelled });
        true
    }

    fn cancel(&mut self, key: TaskKey, mode: CancelMode) {
        let mut open = vec![(key, self.tasks[key].stamp)];
        while let Some((key, stamp)) = open.pop() {
            let Some(entry) = self.tasks.current(key, stamp) else { continue };
            if mode.children && matches!(entry.state, TaskState::Running { .. }) {
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

//! Assigned tasks that have not started: what the head counts for them.
//!
//! The head sends a task when its arguments exist. They may be lost before it has them here, and
//! be made again by tasks that need the room, or the quota, that is meant for this one; or another
//! owner's try of the same task is under way here, and waits for tasks that need it. So what has
//! waited for long gives back what the head counts for it, as a task that is blocked does, until
//! it can start.

use core::time::Duration;

use super::LocalCore;
use crate::hash::FastMap;
use crate::id::{TaskId, WorkerId};
use crate::message::ToHead;
use crate::resource::Resources;
use crate::task::{TaskKey, TaskState};
use crate::time::Timestamp;

/// How long a task that is assigned may wait for its arguments and keep its room.
const PATIENCE: Duration = Duration::from_millis(500);

/// Assigned tasks that may not have started yet, by task and owner.
#[derive(Debug, Default)]
pub(super) struct Unstarted {
    tasks: FastMap<(TaskId, WorkerId), Since>,
    /// When the patience with one of them ends.
    due: Option<Timestamp>,
}

#[derive(Debug)]
struct Since {
    at: Timestamp,
    /// The head was told that it waits.
    late: bool,
}

impl Unstarted {
    pub(super) fn insert(&mut self, task: TaskId, owner: WorkerId, at: Timestamp) {
        self.tasks.insert((task, owner), Since { at, late: false });
    }

    pub(super) fn due(&self) -> Option<Timestamp> {
        self.due
    }

    /// Whether the patience with a task has ended since it was asked last.
    pub(super) fn is_due(&mut self, now: Timestamp) -> bool {
        self.due.take_if(|due| *due <= now).is_some()
    }

    /// A fresh head has heard of none that is late.
    pub(super) fn untold(&mut self) {
        self.tasks.values_mut().for_each(|since| since.late = false);
    }
}

impl LocalCore {
    /// What is free, less what assigned tasks that have not started yet will take.
    pub(super) fn available_to_head(&mut self) -> Resources {
        let mut available = self.ledger.available.clone();
        let (mut late, mut due) = (Vec::new(), None);
        let (tasks, now) = (&self.tasks, self.now);
        self.head.unstarted.tasks.retain(|(task, owner), since| {
            let Some(key) = tasks.find(*task, *owner).filter(|key| tasks[*key].assigned) else {
                return false;
            };
            match tasks[key].state {
                TaskState::Waiting { .. } if now >= since.at + PATIENCE => {
                    if !core::mem::replace(&mut since.late, true) {
                        late.push(key);
                    }
                }
                TaskState::Waiting { .. } => {
                    due = due.into_iter().chain([since.at + PATIENCE]).min();
                    available.subtract(&tasks[key].spec.request);
                }
                TaskState::Ready { .. } => available.subtract(&tasks[key].spec.request),
                _ => return false,
            }
            true
        });
        self.head.unstarted.due = due;
        late.sort_unstable_by_key(|key| self.tasks[*key].order);
        for key in late {
            self.report_late(key, true);
        }
        available
    }

    /// Whatever its job: a worker may not have heard of the quota before it runs something of it.
    fn report_late(&mut self, key: TaskKey, blocked: bool) {
        let entry = &self.tasks[key];
        let (task, attempt) = (entry.spec.id, entry.attempt);
        self.send_head(ToHead::Blocked { task, attempt, blocked });
    }

    /// An assigned task has what it waited for.
    pub(super) fn waits_no_longer(&mut self, key: TaskKey) {
        let entry = &self.tasks[key];
        let name = (entry.spec.id, entry.owner);
        if let Some(since) = self.head.unstarted.tasks.get_mut(&name)
            && core::mem::take(&mut since.late)
        {
            self.head.load_changed = true;
            self.report_late(key, false);
        }
    }
}

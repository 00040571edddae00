//! Jobs with a quota ([`crate::quota`]): the head hears what of theirs has given back its CPUs.

use super::LocalCore;
use super::dispatch::frees_while_blocked;
use crate::id::ActorId;
use crate::message::ToHead;
use crate::task::{TaskKey, TaskState};

impl LocalCore {
    /// A task that runs here waits for objects, or goes on.
    pub(super) fn report_blocked(&mut self, key: TaskKey, blocked: bool) {
        let entry = &self.tasks[key];
        let (task, attempt) = (entry.spec.id, entry.attempt);
        if entry.assigned && self.quotas.counts(task.job(), &entry.spec.request) {
            self.send_head(ToHead::Blocked { task, attempt, blocked });
        }
    }

    /// A call of an actor that lives here does.
    pub(super) fn report_blocked_actor(&mut self, actor: ActorId, blocked: bool) {
        let Some(hosted) = self.hosted.get(&actor) else { return };
        let (task, attempt) = (actor.0, hosted.life);
        if hosted.assigned && self.quotas.counts(task.job(), &hosted.spec.request) {
            self.send_head(ToHead::Blocked { task, attempt, blocked });
        }
    }

    /// A fresh head knows of nothing that is blocked.
    pub(super) fn report_all_blocked(&mut self) {
        let blocked = |state: &TaskState| matches!(state, TaskState::Running { blocked: true, .. });
        let tasks: Vec<TaskKey> = self
            .tasks
            .iter()
            .filter(|(_, entry)| blocked(&entry.state) && !entry.is_call())
            .map(|(key, _)| key)
            .collect();
        for key in tasks {
            self.report_blocked(key, true);
        }
        let mut actors: Vec<ActorId> = self
            .hosted
            .iter()
            .filter(|(_, hosted)| hosted.blocked > 0 && frees_while_blocked(&hosted.spec))
            .map(|(actor, _)| *actor)
            .collect();
        actors.sort_unstable();
        for actor in actors {
            self.report_blocked_actor(actor, true);
        }
    }
}

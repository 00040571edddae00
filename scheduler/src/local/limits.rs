//! Jobs with a quota ([`crate::quota`]): the head hears what of theirs has given back its CPUs.

use super::LocalCore;
use super::dispatch::frees_while_blocked;
use crate::actor::Hosted;
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

    /// The head has assigned a task that is here already.
    pub(super) fn report_if_blocked(&mut self, key: TaskKey) {
        if matches!(self.tasks[key].state, TaskState::Running { blocked: true, .. }) {
            self.report_blocked(key, true);
        }
    }

    /// The head has assigned an actor that lives here already.
    pub(super) fn report_if_blocked_actor(&mut self, actor: ActorId) {
        let is_blocked = |hosted: &Hosted| hosted.blocked > 0 && frees_while_blocked(&hosted.spec);
        if self.hosted.get(&actor).is_some_and(is_blocked) {
            self.report_blocked_actor(actor, true);
        }
    }

    /// A fresh head knows of nothing that is blocked.
    pub(super) fn report_all_blocked(&mut self) {
        let tasks = self.tasks.iter().filter(|(_, entry)| !entry.is_call());
        for key in tasks.map(|(key, _)| key).collect::<Vec<_>>() {
            self.report_if_blocked(key);
        }
        let mut actors: Vec<ActorId> = self.hosted.keys().copied().collect();
        actors.sort_unstable();
        for actor in actors {
            self.report_if_blocked_actor(actor);
        }
    }
}

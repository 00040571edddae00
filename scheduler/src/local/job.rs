//! The end of a job: everything of it goes, wherever it stands.

use super::LocalCore;
use super::peers::What;
use crate::group::Slot;
use crate::id::{ActorId, ExecutorId, JobId, ObjectId};
use crate::task::{TaskKey, TaskState};

impl LocalCore {
    /// Ends a job's executors and forgets its tasks, actors and objects. Other workers hear of it
    /// from the head, so that nobody is told here.
    pub(super) fn job_ended(&mut self, job: JobId) {
        for process in self.executors.values_mut().filter(|process| process.job == job) {
            // Nobody's turn comes any longer.
            process.ahead.tasks.clear();
        }
        self.drop_job_tasks(job);
        let mut executors: Vec<ExecutorId> = self
            .executors
            .iter()
            .filter(|(_, process)| process.job == job)
            .map(|(executor, _)| *executor)
            .collect();
        executors.sort_unstable();
        for executor in executors {
            if let Some(process) = self.executors.get_mut(&executor) {
                process.holds.clear();
                process.actors.clear();
                process.waiting.clear();
            }
            self.head.forget_executor(executor);
            self.stop_executor(executor, false);
        }
        self.drop_job_objects(job);
        self.readings.retain(|object, _| object.task.job() != job);
        self.lineage.forget(|task| task.job() == job);
        self.paces.forget_job(job);
        self.superseding.retain(|(task, _), _| task.job() != job);
        self.streams.retain(|task, _| task.job() != job);
        self.head.forget_job(job);
        self.shares.forget(job);
        self.outbox.waiting.retain(|deferred| match &deferred.what {
            What::Release(object) => object.task.job() != job,
            What::Message { .. } => true,
        });
        self.flush_outbox();
    }

    fn drop_job_tasks(&mut self, job: JobId) {
        let keys: Vec<TaskKey> = self
            .tasks
            .iter()
            .filter(|(_, entry)| entry.spec.id.job() == job)
            .map(|(key, _)| key)
            .collect();
        for key in keys {
            let entry = &self.tasks[key];
            if entry.assigned {
                self.head.ended.push((entry.spec.id, entry.attempt));
            }
            match &self.tasks[key].state {
                // The head knows that the job has ended.
                TaskState::Spilled { .. } => {}
                TaskState::Placed { .. } | TaskState::Called { .. } => {}
                _ => self.detach(key),
            }
            self.leave_bundle(key);
            self.stop_timer(key);
            let id = self.tasks.remove(key).spec.id;
            self.tasks.rivals(id);
        }
        let mut actors: Vec<ActorId> =
            self.hosted.keys().filter(|actor| actor.0.job() == job).copied().collect();
        actors.sort_unstable();
        for actor in actors {
            if let Some(hosted) = self.hosted.remove(&actor) {
                self.give_back_life(&hosted);
                self.discard_unkept(&hosted);
                if hosted.assigned {
                    self.head.ended.push((actor.0, hosted.life));
                }
            }
        }
        self.actors.retain(|actor, _| actor.0.job() != job);
        self.drop_job_groups(job);
        self.checkpoints.forget_job(job, |_| false);
        self.steps.retain(|step| match step {
            super::Step::LetGo(object) | super::Step::Recover(object) => object.task.job() != job,
            _ => true,
        });
    }

    /// Nothing is in a bundle of the job any longer.
    fn drop_job_groups(&mut self, job: JobId) {
        self.groups.retain(|(group, _), _| group.0.job() != job);
        let bundles = self.bundles.iter().filter(|(_, bundle)| bundle.group.0.job() == job);
        for slot in bundles.map(|(slot, _)| slot).collect::<Vec<_>>() {
            if let Some(bundle) = self.bundles.remove(slot) {
                self.give_to(Slot::NONE, job, &bundle.ledger.total);
                if bundle.assigned {
                    self.head.ended.push((bundle.group.bundle(bundle.number), bundle.round));
                }
            }
        }
    }

    fn drop_job_objects(&mut self, job: JobId) {
        let mut objects: Vec<ObjectId> =
            self.objects.keys().filter(|object| object.task.job() == job).copied().collect();
        objects.sort_unstable();
        for object in objects {
            if let Some(entry) = self.objects.remove(&object)
                && entry.is_in_table(self.me)
            {
                self.free_value(object);
            }
        }
        self.pinned.retain(|_, tasks| {
            tasks.retain(|task| task.job() != job);
            !tasks.is_empty()
        });
        self.adopted.retain(|object, _| object.task.job() != job);
        for peer in self.peers.values_mut() {
            peer.copies.retain(|object| object.task.job() != job);
            peer.borrows.retain(|object| object.task.job() != job);
            peer.borrowed.retain(|object| object.task.job() != job);
            peer.placed.retain(|task| task.job() != job);
            peer.hosted.retain(|task| task.job() != job);
            peer.actors.retain(|actor| actor.0.job() != job);
            peer.settling.retain(|(task, _), _| task.job() != job);
        }
    }
}

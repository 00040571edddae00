//! The end of a job: everything of it goes, wherever it stands.

use std::sync::Arc;

use super::peers::What;
use super::{LocalAction, LocalCore, Step};
use crate::actor::ActorState;
use crate::group::Slot;
use crate::id::{ActorId, ExecutorId, JobId, ObjectId};
use crate::message::CancelMode;
use crate::object::Waiter;
use crate::outcome::{Cause, Death, TaskError};
use crate::spec::TaskKind;
use crate::task::{TaskEntry, TaskKey, TaskState};

impl LocalCore {
    /// Ends a job's executors and forgets its tasks, actors and objects. Other workers hear of it
    /// from the head, so that nobody is told here, but for callers of its actors.
    pub(super) fn job_ended(&mut self, job: JobId) {
        for process in self.executors.values_mut().filter(|process| process.job == job) {
            // Nobody's turn comes any longer, and nothing counts that it still says.
            process.ahead.tasks.clear();
            process.killed_for = None;
        }
        self.fail_calls_of_others(job);
        self.actors_end_with(job);
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
                let held = core::mem::take(&mut process.holds);
                let held = held.iter().chain(process.cut_off.drain().flat_map(|(_, held)| held));
                // What other jobs called its actors with is theirs.
                let of_others = held.filter(|object| object.task.job() != job);
                let mut of_others: Vec<ObjectId> = of_others.collect();
                of_others.sort_unstable();
                self.steps.extend(of_others.into_iter().map(Step::LetGo));
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
        self.unanswered.forget_job(job);
        self.forget_leases(job);
        self.replicas.forget_job(job);
        self.makers.forget_job(job);
        self.shares.forget(job);
        self.quotas.forget(job);
        self.outbox.waiting.retain(|deferred| match &deferred.what {
            What::Release(object) => object.task.job() != job,
            What::Message { .. } => true,
        });
        self.flush_outbox();
    }

    /// A driver's process died under it. Its next try submits tasks of its own and makes actors of
    /// its own, and nobody has the names of those that this one submitted and made: they end, and
    /// with them what they hold.
    pub(super) fn driver_lost(&mut self, job: JobId) {
        let made = self.actors.iter().filter(|(actor, entry)| {
            actor.0.job() == job
                && entry.supervised.is_some()
                && !matches!(entry.place, ActorState::Dead(_))
        });
        let mut actors: Vec<ActorId> = made.map(|(actor, _)| *actor).collect();
        actors.sort_unstable();
        for actor in actors {
            self.kill_supervised(actor, Death::DriverLost { job });
        }
        let submitted = self.tasks.iter().filter(|(_, entry)| {
            entry.spec.id.job() == job
                && entry.owner == self.me
                && matches!(entry.spec.kind, TaskKind::Plain | TaskKind::ActorCall { .. })
        });
        let mut tasks: Vec<(u64, TaskKey, u64)> =
            submitted.map(|(key, entry)| (entry.order, key, entry.stamp)).collect();
        // The last one first, so that none begins because another one ends.
        tasks.sort_unstable_by_key(|&(order, ..)| core::cmp::Reverse(order));
        for (_, key, stamp) in tasks {
            if self.tasks.current(key, stamp).is_some() {
                self.cancel(key, CancelMode { force: true, children: true });
            }
        }
    }

    /// Calls of the job's actors by other jobs fail. Those that run are the executors' to end.
    fn fail_calls_of_others(&mut self, job: JobId) {
        let waits = |entry: &TaskEntry| {
            let TaskKind::ActorCall { actor, .. } = entry.spec.kind else { return false };
            actor.0.job() == job
                && entry.spec.id.job() != job
                && matches!(entry.state, TaskState::Lane | TaskState::Mailbox)
        };
        let mut calls: Vec<(u64, TaskKey)> = self
            .tasks
            .iter()
            .filter(|(_, entry)| waits(entry))
            .map(|(key, entry)| (entry.order, key))
            .collect();
        calls.sort_unstable();
        for (_, key) in calls {
            let task = self.tasks[key].spec.id;
            let cause = Cause::ActorDied(Death::JobEnded { job });
            self.fail(key, TaskError { task, cause });
        }
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
        // And what is only known to be dead: who calls it again is told again.
        self.actors.retain(|actor, entry| {
            if actor.0.job() == job {
                // Calls of other jobs still come back (AC-4).
                entry.supervised = None;
                entry.lanes.clear();
                return entry.out.calls > 0;
            }
            !matches!(entry.place, ActorState::Dead(_))
                || entry.supervised.is_some()
                || entry.out.calls > 0
                || entry.lanes.values().any(|lane| !lane.is_empty())
        });
        self.drop_job_groups(job);
        self.checkpoints.forget_job(job, |_| false);
        self.steps.retain(|step| match step {
            Step::LetGo(object) | Step::Recover(object) | Step::LookFor(object) => {
                object.task.job() != job
            }
            _ => true,
        });
    }

    /// A call of the job may run in another job's actor, and keeps that from other calls for as
    /// long as it waits.
    fn fail_readers(&mut self, job: JobId, object: ObjectId, waiters: &[Waiter]) {
        let error = Arc::new(TaskError { task: object.task, cause: Cause::ObjectLost });
        for waiter in waiters {
            let Waiter::Executor(executor) = *waiter else { continue };
            if self.executors.get(&executor).is_some_and(|process| process.job != job) {
                let error = Some(Arc::clone(&error));
                self.act(LocalAction::Deliver { executor, object, error });
            }
        }
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
            let Some(entry) = self.objects.swap_remove(&object) else { continue };
            if entry.is_in_table(self.me) {
                self.free_value(object);
            }
            self.fail_readers(job, object, &entry.waiters);
        }
        // Actors of other jobs may hold what this one called them with.
        for process in self.executors.values_mut() {
            process.holds.retain_jobs(|other| other != job);
            process.cut_off.values_mut().for_each(|held| {
                held.retain(|object| object.task.job() != job);
            });
        }
        self.pinned.retain(|_, tasks| {
            tasks.retain(|task| task.job() != job);
            !tasks.is_empty()
        });
        self.adopted.retain(|object, _| object.task.job() != job);
        self.lodgers.forget_job(job);
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

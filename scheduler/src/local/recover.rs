//! Lost copies, lost workers, and values that are made again.

use std::sync::Arc;

use super::peers::Peer;
use super::submit::stranded;
use super::{LocalAction, LocalCore, Step};
use crate::id::{ActorId, ExecutorId, ObjectId, TaskId, WorkerId};
use crate::message::PeerMessage;
use crate::object::{Borrow, Value, Waiter};
use crate::outcome::{Cause, Death, Outcome, TaskError};
use crate::spec::TaskKind;
use crate::task::TaskState;

impl LocalCore {
    pub(super) fn copy_made(&mut self, from: WorkerId, object: ObjectId) {
        self.end_reading(object, from);
        match self.objects.get_mut(&object) {
            Some(entry) if entry.is_owned() => {
                if let Value::Arena { copies, .. } = &mut entry.value {
                    if !copies.contains(&from) {
                        copies.push(from);
                    }
                    self.peer(from).copies.insert(object);
                    return self.keep_from_leaving(object);
                }
            }
            _ => {}
        }
        self.send(from, PeerMessage::Free { object });
    }

    /// A borrower could not read a copy, and asks for another place.
    pub(super) fn copy_lost(&mut self, from: WorkerId, object: ObjectId, at: WorkerId) {
        self.end_reading(object, from);
        if self.objects.get(&object).is_some_and(|entry| entry.is_owned()) && at != self.me {
            self.remove_copy(object, at);
            let is_coming = self
                .readings
                .get(&object)
                .is_some_and(|readings| readings.iter().any(|reading| reading.reader == at));
            if at != from && !is_coming {
                self.send(at, PeerMessage::Free { object });
            }
        }
        match self.objects.get_mut(&object) {
            Some(entry) if matches!(entry.value, Value::Absent) => {
                let waiter = Waiter::Peer { worker: from, fetches: false };
                if !entry.waiters.contains(&waiter) {
                    entry.waiters.push(waiter);
                }
            }
            Some(_) => self.tell_place(object, from, false),
            None => {
                let error = TaskError { task: object.task, cause: Cause::ObjectLost };
                let place = crate::message::Place::Failed(error);
                self.send(from, PeerMessage::Located { object, place });
            }
        }
    }

    pub(super) fn pull_failed(&mut self, object: ObjectId, from: WorkerId) {
        let Some(entry) = self.objects.get_mut(&object) else { return };
        if entry.pull.as_deref() != Some(&from) {
            return;
        }
        entry.pull = None;
        if entry.pull_is_stale {
            return self.stale_pull_ended(object, false);
        }
        let (is_owned, is_held) = (entry.is_owned(), entry.holders > 0);
        if is_owned {
            self.remove_copy(object, from);
            self.send(from, PeerMessage::Free { object });
            // The next copy, if there is one.
            self.announce(object);
            return self.keep_from_leaving(object);
        }
        match (entry.is_readable(self.me), is_held) {
            // It was made here meanwhile.
            (true, true) => return,
            (true, false) => return self.drop_unheld(object),
            (false, false) => return self.release_unheld(object),
            (false, true) => {}
        }
        let owner = entry.owner;
        entry.value = Value::Absent;
        if self.is_dead(owner) {
            self.owner_died(object);
        } else {
            self.ask_again(object, from);
        }
    }

    /// This worker's own copy is gone: another one is found, or the value is made again.
    pub(super) fn copy_unreadable(&mut self, object: ObjectId) {
        let me = self.me;
        let is_replicated = self.replicas.is_owned(object);
        self.lodgers.forget(object);
        let Some(entry) = self.objects.get_mut(&object) else { return };
        entry.leftover = false;
        let Value::Arena { copies, .. } = &mut entry.value else { return };
        if !copies.contains(&me) {
            return;
        }
        copies.retain(|copy| *copy != me);
        let (owner, is_held) = (entry.owner, entry.holders > 0);
        // Its owner finds another keeper, or this one again.
        entry.keeps = false;
        if entry.is_owned() {
            if matches!(&entry.value, Value::Arena { copies, .. } if copies.is_empty()) {
                entry.value = Value::Absent;
                self.readings.remove(&object);
                self.steps.push_back(Step::Recover(object));
            } else if is_replicated {
                self.pull(object);
            }
            return;
        }
        entry.value = Value::Absent;
        if self.is_dead(owner) {
            self.owner_died(object);
        } else if is_held {
            self.ask_again(object, me);
        } else {
            self.send(owner, PeerMessage::CopyLost { object, at: me });
            self.drop_unheld(object);
        }
    }

    /// A task that was to run waits for its dependencies again.
    pub(super) fn not_started(&mut self, executor: ExecutorId, task: TaskId, attempt: u32) {
        let Some(key) = self.tasks.find_running(task, executor) else { return };
        let entry = &self.tasks[key];
        if entry.attempt != attempt || !matches!(entry.spec.kind, TaskKind::Plain) {
            return;
        }
        self.stop_running(key);
        let entry = &self.tasks[key];
        if entry.assigned {
            self.head.unstarted.insert(task, entry.owner, self.now);
        }
        self.resolve(key, TaskState::Waiting { here: true });
    }

    fn release_unheld(&mut self, object: ObjectId) {
        let Some(entry) = self.objects.get(&object) else { return };
        if entry.borrow == Borrow::Unregistered {
            self.forget_borrowed(object);
        }
    }

    /// A copy of an owned object is gone; the last one takes the value with it.
    pub(super) fn remove_copy(&mut self, object: ObjectId, at: WorkerId) {
        self.peer(at).copies.remove(&object);
        let Some(entry) = self.objects.get_mut(&object) else { return };
        if let Value::Arena { copies, .. } = &mut entry.value {
            copies.retain(|copy| *copy != at);
            if copies.is_empty() {
                entry.value = Value::Absent;
                self.readings.remove(&object);
                self.steps.push_back(Step::Recover(object));
            }
        }
        self.keeper_lost(object, at);
    }

    /// Makes an owned value again by running its task, and whatever that needs.
    pub(super) fn recover(&mut self, object: ObjectId) {
        let task = object.task;
        match self.objects.get(&object) {
            Some(entry) if entry.is_owned() && matches!(entry.value, Value::Absent) => {}
            _ => return,
        }
        if !self.streams.is_empty() && self.awaits_item(object) {
            return;
        }
        if !object.is_put() && self.tasks.find(task, self.me).is_some() {
            return;
        }
        if object.is_put() || !self.run_again(task) {
            let error = Arc::new(TaskError { task, cause: Cause::ObjectLost });
            self.set_failed(object, &error);
        }
    }

    /// Runs an own task once more by its record; false: there is none, or no try is left.
    pub(super) fn run_again(&mut self, task: TaskId) -> bool {
        let record = self.lineage.get(task);
        let again = record.filter(|record| record.tries.losses() < record.spec.max_retries);
        let Some(record) = again else { return false };
        let (spec, tries) = (Arc::clone(&record.spec), record.tries);
        let key = self.insert_task(spec, self.me, tries.attempt.saturating_add(1), ExecutorId(0));
        if tries.spared > 0 {
            self.tasks[key].extra().spared = tries.spared;
        }
        self.begin(key);
        true
    }

    /// A worker is gone for good, with everything that it had.
    pub(super) fn worker_died(&mut self, worker: WorkerId, reason: &str) {
        if worker == self.me || !self.dead.insert(worker) {
            return;
        }
        self.checkpoints.forget_worker(worker);
        self.taken.remove(&worker);
        self.leaving.remove(&worker);
        self.unanswered.forget_worker(worker);
        self.lodgers.forget_worker(worker);
        if let Some(mut peer) = self.peers.remove(&worker) {
            self.peer_died(worker, &mut peer, reason);
        }
        self.keeper_gone(worker);
        self.asked_died(worker);
        self.return_bundles_of(worker);
        self.group_worker_died(worker);
        for task in sorted(self.pinned.remove(&worker).into_iter().flatten()) {
            if let Some(key) = self.tasks.find(task, self.me) {
                self.fail(key, stranded(task, worker));
            }
        }
    }

    /// What this worker had to do with a lost one.
    fn peer_died(&mut self, worker: WorkerId, peer: &mut Peer, reason: &str) {
        self.adopted.retain(|_, former| *former != worker);
        self.outbox.owing.remove(&worker);
        self.end_readings_of(worker);
        for deferred in &mut self.outbox.waiting {
            deferred.until.retain(|(owes, _)| *owes != worker);
        }
        for actor in sorted(peer.actors.drain()) {
            self.actor_worker_died(actor, worker);
        }
        for task in sorted(peer.hosted.drain()) {
            self.host_for_nobody(task, worker);
        }
        self.requeue_placed(sorted(peer.placed.drain()), worker, reason);
        for object in sorted(peer.copies.drain()) {
            self.remove_copy(object, worker);
        }
        for object in sorted(peer.borrows.drain()) {
            self.let_go(object);
        }
        for object in sorted(peer.borrowed.drain()) {
            self.owner_died(object);
        }
        let settling: Vec<ObjectId> =
            peer.settling.drain().flat_map(|(_, held)| held).flatten().collect();
        for object in settling {
            self.let_go(object);
        }
        self.flush_outbox();
    }

    /// Own tasks and calls that were on a lost worker fail there, and run again if they may.
    fn requeue_placed(&mut self, tasks: Vec<TaskId>, worker: WorkerId, reason: &str) {
        let mut keys: Vec<_> = tasks
            .into_iter()
            .filter_map(|task| self.tasks.find(task, self.me))
            .filter(|key| match self.tasks[*key].state {
                TaskState::Placed { worker: at } | TaskState::Called { worker: at, .. } => {
                    at == worker
                }
                _ => false,
            })
            .collect();
        keys.sort_unstable_by_key(|key| self.tasks[*key].order);
        for key in keys {
            self.call_is_back(key);
            let entry = &self.tasks[key];
            let cause = match entry.spec.kind {
                TaskKind::ActorCall { .. } => Cause::ActorDied(Death::WorkerLost),
                _ => Cause::WorkerDied { reason: reason.to_owned() },
            };
            let error = TaskError { task: entry.spec.id, cause };
            self.settle_outcome(key, Outcome::Failed(error), worker);
        }
    }

    /// A borrowed object's owner is gone: what is readable here stays while it is used.
    fn owner_died(&mut self, object: ObjectId) {
        let me = self.me;
        let Some(entry) = self.objects.get_mut(&object) else { return };
        entry.borrow = Borrow::Unregistered;
        let is_readable = entry.is_readable(me);
        if entry.holders == 0 {
            if entry.pull.is_none() && !(entry.keeps && is_readable && !entry.freed) {
                if self.lodgers.has(object) {
                    self.hand_over(object);
                } else {
                    self.objects.swap_remove(&object);
                    if is_readable {
                        self.free_value(object);
                    }
                }
            }
            self.forget_maker(object);
            return;
        }
        if !is_readable && entry.pull.is_none() && !matches!(entry.value, Value::Failed(_)) {
            entry.value = Value::Absent;
            entry.asked = false;
            if !entry.waiters.is_empty() {
                self.seek(object, true);
            }
        }
    }

    /// The owner of a task or an actor here is gone: nobody waits for it.
    fn host_for_nobody(&mut self, task: TaskId, owner: WorkerId) {
        if self.hosted.get(&ActorId(task)).is_some_and(|hosted| hosted.owner == owner) {
            return self.end_hosted(ActorId(task), Death::Ended);
        }
        let Some(key) = self.tasks.find(task, owner) else { return };
        match self.tasks[key].state {
            TaskState::Running { executor, .. } | TaskState::Ahead { executor, .. } => {
                self.tasks[key].cancelled = true;
                self.act(LocalAction::Cancel { executor, task });
            }
            _ => self.fail(key, TaskError { task, cause: Cause::OwnerDied }),
        }
    }
}

/// In one order, whatever the set's history.
fn sorted<T: Ord>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    items.sort_unstable();
    items
}

//! Bundles of placement groups that are reserved on this worker, and what runs in them.

use std::sync::Arc;

use super::LocalCore;
use crate::group::{GroupKey, Slot};
use crate::id::{ActorId, ExecutorId, GroupId, WorkerId};
use crate::message::{GroupMessage, PeerMessage};
use crate::outcome::{Cause, Death, TaskError};
use crate::resource::{Ledger, Resources};
use crate::spec::{Assignment, InGroup, TaskKind};
use crate::task::{TaskKey, TaskState};

impl LocalCore {
    /// What pays for a task or an actor: the bundle that it is in, or the worker.
    pub(super) fn ledger_of(&mut self, slot: Slot) -> &mut Ledger {
        match self.bundles.get_mut(slot) {
            Some(bundle) => &mut bundle.ledger,
            None => &mut self.ledger,
        }
    }

    /// Sets a bundle aside.
    pub(super) fn reserve(&mut self, of: GroupKey, number: u32, round: u32, holds: Resources) {
        self.take_from(Slot::NONE, of.0.0.job(), &holds);
        self.head.load_changed = true;
        self.bundles.insert(of, number, round, holds);
    }

    /// The head wants this worker to reserve a bundle. It waits in the queue while what runs here
    /// makes room by itself.
    pub(super) fn bundle_assigned(&mut self, assignment: Assignment) {
        let Assignment { spec, attempt: round, owner, .. } = assignment;
        let TaskKind::Bundle { group, bundle: number } = spec.kind else { return };
        let id = spec.id;
        if self.is_dead(owner) {
            return self.head.ended.push((id, round));
        }
        if let Some(slot) = self.bundles.find((group, owner), number) {
            let Some(bundle) = self.bundles.get_mut(slot) else { return };
            if round <= bundle.round {
                if round < bundle.round {
                    self.head.ended.push((id, round));
                }
                return;
            }
            // The leader began another round: it returns this one.
            self.return_bundle(slot, false);
        }
        if let Some(key) = self.tasks.find(id, owner) {
            let entry = &mut self.tasks[key];
            let older = entry.attempt.min(round);
            if entry.attempt != round {
                self.head.ended.push((id, older));
            }
            entry.attempt = entry.attempt.max(round);
            return;
        }
        let request = &spec.request;
        let will_fit = self.ledger.fits(request)
            || (self.ledger.total.covers(request) && self.ledger.will_fit(request));
        if self.draining || !will_fit {
            self.head.ended.push((id, round));
            // At once: else the head, which believes that there is room, places it here again.
            self.head.report_now(self.now);
            return self.refuse_bundle(owner, group, number, round);
        }
        let key = self.insert_task(Arc::new(spec), owner, round, ExecutorId(0));
        self.tasks[key].assigned = true;
        if owner != self.me {
            self.peer(owner).hosted.insert(id);
        }
        self.resolve(key, TaskState::Waiting { here: true });
    }

    fn refuse_bundle(&mut self, owner: WorkerId, group: GroupId, number: u32, round: u32) {
        if owner == self.me {
            self.bundle_refused(owner, group, number, round);
        } else {
            let refused = GroupMessage::Refused { group, bundle: number, round };
            self.send(owner, PeerMessage::Group(refused));
        }
    }

    /// There is room for a bundle that the head assigned.
    pub(super) fn reserve_assigned(&mut self, key: TaskKey) {
        let entry = self.drop_task(key);
        let TaskKind::Bundle { group, bundle: number } = entry.spec.kind else { return };
        let (owner, round) = (entry.owner, entry.attempt);
        self.reserve((group, owner), number, round, entry.spec.request.clone());
        if let Some(slot) = self.bundles.find((group, owner), number)
            && let Some(bundle) = self.bundles.get_mut(slot)
        {
            bundle.assigned = true;
        }
        if owner == self.me {
            self.bundle_reserved(owner, group, number, round);
        } else {
            let reserved = GroupMessage::Reserved { group, bundle: number, round };
            self.send(owner, PeerMessage::Group(reserved));
        }
    }

    /// The leader wants a bundle back, wherever it is.
    pub(super) fn return_bundle_at(
        &mut self,
        worker: WorkerId,
        (group, number, round): (GroupId, u32, u32),
        gone: bool,
    ) {
        if worker == self.me {
            self.bundle_returned((group, worker), number, round, gone);
        } else {
            let returned = GroupMessage::Return { group, bundle: number, round, gone };
            self.send(worker, PeerMessage::Group(returned));
        }
    }

    /// A leader does not need a bundle of that round any longer.
    pub(super) fn bundle_returned(&mut self, of: GroupKey, number: u32, round: u32, gone: bool) {
        if let Some(slot) = self.bundles.find(of, number) {
            if self.bundles.get(slot).is_some_and(|bundle| bundle.round == round) {
                self.return_bundle(slot, gone);
            }
            return;
        }
        // It waits for room.
        let id = of.0.bundle(number);
        if let Some(key) = self.tasks.find(id, of.1)
            && self.tasks[key].attempt == round
        {
            self.forget_waiting_bundle(key);
        }
    }

    /// A bundle that waits for room need not be reserved.
    fn forget_waiting_bundle(&mut self, key: TaskKey) {
        self.detach(key);
        let entry = self.drop_task(key);
        self.head.ended.push((entry.spec.id, entry.attempt));
        if let Some(peer) = self.peers.get_mut(&entry.owner) {
            peer.hosted.remove(&entry.spec.id);
        }
    }

    /// The leader of a group is gone: nobody needs its bundles.
    pub(super) fn return_bundles_of(&mut self, owner: WorkerId) {
        let slots: Vec<Slot> = self
            .bundles
            .iter()
            .filter(|(_, bundle)| bundle.owner == owner)
            .map(|(slot, _)| slot)
            .collect();
        for slot in slots {
            self.return_bundle(slot, true);
        }
    }

    /// What a bundle holds is the worker's again. `gone`: what is in it ends; else what waits in
    /// it goes where the bundle goes, and what runs goes on, on what the worker has.
    fn return_bundle(&mut self, slot: Slot, gone: bool) {
        if self.bundles.get(slot).is_some_and(|bundle| bundle.users > 0) {
            self.empty_bundle(slot, gone);
        }
        let Some(bundle) = self.bundles.remove(slot) else { return };
        self.give_to(Slot::NONE, bundle.group.0.job(), &bundle.ledger.total);
        if bundle.assigned {
            self.head.ended.push((bundle.group.bundle(bundle.number), bundle.round));
        }
        if let Some(peer) = self.peers.get_mut(&bundle.owner) {
            peer.hosted.remove(&bundle.group.bundle(bundle.number));
        }
    }

    fn empty_bundle(&mut self, slot: Slot, gone: bool) {
        let mut tasks: Vec<(u64, TaskKey)> = self
            .tasks
            .iter()
            .filter(|(_, entry)| entry.bundle == slot)
            .map(|(key, entry)| (entry.order, key))
            .collect();
        tasks.sort_unstable();
        for (_, key) in tasks {
            match self.tasks[key].state {
                TaskState::Running { .. } => {
                    self.charge_worker(key);
                    if gone {
                        self.end_with_bundle(key);
                    }
                }
                _ if gone => self.end_with_bundle(key),
                _ => self.turn_away(key),
            }
        }
        let mut actors: Vec<ActorId> = self
            .hosted
            .iter()
            .filter(|(_, hosted)| hosted.bundle == slot)
            .map(|(actor, _)| *actor)
            .collect();
        actors.sort_unstable();
        for actor in actors {
            let death = if gone { Death::Ended } else { Death::WorkerLost };
            self.evict_actor(actor, death);
        }
    }

    /// A task that runs in a bundle goes on without it.
    fn charge_worker(&mut self, key: TaskKey) {
        let entry = &self.tasks[key];
        let blocked = matches!(entry.state, TaskState::Running { blocked: true, .. });
        let passes = matches!(entry.spec.kind, TaskKind::Plain) && !blocked;
        let held = Self::held_by(&entry.spec, blocked);
        let request = entry.spec.request.clone();
        let (slot, job) = (entry.bundle, entry.spec.id.job());
        let bundle = self.ledger_of(slot);
        bundle.give(&held);
        if passes {
            bundle.unpass(&request);
        }
        self.take_from(Slot::NONE, job, &held);
        if passes {
            self.ledger.pass(&request);
        }
        self.leave_bundle(key);
    }

    /// A task ends because its placement group does.
    fn end_with_bundle(&mut self, key: TaskKey) {
        if let TaskState::Running { executor, .. } = self.tasks[key].state {
            self.tasks[key].cancelled = true;
            let task = self.tasks[key].spec.id;
            return self.act(super::LocalAction::Cancel { executor, task });
        }
        let task = self.tasks[key].spec.id;
        let reason = "its placement group was removed".to_owned();
        self.fail(key, TaskError { task, cause: Cause::Refused { reason } });
    }

    /// A task that waits in a bundle which is moved goes where that goes.
    fn turn_away(&mut self, key: TaskKey) {
        let entry = &self.tasks[key];
        let (task, attempt, owner) = (entry.spec.id, entry.attempt, entry.owner);
        let of = self.bundles.get(entry.bundle);
        let (number, round) = of.map_or((0, 0), |bundle| (bundle.number, bundle.round));
        self.detach(key);
        if owner == self.me {
            self.leave_bundle(key);
            return self.resolve(key, TaskState::Waiting { here: false });
        }
        self.drop_task(key);
        self.peer(owner).hosted.remove(&task);
        let turned = GroupMessage::Turned { task, attempt, bundle: number, round };
        self.send(owner, PeerMessage::Group(turned));
    }

    /// Ends an actor here, and tells its supervisor.
    pub(super) fn evict_actor(&mut self, actor: ActorId, death: Death) {
        let Some(hosted) = self.hosted.get(&actor) else { return };
        let (owner, life) = (hosted.owner, hosted.life);
        self.end_hosted(actor, death.clone());
        if owner == self.me {
            self.actor_lost(actor, life, death);
        } else {
            let message = PeerMessage::ActorLost { actor, life, death };
            self.send_settled(owner, message, smallvec::SmallVec::new());
        }
    }

    /// The task is in that bundle from now on.
    pub(super) fn join_bundle(&mut self, key: TaskKey, slot: Slot) {
        self.tasks[key].bundle = slot;
        if let Some(bundle) = self.bundles.get_mut(slot) {
            bundle.users += 1;
        }
    }

    /// The task is in no bundle any longer.
    pub(super) fn leave_bundle(&mut self, key: TaskKey) {
        let slot = core::mem::take(&mut self.tasks[key].bundle);
        self.left_bundle(slot);
    }

    /// A task or an actor of that bundle is gone.
    pub(super) fn left_bundle(&mut self, slot: Slot) {
        if let Some(bundle) = self.bundles.get_mut(slot) {
            bundle.users -= 1;
        }
    }

    /// Another worker's task comes into a bundle.
    pub(super) fn entered(
        &mut self,
        from: WorkerId,
        number: u32,
        round: u32,
        assignment: Assignment,
    ) {
        let Assignment { spec, attempt, owner, .. } = assignment;
        let (id, actor) = (spec.id, ActorId(spec.id));
        let Some(InGroup { group, owner: leader, .. }) = spec.strategy.in_group() else { return };
        if owner != from || !matches!(spec.kind, TaskKind::Plain | TaskKind::ActorCreate(_)) {
            return;
        }
        if let Some(key) = self.tasks.find(id, from) {
            // A newer attempt takes over what the older one has done so far.
            let entry = &mut self.tasks[key];
            entry.attempt = entry.attempt.max(attempt);
            return;
        }
        if let Some(hosted) = self.hosted.get(&actor).filter(|hosted| hosted.owner == owner) {
            if attempt <= hosted.life {
                return;
            }
            self.end_hosted(actor, Death::Ended);
        }
        let found = self.bundles.find((group, leader), number);
        let Some(slot) = found
            .filter(|slot| self.bundles.get(*slot).is_some_and(|bundle| bundle.round == round))
        else {
            let turned = GroupMessage::Turned { task: id, attempt, bundle: number, round };
            return self.send(from, PeerMessage::Group(turned));
        };
        let covers = |bundle: &crate::group::Bundle| bundle.ledger.total.covers(&spec.request);
        if !self.bundles.get(slot).is_some_and(covers) {
            let reason = format!("it needs {}, which bundle {number} does not hold", spec.request);
            let outcome = crate::outcome::Outcome::Failed(TaskError {
                task: id,
                cause: Cause::Refused { reason },
            });
            return self.send(from, PeerMessage::Finished { task: id, attempt, outcome });
        }
        self.peer(from).hosted.insert(id);
        let key = self.insert_task(Arc::new(spec), from, attempt, ExecutorId(0));
        self.join_bundle(key, slot);
        self.resolve(key, TaskState::Waiting { here: true });
    }
}

//! Workers come, close and are lost.

use std::collections::btree_map::Entry;

use super::core::ClusterCore;
use super::member::Member;
use super::queue::ShapeId;
use crate::id::{JobId, WorkerId};
use crate::message::{FromHead, Held};
use crate::placement::Reason;
use crate::resource::Resources;

/// Most lost workers that are remembered, to turn them away when they come back.
const REMEMBERED_LOST: usize = 10_000;
/// Most tasks of a shape whose owners hear of it when only a new worker could help, or one did.
const TELL_AGAIN: usize = 1_000;

impl ClusterCore {
    pub(super) fn worker_joined(
        &mut self,
        worker: WorkerId,
        total: Resources,
        labels: Vec<(String, String)>,
        held: Held,
    ) {
        if let Some(reason) = self.lost.get(&worker) {
            let reason = reason.clone();
            self.send(worker, FromHead::WorkerDied { worker, reason });
            return;
        }
        if worker == WorkerId::HEAD {
            return;
        }
        if let Entry::Vacant(vacant) = self.members.entry(worker) {
            vacant.insert(Member::default());
            self.field.add(worker, total, labels);
            self.roomier.insert(worker);
            self.drop_names_but(worker, &held.names);
        }
        if held.draining {
            self.close(worker);
        }
        if let Some(recovery) = &mut self.recovery {
            recovery.expected.remove(&worker);
        }
        self.end_unknown_jobs(worker, &held);
        for task in &held.assigned {
            self.claim(worker, task);
        }
        for (name, actor) in held.names {
            self.name_held(worker, name, actor);
        }
        self.membership_changed(worker);
        self.finish_recovery_if_complete();
    }

    pub(super) fn worker_draining(&mut self, worker: WorkerId) {
        if self.close(worker) {
            self.membership_changed(worker);
        }
    }

    /// A worker gets no more tasks; false: there is no such worker.
    fn close(&mut self, worker: WorkerId) -> bool {
        let Some(member) = self.members.get_mut(&worker) else { return false };
        member.draining = true;
        self.field.close(worker);
        true
    }

    pub(super) fn worker_lost(&mut self, worker: WorkerId, reason: &str) {
        let expected = self.recovery.as_mut().is_some_and(|recovery| recovery.lose(worker));
        let member = self.members.remove(&worker);
        if member.is_none() && !expected {
            return;
        }
        self.field.remove(worker);
        if self.lost.len() >= REMEMBERED_LOST {
            self.lost.pop_first();
        }
        self.lost.insert(worker, reason.to_owned());
        self.broadcast(&FromHead::WorkerDied { worker, reason: reason.to_owned() }, None);
        self.sharing.forget(worker);
        self.drop_names_of(worker);
        self.anew.retain(|(_, owner), _| *owner != worker);
        self.gangs.remove_if(|_, owner| owner == worker);
        for key in self.queue.of_owner(worker) {
            self.queue.remove(&key);
        }
        let mut drivers = Vec::new();
        for ((task, attempt, owner), ()) in member.map(|member| member.holds).unwrap_or_default() {
            if let Some(placement) = self.ledger.remove(&(task, owner, attempt)) {
                self.refund(task.job(), &placement.held());
            }
            self.begin_anew((task, owner));
            if owner == WorkerId::HEAD {
                drivers.push((task.job(), attempt));
            }
        }
        self.membership_changed(worker);
        for (job, attempt) in drivers {
            self.driver_lost(job, attempt, reason);
        }
        self.finish_recovery_if_complete();
    }

    /// A worker asks whether others still live. One that can do anything was a member before, so
    /// that one which is unknown is lost, be it since before this head.
    pub(super) fn met(&mut self, from: WorkerId, workers: Vec<WorkerId>) {
        for worker in workers {
            let expected = self.recovery.as_ref().is_some_and(|r| r.expected.contains(&worker));
            if expected || self.members.contains_key(&worker) {
                continue;
            }
            let reason =
                self.lost.get(&worker).map_or("it is no member", String::as_str).to_owned();
            self.send(from, FromHead::WorkerDied { worker, reason });
        }
    }

    /// A worker wants to know who there is, from now on.
    pub(super) fn members_wanted(&mut self, from: WorkerId) {
        if let Some(member) = self.members.get_mut(&from) {
            member.wants_members = true;
            let message = FromHead::Members(self.staying());
            self.send(from, message);
        }
    }

    /// What members have that do not leave.
    pub(super) fn offers(&self) -> Vec<(WorkerId, Resources)> {
        let offer = |worker| Some((worker, self.field.spot(worker)?.total.clone()));
        self.staying().into_iter().filter_map(offer).collect()
    }

    /// Members that do not leave.
    fn staying(&self) -> Vec<WorkerId> {
        let staying = self.members.iter().filter(|(_, member)| !member.draining);
        staying.map(|(worker, _)| *worker).collect()
    }

    fn tell_members(&mut self) {
        let wanting = self.members.iter().filter(|(_, member)| member.wants_members);
        let wanting: Vec<WorkerId> = wanting.map(|(worker, _)| *worker).collect();
        if wanting.is_empty() {
            return;
        }
        let staying = self.staying();
        for worker in wanting {
            self.send(worker, FromHead::Members(staying.clone()));
        }
    }

    /// Jobs that ended while the worker was away.
    fn end_unknown_jobs(&mut self, worker: WorkerId, held: &Held) {
        let mut jobs: Vec<JobId> = held.assigned.iter().map(|held| held.task.job()).collect();
        jobs.extend(&held.jobs);
        jobs.sort_unstable();
        jobs.dedup();
        for job in jobs {
            if !self.is_active(job) {
                self.send(worker, FromHead::JobEnded { job });
            }
        }
    }

    /// Shapes that named the worker are bound or set free; shapes for which it decides whether
    /// there is hope are looked at again.
    fn membership_changed(&mut self, worker: WorkerId) {
        self.tell_members();
        self.reasons.clear();
        self.fresh.extend(self.queue.rebind(worker, &self.field));
        let spot = self.field.spot(worker).filter(|spot| !spot.closed);
        let joined = spot.is_some();
        let concerned = |(id, shape): (ShapeId, &super::queue::Shape)| {
            let able = spot.is_some_and(|spot| spot.total.covers(&shape.request));
            let hopeless = shape.reason.as_ref()?.is_hopeless();
            (hopeless == joined && (able || !joined)).then_some((id, hopeless))
        };
        let concerned: Vec<_> = self.queue.shapes().filter_map(concerned).collect();
        for (id, was_hopeless) in concerned {
            let Some(shape) = self.queue.shape_mut(id) else { continue };
            let reason = Reason::find(&self.field, &shape.request, &shape.strategy);
            if reason.is_hopeless() != was_hopeless {
                self.untold.extend(shape.keys().take(TELL_AGAIN));
            }
            shape.reason = Some(reason);
        }
    }
}

//! Fairness between jobs that wait in the head: what becomes free goes to the job that the head has
//! given the least of the cluster so far ([`crate::share`]). What runs where it was submitted is
//! shared out there, by the worker, which the head does not count: a task that waits in the head
//! while a worker is busy with its own queue is sent there after a while, to stand in that line
//! with the share of its own job. Else one job could keep another one off a worker for ever.

use core::time::Duration;

use super::core::ClusterCore;
use super::queue::ShapeId;
use crate::id::{JobId, TaskId, WorkerId};
use crate::placement::{Reason, admits};
use crate::resource::Resources;
use crate::share::Standing;

/// How long a task waits for room before it may stand in the line of a busy worker.
const PATIENCE: Duration = Duration::from_millis(500);

impl ClusterCore {
    /// The job's part of the cluster, of what the head has placed.
    pub(super) fn share_of(&self, job: JobId) -> Standing {
        self.shares.of(job, self.field.total())
    }

    /// The head has given a job so much.
    pub(super) fn charge(&mut self, job: JobId, request: &Resources) {
        self.shares.serve(job);
        self.shares.take(job, request);
    }

    /// A job has given so much back.
    pub(super) fn refund(&mut self, job: JobId, request: &Resources) {
        if self.shares.used(job).is_some() {
            self.shares.give(job, request);
        }
        if self.quotas.has(job) {
            self.relieved.insert(job);
        }
    }

    /// Why the job's quota does not let it have so much more; `None`: it does.
    pub(super) fn over_quota(&self, job: JobId, request: &Resources) -> Option<Reason> {
        if !self.quotas.has(job) {
            return None;
        }
        let refused = self.quotas.refuses(job, self.shares.used(job), request);
        // What it holds is known when all workers are back.
        let unknown = || self.is_recovering(job) && self.quotas.counts(job, request);
        refused.or_else(|| unknown().then_some(Reason::Recovering))
    }

    /// Something that the head placed waits for objects, or goes on.
    pub(super) fn blocked(&mut self, from: WorkerId, task: TaskId, attempt: u32, blocked: bool) {
        let Some(key) = self.placed_at(from, task, attempt) else { return };
        let Some(placement) = self.ledger.get_mut(&key) else { return };
        if core::mem::replace(&mut placement.blocked, blocked) == blocked {
            return;
        }
        let mut cpus = Resources::NONE;
        cpus.cpu = placement.request.cpu;
        match blocked {
            true => self.refund(task.job(), &cpus),
            false => self.shares.take(task.job(), &cpus),
        }
    }

    /// A worker has a queue of its own: one task that has waited long for room comes in.
    pub(super) fn press(&mut self, worker: WorkerId) {
        let now = self.now;
        let Some(member) = self.members.get(&worker) else { return };
        if member.backlog.is_empty() || member.pressed.is_some() || self.queue.is_empty() {
            return;
        }
        let Some(spot) = self.field.spot(worker).filter(|spot| !spot.closed) else { return };
        let is_late = |id: &ShapeId| {
            self.queue.shape(*id).is_some_and(|shape| {
                shape.since.is_some_and(|since| now - since >= PATIENCE)
                    && spot.total.covers(&shape.request)
                    && self.over_quota(shape.job, &shape.request).is_none()
                    && admits(spot, &shape.strategy)
            })
        };
        let late = self.queue.shapes_for(worker).filter(is_late);
        let Some(id) = late.min_by_key(|id| {
            let shape = self.queue.shape(*id);
            shape.map(|shape| (self.share_of(shape.job), shape.since))
        }) else {
            return;
        };
        let Some((_, first)) = self.queue.first(id) else { return };
        let key = (first.spec.id, first.owner);
        let placed = (key.0, key.1, first.attempt);
        if let Some(assignment) = self.queue.remove(&key) {
            if let Some(member) = self.members.get_mut(&worker) {
                member.pressed = Some(placed);
            }
            if let Some(shape) = self.queue.shape_mut(id) {
                shape.since = Some(now);
            }
            self.assign(worker, assignment);
        }
    }
}

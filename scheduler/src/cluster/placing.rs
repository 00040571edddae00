//! Spilled tasks: into the queue, onto workers, and off the ledger when they have ended.

use std::collections::BTreeSet;

use super::core::ClusterCore;
use super::member::{PlacedKey, Placement};
use super::queue::{Key, Rank, ShapeId};
use crate::id::{TaskId, WorkerId};
use crate::message::{FromHead, Load};
use crate::placement::{Ask, Reason, choose};
use crate::share::Standing;
use crate::spec::{Assignment, Strategy, TaskKind};

/// Most waiting tasks of a shape whose owners are told that it is merely busy: behind so many the
/// reason is no news, and a million such messages would be.
const TELL_BUSY: usize = 1_000;

/// Most reasons that are kept for the next shapes that ask for the same.
const REMEMBERED_REASONS: usize = 1_000;

/// The job's share, the rank of the shape's first task, and the shape.
type Candidate = (Standing, Rank, ShapeId);

impl ClusterCore {
    /// A worker gave a task away.
    pub(super) fn spilled(&mut self, from: WorkerId, assignment: Assignment) {
        let (task, owner, attempt) = (assignment.spec.id, assignment.owner, assignment.attempt);
        let foreign = matches!(
            assignment.spec.kind,
            TaskKind::Driver
                | TaskKind::ActorCall { .. }
                | TaskKind::GroupCreate(_)
                | TaskKind::Bundle { .. } // none is ever spilled
        ) || matches!(assignment.spec.strategy, Strategy::Group(_));
        if foreign || !self.members.contains_key(&owner) {
            return;
        }
        let job = task.job();
        if !self.is_active(job) {
            self.forget_unknown_job(from, job);
            return;
        }
        // Links repeat nothing, but a worker that meets a new head tells all again, before its
        // first report. What the head placed is not placed again then.
        let retold = self.members.get(&from).is_some_and(|member| !member.reported);
        if let Some((newest, placement)) = self.ledger.newest(task, owner) {
            let worker = placement.worker;
            let given_back = newest == attempt && worker == from && from != owner;
            if given_back {
                self.take_off((task, owner, attempt), true);
            } else if newest == attempt && retold {
                return self.send_placed(owner, (task, attempt, worker));
            } else if newest >= attempt {
                // Its parent ran again, after its value was used and forgotten.
                self.anew.insert((task, owner), assignment);
                return;
            }
        }
        if let Strategy::Affinity { worker, soft: false } = assignment.spec.strategy
            && let Some(reason) = self.lost.get(&worker)
        {
            // The owner came after that loss. It fails the task, and takes it back.
            let reason = reason.clone();
            self.send(owner, FromHead::WorkerDied { worker, reason });
        }
        if self.queue.get(&(task, owner)).is_some_and(|waiting| waiting.attempt >= attempt) {
            return;
        }
        self.sharing.arrived(from, &assignment.spec.request);
        if let Some(assignment) = self.park(assignment) {
            self.enqueue(assignment);
        }
    }

    /// An owner wants a task back that is not placed.
    pub(super) fn unspilled(&mut self, from: WorkerId, task: TaskId) {
        self.queue.remove(&(task, from));
        self.anew.remove(&(task, from));
        if let Some(recovery) = &mut self.recovery {
            recovery.parked.remove(&(task, from));
        }
    }

    /// A task that the head assigned has ended at `from`.
    pub(super) fn ended(&mut self, from: WorkerId, task: TaskId, attempt: u32) {
        let Some((_, owner, _)) = self.placed_at(from, task, attempt) else { return };
        if owner == WorkerId::HEAD {
            return; // a driver ends with `DriverFinished`, which says how
        }
        self.take_off((task, owner, attempt), true);
        self.begin_anew((task, owner));
    }

    /// The placement that a worker speaks of, which does not name the owner.
    pub(super) fn placed_at(
        &self,
        worker: WorkerId,
        task: TaskId,
        attempt: u32,
    ) -> Option<PlacedKey> {
        let range = (task, attempt, WorkerId(0))..=(task, attempt, WorkerId(u64::MAX));
        let ((.., owner), ()) = self.members.get(&worker)?.holds.range(range).next()?;
        Some((task, *owner, attempt))
    }

    /// A placement of a task is gone: one that waits to run anew is in line, if it was the last.
    pub(super) fn begin_anew(&mut self, key: Key) {
        let Some(waiting) = self.anew.get(&key) else { return };
        let newest = self.ledger.newest(key.0, key.1);
        if newest.is_some_and(|(newest, _)| newest >= waiting.attempt) {
            return;
        }
        if let Some(assignment) = self.anew.remove(&key) {
            self.enqueue(assignment);
        }
    }

    /// A worker says what it has free and what waits there.
    pub(super) fn load_reported(&mut self, from: WorkerId, load: Load) {
        let Some(member) = self.members.get_mut(&from) else { return };
        member.on_their_way = member.on_their_way.split_off(&load.assignments.saturating_add(1));
        let mut room = load.available;
        for key in member.on_their_way.values() {
            if let Some(placement) = self.ledger.get(key) {
                room.subtract(&placement.request);
            }
        }
        member.reported = true;
        member.backlog = load.backlog;
        member.backlog.truncate(Load::SHAPES);
        let has_backlog = !member.backlog.is_empty();
        let grew = self.field.spot(from).is_some_and(|spot| !spot.room.covers(&room));
        self.field.update(from, |spot| spot.room = room);
        if grew {
            self.roomier.insert(from);
        }
        self.sharing.reported(from, has_backlog);
        self.press(from);
    }

    /// Puts a task in line; it is placed, or its owner told why not, before the event is over.
    pub(super) fn enqueue(&mut self, assignment: Assignment) {
        let key = (assignment.spec.id, assignment.owner);
        self.queue.remove(&key);
        let shape = self.queue.insert(assignment, &self.field);
        if !self.queue.shape(shape).is_some_and(|shape| shape.blocked) {
            self.fresh.insert(shape);
        }
        self.untold.push(key);
    }

    /// Places what can be placed, in order of rank, then tells owners what still waits.
    pub(super) fn settle(&mut self) {
        let mut candidates: BTreeSet<Candidate> = BTreeSet::new();
        let fresh = core::mem::take(&mut self.fresh);
        candidates.extend(fresh.into_iter().filter_map(|id| self.candidate(id)));
        let roomier = core::mem::take(&mut self.roomier);
        if !roomier.is_empty() {
            self.sharing.room_appeared();
            self.gangs.room_appeared();
        }
        for job in core::mem::take(&mut self.relieved) {
            self.gangs.room_appeared();
            candidates.extend(self.queue.shapes_of(job).filter_map(|id| self.candidate(id)));
        }
        // Groups first: what is hard to place stands behind nothing that is easy.
        self.settle_groups();
        for worker in roomier {
            if self.queue.is_empty() {
                break;
            }
            let Some(spot) = self.field.spot(worker) else { continue };
            for id in self.queue.shapes_for(worker) {
                if self.queue.shape(id).is_some_and(|shape| spot.fits(&shape.request)) {
                    candidates.extend(self.candidate(id));
                }
            }
        }
        while let Some((share, _, id)) = candidates.pop_first() {
            let job = self.queue.shape(id).map(|shape| shape.job);
            let has_more_now = job.is_some_and(|job| self.share_of(job) > share);
            // What was placed since may have put another job before this one.
            if has_more_now || self.place_first(id) {
                candidates.extend(self.candidate(id));
            }
        }
        for key in core::mem::take(&mut self.untold) {
            self.tell_waiting(key);
        }
    }

    /// Where a shape stands among those that could be placed.
    fn candidate(&self, id: ShapeId) -> Option<Candidate> {
        let (rank, first) = self.queue.first(id)?;
        Some((self.share_of(first.spec.id.job()), rank, id))
    }

    /// Places the first task of a shape; false if no worker has room, or nothing waits.
    fn place_first(&mut self, id: ShapeId) -> bool {
        let Some((_, first)) = self.queue.first(id) else { return false };
        let spec = &first.spec;
        let ask = Ask {
            request: &spec.request,
            strategy: &spec.strategy,
            driver: spec.kind == TaskKind::Driver,
            owner: first.owner,
            dependencies: &spec.dependencies,
            near: &first.near,
        };
        let is_over = self.over_quota(spec.id.job(), &spec.request).is_some();
        let worker = if is_over { None } else { choose(&self.field, &ask) };
        let (key, now) = ((spec.id, first.owner), self.now);
        if let Some(shape) = self.queue.shape_mut(id) {
            shape.blocked = worker.is_none();
            // A busy worker would be of no help to a job that has its quota.
            shape.since = (shape.blocked && !is_over).then(|| shape.since.unwrap_or(now));
        }
        let Some(worker) = worker else { return false };
        if let Some(assignment) = self.queue.remove(&key) {
            self.assign(worker, assignment);
        }
        true
    }

    pub(super) fn assign(&mut self, worker: WorkerId, assignment: Assignment) {
        let (task, owner) = (assignment.spec.id, assignment.owner);
        if owner == WorkerId::HEAD {
            self.driver_placed(task.job(), worker);
        } else {
            self.send_placed(owner, (task, assignment.attempt, worker));
        }
        self.place_on(worker, assignment);
    }

    /// Tells a worker to run a task, or to reserve a bundle.
    pub(super) fn place_on(&mut self, worker: WorkerId, assignment: Assignment) {
        let key = (assignment.spec.id, assignment.owner, assignment.attempt);
        let Some(member) = self.members.get_mut(&worker) else { return };
        member.sent += 1;
        let number = member.sent;
        member.on_their_way.insert(number, key);
        self.put_on(key, worker, assignment.spec.request.clone(), number);
        self.send_assigned(worker, assignment);
    }

    /// Enters a placement into the ledger and takes its room.
    pub(super) fn put_on(
        &mut self,
        key: PlacedKey,
        worker: WorkerId,
        request: crate::resource::Resources,
        number: u64,
    ) {
        let (task, owner, attempt) = key;
        if let Some(member) = self.members.get_mut(&worker) {
            member.holds.insert((task, attempt, owner), ());
        }
        self.field.update(worker, |spot| {
            spot.room.subtract(&request);
            spot.placed += 1;
        });
        self.charge(task.job(), &request);
        self.ledger.insert(key, Placement { worker, request, number, blocked: false });
    }

    /// Takes a placement off the ledger. Its room is free again if it has `ended`, or if the
    /// worker's report does not know of it yet; else the worker's next report will say.
    pub(super) fn take_off(&mut self, key: PlacedKey, ended: bool) -> Option<Placement> {
        let placement = self.ledger.remove(&key)?;
        let (task, owner, attempt) = key;
        self.refund(task.job(), &placement.held());
        let worker = placement.worker;
        let Some(member) = self.members.get_mut(&worker) else { return Some(placement) };
        member.holds.remove(&(task, attempt, owner));
        member.pressed = member.pressed.filter(|pressed| *pressed != key);
        let unknown = member.on_their_way.remove(&placement.number).is_some();
        self.field.update(worker, |spot| {
            spot.placed = spot.placed.saturating_sub(1);
            if ended || unknown {
                spot.room.add(&placement.request);
            }
        });
        self.roomier.insert(worker);
        Some(placement)
    }

    /// Why a shape waits; looked up once, until membership changes.
    pub(super) fn reason_of(&mut self, key: Key) -> Option<Reason> {
        let shape = self.queue.shape_of(&key)?;
        if let Some(reason) = &shape.reason {
            return Some(reason.clone());
        }
        let kind = shape.kind();
        let reason = match self.reasons.get(&kind) {
            Some(reason) => reason.clone(),
            None => {
                let reason = Reason::find(&self.field, &shape.request, &shape.strategy);
                if self.reasons.len() >= REMEMBERED_REASONS {
                    self.reasons.clear();
                }
                self.reasons.insert(kind, reason.clone());
                reason
            }
        };
        let id = self.queue.id_of(&key)?;
        self.queue.shape_mut(id)?.reason = Some(reason.clone());
        Some(reason)
    }

    pub(super) fn tell_waiting(&mut self, key: Key) {
        let over = self.queue.shape_of(&key);
        let over = over.and_then(|shape| self.over_quota(shape.job, &shape.request));
        let Some(reason) = over.or_else(|| self.reason_of(key)) else { return };
        let (task, owner) = key;
        if owner == WorkerId::HEAD {
            self.driver_waits(task.job(), reason.to_string());
            return;
        }
        let behind = self.queue.shape_of(&key).map_or(0, super::queue::Shape::len);
        if reason.is_hopeless() || behind <= TELL_BUSY {
            self.send(owner, FromHead::Waiting { task, reason: reason.to_string() });
        }
    }
}

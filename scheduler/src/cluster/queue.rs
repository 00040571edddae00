//! Tasks that wait for room, by shape.
//!
//! Tasks of a job with the same request and strategy are one *shape*: either all of them fit
//! somewhere or none does, so a decision looks at shapes, of which there are few, and never at the
//! million tasks behind them. Within a shape the order is priority, then arrival; between shapes of
//! a job the same, but a shape without room holds nobody up. Between jobs, the one that has the
//! least of the cluster comes first ([`super::fairness`]).

use core::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::id::{JobId, TaskId, WorkerId};
use crate::placement::{Field, Reason, pinned};
use crate::resource::Resources;
use crate::spec::{Assignment, LabelSelector, Strategy};
use crate::time::Timestamp;

/// A waiting task: its id and owner. A parent that runs again on another worker submits the same
/// ids for another owner; both get their answer.
pub(super) type Key = (TaskId, WorkerId);
/// Place in line: higher priority first, then earlier arrival.
pub(super) type Rank = (Reverse<i32>, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ShapeId(u64);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Default,
    Spread,
    Labels(LabelSelector),
    Affinity { worker: WorkerId, soft: bool },
}

impl Class {
    fn of(strategy: &Strategy) -> Self {
        match strategy {
            Strategy::Default | Strategy::Group(_) => Self::Default,
            Strategy::Spread => Self::Spread,
            Strategy::Labels(selector) => Self::Labels(LabelSelector::clone(selector)),
            Strategy::Affinity { worker, soft } => Self::Affinity { worker: *worker, soft: *soft },
        }
    }
}

/// Waiting tasks of a job that ask for the same.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) job: JobId,
    pub(super) request: Resources,
    pub(super) strategy: Strategy,
    /// The only worker that may run them now.
    pub(super) bound: Option<WorkerId>,
    /// No worker has room: new tasks need not be tried.
    pub(super) blocked: bool,
    /// Since when.
    pub(super) since: Option<Timestamp>,
    /// Why, when it was last looked at.
    pub(super) reason: Option<Reason>,
    line: BTreeMap<Rank, Key>,
}

impl Shape {
    pub(super) fn len(&self) -> usize {
        self.line.len()
    }

    /// What decides whether a worker may run them: they share it with shapes of other jobs.
    pub(super) fn kind(&self) -> (Resources, Class) {
        (self.request.clone(), Class::of(&self.strategy))
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        self.line.values().copied()
    }
}

#[derive(Debug)]
struct Queued {
    assignment: Assignment,
    shape: ShapeId,
    rank: Rank,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    tasks: BTreeMap<Key, Queued>,
    shapes: BTreeMap<ShapeId, Shape>,
    ids: BTreeMap<(JobId, Resources, Class), ShapeId>,
    /// Shapes that any worker may run, by the rank of their first task.
    open: BTreeSet<(Rank, ShapeId)>,
    /// Shapes whose author named a worker, bound to it or not.
    named: BTreeMap<WorkerId, BTreeSet<ShapeId>>,
    next_shape: u64,
    next_arrival: u64,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Assignment> {
        self.tasks.get(key).map(|queued| &queued.assignment)
    }

    pub(super) fn shape_of(&self, key: &Key) -> Option<&Shape> {
        self.shapes.get(&self.tasks.get(key)?.shape)
    }

    pub(super) fn id_of(&self, key: &Key) -> Option<ShapeId> {
        self.tasks.get(key).map(|queued| queued.shape)
    }

    pub(super) fn shape(&self, id: ShapeId) -> Option<&Shape> {
        self.shapes.get(&id)
    }

    pub(super) fn shape_mut(&mut self, id: ShapeId) -> Option<&mut Shape> {
        self.shapes.get_mut(&id)
    }

    pub(super) fn shapes(&self) -> impl Iterator<Item = (ShapeId, &Shape)> {
        self.shapes.iter().map(|(id, shape)| (*id, shape))
    }

    /// Shapes of one job.
    pub(super) fn shapes_of(&self, job: JobId) -> impl Iterator<Item = ShapeId> {
        let first = (job, Resources::NONE, Class::Default);
        self.ids.range(first..).take_while(move |((of, ..), _)| *of == job).map(|(_, id)| *id)
    }

    /// Waiting entries of one task, one for each owner.
    pub(super) fn of_task(&self, task: TaskId) -> impl Iterator<Item = Key> {
        self.tasks.range((task, WorkerId(0))..=(task, WorkerId(u64::MAX))).map(|(key, _)| *key)
    }

    /// Waiting entries of one job.
    pub(super) fn of_job(&self, job: JobId) -> Vec<Key> {
        let tasks = TaskId::all_of(job);
        let range = (*tasks.start(), WorkerId(0))..=(*tasks.end(), WorkerId(u64::MAX));
        self.tasks.range(range).map(|(key, _)| *key).collect()
    }

    /// Waiting entries of one owner. Looks at all: owners are lost rarely.
    pub(super) fn of_owner(&self, owner: WorkerId) -> Vec<Key> {
        self.tasks.keys().filter(|(_, other)| *other == owner).copied().collect()
    }

    /// Puts a task in line; an older attempt of it must have been removed.
    pub(super) fn insert(&mut self, assignment: Assignment, field: &Field) -> ShapeId {
        let key = (assignment.spec.id, assignment.owner);
        let rank = (Reverse(assignment.spec.priority), self.next_arrival);
        self.next_arrival += 1;
        let id = self.shape_for(&assignment, field);
        self.edit(id, |shape| {
            shape.line.insert(rank, key);
        });
        self.tasks.insert(key, Queued { assignment, shape: id, rank });
        id
    }

    /// Takes a task out of line.
    pub(super) fn remove(&mut self, key: &Key) -> Option<Assignment> {
        let queued = self.tasks.remove(key)?;
        self.edit(queued.shape, |shape| {
            shape.line.remove(&queued.rank);
        });
        self.forget_if_empty(queued.shape);
        Some(queued.assignment)
    }

    /// The first task of a shape.
    pub(super) fn first(&self, id: ShapeId) -> Option<(Rank, &Assignment)> {
        let (rank, key) = self.shapes.get(&id)?.line.first_key_value()?;
        Some((*rank, &self.tasks.get(key)?.assignment))
    }

    /// Shapes that the worker may run, in no particular order.
    pub(super) fn shapes_for(&self, worker: WorkerId) -> impl Iterator<Item = ShapeId> {
        let bound = self.named.get(&worker).into_iter().flatten().copied();
        let bound = bound.filter(move |id| self.bound(*id) == Some(worker));
        self.open.iter().map(|(_, id)| *id).chain(bound)
    }

    /// Binds and unbinds the shapes that named `worker`, which came, left or closed. Returns them.
    pub(super) fn rebind(&mut self, worker: WorkerId, field: &Field) -> Vec<ShapeId> {
        let ids: Vec<_> = self.named.get(&worker).into_iter().flatten().copied().collect();
        for id in &ids {
            self.edit(*id, |shape| {
                shape.bound = pinned(field, &shape.request, &shape.strategy);
                shape.blocked = false;
                shape.since = None;
            });
        }
        ids
    }

    fn bound(&self, id: ShapeId) -> Option<WorkerId> {
        self.shapes.get(&id)?.bound
    }

    fn shape_for(&mut self, assignment: &Assignment, field: &Field) -> ShapeId {
        let strategy = &assignment.spec.strategy;
        let job = assignment.spec.id.job();
        let key = (job, assignment.spec.request.clone(), Class::of(strategy));
        if let Some(id) = self.ids.get(&key) {
            return *id;
        }
        let id = ShapeId(self.next_shape);
        self.next_shape += 1;
        if let Class::Affinity { worker, .. } = key.2 {
            self.named.entry(worker).or_default().insert(id);
        }
        let request = key.1.clone();
        let bound = pinned(field, &request, strategy);
        let strategy = strategy.clone();
        let line = BTreeMap::new();
        let shape = Shape {
            job,
            request,
            strategy,
            bound,
            blocked: false,
            since: None,
            reason: None,
            line,
        };
        self.shapes.insert(id, shape);
        self.ids.insert(key, id);
        id
    }

    /// Changes a shape and keeps its place among the open ones right.
    fn edit(&mut self, id: ShapeId, change: impl FnOnce(&mut Shape)) {
        let Some(shape) = self.shapes.get_mut(&id) else { return };
        let place = |shape: &Shape| match shape.bound {
            Some(_) => None,
            None => shape.line.keys().next().map(|rank| (*rank, id)),
        };
        let before = place(shape);
        change(shape);
        let after = place(shape);
        if before != after {
            before.map(|entry| self.open.remove(&entry));
            after.map(|entry| self.open.insert(entry));
        }
    }

    fn forget_if_empty(&mut self, id: ShapeId) {
        if self.shapes.get(&id).is_none_or(|shape| !shape.line.is_empty()) {
            return;
        }
        let Some(shape) = self.shapes.remove(&id) else { return };
        if let Strategy::Affinity { worker, .. } = shape.strategy
            && let Some(ids) = self.named.get_mut(&worker)
        {
            ids.remove(&id);
            if ids.is_empty() {
                self.named.remove(&worker);
            }
        }
        let class = Class::of(&shape.strategy);
        self.ids.remove(&(shape.job, shape.request, class));
    }

    /// CL-3: every waiting task stands in the line of exactly its shape, and every open shape is
    /// ordered by its first task.
    pub(super) fn check_invariants(&self) {
        let lines: usize = self.shapes.values().map(Shape::len).sum();
        assert_eq!(lines, self.tasks.len(), "CL-3: lines and tasks differ in number");
        for (key, queued) in &self.tasks {
            let found = self.shapes.get(&queued.shape).and_then(|s| s.line.get(&queued.rank));
            assert_eq!(found, Some(key), "CL-3: {key:?} is not in its line");
        }
        let open = self.shapes.values().filter(|shape| shape.bound.is_none()).count();
        assert_eq!(self.open.len(), open, "CL-3: open shapes");
        for (rank, id) in &self.open {
            let first = self.shapes.get(id).and_then(|shape| shape.line.keys().next());
            assert_eq!(first, Some(rank), "CL-3: {id:?} is ordered by another task");
        }
        assert_eq!(self.ids.len(), self.shapes.len(), "CL-3: ids of shapes");
    }
}

//! Values on disk, and those that are damaged there, as in the runtime
//! (`worker::dispatch::readers`): who reads one waits until it is back in memory; what cannot be
//! read any more the core has to find elsewhere, or to make again. What is being read stays in
//! memory.

use std::collections::VecDeque;
use std::sync::Arc;

use rdist_scheduler::hash::{FastMap, FastSet};
use rdist_scheduler::id::{ActorId, ExecutorId, ObjectId, TaskId, WorkerId};
use rdist_scheduler::local::LocalEvent;
use rdist_scheduler::outcome::{Cause, Outcome, TaskError};
use rdist_scheduler::spec::{Reference, TaskKind, TaskSpec};

use super::{Event, MILLISECOND, Simulation};
use crate::executor::Command;

/// What a worker has on disk, and who reads what.
#[derive(Debug, Default)]
pub(super) struct Disk {
    spilled: FastSet<ObjectId>,
    /// What was damaged here: the core may want something done with it that it has not heard of.
    damaged: FastSet<ObjectId>,
    /// Values that executors were told.
    pins: FastSet<(ExecutorId, ObjectId)>,
    /// And those that their tasks were given.
    holds: FastMap<(ExecutorId, TaskId), Vec<ObjectId>>,
    /// Executors that wait for what comes back from disk.
    waiting: FastMap<ObjectId, Vec<ExecutorId>>,
    /// Tasks that wait for arguments, in order.
    runs: VecDeque<Delayed>,
}

#[derive(Debug)]
struct Delayed {
    executor: ExecutorId,
    spec: Arc<TaskSpec>,
    attempt: u32,
    cancelled: bool,
}

/// What became of values on disk, over all workers.
#[derive(Debug, Default, Clone, Copy)]
pub struct Disks {
    pub spilled: u64,
    /// Tasks and calls that waited for an argument.
    pub delayed: u64,
    pub damaged: u64,
    /// Tasks that could not run since an argument was damaged, and calls that failed for that.
    pub not_started: u64,
    pub failed: u64,
}

impl Disks {
    pub fn add(&mut self, more: &Self) {
        self.spilled += more.spilled;
        self.delayed += more.delayed;
        self.damaged += more.damaged;
        self.not_started += more.not_started;
        self.failed += more.failed;
    }
}

impl Disk {
    fn is_read(&self, object: ObjectId) -> bool {
        self.pins.iter().any(|(_, of)| *of == object)
            || self.holds.values().flatten().any(|of| *of == object)
    }

    /// Whether a call of that actor waits, which comes before later ones.
    pub(super) fn delays(&self, actor: ActorId) -> bool {
        self.runs.iter().any(|run| actor_of(&run.spec) == Some(actor))
    }

    pub(super) fn was_damaged(&self, object: ObjectId) -> bool {
        self.damaged.contains(&object)
    }

    /// Other bytes of the object have come, or it is freed.
    pub(super) fn forget(&mut self, object: ObjectId) {
        self.spilled.remove(&object);
        self.waiting.remove(&object);
    }

    /// An executor reads a value no longer.
    pub(super) fn released(&mut self, by: ExecutorId, object: ObjectId) {
        self.pins.remove(&(by, object));
    }

    pub(super) fn ended(&mut self, executor: ExecutorId, task: TaskId) {
        self.holds.remove(&(executor, task));
    }

    pub(super) fn check_nothing(&self, worker: WorkerId) {
        assert!(self.runs.is_empty(), "{worker} delays {:?}", self.runs);
        assert!(self.holds.is_empty(), "{worker} holds {:?}", self.holds);
    }
}

impl Simulation {
    /// Some of what nobody reads goes to disk.
    pub(super) fn spill(&mut self, worker: WorkerId) {
        let Some(at) = self.workers.get(&worker) else { return };
        let may_go = |object: &ObjectId| !at.disk.is_read(*object);
        let large = at.table.iter().filter(|(_, stored)| !stored.inline);
        let mut large: Vec<ObjectId> = large.map(|(object, _)| *object).filter(may_go).collect();
        large.sort_unstable();
        large.retain(|_| self.disk_dice.one_in(2));
        self.disks.spilled += large.len() as u64;
        if let Some(at) = self.workers.get_mut(&worker) {
            at.disk.spilled.extend(large);
        }
    }

    /// Runs a task when all of its arguments are in memory; calls of one actor in order.
    pub(super) fn run_or_wait(
        &mut self,
        worker: WorkerId,
        executor: ExecutorId,
        spec: Arc<TaskSpec>,
        attempt: u32,
    ) {
        let Some(at) = self.workers.get_mut(&worker) else { return };
        let has_to_wait = actor_of(&spec).is_some_and(|actor| at.disk.delays(actor));
        if has_to_wait || !self.try_run(worker, executor, &spec, attempt) {
            self.disks.delayed += 1;
            let Some(at) = self.workers.get_mut(&worker) else { return };
            at.disk.runs.push_back(Delayed { executor, spec, attempt, cancelled: false });
            self.advance_runs(worker);
        }
    }

    /// False: an argument is on disk.
    fn try_run(
        &mut self,
        worker: WorkerId,
        executor: ExecutorId,
        spec: &Arc<TaskSpec>,
        attempt: u32,
    ) -> bool {
        let Some(at) = self.workers.get_mut(&worker) else { return true };
        let objects: Vec<ObjectId> = spec.dependencies.iter().map(|of| of.object).collect();
        for object in &objects {
            if !at.table.contains_key(object) {
                self.tell(worker, LocalEvent::CopyUnreadable { object: *object });
                self.not_run(worker, executor, spec, attempt);
                return true;
            }
            if at.disk.spilled.contains(object) {
                return false;
            }
        }
        if self.options.faults.damages && !objects.is_empty() {
            at.disk.holds.entry((executor, spec.id)).or_default().extend(objects);
        }
        self.order(worker, executor, Command::Run(Arc::clone(spec), attempt));
        true
    }

    /// Starts the first of the tasks that wait, and those after it.
    fn advance_runs(&mut self, worker: WorkerId) {
        loop {
            let Some(at) = self.workers.get_mut(&worker) else { return };
            let Some(first) = at.disk.runs.pop_front() else { return };
            let lives = at.processes.contains_key(&first.executor);
            if lives && !self.try_run(worker, first.executor, &first.spec, first.attempt) {
                if let Some(at) = self.workers.get_mut(&worker) {
                    at.disk.runs.push_front(first);
                }
                return self.fetch(worker);
            }
            if first.cancelled {
                self.order(worker, first.executor, Command::Cancel(first.spec.id));
            }
        }
    }

    /// Reads back what the tasks that wait are to be given.
    fn fetch(&mut self, worker: WorkerId) {
        let Some(at) = self.workers.get_mut(&worker) else { return };
        let arguments = at.disk.runs.iter().flat_map(|run| &run.spec.dependencies);
        let wanted: Vec<ObjectId> = arguments.map(|of| of.object).collect();
        wanted.into_iter().for_each(|object| self.restore(worker, object));
    }

    fn restore(&mut self, worker: WorkerId, object: ObjectId) {
        let Some(at) = self.workers.get_mut(&worker) else { return };
        if at.disk.spilled.contains(&object) && !at.disk.waiting.contains_key(&object) {
            at.disk.waiting.insert(object, Vec::new());
            let when = self.now + self.disk_dice.below(3 * MILLISECOND);
            self.agenda.at(when & !1, Event::Restored { worker, object });
        }
    }

    /// A value is read from disk, or it is damaged.
    pub(super) fn restored(&mut self, worker: WorkerId, object: ObjectId) {
        let Some(at) = self.workers.get_mut(&worker) else { return };
        if !at.disk.spilled.contains(&object) || !at.disk.waiting.contains_key(&object) {
            return;
        }
        if self.disk_dice.one_in(2) {
            return self.damage(worker, object);
        }
        at.disk.spilled.remove(&object);
        for by in at.disk.waiting.remove(&object).unwrap_or_default() {
            self.deliver(worker, by, object, None);
        }
        self.advance_runs(worker);
    }

    /// Whether another worker can have a value from here.
    pub(super) fn serves(&mut self, worker: WorkerId, object: ObjectId) -> bool {
        let Some(at) = self.workers.get_mut(&worker) else { return false };
        if !at.disk.spilled.contains(&object) {
            return true;
        }
        let is_damaged = self.disk_dice.one_in(3);
        if is_damaged {
            self.damage(worker, object);
        }
        !is_damaged
    }

    /// A value on disk cannot be read: who waits for it waits on.
    fn damage(&mut self, worker: WorkerId, object: ObjectId) {
        self.harm.damaged = true;
        self.disks.damaged += 1;
        let Some(at) = self.workers.get_mut(&worker) else { return };
        let waiting = at.disk.waiting.remove(&object).unwrap_or_default();
        let owner = at.core.owner(object);
        at.table.remove(&object);
        at.disk.spilled.remove(&object);
        at.disk.damaged.insert(object);
        self.tell(worker, LocalEvent::CopyUnreadable { object });
        for by in waiting {
            self.want_again(worker, by, object, owner);
        }
        let Some(at) = self.workers.get_mut(&worker) else { return };
        let runs = std::mem::take(&mut at.disk.runs);
        let wants = |run: &Delayed| run.spec.dependencies.iter().any(|of| of.object == object);
        let (lost, kept): (Vec<_>, Vec<_>) = runs.into_iter().partition(wants);
        at.disk.runs = kept.into();
        for Delayed { executor, spec, attempt, .. } in lost {
            self.not_run(worker, executor, &spec, attempt);
        }
        self.advance_runs(worker);
    }

    fn want_again(
        &mut self,
        worker: WorkerId,
        by: ExecutorId,
        object: ObjectId,
        owner: Option<WorkerId>,
    ) {
        if let Some(owner) = owner {
            let reference = Reference { object, owner };
            self.tell(worker, LocalEvent::Wanted { by, reference });
        }
    }

    /// A task cannot run; a call, whose place in a row is taken, fails.
    fn not_run(&mut self, worker: WorkerId, executor: ExecutorId, spec: &TaskSpec, attempt: u32) {
        let task = spec.id;
        let message = match spec.kind {
            TaskKind::Plain => {
                self.disks.not_started += 1;
                LocalEvent::NotStarted { executor, task, attempt }
            }
            _ => {
                self.disks.failed += 1;
                let outcome = Outcome::Failed(TaskError { task, cause: Cause::ObjectLost });
                LocalEvent::Finished { executor, task, attempt, outcome }
            }
        };
        self.executor_says(worker, executor, message, Vec::new());
    }

    /// Tells an executor what became of an object, as soon as it can be read.
    pub(super) fn deliver(
        &mut self,
        worker: WorkerId,
        to: ExecutorId,
        object: ObjectId,
        error: Option<Arc<TaskError>>,
    ) {
        let Some(at) = self.workers.get_mut(&worker) else { return };
        if error.is_none() && !at.table.contains_key(&object) {
            let was_damaged = at.disk.was_damaged(object);
            assert!(was_damaged, "{object:?} is delivered on {worker}, where it is not");
            let owner = at.core.owner(object);
            self.tell(worker, LocalEvent::CopyUnreadable { object });
            return self.want_again(worker, to, object, owner);
        }
        if error.is_none() && at.disk.spilled.contains(&object) {
            self.restore(worker, object);
            let waiting = self.workers.get_mut(&worker).map(|at| &mut at.disk.waiting);
            waiting.into_iter().for_each(|of| of.entry(object).or_default().push(to));
            return;
        }
        if error.is_none() && self.options.faults.damages {
            at.disk.pins.insert((to, object));
        }
        self.order(worker, to, Command::Deliver(object, error));
    }

    /// A task is to end that may wait here.
    pub(super) fn cancel_delayed(&mut self, worker: WorkerId, executor: ExecutorId, task: TaskId) {
        let Some(at) = self.workers.get_mut(&worker) else { return };
        let mut runs = at.disk.runs.iter_mut();
        match runs.find(|run| run.executor == executor && run.spec.id == task) {
            Some(run) => run.cancelled = true,
            None => self.order(worker, executor, Command::Cancel(task)),
        }
    }

    /// An executor is gone, and reads nothing.
    pub(super) fn end_reader(&mut self, worker: WorkerId, executor: ExecutorId) {
        let Some(at) = self.workers.get_mut(&worker) else { return };
        at.disk.pins.retain(|(by, _)| *by != executor);
        at.disk.holds.retain(|(by, _), _| *by != executor);
        at.disk.waiting.values_mut().for_each(|waiting| waiting.retain(|by| *by != executor));
        self.advance_runs(worker);
    }
}

fn actor_of(spec: &TaskSpec) -> Option<ActorId> {
    match spec.kind {
        TaskKind::ActorCreate(_) => Some(ActorId(spec.id)),
        TaskKind::ActorCall { actor, .. } => Some(actor),
        _ => None,
    }
}

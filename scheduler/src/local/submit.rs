//! A task comes, from a program here or from the head, and waits for its dependencies.

use std::sync::Arc;

use super::{ExecutorRole, LocalAction, LocalCore, Step};
use crate::actor::ActorState;
use crate::id::{ExecutorId, ObjectId, TaskId, WorkerId};
use crate::object::{Borrow, ObjectEntry, Value, Waiter};
use crate::outcome::{Cause, TaskError};
use crate::spec::{Assignment, Strategy, TaskKind, TaskSpec};
use crate::task::{SpillReason, TaskEntry, TaskKey, TaskState};

impl LocalCore {
    pub(super) fn submitted(&mut self, by: ExecutorId, spec: Arc<TaskSpec>) {
        if !self.listens(by) {
            return;
        }
        if spec.stream().is_some() && matches!(spec.kind, TaskKind::Plain) {
            return self.stream_submitted(by, spec);
        }
        let entry = self.tasks.find(spec.id, self.me);
        let known = entry.is_some() || self.results_exist(&spec);
        for index in 0..spec.returns {
            self.hold_made(by, spec.id.object(index));
        }
        if known {
            entry.inspect(|key| self.comes_back(*key, by));
            return;
        }
        // An actor that is dead is made anew when its maker runs again, as a further life.
        let key = match self.last_life(&spec) {
            Some(life) => self.insert_task(spec, self.me, life.saturating_add(1), by),
            None => self.insert_new(spec, by),
        };
        self.begin(key);
    }

    /// Whether a repeated submit finds everything that it would make.
    pub(super) fn results_exist(&self, spec: &TaskSpec) -> bool {
        if let TaskKind::ActorCreate(_) = spec.kind
            && let Some(entry) = self.actors.get(&crate::id::ActorId(spec.id))
            && entry.supervised.is_some()
            && !matches!(entry.place, ActorState::Dead(_))
        {
            return true;
        }
        spec.returns > 0
            && (0..spec.returns).all(|index| {
                self.objects
                    .get(&spec.id.object(index))
                    .is_some_and(|entry| entry.is_owned() && !matches!(entry.value, Value::Absent))
            })
    }

    fn last_life(&self, spec: &TaskSpec) -> Option<u32> {
        let entry = self.actors.get(&crate::id::ActorId(spec.id))?;
        entry.supervised.as_ref().map(|supervised| supervised.life)
    }

    /// The submitter refers to a value that its task will make.
    pub(super) fn hold_made(&mut self, by: ExecutorId, object: ObjectId) {
        let Some(executor) = self.executors.get_mut(&by) else { return };
        if executor.holds.insert(object) {
            self.own(object);
        }
    }

    /// One holder more of an object that a task of this worker will make.
    pub(super) fn own(&mut self, object: ObjectId) {
        if self.hold_own(object) {
            self.drop_leftover(object);
        }
    }

    /// One holder more of an own object; whether what another owner left of it, if it did, is of
    /// no use to anybody.
    pub(super) fn hold_own(&mut self, object: ObjectId) -> bool {
        let me = self.me;
        let new = || ObjectEntry::new(me, Borrow::Owned);
        let (entry, _) = self.objects.get_or_insert_with(object, new);
        entry.holders += 1;
        let is_unused = entry.holders == 1;
        let is_adopted = !entry.is_owned();
        if is_adopted {
            self.adopt(object);
        }
        is_adopted && is_unused
    }

    /// An own task that is submitted for the first time, or again after it was forgotten.
    pub(super) fn insert_new(&mut self, spec: Arc<TaskSpec>, by: ExecutorId) -> TaskKey {
        let first = self.first_try(spec.id);
        let key = self.insert_task(spec, self.me, first, by);
        if first > 0 {
            self.tasks[key].extra().spared = first;
        }
        key
    }

    /// Makes an entry, which holds what the task refers to.
    pub(super) fn insert_task(
        &mut self,
        spec: Arc<TaskSpec>,
        owner: WorkerId,
        attempt: u32,
        submitter: ExecutorId,
    ) -> TaskKey {
        if !(spec.dependencies.is_empty() && spec.borrowed.is_empty()) {
            for reference in spec.dependencies.iter().chain(&spec.borrowed) {
                self.hold(*reference);
            }
        }
        self.tasks.insert(TaskEntry {
            spec,
            state: TaskState::Waiting { here: true },
            owner,
            stamp: 0,
            order: 0,
            attempt,
            missing: 0,
            submitter,
            bundle: crate::group::Slot::NONE,
            assigned: false,
            cancelled: false,
            extra: None,
        })
    }

    /// An own task starts its life, or its next attempt.
    pub(super) fn begin(&mut self, key: TaskKey) {
        if self.tasks[key].spec.policy.is_some() {
            self.set_stream_start(key);
        }
        let spec = Arc::clone(&self.tasks[key].spec);
        match &spec.kind {
            TaskKind::Plain if self.strands(key) => {}
            TaskKind::Plain if is_grouped(&spec) => {
                self.resolve(key, TaskState::Waiting { here: false });
            }
            TaskKind::Plain => {
                let here = self.reason_to_spill(&spec).is_none();
                self.resolve(key, TaskState::Waiting { here });
            }
            TaskKind::ActorCall { actor, actor_owner, rules } => {
                self.begin_call(key, *actor, *actor_owner, *rules)
            }
            TaskKind::ActorCreate(options) => self.begin_actor(key, &spec, options),
            TaskKind::GroupCreate(options) => self.begin_group(key, &spec, options),
            TaskKind::Bundle { .. } => {
                let reason = "a bundle is reserved by a placement group alone".to_owned();
                self.fail(key, TaskError { task: spec.id, cause: Cause::Refused { reason } });
            }
            TaskKind::Driver => {
                let reason = "a task cannot submit a driver; submit a job to the head".to_owned();
                self.fail(key, TaskError { task: spec.id, cause: Cause::Refused { reason } });
            }
        }
    }

    /// Fails an own task whose only worker is gone.
    pub(super) fn strands(&mut self, key: TaskKey) -> bool {
        let spec = &self.tasks[key].spec;
        let id = spec.id;
        let Some(worker) = only_worker(spec).filter(|worker| *worker != self.me) else {
            return false;
        };
        if self.is_dead(worker) {
            self.fail(key, stranded(id, worker));
            return true;
        }
        self.pinned.entry(worker).or_default().insert(id);
        false
    }

    /// Why an own task cannot run on this worker, whatever is free.
    pub(super) fn reason_to_spill(&self, spec: &TaskSpec) -> Option<SpillReason> {
        let stays = match &spec.strategy {
            Strategy::Default => true,
            Strategy::Affinity { worker, .. } => *worker == self.me,
            Strategy::Labels(selector) => {
                let labels = &self.config.labels;
                // What would rather be elsewhere is for the head to place.
                selector.admits(labels) && selector.preference(labels) == selector.soft.len()
            }
            Strategy::Spread => false,
            Strategy::Group(_) => true,
        };
        if !stays {
            return Some(SpillReason::Strategy);
        }
        if !self.ledger.total.covers(&spec.request) {
            return Some(SpillReason::TooLarge);
        }
        if !is_grouped(spec) && self.quotas.counts(spec.id.job(), &spec.request) {
            return Some(SpillReason::Quota);
        }
        // What may run nowhere else still runs here: it would hold up the leaving for ever.
        (self.draining && only_worker(spec).is_none()).then_some(SpillReason::Draining)
    }

    /// Puts the task into `state`, where it waits until each dependency is readable here, or
    /// exists at all, as the state wants. What it waits for is asked for, or fetched.
    pub(super) fn resolve(&mut self, key: TaskKey, state: TaskState) {
        let stamp = self.tasks.restamp(key);
        let entry = &mut self.tasks[key];
        entry.state = state;
        entry.missing = 0;
        if entry.spec.dependencies.is_empty() {
            self.note_resolved(key);
            return;
        }
        let here = entry.wants_copies();
        let spec = Arc::clone(&entry.spec);
        let mut missing = 0;
        for dependency in &spec.dependencies {
            let object = self.objects.get_mut(&dependency.object).expect("RF-1: a task holds it");
            let is_there = if here { object.is_readable(self.me) } else { object.is_available() };
            if is_there {
                continue;
            }
            missing += 1;
            if let Value::Failed(error) = &object.value {
                self.steps.push_back(Step::Fail(key, stamp, Arc::clone(error)));
                continue;
            }
            object.waiters.push(Waiter::Task(key, stamp));
            self.seek(dependency.object, here);
        }
        self.tasks[key].missing = missing;
        if missing == 0 {
            self.note_resolved(key);
        }
    }

    /// One dependency less to wait for.
    pub(super) fn satisfied(&mut self, key: TaskKey, stamp: u64) {
        if self.tasks.current(key, stamp).is_none() {
            return;
        }
        let entry = &mut self.tasks[key];
        entry.missing -= 1;
        if entry.missing == 0 {
            self.note_resolved(key);
        }
    }

    fn note_resolved(&mut self, key: TaskKey) {
        let entry = &self.tasks[key];
        let step = match (&entry.state, &entry.spec.kind) {
            (TaskState::Lane | TaskState::Mailbox, TaskKind::ActorCall { rules, .. })
                if rules.out_of_order =>
            {
                Step::Joins(key, entry.stamp)
            }
            (TaskState::Lane, TaskKind::ActorCall { actor, .. }) => {
                Step::Lane(*actor, entry.submitter)
            }
            (TaskState::Mailbox, TaskKind::ActorCall { actor, .. }) => {
                Step::Mailbox(*actor, entry.owner)
            }
            _ => Step::Resolved(key, entry.stamp),
        };
        self.steps.push_back(step);
    }

    /// Every dependency of a task that is no call is there: it queues, starts or is spilled.
    pub(super) fn resolved(&mut self, key: TaskKey) {
        let entry = &self.tasks[key];
        let TaskState::Waiting { here } = entry.state else { return };
        if self.awaits_state(key) {
            return;
        }
        let entry = &self.tasks[key];
        if entry.assigned {
            self.waits_no_longer(key);
        }
        let entry = &self.tasks[key];
        if entry.assigned || entry.owner != self.me || entry.bundle.is_some() {
            self.enqueue(key);
            return;
        }
        if is_grouped(&entry.spec) {
            return self.enter_group(key);
        }
        let is_actor = matches!(entry.spec.kind, TaskKind::ActorCreate(_));
        // The head moves what merely queues, and knows nothing of its labels.
        let leaves_if_full = is_actor || matches!(entry.spec.strategy, Strategy::Labels(_));
        let reason = match self.reason_to_spill(&entry.spec) {
            None if leaves_if_full && !self.ledger.fits(&entry.spec.request) => {
                Some(SpillReason::NoRoom)
            }
            reason => reason,
        };
        match reason {
            Some(SpillReason::NoRoom) if self.waits_for_leases(key) => {}
            Some(reason) => self.spill(key, reason),
            None if !here => self.resolve(key, TaskState::Waiting { here: true }),
            None if is_actor => self.start(key),
            None => self.enqueue(key),
        }
    }

    /// The head wants this worker to run a task.
    pub(super) fn assigned(&mut self, assignment: Assignment) {
        if self.waits_for_older_try(&assignment) {
            self.superseding.insert((assignment.spec.id, assignment.owner), assignment);
            return;
        }
        let Assignment { spec, attempt, owner, .. } = assignment;
        let (id, is_mine) = (spec.id, owner == self.me);
        if matches!(spec.kind, TaskKind::Bundle { .. }) {
            return self.bundle_assigned(Assignment::new(spec, attempt, owner));
        }
        let is_call = matches!(spec.kind, TaskKind::ActorCall { .. });
        if is_call || (owner != WorkerId::HEAD && self.is_dead(owner)) {
            self.head.ended.push((id, attempt));
            return;
        }
        if let Some(key) = self.tasks.find(id, owner) {
            self.assigned_again(key, attempt, is_mine);
            return;
        }
        if let Some(hosted) = self.hosted.get_mut(&crate::id::ActorId(id))
            && hosted.owner == owner
        {
            if attempt == hosted.life {
                hosted.assigned = true;
                return self.report_if_blocked_actor(crate::id::ActorId(id));
            }
            if attempt < hosted.life {
                self.head.ended.push((id, attempt));
                return;
            }
            self.end_hosted(crate::id::ActorId(id), crate::outcome::Death::Ended);
        } else if is_mine {
            // Cancelled, or ended, since it was spilled.
            self.head.ended.push((id, attempt));
            return;
        }
        let key = self.insert_task(Arc::new(spec), owner, attempt, ExecutorId(0));
        self.tasks[key].assigned = true;
        if owner != WorkerId::HEAD {
            self.peer(owner).hosted.insert(id);
        }
        self.resolve(key, TaskState::Waiting { here: true });
    }

    /// A new try of a task of another owner, of which an older one is here that cannot become the
    /// newer one: it was cancelled, or yields from another item on. It has to end first.
    fn waits_for_older_try(&mut self, assignment: &Assignment) -> bool {
        let (task, owner) = (assignment.spec.id, assignment.owner);
        if owner == self.me {
            return false;
        }
        let Some(key) = self.tasks.find(task, owner) else { return false };
        let entry = &mut self.tasks[key];
        let becomes_newer = !entry.cancelled && entry.spec.stream().is_none();
        if becomes_newer || assignment.attempt <= entry.attempt {
            return false;
        }
        if let TaskState::Running { executor, .. } = entry.state {
            entry.cancelled = true;
            self.act(LocalAction::Cancel { executor, task });
            return true;
        }
        self.fail(key, TaskError { task, cause: Cause::Cancelled });
        false
    }

    /// An assignment names a task that is here already.
    fn assigned_again(&mut self, key: TaskKey, attempt: u32, is_mine: bool) {
        let entry = &mut self.tasks[key];
        let id = entry.spec.id;
        if attempt < entry.attempt {
            self.head.ended.push((id, attempt));
            return;
        }
        if !is_mine {
            // A newer attempt takes over what the older one has done so far.
            entry.attempt = attempt;
            entry.assigned = true;
            return self.report_if_blocked(key);
        }
        match entry.state {
            _ if attempt != entry.attempt => self.head.ended.push((id, attempt)),
            TaskState::Placed { worker } if worker != self.me => {
                self.head.ended.push((id, attempt));
            }
            TaskState::Spilled { .. } | TaskState::Placed { .. } => {
                entry.assigned = true;
                if entry.cancelled {
                    self.fail(key, TaskError { task: id, cause: Cause::Cancelled });
                } else {
                    self.resolve(key, TaskState::Waiting { here: true });
                }
            }
            _ => {
                entry.assigned = true;
                self.report_if_blocked(key);
            }
        }
    }

    /// The process for a task that has its resources; asks for one where there is none.
    pub(super) fn executor_for(&mut self, spec: &TaskSpec) -> ExecutorId {
        let job = spec.id.job();
        let role = match &spec.kind {
            TaskKind::Driver => ExecutorRole::Driver,
            TaskKind::ActorCreate(_) if spec.is_alone() => {
                ExecutorRole::Actor(crate::id::ActorId(spec.id))
            }
            TaskKind::Plain if spec.is_alone() => {
                return self.executor_alone(job, &spec.request);
            }
            _ => ExecutorRole::Pool,
        };
        match role {
            ExecutorRole::Pool => self.pool_of(job),
            role => self.start_executor(job, role, spec.request.clone(), 0),
        }
    }
}

/// The only worker where the task may run, if its author named one.
pub(super) fn only_worker(spec: &TaskSpec) -> Option<WorkerId> {
    match (&spec.kind, &spec.strategy) {
        (
            TaskKind::Plain | TaskKind::ActorCreate(_),
            Strategy::Affinity { worker, soft: false },
        ) => Some(*worker),
        _ => None,
    }
}

/// Whether the task runs in a placement group.
pub(super) fn is_grouped(spec: &TaskSpec) -> bool {
    matches!(spec.strategy, Strategy::Group(_))
}

/// Why a task fails whose only worker is gone.
pub(super) fn stranded(task: TaskId, worker: WorkerId) -> TaskError {
    let reason = format!("it may only run on {worker}, which is gone; soft affinity lets it move");
    TaskError { task, cause: Cause::WorkerDied { reason } }
}

//! Who reads which value: executors that were told it (pins), tasks that were given it (holds),
//! and those who wait for a value to come back from disk.
//!
//! A task that has to wait for one of its arguments keeps later calls of the same actor behind it.
//! The first of the tasks that wait is served before all others, with all of its arguments, so
//! that no two of them wait for each other's room.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use rdist_scheduler::hash::IdMap;
use rdist_scheduler::id::{ActorId, ExecutorId, ObjectId, TaskId, WorkerId};
use rdist_scheduler::local::LocalEvent;
use rdist_scheduler::outcome::{Cause, Outcome, TaskError};
use rdist_scheduler::spec::{Reference, TaskKind, TaskSpec};
use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::Dispatch;
use crate::store::Stored;
use crate::wire::executor::{ToExecutor, Value};
use crate::worker::inbox::Served;

/// Tasks behind the first one whose arguments are fetched ahead.
const AHEAD: usize = 4;

/// See the module's text.
#[derive(Default)]
pub(super) struct Readers {
    /// Blocks that running tasks were given.
    holds: HashMap<(ExecutorId, TaskId), SmallVec<[ObjectId; 2]>>,
    /// Tasks that wait for arguments from disk, in order.
    runs: VecDeque<DelayedRun>,
    /// What the first of them holds already.
    first_holds: Vec<ObjectId>,
    /// Who waits for a value from disk.
    waiting: IdMap<ObjectId, Waiting>,
}

struct DelayedRun {
    executor: ExecutorId,
    spec: Arc<TaskSpec>,
    attempt: u32,
    /// Somebody asked for its end meanwhile.
    cancelled: bool,
}

#[derive(Default)]
struct Waiting {
    executors: Vec<ExecutorId>,
    peers: Vec<oneshot::Sender<Option<Served>>>,
}

impl Dispatch {
    /// Runs a task, as soon as all of its arguments are in memory.
    pub(super) fn run_task(&mut self, executor: ExecutorId, spec: Arc<TaskSpec>, attempt: u32) {
        let has_to_wait = actor_of(&spec).is_some_and(|actor| self.readers.delays(actor));
        if has_to_wait || !self.try_run(executor, &spec, attempt) {
            let run = DelayedRun { executor, spec, attempt, cancelled: false };
            self.readers.runs.push_back(run);
            self.advance_runs();
        }
    }

    /// False: an argument is on disk.
    fn try_run(&mut self, executor: ExecutorId, spec: &Arc<TaskSpec>, attempt: u32) -> bool {
        let mut dependencies = Vec::with_capacity(spec.dependencies.len());
        let mut blocks = SmallVec::<[ObjectId; 2]>::new();
        for reference in &spec.dependencies {
            let object = reference.object;
            let Some(stored) = self.table.get(object) else {
                // Lost on disk since the core gave the order.
                tracing::warn!(task = %spec.id, %object, "an argument is lost");
                self.tell(LocalEvent::CopyUnreadable { object });
                self.not_run(executor, spec, attempt);
                return true;
            };
            let Some(value) = stored.to_wire() else { return false };
            if matches!(value, Value::Block(_)) {
                blocks.push(object);
            }
            dependencies.push(value);
        }
        if !blocks.is_empty() {
            for object in &blocks {
                self.table.hold(*object);
            }
            self.readers.holds.entry((executor, spec.id)).or_default().extend(blocks);
        }
        let spec = TaskSpec::clone(spec);
        if let Some(at) = self.executors.get_mut(&executor)
            && at.job != spec.id.job()
        {
            at.guests.insert(spec.id.job());
        }
        self.send(executor, &ToExecutor::Run { spec, attempt, dependencies, after: None });
        true
    }

    /// A task has ended: nobody reads its arguments for its sake.
    pub(super) fn end_holds(&mut self, executor: ExecutorId, task: TaskId) {
        if self.readers.holds.is_empty() {
            return;
        }
        let held = self.readers.holds.remove(&(executor, task));
        held.into_iter().flatten().for_each(|object| self.end_hold(object));
    }

    fn end_hold(&mut self, object: ObjectId) {
        if let Some(stored) = self.table.let_go(object) {
            self.give_back(object, stored);
        }
    }

    /// Tells an executor what became of an object, as soon as it can be read.
    pub(super) fn deliver(
        &mut self,
        to: ExecutorId,
        object: ObjectId,
        error: Option<Arc<TaskError>>,
    ) {
        if let Some(error) = error {
            let error = TaskError::clone(&error);
            return self.send(to, &ToExecutor::Failed { object, error });
        }
        match self.table.get(object).map(Stored::to_wire) {
            Some(Some(value)) => {
                if matches!(value, Value::Block(_)) {
                    self.table.pin(object, to);
                }
                self.send(to, &ToExecutor::Ready { object, value });
            }
            Some(None) => {
                self.wait_for(object, |waiting| waiting.executors.push(to));
            }
            None => {
                // Lost on disk since the core gave the order.
                let owner = self.core.owner(object);
                self.tell(LocalEvent::CopyUnreadable { object });
                self.want_again(to, object, owner);
            }
        }
    }

    /// An executor has let go of an object.
    pub(super) fn released(&mut self, object: ObjectId, by: ExecutorId) {
        self.tell(LocalEvent::Released { by, object });
        if let Some(stored) = self.table.unpin_all(object, by) {
            self.give_back(object, stored);
        }
    }

    /// An executor gave up what it was told once. It may have been told again since.
    pub(super) fn unpin(&mut self, object: ObjectId, by: ExecutorId) {
        if let Some(stored) = self.table.unpin(object, by) {
            self.give_back(object, stored);
        }
    }

    /// Nobody can wait for an object that is gone.
    pub(super) fn forget_waiting(&mut self, object: ObjectId) {
        self.readers.waiting.remove(&object);
    }

    /// Hands a value to another worker, as soon as it is in memory.
    pub(super) fn serve(&mut self, object: ObjectId, reply: oneshot::Sender<Option<Served>>) {
        if let Some(Stored::Spilled { .. }) = self.table.get(object) {
            return self.wait_for(object, |waiting| waiting.peers.push(reply));
        }
        // The asker may be gone; then nobody needs the answer.
        let _ = reply.send(self.served(object));
    }

    fn wait_for(&mut self, object: ObjectId, add: impl FnOnce(&mut Waiting)) {
        let is_first = !self.readers.waiting.contains_key(&object);
        add(self.readers.waiting.entry(object).or_default());
        if is_first {
            self.restore(object);
        }
    }

    /// A value can be read again.
    pub(super) fn came_back(&mut self, object: ObjectId) {
        if let Some(waiting) = self.readers.waiting.remove(&object) {
            for executor in waiting.executors {
                self.deliver(executor, object, None);
            }
            for reply in waiting.peers {
                self.serve(object, reply);
            }
        }
        self.advance_runs();
    }

    /// Starts the first of the tasks that wait, and those after it, as far as their arguments are
    /// in memory; what is missing is fetched.
    pub(super) fn advance_runs(&mut self) {
        while let Some(first) = self.readers.runs.front() {
            let (executor, attempt) = (first.executor, first.attempt);
            let (spec, cancelled) = (first.spec.clone(), first.cancelled);
            for reference in &spec.dependencies {
                let object = reference.object;
                if matches!(self.table.get(object), Some(Stored::Block(_)))
                    && !self.readers.first_holds.contains(&object)
                {
                    self.table.hold(object);
                    self.readers.first_holds.push(object);
                }
            }
            if self.executors.contains_key(&executor) && !self.try_run(executor, &spec, attempt) {
                return self.fetch_ahead();
            }
            if cancelled {
                self.send(executor, &ToExecutor::Cancel(spec.id));
            }
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        self.readers.runs.pop_front();
        for object in std::mem::take(&mut self.readers.first_holds) {
            self.end_hold(object);
        }
    }

    fn fetch_ahead(&mut self) {
        let wanted: Vec<ObjectId> = self
            .readers
            .runs
            .iter()
            .take(AHEAD)
            .flat_map(|run| run.spec.dependencies.iter().map(|reference| reference.object))
            .filter(|object| matches!(self.table.get(*object), Some(Stored::Spilled { .. })))
            .collect();
        for object in wanted {
            self.wait_for(object, |_| {});
        }
    }

    /// A task that may wait here is to end.
    pub(super) fn cancel(&mut self, executor: ExecutorId, task: TaskId) {
        let mut runs = self.readers.runs.iter_mut();
        match runs.find(|run| run.executor == executor && run.spec.id == task) {
            Some(run) => run.cancelled = true,
            None => self.send(executor, &ToExecutor::Cancel(task)),
        }
    }

    /// A value on disk cannot be read: the core looks for another copy, or makes it again.
    pub(super) fn lost_copy(&mut self, object: ObjectId) {
        let waiting = self.readers.waiting.remove(&object).unwrap_or_default();
        let owner = self.core.owner(object);
        self.free(object);
        self.tell(LocalEvent::CopyUnreadable { object });
        for by in waiting.executors {
            self.want_again(by, object, owner);
        }
        for reply in waiting.peers {
            let _ = reply.send(None);
        }
        let wants = |run: &DelayedRun| {
            run.spec.dependencies.iter().any(|reference| reference.object == object)
        };
        let first_wants = self.readers.runs.front().is_some_and(wants);
        if first_wants {
            for object in std::mem::take(&mut self.readers.first_holds) {
                self.end_hold(object);
            }
        }
        let runs = std::mem::take(&mut self.readers.runs);
        let (lost, kept): (Vec<_>, Vec<_>) = runs.into_iter().partition(wants);
        self.readers.runs = kept.into();
        for DelayedRun { executor, spec, attempt, .. } in lost {
            self.not_run(executor, &spec, attempt);
        }
        self.advance_runs();
    }

    /// An executor waits on for an object that was lost.
    fn want_again(&mut self, by: ExecutorId, object: ObjectId, owner: Option<WorkerId>) {
        if let Some(owner) = owner {
            self.tell(LocalEvent::Wanted { by, reference: Reference { object, owner } });
        }
    }

    /// A task cannot run now: an argument is lost. Calls have their place in a row, which has gone
    /// on; so they fail.
    fn not_run(&mut self, executor: ExecutorId, spec: &TaskSpec, attempt: u32) {
        let task = spec.id;
        if matches!(spec.kind, TaskKind::Plain) {
            return self.tell(LocalEvent::NotStarted { executor, task, attempt });
        }
        let outcome = Outcome::Failed(TaskError { task, cause: Cause::ObjectLost });
        self.tell(LocalEvent::Finished { executor, task, attempt, outcome });
    }

    /// A value cannot come back for want of room: those here who wait for it are told why.
    pub(super) fn refuse_readers(&mut self, object: ObjectId, reason: &str) {
        let error = |task| TaskError { task, cause: Cause::Refused { reason: reason.to_owned() } };
        if let Some(waiting) = self.readers.waiting.get_mut(&object) {
            for executor in std::mem::take(&mut waiting.executors) {
                let error = error(object.task);
                self.send(executor, &ToExecutor::Failed { object, error });
            }
        }
        let wants = |run: &DelayedRun| {
            run.spec.dependencies.iter().any(|reference| reference.object == object)
        };
        let is_first = self.readers.runs.front().is_some_and(wants);
        if is_first && let Some(run) = self.readers.runs.pop_front() {
            for object in std::mem::take(&mut self.readers.first_holds) {
                self.end_hold(object);
            }
            let (executor, attempt, task) = (run.executor, run.attempt, run.spec.id);
            let outcome = Outcome::Failed(error(task));
            self.tell(LocalEvent::Finished { executor, task, attempt, outcome });
        }
        let wanted = self.readers.runs.iter().any(wants)
            || self.readers.waiting.get(&object).is_some_and(|waiting| !waiting.peers.is_empty());
        if !wanted {
            self.readers.waiting.remove(&object);
            self.room.unwanted(object);
        }
        self.advance_runs();
    }

    /// An executor is gone, and reads nothing.
    pub(super) fn end_reader(&mut self, executor: ExecutorId) {
        self.room.executor_died(executor);
        let gone = self.readers.holds.extract_if(|(by, _), _| *by == executor);
        let held: Vec<ObjectId> = gone.flat_map(|(_, objects)| objects).collect();
        held.into_iter().for_each(|object| self.end_hold(object));
        for (object, stored) in self.table.executor_died(executor) {
            self.give_back(object, stored);
        }
        for waiting in self.readers.waiting.values_mut() {
            waiting.executors.retain(|by| *by != executor);
        }
        // Those behind a task of this executor may go on.
        self.advance_runs();
    }
}

impl Readers {
    /// Whether a call of that actor waits, which has to come before later ones.
    pub(super) fn delays(&self, actor: ActorId) -> bool {
        self.runs.iter().any(|run| actor_of(&run.spec) == Some(actor))
    }
}

fn actor_of(spec: &TaskSpec) -> Option<ActorId> {
    match spec.kind {
        TaskKind::ActorCreate(_) => Some(ActorId(spec.id)),
        TaskKind::ActorCall { actor, .. } => Some(actor),
        _ => None,
    }
}

//! How programs read values: they ask, wait, and look whether the right ones come.

use std::sync::Arc;

use rdist_scheduler::id::{ExecutorId, ObjectId, WorkerId};
use rdist_scheduler::local::LocalEvent;
use rdist_scheduler::outcome::{Cause, TaskError};
use rdist_scheduler::spec::{Reference, TaskKind, TaskSpec};

use super::At;
use super::direct::Known;
use crate::cluster::Simulation;
use crate::network::mix;

impl Simulation {
    /// Reads the next wanted value; false if it has to wait.
    pub(super) fn read_wanted(&mut self, at: At) -> bool {
        let Some(run) = self.running(at) else { return false };
        let Some(reference) = run.wants.front().copied() else { return true };
        let object = reference.object;
        let (value, contains) = match self.knows(at, object) {
            Known::Value(value) => {
                self.check_value(object, value, &[]);
                (value, Vec::new())
            }
            Known::Failed(error) => {
                self.read_failed(at, object, &error);
                return true;
            }
            Known::Nothing
                if self.workers[&at.worker].processes[&at.executor].views.contains(&object) =>
            {
                let worker = &self.workers[&at.worker];
                match worker.table.get(&object) {
                    Some(stored) => {
                        let contains = stored.contains.clone();
                        (self.checked_value(at.worker, object), contains)
                    }
                    // Its job has ended, and it will not read on.
                    None if worker.processes[&at.executor].leaving => return false,
                    // It reads in place what the worker has freed with another job.
                    None if worker.ended.contains(&object.task.job()) => (0, Vec::new()),
                    None => panic!("{object:?} is read on {}, where it is not", at.worker),
                }
            }
            Known::Nothing | Known::Coming => {
                self.wait_for(at, reference);
                return false;
            }
        };
        let known = self.oracle.get(object).is_some();
        let Some(run) = self.running(at) else { return false };
        run.wants.pop_front();
        if known {
            run.read = mix(run.read, value);
        }
        let inner = run.inner;
        self.calls.observed(object.task, value);
        if inner {
            self.let_go(at, object);
            return true;
        }
        let Some(run) = self.running(at) else { return false };
        run.inner = true;
        run.wants.extend(&contains);
        for inner in contains {
            self.hold(at, inner, true);
        }
        true
    }

    /// A run waits for a value, from its worker or from another executor.
    fn wait_for(&mut self, at: At, reference: Reference) {
        self.leave_lease(at);
        let (executor, object) = (at.executor, reference.object);
        let comes_directly = self.awaits_answer(at, object);
        let Some(process) = self.process(at.worker, executor) else { return };
        let mut is_first = false;
        if !comes_directly {
            let waiting = process.waiting.entry(object).or_default();
            is_first = waiting.is_empty();
            waiting.push(at.run);
        }
        let Some(run) = process.runs.get_mut(&at.run) else { return };
        run.blocked = true;
        let takes_turns = run.takes_turns();
        self.call_waits(at);
        self.say_blocked(at, true);
        if takes_turns {
            self.turn(at.worker, executor);
        }
        if is_first {
            let wanted = LocalEvent::Wanted { by: executor, reference };
            self.say(at.worker, executor, wanted, Vec::new());
        }
    }

    pub(super) fn delivered(
        &mut self,
        worker: WorkerId,
        executor: ExecutorId,
        object: ObjectId,
        error: Option<Arc<TaskError>>,
    ) {
        let Some(process) = self.process(worker, executor) else { return };
        let waiting = process.waiting.remove(&object).unwrap_or_default();
        let is_end = error.as_ref().is_some_and(|error| error.cause == Cause::EndOfStream);
        if let Some(error) = error.as_ref().filter(|_| !is_end) {
            for run in &waiting {
                let at = At { worker, executor, run: *run };
                self.excuse_reader(at, object, error);
            }
        }
        let Some(process) = self.process(worker, executor) else { return };
        if error.is_none() && process.holds.contains_key(&object) {
            process.views.insert(object);
        }
        for number in waiting {
            let at = At { worker, executor, run: number };
            if let Some(error) = &error {
                self.misses(at, object, error);
            }
            self.goes_on(at);
        }
        self.answered(worker, executor, object);
    }

    /// What a run wants has failed, as its process knows.
    fn read_failed(&mut self, at: At, object: ObjectId, error: &TaskError) {
        self.excuse_reader(at, object, error);
        self.misses(at, object, error);
    }

    fn excuse_reader(&self, at: At, object: ObjectId, error: &TaskError) {
        if self.runs_for_nobody(at) {
            return;
        }
        let run = self.workers[&at.worker].processes[&at.executor].runs.get(&at.run);
        let own = run.map(|run| &run.slots[run.spec.borrowed.len()..]).unwrap_or_default();
        let has_called = self.called.contains_key(&object.task)
            && own.contains(&Reference { object, owner: at.worker });
        match has_called {
            true => self.excuse_caller(object.task, error),
            false => self.excuse(object.task, error),
        }
    }

    /// A run goes on without a value. That a call fails is no failure of the task that made it.
    fn misses(&mut self, at: At, object: ObjectId, error: &TaskError) {
        let is_end = error.cause == Cause::EndOfStream;
        let is_known = self.oracle.get(object).is_some();
        let Some(run) = self.running(at) else { return };
        run.failed |= !is_end && is_known;
        if let Some(claim) = &mut run.claim {
            claim.error = Some(error.clone());
        }
        run.wants.pop_front();
        let inner = run.inner;
        if run.stream.is_some() && !inner {
            self.stop_reading(at, object, is_end);
        } else if inner {
            self.let_go(at, object);
        }
    }

    /// A head that restarted may place a task again whose first run had just ended: the owner has
    /// its result, and may have freed what the second run reads, and what its children read.
    fn runs_for_nobody(&self, at: At) -> bool {
        let mut next = Some(at);
        while let Some(at) = next {
            if self.has_no_owner(at) {
                return true;
            }
            next = self.parent_of(at);
        }
        false
    }

    /// The run that submitted what runs there.
    fn parent_of(&self, at: At) -> Option<At> {
        let spec = &self.workers[&at.worker].processes[&at.executor].runs.get(&at.run)?.spec;
        let parent = Some(spec.parent).filter(|parent| *parent != spec.id)?;
        self.workers.iter().find_map(|(worker, of)| {
            of.processes.iter().find_map(|(executor, process)| {
                let (run, _) = process.runs.iter().find(|(_, run)| run.spec.id == parent)?;
                Some(At { worker, executor: *executor, run: *run })
            })
        })
    }

    fn has_no_owner(&self, at: At) -> bool {
        let Some(worker) = self.workers.get(&at.worker) else { return true };
        let Some(run) = worker.processes[&at.executor].runs.get(&at.run) else { return true };
        let task = run.spec.id;
        let Some(here) = worker.core.tasks().find(|view| view.task == task) else { return true };
        let owner = self.workers.get(&here.owner);
        here.owner != WorkerId::HEAD
            && owner.is_none_or(|owner| !owner.core.tasks().any(|view| view.task == task))
    }

    /// A value that is given with the order to run. The order keeps it, which counts where the
    /// process is of another job than the caller, whose end frees what the worker's table has.
    pub(super) fn given_value(&self, worker: WorkerId, spec: &TaskSpec, object: ObjectId) -> u64 {
        let at = &self.workers[&worker];
        let is_foreign = matches!(spec.kind, TaskKind::ActorCall { actor, .. }
            if actor.0.job() != spec.id.job());
        let is_over = is_foreign && at.ended.contains(&spec.id.job());
        match self.oracle.get(object) {
            Some(expected) if is_over && !at.table.contains_key(&object) => expected.value,
            _ => self.checked_value(worker, object),
        }
    }

    /// The value in the worker's table, which must be there and right.
    pub(super) fn checked_value(&self, worker: WorkerId, object: ObjectId) -> u64 {
        let Some(stored) = self.workers[&worker].table.get(&object) else {
            panic!("{object:?} is read on {worker}, where it is not");
        };
        self.check_value(object, stored.value, &stored.contains);
        stored.value
    }

    fn check_value(&self, object: ObjectId, value: u64, contains: &[Reference]) {
        if let Some(expected) = self.oracle.get(object) {
            let is_endless = self.endless.contains(&object.task);
            assert!(!is_endless, "{object:?} is there, although its task was to be cancelled");
            assert_eq!(value, expected.value, "{object:?} has a wrong value");
            let contains = contains.iter().map(|inner| inner.object);
            assert!(contains.eq(expected.contains.iter().copied()), "{object:?} contains others");
        }
    }
}

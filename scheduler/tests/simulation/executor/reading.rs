//! How programs read values: they ask, wait, and look whether the right ones come.

use std::sync::Arc;

use rdist_scheduler::id::{ExecutorId, ObjectId, WorkerId};
use rdist_scheduler::local::LocalEvent;
use rdist_scheduler::outcome::{Cause, TaskError};

use super::At;
use crate::cluster::Simulation;
use crate::network::mix;

impl Simulation {
    /// Reads the next wanted value; false if it has to wait.
    pub(super) fn read_wanted(&mut self, at: At) -> bool {
        let Some(run) = self.running(at) else { return false };
        let Some(reference) = run.wants.front().copied() else { return true };
        let (task, attempt, object) = (run.spec.id, run.attempt, reference.object);
        let takes_turns = run.spec.takes_turns();
        let Some(process) = self.process(at.worker, at.executor) else { return false };
        if !process.views.contains(&object) {
            let waiting = process.waiting.entry(object).or_default();
            let first = waiting.is_empty();
            waiting.push(at.run);
            if let Some(run) = process.runs.get_mut(&at.run) {
                run.blocked = true;
            }
            let executor = at.executor;
            let blocked = LocalEvent::Blocked { executor, task, attempt };
            self.say(at.worker, executor, blocked, Vec::new());
            if takes_turns {
                self.turn(at.worker, executor);
            }
            if first {
                let wanted = LocalEvent::Wanted { by: executor, reference };
                self.say(at.worker, executor, wanted, Vec::new());
            }
            return false;
        }
        if self.workers[&at.worker].processes[&at.executor].leaving
            && !self.workers[&at.worker].table.contains_key(&object)
        {
            return false; // its job has ended, and it will not read on
        }
        let value = self.checked_value(at.worker, object);
        let known = self.oracle.get(object).is_some();
        let contains = match self.workers[&at.worker].table.get(&object) {
            Some(stored) => stored.contains.clone(),
            None => Vec::new(),
        };
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
                if !self.runs_for_nobody(at) {
                    self.excuse(object.task, error);
                }
            }
        }
        let Some(process) = self.process(worker, executor) else { return };
        if error.is_none() && process.holds.contains_key(&object) {
            process.views.insert(object);
        }
        for number in waiting {
            let at = At { worker, executor, run: number };
            let Some(run) = self.running(at) else { continue };
            run.blocked = false;
            let (task, attempt, inner) = (run.spec.id, run.attempt, run.inner);
            if error.is_some() {
                run.failed |= !is_end;
                run.wants.pop_front();
                if run.stream.is_some() && !inner {
                    self.stop_reading(at, object, is_end);
                } else if inner {
                    self.let_go(at, object);
                }
            }
            let unblocked = LocalEvent::Unblocked { executor, task, attempt };
            self.say(worker, executor, unblocked, Vec::new());
            self.step_soon(at, 0);
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

    /// The value in the worker's table, which must be there and right.
    pub(super) fn checked_value(&self, worker: WorkerId, object: ObjectId) -> u64 {
        let Some(stored) = self.workers[&worker].table.get(&object) else {
            panic!("{object:?} is read on {worker}, where it is not");
        };
        if let Some(expected) = self.oracle.get(object) {
            assert_eq!(stored.value, expected.value, "{object:?} has a wrong value");
            let contains = stored.contains.iter().map(|inner| inner.object);
            assert!(contains.eq(expected.contains.iter().copied()), "{object:?} contains others");
        }
        stored.value
    }
}

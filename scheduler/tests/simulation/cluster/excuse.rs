//! Which errors something explains.

use rdist_scheduler::hash::{FastMap, FastSet};
use rdist_scheduler::id::{ActorId, TaskId};
use rdist_scheduler::outcome::{Cause, TaskError};

use super::{Harm, Simulation};

/// By which tries of drivers tasks and actors were submitted, by them or by their tasks.
#[derive(Debug, Default)]
pub struct DriverTries {
    /// What the ids of the try's own children derive from.
    roots: FastMap<TaskId, TaskId>,
    /// Those of tries whose process has died.
    lost: FastSet<TaskId>,
}

impl DriverTries {
    /// A task of `parent`, whose children derive from `root`.
    pub fn submitted(&mut self, task: TaskId, parent: TaskId, root: TaskId) {
        let root = self.roots.get(&parent).copied().unwrap_or(root);
        self.roots.insert(task, root);
    }

    pub fn lost(&mut self, roots: impl Iterator<Item = TaskId>) {
        self.lost.extend(roots);
    }

    /// Whether a lost try has put, made or submitted it.
    fn is_left(&self, task: TaskId) -> bool {
        let root = self.roots.get(&task).unwrap_or(&task);
        self.lost.contains(root)
    }
}

impl Simulation {
    /// What is left of a job that has ended may find anything lost.
    pub fn excuse(&self, task: TaskId, error: &TaskError) {
        let job = task.job();
        if self.nobody.contains(&ActorId(error.task)) && matches!(error.cause, Cause::ActorDied(_))
        {
            return;
        }
        if let Some(of) = self.foreign.get(&task)
            && (self.stopped.contains(of) || self.ended.contains_key(of))
            && matches!(error.cause, Cause::ActorDied(_) | Cause::OwnerDied)
        {
            return;
        }
        if let Cause::NameTaken { name, by } = &error.cause {
            let is_true = self.names.explains(ActorId(error.task), name, *by);
            return assert!(is_true, "nothing explains this error: {error}");
        }
        let is_wanted = self.is_wanted(error) && !self.comes_before_the_end(task);
        if is_wanted || self.ended_with_its_driver(task, error) {
            return;
        }
        // Nobody has the answer to a promised call whose caller has died.
        let may_be_lost = self.harm.executors_died && self.promised.contains(&error.task);
        if may_be_lost && matches!(error.cause, Cause::ExecutorDied(_)) {
            return;
        }
        if !self.stopped.contains(&job) && !self.ended.contains_key(&job) {
            self.harm.excuse(error);
            // Not for want of an argument, whose error it has.
            let is_exact = self.calls.contains(task) && error.task == task;
            let is_exact = is_exact && !self.harm.workers_died && !self.harm.damaged;
            assert!(!is_exact, "a call of an actor that saves its state fails: {error}");
        }
    }

    /// Whether an actor was called before it was told to end itself, by the same process, and
    /// nothing has kept the calls from their order.
    fn comes_before_the_end(&self, call: TaskId) -> bool {
        let Harm { executors_died, workers_died, drained, .. } = self.harm;
        let end = self.called.get(&call).and_then(|actor| self.terminated.get(actor));
        let (Some((worker, executor, last)), Some(own)) = (end, self.numbers.get(&call)) else {
            return false;
        };
        let is_before = (own.0, own.1) == (*worker, *executor) && own.2 <= *last;
        is_before && !(executors_died || workers_died || drained)
    }

    /// What a call returns lies where it was made for as long as its caller, whose run reads it,
    /// refers to it. Nobody makes it again: what depends on it may be lost with it later.
    pub fn excuse_caller(&self, call: TaskId, error: &TaskError) {
        self.excuse(call, error);
        let job = call.job();
        let is_over = self.stopped.contains(&job) || self.ended.contains_key(&job);
        if error.cause != Cause::ObjectLost || error.task != call || is_over {
            return;
        }
        let made = self.made.get(&call);
        let is_gone = made.is_some_and(|at| at.iter().any(|at| !self.workers.contains_key(at)));
        let is_left = self.ended_with_its_driver(call, error);
        assert!(
            is_gone || is_left || self.harm.damaged,
            "it is gone from where it was made: {error}"
        );
    }

    /// An actor is made: its name is its own, unless it is about to end.
    pub(super) fn check_name(&self, actor: ActorId) {
        let job = actor.0.job();
        let Some(owner) = self.names.lacks(actor, &self.durable.names) else { return };
        let is_over = self.stopped.contains(&job) || self.ended.contains_key(&job);
        let is_ending = self.killed.contains(&actor) || self.tries.is_left(actor.0);
        let is_its = is_over || is_ending || !self.workers.contains_key(&owner);
        assert!(is_its, "{actor} is made, and its name is another's");
    }

    /// Whether it is of what a lost try of a driver has left, or told to that.
    fn ended_with_its_driver(&self, task: TaskId, error: &TaskError) -> bool {
        let is_end = match &error.cause {
            Cause::Cancelled | Cause::ObjectLost => true,
            Cause::ActorDied(death) => death.is_wanted(),
            _ => false,
        };
        let called = self.called.get(&error.task).map(|actor| actor.0);
        is_end && [task, error.task].into_iter().chain(called).any(|task| self.tries.is_left(task))
    }

    /// Whether a program has asked for this error: for the end of a task, of one that submitted it,
    /// or of an actor.
    fn is_wanted(&self, error: &TaskError) -> bool {
        let of_killed = |task| self.called.get(&task).is_some_and(|at| self.killed.contains(at));
        match &error.cause {
            Cause::ActorDied(_) => {
                of_killed(error.task) || self.killed.contains(&ActorId(error.task))
            }
            // Ours, of a task whose children were cancelled.
            Cause::Cancelled | Cause::Returned { .. } => {
                let mut next = Some(error.task);
                while let Some(task) = next {
                    if self.cancelled.contains(&task) {
                        return true;
                    }
                    next = self.parents.get(&task).copied().filter(|parent| *parent != task);
                }
                false
            }
            _ => false,
        }
    }
}

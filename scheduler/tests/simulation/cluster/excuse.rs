//! Which errors something explains.

use rdist_scheduler::id::{ActorId, TaskId};
use rdist_scheduler::outcome::{Cause, TaskError};

use super::Simulation;

impl Simulation {
    /// What is left of a job that has ended may find anything lost.
    pub fn excuse(&self, task: TaskId, error: &TaskError) {
        let job = task.job();
        if let Some(of) = self.foreign.get(&task)
            && (self.stopped.contains(of) || self.ended.contains_key(of))
            && matches!(error.cause, Cause::ActorDied(_) | Cause::OwnerDied)
        {
            return;
        }
        if self.is_wanted(error) || self.ended_with_its_driver(task, error) {
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
            let is_exact = is_exact && !self.harm.workers_died;
            assert!(!is_exact, "a call of an actor that saves its state fails: {error}");
        }
    }

    /// Whether it is of what a try of a driver has left.
    fn ended_with_its_driver(&self, task: TaskId, error: &TaskError) -> bool {
        let of = self.foreign.get(&task).copied().unwrap_or(task.job());
        let is_end = match &error.cause {
            Cause::Cancelled => true,
            Cause::ActorDied(death) => death.is_wanted(),
            _ => false,
        };
        is_end && self.lost_drivers.contains(&of)
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

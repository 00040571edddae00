//! Direct calls: a process of a job calls an actor in another process of the job on this worker,
//! or in itself, through rings that only the two share. This core hears of them where it has to.
//!
//! - A process asks for a *route* to an actor. It is granted where every call that it has made
//!   through here is with the actor's executor already, so that direct calls come after them; it
//!   lasts for one life of the actor, and ends with either process. Its end is told to the caller,
//!   who counts what it has no answer to as lost.
//! - A call without an answer whose object is passed on is *promised*: from then on it is a task
//!   that runs where the actor lives, and everything that holds for calls holds for it. Its answer
//!   still goes to its caller, who passes it on; a caller that dies first fails it.
//! - A lost call that may be tried again is promised as lost: its next try goes through here.
//! - A result that does not fit into a ring, or has references inside, comes from the actor's
//!   process (`Made`), for the caller to hold.
//!
//! Invariant: AC-3 a route is of a process of the actor's job that lives.

use std::sync::Arc;

use super::{LocalAction, LocalCore};
use crate::actor::{ActorState, Hosted};
use crate::id::{ActorId, ExecutorId, ObjectId, TaskId};
use crate::outcome::{Cause, Death, Outcome, Returned, TaskError};
use crate::spec::{TaskKind, TaskSpec};
use crate::task::{TaskEntry, TaskKey, TaskState};

impl LocalCore {
    /// A process here wants to call an actor directly.
    pub(super) fn route_wanted(&mut self, caller: ExecutorId, actor: ActorId) {
        let executor = self.direct_place(caller, actor);
        if executor.is_some()
            && let Some(hosted) = self.hosted.get_mut(&actor)
            && !hosted.routes.contains(&caller)
        {
            hosted.routes.push(caller);
        }
        self.act(LocalAction::Route { caller, actor, executor });
    }

    /// Where the actor lives, if it can be called directly now.
    fn direct_place(&self, caller: ExecutorId, actor: ActorId) -> Option<ExecutorId> {
        let hosted = self.hosted.get(&actor)?;
        let entry = self.actors.get(&actor)?;
        let lives = matches!(entry.place, ActorState::At { worker, life }
            if worker == self.me && life == hosted.life && life >= entry.floor);
        let job = self.executors.get(&caller).filter(|process| process.is_up())?.job;
        let host = self.executors.get(&hosted.executor).filter(|process| process.is_up())?;
        let under_way = entry.lanes.get(&caller).is_some_and(|lane| !lane.is_empty())
            || hosted.mailboxes.get(&self.me).is_some_and(|mailbox| !mailbox.is_empty());
        (lives && !under_way && host.job == job && actor.0.job() == job).then_some(hosted.executor)
    }

    /// A life of an actor ends: whoever calls it directly is told.
    pub(super) fn end_routes(&mut self, actor: ActorId, hosted: &Hosted, death: &Death) {
        for caller in hosted.routes.iter().copied() {
            if self.executors.contains_key(&caller) {
                self.act(LocalAction::RouteEnded { caller, actor, death: death.clone() });
            }
        }
    }

    /// A process passes on the object of a direct call; `lost`: the call was lost with its actor.
    pub(super) fn promised(&mut self, by: ExecutorId, spec: Arc<TaskSpec>, lost: Option<Death>) {
        if !self.listens(by) || !matches!(spec.kind, TaskKind::ActorCall { .. } | TaskKind::Plain) {
            return;
        }
        let entry = self.tasks.find(spec.id, self.me);
        let known = entry.is_some() || self.results_exist(&spec);
        for index in 0..spec.returns {
            self.hold_made(by, spec.id.object(index));
        }
        if known {
            if let (Some(key), Some(death)) = (entry, lost) {
                self.lost_before(key, by, &death);
            }
            return;
        }
        let TaskKind::ActorCall { actor, .. } = spec.kind else {
            return self.promised_task(by, spec, lost);
        };
        let task = spec.id;
        let key = self.insert_new(spec, by);
        let hosted = self.hosted.get(&actor).filter(|hosted| hosted.routes.contains(&by));
        match (hosted.map(|hosted| hosted.executor), lost) {
            (Some(executor), None) => {
                self.tasks[key].extra().promised = true;
                self.list_running(key, executor);
            }
            // Without a word on how: the caller has yet to hear of the end of its route.
            (_, lost) => {
                let cause = Cause::ActorDied(lost.unwrap_or(Death::WorkerLost));
                self.conclude(key, Outcome::Failed(TaskError { task, cause }));
            }
        }
    }

    /// The answer to a promised call has come to its caller.
    pub(super) fn answered(&mut self, by: ExecutorId, task: TaskId, outcome: Outcome) {
        let key = self.tasks.find(task, self.me);
        let at = key.map(|key| &self.tasks[key]).filter(|entry| is_promised_by(entry, by));
        match at.map(|entry| &entry.state) {
            Some(&TaskState::Running { executor, attempt, .. }) => {
                self.finished(executor, task, attempt, outcome);
            }
            _ => self.discard_values(task, &outcome),
        }
    }

    /// A direct call of `caller` made a value in `executor`, which is in the runtime's table.
    pub(super) fn made(
        &mut self,
        executor: ExecutorId,
        caller: ExecutorId,
        object: ObjectId,
        value: Returned,
    ) {
        let task = object.task;
        // The same call of another owner, which the process has yet to come to, is not this one.
        if let Some(key) = self.tasks.find_running(task, executor)
            && let entry = &self.tasks[key]
            && let TaskState::Running { attempt, .. } = entry.state
            && is_promised_by(entry, caller)
        {
            return self.finished(executor, task, attempt, Outcome::Returned(vec![value]));
        }
        if !self.listens(caller) {
            return self.discard_value(object, value.inline, self.me);
        }
        self.has_made(caller, object, (value.size, value.inline), &value.contains);
    }

    /// A process passes on an object that has failed, and of which nobody else knows.
    pub(super) fn put_failed(&mut self, by: ExecutorId, object: ObjectId, error: TaskError) {
        if self.listens(by) {
            self.hold_made(by, object);
            self.set_failed(object, &Arc::new(error));
        }
    }

    /// A process is gone: its routes end, and answers that were to come to it never will.
    pub(super) fn caller_died(&mut self, caller: ExecutorId, death: &Death) {
        let mut calls: Vec<TaskKey> = Vec::new();
        for hosted in self.hosted.values_mut() {
            let Some(at) = hosted.routes.iter().position(|other| *other == caller) else {
                continue;
            };
            hosted.routes.swap_remove(at);
            let Some(process) = self.executors.get(&hosted.executor) else { continue };
            let tasks = &self.tasks;
            // Tasks that it promised by a lease are not lost: their host says what it has started.
            let promised =
                |key: &TaskKey| tasks[*key].is_call() && is_promised_by(&tasks[*key], caller);
            calls.extend(process.running.iter().copied().filter(promised));
        }
        calls.sort_unstable_by_key(|key| self.tasks[*key].order);
        calls.dedup();
        for key in calls {
            let task = self.tasks[key].spec.id;
            let cause = Cause::ExecutorDied(death.clone());
            self.fail(key, TaskError { task, cause });
        }
    }

    pub(super) fn check_routes(&self) {
        for (actor, hosted) in &self.hosted {
            for caller in &hosted.routes {
                let job = self.executors.get(caller).map(|process| process.job);
                assert_eq!(job, Some(actor.0.job()), "AC-3: who calls {actor:?} directly lives");
            }
        }
    }
}

fn is_promised_by(entry: &TaskEntry, caller: ExecutorId) -> bool {
    entry.submitter == caller && entry.is_promised()
}

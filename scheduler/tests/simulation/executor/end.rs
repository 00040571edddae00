//! How a run ends: it returns, or is cancelled, and drops what it refers to.

use std::sync::Arc;

use rdist_scheduler::checkpoint::{Applied, EndedCall};
use rdist_scheduler::hash::FastSet;
use rdist_scheduler::id::{ActorId, ExecutorId, TaskId, WorkerId};
use rdist_scheduler::local::LocalEvent;
use rdist_scheduler::outcome::{Cause, Outcome, Returned, TaskError};
use rdist_scheduler::spec::{Reference, TaskKind};

use super::submit::is_unordered;
use super::{Actor, At, Stored, Waiting, stream::Reading, word};
use crate::cluster::Simulation;
use crate::workload::Op;

impl Simulation {
    pub(super) fn finish(&mut self, at: At) {
        let (worker, executor) = (at.worker, at.executor);
        let Some(run) = self.running(at) else { return };
        let inline = run.spec.body.get(9).is_none_or(|inline| *inline == 1);
        let contains: Vec<Reference> =
            run.program.returns.iter().map(|slot| run.slots[*slot]).collect();
        if self.ends_by_lease(at, inline && contains.is_empty()) {
            return;
        }
        contains.iter().for_each(|inner| self.pass_on(at, inner.object));
        let Some(process) = self.process(worker, executor) else { return };
        let Some(run) = process.runs.get(&at.run) else { return };
        let (task, attempt, spec) = (run.spec.id, run.attempt, Arc::clone(&run.spec));
        let (told_as, takes_turns) = (run.told_as(), run.takes_turns());
        let (mut value, failed, yielded) = (run.read, run.failed, run.yielded);
        let mut next_call = None;
        match &spec.kind {
            TaskKind::ActorCreate(_) => {
                let count =
                    process.restores.remove(&ActorId(task)).map_or(0, |state| number(&state));
                let actor = Actor { life: u64::from(attempt), count, ..Actor::default() };
                process.actors.insert(ActorId(task), actor);
            }
            TaskKind::ActorCall { rules, .. } if rules.exactly_once => {
                return self.finish_saved_call(at);
            }
            TaskKind::ActorCall { actor: id, actor_owner, .. } => {
                let Some(actor) = process.actors.get_mut(id) else { return };
                actor.calls.pop_front();
                actor.count += 1;
                value = actor.life << 32 | actor.count;
                next_call = actor.calls.front().copied();
                let (life, caller) = (actor.life, (word(&spec, 18), word(&spec, 26)));
                if !is_unordered(*id) {
                    self.actors.started(*id, life, caller, word(&spec, 10));
                }
                self.actors.counted((*id, *actor_owner), value, (task, attempt), caller);
            }
            _ => {}
        }
        let mut values = Vec::new();
        let is_plain = matches!(spec.kind, TaskKind::Plain);
        let outcome = if is_plain && attempt < u32::from(spec.body[11]) {
            let cause = Cause::Returned { message: "it failed as it should".to_owned() };
            Outcome::Retryable(TaskError { task, cause })
        } else if spec.stream().is_some() {
            Outcome::Streamed(yielded)
        } else if failed && matches!(spec.kind, TaskKind::Plain) {
            let cause = Cause::Returned { message: "a value that it read failed".to_owned() };
            Outcome::Failed(TaskError { task, cause })
        } else {
            let size = if inline { 100 } else { 1 << 20 };
            let of = |n: u32| (n, Returned { size, inline, contains: contains.clone() });
            let returned: Vec<_> = (0..spec.returns).map(of).collect();
            values.extend(returned.iter().map(|(n, returned)| {
                let contains = returned.contains.clone();
                (task.object(*n), Stored { value, contains })
            }));
            Outcome::Returned(returned.into_iter().map(|(_, returned)| returned).collect())
        };
        self.finished += 1;
        self.say(
            worker,
            executor,
            LocalEvent::Finished { executor, task, attempt: told_as, outcome },
            values,
        );
        self.forget_run(at);
        if takes_turns {
            self.turn(worker, executor);
        }
        if let Some(run) = next_call {
            self.step_soon(At { run, ..at }, 0);
        }
    }

    /// A call of an actor that saves its state: its end is told with the state, which is saved
    /// when nothing waits, or now and then before.
    fn finish_saved_call(&mut self, at: At) {
        let (worker, executor) = (at.worker, at.executor);
        let early = self.rng.one_in(3);
        let Some(process) = self.process(worker, executor) else { return };
        let Some(run) = process.runs.get(&at.run) else { return };
        let (call, attempt, spec) = (run.spec.id, run.attempt, Arc::clone(&run.spec));
        let TaskKind::ActorCall { actor: id, .. } = spec.kind else { return };
        let Some(actor) = process.actors.get_mut(&id) else { return };
        actor.calls.pop_front();
        actor.count += 1;
        let (life, count) = (actor.life, actor.count.to_le_bytes().to_vec());
        let returned = Returned { size: 8, inline: true, contains: Vec::new() };
        let outcome = Outcome::Returned(vec![returned]);
        let applied = Applied { call, outcome, value: Some(count.clone()) };
        actor.unsaved.push(EndedCall { attempt, applied });
        let next = actor.calls.front().copied();
        let calls = match next.is_none() || early {
            true => std::mem::take(&mut actor.unsaved),
            false => Vec::new(),
        };
        self.finished += 1;
        if attempt == 0 && !is_unordered(id) {
            let caller = (word(&spec, 18), word(&spec, 26));
            self.actors.started(id, life, caller, word(&spec, 10));
        }
        if !calls.is_empty() {
            let values = calls.iter().map(|ended| {
                let value = ended.applied.value.as_deref().map_or(0, number);
                (ended.applied.call.object(0), Stored { value, contains: Vec::new() })
            });
            let values = values.collect();
            let event = LocalEvent::Saved { executor, actor: id, state: count, calls };
            self.say(worker, executor, event, values);
        }
        self.forget_run(at);
        if let Some(run) = next {
            self.step_soon(At { run, ..at }, 0);
        }
    }

    /// An actor ends: of each call that it has, or that has ended and was not told, it is said so.
    pub(super) fn drop_actor(&mut self, worker: WorkerId, executor: ExecutorId, actor: ActorId) {
        let Some(process) = self.process(worker, executor) else { return };
        let Some(actor) = process.actors.remove(&actor) else { return };
        for EndedCall { attempt, applied } in actor.unsaved {
            self.say_cancelled(worker, executor, applied.call, attempt);
        }
        for number in actor.calls {
            let Some(run) = self.process(worker, executor).and_then(|p| p.runs.get(&number)) else {
                continue;
            };
            let (call, attempt) = (run.spec.id, run.attempt);
            self.forget_run(At { worker, executor, run: number });
            self.say_cancelled(worker, executor, call, attempt);
        }
    }

    pub(super) fn cancel(&mut self, worker: WorkerId, executor: ExecutorId, task: TaskId) {
        let Some(process) = self.process(worker, executor) else { return };
        if let Some(waiting) = process.turns.waiting.iter_mut().find(|w| w.spec.id == task) {
            waiting.cancelled = true;
            return;
        }
        if !process.runs.values().any(|run| run.spec.id == task) {
            // It may have come directly, and before.
            self.read_callers(worker, executor);
        }
        if self.cancel_leased(worker, executor, task) {
            return;
        }
        let Some(process) = self.process(worker, executor) else { return };
        let found = process.runs.iter().find(|(_, run)| run.spec.id == task);
        let Some((number, run)) = found.map(|(number, run)| (*number, run)) else { return };
        if matches!(run.spec.kind, TaskKind::ActorCall { .. }) {
            return; // it is short, and ends by itself
        }
        let hangs = run.attempt < u32::from(run.spec.body.get(12).copied().unwrap_or(0));
        if hangs && run.spec.body[13] == 1 {
            return; // it has to be killed
        }
        self.end_cancelled(At { worker, executor, run: number });
    }

    pub(super) fn end_cancelled(&mut self, at: At) {
        self.leave_lease(at);
        let Some(run) = self.running(at) else { return };
        let (task, attempt) = (run.spec.id, run.told_as());
        let is_turn = run.takes_turns() && !run.blocked;
        self.say_cancelled(at.worker, at.executor, task, attempt);
        self.forget_run(at);
        if is_turn {
            self.turn(at.worker, at.executor);
        }
    }

    fn say_cancelled(&mut self, worker: WorkerId, executor: ExecutorId, task: TaskId, n: u32) {
        let outcome = Outcome::Failed(TaskError { task, cause: Cause::Cancelled });
        let event = LocalEvent::Finished { executor, task, attempt: n, outcome };
        self.say(worker, executor, event, Vec::new());
    }

    /// A task comes that waits for its turn, unless that was already.
    pub(super) fn run_ahead(&mut self, worker: WorkerId, executor: ExecutorId, task: Waiting) {
        let Some(process) = self.process(worker, executor) else { return };
        let turns = &mut process.turns;
        let next = turns.used.max(task.after) + 1;
        if turns.waiting.is_empty() && next <= turns.now {
            turns.used = next;
            self.run_task((worker, executor), task.spec, task.attempt, None);
        } else {
            turns.waiting.push_back(task);
            self.queued_ahead += 1;
        }
    }

    /// A task that takes turns has ended or blocks.
    pub(super) fn turn(&mut self, worker: WorkerId, executor: ExecutorId) {
        loop {
            let Some(process) = self.process(worker, executor) else { return };
            let turns = &mut process.turns;
            turns.now += 1;
            let Some(next) = turns.waiting.pop_front() else { return };
            turns.used = turns.used.max(next.after) + 1;
            assert_eq!(turns.used, turns.now, "a task waits for the next turn");
            if !next.cancelled {
                self.run_task((worker, executor), next.spec, next.attempt, None);
                return;
            }
            self.say_cancelled(worker, executor, next.spec.id, next.attempt);
        }
    }

    /// Drops what a run refers to.
    pub(super) fn forget_run(&mut self, at: At) {
        let Some(process) = self.process(at.worker, at.executor) else { return };
        let Some(run) = process.runs.remove(&at.run) else { return };
        for waiting in process.waiting.values_mut() {
            waiting.retain(|number| *number != at.run);
        }
        let dropped = run.program.ops.iter().take(run.next).filter_map(|op| match op {
            Op::Drop(slot) => Some(*slot),
            _ => None,
        });
        let dropped: FastSet<usize> = dropped.collect();
        for (slot, reference) in run.slots.iter().enumerate() {
            if !dropped.contains(&slot) {
                self.let_go(at, reference.object);
            }
        }
        // Inner references of a value that it was about to read.
        if run.inner {
            for reference in run.wants {
                self.let_go(at, reference.object);
            }
        }
        for object in run.stream.iter().flat_map(Reading::held) {
            self.let_go(at, object);
        }
    }
}

/// A number that an actor saved, or that a call of it returned.
pub fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("a number of this simulation"))
}

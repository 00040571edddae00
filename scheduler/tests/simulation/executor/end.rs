//! How a run ends: it returns, or is cancelled, and drops what it refers to.

use std::sync::Arc;

use rdist_scheduler::checkpoint::{Applied, EndedCall};
use rdist_scheduler::hash::FastSet;
use rdist_scheduler::id::{ActorId, ExecutorId, TaskId, WorkerId};
use rdist_scheduler::local::LocalEvent;
use rdist_scheduler::outcome::{Cause, Outcome, Returned, TaskError};
use rdist_scheduler::spec::{Reference, TaskKind};

use super::actor::Actor;
use super::run::word;
use super::submit::Asks;
use super::{At, Given, Stored, Waiting, stream::Reading};
use crate::cluster::Simulation;
use crate::workload::{Op, nth};

impl Simulation {
    pub(super) fn finish(&mut self, at: At) {
        let Some(run) = self.running(at) else { return };
        let inline = run.is_inline();
        let contains: Vec<Reference> =
            run.program.returns.iter().map(|slot| run.slots[*slot]).collect();
        let spec = Arc::clone(&run.spec);
        if !self.calls_are_taken(at) || self.ends_by_lease(at, inline && contains.is_empty()) {
            return;
        }
        contains.iter().for_each(|inner| self.pass_on(at, inner.object));
        let Some(run) = self.running(at) else { return };
        let (attempt, value) = (run.attempt, run.read);
        match &spec.kind {
            TaskKind::ActorCreate(_) => {
                let Some(process) = self.process(at.worker, at.executor) else { return };
                let actor = ActorId(spec.id);
                let count = process.restores.remove(&actor).map_or(0, |state| number(&state));
                let life = u64::from(attempt);
                let limits = self.limits_of(actor);
                let Some(process) = self.process(at.worker, at.executor) else { return };
                process.actors.insert(actor, Actor::new(&limits, life, count));
                self.end_well(at, value, contains);
            }
            TaskKind::ActorCall { rules, .. } if rules.exactly_once => self.finish_saved_call(at),
            TaskKind::ActorCall { actor, actor_owner, .. } if spec.body[8] == Asks::End as u8 => {
                self.end_actor(at, *actor, *actor_owner);
            }
            TaskKind::ActorCall { .. } => self.finish_call(at),
            TaskKind::Driver => {
                self.check_streams();
                self.end_well(at, value, contains);
            }
            _ => self.end_well(at, value, contains),
        }
    }

    /// A call of an actor that saves nothing.
    fn finish_call(&mut self, at: At) {
        let Some(run) = self.running(at) else { return };
        let (spec, attempt, given) = (Arc::clone(&run.spec), run.attempt, run.given);
        let is_inline = run.is_inline();
        let TaskKind::ActorCall { actor: id, actor_owner, .. } = spec.kind else { return };
        self.ends_beside_others(at, id);
        let Some(process) = self.process(at.worker, at.executor) else { return };
        let Some(actor) = process.actors.get_mut(&id) else { return };
        let next = actor.ends(at.run);
        actor.count += 1;
        let value = actor.life << 32 | actor.count;
        let call = (spec.id, attempt, word(&spec, 34));
        self.actors.counted((id, actor_owner), value, call);
        if !is_inline {
            self.made.entry(spec.id).or_default().push(at.worker);
        }
        match given {
            Given::Called { caller, token } => {
                self.finished += 1;
                self.reply(at, (caller, token), value);
                self.forget_run(at);
            }
            _ => self.end_well(at, value, Vec::new()),
        }
        if let Some(run) = next {
            self.call_starts(At { run, ..at });
        }
    }

    /// An actor ends itself: what it has been called for before has ended, and is told.
    fn end_actor(&mut self, at: At, id: ActorId, owner: WorkerId) {
        let (worker, executor) = (at.worker, at.executor);
        let Some(process) = self.process(worker, executor) else { return };
        let Some(actor) = process.actors.get_mut(&id) else { return };
        actor.ended = true;
        let calls = std::mem::take(&mut actor.unsaved);
        let state = actor.count.to_le_bytes().to_vec();
        if !calls.is_empty() {
            self.say_saved(at, id, state, calls);
        }
        self.end_well(at, 0, Vec::new());
        let event = LocalEvent::ActorKillRequested { actor: id, owner };
        self.say(worker, executor, event, Vec::new());
    }

    pub(super) fn say_saved(
        &mut self,
        at: At,
        actor: ActorId,
        state: Vec<u8>,
        calls: Vec<EndedCall>,
    ) {
        let values = calls.iter().map(|ended| {
            let value = ended.applied.value.as_deref().map_or(0, number);
            (ended.applied.call.object(0), Stored { value, inline: true, contains: Vec::new() })
        });
        let values = values.collect();
        let event = LocalEvent::Saved { executor: at.executor, actor, state, calls };
        self.say(at.worker, at.executor, event, values);
    }

    /// A run ends by itself, which its worker is told.
    fn end_well(&mut self, at: At, value: u64, contains: Vec<Reference>) {
        let executor = at.executor;
        let Some(run) = self.running(at) else { return };
        let (task, spec, inline) = (run.spec.id, Arc::clone(&run.spec), run.is_inline());
        let (attempt, takes_turns) = (run.told_as(), run.takes_turns());
        let is_plain = matches!(spec.kind, TaskKind::Plain);
        let failed = |message: &str| {
            let cause = Cause::Returned { message: message.to_owned() };
            TaskError { task, cause }
        };
        let mut values = Vec::new();
        let outcome = if is_plain && run.attempt < u32::from(spec.body[11]) {
            Outcome::Retryable(failed("it failed as it should"))
        } else if spec.stream().is_some() {
            Outcome::Streamed(run.yielded)
        } else if run.failed && is_plain {
            Outcome::Failed(failed("a value that it read failed"))
        } else {
            let size = if inline { 100 } else { 1 << 20 };
            let of = |_| Returned { size, inline, contains: contains.clone() };
            values.extend((0..spec.returns).map(|n| {
                let contains = contains.clone();
                (task.object(n), Stored { value: nth(value, n), inline, contains })
            }));
            Outcome::Returned((0..spec.returns).map(of).collect())
        };
        self.finished += 1;
        let event = LocalEvent::Finished { executor, task, attempt, outcome };
        self.say(at.worker, executor, event, values);
        self.forget_run(at);
        if takes_turns {
            self.turn(at.worker, executor);
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
        let next = actor.ends(at.run);
        actor.count += 1;
        let count = actor.count.to_le_bytes().to_vec();
        let returned = Returned { size: 8, inline: true, contains: Vec::new() };
        let outcome = Outcome::Returned(vec![returned]);
        let applied = Applied { call, outcome, value: Some(count.clone()) };
        actor.unsaved.push(EndedCall { attempt, applied });
        let calls = match next.is_none() || early {
            true => std::mem::take(&mut actor.unsaved),
            false => Vec::new(),
        };
        self.finished += 1;
        if !calls.is_empty() {
            self.say_saved(at, id, count, calls);
        }
        self.forget_run(at);
        if let Some(run) = next {
            self.call_starts(At { run, ..at });
        }
    }

    /// An actor ends: of each call that it has, or that has ended and was not told, it is said so.
    pub(super) fn drop_actor(&mut self, worker: WorkerId, executor: ExecutorId, actor: ActorId) {
        let Some(process) = self.process(worker, executor) else { return };
        let Some(mut actor) = process.actors.remove(&actor) else { return };
        for EndedCall { attempt, applied } in std::mem::take(&mut actor.unsaved) {
            self.say_cancelled(worker, executor, applied.call, attempt);
        }
        for run in actor.into_calls() {
            self.cut_off(At { worker, executor, run });
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
        let is_leased = matches!(run.given, Given::Leased(_));
        self.leases.cancelled += u64::from(is_leased);
        self.end_cancelled(At { worker, executor, run: number });
    }

    pub(super) fn end_cancelled(&mut self, at: At) {
        self.leave_lease(at);
        let Some(run) = self.running(at) else { return };
        let (task, attempt) = (run.spec.id, run.told_as());
        let is_turn = run.takes_turns() && !run.blocked;
        let yields = run.spec.stream().is_some();
        self.streams.stopped += u64::from(yields);
        self.say_cancelled(at.worker, at.executor, task, attempt);
        self.forget_run(at);
        if is_turn {
            self.turn(at.worker, at.executor);
        }
    }

    pub(super) fn say_cancelled(
        &mut self,
        worker: WorkerId,
        executor: ExecutorId,
        task: TaskId,
        n: u32,
    ) {
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
            self.run_task((worker, executor), task.spec, task.attempt, Given::ByWorker);
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
                self.run_task((worker, executor), next.spec, next.attempt, Given::ByWorker);
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

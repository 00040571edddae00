//! Saved states of actors: as their supervisor, where they live, and where calls come from. See
//! [`crate::checkpoint`] for the protocol.

use std::collections::VecDeque;

use super::retry::is_loss;
use super::{LocalAction, LocalCore, Step};
use crate::actor::{ActorState, Hosted};
use crate::checkpoint::{Applied, EndedCall};
use crate::hash::{FastMap, IdMap};
use crate::id::{ActorId, ExecutorId, JobId, TaskId, WorkerId};
use crate::message::PeerMessage;
use crate::outcome::{Cause, Outcome, TaskError};
use crate::spec::{TaskKind, TaskSpec};
use crate::task::{TaskKey, TaskState};

/// Settled calls that are told together.
const SETTLED_BATCH: usize = 64;
/// Notes in one message: each is a result of a few KiB at most.
const NOTES_BATCH: usize = 1_000;

/// What this worker has of saved states.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    /// By actor and supervisor.
    pub(super) saved: FastMap<(ActorId, WorkerId), Saved>,
    /// Tasks that made calls here and may run again, with those of the calls that are settled.
    callers: IdMap<TaskId, Vec<Settled>>,
    /// What is to be told to supervisors, and by them to where the actor lives.
    settled: FastMap<(WorkerId, ActorId), Vec<TaskId>>,
}

/// The last saved state of an actor.
#[derive(Debug, Default)]
pub(super) struct Saved {
    /// At the supervisor of an actor that lives elsewhere, nothing; where it lives: which life
    /// began with it.
    pub(super) life: u32,
    /// `None`: nothing was saved yet, or the actor has been made from it and another worker has it.
    state: Option<Vec<u8>>,
    /// Calls that are in it and may come again.
    calls: IdMap<TaskId, Applied>,
}

#[derive(Debug, Clone, Copy)]
struct Settled {
    actor: ActorId,
    owner: WorkerId,
    call: TaskId,
}

/// Ends of calls that the supervisor has not kept yet, by the number of the state.
#[derive(Debug, Default)]
pub(crate) struct Unkept {
    number: u64,
    waiting: VecDeque<(u64, Vec<EndedCall>)>,
}

impl Unkept {
    pub(super) fn calls(&self) -> impl Iterator<Item = &EndedCall> {
        self.waiting.iter().flat_map(|(_, calls)| calls)
    }
}

impl Checkpoints {
    pub(super) fn forget_job(&mut self, job: JobId, keeps: impl Fn(ActorId) -> bool) {
        self.saved.retain(|(actor, _), _| actor.0.job() != job || keeps(*actor));
        self.settled.retain(|(_, actor), _| actor.0.job() != job || keeps(*actor));
        self.callers.retain(|caller, _| caller.job() != job);
    }

    pub(super) fn forget_worker(&mut self, worker: WorkerId) {
        self.settled.retain(|(to, _), _| *to != worker);
    }
}

impl LocalCore {
    /// An executor saved an actor's state, with calls that ended before.
    pub(super) fn saved(
        &mut self,
        executor: ExecutorId,
        actor: ActorId,
        state: Vec<u8>,
        calls: Vec<EndedCall>,
    ) {
        let me = self.me;
        let hosted = self.hosted.get_mut(&actor).filter(|hosted| hosted.executor == executor);
        let Some(hosted) = hosted else {
            // It was ended meanwhile, and its calls were answered.
            for EndedCall { attempt, applied } in calls {
                self.ended_in_vain(executor, (applied.call, attempt), &applied.outcome);
            }
            return;
        };
        let (owner, life) = (hosted.owner, hosted.life);
        let notes = calls.iter().map(|call| call.applied.clone());
        if owner == me {
            let saved = self.checkpoints.saved.entry((actor, owner)).or_default();
            saved.state = Some(state);
            saved.calls.extend(notes.map(|note| (note.call, note)));
            return self.ends_are_kept(executor, calls);
        }
        let notes = notes.collect();
        hosted.unkept.number += 1;
        let number = hosted.unkept.number;
        hosted.unkept.waiting.push_back((number, calls));
        let message = PeerMessage::ActorSaved { actor, life, number, state, calls: notes };
        // After the message that says that this life has begun.
        self.send_settled(owner, message, smallvec::SmallVec::new());
    }

    /// The worker where the actor lives passes a saved state on.
    pub(super) fn actor_saved(
        &mut self,
        from: WorkerId,
        (actor, life, number): (ActorId, u32, u64),
        state: Vec<u8>,
        calls: Vec<Applied>,
    ) {
        let Some(entry) = self.actors.get(&actor) else { return };
        let lives = matches!(entry.place, ActorState::At { worker, life: at }
            if worker == from && at == life);
        if entry.supervised.is_none() || !lives {
            return;
        }
        let saved = self.checkpoints.saved.entry((actor, self.me)).or_default();
        saved.state = Some(state);
        saved.calls.extend(calls.into_iter().map(|note| (note.call, note)));
        self.send(from, PeerMessage::SavedKept { actor, life, number });
    }

    /// The supervisor has a saved state: callers may hear of the calls in it.
    pub(super) fn saved_kept(&mut self, from: WorkerId, actor: ActorId, life: u32, number: u64) {
        let hosted = self.hosted.get_mut(&actor);
        let Some(hosted) = hosted.filter(|hosted| hosted.owner == from && hosted.life == life)
        else {
            return;
        };
        let executor = hosted.executor;
        let mut kept = Vec::new();
        let waiting = &mut hosted.unkept.waiting;
        let count = waiting.partition_point(|(n, _)| *n <= number);
        kept.extend(waiting.drain(..count).flat_map(|(_, calls)| calls));
        let saved = self.checkpoints.saved.entry((actor, from)).or_default();
        saved.life = life;
        saved.calls.extend(kept.iter().map(|call| (call.applied.call, call.applied.clone())));
        self.ends_are_kept(executor, kept);
    }

    fn ends_are_kept(&mut self, executor: ExecutorId, calls: Vec<EndedCall>) {
        for EndedCall { attempt, applied } in calls {
            self.finished(executor, applied.call, attempt, applied.outcome);
        }
    }

    /// What an actor that is gone had not told.
    pub(super) fn discard_unkept(&mut self, hosted: &Hosted) {
        for call in hosted.unkept.calls() {
            self.discard_values(call.applied.call, &call.applied.outcome);
        }
    }

    /// Whether an actor is made again here for another supervisor, whose saved state is still to
    /// come: it is asked for.
    pub(super) fn awaits_state(&mut self, key: TaskKey) -> bool {
        let entry = &self.tasks[key];
        let (owner, life, actor) = (entry.owner, entry.attempt, ActorId(entry.spec.id));
        let may_have_state = saves_state(&entry.spec) && owner != self.me && life > 0;
        let has_it = |saved: &Saved| saved.life == life;
        if !may_have_state || self.checkpoints.saved.get(&(actor, owner)).is_some_and(has_it) {
            return false;
        }
        self.send(owner, PeerMessage::ActorStateWanted { actor, life });
        true
    }

    /// A worker is to make an actor again.
    pub(super) fn actor_state_wanted(&mut self, from: WorkerId, actor: ActorId, life: u32) {
        let saved = self.checkpoints.saved.get(&(actor, self.me));
        let state = saved.and_then(|saved| saved.state.clone());
        let mut calls: Vec<Applied> =
            saved.map(|saved| saved.calls.values().cloned().collect()).unwrap_or_default();
        calls.sort_unstable_by_key(|note| note.call);
        while calls.len() > NOTES_BATCH {
            let rest = calls.split_off(NOTES_BATCH);
            let calls = core::mem::replace(&mut calls, rest);
            self.send(from, PeerMessage::ActorNotes { actor, life, calls });
        }
        self.send(from, PeerMessage::ActorStateSent { actor, life, state, calls });
    }

    /// Notes come, the last of them with the state; then the actor is made.
    pub(super) fn actor_state_sent(
        &mut self,
        from: WorkerId,
        (actor, life): (ActorId, u32),
        state: Option<Vec<u8>>,
        calls: Vec<Applied>,
        is_last: bool,
    ) {
        let Some(key) = self.tasks.find(actor.0, from) else { return };
        let entry = &self.tasks[key];
        if !matches!(entry.state, TaskState::Waiting { .. }) || !saves_state(&entry.spec) {
            return;
        }
        let (stamp, attempt) = (entry.stamp, entry.attempt);
        if attempt == life {
            let saved = self.checkpoints.saved.entry((actor, from)).or_default();
            saved.calls.extend(calls.into_iter().map(|note| (note.call, note)));
            if is_last {
                (saved.life, saved.state) = (life, state);
            }
        }
        if is_last {
            // Of an older life: it is asked again.
            self.steps.push_back(Step::Resolved(key, stamp));
        }
    }

    /// Hands a saved state to the executor that is to make the actor from it.
    pub(super) fn restore(&mut self, spec: &TaskSpec, owner: WorkerId, executor: ExecutorId) {
        if !saves_state(spec) {
            return;
        }
        let actor = ActorId(spec.id);
        let Some(saved) = self.checkpoints.saved.get_mut(&(actor, owner)) else { return };
        // Its supervisor needs it again; where it only lives it is not needed twice.
        let state = if owner == self.me { saved.state.clone() } else { saved.state.take() };
        if let Some(state) = state {
            self.act(LocalAction::Restore { executor, actor, state });
        }
    }

    /// Answers a call that is in the actor's state already.
    pub(super) fn answers_from_note(&mut self, key: TaskKey, actor: ActorId) -> bool {
        let entry = &self.tasks[key];
        let id = entry.spec.id;
        let Some(owner) = self.hosted.get(&actor).map(|hosted| hosted.owner) else { return false };
        let saved = self.checkpoints.saved.get(&(actor, owner));
        let Some(note) = saved.and_then(|saved| saved.calls.get(&id)).cloned() else {
            return false;
        };
        let outcome = match (note.outcome, note.value) {
            (Outcome::Returned(values), Some(value)) => {
                self.act(LocalAction::Keep { object: id.object(0), value });
                Outcome::Returned(values)
            }
            (Outcome::Returned(values), None) if !values.is_empty() => {
                Outcome::Failed(TaskError { task: id, cause: Cause::ObjectLost })
            }
            (outcome, _) => outcome,
        };
        self.conclude(key, outcome);
        true
    }

    /// A task here makes a call that counts once: until the task has ended for good, it may make
    /// the call again. A driver that runs again makes other calls.
    pub(super) fn note_caller(&mut self, spec: &TaskSpec) {
        let caller = spec.parent;
        if caller != TaskId::driver(caller.job()) && self.tasks.by_id(caller).is_some() {
            self.checkpoints.callers.entry(caller).or_default();
        }
    }

    /// A call that counts once has its result here.
    pub(super) fn call_settled(&mut self, spec: &TaskSpec) {
        let TaskKind::ActorCall { actor, actor_owner: owner, rules } = spec.kind else { return };
        if !rules.exactly_once {
            return;
        }
        let settled = Settled { actor, owner, call: spec.id };
        match self.checkpoints.callers.get_mut(&spec.parent) {
            Some(calls) => calls.push(settled),
            None => self.forget_call(settled),
        }
    }

    /// A task has ended here. One that was lost runs again somewhere, and makes its calls again:
    /// their notes stay as long as the actors do, or until it ends here.
    pub(super) fn caller_ended(&mut self, caller: TaskId, outcome: &Outcome) {
        if self.checkpoints.callers.is_empty() {
            return;
        }
        let may_run_again = match outcome {
            Outcome::Returned(_) | Outcome::Streamed(_) => false,
            Outcome::Retryable(_) => true,
            Outcome::Failed(error) => {
                is_loss(&error.cause) || matches!(error.cause, Cause::TimedOut { .. })
            }
        };
        if may_run_again {
            return;
        }
        for settled in self.checkpoints.callers.remove(&caller).unwrap_or_default() {
            self.forget_call(settled);
        }
    }

    fn forget_call(&mut self, settled: Settled) {
        let Settled { actor, owner, call } = settled;
        if owner != self.me {
            return self.tell_settled(owner, actor, call);
        }
        if let Some(saved) = self.checkpoints.saved.get_mut(&(actor, owner)) {
            saved.calls.remove(&call);
        }
        let place = self.actors.get(&actor).map(|entry| &entry.place);
        if let Some(&ActorState::At { worker, .. }) = place
            && worker != self.me
        {
            self.tell_settled(worker, actor, call);
        }
    }

    fn tell_settled(&mut self, to: WorkerId, actor: ActorId, call: TaskId) {
        if self.is_dead(to) {
            return;
        }
        let calls = self.checkpoints.settled.entry((to, actor)).or_default();
        calls.push(call);
        if calls.len() >= SETTLED_BATCH {
            let calls = self.checkpoints.settled.remove(&(to, actor)).unwrap_or_default();
            self.send(to, PeerMessage::CallsSettled { actor, calls });
        }
    }

    /// Calls that never come again: to the supervisor, and from it.
    pub(super) fn calls_settled(&mut self, from: WorkerId, actor: ActorId, calls: Vec<TaskId>) {
        let is_supervisor = self.actors.get(&actor).is_some_and(|entry| entry.supervised.is_some());
        if is_supervisor {
            for call in calls {
                self.forget_call(Settled { actor, owner: self.me, call });
            }
        } else if let Some(saved) = self.checkpoints.saved.get_mut(&(actor, from)) {
            for call in calls {
                saved.calls.remove(&call);
            }
        }
    }

    /// The saved state of an actor that is gone, for good or from here.
    pub(super) fn forget_saved(&mut self, actor: ActorId, owner: WorkerId) {
        if !self.checkpoints.saved.is_empty() {
            self.checkpoints.saved.remove(&(actor, owner));
        }
        if owner == self.me && !self.checkpoints.settled.is_empty() {
            self.checkpoints.settled.retain(|(_, of), _| *of != actor);
        }
    }

    pub(super) fn check_checkpoints(&self) {
        for (actor, owner) in self.checkpoints.saved.keys() {
            let supervises = *owner == self.me
                && self.actors.get(actor).is_some_and(|entry| {
                    entry.supervised.is_some() && !matches!(entry.place, ActorState::Dead(_))
                });
            let hosts = self.hosted.get(actor).is_some_and(|hosted| hosted.owner == *owner);
            let makes = self.tasks.find(actor.0, *owner).is_some();
            assert!(supervises || hosts || makes, "CK-1: the state of {actor:?} is of use");
        }
        for (actor, hosted) in &self.hosted {
            for call in hosted.unkept.calls() {
                let id = call.applied.call;
                let runs = self.tasks.find_running(id, hosted.executor).is_some();
                assert!(runs, "CK-2: {id:?} of {actor:?} runs until its end is told");
            }
        }
    }
}

/// Whether a task makes an actor that saves its state.
fn saves_state(spec: &TaskSpec) -> bool {
    matches!(&spec.kind, TaskKind::ActorCreate(options) if options.checkpoint)
}

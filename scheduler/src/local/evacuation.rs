//! Workers that leave: their values are copied and their actors moved before they are gone.
//!
//! A worker that is told to leave says so to every worker that it knows or meets. Who owns values
//! with copies there takes one itself where no other copy stays, and then frees those on workers
//! that leave. The worker goes when it owns nothing, runs nothing, and nobody counts on a copy that
//! it has ([`LocalCore::is_idle`]).
//!
//! An actor of another supervisor that may be made again, or saves its state, ends here between two
//! calls, and its supervisor makes it elsewhere. That counts for no restart. Calls that wait here
//! go back to their callers, to be sent to the next life as if they had never come; so do those
//! that come when it is gone, and those that are still on their way when the worker leaves, which
//! it does when all that it has said is acknowledged ([`crate::message::FromHead::WorkerLeft`]).
//! For there to be a moment between two calls, none begins for a while ([`Moves`]); but a call that
//! runs may need another one's end, so they begin again for a while where that moment does not
//! come. Actors in bundles of placement groups go with these (`groups`), and those that may live
//! nowhere else stay.

use core::time::Duration;
use std::collections::BTreeSet;

use smallvec::SmallVec;

use super::submit::only_worker;
use super::{LocalAction, LocalCore, Step};
use crate::actor::Hosted;
use crate::hash::FastSet;
use crate::id::{ActorId, ExecutorId, ObjectId, WorkerId};
use crate::message::PeerMessage;
use crate::object::Value;
use crate::outcome::{Cause, Death, Outcome, TaskError};
use crate::spec::TaskKind;
use crate::task::{TaskKey, TaskState};
use crate::time::Timestamp;

/// How long calls are held back at first, and are let go on in between.
const PAUSE: Duration = Duration::from_millis(500);
/// How long they are held back at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(16);

/// Actors that are to go on elsewhere, since this worker leaves.
#[derive(Debug, Default)]
pub(super) struct Moves {
    actors: BTreeSet<ActorId>,
    /// Their calls are held back, or are not, until then.
    holds: bool,
    until: Timestamp,
    /// How long they were held back last.
    pause: Duration,
}

impl Moves {
    pub(super) fn due(&self) -> Option<Timestamp> {
        (!self.actors.is_empty()).then_some(self.until)
    }

    /// Whether calls of the actor that have not begun wait. Not where processes call it directly,
    /// and not while one that runs waits for something: it may wait for them.
    pub(super) fn hold_back(&self, actor: ActorId, hosted: &Hosted) -> bool {
        self.holds
            && hosted.blocked == 0
            && hosted.routes.is_empty()
            && self.actors.contains(&actor)
    }
}

impl LocalCore {
    /// Says to every worker that is known that this one leaves.
    pub(super) fn say_leaving(&mut self) {
        let mut peers: Vec<WorkerId> = self.peers.keys().copied().collect();
        peers.sort_unstable();
        for peer in peers {
            self.send(peer, PeerMessage::Leaves);
        }
    }

    /// Whether other workers count on copies of their values here.
    pub(super) fn keeps_copies(&self) -> bool {
        !self.lodgers.is_empty()
            || self.objects.values().any(|entry| {
                let is_here = matches!(&entry.value,
                Value::Arena { copies, .. } if copies.contains(&self.me));
                is_here && !entry.is_owned() && !entry.freed && !self.is_dead(entry.owner)
            })
    }

    /// A worker leaves: what only it has is copied here.
    pub(super) fn worker_leaves(&mut self, worker: WorkerId) {
        if !self.leaving.insert(worker) {
            return;
        }
        self.keeper_gone(worker);
        let mut copies: Vec<ObjectId> = self.peer(worker).copies.iter().copied().collect();
        copies.sort_unstable();
        for object in copies {
            self.keep_from_leaving(object);
        }
    }

    /// An owned value has one copy more, or less: where only workers that leave have it, it is
    /// fetched; else they need it no longer.
    pub(super) fn keep_from_leaving(&mut self, object: ObjectId) {
        if self.leaving.is_empty() {
            return;
        }
        let Some(entry) = self.objects.get(&object).filter(|entry| entry.is_owned()) else {
            return;
        };
        let Value::Arena { copies, .. } = &entry.value else { return };
        let (leave, stay): (Vec<WorkerId>, Vec<WorkerId>) =
            copies.iter().partition(|copy| self.leaving.contains(copy));
        if stay.is_empty() {
            return self.pull(object);
        }
        for copy in leave {
            self.remove_copy(object, copy);
            self.send(copy, PeerMessage::Free { object });
        }
    }

    /// This worker is to leave.
    pub(super) fn begin_moves(&mut self) {
        (self.moves.holds, self.moves.pause) = (true, PAUSE);
        self.moves.until = self.now + PAUSE;
        let actors: Vec<ActorId> = self.hosted.keys().copied().collect();
        for actor in actors {
            self.consider_move(actor);
        }
    }

    /// An actor lives on this worker, which leaves.
    pub(super) fn consider_move(&mut self, actor: ActorId) {
        let Some(hosted) = self.hosted.get(&actor) else { return };
        let TaskKind::ActorCreate(options) = &hosted.spec.kind else { return };
        let may_end = options.checkpoint || options.max_restarts > 0;
        let may_go = !hosted.bundle.is_some() && only_worker(&hosted.spec).is_none();
        if may_end && may_go && hosted.owner != self.me {
            self.moves.actors.insert(actor);
        }
    }

    /// Calls have been held back for long enough, or have had their time.
    pub(super) fn take_turns_moving(&mut self) {
        let moves = &mut self.moves;
        if moves.actors.is_empty() || self.now < moves.until {
            return;
        }
        moves.holds = !moves.holds;
        if moves.holds {
            moves.pause = (2 * moves.pause).min(LONGEST_PAUSE);
            moves.until = self.now + moves.pause;
            return;
        }
        moves.until = self.now + PAUSE;
        for actor in moves.actors.clone() {
            self.advance_mailboxes(actor);
        }
    }

    pub(super) fn advance_mailboxes(&mut self, actor: ActorId) {
        let Some(hosted) = self.hosted.get(&actor) else { return };
        let mut callers: Vec<WorkerId> = hosted.mailboxes.keys().copied().collect();
        callers.sort_unstable();
        self.steps.extend(callers.into_iter().map(|caller| Step::Mailbox(actor, caller)));
    }

    /// Moves the actors that are between two calls; whether there was one.
    pub(super) fn moves_actors(&mut self) -> bool {
        if self.moves.actors.is_empty() {
            return false;
        }
        let running = self.executors.values().flat_map(|process| &process.running);
        let called = running.filter_map(|key| match self.tasks[*key].spec.kind {
            TaskKind::ActorCall { actor, .. } => Some(actor),
            _ => None,
        });
        let busy: FastSet<ActorId> = called.collect();
        let mut moved = false;
        for actor in self.moves.actors.clone() {
            let Some(hosted) = self.hosted.get(&actor) else {
                self.moves.actors.remove(&actor);
                continue;
            };
            if busy.contains(&actor) || hosted.unkept.calls().next().is_some() {
                continue;
            }
            if hosted.routes.is_empty() {
                self.move_actor(actor);
                moved = true;
            } else {
                self.end_idle_callers(hosted.routes.clone());
            }
        }
        moved
    }

    /// Processes that called an actor directly, and do nothing any more, would keep it here.
    fn end_idle_callers(&mut self, callers: Vec<ExecutorId>) {
        for caller in callers {
            let Some(process) = self.executors.get(&caller) else { continue };
            let is_idle = process.running.is_empty()
                && process.actors.is_empty()
                && process.ahead.tasks.is_empty()
                && process.waiting.is_empty();
            if is_idle && !self.leases.uses(caller) {
                self.stop_executor(caller, false);
            }
        }
    }

    fn move_actor(&mut self, actor: ActorId) {
        self.moves.actors.remove(&actor);
        let Some(hosted) = self.hosted.remove(&actor) else { return };
        let (executor, owner, life) = (hosted.executor, hosted.owner, hosted.life);
        if let Some(process) = self.executors.get_mut(&executor) {
            process.actors.remove(&actor);
        }
        self.life_over(actor, &hosted);
        if hosted.shared {
            self.act(LocalAction::DropActor { executor, actor });
        } else {
            self.stop_executor(executor, false);
        }
        let message = PeerMessage::ActorLost { actor, life, death: Death::Moved };
        self.send_settled(owner, message, SmallVec::new());
        self.fail_mailboxes(hosted, &Death::Moved);
    }

    /// A worker has left: calls that were on their way to it come back.
    pub(super) fn worker_left(&mut self, worker: WorkerId) {
        let Some(peer) = self.peers.get(&worker) else { return };
        let placed = peer.placed.iter().filter_map(|task| self.tasks.find(*task, self.me));
        let is_call = |key: &TaskKey| matches!(self.tasks[*key].state, TaskState::Called { .. });
        let mut calls: Vec<TaskKey> = placed.filter(is_call).collect();
        calls.sort_unstable_by_key(|key| self.tasks[*key].order);
        for key in calls {
            let task = self.tasks[key].spec.id;
            let cause = Cause::ActorDied(Death::Moved);
            self.settle_outcome(key, Outcome::Failed(TaskError { task, cause }), worker);
        }
    }
}

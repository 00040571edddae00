//! Actors that live on this worker: their executor, their resources, calls of them.

use std::sync::Arc;

use super::{LocalAction, LocalCore, Step, Unkept};
use crate::actor::{Call, Hosted};
use crate::hash::FastMap;
use crate::id::{ActorId, ExecutorId, ObjectId, TaskId, WorkerId};
use crate::message::PeerMessage;
use crate::outcome::{Cause, Death, Outcome, TaskError};
use crate::spec::{Assignment, TaskKind};
use crate::task::{TaskKey, TaskState};

impl LocalCore {
    /// The creation task returned: what it holds is held for the life of the actor.
    pub(super) fn actor_lives_here(&mut self, key: TaskKey, executor: ExecutorId, shared: bool) {
        if let TaskState::Running { blocked: true, attempt, .. } = self.tasks[key].state {
            let id = self.tasks[key].spec.id;
            self.unblocked(executor, (id, attempt));
        }
        let entry = &self.tasks[key];
        let actor = ActorId(entry.spec.id);
        let hosted = Hosted {
            spec: Arc::clone(&entry.spec),
            owner: entry.owner,
            life: entry.attempt,
            executor,
            shared,
            assigned: entry.assigned,
            bundle: entry.bundle,
            blocked: 0,
            mailboxes: FastMap::default(),
            unkept: Unkept::default(),
            routes: Vec::new(),
        };
        let spec = Arc::clone(&entry.spec);
        self.stop_running(key);
        if self.hosted.contains_key(&actor) {
            // Its maker ran again elsewhere and made it again: the newer one counts.
            self.evict_actor(actor, Death::Ended);
        }
        // What the task gave back, the actor takes.
        let slot = hosted.bundle;
        self.take_from(slot, spec.id.job(), &spec.request);
        if let Some(bundle) = self.bundles.get_mut(slot) {
            bundle.users += 1;
        }
        if let Some(process) = self.executors.get_mut(&executor) {
            process.actors.insert(actor);
        }
        self.hosted.insert(actor, hosted);
        if self.draining {
            self.consider_move(actor);
        }
    }

    /// A call from another worker's program.
    pub(super) fn called(&mut self, from: WorkerId, assignment: Assignment) {
        let Assignment { spec, attempt, owner, .. } = assignment;
        if owner != from || !matches!(spec.kind, TaskKind::ActorCall { .. }) {
            return;
        }
        if let Some(key) = self.tasks.find(spec.id, from) {
            let entry = &mut self.tasks[key];
            if attempt > entry.attempt {
                entry.attempt = attempt;
            }
            return;
        }
        self.peer(from).hosted.insert(spec.id);
        let key = self.insert_task(Arc::new(spec), from, attempt, ExecutorId(0));
        self.host_call(key);
    }

    /// A call is for an actor that lives here, or did.
    pub(super) fn host_call(&mut self, key: TaskKey) {
        let TaskKind::ActorCall { actor, rules, .. } = self.tasks[key].spec.kind else { return };
        if !self.hosted.contains_key(&actor) {
            let task = self.tasks[key].spec.id;
            // It has not run: the next life gets it, if there is one.
            let cause = Cause::ActorDied(Death::Moved);
            return self.conclude(key, Outcome::Failed(TaskError { task, cause }));
        }
        let (caller, order) = (self.tasks[key].owner, self.tasks.next_stamp());
        self.resolve(key, TaskState::Mailbox);
        if rules.out_of_order {
            return;
        }
        let call = Call { order, key, stamp: self.tasks[key].stamp };
        if let Some(hosted) = self.hosted.get_mut(&actor) {
            hosted.mailboxes.entry(caller).or_default().push_back(call);
        }
    }

    /// Runs the calls at the front of a mailbox that miss nothing.
    pub(super) fn advance_mailbox(&mut self, actor: ActorId, caller: WorkerId) {
        loop {
            let Some(hosted) = self.hosted.get_mut(&actor) else { return };
            let executor = hosted.executor;
            if self.moves.hold_back(actor, hosted) {
                return;
            }
            let Some(mailbox) = hosted.mailboxes.get_mut(&caller) else { return };
            let Some(&call) = mailbox.front() else {
                return;
            };
            match self.tasks.current(call.key, call.stamp) {
                Some(task) if task.missing > 0 => return,
                Some(_) if self.tasks.has_rival(call.key) => {
                    return self.tasks.wait_for_rival(call.key);
                }
                Some(task) => {
                    let counts_once = matches!(task.spec.kind,
                        TaskKind::ActorCall { rules, .. } if rules.exactly_once);
                    mailbox.pop_front();
                    if !(counts_once && self.answers_from_note(call.key, actor)) {
                        self.run(call.key, executor);
                    }
                }
                None => drop(mailbox.pop_front()),
            }
        }
    }

    /// The executor of a hosted actor died. Calls that ran in it are the executor's to fail.
    pub(super) fn hosted_lost(&mut self, actor: ActorId, death: &Death) {
        let Some(hosted) = self.hosted.remove(&actor) else { return };
        let (owner, life) = (hosted.owner, hosted.life);
        self.end_routes(actor, &hosted, death);
        self.life_over(actor, &hosted);
        if owner == self.me {
            self.actor_lost(actor, life, death.clone());
        } else {
            let message = PeerMessage::ActorLost { actor, life, death: death.clone() };
            self.send_settled(owner, message, smallvec::SmallVec::new());
        }
        self.fail_mailboxes(hosted, death);
    }

    /// Ends an actor on purpose.
    pub(super) fn end_hosted(&mut self, actor: ActorId, death: Death) {
        let Some(hosted) = self.hosted.remove(&actor) else { return };
        let executor = hosted.executor;
        let mut calls = Vec::new();
        if let Some(process) = self.executors.get_mut(&executor) {
            process.actors.remove(&actor);
            let tasks = &self.tasks;
            calls.extend(process.running.iter().copied().filter(|key| {
                matches!(tasks[*key].spec.kind, TaskKind::ActorCall { actor: of, .. }
                    if of == actor)
            }));
        }
        self.end_routes(actor, &hosted, &death);
        self.life_over(actor, &hosted);
        if hosted.shared {
            self.act(LocalAction::DropActor { executor, actor });
        } else {
            self.stop_executor(executor, true);
        }
        calls.sort_unstable_by_key(|key| self.tasks[*key].order);
        for key in calls {
            if hosted.shared {
                self.cut_off(key, executor, &hosted);
            }
            let task = self.tasks[key].spec.id;
            let cause = Cause::ActorDied(death.clone());
            self.fail(key, TaskError { task, cause });
        }
        self.fail_mailboxes(hosted, &death);
    }

    /// A call is answered although it may still run, and read its arguments: they are held until
    /// its executor says that it has ended.
    fn cut_off(&mut self, key: TaskKey, executor: ExecutorId, hosted: &Hosted) {
        let TaskState::Running { attempt, .. } = self.tasks[key].state else { return };
        let spec = Arc::clone(&self.tasks[key].spec);
        if hosted.unkept.calls().any(|call| call.applied.call == spec.id) {
            return; // its executor has said so
        }
        let references = spec.dependencies.iter().chain(&spec.borrowed);
        let held: Vec<ObjectId> = references.map(|reference| reference.object).collect();
        if held.is_empty() {
            return;
        }
        spec.dependencies.iter().chain(&spec.borrowed).for_each(|one| self.hold(*one));
        if let Some(process) = self.executors.get_mut(&executor) {
            process.cut_off.entry((spec.id, attempt)).or_default().extend(held);
        }
    }

    /// A task has ended whose end counts for nothing any longer.
    pub(super) fn ended_in_vain(
        &mut self,
        executor: ExecutorId,
        of: (TaskId, u32),
        outcome: &Outcome,
    ) {
        self.discard_values(of.0, outcome);
        if let Some(process) = self.executors.get_mut(&executor)
            && !process.cut_off.is_empty()
        {
            let held = process.cut_off.remove(&of).unwrap_or_default();
            self.steps.extend(held.into_iter().map(Step::LetGo));
        }
    }

    pub(super) fn life_over(&mut self, actor: ActorId, hosted: &Hosted) {
        self.give_back_life(hosted);
        self.discard_unkept(hosted);
        if hosted.owner != self.me {
            self.forget_saved(actor, hosted.owner);
            if self.actors.get(&actor).is_some_and(|entry| entry.supervised.is_none()) {
                // Calls made here wait for what the owner says of the next life.
                self.past_life(actor, hosted.life);
            }
        }
        if hosted.assigned {
            self.head.ended.push((actor.0, hosted.life));
        }
        if let Some(peer) = self.peers.get_mut(&hosted.owner) {
            peer.hosted.remove(&actor.0);
        }
    }

    pub(super) fn fail_mailboxes(&mut self, hosted: Hosted, death: &Death) {
        let mut calls: Vec<Call> = hosted.mailboxes.into_values().flatten().collect();
        calls.sort_unstable_by_key(|call| call.order);
        for call in calls {
            if let Some(task) = self.tasks.current(call.key, call.stamp) {
                let task = task.spec.id;
                let cause = Cause::ActorDied(death.clone());
                self.fail(call.key, TaskError { task, cause });
            }
        }
    }
}

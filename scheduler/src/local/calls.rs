//! Calls of actors from here: in order for each submitter, to wherever the actor lives. A call
//! that may start out of order joins its lane when it has its arguments, so that it keeps nobody
//! waiting.

use std::sync::Arc;

use super::LocalCore;
use crate::actor::{ActorState, Call, Out};
use crate::id::{ActorId, ExecutorId, WorkerId};
use crate::message::PeerMessage;
use crate::outcome::TaskError;
use crate::spec::{Assignment, CallRules, TaskKind};
use crate::task::{TaskKey, TaskState};

impl LocalCore {
    /// A call joins the lane of its submitter, at its place in order: a call that is made again
    /// goes before later ones.
    pub(super) fn begin_call(
        &mut self,
        key: TaskKey,
        actor: ActorId,
        owner: WorkerId,
        rules: CallRules,
    ) {
        self.known_actor(actor, owner);
        if rules.exactly_once {
            let spec = Arc::clone(&self.tasks[key].spec);
            self.note_caller(&spec);
        }
        self.resolve(key, TaskState::Lane);
        if rules.out_of_order {
            return;
        }
        let entry = &self.tasks[key];
        let call = Call { order: entry.order, key, stamp: entry.stamp };
        let submitter = entry.submitter;
        if let Some(actor) = self.actors.get_mut(&actor) {
            let lane = actor.lanes.entry(submitter).or_default();
            let place = lane.partition_point(|other| other.order < call.order);
            lane.insert(place, call);
        }
    }

    /// A call that may start out of order has its arguments.
    pub(super) fn joins(&mut self, key: TaskKey, stamp: u64) {
        let Some(entry) = self.tasks.current(key, stamp) else { return };
        let TaskKind::ActorCall { actor, actor_owner, .. } = entry.spec.kind else { return };
        let call = Call { order: entry.order, key, stamp };
        let (submitter, owner) = (entry.submitter, entry.owner);
        if matches!(entry.state, TaskState::Lane) {
            // What was only known to be dead may have been forgotten with another job.
            self.known_actor(actor, actor_owner);
            if let Some(entry) = self.actors.get_mut(&actor) {
                entry.lanes.entry(submitter).or_default().push_back(call);
                self.steps.push_back(super::Step::Lane(actor, submitter));
            }
        } else if let Some(hosted) = self.hosted.get_mut(&actor) {
            let mailbox = hosted.mailboxes.entry(owner).or_default();
            // One that had a rival is there already.
            if !mailbox.iter().any(|other| other.key == key && other.stamp == stamp) {
                mailbox.push_back(call);
            }
            self.steps.push_back(super::Step::Mailbox(actor, owner));
        } else {
            self.host_call(key);
        }
    }

    pub(super) fn advance_lanes(&mut self, actor: ActorId) {
        let Some(entry) = self.actors.get(&actor) else { return };
        let mut submitters: Vec<ExecutorId> = entry.lanes.keys().copied().collect();
        submitters.sort_unstable();
        for submitter in submitters {
            self.steps.push_back(super::Step::Lane(actor, submitter));
        }
    }

    /// Sends the calls at the front of a lane that miss nothing, as far as the actor has a place.
    pub(super) fn advance_lane(&mut self, actor: ActorId, submitter: ExecutorId) {
        loop {
            let Some(entry) = self.actors.get_mut(&actor) else { return };
            let Some(lane) = entry.lanes.get_mut(&submitter) else { return };
            let Some(&call) = lane.front() else {
                entry.lanes.remove(&submitter);
                return;
            };
            let Some(task) = self.tasks.current(call.key, call.stamp) else {
                lane.pop_front();
                continue;
            };
            match &entry.place {
                ActorState::Dead(error) => {
                    let error = TaskError::clone(error);
                    lane.pop_front();
                    self.fail(call.key, error);
                }
                ActorState::At { worker, life }
                    if task.missing == 0 && *life >= entry.floor && entry.out.lets_go(*life) =>
                {
                    let (worker, life) = (*worker, *life);
                    if worker == self.me && !self.hosted.contains_key(&actor) {
                        // Its supervisor will tell what becomes of it.
                        return self.past_life(actor, life);
                    }
                    lane.pop_front();
                    self.send_call(call.key, worker, life);
                }
                ActorState::At { .. } | ActorState::Pending => return,
            }
        }
    }

    fn send_call(&mut self, key: TaskKey, worker: WorkerId, life: u32) {
        if worker == self.me {
            return self.host_call(key);
        }
        self.tasks.restamp(key);
        let entry = &mut self.tasks[key];
        entry.state = TaskState::Called { worker, life };
        let (id, attempt, spec) = (entry.spec.id, entry.attempt, Arc::clone(&entry.spec));
        if let TaskKind::ActorCall { actor, .. } = spec.kind
            && let Some(entry) = self.actors.get_mut(&actor)
        {
            entry.out = Out { life, calls: entry.out.calls + 1 };
        }
        self.peer(worker).placed.insert(id);
        let assignment = Assignment::new((*spec).clone(), attempt, self.me);
        // Ordered with what else waits for that worker.
        self.send_settled(worker, PeerMessage::call(assignment), smallvec::SmallVec::new());
    }

    /// An own task is no longer where it was sent to.
    pub(super) fn is_back(&mut self, key: TaskKey) {
        let entry = &self.tasks[key];
        let (TaskState::Placed { worker } | TaskState::Called { worker, .. }) = entry.state else {
            return;
        };
        let id = entry.spec.id;
        if self.peer(worker).placed.remove(&id) {
            self.call_is_back(key);
        }
    }

    /// The same, where nothing is kept of the other worker any more.
    pub(super) fn call_is_back(&mut self, key: TaskKey) {
        let entry = &self.tasks[key];
        let TaskKind::ActorCall { actor, .. } = entry.spec.kind else { return };
        if !matches!(entry.state, TaskState::Called { .. }) {
            return;
        }
        let Some(entry) = self.actors.get_mut(&actor) else { return };
        entry.out.calls = entry.out.calls.saturating_sub(1);
        if entry.out.calls == 0 && !entry.lanes.is_empty() {
            self.advance_lanes(actor);
        }
    }
}

//! Calls of actors from here: in order for each submitter, to wherever the actor lives.

use std::sync::Arc;

use super::LocalCore;
use crate::actor::{ActorState, Call};
use crate::id::{ActorId, ExecutorId, WorkerId};
use crate::message::PeerMessage;
use crate::outcome::TaskError;
use crate::spec::Assignment;
use crate::task::{TaskKey, TaskState};

impl LocalCore {
    /// A call joins the lane of its submitter, at its place in order: a call that is made again
    /// goes before later ones.
    pub(super) fn begin_call(&mut self, key: TaskKey, actor: ActorId, owner: WorkerId) {
        self.known_actor(actor, owner);
        self.resolve(key, TaskState::Lane);
        let entry = &self.tasks[key];
        let call = Call { order: entry.order, key, stamp: entry.stamp };
        let submitter = entry.submitter;
        if let Some(actor) = self.actors.get_mut(&actor) {
            let lane = actor.lanes.entry(submitter).or_default();
            let place = lane.partition_point(|other| other.order < call.order);
            lane.insert(place, call);
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
                ActorState::At { worker, life } if task.missing == 0 && *life >= entry.floor => {
                    let (worker, life) = (*worker, *life);
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
        self.peer(worker).placed.insert(id);
        let assignment = Assignment { spec: (*spec).clone(), attempt, owner: self.me };
        // Ordered with what else waits for that worker.
        self.send_settled(worker, PeerMessage::Call(assignment), smallvec::SmallVec::new());
    }
}

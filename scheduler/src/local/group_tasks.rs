//! Tasks and actors go into the bundles of their placement group, and may be turned away there.

use std::sync::Arc;

use super::LocalCore;
use super::groups::gone;
use crate::group::{GroupEntry, GroupKey};
use crate::id::{GroupId, WorkerId};
use crate::message::{GroupMessage, PeerMessage};
use crate::outcome::{Cause, TaskError};
use crate::resource::Resources;
use crate::spec::{Assignment, InGroup};
use crate::task::{TaskKey, TaskState};

impl LocalCore {
    /// An own task whose dependencies exist goes into its group, or waits for it.
    pub(super) fn enter_group(&mut self, key: TaskKey) {
        let spec = Arc::clone(&self.tasks[key].spec);
        let Some(InGroup { group, owner, bundle }) = spec.strategy.in_group() else { return };
        if !self.know_group(group, owner) {
            return self.fail(key, TaskError { task: spec.id, cause: gone(group).cause });
        }
        let place = match self.choose_bundle((group, owner), &spec.request, bundle) {
            Ok(place) => place,
            Err(reason) => {
                let cause = Cause::Refused { reason };
                return self.fail(key, TaskError { task: spec.id, cause });
            }
        };
        let Some((number, worker, round)) = place else {
            let stamp = self.tasks.restamp(key);
            self.tasks[key].state = TaskState::Grouping;
            if let Some(entry) = self.groups.get_mut(&(group, owner)) {
                entry.waiting.push((key, stamp));
            }
            return;
        };
        if worker == self.me {
            if let Some(slot) = self.bundles.find((group, owner), number) {
                self.join_bundle(key, slot);
                self.resolve(key, TaskState::Waiting { here: true });
            }
            return;
        }
        self.tasks.restamp(key);
        self.tasks[key].state = TaskState::Placed { worker };
        let attempt = self.tasks[key].attempt;
        self.peer(worker).placed.insert(spec.id);
        let assignment = Assignment::new((*spec).clone(), attempt, self.me);
        let enter = GroupMessage::Enter { bundle: number, round, assignment: Box::new(assignment) };
        // Ordered with what else waits for that worker.
        self.send_settled(worker, PeerMessage::Group(enter), smallvec::SmallVec::new());
    }

    /// Where the bundles of another leader's group are is asked once; changes are told. False if
    /// the group is gone.
    fn know_group(&mut self, group: GroupId, owner: WorkerId) -> bool {
        if self.groups.contains_key(&(group, owner)) {
            return true;
        }
        if owner == self.me || self.is_dead(owner) {
            return false;
        }
        self.peer(owner);
        self.groups.insert((group, owner), GroupEntry::unknown());
        self.send(owner, PeerMessage::Group(GroupMessage::Locate(group)));
        true
    }

    /// The bundle that a task goes into: the one that it names, or one that has room here, or the
    /// next in turn that is large enough. `None`: it has to wait.
    fn choose_bundle(
        &mut self,
        at: GroupKey,
        request: &Resources,
        bundle: Option<u32>,
    ) -> Result<Option<(u32, WorkerId, u32)>, String> {
        let (me, dead, bundles) = (self.me, &self.dead, &self.bundles);
        let Some(entry) = self.groups.get_mut(&at) else { return Ok(None) };
        if entry.bundles.is_empty() {
            return Ok(None);
        }
        let live = |number: usize| {
            let (worker, round) = entry.bundles[number].place?;
            (!dead.contains(&worker)).then_some((number as u32, worker, round))
        };
        let count = entry.bundles.len();
        if let Some(number) = bundle {
            let Some(wanted) = entry.bundles.get(number as usize) else {
                return Err(format!("{} has bundles 0 to {}, not {number}", at.0, count - 1));
            };
            if !wanted.request.covers(request) {
                let holds = &wanted.request;
                return Err(format!(
                    "it needs {request}; bundle {number} of {} holds {holds}",
                    at.0
                ));
            }
            return Ok(live(number as usize));
        }
        let is_able = |number: &usize| entry.bundles[*number].request.covers(request);
        if !(0..count).any(|number| is_able(&number)) {
            return Err(format!("it needs {request}; no bundle of {} holds that", at.0));
        }
        let has_room = |(number, worker, _): &(u32, WorkerId, u32)| {
            let found = (*worker == me).then(|| bundles.find(at, *number)).flatten();
            let bundle = found.and_then(|slot| bundles.get(slot));
            bundle.is_some_and(|bundle| bundle.queue.len() == 0 && bundle.ledger.fits(request))
        };
        let in_turn = || (entry.turn..entry.turn + count).map(|n| n % count).filter(is_able);
        let found = in_turn().filter_map(live).find(has_room);
        let Some(found) = found.or_else(|| in_turn().find_map(live)) else { return Ok(None) };
        entry.turn = found.0 as usize + 1;
        Ok(Some(found))
    }

    /// A worker does not have the bundle that a task was sent to.
    pub(super) fn turned(
        &mut self,
        from: WorkerId,
        (task, attempt): (crate::id::TaskId, u32),
        number: u32,
        round: u32,
    ) {
        let Some(key) = self.tasks.find(task, self.me) else { return };
        let entry = &self.tasks[key];
        let Some(InGroup { group, owner, .. }) = entry.spec.strategy.in_group() else { return };
        let there = matches!(entry.state, TaskState::Placed { worker } if worker == from);
        if !there || entry.attempt != attempt {
            return;
        }
        if let Some(known) = self.groups.get_mut(&(group, owner))
            && known.led.is_none()
            && let Some(bundle) = known.bundles.get_mut(number as usize)
            && bundle.place == Some((from, round))
        {
            // The leader is about to say where it is now.
            bundle.place = None;
        }
        self.peer(from).placed.remove(&task);
        if self.tasks[key].cancelled {
            return self.fail(key, TaskError { task, cause: Cause::Cancelled });
        }
        self.enter_group(key);
    }
}

//! Placement groups, as their leader and as those whose tasks go into them. The steps are drawn in
//! [`crate::group`]; where bundles are reserved is the part of `bundles`.

use std::sync::Arc;

use super::{LocalAction, LocalCore, Step};
use crate::group::{GroupEntry, GroupKey, Pending};
use crate::id::{ExecutorId, GroupId, WorkerId};
use crate::message::{GroupMessage, GroupPlace, GroupRequest, PeerMessage, ToHead};
use crate::outcome::{Cause, Outcome, Returned, TaskError};
use crate::resource::Resources;
use crate::spec::{GroupOptions, GroupStrategy, TaskKind, TaskSpec};
use crate::task::{TaskKey, TaskState};

impl LocalCore {
    /// A group is to be reserved; or it was, and its maker runs again.
    pub(super) fn begin_group(
        &mut self,
        key: TaskKey,
        spec: &Arc<TaskSpec>,
        options: &GroupOptions,
    ) {
        let group = GroupId(spec.id);
        if let Some(reason) = refusal(options) {
            return self.fail(key, TaskError { task: spec.id, cause: Cause::Refused { reason } });
        }
        self.tasks.restamp(key);
        self.tasks[key].state = TaskState::Grouping;
        let at = (group, self.me);
        match self.groups.get(&at).and_then(|entry| entry.led.as_ref()) {
            Some(led) if led.pending.is_empty() => return self.group_complete(group),
            Some(_) => return,
            None => {}
        }
        let creator = self.tasks[key].submitter;
        let entry = GroupEntry::led(Arc::clone(spec), options, creator);
        let before = self.groups.insert(at, entry);
        for (waiting, stamp) in before.into_iter().flat_map(|entry| entry.waiting) {
            self.steps.push_back(Step::Grouped(waiting, stamp));
        }
        self.place_group(group);
    }

    /// Finds places for the bundles that have none: here at once, or through the head.
    fn place_group(&mut self, group: GroupId) {
        let me = self.me;
        let Some(entry) = self.groups.get(&(group, me)) else { return };
        let Some(led) = &entry.led else { return };
        let TaskKind::GroupCreate(options) = &led.spec.kind else { return };
        let strategy = options.strategy;
        let wanted: Vec<(u32, Resources)> = (0..)
            .zip(&entry.bundles)
            .filter(|(_, bundle)| bundle.place.is_none())
            .map(|(number, bundle)| (number, bundle.request.clone()))
            .collect();
        let beside: Vec<WorkerId> =
            entry.bundles.iter().filter_map(|bundle| Some(bundle.place?.0)).collect();
        let may_be_here = match strategy {
            GroupStrategy::Pack => true,
            GroupStrategy::StrictPack => beside.iter().all(|worker| *worker == me),
            GroupStrategy::Spread | GroupStrategy::StrictSpread => entry.bundles.len() == 1,
        };
        self.last_round += 1;
        let round = self.last_round;
        let mut sum = Resources::NONE;
        wanted.iter().for_each(|(_, request)| sum.add(request));
        let is_limited = self.quotas.counts(group.0.job(), &sum);
        if may_be_here && !is_limited && !self.draining && self.ledger.fits(&sum) {
            for (number, request) in wanted {
                self.reserve((group, me), number, round, request);
                if let Some(entry) = self.groups.get_mut(&(group, me)) {
                    entry.bundles[number as usize].place = Some((me, round));
                }
            }
            return self.group_complete(group);
        }
        let Some(entry) = self.groups.get_mut(&(group, me)) else { return };
        let Some(led) = &mut entry.led else { return };
        led.round = round;
        led.waits = None;
        let pending = |place: Option<_>| place.map_or(Pending::Asked, |_| Pending::Settled);
        led.pending = entry.bundles.iter().map(|bundle| pending(bundle.place)).collect();
        let request = GroupRequest { group, round, strategy, bundles: wanted, beside };
        self.send_head(ToHead::GroupWanted(request));
    }

    /// The head has told workers to reserve the bundles of a round.
    pub(super) fn group_placed(&mut self, group: GroupId, round: u32, workers: &[WorkerId]) {
        let deadline = self.now + self.config.group_patience;
        let Some(entry) = self.groups.get_mut(&(group, self.me)) else { return };
        let Some(led) = entry.led.as_mut().filter(|led| led.round == round) else { return };
        let open = led.pending.iter_mut().filter(|pending| **pending != Pending::Settled);
        for (pending, worker) in open.zip(workers) {
            if *pending == Pending::Asked {
                *pending = Pending::Placed(*worker);
            }
        }
        if !led.pending.is_empty() {
            self.group_deadlines.push_back((deadline, group, round));
        }
    }

    pub(super) fn group_waits(&mut self, group: GroupId, reason: String) {
        if let Some(entry) = self.groups.get_mut(&(group, self.me))
            && let Some(led) = &mut entry.led
        {
            led.waits = Some(reason.into());
        }
    }

    /// A worker has set a bundle aside.
    pub(super) fn bundle_reserved(
        &mut self,
        from: WorkerId,
        group: GroupId,
        number: u32,
        round: u32,
    ) {
        let me = self.me;
        let pending = self.groups.get_mut(&(group, me)).and_then(|entry| {
            let led = entry.led.as_mut().filter(|led| led.round == round)?;
            led.pending.get_mut(number as usize)
        });
        match pending {
            Some(pending @ (Pending::Asked | Pending::Placed(_))) => {
                *pending = Pending::Reserved(from);
            }
            _ => return self.return_bundle_at(from, (group, number, round), true),
        }
        self.finish_round(group);
    }

    /// Lets tasks in when every bundle of the round is reserved.
    fn finish_round(&mut self, group: GroupId) {
        let Some(entry) = self.groups.get_mut(&(group, self.me)) else { return };
        let Some(led) = &mut entry.led else { return };
        let is_open = |pending: &Pending| matches!(pending, Pending::Asked | Pending::Placed(_));
        if led.pending.iter().any(is_open) {
            return;
        }
        for (bundle, pending) in entry.bundles.iter_mut().zip(led.pending.drain(..)) {
            if let Pending::Reserved(worker) = pending {
                bundle.place = Some((worker, led.round));
            }
        }
        self.group_complete(group);
    }

    /// Every bundle has its place.
    fn group_complete(&mut self, group: GroupId) {
        self.tell_group(group);
        self.wake_group((group, self.me));
        let Some(key) = self.tasks.find(group.0, self.me) else { return };
        if !matches!(self.tasks[key].state, TaskState::Grouping) {
            return;
        }
        let mut values = Vec::new();
        if self.tasks[key].spec.returns > 0 {
            self.act(LocalAction::PutNothing { object: group.0.object(0) });
            values.push(Returned { size: 0, inline: true, contains: Vec::new() });
        }
        self.conclude(key, Outcome::Returned(values));
    }

    /// A worker cannot reserve a bundle, or wants to be rid of it.
    pub(super) fn bundle_refused(
        &mut self,
        from: WorkerId,
        group: GroupId,
        number: u32,
        round: u32,
    ) {
        let Some(entry) = self.groups.get_mut(&(group, self.me)) else { return };
        let (Some(led), Some(bundle)) = (&entry.led, entry.bundles.get_mut(number as usize)) else {
            return;
        };
        let in_round = led.round == round
            && matches!(
                led.pending.get(number as usize),
                Some(Pending::Asked | Pending::Placed(_) | Pending::Reserved(_))
            );
        if bundle.place == Some((from, round)) {
            bundle.place = None;
            self.return_bundle_at(from, (group, number, round), false);
        } else if !in_round {
            return;
        }
        self.next_round(group);
    }

    /// Takes back what was reserved in an open round, and begins another one.
    fn next_round(&mut self, group: GroupId) {
        self.abort_round(group, false);
        self.tell_group(group);
        self.place_group(group);
    }

    fn abort_round(&mut self, group: GroupId, gone: bool) {
        let Some(entry) = self.groups.get_mut(&(group, self.me)) else { return };
        let Some(led) = &mut entry.led else { return };
        let round = led.round;
        for (number, pending) in (0..).zip(core::mem::take(&mut led.pending)) {
            if let Pending::Placed(worker) | Pending::Reserved(worker) = pending {
                self.return_bundle_at(worker, (group, number, round), gone);
            }
        }
    }

    /// A round that takes too long may wait for another group that waits for this one.
    pub(super) fn expire_groups(&mut self) {
        while let Some(&(deadline, group, round)) = self.group_deadlines.front()
            && deadline <= self.now
        {
            self.group_deadlines.pop_front();
            let led = self.groups.get(&(group, self.me)).and_then(|entry| entry.led.as_ref());
            if led.is_some_and(|led| led.round == round && !led.pending.is_empty()) {
                self.next_round(group);
            }
        }
    }

    /// A fresh head knows nothing of what was asked for, or has lost what it had begun.
    pub(super) fn ask_for_groups_again(&mut self) {
        let is_open = |led: &crate::group::Led| !led.pending.is_empty();
        let mut open: Vec<GroupId> = self
            .groups
            .iter()
            .filter(|(_, entry)| entry.led.as_deref().is_some_and(is_open))
            .map(|((group, _), _)| *group)
            .collect();
        open.sort_unstable();
        for group in open {
            self.next_round(group);
        }
    }

    /// Somebody here gives a group back.
    pub(super) fn remove_group(&mut self, group: GroupId, owner: WorkerId) {
        if owner == self.me {
            let reason = "its placement group was removed".to_owned();
            self.group_ends(group, &Cause::Refused { reason });
        } else {
            self.send(owner, PeerMessage::Group(GroupMessage::Remove(group)));
        }
    }

    /// A led group is gone, with everything that runs in it.
    pub(super) fn group_ends(&mut self, group: GroupId, cause: &Cause) {
        let at = (group, self.me);
        if self.groups.get(&at).is_none_or(|entry| entry.led.is_none()) {
            return;
        }
        self.abort_round(group, true);
        let Some(entry) = self.groups.remove(&at) else { return };
        let Some(led) = entry.led else { return };
        // A request that was placed, or that the head never saw, is no harm.
        if entry.bundles.iter().any(|bundle| bundle.place.is_none()) {
            self.send_head(ToHead::GroupUnwanted(group));
        }
        for (number, bundle) in (0..).zip(&entry.bundles) {
            if let Some((worker, round)) = bundle.place {
                self.return_bundle_at(worker, (group, number, round), true);
            }
        }
        let error = TaskError { task: group.0, cause: cause.clone() };
        for to in led.subscribers {
            let place = GroupPlace::Gone(error.clone());
            self.send(to, PeerMessage::Group(GroupMessage::Located { group, place }));
        }
        self.fail_waiting(entry.waiting, cause);
        if let Some(key) = self.tasks.find(group.0, self.me) {
            self.fail(key, error);
        }
    }

    /// A driver or an actor has ended: groups that it asked for go with it.
    pub(super) fn end_groups_of(&mut self, creator: ExecutorId) {
        if self.groups.is_empty() {
            return;
        }
        let made = |entry: &GroupEntry| entry.led.as_ref().is_some_and(|l| l.creator == creator);
        let mut groups: Vec<GroupId> =
            self.groups.iter().filter(|(_, e)| made(e)).map(|((group, _), _)| *group).collect();
        groups.sort_unstable();
        for group in groups {
            let reason = "the process that reserved its placement group has ended".to_owned();
            self.group_ends(group, &Cause::Refused { reason });
        }
    }

    /// A worker is lost: its bundles are placed again, its groups are gone.
    pub(super) fn group_worker_died(&mut self, worker: WorkerId) {
        let mut keys: Vec<GroupKey> = self.groups.keys().copied().collect();
        keys.sort_unstable();
        for (group, owner) in keys {
            let Some(entry) = self.groups.get_mut(&(group, owner)) else { continue };
            let Some(led) = &mut entry.led else {
                if owner == worker
                    && let Some(entry) = self.groups.remove(&(group, owner))
                {
                    self.fail_waiting(entry.waiting, &Cause::OwnerDied);
                }
                continue;
            };
            led.subscribers.retain(|subscriber| *subscriber != worker);
            let mut lost = led.pending.iter().any(|pending| {
                matches!(pending, Pending::Placed(at) | Pending::Reserved(at) if *at == worker)
            });
            for bundle in &mut entry.bundles {
                if bundle.place.is_some_and(|(at, _)| at == worker) {
                    bundle.place = None;
                    lost = true;
                }
            }
            if lost {
                self.next_round(group);
            }
        }
    }

    /// Every bundle of this worker that others lead, or it leads itself, is to go elsewhere.
    pub(super) fn drain_groups(&mut self) {
        let bundles: Vec<(GroupKey, u32, u32)> = self
            .bundles
            .iter()
            .map(|(_, bundle)| ((bundle.group, bundle.owner), bundle.number, bundle.round))
            .collect();
        for ((group, owner), number, round) in bundles {
            if owner == self.me {
                self.bundle_refused(owner, group, number, round);
            } else {
                let refused = GroupMessage::Refused { group, bundle: number, round };
                self.send(owner, PeerMessage::Group(refused));
            }
        }
    }

    pub(super) fn group_says(&mut self, from: WorkerId, message: GroupMessage) {
        match message {
            GroupMessage::Locate(group) => self.group_locate(from, group),
            GroupMessage::Located { group, place } => self.group_located(from, group, place),
            GroupMessage::Remove(group) => self.remove_group(group, self.me),
            GroupMessage::Reserved { group, bundle, round } => {
                self.bundle_reserved(from, group, bundle, round);
            }
            GroupMessage::Refused { group, bundle, round } => {
                self.bundle_refused(from, group, bundle, round);
            }
            GroupMessage::Return { group, bundle, round, gone } => {
                self.bundle_returned((group, from), bundle, round, gone);
            }
            GroupMessage::Enter { bundle, round, assignment } => {
                self.entered(from, bundle, round, *assignment);
            }
            GroupMessage::Turned { task, attempt, bundle, round } => {
                self.turned(from, (task, attempt), bundle, round);
            }
        }
    }

    fn group_locate(&mut self, from: WorkerId, group: GroupId) {
        let place = match self.groups.get_mut(&(group, self.me)) {
            Some(GroupEntry { led: Some(led), bundles, .. }) => {
                if !led.subscribers.contains(&from) {
                    led.subscribers.push(from);
                }
                GroupPlace::Bundles(bundles.clone())
            }
            _ => GroupPlace::Gone(gone(group)),
        };
        self.send(from, PeerMessage::Group(GroupMessage::Located { group, place }));
    }

    fn group_located(&mut self, from: WorkerId, group: GroupId, place: GroupPlace) {
        let Some(entry) = self.groups.get_mut(&(group, from)) else { return };
        match place {
            GroupPlace::Bundles(bundles) => {
                entry.bundles = bundles;
                self.wake_group((group, from));
            }
            GroupPlace::Gone(error) => {
                if let Some(entry) = self.groups.remove(&(group, from)) {
                    self.fail_waiting(entry.waiting, &error.cause);
                }
            }
        }
    }

    fn tell_group(&mut self, group: GroupId) {
        let Some(entry) = self.groups.get(&(group, self.me)) else { return };
        let Some(led) = &entry.led else { return };
        if led.subscribers.is_empty() {
            return;
        }
        let place = GroupPlace::Bundles(entry.bundles.clone());
        for to in led.subscribers.clone() {
            let place = place.clone();
            self.send(to, PeerMessage::Group(GroupMessage::Located { group, place }));
        }
    }

    fn wake_group(&mut self, at: GroupKey) {
        let Some(entry) = self.groups.get_mut(&at) else { return };
        let waiting = core::mem::take(&mut entry.waiting);
        self.steps.extend(waiting.into_iter().map(|(key, stamp)| Step::Grouped(key, stamp)));
    }

    fn fail_waiting(&mut self, waiting: Vec<(TaskKey, u64)>, cause: &Cause) {
        for (key, stamp) in waiting {
            if let Some(task) = self.tasks.current(key, stamp) {
                let error = TaskError { task: task.spec.id, cause: cause.clone() };
                self.steps.push_back(Step::Fail(key, stamp, Arc::new(error)));
            }
        }
    }
}

/// Why a group can never be reserved.
fn refusal(options: &GroupOptions) -> Option<String> {
    let most = GroupOptions::MAX_BUNDLES;
    if options.bundles.is_empty() || options.bundles.len() > most {
        let count = options.bundles.len();
        return Some(format!("a placement group has 1 to {most} bundles, not {count}"));
    }
    let empty = options.bundles.iter().position(Resources::is_none)?;
    Some(format!("bundle {empty} of the placement group holds nothing; give it a resource"))
}

pub(super) fn gone(group: GroupId) -> TaskError {
    let reason = format!("{group} was removed, or never reserved");
    TaskError { task: group.0, cause: Cause::Refused { reason } }
}

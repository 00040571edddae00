//! Placement groups that wait for workers: all bundles that a leader asks for are placed at once,
//! or none. What becomes of them is between the leader and these workers ([`crate::group`]); the
//! head counts a bundle like any task that it has placed, until the worker says that it ended.

use std::collections::{BTreeMap, BTreeSet};

use super::core::ClusterCore;
use crate::id::{GroupId, JobId, TaskId, WorkerId};
use crate::message::{FromHead, GroupRequest};
use crate::placement::{GangAsk, Reason, choose_gang, gang_reason};
use crate::resource::Resources;
use crate::spec::{Assignment, GroupStrategy, TaskKind, TaskSpec};

type Key = (GroupId, WorkerId);
/// What decides whether a group can be placed now.
type Shape = (GroupStrategy, Vec<(u32, Resources)>, Vec<WorkerId>);

/// Groups in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Gangs {
    line: BTreeMap<u64, (WorkerId, GroupRequest)>,
    places: BTreeMap<Key, u64>,
    arrivals: u64,
    /// There may be one that can be placed.
    due: bool,
}

impl Gangs {
    pub(super) fn len(&self) -> usize {
        self.line.len()
    }

    /// Some worker has more room than before.
    pub(super) fn room_appeared(&mut self) {
        self.due = !self.line.is_empty();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (WorkerId, &GroupRequest)> {
        self.line.values().map(|(owner, request)| (*owner, request))
    }

    pub(super) fn remove(&mut self, key: &Key) {
        if let Some(place) = self.places.remove(key) {
            self.line.remove(&place);
        }
    }

    pub(super) fn remove_if(&mut self, gone: impl Fn(GroupId, WorkerId) -> bool) {
        self.line.retain(|_, (owner, request)| !gone(request.group, *owner));
        self.places.retain(|(group, owner), _| !gone(*group, *owner));
    }

    pub(super) fn remove_job(&mut self, job: JobId) {
        self.remove_if(|group, _| group.0.job() == job);
    }
}

pub(super) fn ask(request: &GroupRequest) -> GangAsk<'_> {
    let GroupRequest { bundles, strategy, beside, .. } = request;
    GangAsk { bundles, strategy: *strategy, beside }
}

impl ClusterCore {
    /// A leader wants workers for bundles.
    pub(super) fn group_wanted(&mut self, from: WorkerId, request: GroupRequest) {
        let job = request.group.0.job();
        if !self.is_active(job) {
            return self.forget_unknown_job(from, job);
        }
        let key = (request.group, from);
        // One that was asked for again keeps its place in line.
        let place = self.gangs.places.get(&key).copied().unwrap_or_else(|| {
            self.gangs.arrivals += 1;
            self.gangs.arrivals
        });
        let is_older = |(_, known): &(WorkerId, GroupRequest)| known.round > request.round;
        if request.bundles.is_empty() || self.gangs.line.get(&place).is_some_and(is_older) {
            return;
        }
        self.gangs.places.insert(key, place);
        self.gangs.line.insert(place, (from, request));
        self.gangs.due = true;
        self.untold_groups.push(key);
    }

    /// Places the groups for which there is room, in order.
    pub(super) fn settle_groups(&mut self) {
        if !core::mem::take(&mut self.gangs.due) {
            return;
        }
        let mut failed: BTreeSet<Shape> = BTreeSet::new();
        let mut after = 0;
        while let Some((place, (owner, request))) = self.gangs.line.range(after..).next() {
            after = *place + 1;
            if self.over_group_quota(request).is_some() {
                continue;
            }
            let shape = (request.strategy, request.bundles.clone(), request.beside.clone());
            if failed.contains(&shape) {
                continue;
            }
            match choose_gang(&self.field, &ask(request)) {
                Some(workers) => {
                    let (owner, request) = (*owner, request.clone());
                    self.gangs.remove(&(request.group, owner));
                    self.place_group(owner, request, workers);
                }
                None => drop(failed.insert(shape)),
            }
        }
        for key in core::mem::take(&mut self.untold_groups) {
            let waiting = self.gangs.places.get(&key).and_then(|place| self.gangs.line.get(place));
            let Some((owner, request)) = waiting else { continue };
            let reason = self.group_reason(request);
            let (to, group) = (*owner, request.group);
            self.send(to, FromHead::GroupWaiting { group, reason });
        }
    }

    fn place_group(&mut self, owner: WorkerId, request: GroupRequest, workers: Vec<WorkerId>) {
        let GroupRequest { group, round, bundles, .. } = request;
        for ((number, holds), worker) in bundles.into_iter().zip(&workers) {
            let spec = bundle_spec(group, number, holds);
            self.place_on(*worker, Assignment::new(spec, round, owner));
        }
        self.send(owner, FromHead::GroupPlaced { group, round, workers });
    }

    /// Why a group waits, if it does.
    pub(super) fn explain_group(&self, task: TaskId) -> Option<String> {
        let found = self.gangs.iter().find(|(_, request)| request.group.0 == task);
        found.map(|(_, request)| self.group_reason(request))
    }

    fn group_reason(&self, request: &GroupRequest) -> String {
        match self.over_group_quota(request) {
            Some(reason) => reason.to_string(),
            None => gang_reason(&self.field, &ask(request)),
        }
    }

    /// Why the job's quota does not let it have these bundles; `None`: it does.
    pub(super) fn over_group_quota(&self, request: &GroupRequest) -> Option<Reason> {
        let mut sum = Resources::NONE;
        request.bundles.iter().for_each(|(_, bundle)| sum.add(bundle));
        self.over_quota(request.group.0.job(), &sum)
    }
}

/// A bundle, as the worker is told of it.
fn bundle_spec(group: GroupId, number: u32, request: Resources) -> TaskSpec {
    let kind = TaskKind::Bundle { group, bundle: number };
    TaskSpec { kind, request, returns: 0, ..TaskSpec::plain(group.bundle(number), group.0) }
}

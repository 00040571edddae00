//! Workers for all bundles of a placement group at once, or for none.
//!
//! | strategy | prefers | refuses |
//! |---|---|---|
//! | pack | one worker, else the roomiest, filled one after the other | |
//! | strict pack | the worker that all bundles together fill best | two workers |
//! | spread | a further worker for each bundle, the roomiest first | |
//! | strict spread | the same | two bundles on one worker |
//!
//! Packing into few workers is the bin-packing problem; first fit of the largest first comes
//! within 22 % of the best (Johnson 1973), and may miss a packing that just fits. Spreading
//! strictly is a matching of bundles and workers, and finds one wherever there is one (Kuhn 1955).

use core::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::{Field, filter, pack, score};
use crate::id::WorkerId;
use crate::resource::Resources;
use crate::spec::GroupStrategy;

/// Bundles for which a matching is looked for, where taking the roomiest workers fails.
const MATCHED: usize = 256;

/// What a group asks for.
#[derive(Debug, Clone, Copy)]
pub struct GangAsk<'a> {
    /// Bundles that need a place, with their numbers.
    pub bundles: &'a [(u32, Resources)],
    /// How bundles lie to each other.
    pub strategy: GroupStrategy,
    /// Where the group's other bundles are.
    pub beside: &'a [WorkerId],
}

/// A worker for each bundle, in order; `None` while there is no room for all of them.
pub fn choose_gang(field: &Field, ask: &GangAsk<'_>) -> Option<Vec<WorkerId>> {
    let mut plan = Plan::new(field, ask);
    let found = match ask.strategy {
        GroupStrategy::StrictPack => plan.on_one(ask.beside.first().copied()),
        GroupStrategy::Pack => plan.pack(),
        GroupStrategy::Spread => plan.spread(false),
        GroupStrategy::StrictSpread => plan.spread(true) || plan.matching(),
    };
    found.then_some(plan.chosen)
}

struct Plan<'a> {
    field: &'a Field,
    ask: &'a GangAsk<'a>,
    /// Places in `ask.bundles`, the largest bundle first.
    order: Vec<usize>,
    chosen: Vec<WorkerId>,
    /// What is left of the room of workers that were chosen.
    rooms: BTreeMap<WorkerId, Resources>,
}

impl<'a> Plan<'a> {
    fn new(field: &'a Field, ask: &'a GangAsk<'a>) -> Self {
        let size = |at: &usize| {
            let request = &ask.bundles[*at].1;
            let custom = request.custom().map(|(_, amount)| amount).max();
            Reverse((custom, request.gpu, request.cpu, request.memory))
        };
        let mut order: Vec<usize> = (0..ask.bundles.len()).collect();
        order.sort_by_key(size);
        let chosen = vec![WorkerId::HEAD; order.len()];
        Self { field, ask, order, chosen, rooms: BTreeMap::new() }
    }

    fn request(&self, at: usize) -> &'a Resources {
        &self.ask.bundles[at].1
    }

    /// Takes room for a bundle, if there is enough.
    fn take(&mut self, at: usize, worker: WorkerId) -> bool {
        let request = self.request(at);
        let Some(spot) = self.field.spot(worker).filter(|spot| !spot.closed) else { return false };
        let room = self.rooms.entry(worker).or_insert_with(|| spot.room.clone());
        if !filter::fits_in(room, request) {
            return false;
        }
        room.subtract(request);
        self.chosen[at] = worker;
        true
    }

    /// All on one worker: on that one, if one is named.
    fn on_one(&mut self, named: Option<WorkerId>) -> bool {
        let mut sum = Resources::NONE;
        self.ask.bundles.iter().for_each(|(_, request)| sum.add(request));
        let fits = |worker: WorkerId| {
            self.field.spot(worker).is_some_and(|spot| filter::fits(spot, &sum)).then_some(worker)
        };
        let worker = match named {
            Some(worker) => fits(worker),
            None => pack::choose(self.field, &sum),
        };
        worker.inspect(|worker| self.chosen.fill(*worker)).is_some()
    }

    fn pack(&mut self) -> bool {
        let mut beside: Vec<WorkerId> = self.ask.beside.to_vec();
        beside.sort_unstable();
        beside.dedup();
        if beside.iter().any(|worker| self.on_one(Some(*worker))) || self.on_one(None) {
            return true;
        }
        let mut left = self.order.clone();
        for worker in beside {
            left.retain(|at| !self.take(*at, worker));
        }
        let mut used = BTreeSet::new();
        while let Some(first) = left.first() {
            let Some(worker) = self.roomiest(self.request(*first), &used) else { return false };
            used.insert(worker);
            left.retain(|at| !self.take(*at, worker));
        }
        true
    }

    fn spread(&mut self, strictly: bool) -> bool {
        let mut used: BTreeSet<WorkerId> = self.ask.beside.iter().copied().collect();
        for at in self.order.clone() {
            let further = self.roomiest(self.request(at), &used);
            let taken = match further {
                Some(worker) => self.take(at, worker).then_some(worker),
                None if strictly => None,
                None => self.share(at),
            };
            let Some(worker) = taken else { return false };
            used.insert(worker);
        }
        true
    }

    /// A worker that has bundles already, or no room as a whole: the one with the fewest.
    fn share(&mut self, at: usize) -> Option<WorkerId> {
        let mut counts: BTreeMap<WorkerId, usize> = BTreeMap::new();
        let placed = self.chosen.iter().filter(|worker| **worker != WorkerId::HEAD);
        for worker in placed.chain(self.ask.beside) {
            *counts.entry(*worker).or_default() += 1;
        }
        let mut candidates: Vec<(usize, WorkerId)> =
            counts.into_iter().map(|(worker, count)| (count, worker)).collect();
        candidates.sort_unstable();
        let found = candidates.into_iter().find(|(_, worker)| self.take(at, *worker));
        found.map(|(_, worker)| worker)
    }

    /// The worker with the most room that is enough, of those that are not used yet.
    fn roomiest(&self, request: &Resources, used: &BTreeSet<WorkerId>) -> Option<WorkerId> {
        let kind = score::rarest(request);
        let mut fitting = self.field.fullest_first(kind, kind.of(request)).rev();
        let found =
            fitting.find(|(worker, spot)| !used.contains(worker) && filter::fits(spot, request));
        found.map(|(worker, _)| worker)
    }

    /// One worker for each bundle, moving bundles that were placed before where that helps.
    fn matching(&mut self) -> bool {
        if self.order.len() > MATCHED {
            return false;
        }
        let beside: BTreeSet<WorkerId> = self.ask.beside.iter().copied().collect();
        let of = |request: &Resources| -> Vec<WorkerId> {
            let fitting = self
                .field
                .spots()
                .filter(|(worker, spot)| !beside.contains(worker) && filter::fits(spot, request));
            fitting.map(|(worker, _)| worker).collect()
        };
        let options: Vec<Vec<WorkerId>> = self.ask.bundles.iter().map(|(_, r)| of(r)).collect();
        let mut taken: BTreeMap<WorkerId, usize> = BTreeMap::new();
        for at in self.order.clone() {
            if !augment(at, &options, &mut taken, &mut BTreeSet::new()) {
                return false;
            }
        }
        for (worker, at) in taken {
            self.chosen[at] = worker;
        }
        true
    }
}

/// Finds a worker for a bundle, if need be by moving another bundle to a worker of its own.
fn augment(
    at: usize,
    options: &[Vec<WorkerId>],
    taken: &mut BTreeMap<WorkerId, usize>,
    seen: &mut BTreeSet<WorkerId>,
) -> bool {
    for worker in &options[at] {
        if !seen.insert(*worker) {
            continue;
        }
        let holder = taken.get(worker).copied();
        if holder.is_none_or(|holder| augment(holder, options, taken, seen)) {
            taken.insert(*worker, at);
            return true;
        }
    }
    false
}

/// Why [`choose_gang`] finds nothing, for people.
pub fn gang_reason(field: &Field, ask: &GangAsk<'_>) -> String {
    use super::Reason;
    use crate::spec::Strategy;
    for (number, request) in ask.bundles {
        let reason = Reason::find(field, request, &Strategy::Default);
        if reason.is_hopeless() {
            return format!("bundle {number}: {reason}");
        }
    }
    let count = ask.bundles.len();
    let mut sum = Resources::NONE;
    ask.bundles.iter().for_each(|(_, request)| sum.add(request));
    let open = || field.spots().filter(|(_, spot)| !spot.closed);
    match ask.strategy {
        GroupStrategy::StrictPack => {
            let reason = Reason::find(field, &sum, &Strategy::Default);
            if reason.is_hopeless() {
                return format!("all {count} bundles on one worker: {reason}");
            }
        }
        GroupStrategy::StrictSpread => {
            let able = |spot: &super::Spot| {
                ask.bundles.iter().any(|(_, request)| filter::able(spot, request))
            };
            let there = open().filter(|(w, s)| able(s) && !ask.beside.contains(w)).count();
            if there < count {
                return format!(
                    "needs {count} further workers, one for each bundle; {there} could take one"
                );
            }
        }
        GroupStrategy::Pack | GroupStrategy::Spread => {}
    }
    format!("waits for {count} bundles, {sum} in all; the workers are in use")
}

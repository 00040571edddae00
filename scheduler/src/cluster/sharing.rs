//! Work sharing: room here, a backlog there.
//!
//! Tasks wait where they were submitted. A worker reports how many wait, by what they ask for;
//! the head, seeing room elsewhere, asks it to spill that many. What was asked for is remembered
//! until it arrives, until two reports later (the first may have crossed the request), or until
//! the patience ends, and the room for it is spoken for: nobody is asked twice for the same room.

use std::collections::{BTreeMap, BTreeSet};

use super::core::ClusterCore;
use crate::id::WorkerId;
use crate::message::FromHead;
use crate::resource::{Amount, Resources};
use crate::time::Timestamp;

/// Workers with room to look at in one round.
const ROOMY: usize = 256;
/// Backlogs to serve in one round.
const BACKLOGS: usize = 256;

#[derive(Debug)]
struct Asked {
    count: u32,
    reports: u8,
    until: Timestamp,
}

/// What was asked for, and when to look again.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    asked: BTreeMap<(WorkerId, Resources), Asked>,
    backlogged: BTreeSet<WorkerId>,
    /// Something changed since the last round.
    changed: bool,
    last: Option<Timestamp>,
    due: Option<Timestamp>,
}

impl Sharing {
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.due
    }

    /// A report came from `worker`.
    pub(super) fn reported(&mut self, worker: WorkerId, has_backlog: bool) {
        self.changed = true;
        match has_backlog {
            true => self.backlogged.insert(worker),
            false => self.backlogged.remove(&worker),
        };
        for (_, asked) in self.of_mut(worker) {
            asked.reports += 1;
        }
        self.asked.retain(|(other, _), asked| *other != worker || asked.reports < 2);
    }

    /// A task of that shape was spilled by `worker`.
    pub(super) fn arrived(&mut self, worker: WorkerId, request: &Resources) {
        if self.asked.is_empty() {
            return;
        }
        let key = (worker, request.clone());
        if let Some(asked) = self.asked.get_mut(&key) {
            asked.count -= 1;
            if asked.count == 0 {
                self.asked.remove(&key);
            }
        }
    }

    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.backlogged.remove(&worker);
        self.asked.retain(|(other, _), _| *other != worker);
    }

    /// Room appeared.
    pub(super) fn room_appeared(&mut self) {
        self.changed = true;
    }

    pub(super) fn askable(&self) -> impl Iterator<Item = WorkerId> {
        self.backlogged.iter().chain(self.asked.keys().map(|(worker, _)| worker)).copied()
    }

    fn of_mut(&mut self, worker: WorkerId) -> impl Iterator<Item = (&Resources, &mut Asked)> {
        let range = (worker, Resources::NONE)..;
        let mine = self.asked.range_mut(range).take_while(move |((w, _), _)| *w == worker);
        mine.map(|((_, request), asked)| (request, asked))
    }
}

impl ClusterCore {
    /// A round of asking, if one is due.
    pub(super) fn share(&mut self) {
        let now = self.now;
        let before = self.sharing.asked.len();
        if self.sharing.due.is_some_and(|due| due <= now) {
            self.sharing.asked.retain(|_, asked| asked.until > now);
        }
        self.sharing.changed |= self.sharing.asked.len() < before;
        let next = self.sharing.last.map_or(now, |last| last + self.config.share_interval);
        let wanted = self.sharing.changed && !self.sharing.backlogged.is_empty();
        if wanted && next <= now {
            self.sharing.changed = false;
            self.sharing.last = Some(now);
            self.ask_round();
        }
        let again = (wanted && next > now).then_some(next);
        let patience = self.sharing.asked.values().map(|asked| asked.until).min();
        self.sharing.due = [again, patience].into_iter().flatten().min();
    }

    fn ask_round(&mut self) {
        let idle = self.field.idlest_first().take_while(|(_, spot)| spot.room.cpu > Amount::ZERO);
        let mut rooms: Vec<(WorkerId, Resources)> =
            idle.take(ROOMY).map(|(worker, spot)| (worker, spot.room.clone())).collect();
        if rooms.is_empty() {
            return;
        }
        for ((worker, request), asked) in &self.sharing.asked {
            take(&mut rooms, *worker, request, asked.count);
        }
        let mut asks = Vec::new();
        for worker in &self.sharing.backlogged {
            let Some(member) = self.members.get(worker) else { continue };
            for (request, count) in &member.backlog {
                let asked = self.sharing.asked.contains_key(&(*worker, request.clone()));
                if !asked && *count > 0 && !request.is_none() {
                    asks.push((*count, *worker, request.clone()));
                }
            }
        }
        asks.sort_by(|a, b| b.cmp(a));
        for (waiting, worker, request) in asks.into_iter().take(BACKLOGS) {
            let count = take(&mut rooms, worker, &request, waiting);
            if count > 0 {
                let until = self.now + self.config.spill_patience;
                let key = (worker, request.clone());
                self.sharing.asked.insert(key, Asked { count, reports: 0, until });
                self.send(worker, FromHead::SpillRequested { request, count });
            }
        }
    }
}

/// Takes room for up to `count` tasks on others than `worker`; for how many it was enough.
fn take(
    rooms: &mut [(WorkerId, Resources)],
    worker: WorkerId,
    request: &Resources,
    count: u32,
) -> u32 {
    let mut left = count;
    for (other, room) in rooms.iter_mut() {
        if left == 0 {
            break;
        }
        while *other != worker && left > 0 && room.covers(request) {
            room.subtract(request);
            left -= 1;
        }
    }
    count - left
}

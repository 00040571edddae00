//! What the head knows about one worker beside its room, and the ledger of what is placed where.

use std::collections::BTreeMap;

use crate::id::{JobId, TaskId, WorkerId};
use crate::message::Taken;
use crate::resource::{Amount, Resources};

/// A placed task: id, owner, attempt.
pub(super) type PlacedKey = (TaskId, WorkerId, u32);

/// A task that runs, or waits to run, where the head assigned it.
#[derive(Debug, Clone)]
pub(super) struct Placement {
    pub(super) worker: WorkerId,
    pub(super) request: Resources,
    /// Which of the head's assignments to that worker it was, counted from 1; 0 if the worker
    /// brought it along when it came.
    pub(super) number: u64,
    /// It waits for objects, and its job has its CPUs back.
    pub(super) blocked: bool,
}

impl Placement {
    /// What its job holds for it.
    pub(super) fn held(&self) -> Resources {
        let mut held = self.request.clone();
        if self.blocked {
            held.cpu = Amount::ZERO;
        }
        held
    }
}

/// A worker.
#[derive(Debug, Default)]
pub(super) struct Member {
    /// What it has said.
    pub(super) taken: Taken,
    /// Assignments sent so far.
    pub(super) sent: u64,
    /// Those that its last report did not take into account yet.
    pub(super) on_their_way: BTreeMap<u64, PlacedKey>,
    /// What it has of the head's: (task, attempt, owner), so that `Ended` finds the owner.
    pub(super) holds: BTreeMap<(TaskId, u32, WorkerId), ()>,
    /// What waits there and may run elsewhere, by its last report.
    pub(super) backlog: Vec<(Resources, u32)>,
    pub(super) draining: bool,
    /// It hears of every change of membership.
    pub(super) wants_members: bool,
    /// The task that stands in its line although it has no room.
    pub(super) pressed: Option<PlacedKey>,
    /// It has reported: whatever it had to tell again came before.
    pub(super) reported: bool,
}

/// All placements.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    placements: BTreeMap<PlacedKey, Placement>,
}

impl Ledger {
    pub(super) fn get(&self, key: &PlacedKey) -> Option<&Placement> {
        self.placements.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &PlacedKey) -> Option<&mut Placement> {
        self.placements.get_mut(key)
    }

    pub(super) fn insert(&mut self, key: PlacedKey, placement: Placement) {
        self.placements.insert(key, placement);
    }

    pub(super) fn remove(&mut self, key: &PlacedKey) -> Option<Placement> {
        self.placements.remove(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&PlacedKey, &Placement)> {
        self.placements.iter()
    }

    /// The newest attempt that is placed for a task and owner.
    pub(super) fn newest(&self, task: TaskId, owner: WorkerId) -> Option<(u32, &Placement)> {
        let range = (task, owner, 0)..=(task, owner, u32::MAX);
        let ((.., attempt), placement) = self.placements.range(range).next_back()?;
        Some((*attempt, placement))
    }

    /// All placements of a task, whoever owns it.
    pub(super) fn of_task(&self, task: TaskId) -> impl Iterator<Item = (&PlacedKey, &Placement)> {
        let range = (task, WorkerId(0), 0)..=(task, WorkerId(u64::MAX), u32::MAX);
        self.placements.range(range)
    }

    /// All placements of a job.
    pub(super) fn of_job(&self, job: JobId) -> Vec<PlacedKey> {
        let tasks = TaskId::all_of(job);
        let last = (*tasks.end(), WorkerId(u64::MAX), u32::MAX);
        let range = (*tasks.start(), WorkerId(0), 0)..=last;
        self.placements.range(range).map(|(key, _)| *key).collect()
    }
}

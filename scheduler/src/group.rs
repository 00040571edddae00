//! Placement groups: as their leader knows them, as workers know them whose tasks go into them,
//! and bundles where they are reserved.
//!
//! ```text
//!            leader (the worker where the group was asked for)
//!   (asked) --1--> reserved --3--> reserving --2--> reserved --4--> (gone)
//!      +-----2--> reserving --2-------^
//! ```
//! 1 every bundle fits there, and may lie there: no other worker hears of it; 2 the head names a
//! worker for each bundle that has no place and tells these workers to reserve them; they tell the
//! leader. The round is complete when all have. If one cannot, or is lost, what the others
//! reserved in that round is returned, and a further round begins; 3 a worker with bundles is lost
//! or leaves: a round for these bundles alone; 4 it is given back, its job ends, or the process
//! of the driver or actor that asked for it ends.
//!
//! A bundle is reserved in two steps: the worker sets it aside (prepared), and the leader lets
//! tasks into the group once all bundles are (committed). Nothing enters a group before. A worker
//! holds a bundle as long as its leader lives and has not asked for it back, so that no bundle is
//! left over whoever dies; a leader that hears of a bundle which it does not want returns it.
//!
//! Invariants: PG-1 what a bundle has free and what runs in it make its total. PG-2 a bundle
//! counts the tasks and actors that are in it. PG-3 while no round is open, every bundle of a led
//! group has a place.

use std::sync::Arc;

use crate::hash::FastMap;
use crate::id::{ExecutorId, GroupId, WorkerId};
use crate::message::BundlePlace;
use crate::resource::{Ledger, Resources};
use crate::spec::{GroupOptions, TaskSpec};
use crate::task::{ReadyQueue, TaskKey};

/// A group and its leader: the maker of a group that runs again on another worker makes another
/// group of that name there.
pub(crate) type GroupKey = (GroupId, WorkerId);

/// A group that is led or used from here.
#[derive(Debug)]
pub(crate) struct GroupEntry {
    /// What each bundle holds, and where it is; empty until the leader has told.
    pub(crate) bundles: Vec<BundlePlace>,
    /// Tasks from here that wait until a bundle has a place, with their stamps.
    pub(crate) waiting: Vec<(TaskKey, u64)>,
    /// Where the next task goes that may go into any bundle.
    pub(crate) turn: usize,
    /// Present at its leader.
    pub(crate) led: Option<Box<Led>>,
}

/// What its leader keeps.
#[derive(Debug)]
pub(crate) struct Led {
    /// Of the task that asked for it.
    pub(crate) spec: Arc<TaskSpec>,
    /// The process that asked for it.
    pub(crate) creator: ExecutorId,
    /// The last round of placement.
    pub(crate) round: u32,
    /// What has become of each bundle in an open round; empty when none is open.
    pub(crate) pending: Vec<Pending>,
    /// Workers that want to hear of changes.
    pub(crate) subscribers: Vec<WorkerId>,
    /// What the head says why it waits.
    pub(crate) waits: Option<Box<str>>,
}

/// A bundle in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pending {
    /// It has its place from an earlier round.
    Settled,
    /// The head was asked.
    Asked,
    /// The worker is told to reserve it.
    Placed(WorkerId),
    /// It has.
    Reserved(WorkerId),
}

impl GroupEntry {
    /// A group of which nothing is known yet.
    pub(crate) fn unknown() -> Self {
        Self { bundles: Vec::new(), waiting: Vec::new(), turn: 0, led: None }
    }

    /// A group that is led here.
    pub(crate) fn led(spec: Arc<TaskSpec>, options: &GroupOptions, creator: ExecutorId) -> Self {
        let of = |request: &Resources| BundlePlace { request: request.clone(), place: None };
        let led = Led {
            spec,
            creator,
            round: 0,
            pending: Vec::new(),
            subscribers: Vec::new(),
            waits: None,
        };
        let bundles = options.bundles.iter().map(of).collect();
        Self { bundles, led: Some(Box::new(led)), ..Self::unknown() }
    }
}

/// A bundle that is reserved on this worker.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) group: GroupId,
    pub(crate) owner: WorkerId,
    pub(crate) number: u32,
    pub(crate) round: u32,
    pub(crate) ledger: Ledger,
    /// Tasks in it that wait for room.
    pub(crate) queue: ReadyQueue,
    /// Tasks and actors in it (PG-2).
    pub(crate) users: u32,
    /// The head counts it as assigned to this worker.
    pub(crate) assigned: bool,
    due: bool,
}

/// Which bundle of this worker; [`Slot::NONE`] where something is in none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Slot(u32);

impl Slot {
    pub(crate) const NONE: Self = Self(0);

    pub(crate) fn is_some(self) -> bool {
        self != Self::NONE
    }
}

/// All bundles that are reserved on this worker.
#[derive(Debug, Default)]
pub(crate) struct Bundles {
    slots: Vec<Option<Box<Bundle>>>,
    free: Vec<Slot>,
    index: FastMap<(GroupId, WorkerId, u32), Slot>,
    /// Those that may have room for what waits in them.
    due: Vec<Slot>,
}

impl Bundles {
    pub(crate) fn insert(
        &mut self,
        of: GroupKey,
        number: u32,
        round: u32,
        holds: Resources,
    ) -> Slot {
        let bundle = Box::new(Bundle {
            group: of.0,
            owner: of.1,
            number,
            round,
            ledger: Ledger::new(holds),
            queue: ReadyQueue::default(),
            users: 0,
            assigned: false,
            due: false,
        });
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            Slot(self.slots.len() as u32)
        });
        self.slots[slot.0 as usize - 1] = Some(bundle);
        let before = self.index.insert((of.0, of.1, number), slot);
        debug_assert!(before.is_none(), "bundle {number} of {} is reserved once", of.0);
        slot
    }

    pub(crate) fn remove(&mut self, slot: Slot) -> Option<Box<Bundle>> {
        let bundle = self.slots.get_mut((slot.0 as usize).checked_sub(1)?)?.take()?;
        self.index.remove(&(bundle.group, bundle.owner, bundle.number));
        self.free.push(slot);
        Some(bundle)
    }

    pub(crate) fn find(&self, of: GroupKey, number: u32) -> Option<Slot> {
        self.index.get(&(of.0, of.1, number)).copied()
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&Bundle> {
        self.slots.get((slot.0 as usize).checked_sub(1)?)?.as_deref()
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut Bundle> {
        self.slots.get_mut((slot.0 as usize).checked_sub(1)?)?.as_deref_mut()
    }

    /// In order of slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, &Bundle)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(at, bundle)| Some((Slot(at as u32 + 1), bundle.as_deref()?)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Something changed that may let what waits in the bundle start.
    pub(crate) fn set_due(&mut self, slot: Slot) {
        if let Some(bundle) = self.get_mut(slot)
            && !core::mem::replace(&mut bundle.due, true)
        {
            self.due.push(slot);
        }
    }

    /// One of those for which that was said.
    pub(crate) fn next_due(&mut self) -> Option<Slot> {
        while let Some(slot) = self.due.pop() {
            if let Some(bundle) = self.get_mut(slot)
                && core::mem::take(&mut bundle.due)
            {
                return Some(slot);
            }
        }
        None
    }
}

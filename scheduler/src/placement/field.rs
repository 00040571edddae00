//! The room of all workers, ordered by every kind of resource.

use std::collections::{BTreeMap, BTreeSet};

use super::filter;
use super::score::tie;
use crate::id::WorkerId;
use crate::resource::{Amount, Resources};

/// One kind of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind<'a> {
    Cpu,
    Gpu,
    Memory,
    Custom(&'a str),
}

impl Kind<'_> {
    pub(super) fn of(self, set: &Resources) -> Amount {
        match self {
            Self::Cpu => set.cpu,
            Self::Gpu => set.gpu,
            Self::Memory => set.memory,
            Self::Custom(name) => set.get(name),
        }
    }
}

/// A worker as placement sees it.
#[derive(Debug, Clone)]
pub struct Spot {
    /// All that it has.
    pub total: Resources,
    /// What may still be placed there.
    pub room: Resources,
    /// Labels, `key=value`.
    pub labels: Vec<(String, String)>,
    /// Tasks that the head placed there and that have not ended.
    pub placed: u64,
    /// Takes nothing new.
    pub closed: bool,
    tie: u64,
}

impl Spot {
    /// Whether the request can be placed there now.
    pub fn fits(&self, request: &Resources) -> bool {
        filter::fits(self, request)
    }
}

type ByAmount = BTreeSet<(Amount, u64, WorkerId)>;

/// All workers and their room.
///
/// Finding the worker with the least or the most of one resource is a look-up in an ordered set;
/// changing a worker's room touches one set for each kind of resource that the worker has.
#[derive(Debug, Clone, Default)]
pub struct Field {
    seed: u64,
    spots: BTreeMap<WorkerId, Spot>,
    cpu: ByAmount,
    gpu: ByAmount,
    memory: ByAmount,
    custom: BTreeMap<String, ByAmount>,
    by_placed: BTreeSet<(u64, u64, WorkerId)>,
    labelled: BTreeMap<(String, String), BTreeSet<WorkerId>>,
    total: Resources,
}

impl Field {
    /// An empty field whose ties go by `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Adds a worker with all its room free; one that is there already is replaced.
    pub fn add(&mut self, worker: WorkerId, total: Resources, labels: Vec<(String, String)>) {
        self.remove(worker);
        for label in &labels {
            self.labelled.entry(label.clone()).or_default().insert(worker);
        }
        let room = total.clone();
        self.total.add(&total);
        let tie = tie(self.seed, worker);
        self.spots.insert(worker, Spot { total, room, labels, placed: 0, closed: false, tie });
        self.list(worker);
    }

    /// Forgets a worker.
    pub fn remove(&mut self, worker: WorkerId) {
        self.unlist(worker);
        let Some(spot) = self.spots.remove(&worker) else { return };
        self.total.subtract(&spot.total);
        for label in spot.labels {
            if let Some(workers) = self.labelled.get_mut(&label) {
                workers.remove(&worker);
                if workers.is_empty() {
                    self.labelled.remove(&label);
                }
            }
        }
    }

    /// Nothing new goes to the worker from now on.
    pub fn close(&mut self, worker: WorkerId) {
        self.unlist(worker);
        if let Some(spot) = self.spots.get_mut(&worker) {
            spot.closed = true;
        }
    }

    /// Changes a worker's room, or how many tasks it has.
    pub fn update(&mut self, worker: WorkerId, change: impl FnOnce(&mut Spot)) {
        self.unlist(worker);
        if let Some(spot) = self.spots.get_mut(&worker) {
            change(spot);
        }
        self.list(worker);
    }

    /// What all workers have together.
    pub fn total(&self) -> &Resources {
        &self.total
    }

    /// A worker; `None` when it is no member.
    pub fn spot(&self, worker: WorkerId) -> Option<&Spot> {
        self.spots.get(&worker)
    }

    /// All workers.
    pub fn spots(&self) -> impl Iterator<Item = (WorkerId, &Spot)> {
        self.spots.iter().map(|(worker, spot)| (*worker, spot))
    }

    /// Open workers with at least `least` of a kind, the fullest first.
    pub(super) fn fullest_first(
        &self,
        kind: Kind<'_>,
        least: Amount,
    ) -> impl DoubleEndedIterator<Item = (WorkerId, &Spot)> {
        let set = match kind {
            Kind::Cpu => Some(&self.cpu),
            Kind::Gpu => Some(&self.gpu),
            Kind::Memory => Some(&self.memory),
            Kind::Custom(name) => self.custom.get(name),
        };
        set.into_iter()
            .flat_map(move |set| set.range((least, 0, WorkerId(0))..))
            .filter_map(|(.., worker)| Some((*worker, self.spots.get(worker)?)))
    }

    /// Open workers, those with the most free CPUs first.
    pub fn idlest_first(&self) -> impl Iterator<Item = (WorkerId, &Spot)> {
        self.fullest_first(Kind::Cpu, Amount(i64::MIN)).rev()
    }

    /// Open workers, those with the fewest placed tasks first.
    pub(super) fn fewest_first(&self) -> impl Iterator<Item = (WorkerId, &Spot)> {
        self.by_placed.iter().filter_map(|(.., id)| Some((*id, self.spots.get(id)?)))
    }

    /// Workers with a label.
    pub(super) fn labelled(
        &self,
        label: &(String, String),
    ) -> impl Iterator<Item = (WorkerId, &Spot)> {
        self.labelled
            .get(label)
            .into_iter()
            .flatten()
            .filter_map(|id| Some((*id, self.spots.get(id)?)))
    }

    fn list(&mut self, worker: WorkerId) {
        let Some(spot) = self.spots.get(&worker).filter(|spot| !spot.closed) else { return };
        self.cpu.insert((spot.room.cpu, spot.tie, worker));
        self.by_placed.insert((spot.placed, spot.tie, worker));
        if !spot.total.gpu.is_zero() {
            self.gpu.insert((spot.room.gpu, spot.tie, worker));
        }
        if !spot.total.memory.is_zero() {
            self.memory.insert((spot.room.memory, spot.tie, worker));
        }
        for (name, _) in spot.total.custom() {
            let entry = (spot.room.get(name), spot.tie, worker);
            match self.custom.get_mut(name) {
                Some(set) => drop(set.insert(entry)),
                None => drop(self.custom.insert(name.to_owned(), [entry].into())),
            }
        }
    }

    fn unlist(&mut self, worker: WorkerId) {
        let Some(spot) = self.spots.get(&worker).filter(|spot| !spot.closed) else { return };
        self.cpu.remove(&(spot.room.cpu, spot.tie, worker));
        self.by_placed.remove(&(spot.placed, spot.tie, worker));
        self.gpu.remove(&(spot.room.gpu, spot.tie, worker));
        self.memory.remove(&(spot.room.memory, spot.tie, worker));
        for (name, _) in spot.total.custom() {
            if let Some(set) = self.custom.get_mut(name) {
                set.remove(&(spot.room.get(name), spot.tie, worker));
                if set.is_empty() {
                    self.custom.remove(name);
                }
            }
        }
    }

    /// CL-4: the ordered sets hold exactly the open workers, at the room that they have.
    pub fn check_invariants(&self) {
        let open = self.spots.values().filter(|spot| !spot.closed).count();
        assert_eq!(self.cpu.len(), open, "CL-4: workers by CPU");
        assert_eq!(self.by_placed.len(), open, "CL-4: workers by tasks");
        for (worker, spot) in self.spots.iter().filter(|(_, spot)| !spot.closed) {
            assert!(self.cpu.contains(&(spot.room.cpu, spot.tie, *worker)), "CL-4: {worker} CPU");
            if !spot.total.gpu.is_zero() {
                let entry = (spot.room.gpu, spot.tie, *worker);
                assert!(self.gpu.contains(&entry), "CL-4: {worker} GPU");
            }
        }
    }
}

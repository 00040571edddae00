//! Who holds how much of this worker.

use super::Resources;

/// All that the worker has, what of it is free, and what comes back by itself.
///
/// RL-1: `available` and everything held add up to `total`, at every moment. `available` may be
/// below zero: a blocked task that goes on takes its CPUs back before somebody else lets go.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    pub(crate) total: Resources,
    pub(crate) available: Resources,
    /// What unblocked plain tasks hold: it is free again as soon as they have run.
    passing: Resources,
}

impl Ledger {
    pub(crate) fn new(total: Resources) -> Self {
        Self { available: total.clone(), total, passing: Resources::NONE }
    }

    pub(crate) fn take(&mut self, request: &Resources) {
        self.available.subtract(request);
    }

    pub(crate) fn give(&mut self, request: &Resources) {
        self.available.add(request);
    }

    /// Counts what a plain task that runs unblocked holds.
    pub(crate) fn pass(&mut self, request: &Resources) {
        self.passing.add(request);
    }

    /// The reverse of [`Ledger::pass`], when the task blocks or ends.
    pub(crate) fn unpass(&mut self, request: &Resources) {
        self.passing.subtract(request);
    }

    /// Whether `request` fits now.
    pub(crate) fn fits(&self, request: &Resources) -> bool {
        self.available.covers(request)
    }

    /// Whether `request` will fit by waiting alone, when what runs unblocked has run.
    pub(crate) fn will_fit(&self, request: &Resources) -> bool {
        let mut later = self.available.clone();
        later.add(&self.passing);
        later.covers(request)
    }
}

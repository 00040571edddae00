//! What people are told of the worker's store: in `rdist status`, and for each object in
//! `rdist list objects`.

use std::time::{Duration, Instant};

use rdist_scheduler::id::ObjectId;

use super::Dispatch;
use crate::store::Stored;
use crate::wire::cluster::{WorkerToHead, WorkerUsage};
use crate::worker::query::Here;

/// Shortest time between two reports.
const INTERVAL: Duration = Duration::from_millis(500);

/// What the head knows, and since when.
#[derive(Default)]
pub(super) struct Reported {
    usage: Option<WorkerUsage>,
    at: Option<Instant>,
    is_due: bool,
}

impl Reported {
    /// A head that knows nothing yet.
    pub(super) fn forget(&mut self) {
        *self = Self { is_due: true, ..Self::default() };
    }

    /// When the rest is to be told.
    pub(super) fn timeout(&self) -> Option<Duration> {
        let at = self.at.filter(|_| self.is_due)?;
        Some((at + INTERVAL).saturating_duration_since(Instant::now()))
    }
}

impl Dispatch {
    /// Tells the head what the store holds, if that has changed and was not told just now.
    pub(super) fn report_usage(&mut self) {
        if self.registered.is_some() {
            return;
        }
        let live = self.arena.live_bytes();
        let spilled = self.room.spilled();
        let is_same = self.reported.usage.as_ref().is_some_and(|told| {
            let WorkerUsage { live_bytes, spilled_bytes, spilled_files, .. } = *told;
            (live_bytes, spilled_bytes, spilled_files) == (live, spilled.bytes, spilled.files)
        });
        self.reported.is_due = !is_same;
        if !self.reported.is_due || self.reported.timeout().is_some_and(|left| !left.is_zero()) {
            return;
        }
        let usage = WorkerUsage {
            live_bytes: live,
            spilled_bytes: spilled.bytes,
            spilled_files: spilled.files,
            limits: self.network.limits().to_owned(),
        };
        self.reported =
            Reported { usage: Some(usage.clone()), at: Some(Instant::now()), is_due: false };
        self.network.to_head(&WorkerToHead::Usage(usage));
    }

    /// Where an object is, as far as the table knows.
    pub(super) fn here(&self, object: ObjectId) -> Here {
        let stored = self.table.get(object).map(|stored| match stored {
            Stored::Inline(_) => "inline",
            Stored::Block(_) if self.room.has_file(object) => "memory and disk",
            Stored::Block(_) => "memory",
            Stored::Spilled { .. } => "disk",
        });
        Here { stored, pins: self.table.users(object) }
    }
}

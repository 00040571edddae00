//! What happened over many seeds: what is simulated has to happen now and then.

use super::cluster::{Disks, Options, Simulation};
use super::executor::{Crowds, Leases, Routes, Streams, Waits};

/// Fewer runs than that may miss something.
const ENOUGH: u64 = 100;

/// Sums over the runs of a test.
#[derive(Debug, Default)]
pub struct Seen {
    runs: u64,
    queued_ahead: u64,
    /// Names that were another actor's, and actors that were found by theirs.
    taken: u64,
    found: u64,
    detached: u64,
    ended: u64,
    /// Runs with actors on any worker, and how many of those moved.
    scattered: u64,
    moves: u64,
    leases: Leases,
    routes: Routes,
    crowds: Crowds,
    streams: Streams,
    waits: Waits,
    /// Runs in which values are damaged, and what became of those.
    damaged: u64,
    disks: Disks,
}

impl Seen {
    pub fn add(&mut self, run: &Simulation, options: &Options) {
        self.runs += 1;
        self.queued_ahead += run.queued_ahead;
        self.taken += run.names.taken;
        self.found += run.names.found;
        let (all, by_programs) = run.detached();
        self.detached += all;
        self.ended += by_programs;
        self.scattered += u64::from(options.jobs.iter().any(|job| job.scatters));
        self.moves += run.moves;
        self.leases.add(&run.leases);
        self.routes.add(&run.routed);
        self.crowds.add(&run.crowds);
        self.streams.add(&run.streams);
        self.waits.add(&run.waits);
        self.damaged += u64::from(options.faults.damages);
        self.disks.add(&run.disks);
    }

    /// Fails where something that is simulated hardly ever happened.
    pub fn check(&self) {
        println!("{self:?}");
        let Self { runs, queued_ahead, taken, found, detached, ended, .. } = *self;
        if self.scattered >= ENOUGH {
            assert!(2 * self.moves > self.scattered, "actors move");
        }
        if self.damaged >= ENOUGH {
            let Disks { delayed, damaged, not_started, failed, .. } = self.disks;
            let each = [delayed, damaged, not_started, 30 * failed];
            let happen = each.iter().all(|count| 2 * count > self.damaged);
            assert!(happen, "values are damaged on disk");
        }
        if runs < ENOUGH {
            return;
        }
        assert!(2 * queued_ahead > runs, "tasks are given ahead of their turn");
        assert!(2 * taken.min(found) > runs, "actors have names");
        assert!(10 * ended > runs && detached > 2 * ended, "actors are detached");
        let Leases { ran, left, returned, promised, cancelled, .. } = self.leases;
        let each = [ran, left, returned, promised, 4 * cancelled];
        assert!(each.iter().all(|count| 2 * count > runs), "tasks go by leases");
        let Routes { answered, made, promised, refused, .. } = self.routes;
        let each = [answered, made, promised, refused];
        assert!(each.iter().all(|count| 2 * count > runs), "calls go by routes");
        let Crowds { together, overtook } = self.crowds;
        assert!(2 * together.min(overtook) > runs, "calls run beside each other");
        let Streams { left, asked, cancelled, stopped, .. } = self.streams;
        let each = [left, 4 * asked, 2 * cancelled, stopped];
        assert!(each.iter().all(|count| 2 * count > runs), "streams are left, and cancelled");
        let Waits { late, behind, passed, blocked, .. } = self.waits;
        let each = [late, behind, passed, blocked];
        assert!(each.iter().all(|count| 2 * count > runs), "calls wait");
    }
}

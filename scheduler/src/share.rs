//! How much of a worker, or of a cluster, each job has: the order in which jobs get more.
//!
//! The next task is of the job with the least *dominant share* among those that have one which
//! fits: the largest part that the job has of any one resource, over its weight (dominant resource
//! fairness; Ghodsi et al. 2011). A job that came late, or asks for something rare, is not behind
//! the queue of another; a job that is alone gets all. Where shares are equal, as on a worker that
//! runs one task at a time, jobs take turns, as often as their weights say (stride scheduling;
//! Waldspurger and Weihl 1995).

use crate::hash::FastMap;
use crate::id::JobId;
use crate::resource::{Amount, Resources};

/// What jobs hold, and their weights.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    /// Those that run something, or have a weight of their own.
    jobs: Vec<Share>,
    places: FastMap<JobId, usize>,
    /// Where the last one was found.
    last: usize,
    /// The turn of the job that was served last.
    clock: u64,
}

#[derive(Debug)]
struct Share {
    job: JobId,
    weight: u32,
    used: Resources,
    /// When it is its turn: smaller comes first.
    turn: u64,
}

/// Place among jobs: the dominant share in millionths over the weight, then whose turn it is.
pub(crate) type Standing = (u64, u64);

/// From a turn of a job of weight 1 to its next.
const STRIDE: u64 = 1 << 20;

impl Shares {
    /// Something of the job starts.
    pub(crate) fn serve(&mut self, job: JobId) {
        let clock = self.clock;
        let share = self.entry(job);
        // Who had nothing to do has saved up nothing.
        let turn = share.turn.max(clock);
        share.turn = turn + STRIDE / u64::from(share.weight);
        self.clock = turn;
    }

    /// The job holds so much more.
    pub(crate) fn take(&mut self, job: JobId, request: &Resources) {
        self.entry(job).used.add(request);
    }

    /// It holds so much less.
    pub(crate) fn give(&mut self, job: JobId, request: &Resources) {
        self.entry(job).used.subtract(request);
    }

    /// A job of weight 2 gets twice as much as one of weight 1, which all have that have none.
    pub(crate) fn set_weight(&mut self, job: JobId, weight: u32) {
        self.entry(job).weight = weight.max(1);
    }

    /// The job has ended.
    pub(crate) fn forget(&mut self, job: JobId) {
        let Some(at) = self.places.remove(&job) else { return };
        self.jobs.swap_remove(at);
        if let Some(moved) = self.jobs.get(at) {
            self.places.insert(moved.job, at);
        }
    }

    /// Where the job stands that has this much of `total`.
    pub(crate) fn of(&self, job: JobId, total: &Resources) -> Standing {
        // Alone, it is behind nobody.
        if self.jobs.len() < 2 {
            return (0, 0);
        }
        self.find(job).map_or((0, 0), |share| (share.dominant(total), share.turn))
    }

    /// What the job holds.
    pub(crate) fn used(&self, job: JobId) -> Option<&Resources> {
        self.find(job).map(|share| &share.used)
    }

    fn find(&self, job: JobId) -> Option<&Share> {
        self.places.get(&job).and_then(|at| self.jobs.get(*at))
    }

    pub(crate) fn jobs(&self) -> impl Iterator<Item = (JobId, &Resources)> {
        self.jobs.iter().map(|share| (share.job, &share.used))
    }

    fn entry(&mut self, job: JobId) -> &mut Share {
        if self.jobs.get(self.last).is_none_or(|share| share.job != job) {
            let next = self.jobs.len();
            self.last = *self.places.entry(job).or_insert(next);
            if self.last == next {
                self.jobs.push(Share { job, weight: 1, used: Resources::NONE, turn: 0 });
            }
        }
        &mut self.jobs[self.last]
    }
}

impl Share {
    fn dominant(&self, total: &Resources) -> u64 {
        let part = |used: Amount, total: Amount| match total.0 {
            ..=0 => 0,
            total => (i128::from(used.0.max(0)) * 1_000_000 / i128::from(total)) as u64,
        };
        let mut most = part(self.used.cpu, total.cpu)
            .max(part(self.used.gpu, total.gpu))
            .max(part(self.used.memory, total.memory));
        for (name, used) in self.used.custom() {
            most = most.max(part(used, total.get(name)));
        }
        most / u64::from(self.weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_part_of_any_resource_counts_over_the_weight() {
        let mut total = Resources::cpus(8.0);
        total.gpu = Amount::whole(2);
        let mut gpu = Resources::cpus(1.0);
        gpu.gpu = Amount::whole(1);
        let mut shares = Shares::default();
        shares.take(JobId(1), &Resources::cpus(2.0));
        assert_eq!(shares.of(JobId(1), &total).0, 0, "alone");
        shares.take(JobId(2), &gpu);
        assert_eq!(shares.of(JobId(1), &total).0, 250_000);
        assert_eq!(shares.of(JobId(2), &total).0, 500_000);
        assert_eq!(shares.of(JobId(3), &total).0, 0);
        shares.set_weight(JobId(2), 4);
        assert_eq!(shares.of(JobId(2), &total).0, 125_000);
        shares.give(JobId(1), &Resources::cpus(3.0));
        assert_eq!(shares.of(JobId(1), &total).0, 0, "what is over-used is nothing");
        shares.forget(JobId(2));
        assert_eq!(shares.of(JobId(1), &total).0, 0);
    }

    #[test]
    fn jobs_with_equal_shares_take_turns() {
        let total = Resources::cpus(1.0);
        let mut shares = Shares::default();
        shares.set_weight(JobId(1), 1);
        shares.set_weight(JobId(2), 3);
        let mut served = [0, 0];
        for _ in 0..40 {
            let standing = |job: u32| shares.of(JobId(job), &total);
            let job = if standing(1) <= standing(2) { 1 } else { 2 };
            served[job as usize - 1] += 1;
            shares.serve(JobId(job));
        }
        assert_eq!(served, [10, 30]);
        shares.set_weight(JobId(3), 1);
        shares.serve(JobId(3));
        assert!(shares.of(JobId(3), &total).1 > shares.of(JobId(2), &total).1, "nothing saved up");
    }
}

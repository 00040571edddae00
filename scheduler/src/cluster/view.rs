//! Views for `rdist status`, `rdist jobs` and `rdist list workers`.

use super::JobState;
use super::core::ClusterCore;
use crate::id::{JobId, WorkerId};
use crate::resource::Resources;

/// A worker, as the head sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerView {
    /// The worker.
    pub worker: WorkerId,
    /// All that it has.
    pub total: Resources,
    /// What may still be placed there.
    pub available: Resources,
    /// Labels, `key=value`.
    pub labels: Vec<(String, String)>,
    /// It takes nothing new.
    pub draining: bool,
    /// Tasks and actors that the head placed there.
    pub placed: usize,
    /// Tasks that wait there for room and may run elsewhere.
    pub backlog: u64,
}

/// A job, as the head sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobView {
    /// The job.
    pub job: JobId,
    /// Its state.
    pub state: JobState,
    /// Tasks of it that wait in the head.
    pub waiting: usize,
    /// Tasks of it that the head placed and that have not ended.
    pub placed: usize,
}

impl ClusterCore {
    /// All members, by id.
    pub fn workers(&self) -> impl Iterator<Item = WorkerView> {
        self.members.iter().filter_map(|(worker, member)| {
            let spot = self.field.spot(*worker)?;
            Some(WorkerView {
                worker: *worker,
                total: spot.total.clone(),
                available: spot.room.clone(),
                labels: spot.labels.clone(),
                draining: member.draining,
                placed: member.holds.len(),
                backlog: member.backlog.iter().map(|(_, count)| u64::from(*count)).sum(),
            })
        })
    }

    /// Jobs that have not ended, and the last that have, by id.
    pub fn jobs(&self) -> impl Iterator<Item = JobView> {
        self.jobs.iter().map(|(job, known)| JobView {
            job: *job,
            state: known.state.clone(),
            waiting: self.queue.of_job(*job).len(),
            placed: self.ledger.of_job(*job).len(),
        })
    }

    /// Tasks that wait in the head for room.
    pub fn waiting(&self) -> usize {
        self.anew.len()
            + self.gangs.len()
            + self.queue.len()
            + self.recovery.as_ref().map_or(0, |recovery| recovery.parked.len())
    }
}

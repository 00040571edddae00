//! After a restart: what the durable records say, and what returning workers still hold.
//!
//! Until every worker that was a member is back, or the grace is over, nothing that an old head
//! may have placed is placed again: drivers of restored jobs wait to be claimed, and tasks of
//! those jobs that owners spill again are parked. What else these jobs come to ask for until then,
//! placement groups among it, is placed, but for what counts in a quota, of which the missing
//! workers may hold some. New jobs go on at once: no old worker can hold anything of theirs.

use std::collections::{BTreeMap, BTreeSet};

use super::JobState;
use super::core::ClusterCore;
use super::jobs::Job;
use super::queue::Key;
use crate::id::{ActorId, JobId, TaskId, WorkerId};
use crate::message::{FromHead, HeldTask};
use crate::outcome::{Cause, TaskError};
use crate::placement::Reason;
use crate::spec::{Assignment, TaskSpec};
use crate::time::Timestamp;

#[derive(Debug)]
pub(super) struct Recovery {
    /// Workers that may still come back.
    pub(super) expected: BTreeSet<WorkerId>,
    /// When they are given up.
    pub(super) deadline: Timestamp,
    /// Tasks that an expected worker may hold.
    pub(super) parked: BTreeMap<Key, Assignment>,
    jobs: BTreeSet<JobId>,
    /// A worker that was a member is lost: it may have run a driver.
    lost: Option<WorkerId>,
}

impl Recovery {
    /// Whether the worker was expected; it is not any longer.
    pub(super) fn lose(&mut self, worker: WorkerId) -> bool {
        self.parked.retain(|(_, owner), _| *owner != worker);
        let expected = self.expected.remove(&worker);
        if expected {
            self.lost = Some(worker);
        }
        expected
    }
}

impl ClusterCore {
    pub(super) fn restored(
        &mut self,
        jobs: Vec<(JobId, TaskSpec, u32)>,
        workers: Vec<WorkerId>,
        names: Vec<(String, ActorId, WorkerId)>,
    ) {
        let ids = jobs.iter().map(|(job, ..)| *job).collect();
        for (job, driver, attempt) in jobs {
            let state = JobState::Waiting { reason: Reason::Recovering.to_string(), attempt };
            self.jobs.insert(job, Job { driver: Some(driver), state, attempt });
        }
        for (name, actor, owner) in names {
            self.names.insert(name, (actor, owner));
        }
        let until = self.now + self.config.recovery_grace;
        self.recovery = Some(Recovery {
            expected: workers.into_iter().filter(|worker| *worker != WorkerId::HEAD).collect(),
            deadline: until,
            parked: BTreeMap::new(),
            jobs: ids,
            lost: None,
        });
        self.finish_recovery_if_complete();
    }

    /// A returning worker has this: it is placed there.
    pub(super) fn claim(&mut self, worker: WorkerId, held: &HeldTask) {
        let (task, owner, attempt) = (held.task, held.owner, held.attempt);
        let key = (task, owner, attempt);
        if !self.is_active(task.job()) || self.ledger.get(&key).is_some() {
            return;
        }
        if held.driver {
            let unclaimed = self.recovery.is_some();
            let Some(job) = self.jobs.get_mut(&task.job()) else { return };
            let waits = matches!(job.state, JobState::Waiting { .. });
            if owner != WorkerId::HEAD || !waits || !unclaimed || attempt < job.attempt {
                return;
            }
            job.attempt = attempt;
            self.driver_placed(task.job(), worker);
        } else if owner == WorkerId::HEAD {
            return;
        }
        self.put_on(key, worker, held.request.clone(), 0);
        let waiting = (task, owner);
        let parked = self.recovery.as_mut().and_then(|recovery| {
            let older = recovery.parked.get(&waiting).is_some_and(|a| a.attempt <= attempt);
            older.then(|| recovery.parked.remove(&waiting)).flatten()
        });
        let queued = self.queue.get(&waiting).is_some_and(|a| a.attempt <= attempt);
        let found = parked.or_else(|| queued.then(|| self.queue.remove(&waiting)).flatten());
        match found {
            Some(assignment) if assignment.attempt == attempt => {
                self.send_placed(owner, (task, attempt, worker));
            }
            // Its owner has forgotten the try that is claimed, and its parent ran again.
            Some(assignment) => drop(self.anew.insert(waiting, assignment)),
            None => {}
        }
    }

    /// Keeps a task back while a worker that may hold it is expected; else returns it.
    pub(super) fn park(&mut self, assignment: Assignment) -> Option<Assignment> {
        let task = assignment.spec.id;
        let owner = assignment.owner;
        let Some(recovery) = &mut self.recovery else { return Some(assignment) };
        if !recovery.jobs.contains(&task.job()) {
            return Some(assignment);
        }
        let newer =
            recovery.parked.get(&(task, owner)).is_none_or(|a| a.attempt < assignment.attempt);
        if newer {
            recovery.parked.insert((task, owner), assignment);
        }
        self.send(owner, FromHead::Waiting { task, reason: Reason::Recovering.to_string() });
        None
    }

    /// Whether workers that are not back yet may hold something of that job's.
    pub(super) fn is_recovering(&self, job: JobId) -> bool {
        self.recovery.as_ref().is_some_and(|recovery| recovery.jobs.contains(&job))
    }

    pub(super) fn recovery_timeout(&mut self) {
        let Some(recovery) = &self.recovery else { return };
        if recovery.deadline > self.now {
            return;
        }
        let grace = self.config.recovery_grace;
        for worker in recovery.expected.clone() {
            let reason = format!("did not come back within {grace:?} after the head restarted");
            self.worker_lost(worker, &reason);
        }
        self.finish_recovery_if_complete();
    }

    pub(super) fn finish_recovery_if_complete(&mut self) {
        if self.recovery.as_ref().is_none_or(|recovery| !recovery.expected.is_empty()) {
            return;
        }
        let Some(recovery) = self.recovery.take() else { return };
        for job in recovery.jobs {
            if self.quotas.has(job) {
                self.relieved.insert(job);
            }
            let waits = |job: &Job| matches!(job.state, JobState::Waiting { .. });
            // One that was claimed and lost again since is in line already.
            let in_line = self.queue.get(&(TaskId::driver(job), WorkerId::HEAD)).is_some();
            if in_line || !self.jobs.get(&job).is_some_and(waits) {
                continue;
            }
            match recovery.lost {
                // It may have run there.
                Some(worker) => {
                    let reason = format!("{worker} was lost while the head restarted");
                    let cause = Cause::WorkerDied { reason };
                    self.try_again(job, TaskError { task: TaskId::driver(job), cause });
                }
                // Everybody is back and nobody has it: it never ran.
                None => self.next_attempt(job, "was not placed before the head restarted".into()),
            }
        }
        for (_, assignment) in recovery.parked {
            if self.is_active(assignment.spec.id.job()) {
                self.enqueue(assignment);
            }
        }
    }
}

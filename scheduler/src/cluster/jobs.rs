//! Jobs: their drivers are placed, tried again, and end them.

use super::core::ClusterCore;
use super::{ClusterAction, JobState};
use crate::id::{JobId, TaskId, WorkerId};
use crate::message::FromHead;
use crate::outcome::{Cause, Outcome, TaskError};
use crate::spec::{Assignment, TaskSpec};

/// Ended jobs that are still shown.
const SHOWN_ENDED: usize = 1_000;

/// A job.
#[derive(Debug)]
pub(super) struct Job {
    /// Until it has ended.
    pub(super) driver: Option<TaskSpec>,
    pub(super) state: JobState,
    /// The current try.
    pub(super) attempt: u32,
}

impl Job {
    pub(super) fn is_ended(&self) -> bool {
        !matches!(self.state, JobState::Waiting { .. } | JobState::Running { .. })
    }
}

impl ClusterCore {
    pub(super) fn job_submitted(&mut self, job: JobId, driver: TaskSpec) {
        // Numbers only grow: a lower one that is not there has ended and is shown no more.
        let repeated = self.jobs.contains_key(&job)
            || self.jobs.first_key_value().is_some_and(|(first, first_job)| {
                self.jobs.len() >= SHOWN_ENDED && job < *first && first_job.is_ended()
            });
        if repeated {
            return;
        }
        let state = JobState::Waiting { reason: "is being placed".to_owned(), attempt: 0 };
        self.jobs.insert(job, Job { driver: Some(driver), state, attempt: 0 });
        self.start(job);
    }

    pub(super) fn job_stopped(&mut self, job: JobId) {
        self.end_job(job, JobState::Stopped);
    }

    /// Whether the job is known and has not ended.
    pub(super) fn is_active(&self, job: JobId) -> bool {
        self.jobs.get(&job).is_some_and(|job| !job.is_ended())
    }

    /// Somebody works for a job that nobody knows.
    pub(super) fn forget_unknown_job(&mut self, worker: WorkerId, job: JobId) {
        if !self.jobs.contains_key(&job) {
            self.send(worker, FromHead::JobEnded { job });
        }
    }

    pub(super) fn driver_finished(
        &mut self,
        from: WorkerId,
        job: JobId,
        attempt: u32,
        outcome: Outcome,
    ) {
        let Some(known) = self.jobs.get(&job) else { return };
        let current = attempt == known.attempt
            && match known.state {
                JobState::Running { worker, .. } => worker == from,
                // Only after a restart, from a worker that came back: it tells again.
                JobState::Waiting { .. } => self.recovery.is_some(),
                _ => false,
            };
        let driver = TaskId::driver(job);
        if self.ledger.get(&(driver, WorkerId::HEAD, attempt)).is_some_and(|p| p.worker == from) {
            self.take_off((driver, WorkerId::HEAD, attempt), true);
        }
        if !current {
            return;
        }
        match outcome {
            Outcome::Returned(_) | Outcome::Streamed(_) => self.end_job(job, JobState::Succeeded),
            Outcome::Failed(error) | Outcome::Retryable(error) => match error.cause {
                // What a driver passes on as the error of one of its tasks is its own decision.
                Cause::ExecutorDied(_) | Cause::WorkerDied { .. } if error.task == driver => {
                    self.try_again(job, error);
                }
                _ => self.end_job(job, JobState::Failed(error)),
            },
        }
    }

    /// The worker under a driver is gone.
    pub(super) fn driver_lost(&mut self, job: JobId, attempt: u32, reason: &str) {
        let Some(known) = self.jobs.get(&job) else { return };
        if known.attempt != attempt || !matches!(known.state, JobState::Running { .. }) {
            return;
        }
        let cause = Cause::WorkerDied { reason: reason.to_owned() };
        self.try_again(job, TaskError { task: TaskId::driver(job), cause });
    }

    /// The next attempt, if there are tries left.
    pub(super) fn try_again(&mut self, job: JobId, error: TaskError) {
        let Some(known) = self.jobs.get(&job) else { return };
        let tries = known.driver.as_ref().map_or(0, |driver| driver.max_retries);
        if known.attempt >= tries {
            return self.end_job(job, JobState::Failed(error));
        }
        self.next_attempt(job, format!("is placed again: {}", error.cause));
    }

    /// The next attempt, whatever the number of tries.
    pub(super) fn next_attempt(&mut self, job: JobId, reason: String) {
        let Some(known) = self.jobs.get_mut(&job) else { return };
        known.attempt += 1;
        known.state = JobState::Waiting { reason, attempt: known.attempt };
        let state = known.state.clone();
        self.act(ClusterAction::JobChanged { job, state });
        self.start(job);
    }

    pub(super) fn driver_placed(&mut self, job: JobId, worker: WorkerId) {
        let Some(known) = self.jobs.get_mut(&job) else { return };
        known.state = JobState::Running { worker, attempt: known.attempt };
        let state = known.state.clone();
        self.act(ClusterAction::JobChanged { job, state });
    }

    pub(super) fn driver_waits(&mut self, job: JobId, why: String) {
        let Some(known) = self.jobs.get_mut(&job) else { return };
        let JobState::Waiting { reason, .. } = &mut known.state else { return };
        if *reason != why {
            *reason = why;
            let state = known.state.clone();
            self.act(ClusterAction::JobChanged { job, state });
        }
    }

    fn start(&mut self, job: JobId) {
        let Some(known) = self.jobs.get(&job) else { return };
        let Some(spec) = known.driver.clone() else { return };
        self.enqueue(Assignment::new(spec, known.attempt, WorkerId::HEAD));
    }

    fn end_job(&mut self, job: JobId, state: JobState) {
        let Some(known) = self.jobs.get_mut(&job) else { return };
        if known.is_ended() {
            return;
        }
        known.state = state.clone();
        known.driver = None;
        self.act(ClusterAction::JobChanged { job, state });
        for key in self.queue.of_job(job) {
            self.queue.remove(&key);
        }
        for key in self.ledger.of_job(job) {
            self.take_off(key, false);
        }
        self.anew.retain(|(task, _), _| task.job() != job);
        self.gangs.remove_job(job);
        self.shares.forget(job);
        self.quotas.forget(job);
        if let Some(recovery) = &mut self.recovery {
            recovery.parked.retain(|(task, _), _| task.job() != job);
        }
        self.drop_names_in(job);
        self.broadcast(&FromHead::JobEnded { job }, None);
        let ended = self.jobs.iter().filter(|(_, job)| job.is_ended());
        let ended: Vec<JobId> = ended.map(|(job, _)| *job).collect();
        for job in ended.iter().take(ended.len().saturating_sub(SHOWN_ENDED)) {
            self.jobs.remove(job);
        }
    }
}

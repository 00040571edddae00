//! Detached actors: jobs of their own, which outlive those that asked for them.

use rdist_scheduler::cluster::JobState;
use rdist_scheduler::id::JobId;

use super::{Event, MILLISECOND, Simulation};
use crate::workload::{Mix, Name};

/// Most of them in a run.
const MOST: usize = 6;

impl Simulation {
    /// Somebody asks for a detached actor.
    pub fn detach(&mut self) {
        let jobs = &mut self.options.jobs;
        if jobs.iter().filter(|job| job.detached).count() >= MOST {
            return;
        }
        jobs.push(Mix { detached: true, ..Mix::NOTHING });
        let job = JobId(jobs.len() as u32);
        let when = self.delay();
        self.agenda.at(when, Event::Submit(job));
    }

    /// How many there were, and how many of them programs have ended.
    pub fn detached(&self) -> (u64, u64) {
        let of_all = (1..=self.options.jobs.len() as u32).map(JobId);
        let jobs: Vec<JobId> = of_all.filter(|job| self.mix_of(*job).detached).collect();
        let ended = jobs.iter().filter(|job| self.ended.get(job) == Some(&JobState::Succeeded));
        (jobs.len() as u64, ended.count() as u64)
    }

    /// A detached actor lives until somebody ends it: its job does not succeed before.
    pub(super) fn check_detached(&self, job: JobId, state: &JobState) {
        let is_ended = self.stopped.contains(&job) || self.killed.iter().any(|a| a.0.job() == job);
        let succeeds = *state == JobState::Succeeded && self.mix_of(job).detached;
        assert!(!succeeds || is_ended, "{job} has ended, and nobody has ended its actor");
    }

    /// When all other jobs have ended, and faults, those actors still live that nobody has ended.
    pub(super) fn end_detached(&mut self) {
        let lives = |job: &JobId| self.mix_of(*job).detached && !self.ended.contains_key(job);
        let of_all = (1..=self.options.jobs.len() as u32).map(JobId);
        let left: Vec<JobId> = of_all.filter(lives).collect();
        let others = self.options.jobs.len() - self.ended.len() - left.len();
        if left.is_empty() || others > 0 || self.now <= self.options.fault_time {
            return;
        }
        let Some(until) = self.patience else {
            let until = self.now + 5_000 * MILLISECOND;
            self.patience = Some(until);
            return self.agenda.at(until, Event::Nothing);
        };
        if self.now < until {
            return;
        }
        self.patience = Some(u64::MAX);
        self.patience = Some(u64::MAX);
        for job in left {
            let holder = self.durable.names.get(&Name::OfJob(0).of(job));
            let lives = holder.is_some_and(|(actor, _)| !self.killed.contains(actor));
            assert!(lives || self.stopped.contains(&job), "{job} goes on without its actor");
            self.agenda.at(self.now, Event::Stop(job));
        }
    }
}

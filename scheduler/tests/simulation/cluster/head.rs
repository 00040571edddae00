//! The head, its sessions with workers, and jobs.

use rdist_scheduler::cluster::{ClusterAction, ClusterConfig, ClusterCore, ClusterEvent, JobState};
use rdist_scheduler::id::{JobId, TaskId, WorkerId};
use rdist_scheduler::local::LocalEvent;
use rdist_scheduler::message::{FromHead, Held};
use rdist_scheduler::resource::Resources;
use rdist_scheduler::spec::{Strategy, TaskKind, TaskSpec};
use rdist_scheduler::time::Timestamp;

use super::{Event, MILLISECOND, Simulation, labels_of};
use crate::network::{Address, mix};

impl Simulation {
    pub(super) fn head_up(&mut self) {
        let restarted = self.head_number > 0;
        self.head_number += 1;
        let seed = self.seed;
        self.head = Some(ClusterCore::new(ClusterConfig { seed, ..ClusterConfig::default() }));
        self.head_timer = None;
        if restarted {
            let jobs = self.durable.jobs.iter();
            let names = self.durable.names.iter();
            let restored = ClusterEvent::Restored {
                jobs: jobs.map(|(job, (spec, n))| (*job, spec.clone(), *n)).collect(),
                workers: self.durable.workers.iter().copied().collect(),
                names: names.map(|(name, (actor, at))| (name.clone(), *actor, *at)).collect(),
            };
            let jobs: Vec<JobId> = self.durable.jobs.keys().copied().collect();
            for job in jobs {
                self.limit_job(job);
            }
            self.tell_head(restored);
        }
    }

    /// A worker asks for a session: from now on, all that it says goes to this head, after what
    /// it holds at this moment.
    pub(super) fn hello(&mut self, worker: WorkerId) {
        let number = self.head_number;
        let here = self.head.is_some();
        let when = self.delay();
        let Some(at) = self.workers.get_mut(&worker) else { return };
        if !here {
            let again = self.now + 20 * MILLISECOND;
            return self.agenda.at(again, Event::Hello(worker));
        }
        at.session = Some(number);
        let held = at.core.held();
        let link = (Address::Worker(worker), Address::Head);
        self.agenda.reset(link);
        self.agenda.reset((Address::Head, Address::Worker(worker)));
        self.agenda.send(link, when, Event::Joined(worker, number, held));
    }

    pub(super) fn joined(&mut self, worker: WorkerId, number: u64, mut held: Held) {
        if number != self.head_number || self.head.is_none() || !self.arrives(worker) {
            return;
        }
        let total = match self.workers.get(&worker) {
            Some(at) => at.usage.total.clone(),
            None => return,
        };
        self.durable.workers.insert(worker);
        let when = self.delay();
        let link = (Address::Head, Address::Worker(worker));
        self.agenda.send(link, when, Event::HeadFound(worker, number));
        if self.durable.draining.contains(&worker) && !held.draining {
            // The head that was asked for that died before the worker heard of it.
            held.draining = true;
            self.say_drain(worker);
        }
        let labels = labels_of(worker);
        let event = ClusterEvent::WorkerJoined { worker, total, labels, held };
        if self.options.faults.repeats {
            self.tell_head(event.clone());
        }
        self.tell_head(event);
    }

    pub(super) fn tell_head(&mut self, event: ClusterEvent) {
        if self.trace {
            println!("{:>12} head <- {event:?}", self.now);
        }
        let Some(head) = &mut self.head else { return };
        head.handle(Timestamp(self.now), event);
        self.do_head_actions();
    }

    pub(super) fn head_timer(&mut self) {
        if self.head_timer.is_none_or(|timer| timer > self.now) {
            return; // set anew since, for an earlier time, which has been
        }
        self.head_timer = None;
        let Some(head) = &mut self.head else { return };
        if head.poll_timeout().is_some_and(|due| due.0 <= self.now) {
            head.handle_timeout(Timestamp(self.now));
        }
        self.do_head_actions();
    }

    pub(super) fn do_head_actions(&mut self) {
        let Some(head) = &mut self.head else { return };
        if self.events.is_multiple_of(self.options.check_every) {
            head.check_invariants();
        }
        while let Some(action) = self.head.as_mut().and_then(ClusterCore::poll_action) {
            if self.trace {
                println!("{:>12} head -> {action:?}", "");
            }
            match action {
                ClusterAction::Send { to, message } => {
                    self.names.check(to, &message, &self.durable.names);
                    let link = (Address::Head, Address::Worker(to));
                    self.head_said += 1;
                    let message = (self.head_said, message);
                    self.send(link, Event::FromHead(to, self.head_number, message));
                }
                ClusterAction::JobChanged { job, state } => self.job_changed(job, state),
                ClusterAction::NameChanged { name, actor } => {
                    match actor {
                        Some(holder) => {
                            self.names.granted(&name, holder.0);
                            self.durable.names.insert(name, holder)
                        }
                        None => self.durable.names.remove(&name),
                    };
                }
            }
        }
        let Some(due) = self.head.as_ref().and_then(ClusterCore::poll_timeout) else { return };
        if self.head_timer.is_none_or(|timer| timer > due.0) {
            self.head_timer = Some(due.0);
            self.agenda.at(due.0.max(self.now), Event::HeadTimer);
        }
    }

    pub(super) fn head_says(
        &mut self,
        to: WorkerId,
        session: u64,
        (number, message): (u64, FromHead),
    ) {
        let Some(at) = self.workers.get_mut(&to) else { return };
        if at.session != Some(session) || !at.core.is_news(WorkerId::HEAD, number) {
            return;
        }
        match &message {
            FromHead::WorkerDied { worker, .. } if *worker == to => {
                // Expelled: it ends itself.
                self.kill(to);
                return;
            }
            FromHead::WorkerDied { worker, .. } => drop(at.closed.insert(*worker)),
            FromHead::JobEnded { job } => drop(at.ended.insert(*job)),
            _ => {}
        }
        self.tell(to, LocalEvent::FromHead(message));
    }

    pub(super) fn submit_job(&mut self, job: JobId) {
        if self.head.is_none() {
            return self.agenda.at(self.now + 50 * MILLISECOND, Event::Submit(job));
        }
        let id = TaskId::driver(job);
        let driver = TaskSpec {
            id,
            parent: id,
            kind: TaskKind::Driver,
            function: 0,
            request: Resources::NONE,
            dependencies: Vec::new(),
            borrowed: Vec::new(),
            returns: 0,
            max_retries: 1_000,
            strategy: Strategy::Default,
            priority: 0,
            policy: None,
            body: mix(self.seed, job.0.into()).to_le_bytes().to_vec(),
        };
        self.durable.jobs.insert(job, (driver.clone(), 0));
        self.limit_job(job);
        self.tell_head(ClusterEvent::JobSubmitted { job, driver });
    }

    fn limit_job(&mut self, job: JobId) {
        let quota = self.quota_of(job);
        self.tell_head(ClusterEvent::JobLimited { job, quota });
    }

    pub(super) fn job_changed(&mut self, job: JobId, state: JobState) {
        match state {
            JobState::Waiting { attempt, .. } | JobState::Running { attempt, .. } => {
                if let Some((_, known)) = self.durable.jobs.get_mut(&job) {
                    assert!(*known <= attempt, "{job} goes back to attempt {attempt}");
                    *known = attempt;
                }
            }
            state => {
                if let JobState::Failed(error) = &state {
                    self.excuse(TaskId::driver(job), error);
                }
                self.check_detached(job, &state);
                self.durable.jobs.remove(&job);
                let before = self.ended.insert(job, state);
                assert!(before.is_none(), "{job} ended twice");
            }
        }
    }
}

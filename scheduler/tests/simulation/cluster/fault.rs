//! What goes wrong, and when.

use std::sync::Arc;

use rdist_scheduler::cluster::ClusterEvent;
use rdist_scheduler::id::{ExecutorId, JobId, WorkerId};
use rdist_scheduler::local::LocalEvent;
use rdist_scheduler::outcome::Death;

use super::{Event, MILLISECOND, Simulation, killed};
use crate::network::{Address, mix};

impl Simulation {
    /// Until when who an event is for does nothing.
    pub(super) fn stalled(&self, event: &Event) -> Option<u64> {
        let (worker, executor) = match event {
            Event::ToExecutor { worker, executor, .. }
            | Event::Ring { worker, to: executor, .. }
            | Event::Serve { worker, host: executor, .. } => (worker, Some(executor)),
            Event::Step(at) => (&at.worker, Some(&at.executor)),
            event => (Self::worker_of(event)?, None),
        };
        let at = self.workers.get(worker)?;
        let process = executor.and_then(|executor| at.processes.get(executor));
        Some(process.map_or(0, |process| process.stalled_until).max(at.stalled_until))
    }

    fn worker_of(event: &Event) -> Option<&WorkerId> {
        match event {
            Event::FromExecutor { worker, .. }
            | Event::ProcessUp(worker, _)
            | Event::Pulled { worker, .. }
            | Event::Restored { worker, .. }
            | Event::Peer { to: worker, .. }
            | Event::HeadFound(worker, _)
            | Event::FromHead(worker, ..)
            | Event::HeadLost(worker, _)
            | Event::Hello(worker)
            | Event::Drain(worker, _)
            | Event::WorkerTimer(worker) => Some(worker),
            _ => None,
        }
    }

    pub(super) fn fault(&mut self) {
        if self.now > self.options.fault_time {
            return;
        }
        let next = self.now + 2 + self.rng.below(2 * self.options.fault_every);
        self.agenda.at(next & !1, Event::Fault);
        let faults = self.options.faults;
        let living = Arc::clone(&self.living);
        let Some(worker) = self.rng.pick(&living) else { return };
        if faults.damages
            && let Some(worker) = self.disk_dice.pick(&living)
        {
            self.spill(worker);
        }
        match self.rng.below(10) {
            0..=2 if faults.executors => self.kill_executor(worker),
            3 if faults.workers => {
                let at = &self.workers[&worker];
                if at.drained || self.open_workers() > 2 {
                    self.kill(worker);
                }
            }
            4 if faults.heads && self.rng.one_in(3) => self.kill_head(),
            5 if faults.joins => self.join(),
            6 if faults.stalls && self.stalls_process(worker) => {}
            6 if faults.stalls => {
                let until = self.now + self.rng.below(200 * MILLISECOND);
                if let Some(at) = self.workers.get_mut(&worker)
                    && at.stalled_until < self.now
                {
                    at.stalled_until = until | 1;
                    self.harm.unheard = true;
                }
            }
            7 if faults.breaks => {
                // The connection is made again, and what was not acknowledged sent again.
                self.harm.unheard = true;
                let Some(other) = self.rng.pick(&living) else { return };
                let late = (self.now + self.rng.below(300 * MILLISECOND)) & !1;
                let link = match self.rng.one_in(3) {
                    true => (Address::Worker(worker), Address::Head),
                    false => (Address::Worker(worker), Address::Worker(other)),
                };
                self.agenda.send(link, late, Event::Nothing);
            }
            8 if faults.drains => {
                // There is more to move where actors of others live.
                let hosts: Vec<WorkerId> =
                    living.iter().copied().filter(|worker| self.hosts_others(*worker)).collect();
                let host = self.rng.pick(&hosts);
                if host.is_some() || self.rng.one_in(4) {
                    self.drain(host.unwrap_or(worker));
                }
            }
            9 if faults.stops && self.rng.one_in(6) => {
                let job = JobId(1 + self.rng.below(self.options.jobs.len() as u64) as u32);
                if self.durable.jobs.contains_key(&job) {
                    self.agenda.at(self.now, Event::Stop(job));
                }
            }
            _ => {}
        }
    }

    /// Whether an actor lives there that was made elsewhere.
    fn hosts_others(&self, worker: WorkerId) -> bool {
        let mut actors = self.workers[&worker].core.actors();
        actors.any(|actor| actor.worker == Some(worker) && actor.owner != worker)
    }

    /// Somebody asks for a worker to leave, which holds for heads to come.
    fn drain(&mut self, worker: WorkerId) {
        let open = self.open_workers();
        let Some(at) = self.workers.get_mut(&worker) else { return };
        if open > 2 && !at.drained && self.head.is_some() {
            at.drained = true;
            self.harm.drained = true;
            self.durable.draining.insert(worker);
            self.tell_head(ClusterEvent::WorkerDraining { worker });
            self.say_drain(worker);
        }
    }

    /// Tells a worker to leave, after what the head has assigned to it before.
    pub(super) fn say_drain(&mut self, worker: WorkerId) {
        let when = self.delay();
        let link = (Address::Head, Address::Worker(worker));
        self.agenda.send(link, when, Event::Drain(worker, self.head_number));
    }

    /// A worker hears that it is to leave.
    pub(super) fn drains(&mut self, worker: WorkerId, session: u64) {
        let Some(at) = self.workers.get_mut(&worker) else { return };
        if at.session != Some(session) {
            return;
        }
        if !std::mem::replace(&mut at.leaves, true) {
            self.agenda.at(self.now + 2 * MILLISECOND, Event::Leave(worker));
        }
        self.tell(worker, LocalEvent::Drain);
    }

    /// Where processes lease, now and then one of them is stopped for a while, and nothing else.
    fn stalls_process(&mut self, worker: WorkerId) -> bool {
        if !self.options.jobs.iter().any(|job| job.leases) || self.rng.one_in(3) {
            return false;
        }
        let until = (self.now + self.rng.below(20 * MILLISECOND)) | 1;
        let Some(at) = self.workers.get_mut(&worker) else { return true };
        let processes: Vec<ExecutorId> = at.processes.keys().copied().collect();
        if let Some(executor) = self.rng.pick(&processes)
            && let Some(process) = at.processes.get_mut(&executor)
        {
            process.stalled_until = process.stalled_until.max(until);
        }
        true
    }

    /// Sends a message of a core; it may come once more, at once or after others of the link.
    pub(super) fn send(&mut self, link: (Address, Address), event: Event) {
        let when = self.delay();
        if !self.options.faults.repeats || self.repeats.one_in(2) {
            self.agenda.send(link, when, event);
            return;
        }
        let came = self.agenda.send(link, when, event.clone());
        match self.repeats.one_in(2) {
            true => drop(self.agenda.send(link, when, event)),
            false => {
                let again = came + self.repeats.below(100 * MILLISECOND);
                self.agenda.at(again, event);
            }
        }
    }

    /// Workers that programs can know of.
    pub fn members(&self) -> Vec<WorkerId> {
        let joined = |worker: &WorkerId| self.durable.workers.contains(worker);
        self.living.iter().copied().filter(joined).collect()
    }

    pub(super) fn open_workers(&self) -> usize {
        self.workers.values().filter(|at| !at.drained).count()
    }

    /// A worker that is to leave goes when it is idle, or when its operator has lost patience.
    pub(super) fn leave(&mut self, worker: WorkerId) {
        let Some(at) = self.workers.get(&worker) else { return };
        if at.core.is_idle() && self.agenda.has_delivered(Address::Worker(worker), self.now) {
            // It has handed on all that it had: nothing may be lost by this.
            return self.end(worker, Event::Left(worker), u64::MAX);
        }
        if self.now > self.options.fault_time {
            return self.kill(worker);
        }
        self.agenda.at(self.now + 100 * MILLISECOND, Event::Leave(worker));
    }

    pub(super) fn kill_executor(&mut self, worker: WorkerId) {
        let Some(at) = self.workers.get(&worker) else { return };
        let up = at.processes.iter().filter(|(_, process)| process.up);
        let direct = up.clone().filter(|(_, process)| process.is_direct());
        let direct: Vec<ExecutorId> = direct.map(|(id, _)| *id).collect();
        let up: Vec<ExecutorId> = up.map(|(id, _)| *id).collect();
        // What is under way for a moment would hardly ever be hit.
        let may_be = if direct.is_empty() { up } else { direct };
        if let Some(executor) = self.rng.pick(&may_be) {
            self.harm.executors_died = true;
            let may_be_full = self.options.jobs.iter().any(|job| job.several);
            let death = match may_be_full && mix(self.seed, self.now).is_multiple_of(4) {
                true => Death::OutOfMemory { reason: "it took too much".to_owned() },
                false => killed(),
            };
            self.exit(worker, executor, death);
        }
    }

    pub(super) fn kill(&mut self, worker: WorkerId) {
        if self.workers.contains_key(&worker) {
            self.harm.workers_died = true;
            let cut = self.now + self.rng.below(MILLISECOND);
            self.end(worker, Event::Detected(worker), cut);
        }
    }

    /// A worker's process ends; what it has sent arrives until `cut`.
    fn end(&mut self, worker: WorkerId, how: Event, cut: u64) {
        self.workers.remove(&worker);
        self.cuts.insert(worker, cut);
        self.living = self.workers.keys().collect();
        let detected = self.now + 5 * MILLISECOND + self.rng.below(300 * MILLISECOND);
        self.agenda.at(detected & !1, how);
    }

    pub(super) fn kill_head(&mut self) {
        if self.head.take().is_none() {
            return;
        }
        self.harm.heads_died = true;
        let number = self.head_number;
        self.head_number += 1; // what is under way to it, or from it, is lost
        let workers = Arc::clone(&self.living);
        for worker in workers.iter() {
            let when = self.delay();
            self.agenda.at(when, Event::HeadLost(*worker, number));
        }
        let up = self.now + 10 * MILLISECOND + self.rng.below(500 * MILLISECOND);
        self.agenda.at(up & !1, Event::HeadUp);
    }
}

//! What happens next.

use rdist_scheduler::cluster::ClusterEvent;
use rdist_scheduler::id::{ExecutorId, ObjectId, WorkerId};
use rdist_scheduler::local::LocalEvent;
use rdist_scheduler::message::ToHead;

use super::{Event, MILLISECOND, Simulation};

impl Simulation {
    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::FromExecutor { worker, executor, message, values } => {
                self.executor_says(worker, executor, message, values);
            }
            Event::ToExecutor { worker, executor, command } => {
                self.command(worker, executor, command);
            }
            Event::Step(at) => self.step(at),
            Event::Ring { worker, from, to } => self.read_ring(worker, (from, to)),
            Event::Serve { worker, caller, host } => self.serve(worker, (caller, host)),
            Event::ProcessUp(worker, executor) => self.process_up(worker, executor),
            Event::Peer { from, to, number, message, values } => {
                self.peer_says((from, to), number, message, values);
            }
            Event::Pulled { worker, object, size, from } => {
                self.pulled(worker, (object, size), from);
            }
            Event::Joined(worker, number, held) => self.joined(worker, number, held),
            Event::ToHead(from, session, (number, message)) => {
                let is_here = session == self.head_number && self.arrives(from);
                if is_here && self.head.as_mut().is_some_and(|head| head.is_news(from, number)) {
                    if let ToHead::ActorLookup { request, name } = &message {
                        self.names.asked(from, *request, name);
                    }
                    self.tell_head(ClusterEvent::FromWorker { from, message });
                }
            }
            Event::HeadFound(worker, number) => {
                if self.workers.get(&worker).is_some_and(|w| w.session == Some(number)) {
                    self.tell(worker, LocalEvent::HeadFound { fresh: true });
                }
            }
            Event::FromHead(to, number, message) => self.head_says(to, number, message),
            Event::HeadLost(worker, number) => self.head_lost(worker, number),
            Event::Hello(worker) => self.hello(worker),
            Event::HeadUp => self.head_up(),
            Event::Detected(worker) => self.detected(worker),
            Event::Left(worker) => {
                if self.head.is_some() {
                    self.tell_head(ClusterEvent::WorkerLeft { worker });
                }
                self.detected(worker);
            }
            Event::ForgetLost(worker) => drop(self.durable.workers.remove(&worker)),
            Event::WorkerTimer(worker) => self.worker_timer(worker),
            Event::HeadTimer => self.head_timer(),
            Event::Submit(job) => self.submit_job(job),
            Event::Stop(job) => match self.head {
                Some(_) => {
                    self.stopped.insert(job);
                    self.tell_head(ClusterEvent::JobStopRequested { job });
                }
                None => self.agenda.at(self.now + 50 * MILLISECOND, Event::Stop(job)),
            },
            Event::Drain(worker, session) => self.drains(worker, session),
            Event::Leave(worker) => self.leave(worker),
            Event::Fault => self.fault(),
            Event::Restored { worker, object } => self.restored(worker, object),
            Event::Nothing => {}
        }
    }

    fn process_up(&mut self, worker: WorkerId, executor: ExecutorId) {
        let process = self.workers.get_mut(&worker);
        let process = process.and_then(|w| w.processes.get_mut(&executor));
        if let Some(process) = process {
            process.up = true;
            let job = process.job;
            let quota = self.quota_of(job);
            self.tell(worker, LocalEvent::JobLimited { job, quota });
            self.tell(worker, LocalEvent::ExecutorStarted { executor });
        }
    }

    /// A copy has come, or there was none to come.
    fn pulled(&mut self, worker: WorkerId, (object, size): (ObjectId, u64), from: WorkerId) {
        let is_served = self.serves(from, object);
        let value = self.workers.get(&from).and_then(|w| w.table.get(&object)).cloned();
        let value = value.filter(|_| is_served);
        let Some(at) = self.workers.get_mut(&worker) else { return };
        let event = match value {
            Some(value) => {
                at.keep(object, value);
                LocalEvent::Pulled { object, size }
            }
            None => LocalEvent::PullFailed { object, from },
        };
        self.tell(worker, event);
    }

    /// A stalled worker may notice late, and a new one have met the next head.
    fn head_lost(&mut self, worker: WorkerId, number: u64) {
        if let Some(at) = self.workers.get_mut(&worker)
            && at.session == Some(number)
        {
            at.session = None;
            self.tell(worker, LocalEvent::HeadLost);
            let again = self.now + 1 + self.rng.below(100 * MILLISECOND);
            self.agenda.at(again & !1, Event::Hello(worker));
        }
    }

    /// The head notices that a worker is gone.
    fn detected(&mut self, worker: WorkerId) {
        if self.head.is_some() {
            let reason = "it does not answer".to_owned();
            self.tell_head(ClusterEvent::WorkerLost { worker, reason });
            let forget = self.now + 10_000 * MILLISECOND;
            self.agenda.at(forget, Event::ForgetLost(worker));
        }
    }
}

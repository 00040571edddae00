//! The executor that runs what others of its job give it by leases: for each of them a lane of
//! tasks, one after the other. As in the runtime (`executor::direct::host`), its worker hears of a
//! task only when that leaves its lease.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rdist_scheduler::id::{ExecutorId, TaskId, WorkerId};
use rdist_scheduler::local::{LEASED_ATTEMPT, LeaseEnd, LocalEvent};
use rdist_scheduler::spec::TaskSpec;

use super::ring::Frame;
use super::{At, Given, Run};
use crate::cluster::{Event, Simulation};

/// What others give an executor.
#[derive(Debug, Default)]
pub(super) struct Host {
    pub(super) lanes: BTreeMap<ExecutorId, Lane>,
    /// The last one that the worker has set.
    pub(super) fence: u64,
}

/// What one of them has given by its leases.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// What comes next is read after that fence.
    pub(super) after: u64,
    /// The last lease that was heard of, and the last one that is over.
    lease: u64,
    over: u64,
    /// How the worker wants the lease back.
    end: Option<LeaseEnd>,
    waiting: VecDeque<Leased>,
    /// It has started, and has neither answered nor left.
    current: Option<(u64, Leased)>,
    /// A thread looks for tasks here, or will.
    is_served: bool,
}

#[derive(Debug, Clone)]
struct Leased {
    token: u64,
    spec: Arc<TaskSpec>,
    cancelled: bool,
}

impl Lane {
    pub(super) fn is_busy(&self) -> bool {
        self.current.is_some() || !self.waiting.is_empty()
    }
}

impl Run {
    /// Whether its end, or its wait, is the turn of another task.
    pub(super) fn takes_turns(&self) -> bool {
        self.spec.takes_turns() && !matches!(self.given, Given::Leased(_))
    }

    /// Which try the worker knows it as.
    pub(super) fn told_as(&self) -> u32 {
        match self.given {
            Given::Leased(_) => LEASED_ATTEMPT,
            _ => self.attempt,
        }
    }
}

impl Simulation {
    fn lane(
        &mut self,
        worker: WorkerId,
        (caller, host): (ExecutorId, ExecutorId),
    ) -> Option<&mut Lane> {
        self.process(worker, host)?.host.lanes.get_mut(&caller)
    }

    /// The worker has set a fence for what that executor will give.
    pub(super) fn fence(&mut self, worker: WorkerId, host: ExecutorId, of: (u64, ExecutorId)) {
        let Some(process) = self.process(worker, host) else { return };
        let (number, caller) = of;
        process.host.lanes.entry(caller).or_default();
        process.host.fence = number;
        self.read_ring(worker, (caller, host));
    }

    pub(super) fn task_arrived(
        &mut self,
        worker: WorkerId,
        (caller, host): (ExecutorId, ExecutorId),
        lease: u64,
        (token, spec): (u64, Arc<TaskSpec>),
    ) {
        let Some(lane) = self.lane(worker, (caller, host)) else { return };
        if lease > lane.lease {
            (lane.lease, lane.end) = (lease, None);
        }
        let is_closed = lease < lane.lease || lane.end >= Some(LeaseEnd::Closed);
        if lease <= lane.over || is_closed {
            return self.transmit(worker, (host, caller), Frame::NotStarted { token });
        }
        if self.is_here(worker, host, spec.id) {
            // The worker knows the one that is here, and so is to know of this one too.
            self.give_back(worker, (caller, host));
            return self.transmit(worker, (host, caller), Frame::NotStarted { token });
        }
        let Some(lane) = self.lane(worker, (caller, host)) else { return };
        lane.waiting.push_back(Leased { token, spec, cancelled: false });
        if !std::mem::replace(&mut lane.is_served, true) {
            self.serve_soon(worker, (caller, host));
        }
    }

    /// Whether a task of that name runs in a process, or waits there to run.
    fn is_here(&mut self, worker: WorkerId, executor: ExecutorId, task: TaskId) -> bool {
        let Some(process) = self.process(worker, executor) else { return false };
        let mut leased = process.host.lanes.values().flat_map(|lane| &lane.waiting);
        process.runs.values().any(|run| run.spec.id == task)
            || process.turns.waiting.iter().any(|waiting| waiting.spec.id == task)
            || leased.any(|leased| leased.spec.id == task)
    }

    fn serve_soon(&mut self, worker: WorkerId, (caller, host): (ExecutorId, ExecutorId)) {
        let when = self.now + 200 + self.rng.below(2_000);
        self.agenda.at(when & !1, Event::Serve { worker, caller, host });
    }

    /// A thread looks for the next task of a lane.
    pub fn serve(&mut self, worker: WorkerId, (caller, host): (ExecutorId, ExecutorId)) {
        if self.lane(worker, (caller, host)).is_some_and(|lane| lane.waiting.is_empty()) {
            self.read_callers(worker, host);
        }
        let Some(lane) = self.lane(worker, (caller, host)) else { return };
        let Some(leased) = lane.waiting.pop_front() else {
            lane.is_served = false;
            if lane.end.is_some() {
                self.give_back(worker, (caller, host));
            }
            return;
        };
        let spec = Arc::clone(&leased.spec);
        let cancelled = leased.cancelled;
        let Some(at) = self.run_task((worker, host), spec, 0, Given::Leased(caller)) else {
            return;
        };
        if let Some(lane) = self.lane(worker, (caller, host)) {
            lane.current = Some((at.run, leased));
        }
        if cancelled {
            self.end_cancelled(at);
        }
    }

    /// Reads what has come directly.
    pub(super) fn read_callers(&mut self, worker: WorkerId, host: ExecutorId) {
        let Some(process) = self.process(worker, host) else { return };
        let callers: Vec<ExecutorId> = process.host.lanes.keys().copied().collect();
        callers.into_iter().for_each(|caller| self.read_ring(worker, (caller, host)));
    }

    /// The worker wants a lease back.
    pub(super) fn end_lease(
        &mut self,
        worker: WorkerId,
        (caller, host): (ExecutorId, ExecutorId),
        lease: u64,
        how: LeaseEnd,
    ) {
        let Some(lane) = self.lane(worker, (caller, host)) else { return };
        if lease <= lane.over {
            return;
        }
        (lane.lease, lane.end) = (lease, lane.end.max(Some(how)));
        let is_dry = lane.current.is_none() && lane.waiting.is_empty();
        if is_dry || how == LeaseEnd::AtOnce {
            self.give_back(worker, (caller, host));
        }
    }

    /// A task does something of which the worker has to hear: it leaves its lease, unless it has.
    pub(super) fn leave_lease(&mut self, at: At) {
        let Some(Given::Leased(caller)) = self.running(at).map(|run| run.given) else { return };
        let Some(lane) = self.lane(at.worker, (caller, at.executor)) else { return };
        if lane.current.as_ref().is_some_and(|(run, _)| *run == at.run) {
            self.give_back(at.worker, (caller, at.executor));
        }
    }

    /// The lease is over: what runs leaves it, and the rest goes back.
    fn give_back(&mut self, worker: WorkerId, (caller, host): (ExecutorId, ExecutorId)) {
        let Some(lane) = self.lane(worker, (caller, host)) else { return };
        lane.over = lane.lease;
        lane.end = None;
        let number = lane.over;
        let running = lane.current.take().map(|(_, leased)| leased.spec);
        lane.is_served &= running.is_none();
        let waiting = std::mem::take(&mut lane.waiting);
        self.leases.left += u64::from(running.is_some());
        let event = LocalEvent::LeaseOver { executor: host, caller, number, running };
        self.say(worker, host, event, Vec::new());
        for Leased { token, .. } in waiting {
            self.transmit(worker, (host, caller), Frame::NotStarted { token });
        }
    }

    /// A task has ended. True: it was still leased, and its value is small, so that was all.
    pub(super) fn ends_by_lease(&mut self, at: At, is_small: bool) -> bool {
        let Some(run) = self.running(at) else { return false };
        let (value, has_failed) = (run.read, run.failed);
        let Given::Leased(caller) = run.given else { return false };
        if !is_small || has_failed {
            self.leave_lease(at);
            return false;
        }
        let Some(lane) = self.lane(at.worker, (caller, at.executor)) else { return false };
        let Some((_, leased)) = lane.current.take_if(|(run, _)| *run == at.run) else {
            return false;
        };
        self.finished += 1;
        self.leases.ran += 1;
        self.forget_run(at);
        let token = leased.token;
        self.transmit(at.worker, (at.executor, caller), Frame::Ran { token, value });
        self.serve_soon(at.worker, (caller, at.executor));
        true
    }

    /// Marks a task that waits in a lane; false: none does of that name.
    pub(super) fn cancel_leased(&mut self, worker: WorkerId, host: ExecutorId, id: TaskId) -> bool {
        let Some(process) = self.process(worker, host) else { return false };
        let waiting = process.host.lanes.values_mut().flat_map(|lane| &mut lane.waiting);
        match waiting.into_iter().find(|leased| leased.spec.id == id) {
            Some(leased) => {
                leased.cancelled = true;
                self.leases.cancelled += 1;
                true
            }
            None => false,
        }
    }
}

//! The process that gives tasks to its job's pool by a lease, as the runtime's does
//! (`executor::direct::lessee`).
//!
//! Whether it asks, and what it gives, is decided by chance where the runtime measures: the worker
//! must be right whatever a process asks for.

use rdist_scheduler::id::{ExecutorId, ObjectId, WorkerId};
use rdist_scheduler::local::LocalEvent;
use rdist_scheduler::outcome::Death;
use rdist_scheduler::spec::{Strategy, TaskSpec};

use super::At;
use super::direct::Via;
use super::ring::Frame;
use crate::cluster::Simulation;
use crate::workload::is_short;

/// Most tasks that wait for each other in a lane.
const MOST_OPEN: usize = 12;

/// Whether a process has a lease.
#[derive(Debug, Default)]
pub(super) struct Lessee {
    /// Its number, and the host.
    lease: Option<(u64, ExecutorId)>,
    /// The worker is asked; these runs wait for its answer.
    asked: Option<Vec<u64>>,
    /// The last task that went by the worker.
    pub(super) last: Option<ObjectId>,
}

/// What became of leased tasks, over all processes.
#[derive(Debug, Default, Clone, Copy)]
pub struct Leases {
    pub granted: u64,
    /// They answered straight.
    pub ran: u64,
    /// They left their lease.
    pub left: u64,
    /// They came back, not started.
    pub returned: u64,
    pub promised: u64,
    /// They were lost with their host.
    pub lost: u64,
    /// They were to end.
    pub cancelled: u64,
}

impl Leases {
    pub fn add(&mut self, more: &Self) {
        self.granted += more.granted;
        self.ran += more.ran;
        self.left += more.left;
        self.returned += more.returned;
        self.promised += more.promised;
        self.lost += more.lost;
        self.cancelled += more.cancelled;
    }
}

impl Lessee {
    /// The lease by which that call went is over.
    pub(super) fn is_over(&mut self, via: Via) {
        self.lease.take_if(|(lease, _)| via == Via::Lease(*lease));
    }
}

impl Simulation {
    fn lessee(&mut self, worker: WorkerId, executor: ExecutorId) -> Option<&mut Lessee> {
        Some(&mut self.process(worker, executor)?.lessee)
    }

    /// Submits a task that makes one value, by the way that there is.
    pub(super) fn submit_plain(&mut self, at: At, spec: TaskSpec) {
        if !self.mix_of(spec.id.job()).leases || !is_leasable(&spec) {
            return self.submit_spec(at, spec);
        }
        if !self.asks(at) {
            return self.submit_leasable(at, spec);
        }
        let Some(run) = self.running(at) else { return };
        run.unsent = Some(Box::new(spec));
        let Some(lessee) = self.lessee(at.worker, at.executor) else { return };
        match &mut lessee.asked {
            Some(waiting) => waiting.push(at.run),
            None => {
                lessee.asked = Some(vec![at.run]);
                let event = LocalEvent::LeaseWanted { by: at.executor };
                self.say(at.worker, at.executor, event, Vec::new());
            }
        }
    }

    /// Whether this is a chance to ask for a lease: the last task has ended.
    fn asks(&mut self, at: At) -> bool {
        let Some(process) = self.process(at.worker, at.executor) else { return false };
        let lessee = &process.lessee;
        let is_open =
            |last: &ObjectId| process.holds.contains_key(last) && !process.views.contains(last);
        let is_chance = lessee.lease.is_none()
            && lessee.asked.is_none()
            && !lessee.last.as_ref().is_some_and(is_open);
        is_chance && !self.rng.one_in(3)
    }

    fn submit_leasable(&mut self, at: At, spec: TaskSpec) {
        let object = spec.id.object(0);
        let Some(process) = self.process(at.worker, at.executor) else { return };
        let by_lease = |via: Via| matches!(via, Via::Lease(_));
        let open = process.direct.calls.values().filter(|call| by_lease(call.via)).count();
        let has_room = open == 0 || (is_short(spec.function) && open < MOST_OPEN);
        let is_new = process.is_new(object);
        let lessee = &mut process.lessee;
        let Some((lease, host)) = lessee.lease.filter(|_| has_room && is_new) else {
            if lessee.lease.is_none() {
                lessee.last = Some(object);
            }
            self.forget_own(at, object);
            return self.submit_spec(at, spec);
        };
        self.give(at, host, Via::Lease(lease), spec);
    }

    /// The worker's answer: the host, the fence there, and the lease's number.
    pub(super) fn lease_answered(
        &mut self,
        worker: WorkerId,
        executor: ExecutorId,
        granted: Option<(ExecutorId, u64, u64)>,
    ) {
        if let Some((host, fence, _)) = granted {
            self.leases.granted += 1;
            self.transmit(worker, (executor, host), Frame::After(fence));
        }
        let Some(lessee) = self.lessee(worker, executor) else { return };
        lessee.lease = granted.map(|(host, _, number)| (number, host));
        for run in lessee.asked.take().unwrap_or_default() {
            let at = At { worker, executor, run };
            let Some(spec) = self.running(at).and_then(|run| run.unsent.take()) else { continue };
            self.submit_leasable(at, *spec);
            self.step_soon(at, 0);
        }
    }

    /// The host has ended, and its replies are read. Of the tasks that have none, it ran the first
    /// one, and had not started the others.
    pub(super) fn host_ended(
        &mut self,
        worker: WorkerId,
        executor: ExecutorId,
        host: ExecutorId,
        death: &Death,
    ) {
        let Some(lessee) = self.lessee(worker, executor) else { return };
        lessee.lease.take_if(|(_, at)| *at == host);
        let open = self.take_calls(worker, executor, |call| {
            call.host == host && matches!(call.via, Via::Lease(_))
        });
        for (place, (token, call)) in open.into_iter().enumerate() {
            if place > 0 && !call.is_promised {
                self.not_started(worker, executor, token, call);
                continue;
            }
            self.leases.lost += 1;
            self.lost((worker, executor), token, call, death);
        }
    }
}

/// Whether a task needs nothing that only the worker can do.
fn is_leasable(spec: &TaskSpec) -> bool {
    spec.takes_turns()
        && spec.borrowed.is_empty()
        && spec.returns == 1
        && spec.max_retries > 0
        && spec.priority == 0
        && spec.strategy == Strategy::Default
}

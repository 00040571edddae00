//! The process that gives tasks to its job's pool by a lease, as the runtime's does
//! (`executor::direct::lessee`): what it knows of their values, and what it tells its worker.
//!
//! Whether it asks, and what it gives, is decided by chance where the runtime measures: the worker
//! must be right whatever a process asks for.

use std::collections::BTreeMap;
use std::sync::Arc;

use rdist_scheduler::hash::{FastMap, FastSet};
use rdist_scheduler::id::{ExecutorId, ObjectId, WorkerId};
use rdist_scheduler::local::LocalEvent;
use rdist_scheduler::outcome::{Death, Outcome, Returned};
use rdist_scheduler::spec::{Reference, Strategy, TaskSpec};

use super::lane::Lane;
use super::ring::Frame;
use super::{At, Process, Stored};
use crate::cluster::Simulation;
use crate::workload::is_short;

/// Most tasks that wait for each other in a lane.
const MOST_OPEN: usize = 12;

/// What a process has given by leases.
#[derive(Debug, Default)]
pub(super) struct Lessee {
    /// Its number, and the host.
    lease: Option<(u64, ExecutorId)>,
    /// The worker is asked; these runs wait for its answer.
    asked: Option<Vec<u64>>,
    /// The last task that went by the worker.
    last: Option<ObjectId>,
    /// Tasks without an answer, by their tokens, in the order of the calls.
    calls: BTreeMap<u64, Call>,
    last_token: u64,
    own: FastMap<ObjectId, Own>,
    /// Promised ones whose answers come by the worker: told to be released only after that.
    unanswered: FastSet<ObjectId>,
}

#[derive(Debug)]
struct Call {
    host: ExecutorId,
    lease: u64,
    spec: Arc<TaskSpec>,
    is_promised: bool,
}

impl Call {
    fn reference(&self, owner: WorkerId) -> Reference {
        Reference { object: self.spec.id.object(0), owner }
    }
}

/// The value of a leased task.
#[derive(Debug)]
struct Own {
    token: u64,
    /// The worker knows it, and counts this process as a holder.
    told: bool,
    value: Option<u64>,
    /// Runs that wait for it.
    waiting: Vec<u64>,
}

/// What a process knows of an object without its worker.
pub(super) enum Known {
    Nothing,
    /// The answer comes directly.
    Coming,
    Value(u64),
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
}

impl Leases {
    pub fn add(&mut self, more: &Self) {
        self.granted += more.granted;
        self.ran += more.ran;
        self.left += more.left;
        self.returned += more.returned;
        self.promised += more.promised;
        self.lost += more.lost;
    }
}

impl Process {
    /// Whether tasks that it has given, or was given, by a lease are under way.
    pub fn is_leasing(&self) -> bool {
        !self.lessee.calls.is_empty() || self.host.lanes.values().any(Lane::is_busy)
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
        let lessee = &mut process.lessee;
        let open = lessee.calls.len();
        let has_room = open == 0 || (is_short(spec.function) && open < MOST_OPEN);
        let is_new = !process.holds.contains_key(&object)
            && !lessee.own.contains_key(&object)
            && !lessee.unanswered.contains(&object);
        let Some((lease, host)) = lessee.lease.filter(|_| has_room && is_new) else {
            // A former try of the same task may have left one behind, to which nobody refers.
            if lessee.own.get(&object).is_some_and(|own| !own.told) {
                lessee.own.remove(&object);
            }
            if lessee.lease.is_none() {
                lessee.last = Some(object);
            }
            return self.submit_spec(at, spec);
        };
        lessee.last_token += 1;
        let (token, spec) = (lessee.last_token, Arc::new(spec));
        let call = Call { host, lease, spec: Arc::clone(&spec), is_promised: false };
        lessee.calls.insert(token, call);
        lessee.own.insert(object, Own { token, told: false, value: None, waiting: Vec::new() });
        let reference = Reference { object, owner: at.worker };
        self.hold(at, reference, false);
        if let Some(run) = self.running(at) {
            run.slots.push(reference);
        }
        self.transmit(at.worker, (at.executor, host), Frame::Run { lease, token, spec });
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

    /// What the process knows of an object.
    pub(super) fn knows(&self, at: At, object: ObjectId) -> Known {
        match self.workers[&at.worker].processes[&at.executor].lessee.own.get(&object) {
            None => Known::Nothing,
            Some(Own { value: None, .. }) => Known::Coming,
            Some(Own { value: Some(value), .. }) => Known::Value(*value),
        }
    }

    /// A run waits for what comes directly; false: for something else.
    pub(super) fn awaits_answer(&mut self, at: At, object: ObjectId) -> bool {
        let Some(lessee) = self.lessee(at.worker, at.executor) else { return false };
        let Some(own) = lessee.own.get_mut(&object) else { return false };
        own.waiting.push(at.run);
        true
    }

    /// A reference leaves the process: the worker must know the object.
    pub(super) fn pass_on(&mut self, at: At, object: ObjectId) {
        let by = at.executor;
        let Some(lessee) = self.lessee(at.worker, by) else { return };
        let Some(own) = lessee.own.get_mut(&object).filter(|own| !own.told) else { return };
        own.told = true;
        if let Some(value) = own.value {
            let (size, inline, copies, contains) = (100, true, 1, Vec::new());
            let event = LocalEvent::Put { by, object, size, inline, copies, contains };
            let stored = Stored { value, contains: Vec::new() };
            return self.say(at.worker, by, event, vec![(object, stored)]);
        }
        let Some(call) = lessee.calls.get_mut(&own.token) else { return };
        call.is_promised = true;
        let spec = Arc::clone(&call.spec);
        self.leases.promised += 1;
        let event = LocalEvent::Promised { by, spec, lost: None };
        self.say(at.worker, by, event, Vec::new());
    }

    /// Whether the worker counts the process by more than what refers to the object in it.
    pub(super) fn is_counted(&mut self, at: At, object: ObjectId) -> bool {
        self.lessee(at.worker, at.executor).is_some_and(|lessee| {
            lessee.unanswered.contains(&object)
                || lessee.own.get(&object).is_some_and(|own| own.told)
        })
    }

    /// The last reference is dropped. True: the worker is not told, or not yet.
    pub(super) fn drops_own(&mut self, at: At, object: ObjectId) -> bool {
        let Some(lessee) = self.lessee(at.worker, at.executor) else { return false };
        if lessee.unanswered.contains(&object) {
            return true;
        }
        let Some(own) = lessee.own.get(&object) else { return false };
        if own.told && own.value.is_none() {
            return true; // once it is answered
        }
        let told = own.told;
        lessee.own.remove(&object);
        !told
    }

    /// A task has answered.
    pub(super) fn ran(&mut self, worker: WorkerId, executor: ExecutorId, token: u64, value: u64) {
        let Some(lessee) = self.lessee(worker, executor) else { return };
        let Some(call) = lessee.calls.remove(&token) else { return };
        let (task, object) = (call.spec.id, call.spec.id.object(0));
        let own = lessee.own.get_mut(&object).filter(|own| own.token == token);
        let waiting = own.map(|own| {
            own.value = Some(value);
            std::mem::take(&mut own.waiting)
        });
        if call.is_promised {
            let returned = Returned { size: 100, inline: true, contains: Vec::new() };
            let outcome = Outcome::Returned(vec![returned]);
            let event = LocalEvent::Answered { by: executor, task, outcome };
            let stored = Stored { value, contains: Vec::new() };
            self.say(worker, executor, event, vec![(object, stored)]);
        }
        for run in waiting.into_iter().flatten() {
            self.goes_on(At { worker, executor, run });
        }
        let Some(process) = self.process(worker, executor) else { return };
        if !process.holds.contains_key(&object)
            && process.lessee.own.remove(&object).is_some_and(|own| own.told)
        {
            self.say_released(worker, executor, object);
        }
    }

    /// A task comes back, which the host has not started.
    pub(super) fn came_back(&mut self, worker: WorkerId, executor: ExecutorId, token: u64) {
        let Some(lessee) = self.lessee(worker, executor) else { return };
        if let Some(call) = lessee.calls.remove(&token) {
            self.leases.returned += 1;
            self.not_started(worker, executor, token, call);
        }
    }

    /// It goes by the worker.
    fn not_started(&mut self, worker: WorkerId, executor: ExecutorId, token: u64, call: Call) {
        let reference = call.reference(worker);
        let Some(lessee) = self.lessee(worker, executor) else { return };
        lessee.lease.take_if(|(lease, _)| *lease == call.lease);
        lessee.last = Some(reference.object);
        let event = LocalEvent::Submitted { by: executor, spec: call.spec };
        self.say(worker, executor, event, Vec::new());
        self.comes_by_worker((worker, executor), token, reference, call.is_promised);
    }

    /// The value is the worker's to bring, which counts this process as a holder by now.
    fn comes_by_worker(
        &mut self,
        (worker, executor): (WorkerId, ExecutorId),
        token: u64,
        reference: Reference,
        is_promised: bool,
    ) {
        let object = reference.object;
        let Some(process) = self.process(worker, executor) else { return };
        let is_held = process.holds.contains_key(&object);
        let lessee = &mut process.lessee;
        let is_it = lessee.own.get(&object).is_some_and(|own| own.token == token);
        let own = if is_it { lessee.own.remove(&object) } else { None };
        let waiting = own.map(|own| own.waiting).unwrap_or_default();
        if is_promised {
            lessee.unanswered.insert(object);
        }
        if is_promised || !waiting.is_empty() {
            process.waiting.entry(object).or_default().extend(waiting);
            let wanted = LocalEvent::Wanted { by: executor, reference };
            self.say(worker, executor, wanted, Vec::new());
        } else if !is_held {
            self.say_released(worker, executor, object);
        }
    }

    /// What the worker brings is there, or failed; to nobody, perhaps.
    pub(super) fn answered(&mut self, worker: WorkerId, executor: ExecutorId, object: ObjectId) {
        let Some(process) = self.process(worker, executor) else { return };
        if process.lessee.unanswered.remove(&object) && !process.holds.contains_key(&object) {
            self.say_released(worker, executor, object);
        }
    }

    /// A task has left its lease; the worker, which has it, counts this process as a holder of what
    /// it makes.
    pub(super) fn made(&mut self, worker: WorkerId, executor: ExecutorId, object: ObjectId) {
        let Some(process) = self.process(worker, executor) else { return };
        let lessee = &mut process.lessee;
        let found = lessee.calls.iter().find(|(_, call)| call.spec.id.object(0) == object);
        let Some(token) = found.map(|(token, _)| *token) else {
            if !process.holds.contains_key(&object) && !lessee.unanswered.contains(&object) {
                self.say_released(worker, executor, object);
            }
            return;
        };
        let Some(call) = lessee.calls.remove(&token) else { return };
        lessee.lease.take_if(|(lease, _)| *lease == call.lease);
        let reference = call.reference(worker);
        self.comes_by_worker((worker, executor), token, reference, call.is_promised);
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
        let calls = std::mem::take(&mut lessee.calls);
        let (open, others): (Vec<_>, Vec<_>) =
            calls.into_iter().partition(|(_, call)| call.host == host);
        lessee.calls.extend(others);
        for (place, (token, call)) in open.into_iter().enumerate() {
            if place > 0 && !call.is_promised {
                self.not_started(worker, executor, token, call);
                continue;
            }
            self.leases.lost += 1;
            let reference = call.reference(worker);
            let (spec, lost) = (call.spec, Some(death.clone()));
            let event = LocalEvent::Promised { by: executor, spec, lost };
            self.say(worker, executor, event, Vec::new());
            self.comes_by_worker((worker, executor), token, reference, call.is_promised);
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

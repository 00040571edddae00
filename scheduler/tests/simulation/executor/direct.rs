//! What a process has given to others directly, by its lease or by routes to actors, as the
//! runtime's does (`executor::direct`): what it knows of the values, and what it tells its worker.

use std::collections::BTreeMap;
use std::sync::Arc;

use rdist_scheduler::hash::{FastMap, FastSet};
use rdist_scheduler::id::{ActorId, ExecutorId, ObjectId, WorkerId};
use rdist_scheduler::local::LocalEvent;
use rdist_scheduler::outcome::{Cause, Death, Outcome, Returned, TaskError};
use rdist_scheduler::spec::{Reference, TaskSpec};

use super::lane::Lane;
use super::ring::Frame;
use super::{At, Given, Process, Stored};
use crate::cluster::Simulation;

/// What a process has given to others.
#[derive(Debug, Default)]
pub(super) struct Direct {
    /// Tasks and calls without an answer, by their tokens, in the order of the calls.
    pub(super) calls: BTreeMap<u64, Call>,
    last_token: u64,
    own: FastMap<ObjectId, Own>,
    /// Promised ones whose answers come by the worker: told to be released only after that.
    unanswered: FastSet<ObjectId>,
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) host: ExecutorId,
    pub(super) via: Via,
    spec: Arc<TaskSpec>,
    pub(super) is_promised: bool,
}

/// What lets a call go directly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Via {
    /// Its number.
    Lease(u64),
    Route(ActorId),
}

impl Call {
    fn reference(&self, owner: WorkerId) -> Reference {
        Reference { object: self.spec.id.object(0), owner }
    }
}

/// The value of a task or a call that was given directly.
#[derive(Debug)]
struct Own {
    token: u64,
    /// The worker knows it, and counts this process as a holder.
    told: bool,
    value: Option<Result<u64, Arc<TaskError>>>,
    /// Runs that wait for it.
    waiting: Vec<u64>,
}

/// What a process knows of an object without its worker.
pub(super) enum Known {
    Nothing,
    /// The answer comes directly.
    Coming,
    Value(u64),
    Failed(Arc<TaskError>),
}

impl Process {
    /// Whether tasks or calls that it has given, or was given, directly are under way.
    pub fn is_direct(&self) -> bool {
        !self.direct.calls.is_empty()
            || self.host.lanes.values().any(Lane::is_busy)
            || self.runs.values().any(|run| matches!(run.given, Given::Called { .. }))
    }

    /// Whether it has neither made nor heard of the object.
    pub(super) fn is_new(&self, object: ObjectId) -> bool {
        !self.holds.contains_key(&object)
            && !self.direct.own.contains_key(&object)
            && !self.direct.unanswered.contains(&object)
    }
}

impl Simulation {
    fn direct(&mut self, worker: WorkerId, executor: ExecutorId) -> Option<&mut Direct> {
        Some(&mut self.process(worker, executor)?.direct)
    }

    /// Gives a task, or a call, to another process.
    pub(super) fn give(&mut self, at: At, host: ExecutorId, via: Via, spec: TaskSpec) {
        let object = spec.id.object(0);
        let Some(direct) = self.direct(at.worker, at.executor) else { return };
        direct.last_token += 1;
        let (token, spec) = (direct.last_token, Arc::new(spec));
        let call = Call { host, via, spec: Arc::clone(&spec), is_promised: false };
        direct.calls.insert(token, call);
        direct.own.insert(object, Own { token, told: false, value: None, waiting: Vec::new() });
        let reference = Reference { object, owner: at.worker };
        self.hold(at, reference, false);
        if let Some(run) = self.running(at) {
            run.slots.push(reference);
        }
        let frame = match via {
            Via::Lease(lease) => Frame::Run { lease, token, spec },
            Via::Route(_) => Frame::Call { token, spec },
        };
        self.transmit(at.worker, (at.executor, host), frame);
    }

    /// What is submitted by way of the worker may have left one behind in a former try, to which
    /// nobody refers.
    pub(super) fn forget_own(&mut self, at: At, object: ObjectId) {
        let Some(direct) = self.direct(at.worker, at.executor) else { return };
        if direct.own.get(&object).is_some_and(|own| !own.told) {
            direct.own.remove(&object);
        }
    }

    /// What the process knows of an object.
    pub(super) fn knows(&self, at: At, object: ObjectId) -> Known {
        let own = self.workers[&at.worker].processes[&at.executor].direct.own.get(&object);
        match own.map(|own| &own.value) {
            None => Known::Nothing,
            Some(None) => Known::Coming,
            Some(Some(Ok(value))) => Known::Value(*value),
            Some(Some(Err(error))) => Known::Failed(Arc::clone(error)),
        }
    }

    /// A run waits for what comes directly; false: for something else.
    pub(super) fn awaits_answer(&mut self, at: At, object: ObjectId) -> bool {
        let Some(direct) = self.direct(at.worker, at.executor) else { return false };
        let Some(own) = direct.own.get_mut(&object) else { return false };
        own.waiting.push(at.run);
        true
    }

    /// A reference leaves the process: the worker must know the object.
    pub(super) fn pass_on(&mut self, at: At, object: ObjectId) {
        let by = at.executor;
        let Some(direct) = self.direct(at.worker, by) else { return };
        let Some(own) = direct.own.get_mut(&object).filter(|own| !own.told) else { return };
        own.told = true;
        match own.value.clone() {
            Some(Ok(value)) => {
                let (size, inline, copies, contains) = (100, true, 1, Vec::new());
                let event = LocalEvent::Put { by, object, size, inline, copies, contains };
                let stored = Stored { value, inline: true, contains: Vec::new() };
                self.say(at.worker, by, event, vec![(object, stored)]);
            }
            Some(Err(error)) => {
                let error = TaskError::clone(&error);
                let event = LocalEvent::PutFailed { by, object, error };
                self.say(at.worker, by, event, Vec::new());
            }
            None => {
                let Some(call) = direct.calls.get_mut(&own.token) else { return };
                call.is_promised = true;
                let (spec, via) = (Arc::clone(&call.spec), call.via);
                match via {
                    Via::Lease(_) => self.leases.promised += 1,
                    Via::Route(_) => {
                        self.routed.promised += 1;
                        self.promised.insert(spec.id);
                    }
                }
                let event = LocalEvent::Promised { by, spec, lost: None };
                self.say(at.worker, by, event, Vec::new());
            }
        }
    }

    /// Whether the worker counts the process by more than what refers to the object in it.
    pub(super) fn is_counted(&mut self, at: At, object: ObjectId) -> bool {
        self.direct(at.worker, at.executor).is_some_and(|direct| {
            direct.unanswered.contains(&object)
                || direct.own.get(&object).is_some_and(|own| own.told)
        })
    }

    /// The last reference is dropped. True: the worker is not told, or not yet.
    pub(super) fn drops_own(&mut self, at: At, object: ObjectId) -> bool {
        let Some(direct) = self.direct(at.worker, at.executor) else { return false };
        if direct.unanswered.contains(&object) {
            return true;
        }
        let Some(own) = direct.own.get(&object) else { return false };
        if own.told && own.value.is_none() {
            return true; // once it is answered
        }
        let told = own.told;
        direct.own.remove(&object);
        !told
    }

    /// A task or a call has answered.
    pub(super) fn replied(
        &mut self,
        (worker, executor): (WorkerId, ExecutorId),
        token: u64,
        reply: Result<u64, TaskError>,
    ) {
        let Some(direct) = self.direct(worker, executor) else { return };
        let Some(call) = direct.calls.remove(&token) else { return };
        let is_route = matches!(call.via, Via::Route(_));
        self.routed.answered += u64::from(is_route);
        self.settle_call((worker, executor), token, &call, reply);
    }

    /// Who waits for a call, and the worker if it was promised, hear of its end.
    fn settle_call(
        &mut self,
        (worker, executor): (WorkerId, ExecutorId),
        token: u64,
        call: &Call,
        reply: Result<u64, TaskError>,
    ) {
        let (task, object) = (call.spec.id, call.spec.id.object(0));
        let Some(direct) = self.direct(worker, executor) else { return };
        let own = direct.own.get_mut(&object).filter(|own| own.token == token);
        let waiting = own.map(|own| {
            own.value = Some(reply.clone().map_err(Arc::new));
            std::mem::take(&mut own.waiting)
        });
        if call.is_promised {
            let (outcome, values) = match reply {
                Ok(value) => {
                    let returned = Returned { size: 100, inline: true, contains: Vec::new() };
                    let stored = Stored { value, inline: true, contains: Vec::new() };
                    (Outcome::Returned(vec![returned]), vec![(object, stored)])
                }
                Err(error) => (Outcome::Failed(error), Vec::new()),
            };
            let event = LocalEvent::Answered { by: executor, task, outcome };
            self.say(worker, executor, event, values);
        }
        for run in waiting.into_iter().flatten() {
            self.goes_on(At { worker, executor, run });
        }
        let Some(process) = self.process(worker, executor) else { return };
        if !process.holds.contains_key(&object)
            && process.direct.own.remove(&object).is_some_and(|own| own.told)
        {
            self.say_released(worker, executor, object);
        }
    }

    /// A task comes back, which the host has not started.
    pub(super) fn came_back(&mut self, worker: WorkerId, executor: ExecutorId, token: u64) {
        let Some(direct) = self.direct(worker, executor) else { return };
        if let Some(call) = direct.calls.remove(&token) {
            self.leases.returned += 1;
            self.not_started(worker, executor, token, call);
        }
    }

    /// It goes by the worker.
    pub(super) fn not_started(
        &mut self,
        worker: WorkerId,
        executor: ExecutorId,
        token: u64,
        call: Call,
    ) {
        let reference = call.reference(worker);
        let Some(process) = self.process(worker, executor) else { return };
        process.lessee.is_over(call.via);
        process.lessee.last = Some(reference.object);
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
        let direct = &mut process.direct;
        let is_it = direct.own.get(&object).is_some_and(|own| own.token == token);
        let own = if is_it { direct.own.remove(&object) } else { None };
        let waiting = own.map(|own| own.waiting).unwrap_or_default();
        if is_promised {
            direct.unanswered.insert(object);
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
        if process.direct.unanswered.remove(&object) && !process.holds.contains_key(&object) {
            self.say_released(worker, executor, object);
        }
    }

    /// A task has left its lease, or a call has made what fits into no ring; the worker, which has
    /// it, counts this process as a holder of what it makes.
    pub(super) fn made(&mut self, worker: WorkerId, executor: ExecutorId, object: ObjectId) {
        let Some(process) = self.process(worker, executor) else { return };
        let direct = &mut process.direct;
        let found = direct.calls.iter().find(|(_, call)| call.spec.id.object(0) == object);
        let Some(token) = found.map(|(token, _)| *token) else {
            if !process.holds.contains_key(&object) && !direct.unanswered.contains(&object) {
                self.say_released(worker, executor, object);
            }
            return;
        };
        let Some(call) = direct.calls.remove(&token) else { return };
        process.lessee.is_over(call.via);
        let is_route = matches!(call.via, Via::Route(_));
        self.routed.made += u64::from(is_route);
        let reference = call.reference(worker);
        self.comes_by_worker((worker, executor), token, reference, call.is_promised);
    }

    /// Takes the calls that are meant, in order.
    pub(super) fn take_calls(
        &mut self,
        worker: WorkerId,
        executor: ExecutorId,
        is_meant: impl Fn(&Call) -> bool,
    ) -> Vec<(u64, Call)> {
        let Some(direct) = self.direct(worker, executor) else { return Vec::new() };
        let calls = std::mem::take(&mut direct.calls);
        let (meant, others): (Vec<_>, Vec<_>) =
            calls.into_iter().partition(|(_, call)| is_meant(call));
        direct.calls.extend(others);
        meant
    }

    /// A call was lost with its actor, or a task with its host.
    pub(super) fn lost(
        &mut self,
        (worker, executor): (WorkerId, ExecutorId),
        token: u64,
        call: Call,
        death: &Death,
    ) {
        if !call.is_promised && call.spec.max_retries == 0 {
            let cause = Cause::ActorDied(death.clone());
            let error = TaskError { task: call.spec.id, cause };
            return self.settle_call((worker, executor), token, &call, Err(error));
        }
        let reference = call.reference(worker);
        let (spec, lost) = (call.spec, Some(death.clone()));
        let event = LocalEvent::Promised { by: executor, spec, lost };
        self.say(worker, executor, event, Vec::new());
        self.comes_by_worker((worker, executor), token, reference, call.is_promised);
    }
}

//! Direct calls of actors, as the runtime makes them (`executor::direct`): a process asks its
//! worker for a route to an actor, and calls it through a ring while there is one.
//!
//! Whether it asks is decided by chance: the worker must be right whatever a process asks for.

use std::sync::Arc;

use rdist_scheduler::id::{ActorId, ExecutorId, ObjectId, WorkerId};
use rdist_scheduler::local::LocalEvent;
use rdist_scheduler::outcome::{Cause, Death, Returned, TaskError};
use rdist_scheduler::spec::{CallRules, TaskKind, TaskSpec};

use super::direct::Via;
use super::ring::Frame;
use super::{At, Given, Stored};
use crate::cluster::Simulation;

/// How long until somebody looks again whether calls have been taken.
const SOON: u64 = 20_000;

/// How a process calls an actor.
#[derive(Debug, Default)]
pub(super) struct Route {
    way: Way,
    /// Where direct calls went in this life of the actor.
    host: Option<ExecutorId>,
}

#[derive(Debug, Default)]
enum Way {
    #[default]
    ByWorker,
    /// The worker is asked; these runs wait for its answer.
    Asked(Vec<u64>),
    Direct(ExecutorId),
    /// To `ByWorker`, when the callee has taken what was sent.
    Leaving(ExecutorId),
}

/// Where the next call goes.
pub(super) enum Goes {
    ByWorker,
    Directly(ExecutorId),
    /// Not yet: the run is told when to try again.
    NotYet,
}

/// What became of routes, over all processes.
#[derive(Debug, Default, Clone, Copy)]
pub struct Routes {
    pub granted: u64,
    pub refused: u64,
    /// Calls that answered straight.
    pub answered: u64,
    pub promised: u64,
    /// Their values came by the worker.
    pub made: u64,
    /// They were lost with their actor.
    pub lost: u64,
}

impl Routes {
    pub fn add(&mut self, more: &Self) {
        self.granted += more.granted;
        self.refused += more.refused;
        self.answered += more.answered;
        self.promised += more.promised;
        self.made += more.made;
        self.lost += more.lost;
    }
}

impl Simulation {
    fn route_of(&mut self, at: At, actor: ActorId) -> Option<&mut Route> {
        Some(self.process(at.worker, at.executor)?.routes.entry(actor).or_default())
    }

    /// By which way a call goes, which keeps its place among the calls of this process.
    pub(super) fn way(
        &mut self,
        at: At,
        (actor, rules): (ActorId, CallRules),
        object: ObjectId,
        fits: bool,
    ) -> Goes {
        if !self.mix_of(object.task.job()).routes || rules != CallRules::default() {
            return Goes::ByWorker;
        }
        let asks = fits && self.rng.one_in(3);
        let Some(process) = self.process(at.worker, at.executor) else { return Goes::NotYet };
        let goes_directly = fits && process.is_new(object);
        let Some(route) = self.route_of(at, actor) else { return Goes::NotYet };
        match &mut route.way {
            Way::ByWorker if !asks => return Goes::ByWorker,
            Way::ByWorker => {
                route.way = Way::Asked(vec![at.run]);
                let event = LocalEvent::RouteWanted { by: at.executor, actor };
                self.say(at.worker, at.executor, event, Vec::new());
                return Goes::NotYet;
            }
            Way::Asked(waiting) => {
                waiting.push(at.run);
                return Goes::NotYet;
            }
            Way::Direct(host) if goes_directly => return Goes::Directly(*host),
            Way::Direct(host) => route.way = Way::Leaving(*host),
            Way::Leaving(_) => {}
        }
        let Way::Leaving(host) = route.way else { return Goes::NotYet };
        if !self.is_taken(at, host) {
            self.step_soon(at, SOON);
            return Goes::NotYet;
        }
        if let Some(route) = self.route_of(at, actor) {
            route.way = Way::ByWorker;
        }
        Goes::ByWorker
    }

    /// Whether the calls of a run's process are taken, so that it may end; else it tries again.
    pub(super) fn calls_are_taken(&mut self, at: At) -> bool {
        let Some(process) = self.process(at.worker, at.executor) else { return true };
        let mut hosts: Vec<ExecutorId> = Vec::new();
        let calls = process.direct.calls.values();
        hosts.extend(calls.filter(|call| matches!(call.via, Via::Route(_))).map(|call| call.host));
        let taken = hosts.into_iter().all(|host| self.is_taken(at, host));
        if !taken {
            self.step_soon(at, SOON);
        }
        taken
    }

    /// The worker's answer: the actor's process, and the fence there.
    pub(super) fn route_answered(
        &mut self,
        worker: WorkerId,
        executor: ExecutorId,
        actor: ActorId,
        granted: Option<(ExecutorId, u64)>,
    ) {
        if let Some((host, fence)) = granted {
            self.transmit(worker, (executor, host), Frame::After(fence));
        }
        match granted {
            Some(_) => self.routed.granted += 1,
            None => self.routed.refused += 1,
        }
        let Some(route) = self.route_of(At { worker, executor, run: 0 }, actor) else { return };
        let Way::Asked(waiting) = std::mem::take(&mut route.way) else {
            panic!("{executor} of {worker} has not asked for a route to {actor}");
        };
        if let Some((host, _)) = granted {
            (route.way, route.host) = (Way::Direct(host), Some(host));
        }
        for run in waiting {
            self.step_soon(At { worker, executor, run }, 0);
        }
    }

    /// A life of the actor has ended: what it has answered counts.
    pub(super) fn route_ended(
        &mut self,
        worker: WorkerId,
        executor: ExecutorId,
        actor: ActorId,
        death: &Death,
    ) {
        let at = At { worker, executor, run: 0 };
        let Some(host) = self.route_of(at, actor).and_then(|route| route.host.take()) else {
            return;
        };
        self.read_ring(worker, (host, executor));
        if let Some(route) = self.route_of(at, actor)
            && !matches!(route.way, Way::Asked(_))
        {
            route.way = Way::ByWorker;
        }
        let lost = self.take_calls(worker, executor, |call| call.via == Via::Route(actor));
        for (token, call) in lost {
            self.routed.lost += 1;
            self.lost((worker, executor), token, call, death);
        }
    }

    /// A call comes from another process, or from this one. An actor that is not here has ended, of
    /// which the worker tells the caller.
    pub(super) fn call_arrived(
        &mut self,
        worker: WorkerId,
        (caller, host): (ExecutorId, ExecutorId),
        token: u64,
        spec: Arc<TaskSpec>,
    ) {
        let TaskKind::ActorCall { actor, .. } = spec.kind else { panic!("{spec:?} is no call") };
        let process = self.process(worker, host);
        if process.is_some_and(|process| process.actors.contains_key(&actor)) {
            self.run_task((worker, host), spec, 0, Given::Called { caller, token });
        }
    }

    /// A direct call has ended.
    pub(super) fn reply(&mut self, at: At, (caller, token): (ExecutorId, u64), value: u64) {
        let Some(run) = self.running(at) else { return };
        let object = run.spec.id.object(0);
        if run.is_inline() {
            return self.transmit(at.worker, (at.executor, caller), Frame::Ran { token, value });
        }
        let executor = at.executor;
        let made = Returned { size: 1 << 20, inline: false, contains: Vec::new() };
        let event = LocalEvent::Made { executor, caller, object, value: made };
        let stored = Stored { value, inline: false, contains: Vec::new() };
        self.say(at.worker, executor, event, vec![(object, stored)]);
    }

    /// A call ends, or will never start: its actor has ended.
    pub(super) fn cut_off(&mut self, at: At) {
        let Some(run) = self.running(at) else { return };
        let (task, attempt, given) = (run.spec.id, run.attempt, run.given);
        self.forget_run(at);
        match given {
            Given::Called { caller, token } => {
                let error = TaskError { task, cause: Cause::ActorDied(Death::Ended) };
                let frame = Frame::Failed { token, error };
                self.transmit(at.worker, (at.executor, caller), frame);
            }
            _ => self.say_cancelled(at.worker, at.executor, task, attempt),
        }
    }
}

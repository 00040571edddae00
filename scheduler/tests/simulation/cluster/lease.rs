//! The worker's part in leases and routes: rings and fences between executors, as in the runtime
//! (`worker::dispatch::links`), and whom a task that leaves its lease is told to.

use std::collections::BTreeSet;

use rdist_scheduler::id::{ActorId, ExecutorId, TaskId, WorkerId};
use rdist_scheduler::local::{LEASED_ATTEMPT, LocalEvent};
use rdist_scheduler::outcome::Death;
use rdist_scheduler::time::Timestamp;

use super::{Simulation, Worker};
use crate::executor::Command;

/// Which executors of a worker share rings.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// Caller and callee.
    pairs: BTreeSet<(ExecutorId, ExecutorId)>,
    last_fence: u64,
    /// Tasks that the core knows by a promise alone, and who has promised them.
    promised: BTreeSet<(ExecutorId, TaskId)>,
    /// Tasks that have left their lease for nothing, since the core has, or had, their like.
    strays: BTreeSet<(ExecutorId, TaskId)>,
}

impl Worker {
    fn knows(&self, task: TaskId) -> bool {
        let mut tasks = self.core.tasks();
        tasks.any(|view| view.task == task && view.owner == self.id)
    }
}

impl Simulation {
    /// Answers a process that wants to give tasks to `granted`, the host, itself.
    pub(super) fn lease(
        &mut self,
        worker: WorkerId,
        caller: ExecutorId,
        granted: Option<(ExecutorId, u64)>,
    ) {
        let Some((host, number)) = granted else {
            return self.order(worker, caller, Command::Lease(None));
        };
        // Now and then there is no memory for rings.
        let fails = self.rng.one_in(30);
        let Some(at) = self.workers.get_mut(&worker) else { return };
        let room = at.room_of(None);
        let job = at.processes.get(&caller).map(|process| process.job);
        at.usage.lease(&room, number, host, job);
        if fails {
            self.order(worker, caller, Command::Lease(None));
            let (executor, running) = (host, None);
            let event = LocalEvent::LeaseOver { executor, caller, number, running };
            return self.lease_over(worker, event);
        }
        let Some(fence) = self.set_fence(worker, (caller, host)) else { return };
        self.order(worker, caller, Command::Lease(Some((host, fence, number))));
    }

    /// Answers a process that wants to call an actor, in `callee`, directly.
    pub(super) fn route(
        &mut self,
        worker: WorkerId,
        caller: ExecutorId,
        actor: ActorId,
        callee: Option<ExecutorId>,
    ) {
        let fails = self.rng.one_in(30);
        // What waits for an argument from disk comes before what the process gives itself.
        let delays = self.workers.get(&worker).is_some_and(|at| at.disk.delays(actor));
        let callee = callee.filter(|_| !fails && !delays);
        let granted =
            callee.and_then(|callee| Some((callee, self.set_fence(worker, (caller, callee))?)));
        self.order(worker, caller, Command::Route(actor, granted));
    }

    /// Sets a fence for what a process gives to another one.
    fn set_fence(
        &mut self,
        worker: WorkerId,
        (caller, callee): (ExecutorId, ExecutorId),
    ) -> Option<u64> {
        let links = &mut self.workers.get_mut(&worker)?.links;
        links.pairs.insert((caller, callee));
        links.last_fence += 1;
        let fence = links.last_fence;
        self.order(worker, callee, Command::Fence(fence, caller));
        Some(fence)
    }

    /// A host gives a lease back. The caller is told of the task that has left it.
    pub(super) fn lease_over(&mut self, worker: WorkerId, event: LocalEvent) {
        self.trace(|| format!("{worker} <- {event:?}"));
        let LocalEvent::LeaseOver { executor, caller, number, running } = event.clone() else {
            return;
        };
        let Some(at) = self.workers.get_mut(&worker) else { return };
        let left = running.as_ref().map(|spec| spec.id);
        let was_known = left.is_some_and(|task| at.knows(task));
        let was_promised = left.is_some_and(|task| at.links.promised.remove(&(caller, task)));
        at.core.handle(Timestamp(self.now), event);
        let is_known = left.is_some_and(|task| at.knows(task));
        match running {
            Some(spec) if is_known && (was_promised || !was_known) => {
                at.usage.leaves_lease(number, (executor, spec.id), &spec);
            }
            _ => drop(at.usage.lease_over(number)),
        }
        if let Some(task) = left {
            let is_there = at.core.objects().any(|view| view.object == task.object(0));
            if was_known && !was_promised || !is_known {
                at.links.strays.insert((executor, task));
            }
            // Who is dead, or of a job that has ended, may have been asking in vain.
            let is_asking = at.processes.get(&caller).is_some_and(|process| !process.leaving);
            let is_of_use = is_asking && at.processes.contains_key(&executor);
            assert!(is_known || is_there || !is_of_use, "{task:?} leaves its lease for nothing");
        }
        self.do_actions(worker);
        if let Some(task) = left {
            self.order(worker, caller, Command::Made(task.object(0)));
        }
    }

    /// What an executor says of a task that the core promises, or knows nothing of. True: the
    /// latter, so that the task holds nothing.
    pub(super) fn notes_of_leases(
        &mut self,
        worker: WorkerId,
        executor: ExecutorId,
        message: &LocalEvent,
    ) -> bool {
        let Some(at) = self.workers.get_mut(&worker) else { return false };
        match message {
            LocalEvent::Promised { by, spec, lost: None } if !at.knows(spec.id) => {
                at.links.promised.insert((*by, spec.id));
            }
            LocalEvent::Submitted { by, spec } => drop(at.links.promised.remove(&(*by, spec.id))),
            LocalEvent::Answered { by, task, .. } => {
                at.links.promised.remove(&(*by, *task));
            }
            LocalEvent::Finished { task, attempt: LEASED_ATTEMPT, .. } => {
                return at.links.strays.remove(&(executor, *task));
            }
            LocalEvent::Blocked { task, attempt: LEASED_ATTEMPT, .. }
            | LocalEvent::Unblocked { task, attempt: LEASED_ATTEMPT, .. } => {
                return at.links.strays.contains(&(executor, *task));
            }
            _ => {}
        }
        false
    }

    /// An executor has ended: those that share rings with it read them to the end.
    pub(super) fn end_links(&mut self, worker: WorkerId, ended: ExecutorId, death: &Death) {
        let Some(at) = self.workers.get_mut(&worker) else { return };
        let pairs = std::mem::take(&mut at.links.pairs);
        let is_meant = |(a, b): &(ExecutorId, ExecutorId)| *a == ended || *b == ended;
        let (with, others): (Vec<_>, Vec<_>) = pairs.into_iter().partition(is_meant);
        at.links.pairs.extend(others);
        for (caller, callee) in with {
            let other = if caller == ended { callee } else { caller };
            self.order(worker, other, Command::LinkEnded(ended, death.clone()));
        }
    }
}

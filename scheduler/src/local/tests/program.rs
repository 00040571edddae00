//! What programs do at random: submit, put, wait, retain, release, return, cancel, kill.

use core::time::Duration;
use std::sync::Arc;

use super::{Faults, Stored, World};
use crate::id::{ActorId, ExecutorId, ObjectId, TaskId, WorkerId};
use crate::local::LocalEvent;
use crate::local::tests::bench::killed;
use crate::message::CancelMode;
use crate::outcome::{Cause, Outcome, Returned, TaskError};
use crate::resource::Resources;
use crate::spec::{
    ActorOptions, Backoff, CallRules, Policy, Reference, Strategy, TaskKind, TaskSpec,
};

impl World {
    pub(super) fn step_worker(&mut self, worker: WorkerId) {
        if let Some((object, from)) = self.worker(worker).pulls.pop_front() {
            let value = self.workers.get(&from).and_then(|other| other.table.get(&object)).cloned();
            return match value {
                Some(value) => {
                    self.worker(worker).table.insert(object, value);
                    self.handle(worker, LocalEvent::Pulled { object, size: 1 << 20 });
                }
                None => {
                    let core = &self.worker(worker).core;
                    let is_held = core.objects().any(|v| v.object == object && v.holders > 0);
                    let is_fault = self.faults != Faults::None;
                    assert!(is_fault || !is_held, "no copy of {object:?} at {from}");
                    self.handle(worker, LocalEvent::PullFailed { object, from });
                }
            };
        }
        let processes: Vec<ExecutorId> = self.worker(worker).processes.keys().copied().collect();
        let Some(executor) = self.pick(&processes) else { return };
        let process = self.process(worker, executor);
        if !process.up {
            process.up = true;
            return self.handle(worker, LocalEvent::ExecutorStarted { executor });
        }
        let is_driver = process.running.iter().any(|r| matches!(r.spec.kind, TaskKind::Driver));
        if self.faults == Faults::Executors && !self.ending && !is_driver && self.chance(60) {
            self.worker(worker).processes.remove(&executor);
            return self.handle(worker, LocalEvent::ExecutorDied { executor, death: killed() });
        }
        if !self.ending && self.chance(50) {
            self.give_up(worker, executor);
        }
        let Some(process) = self.worker(worker).processes.get(&executor) else { return };
        let count = process.running.len();
        if count > 0 {
            let which = self.below(count);
            self.step_task(worker, executor, which);
        }
        if count == 0 || self.chance(4) {
            let refs: Vec<Reference> =
                self.process(worker, executor).refs.iter().copied().collect();
            if let Some(reference) = self.pick(&refs) {
                self.let_go(worker, executor, reference);
            }
        }
    }

    /// A program cancels a task, or kills an actor.
    fn give_up(&mut self, worker: WorkerId, executor: ExecutorId) {
        let actors = self.actors.clone();
        if self.chance(3)
            && let Some((actor, owner)) = self.pick(&actors)
        {
            return self.handle(worker, LocalEvent::ActorKillRequested { actor, owner });
        }
        let refs: Vec<Reference> = self.process(worker, executor).refs.iter().copied().collect();
        if let Some(reference) = self.pick(&refs) {
            let force = self.faults != Faults::None && self.chance(4);
            let mode = CancelMode { force, children: self.chance(2) };
            let Reference { object: ObjectId { task, .. }, owner } = reference;
            self.handle(worker, LocalEvent::CancelRequested { task, owner, mode });
        }
    }

    fn let_go(&mut self, worker: WorkerId, executor: ExecutorId, reference: Reference) {
        let object = reference.object;
        let process = self.process(worker, executor);
        let is_used = process.running.iter().any(|r| r.waits_for == Some(object));
        if !is_used {
            process.refs.retain(|other| other.object != object);
            process.views.remove(&object);
            self.handle(worker, LocalEvent::Released { by: executor, object });
        }
    }

    /// One step of a program.
    fn step_task(&mut self, worker: WorkerId, executor: ExecutorId, which: usize) {
        let running = &self.process(worker, executor).running[which];
        let (spec, waits_for) = (Arc::clone(&running.spec), running.waits_for);
        let attempt = running.attempt;
        if waits_for.is_some() {
            if self.ending {
                // Programs may wait in a circle; that is theirs to give up.
                self.process(worker, executor).running[which].waits_for = None;
                let task = spec.id;
                self.handle(worker, LocalEvent::Unblocked { executor, task, attempt });
            }
            return;
        }
        let depth = spec.body[0];
        let refs: Vec<Reference> = self.process(worker, executor).refs.iter().copied().collect();
        let is_driver = matches!(spec.kind, TaskKind::Driver);
        match self.below(if self.ending { 2 } else { 8 }) {
            0 | 1 if is_driver => {}
            0 | 1 => self.finish(worker, executor, which, &refs),
            2 | 3 if depth < 3 => self.submit(worker, executor, which, &refs),
            4 => self.put(worker, executor, which, &refs),
            5 => {
                // A reference out of an argument, or out of a value that is an argument.
                let mut inside = spec.dependencies.clone();
                inside.extend(&spec.borrowed);
                let views = self.process(worker, executor).views.clone();
                let values = spec.dependencies.iter().map(|r| r.object).chain(views);
                for object in values {
                    let value = self.worker(worker).table.get(&object);
                    inside.extend(value.into_iter().flat_map(|value| value.contains.clone()));
                }
                if let Some(reference) = self.pick(&inside) {
                    self.process(worker, executor).refs.insert(reference);
                    self.handle(worker, LocalEvent::Retained { by: executor, reference });
                }
            }
            _ => {
                if let Some(reference) = self.pick(&refs) {
                    let task = spec.id;
                    let running = &mut self.process(worker, executor).running[which];
                    running.waits_for = Some(reference.object);
                    self.handle(worker, LocalEvent::Blocked { executor, task, attempt });
                    self.handle(worker, LocalEvent::Wanted { by: executor, reference });
                }
            }
        }
    }

    fn some_refs(&mut self, refs: &[Reference]) -> Vec<Reference> {
        let count = [0, 0, 1, 2][self.below(4)];
        (0..count).filter_map(|_| self.pick(refs)).collect()
    }

    fn some_older(&mut self, refs: &[Reference], than: ObjectId) -> Vec<Reference> {
        let age = self.age(than);
        let mut some = self.some_refs(refs);
        some.retain(|reference| self.age(reference.object) < age);
        some
    }

    fn age(&mut self, object: ObjectId) -> usize {
        let next = self.ages.len();
        *self.ages.entry(object).or_insert(next)
    }

    pub(super) fn spec(&mut self, id: TaskId, kind: TaskKind, refs: Vec<Reference>) -> TaskSpec {
        let is_call = matches!(kind, TaskKind::ActorCall { .. });
        let half = refs.len() / 2;
        let strategy = if self.chance(4) { Strategy::Spread } else { Strategy::Default };
        TaskSpec {
            id,
            parent: id,
            kind,
            function: 0,
            request: Resources::cpus(if is_call { 0.0 } else { [0.5, 1.0, 1.5][self.below(3)] }),
            dependencies: refs[half..].to_vec(),
            borrowed: refs[..half].to_vec(),
            returns: 1,
            max_retries: 20,
            strategy,
            priority: self.below(2) as i32,
            policy: self.chance(6).then(|| Box::new(self.policy())),
            body: vec![0],
        }
    }

    fn policy(&mut self) -> Policy {
        let (first, most) = (Duration::from_millis(2), Duration::from_millis(20));
        Policy {
            timeout: self.chance(3).then_some(Duration::from_millis(200)),
            timeout_retries: 2,
            error_retries: 2,
            backoff: Backoff { first, most },
            ..Policy::DEFAULT
        }
    }

    fn submit(&mut self, w: WorkerId, executor: ExecutorId, which: usize, refs: &[Reference]) {
        let running = &mut self.process(w, executor).running[which];
        running.children += 1;
        let (parent, depth) = (running.spec.id, running.spec.body[0]);
        let id = parent.child(running.children);
        let refs = self.some_refs(refs);
        // The kind follows from the id, and the actors there are at first, so that a parent that
        // runs again repeats it.
        let order = self.calls_of(id);
        let of_job: Vec<_> =
            self.actors.iter().copied().filter(|(actor, _)| actor.0.job() == id.job()).collect();
        let known = self.kinds.get(&id).cloned();
        let kind = known.unwrap_or_else(|| match order % 8 {
            0 => TaskKind::ActorCreate(Box::new(ActorOptions {
                max_restarts: 20,
                own_process: order & 8 == 0,
                ..ActorOptions::default()
            })),
            1..=3 if !of_job.is_empty() => {
                let (actor, actor_owner) = of_job[(order >> 8) as usize % of_job.len()];
                // A property of the actor: the same for all of its calls.
                let out_of_order = self.calls_of(actor.0) & 64 != 0;
                let rules = CallRules { out_of_order, ..CallRules::default() };
                TaskKind::ActorCall { actor, actor_owner, rules }
            }
            _ => TaskKind::Plain,
        });
        self.kinds.insert(id, kind.clone());
        let mut spec = self.spec(id, kind, refs);
        spec.parent = parent;
        spec.body = vec![depth + 1];
        match spec.kind {
            TaskKind::ActorCreate(_) => {
                spec.request = Resources::cpus(0.0);
                if !self.actors.contains(&(ActorId(id), w)) {
                    self.actors.push((ActorId(id), w));
                }
            }
            TaskKind::ActorCall { actor, .. } => {
                let number = self.process(w, executor).calls.entry(actor).or_default();
                *number += 1;
                let who = w.0 << 32 | u64::from(executor.0);
                spec.body.extend(number.to_le_bytes());
                spec.body.extend(who.to_le_bytes());
            }
            _ => {}
        }
        let reference = Reference { object: id.object(0), owner: w };
        self.age(reference.object);
        self.process(w, executor).refs.insert(reference);
        self.handle(w, LocalEvent::Submitted { by: executor, spec: Arc::new(spec) });
    }

    /// A number that follows from the task.
    fn calls_of(&self, id: TaskId) -> u64 {
        use core::hash::{Hash, Hasher};
        let mut hasher = crate::hash::FastHasher::default();
        id.hash(&mut hasher);
        hasher.finish() >> 7
    }

    fn put(&mut self, w: WorkerId, executor: ExecutorId, which: usize, refs: &[Reference]) {
        let running = &mut self.process(w, executor).running[which];
        running.puts += 1;
        let (id, number) = (running.spec.id, running.puts);
        // Which puts are replicated follows from the task: one that runs again repeats it.
        let replicated = (self.calls_of(id) + u64::from(number)).is_multiple_of(4);
        let object = if replicated { id.put_replicated(number) } else { id.put(number) };
        let copies = if replicated { 2 + self.below(3) as u32 } else { 1 };
        let inline = !replicated && self.chance(2);
        let contains = self.some_older(refs, object);
        let value = Stored { contains: contains.clone() };
        self.keep(w, object, value);
        self.process(w, executor).refs.insert(Reference { object, owner: w });
        let put = LocalEvent::Put { by: executor, object, size: 1, inline, copies, contains };
        self.handle(w, put);
    }

    /// A value comes; what the core reads already stays, as in the runtime.
    fn keep(&mut self, worker: WorkerId, object: ObjectId, value: Stored) {
        let worker = self.worker(worker);
        if !worker.core.reads(object) {
            worker.table.insert(object, value);
        }
    }

    fn finish(&mut self, w: WorkerId, executor: ExecutorId, which: usize, refs: &[Reference]) {
        let running = self.process(w, executor).running.swap_remove(which);
        let task = running.spec.id;
        let outcome = if self.chance(20) && !matches!(running.spec.kind, TaskKind::ActorCreate(_)) {
            let cause = Cause::Panicked { message: String::new() };
            let error = TaskError { task, cause };
            if self.chance(2) { Outcome::Retryable(error) } else { Outcome::Failed(error) }
        } else {
            let inline = self.chance(2);
            let contains = self.some_older(refs, task.object(0));
            let value = Stored { contains: contains.clone() };
            self.keep(w, task.object(0), value);
            Outcome::Returned(vec![Returned { size: 1 << 20, inline, contains }])
        };
        let attempt = running.attempt;
        self.handle(w, LocalEvent::Finished { executor, task, attempt, outcome });
    }
}

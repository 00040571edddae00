//! Resources are given out: tasks start, block and go on.

use std::sync::Arc;

use super::{LocalAction, LocalCore};
use crate::actor::Hosted;
use crate::group::Slot;
use crate::id::{ActorId, ExecutorId, JobId, TaskId};
use crate::resource::Resources;
use crate::spec::{TaskKind, TaskSpec};
use crate::task::{Ready, TaskEntry, TaskKey, TaskState};

/// The part of a request that a task gives back while it waits for objects.
fn cpus_of(request: &Resources) -> Resources {
    let mut cpus = Resources::NONE;
    cpus.cpu = request.cpu;
    cpus
}

/// Whether the head may have the task moved elsewhere.
pub(super) fn is_movable(entry: &TaskEntry, me: crate::id::WorkerId) -> bool {
    entry.owner == me
        && !entry.assigned
        && matches!(entry.spec.kind, TaskKind::Plain)
        && matches!(entry.spec.strategy, crate::spec::Strategy::Default)
}

impl LocalCore {
    pub(super) fn enqueue(&mut self, key: TaskKey) {
        let stamp = self.tasks.restamp(key);
        let entry = &mut self.tasks[key];
        let movable = is_movable(entry, self.me);
        let ready = Ready { key, stamp };
        let (request, priority) = (&entry.spec.request, entry.spec.priority);
        let job = entry.spec.id.job();
        let shape = match self.bundles.get_mut(entry.bundle) {
            None => self.queue.push(job, request, priority, movable, ready),
            Some(bundle) => bundle.queue.push(job, request, priority, movable, ready),
        };
        entry.state = TaskState::Ready { shape };
        let slot = entry.bundle;
        self.bundles.set_due(slot);
        self.dispatch_due = true;
        self.head.load_changed = true;
    }

    /// Starts whatever fits.
    pub(super) fn dispatch(&mut self) {
        loop {
            let tasks = &self.tasks;
            let is_current = |ready: Ready| tasks.current(ready.key, ready.stamp).is_some();
            let (shares, total) = (&self.shares, &self.ledger.total);
            let share = |job| shares.of(job, total);
            let Some(ready) = self.queue.pick(&self.ledger, share, is_current) else { break };
            self.leave_queue(ready.key);
            self.start(ready.key);
        }
        self.run_ahead();
        self.recall_leases();
        while let Some(slot) = self.bundles.next_due() {
            self.dispatch_bundle(slot);
        }
    }

    /// Starts whatever fits into a bundle.
    fn dispatch_bundle(&mut self, slot: Slot) {
        loop {
            let tasks = &self.tasks;
            let is_current = |ready: Ready| tasks.current(ready.key, ready.stamp).is_some();
            let Some(bundle) = self.bundles.get_mut(slot) else { return };
            let next = bundle.queue.pick(&bundle.ledger, |_| (0, 0), is_current);
            let Some(ready) = next else { return };
            self.leave_queue(ready.key);
            self.start(ready.key);
        }
    }

    pub(super) fn leave_queue(&mut self, key: TaskKey) {
        let entry = &self.tasks[key];
        if let TaskState::Ready { shape } = entry.state {
            let movable = is_movable(entry, self.me);
            match self.bundles.get_mut(entry.bundle) {
                None => self.queue.left(shape, movable),
                Some(bundle) => bundle.queue.left(shape, movable),
            }
            self.head.load_changed = true;
        }
    }

    /// Takes a task's resources and runs it, as soon as there is an executor.
    pub(super) fn start(&mut self, key: TaskKey) {
        if self.tasks.has_rival(key) {
            self.tasks.restamp(key);
            self.tasks[key].state = TaskState::Waiting { here: true };
            return self.tasks.wait_for_rival(key);
        }
        let entry = &self.tasks[key];
        let (spec, slot) = (Arc::clone(&entry.spec), entry.bundle);
        if matches!(spec.kind, TaskKind::Bundle { .. }) {
            return self.reserve_assigned(key);
        }
        self.take_from(slot, spec.id.job(), &spec.request);
        self.shares.serve(spec.id.job());
        if matches!(spec.kind, TaskKind::Plain) {
            self.ledger_of(slot).pass(&spec.request);
        }
        self.head.load_changed = true;
        let executor = self.executor_for(&spec);
        if self.executors.get(&executor).is_some_and(|process| process.is_up()) {
            self.run(key, executor);
            return;
        }
        let stamp = self.tasks.restamp(key);
        self.tasks[key].state = TaskState::Starting { executor };
        if let Some(process) = self.executors.get_mut(&executor) {
            process.waiting.push((key, stamp));
        }
    }

    pub(super) fn run(&mut self, key: TaskKey, executor: ExecutorId) {
        if !self.executors.contains_key(&executor) {
            return;
        }
        self.list_running(key, executor);
        let entry = &self.tasks[key];
        let (spec, attempt, owner) = (Arc::clone(&entry.spec), entry.attempt, entry.owner);
        if self.tasks[key].takes_turns() {
            self.opens_lane(executor);
        } else if spec.policy.is_some() {
            self.limit_time(key);
        }
        if matches!(spec.kind, TaskKind::ActorCreate(_)) {
            self.restore(&spec, owner, executor);
        }
        self.act(LocalAction::Run { executor, spec, attempt });
    }

    /// From now on the task runs in `executor`.
    pub(super) fn list_running(&mut self, key: TaskKey, executor: ExecutorId) {
        let Some(process) = self.executors.get_mut(&executor) else { return };
        let slot = process.running.len() as u32;
        process.running.push(key);
        let since = self.now;
        let entry = &mut self.tasks[key];
        let attempt = entry.attempt;
        entry.state = TaskState::Running { executor, attempt, slot, since, blocked: false };
    }

    /// Gives back what a `Starting` or `Running` task that is no call holds.
    pub(super) fn give_back(&mut self, key: TaskKey) {
        let entry = &self.tasks[key];
        let blocked = matches!(entry.state, TaskState::Running { blocked: true, .. });
        let (spec, slot) = (Arc::clone(&entry.spec), entry.bundle);
        if blocked {
            self.take_from(slot, spec.id.job(), &cpus_of(&spec.request));
        } else if matches!(spec.kind, TaskKind::Plain) {
            self.ledger_of(slot).unpass(&spec.request);
        }
        self.give_to(slot, spec.id.job(), &spec.request);
    }

    /// Something in a bundle, or in none, lets go of what it held.
    pub(super) fn give_to(&mut self, slot: Slot, job: JobId, request: &Resources) {
        self.ledger_of(slot).give(request);
        self.dispatch_due = true;
        if slot.is_some() {
            return self.bundles.set_due(slot);
        }
        self.shares.give(job, request);
        self.head.load_changed = true;
    }

    /// Something in a bundle, or in none, takes what it holds. A bundle's job has all of it
    /// already.
    pub(super) fn take_from(&mut self, slot: Slot, job: JobId, request: &Resources) {
        self.ledger_of(slot).take(request);
        if !slot.is_some() {
            self.shares.take(job, request);
        }
    }

    /// Takes a task off its executor, and what it holds with it. A call holds nothing itself.
    pub(super) fn stop_running(&mut self, key: TaskKey) {
        self.stop_timer(key);
        if let TaskState::Running { executor, slot, blocked, since, .. } = self.tasks[key].state {
            let mut has_ended = false;
            if let Some(process) = self.executors.get_mut(&executor) {
                has_ended = true;
                process.running.swap_remove(slot as usize);
                if let Some(&moved) = process.running.get(slot as usize)
                    && let TaskState::Running { slot: place, .. } = &mut self.tasks[moved].state
                {
                    *place = slot;
                }
                if process.role == super::ExecutorRole::Alone {
                    self.idle_alone(executor);
                }
            }
            if let TaskKind::ActorCall { actor, .. } = self.tasks[key].spec.kind {
                if blocked {
                    self.call_goes_on(actor);
                }
                return;
            }
            let entry = &self.tasks[key];
            if entry.is_promised() {
                return; // what holds its CPU is the lease
            }
            if entry.takes_turns() {
                let (task, function) = (entry.spec.id, entry.spec.function);
                // A run that was cut off says nothing about others.
                if has_ended {
                    self.learn_pace(task, function, since);
                }
                if !blocked && self.turn(executor) {
                    return;
                }
            }
        }
        self.give_back(key);
    }

    pub(super) fn blocked(&mut self, executor: ExecutorId, of: (TaskId, u32)) {
        let Some((key, actor)) = self.set_blocked(executor, of, true) else { return };
        match actor {
            Some(actor) => self.call_blocks(actor),
            None => {
                self.report_blocked(key, true);
                let (spec, slot) = (Arc::clone(&self.tasks[key].spec), self.tasks[key].bundle);
                if self.tasks[key].takes_turns() && self.turn(executor) {
                    return;
                }
                if matches!(spec.kind, TaskKind::Plain) {
                    self.ledger_of(slot).unpass(&spec.request);
                }
                self.give_to(slot, spec.id.job(), &cpus_of(&spec.request));
            }
        }
    }

    pub(super) fn unblocked(&mut self, executor: ExecutorId, of: (TaskId, u32)) {
        let Some((key, actor)) = self.set_blocked(executor, of, false) else { return };
        match actor {
            Some(actor) => self.call_goes_on(actor),
            None => {
                self.report_blocked(key, false);
                let (spec, slot) = (Arc::clone(&self.tasks[key].spec), self.tasks[key].bundle);
                self.take_from(slot, spec.id.job(), &cpus_of(&spec.request));
                if matches!(spec.kind, TaskKind::Plain) {
                    self.ledger_of(slot).pass(&spec.request);
                }
                if self.tasks[key].takes_turns() {
                    self.opens_lane(executor);
                }
                self.head.load_changed = true;
            }
        }
    }

    /// Marks a try that runs in `executor`, if that is news; names the actor that it is a call of.
    /// A leased try may run there of which this worker knows nothing, beside one that it knows.
    fn set_blocked(
        &mut self,
        executor: ExecutorId,
        (task, attempt): (TaskId, u32),
        to: bool,
    ) -> Option<(TaskKey, Option<ActorId>)> {
        let key = self.tasks.find_running(task, executor)?;
        let entry = &mut self.tasks[key];
        if entry.is_promised() && !entry.is_call() {
            return None; // it has yet to leave its lease
        }
        match &mut entry.state {
            TaskState::Running { executor: at, attempt: of, blocked, .. }
                if (*at, *of) == (executor, attempt) && *blocked != to =>
            {
                *blocked = to;
            }
            _ => return None,
        }
        match entry.spec.kind {
            TaskKind::ActorCall { actor, .. } => Some((key, Some(actor))),
            _ => Some((key, None)),
        }
    }

    /// While a call of an actor that runs one call at a time is blocked, its CPUs are free.
    fn call_blocks(&mut self, actor: ActorId) {
        let Some(hosted) = self.hosted.get_mut(&actor) else { return };
        hosted.blocked += 1;
        let is_first = hosted.blocked == 1;
        if is_first && self.draining {
            self.advance_mailboxes(actor);
        }
        let Some(hosted) = self.hosted.get(&actor) else { return };
        if is_first && frees_while_blocked(&hosted.spec) {
            let (cpus, slot) = (cpus_of(&hosted.spec.request), hosted.bundle);
            self.give_to(slot, actor.0.job(), &cpus);
            self.report_blocked_actor(actor, true);
        }
    }

    fn call_goes_on(&mut self, actor: ActorId) {
        let Some(hosted) = self.hosted.get_mut(&actor) else { return };
        hosted.blocked = hosted.blocked.saturating_sub(1);
        if hosted.blocked == 0 && frees_while_blocked(&hosted.spec) {
            let (cpus, slot) = (cpus_of(&hosted.spec.request), hosted.bundle);
            self.take_from(slot, actor.0.job(), &cpus);
            self.head.load_changed = true;
            self.report_blocked_actor(actor, false);
        }
    }

    /// Gives back what an actor held for its life.
    pub(super) fn give_back_life(&mut self, hosted: &Hosted) {
        if hosted.blocked > 0 && frees_while_blocked(&hosted.spec) {
            let cpus = cpus_of(&hosted.spec.request);
            self.take_from(hosted.bundle, hosted.spec.id.job(), &cpus);
        }
        self.give_to(hosted.bundle, hosted.spec.id.job(), &hosted.spec.request);
        self.left_bundle(hosted.bundle);
    }

    /// What a task or an actor holds at this moment, for the ledger's invariant.
    pub(super) fn held_by(spec: &TaskSpec, blocked: bool) -> Resources {
        let mut held = spec.request.clone();
        if blocked {
            held.subtract(&cpus_of(&spec.request));
        }
        held
    }
}

pub(super) fn frees_while_blocked(spec: &TaskSpec) -> bool {
    matches!(&spec.kind, TaskKind::ActorCreate(options) if options.max_concurrency <= 1)
}

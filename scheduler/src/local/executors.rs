//! Processes start, die and stop.
//!
//! ```text
//! Starting --1--> Up --3--> Stopping --4--> (gone)
//!    |  ^          +-----------4------------> (gone)
//!    +-2+---------------------2-------------> (gone)
//! ```
//! 1 it is connected; 2 it died before: another one takes its place, until tries run out and what
//! waited for it fails; 3 it was asked to end, and takes nothing new; 4 it died: its references are
//! dropped, its tasks fail or run again, its actors are lost.

use super::ahead::Ahead;
use super::{ExecutorRole, LocalAction, LocalCore};
use crate::hash::{FastMap, IdSet};
use crate::id::{ActorId, ExecutorId, JobId, ObjectId, TaskId};
use crate::object::ObjectSet;
use crate::outcome::{Cause, Death, Outcome, TaskError};
use crate::resource::{HeldGpus, Resources};
use crate::spec::TaskKind;
use crate::task::{TaskKey, TaskState};

/// Processes for one task at a time that a job keeps while they have none.
const IDLE_ALONE: usize = 4;

/// A process that runs user code.
#[derive(Debug)]
pub(super) struct Executor {
    pub(super) job: JobId,
    pub(super) role: ExecutorRole,
    pub(super) phase: Phase,
    /// What it may use.
    pub(super) resources: Resources,
    /// Which GPUs are its own: given back when it is to end, as what it runs gives back amounts,
    /// or when it is dead, where what it runs counts until then.
    pub(super) gpus: HeldGpus,
    /// Objects that it refers to.
    pub(super) holds: ObjectSet,
    /// Tasks that wait for it to start, with their stamps.
    pub(super) waiting: Vec<(TaskKey, u64)>,
    /// Tasks that run in it; each knows its place (TG-3).
    pub(super) running: Vec<TaskKey>,
    /// Tasks that wait in it for their turn.
    pub(super) ahead: Ahead,
    /// Actors that live in it.
    pub(super) actors: IdSet<ActorId>,
    /// What calls of ended actors refer to, which may still run in it: until it says how they
    /// ended, although that counts for nothing.
    pub(super) cut_off: FastMap<(TaskId, u32), Vec<ObjectId>>,
    /// It is killed for the sake of that task's end; what runs beside it is not to blame.
    pub(super) killed_for: Option<TaskId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Starting { tries: u32 },
    Up,
    Stopping,
}

impl Executor {
    pub(super) fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }
}

impl LocalCore {
    /// Whether what the executor says still counts. That of one which is killed does until it is
    /// dead: what ended in it before that has ended well, with what it had put and submitted.
    pub(super) fn listens(&self, executor: ExecutorId) -> bool {
        let process = self.executors.get(&executor);
        process.is_some_and(|process| process.is_up() || process.killed_for.is_some())
    }

    pub(super) fn start_executor(
        &mut self,
        job: JobId,
        role: ExecutorRole,
        resources: Resources,
        tries: u32,
    ) -> ExecutorId {
        self.last_executor += 1;
        let executor = ExecutorId(self.last_executor);
        // What the job's tasks share is for those that ask for no GPU.
        let gpus = match role {
            ExecutorRole::Pool => HeldGpus::new(),
            _ => self.gpus.take(resources.gpu),
        };
        let seen = gpus.iter().map(|(gpu, _)| *gpu).collect();
        let process = Executor {
            job,
            role,
            phase: Phase::Starting { tries },
            resources: resources.clone(),
            gpus,
            holds: ObjectSet::default(),
            waiting: Vec::new(),
            running: Vec::new(),
            ahead: Ahead::default(),
            actors: IdSet::default(),
            cut_off: FastMap::default(),
            killed_for: None,
        };
        self.executors.insert(executor, process);
        self.act(LocalAction::StartExecutor { executor, job, role, resources, gpus: seen });
        executor
    }

    pub(super) fn executor_started(&mut self, executor: ExecutorId) {
        let Some(process) = self.executors.get_mut(&executor) else { return };
        if !matches!(process.phase, Phase::Starting { .. }) {
            return;
        }
        process.phase = Phase::Up;
        let waiting = core::mem::take(&mut process.waiting);
        let role = process.role;
        let mut ran = false;
        for (key, stamp) in waiting {
            if self.tasks.current(key, stamp).is_some() {
                self.run(key, executor);
                ran = true;
            }
        }
        if !ran && role != ExecutorRole::Pool {
            self.stop_executor(executor, false);
        }
    }

    /// The process that a job's tasks share.
    pub(super) fn pool_of(&mut self, job: JobId) -> ExecutorId {
        if let Some(&executor) = self.pools.get(&job) {
            return executor;
        }
        let executor = self.start_executor(job, ExecutorRole::Pool, self.config.total.clone(), 0);
        self.pools.insert(job, executor);
        executor
    }

    /// Tasks of a job come soon: its driver starts here.
    pub(super) fn pool_expected(&mut self, job: JobId) {
        let is_driver =
            |process: &Executor| process.job == job && process.role == ExecutorRole::Driver;
        if self.executors.values().any(is_driver) && self.ledger.fits(&Resources::cpus(1.0)) {
            self.pool_of(job);
        }
    }

    /// A process without work that may use as much memory as the request says; else a new one.
    pub(super) fn executor_alone(&mut self, job: JobId, request: &Resources) -> ExecutorId {
        let idle = self.idle.get_mut(&job).and_then(|idle| {
            let executors = &self.executors;
            let fits = |executor: &ExecutorId| {
                executors.get(executor).is_some_and(|process| process.resources == *request)
            };
            idle.iter().position(fits).map(|at| idle.remove(at))
        });
        match idle {
            Some(executor) => executor,
            None => self.start_executor(job, ExecutorRole::Alone, request.clone(), 0),
        }
    }

    /// A process that runs one task at a time has none: it is kept for the next, or ends. One with
    /// GPUs ends: it would keep memory there that others are to have.
    pub(super) fn idle_alone(&mut self, executor: ExecutorId) {
        let Some(process) = self.executors.get(&executor) else { return };
        if !process.is_up() || !process.running.is_empty() || process.killed_for.is_some() {
            return;
        }
        if !process.gpus.is_empty() {
            return self.stop_executor(executor, false);
        }
        let idle = self.idle.entry(process.job).or_default();
        idle.push(executor);
        if idle.len() > IDLE_ALONE {
            let oldest = idle.remove(0);
            self.stop_executor(oldest, false);
        }
    }

    fn not_idle(&mut self, job: JobId, executor: ExecutorId) {
        if let Some(idle) = self.idle.get_mut(&job) {
            idle.retain(|other| *other != executor);
            if idle.is_empty() {
                self.idle.remove(&job);
            }
        }
    }

    /// Asks a process to end; what runs in it counts until it has.
    pub(super) fn stop_executor(&mut self, executor: ExecutorId, force: bool) {
        let Some(process) = self.executors.get_mut(&executor) else { return };
        if process.phase == Phase::Stopping && !force {
            return;
        }
        process.phase = Phase::Stopping;
        if process.killed_for.is_none() {
            self.gpus.give(core::mem::take(&mut process.gpus));
        }
        let job = process.job;
        self.not_idle(job, executor);
        if self.pools.get(&job) == Some(&executor) {
            self.pools.remove(&job);
        }
        self.act(LocalAction::StopExecutor { executor, force });
        if !force {
            self.stopping.push_back((self.now + self.config.stop_grace, executor));
        }
    }

    pub(super) fn executor_died(&mut self, executor: ExecutorId, death: Death) {
        let Some(mut process) = self.executors.remove(&executor) else { return };
        self.gpus.give(core::mem::take(&mut process.gpus));
        self.not_idle(process.job, executor);
        if process.role != ExecutorRole::Pool {
            self.end_groups_of(executor);
        }
        if self.pools.get(&process.job) == Some(&executor) {
            self.pools.remove(&process.job);
        }
        self.head.forget_executor(executor);
        let death = match process.killed_for {
            Some(task) if matches!(death, Death::Killed { .. } | Death::Ended) => {
                Death::Beside { task }
            }
            _ => death,
        };
        if let Phase::Starting { tries } = process.phase {
            self.did_not_start(process, tries + 1, death);
            return;
        }
        let mut holds: Vec<ObjectId> = process.holds.iter().collect();
        holds.extend(process.cut_off.drain().flat_map(|(_, held)| held));
        holds.sort_unstable();
        let mut actors: Vec<ActorId> = process.actors.drain().collect();
        actors.sort_unstable();
        for actor in actors {
            self.hosted_lost(actor, &death);
        }
        self.caller_died(executor, &death);
        self.host_died(executor);
        // Notes of tasks that never got to run there.
        for (key, stamp) in process.waiting {
            if self.tasks.current(key, stamp).is_some() {
                self.give_back(key);
                self.died_with(key, &death);
            }
        }
        let mut running = process.running;
        running.sort_unstable_by_key(|key| self.tasks[*key].order);
        let is_driver = process.role == ExecutorRole::Driver && !running.is_empty();
        for key in running {
            if !matches!(self.tasks[key].state, TaskState::Running { executor: at, .. }
                if at == executor)
            {
                continue;
            }
            self.stop_running(key);
            self.died_with(key, &death);
        }
        self.queue_again(process.ahead.tasks);
        self.lessee_died(executor);
        for object in holds {
            self.let_go(object);
        }
        if is_driver {
            self.driver_lost(process.job);
        }
    }

    /// A task's executor died under it.
    pub(super) fn died_with(&mut self, key: TaskKey, death: &Death) {
        let entry = &self.tasks[key];
        let task = entry.spec.id;
        let cause = match entry.spec.kind {
            _ if entry.cancelled => Cause::Cancelled,
            _ if entry.has_timed_out() => self.timed_out(key),
            TaskKind::ActorCall { actor, .. } => {
                let job = actor.0.job();
                // Ended in order, with a call that the end of its own job did not take along.
                let is_visitor = *death == Death::Ended && task.job() != job;
                let death = if is_visitor { Death::JobEnded { job } } else { death.clone() };
                Cause::ActorDied(death)
            }
            _ => Cause::ExecutorDied(death.clone()),
        };
        self.conclude(key, Outcome::Failed(TaskError { task, cause }));
    }

    /// A process died before it was connected: it is tried again, or what waited for it fails.
    fn did_not_start(&mut self, process: Executor, tries: u32, death: Death) {
        let waiting: Vec<(TaskKey, u64)> = process
            .waiting
            .into_iter()
            .filter(|(key, stamp)| self.tasks.current(*key, *stamp).is_some())
            .collect();
        if waiting.is_empty() {
            return;
        }
        if tries < self.config.start_tries {
            let again = self.start_executor(process.job, process.role, process.resources, tries);
            if process.role == ExecutorRole::Pool {
                self.pools.insert(process.job, again);
            }
            for (key, _) in &waiting {
                self.tasks[*key].state = TaskState::Starting { executor: again };
            }
            if let Some(process) = self.executors.get_mut(&again) {
                process.waiting = waiting;
            }
            return;
        }
        let death = match death {
            Death::NotStarted { .. } => death,
            other => Death::NotStarted { reason: format!("{other}, before it was connected") },
        };
        for (key, _) in waiting {
            self.give_back(key);
            self.died_with(key, &death);
        }
    }
}

//! The core alone, event by event.

mod fairness;
mod groups;
mod jobs;
mod placing;
mod recovery;

use super::*;
use crate::id::{ActorId, JobId, TaskId, WorkerId};
use crate::message::{FromHead, Held, HeldTask, Load, ToHead};
use crate::outcome::Outcome;
use crate::resource::Resources;
use crate::spec::{Assignment, Strategy, TaskKind, TaskSpec};
use crate::time::Timestamp;

const JOB: JobId = JobId(1);

/// A core, what it did, and a clock. Fails on drop if an action was not looked at.
struct Bench {
    core: ClusterCore,
    now: Timestamp,
    actions: Vec<ClusterAction>,
}

impl Bench {
    fn new() -> Self {
        let core = ClusterCore::new(ClusterConfig { seed: 1, ..ClusterConfig::default() });
        Self { core, now: Timestamp(0), actions: Vec::new() }
    }

    /// A core with workers of that many CPUs, numbered from 1, and a running job.
    fn with(cpus: &[f64]) -> Self {
        let mut bench = Self::new();
        for (index, cpu) in cpus.iter().enumerate() {
            bench.join(index as u64 + 1, *cpu);
        }
        bench.event(ClusterEvent::JobSubmitted { job: JOB, driver: driver(0) });
        bench.actions.clear();
        bench
    }

    fn event(&mut self, event: ClusterEvent) {
        self.core.handle(self.now, event);
        self.collect();
    }

    fn collect(&mut self) {
        self.core.check_invariants();
        while let Some(action) = self.core.poll_action() {
            self.actions.push(action);
        }
    }

    fn say(&mut self, from: u64, message: ToHead) {
        self.event(ClusterEvent::FromWorker { from: WorkerId(from), message });
    }

    fn join(&mut self, worker: u64, cpus: f64) {
        self.join_holding(worker, cpus, Held::default());
    }

    fn join_holding(&mut self, worker: u64, cpus: f64, held: Held) {
        let total = Resources::cpus(cpus);
        let worker = WorkerId(worker);
        self.event(ClusterEvent::WorkerJoined { worker, total, labels: Vec::new(), held });
    }

    fn lose(&mut self, worker: u64) {
        let reason = "its machine burnt".to_owned();
        self.event(ClusterEvent::WorkerLost { worker: WorkerId(worker), reason });
    }

    fn spill(&mut self, from: u64, tasks: Vec<Assignment>) {
        self.say(from, ToHead::Spilled(tasks));
    }

    fn load(&mut self, from: u64, available: f64, assignments: u64, backlog: &[(f64, u32)]) {
        let backlog = backlog.iter().map(|(cpu, n)| (Resources::cpus(*cpu), *n)).collect();
        let available = Resources::cpus(available);
        self.say(from, ToHead::Load(Load { available, assignments, backlog }));
    }

    fn wait_for_timeout(&mut self) {
        self.now = self.core.poll_timeout().unwrap();
        self.core.handle_timeout(self.now);
        self.collect();
    }

    /// Takes the (task, attempt, worker) of all `Assigned`.
    fn assigned(&mut self) -> Vec<(TaskId, u32, u64)> {
        let mut found = Vec::new();
        self.actions.retain(|action| match action {
            ClusterAction::Send { to, message: FromHead::Assigned(all) } => {
                found.extend(all.iter().map(|a| (a.spec.id, a.attempt, to.0)));
                false
            }
            _ => true,
        });
        found
    }

    /// Takes the (owner, task, attempt, worker) of all `Placed`.
    fn placed(&mut self) -> Vec<(u64, TaskId, u32, u64)> {
        let mut found = Vec::new();
        self.actions.retain(|action| match action {
            ClusterAction::Send { to, message: FromHead::Placed(all) } => {
                found.extend(all.iter().map(|(task, n, at)| (to.0, *task, *n, at.0)));
                false
            }
            _ => true,
        });
        found
    }

    fn take(&mut self, wanted: &ClusterAction) -> bool {
        let at = self.actions.iter().position(|action| action == wanted);
        at.map(|at| self.actions.remove(at)).is_some()
    }

    fn take_sent(&mut self, to: u64, message: FromHead) -> bool {
        self.take(&ClusterAction::Send { to: WorkerId(to), message })
    }

    fn take_state(&mut self, state: JobState) -> bool {
        self.take(&ClusterAction::JobChanged { job: JOB, state })
    }

    #[track_caller]
    fn nothing_more(&self) {
        assert_eq!(self.actions, []);
    }
}

fn spec(id: TaskId, cpus: f64) -> TaskSpec {
    let request = Resources::cpus(cpus);
    TaskSpec { function: 1, request, ..TaskSpec::plain(id, TaskId::driver(id.job())) }
}

fn driver(max_retries: u32) -> TaskSpec {
    let kind = TaskKind::Driver;
    TaskSpec { kind, max_retries, ..spec(TaskId::driver(JOB), 0.0) }
}

fn id(index: u64) -> TaskId {
    TaskId::driver(JOB).child(index)
}

/// The `index`-th task of the job's driver, spilled by `owner`.
fn task(owner: u64, index: u64, cpus: f64) -> Assignment {
    Assignment::new(spec(id(index), cpus), 0, WorkerId(owner))
}

fn holding(tasks: &[(TaskId, u32, u64)]) -> Held {
    let assigned = tasks.iter().map(|(task, attempt, owner)| HeldTask {
        task: *task,
        attempt: *attempt,
        owner: WorkerId(*owner),
        request: Resources::cpus(if *owner == 0 { 0.0 } else { 1.0 }),
        driver: *owner == 0,
    });
    Held { assigned: assigned.collect(), jobs: vec![JOB], ..Held::default() }
}

fn waiting(task: TaskId, reason: &str) -> FromHead {
    FromHead::Waiting { task, reason: reason.to_owned() }
}

fn returned() -> Outcome {
    Outcome::Returned(Vec::new())
}

fn actor(index: u64) -> ActorId {
    ActorId(id(index))
}

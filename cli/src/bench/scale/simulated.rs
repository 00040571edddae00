//! The head's core with more workers than one machine holds: what it takes for a decision, and in
//! memory. Links, and what goes over them, are not in this.

use std::time::Instant;

use rdist::scheduler::cluster::{ClusterAction, ClusterConfig, ClusterCore, ClusterEvent};
use rdist::scheduler::id::{JobId, TaskId, WorkerId};
use rdist::scheduler::message::{FromHead, Held, Load, ToHead};
use rdist::scheduler::resource::Resources;
use rdist::scheduler::spec::{Assignment, TaskKind, TaskSpec};
use rdist::scheduler::time::Timestamp;
use serde_json::{Value, json};

use super::super::process::pss_bytes;

const JOB: JobId = JobId(1);
const CPUS: f64 = 4.0;
/// The worker whose tasks these are.
const OWNER: WorkerId = WorkerId(1);
/// Workers whose memory is measured, in as many clusters as it takes: fewer are lost among pages.
const MEASURED_WORKERS: u64 = 20_000;

/// The figures for a head with so many workers.
pub(super) fn measure(workers: u64, quick: bool) -> Value {
    let count = if quick { 20_000 } else { 100_000 };
    let clusters = (MEASURED_WORKERS / workers.max(1)).max(1);
    let before = own_bytes();
    let mut all: Vec<_> = (0..clusters).map(|_| Simulated::with(workers)).collect();
    let worker_bytes = (own_bytes() - before) / (clusters * workers.max(1)) as f64;
    let Some(mut head) = all.pop() else { return Value::Null };

    let decision = head.decisions(count);
    let load = head.loads(workers, count);
    let before = own_bytes();
    let waiting = head.waiting_tasks(count);
    let waiting_bytes = (own_bytes() - before) / count as f64;
    let deep = head.decisions(count);
    let before = own_bytes();
    let actor = head.actors(count);
    let actor_bytes = (own_bytes() - before) / count as f64;
    json!({
        "event": "bench_scale", "kind": "core", "workers": workers,
        "worker_bytes_in_head": worker_bytes,
        "decision_us": decision,
        "waiting_tasks": count,
        "decision_us_behind_waiting_tasks": deep,
        "load_report_us": load,
        "spilled_task_us": waiting,
        "head_bytes_per_1000_waiting_tasks": 1_000.0 * waiting_bytes,
        "actor_us": actor,
        "head_bytes_per_actor": actor_bytes,
    })
}

fn own_bytes() -> f64 {
    pss_bytes(std::process::id()).unwrap_or_default() as f64
}

struct Simulated {
    core: ClusterCore,
    now: Timestamp,
    /// Of tasks.
    next: u64,
}

impl Simulated {
    fn with(workers: u64) -> Self {
        let core = ClusterCore::new(ClusterConfig { seed: 1, ..ClusterConfig::default() });
        let mut simulated = Self { core, now: Timestamp(1), next: 1 };
        for worker in 1..=workers {
            let (worker, total) = (WorkerId(worker), Resources::cpus(CPUS));
            let (labels, held) = (Vec::new(), Held::default());
            simulated.tell(ClusterEvent::WorkerJoined { worker, total, labels, held });
        }
        let (id, kind) = (TaskId::driver(JOB), TaskKind::Driver);
        let driver = TaskSpec { id, kind, ..spec(0, Resources::NONE) };
        simulated.tell(ClusterEvent::JobSubmitted { job: JOB, driver });
        simulated
    }

    /// Where tasks were placed.
    fn tell(&mut self, event: ClusterEvent) -> Vec<(WorkerId, TaskId)> {
        self.now = Timestamp(self.now.0 + 1_000);
        self.core.handle(self.now, event);
        let mut placed = Vec::new();
        while let Some(action) = self.core.poll_action() {
            if let ClusterAction::Send { to, message: FromHead::Assigned(all) } = action {
                placed.extend(all.iter().map(|assignment| (to, assignment.spec.id)));
            }
        }
        placed
    }

    fn say(&mut self, from: WorkerId, message: ToHead) -> Vec<(WorkerId, TaskId)> {
        self.tell(ClusterEvent::FromWorker { from, message })
    }

    fn spill(&mut self, request: Resources, kind: TaskKind) -> Vec<(WorkerId, TaskId)> {
        let mut spec = spec(self.next, request);
        (spec.kind, self.next) = (kind, self.next + 1);
        self.say(OWNER, ToHead::Spilled(vec![Assignment::new(spec, 0, OWNER)]))
    }

    /// Microseconds for a task that is placed and ends.
    fn decisions(&mut self, count: u64) -> f64 {
        per_one(count, || {
            for (at, task) in self.spill(Resources::cpus(1.0), TaskKind::Plain) {
                self.say(at, ToHead::Ended(vec![(task, 0)]));
            }
        })
    }

    /// Microseconds for a worker's report of its load.
    fn loads(&mut self, workers: u64, count: u64) -> f64 {
        let mut worker = 0;
        per_one(count, || {
            worker = worker % workers.max(1) + 1;
            let available = Resources::cpus(CPUS);
            let load = Load { available, assignments: 0, backlog: Vec::new() };
            self.say(WorkerId(worker), ToHead::Load(load));
        })
    }

    /// Microseconds for a task that no worker can run.
    fn waiting_tasks(&mut self, count: u64) -> f64 {
        per_one(count, || {
            self.spill(Resources::cpus(2.0 * CPUS), TaskKind::Plain);
        })
    }

    /// Microseconds for an actor that is placed, and stays.
    fn actors(&mut self, count: u64) -> f64 {
        per_one(count, || {
            self.spill(Resources::NONE, TaskKind::ActorCreate(Box::default()));
        })
    }
}

/// Microseconds of one of `count`.
fn per_one(count: u64, mut body: impl FnMut()) -> f64 {
    let start = Instant::now();
    (0..count).for_each(|_| body());
    start.elapsed().as_secs_f64() * 1e6 / count as f64
}

fn spec(index: u64, request: Resources) -> TaskSpec {
    let parent = TaskId::driver(JOB);
    let (id, body) = (parent.child(index), vec![1; 16]);
    TaskSpec { function: 1, request, body, ..TaskSpec::plain(id, parent) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_placed_wait_and_end() {
        let mut head = Simulated::with(3);
        head.decisions(10);
        assert_eq!(head.core.workers().map(|worker| worker.placed).sum::<usize>(), 1);
        head.waiting_tasks(7);
        assert_eq!(head.core.waiting(), 7);
        head.actors(5);
        assert_eq!(head.core.workers().map(|worker| worker.placed).sum::<usize>(), 6);
        head.loads(3, 6);
        head.core.check_invariants();
    }
}

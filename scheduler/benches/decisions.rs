//! What a scheduling decision costs, by how much waits and how many workers there are. Each row
//! should be flat: `cargo bench -p rdist-scheduler`, and `-- local` or `-- cluster` for a part.
//!
//! One iteration is one task: it is submitted (or spilled), another one that held its resources
//! ends, and what waited longest starts in its place.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use divan::Bencher;
use rdist_scheduler::cluster::{ClusterAction, ClusterConfig, ClusterCore, ClusterEvent};
use rdist_scheduler::id::{ExecutorId, JobId, TaskId, WorkerId};
use rdist_scheduler::local::{LocalAction, LocalConfig, LocalCore, LocalEvent};
use rdist_scheduler::message::{FromHead, Held, Load, ToHead};
use rdist_scheduler::outcome::{Outcome, Returned};
use rdist_scheduler::resource::{Amount, Resources};
use rdist_scheduler::spec::{Assignment, TaskKind, TaskSpec};
use rdist_scheduler::time::Timestamp;

const QUEUED: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];
const WORKERS: [u64; 4] = [10, 100, 1_000, 10_000];
const KINDS: [u64; 4] = [1, 10, 100, 1_000];
const CPUS: u64 = 8;

fn main() {
    divan::main();
}

fn spec(job: u32, index: u64, request: Resources) -> TaskSpec {
    let parent = TaskId::driver(JobId(job));
    let id = parent.child(index);
    TaskSpec { function: 1, request, max_retries: 3, ..TaskSpec::plain(id, parent) }
}

fn driver(job: u32) -> TaskSpec {
    let id = TaskId::driver(JobId(job));
    TaskSpec { id, parent: id, kind: TaskKind::Driver, ..spec(job, 0, Resources::NONE) }
}

/// One CPU, and as much memory as tells the kind from others.
fn request(kind: u64) -> Resources {
    let mut request = Resources::cpus(1.0);
    request.memory = Amount::whole(kind);
    request
}

/// A worker whose CPUs are in use.
struct Worker {
    core: LocalCore,
    now: Timestamp,
    drivers: Vec<ExecutorId>,
    running: VecDeque<(ExecutorId, TaskId, u32)>,
    /// Between two events.
    pace: Duration,
    submitted: u64,
    kinds: u64,
}

impl Worker {
    /// With the drivers of so many jobs, whose tasks ask for so many different things.
    fn new(jobs: u32, kinds: u64, pace: Duration) -> Self {
        let mut total = Resources::cpus(CPUS as f64);
        total.memory = Amount::whole(1 << 30);
        let mut worker = Self {
            core: LocalCore::new(LocalConfig::new(WorkerId(1), total)),
            now: Timestamp(1),
            drivers: Vec::new(),
            running: VecDeque::new(),
            pace,
            submitted: 0,
            kinds,
        };
        worker.handle(LocalEvent::HeadFound { fresh: true });
        for job in 1..=jobs {
            let spec = driver(job);
            let owner = WorkerId::HEAD;
            let assigned = vec![Assignment::new(spec, 0, owner)];
            worker.handle(LocalEvent::FromHead(FromHead::Assigned(assigned)));
        }
        let drivers = worker.running.drain(..).map(|(executor, ..)| executor);
        worker.drivers = drivers.collect();
        worker
    }

    fn handle(&mut self, event: LocalEvent) {
        self.now = self.now + self.pace;
        self.core.handle(self.now, event);
        while let Some(action) = self.core.poll_action() {
            match action {
                LocalAction::Run { executor, spec, attempt }
                | LocalAction::RunAhead { executor, spec, attempt, .. } => {
                    self.running.push_back((executor, spec.id, attempt));
                }
                LocalAction::StartExecutor { executor, .. } => {
                    self.core.handle(self.now, LocalEvent::ExecutorStarted { executor });
                }
                _ => {}
            }
        }
    }

    fn submit(&mut self) {
        self.submitted += 1;
        let job = (self.submitted % self.drivers.len() as u64) as u32;
        let request = match self.kinds {
            1 => Resources::cpus(1.0),
            kinds => request(self.submitted % kinds),
        };
        let spec = Arc::new(spec(job + 1, self.submitted, request));
        self.handle(LocalEvent::Submitted { by: self.drivers[job as usize], spec });
    }

    fn finish(&mut self) {
        let (executor, task, attempt) = self.running.pop_front().unwrap();
        let value = Returned { size: 8, inline: true, contains: Vec::new() };
        let outcome = Outcome::Returned(vec![value]);
        self.handle(LocalEvent::Finished { executor, task, attempt, outcome });
        let by = self.drivers[(task.job().0 - 1) as usize];
        self.handle(LocalEvent::Released { by, object: task.object(0) });
    }

    fn queue(&mut self, count: u64) {
        for _ in 0..count + CPUS {
            self.submit();
        }
    }

    fn bench(mut self, bencher: Bencher<'_, '_>, queued: u64) {
        self.queue(queued);
        bencher.bench_local(|| {
            self.submit();
            self.finish();
        });
    }
}

const LONG: Duration = Duration::from_millis(1);
const SHORT: Duration = Duration::from_micros(1);

#[divan::bench(args = QUEUED, sample_size = 200, sample_count = 20)]
fn local_queued(bencher: Bencher<'_, '_>, queued: u64) {
    Worker::new(1, 1, LONG).bench(bencher, queued);
}

#[divan::bench(args = QUEUED, sample_size = 200, sample_count = 20)]
fn local_queued_and_short(bencher: Bencher<'_, '_>, queued: u64) {
    Worker::new(1, 1, SHORT).bench(bencher, queued);
}

#[divan::bench(args = KINDS, sample_size = 200, sample_count = 20)]
fn local_requests(bencher: Bencher<'_, '_>, kinds: u64) {
    Worker::new(1, kinds, LONG).bench(bencher, 10_000);
}

#[divan::bench(args = KINDS, sample_size = 200, sample_count = 20)]
fn local_jobs(bencher: Bencher<'_, '_>, jobs: u64) {
    Worker::new(jobs as u32, 1, LONG).bench(bencher, 10_000);
}

/// A head, and the tasks that it has placed.
struct Head {
    core: ClusterCore,
    now: Timestamp,
    workers: u64,
    running: VecDeque<(WorkerId, TaskId, u32)>,
    /// Assignments so far, by worker.
    assigned: Vec<u64>,
    spilled: u64,
    jobs: u64,
    kinds: u64,
}

impl Head {
    fn new(workers: u64, jobs: u64, kinds: u64) -> Self {
        let mut head = Self {
            core: ClusterCore::new(ClusterConfig::default()),
            now: Timestamp(1),
            workers,
            running: VecDeque::new(),
            assigned: vec![0; workers as usize + 1],
            spilled: 0,
            jobs,
            kinds,
        };
        for worker in 1..=workers {
            let mut total = Resources::cpus(CPUS as f64);
            total.memory = Amount::whole(1 << 30);
            let held = Held::default();
            let (worker, labels) = (WorkerId(worker), Vec::new());
            head.handle(ClusterEvent::WorkerJoined { worker, total, labels, held });
        }
        for job in 1..=jobs as u32 {
            let (job, driver) = (JobId(job), driver(job));
            head.handle(ClusterEvent::JobSubmitted { job, driver });
        }
        head.running.clear();
        head
    }

    fn handle(&mut self, event: ClusterEvent) {
        self.now = self.now + Duration::from_micros(10);
        self.core.handle(self.now, event);
        while let Some(action) = self.core.poll_action() {
            if let ClusterAction::Send { to, message: FromHead::Assigned(all) } = action {
                self.assigned[to.0 as usize] += all.len() as u64;
                self.running.extend(all.iter().map(|a| (to, a.spec.id, a.attempt)));
            }
        }
    }

    fn say(&mut self, from: WorkerId, message: ToHead) {
        self.handle(ClusterEvent::FromWorker { from, message });
    }

    fn spill(&mut self) {
        self.spilled += 1;
        let owner = WorkerId(1 + self.spilled % self.workers);
        let job = 1 + (self.spilled % self.jobs) as u32;
        let spec = spec(job, self.spilled, request(self.spilled % self.kinds));
        self.say(owner, ToHead::Spilled(vec![Assignment::new(spec, 0, owner)]));
    }

    fn end(&mut self) {
        let (worker, task, attempt) = self.running.pop_front().unwrap();
        self.say(worker, ToHead::Ended(vec![(task, attempt)]));
    }

    fn fill(mut self, queued: u64) -> Self {
        for _ in 0..self.workers * CPUS + queued {
            self.spill();
        }
        self
    }

    fn bench(mut self, bencher: Bencher<'_, '_>) {
        bencher.bench_local(|| {
            self.spill();
            self.end();
        });
    }
}

#[divan::bench(args = QUEUED, sample_size = 200, sample_count = 20)]
fn cluster_queued(bencher: Bencher<'_, '_>, queued: u64) {
    Head::new(100, 1, 1).fill(queued).bench(bencher);
}

#[divan::bench(args = WORKERS, sample_size = 200, sample_count = 20)]
fn cluster_workers(bencher: Bencher<'_, '_>, workers: u64) {
    Head::new(workers, 1, 1).fill(1_000).bench(bencher);
}

/// Nothing waits but the one task that came.
#[divan::bench(args = WORKERS, sample_size = 200, sample_count = 20)]
fn cluster_full_workers(bencher: Bencher<'_, '_>, workers: u64) {
    Head::new(workers, 1, 1).fill(0).bench(bencher);
}

#[divan::bench(args = WORKERS, sample_size = 200, sample_count = 20)]
fn cluster_half_full_workers(bencher: Bencher<'_, '_>, workers: u64) {
    let mut head = Head::new(workers, 1, 1);
    for _ in 0..workers * CPUS / 2 {
        head.spill();
    }
    head.bench(bencher);
}

#[divan::bench(args = KINDS, sample_size = 200, sample_count = 20)]
fn cluster_requests(bencher: Bencher<'_, '_>, kinds: u64) {
    Head::new(100, 1, kinds).fill(10_000).bench(bencher);
}

#[divan::bench(args = KINDS, sample_size = 200, sample_count = 20)]
fn cluster_jobs(bencher: Bencher<'_, '_>, jobs: u64) {
    Head::new(100, jobs, 1).fill(10_000).bench(bencher);
}

/// One report of one worker; half of them have a backlog, and the others have room.
#[divan::bench(args = WORKERS, sample_size = 200, sample_count = 20)]
fn cluster_reports(bencher: Bencher<'_, '_>, workers: u64) {
    let mut head = Head::new(workers, 1, 1);
    let mut reports = 0;
    bencher.bench_local(|| {
        reports += 1;
        let from = WorkerId(1 + reports % workers);
        let assignments = head.assigned[from.0 as usize];
        let busy = from.0.is_multiple_of(2);
        let available = Resources::cpus(if busy { 0.0 } else { (reports % CPUS) as f64 });
        let backlog = if busy { vec![(Resources::cpus(1.0), 50)] } else { Vec::new() };
        head.say(from, ToHead::Load(Load { available, assignments, backlog }));
    });
}

//! The whole cluster in one thread: workers' cores, the head's core, tables of values, and what
//! goes wrong between them.

mod detached;
mod disk;
mod excuse;
mod fault;
mod happen;
mod head;
mod lease;
mod table;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rdist_scheduler::cluster::{ClusterCore, JobState};
use rdist_scheduler::hash::{FastMap, FastSet};
use rdist_scheduler::id::{ActorId, ExecutorId, JobId, ObjectId, TaskId, WorkerId};
use rdist_scheduler::local::{LocalCore, LocalEvent};
use rdist_scheduler::message::{FromHead, Held, PeerMessage, ToHead};
use rdist_scheduler::outcome::Death;
use rdist_scheduler::resource::Resources;
use rdist_scheduler::spec::TaskSpec;

use super::checker::{ActorLog, ExactCalls, Harm, Names, Usage};
use super::executor::{
    At, Command, Crowds, Handle, Leases, Process, Rings, Routes, Stored, Streams, Waits,
};
use super::network::{Agenda, Rng};
use super::workload::{Mix, Oracle};
use disk::Disk;
pub use disk::Disks;
use excuse::DriverTries;
use lease::Links;
use table::Workers;

const MILLISECOND: u64 = 1_000_000;

/// What may go wrong, and what is simulated.
#[derive(Debug, Clone)]
pub struct Options {
    pub workers: u64,
    pub jobs: Vec<Mix>,
    pub faults: Faults,
    /// How long faults go on.
    pub fault_time: u64,
    /// Mean time between faults.
    pub fault_every: u64,
    /// Invariants of cores are checked after every n-th event.
    pub check_every: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    pub executors: bool,
    pub workers: bool,
    pub heads: bool,
    pub joins: bool,
    pub stalls: bool,
    pub breaks: bool,
    pub drains: bool,
    pub stops: bool,
    /// Values go to disk, and some are damaged there.
    pub damages: bool,
    /// What goes between workers, and between a worker and the head, comes twice now and then.
    pub repeats: bool,
}

/// What happens.
#[derive(Debug, Clone)]
pub enum Event {
    FromExecutor {
        worker: WorkerId,
        executor: ExecutorId,
        message: LocalEvent,
        values: Vec<(ObjectId, Stored)>,
    },
    ToExecutor {
        worker: WorkerId,
        executor: ExecutorId,
        command: Command,
    },
    Step(At),
    /// An executor looks into the ring that another one writes.
    Ring {
        worker: WorkerId,
        from: ExecutorId,
        to: ExecutorId,
    },
    /// A host looks for leased tasks of that caller.
    Serve {
        worker: WorkerId,
        caller: ExecutorId,
        host: ExecutorId,
    },
    ProcessUp(WorkerId, ExecutorId),
    Peer {
        from: WorkerId,
        to: WorkerId,
        number: u64,
        message: PeerMessage,
        values: Vec<(ObjectId, Stored)>,
    },
    Pulled {
        worker: WorkerId,
        object: ObjectId,
        size: u64,
        from: WorkerId,
    },
    Joined(WorkerId, u64, Held),
    /// In a session, with the number of the message.
    ToHead(WorkerId, u64, (u64, ToHead)),
    HeadFound(WorkerId, u64),
    FromHead(WorkerId, u64, (u64, FromHead)),
    HeadLost(WorkerId, u64),
    Hello(WorkerId),
    HeadUp,
    Detected(WorkerId),
    /// The head hears that a worker has left.
    Left(WorkerId),
    WorkerTimer(WorkerId),
    HeadTimer,
    Submit(JobId),
    Stop(JobId),
    /// In a session: a head that dies takes it along.
    Drain(WorkerId, u64),
    Leave(WorkerId),
    Fault,
    /// A value is read from disk.
    Restored {
        worker: WorkerId,
        object: ObjectId,
    },
    ForgetLost(WorkerId),
    /// Keeps a link busy.
    Nothing,
}

pub struct Worker {
    id: WorkerId,
    pub core: LocalCore,
    pub table: FastMap<ObjectId, Stored>,
    pub processes: BTreeMap<ExecutorId, Process>,
    pub rings: Rings,
    links: Links,
    disk: Disk,
    usage: Usage,
    timer: Option<u64>,
    /// Known to be lost: their links are closed.
    closed: FastSet<WorkerId>,
    pub ended: FastSet<JobId>,
    /// The head that it has a session with.
    session: Option<u64>,
    stalled_until: u64,
    /// Messages to the head and to others, so far.
    said: u64,
    /// It is to leave, and has heard of that.
    drained: bool,
    leaves: bool,
}

#[derive(Default)]
struct Durable {
    jobs: BTreeMap<JobId, (TaskSpec, u32)>,
    workers: BTreeSet<WorkerId>,
    names: BTreeMap<String, (ActorId, WorkerId)>,
    /// Those that were asked to leave.
    draining: BTreeSet<WorkerId>,
}

pub struct Simulation {
    pub seed: u64,
    pub options: Options,
    pub rng: Rng,
    /// Decides what comes twice: a seed is otherwise what it is without that.
    repeats: Rng,
    /// What goes to disk, and what is damaged there.
    disk_dice: Rng,
    pub now: u64,
    pub agenda: Agenda<Event>,
    pub workers: Workers,
    pub living: Arc<[WorkerId]>,
    head: Option<ClusterCore>,
    head_number: u64,
    /// Number of the heads' last message.
    head_said: u64,
    head_timer: Option<u64>,
    durable: Durable,
    /// Until when what a dead worker had sent still arrives.
    cuts: FastMap<WorkerId, u64>,
    pub oracle: Oracle,
    pub actors: ActorLog,
    pub calls: ExactCalls,
    pub names: Names,
    /// Whom programs call that have found nobody.
    pub nobody: FastSet<ActorId>,
    /// Actors that any job may call.
    pub served: Vec<Handle>,
    /// Direct calls that were passed on without an answer.
    pub promised: FastSet<TaskId>,
    /// Those that tasks were given to call.
    pub handles: FastMap<TaskId, Handle>,
    /// Calls of other jobs' actors, with those jobs.
    pub foreign: FastMap<TaskId, JobId>,
    /// Tasks that somebody wanted ended, and actors.
    pub cancelled: FastSet<TaskId>,
    pub killed: FastSet<ActorId>,
    /// Actors that end themselves: when they have answered that call of that process.
    pub terminated: FastMap<ActorId, (WorkerId, ExecutorId, u64)>,
    /// Calls of processes, by number.
    pub numbers: FastMap<TaskId, (WorkerId, ExecutorId, u64)>,
    pub tries: DriverTries,
    /// The actor of each call.
    pub called: FastMap<TaskId, ActorId>,
    /// Where large values of calls were made, which nobody makes again.
    pub made: FastMap<TaskId, Vec<WorkerId>>,
    /// Who submitted a task that may be cancelled.
    pub parents: FastMap<TaskId, TaskId>,
    /// Tasks that return only if nobody cancels them.
    pub endless: FastSet<TaskId>,
    /// Tasks that yield, and end only when somebody has them end.
    pub endless_streams: FastSet<TaskId>,
    harm: Harm,
    ended: BTreeMap<JobId, JobState>,
    stopped: BTreeSet<JobId>,
    /// When detached actors are ended that nobody has ended.
    patience: Option<u64>,
    next_worker: u64,
    pub next_run: u64,
    pub events: u64,
    pub submitted: u64,
    /// Tasks that waited in an executor for their turn.
    pub queued_ahead: u64,
    /// Actors that went on elsewhere since their worker was to leave.
    pub moves: u64,
    pub leases: Leases,
    pub routed: Routes,
    pub crowds: Crowds,
    pub waits: Waits,
    pub disks: Disks,
    pub streams: Streams,
    pub finished: u64,
    trace: bool,
}

pub fn killed() -> Death {
    Death::Killed { signal: 9, stderr: String::new() }
}

/// What a worker is labelled with.
pub fn labels_of(worker: WorkerId) -> Vec<(String, String)> {
    vec![("zone".to_owned(), format!("zone-{}", worker.0 % 3))]
}

impl Simulation {
    pub fn new(seed: u64, options: Options) -> Self {
        let mut simulation = Self {
            seed,
            rng: Rng(seed),
            repeats: Rng(seed ^ 0x5457_4943_4500_0000),
            disk_dice: Rng(seed ^ 0x4449_534b_0000),
            now: 0,
            agenda: Agenda::new(),
            workers: Workers::default(),
            living: Arc::new([]),
            head: None,
            head_number: 0,
            head_said: 0,
            head_timer: None,
            durable: Durable::default(),
            cuts: FastMap::default(),
            oracle: Oracle::default(),
            actors: ActorLog::default(),
            calls: ExactCalls::default(),
            names: Names::default(),
            nobody: FastSet::default(),
            served: Vec::new(),
            promised: FastSet::default(),
            handles: FastMap::default(),
            foreign: FastMap::default(),
            cancelled: FastSet::default(),
            killed: FastSet::default(),
            terminated: FastMap::default(),
            numbers: FastMap::default(),
            tries: DriverTries::default(),
            called: FastMap::default(),
            made: FastMap::default(),
            parents: FastMap::default(),
            endless: FastSet::default(),
            endless_streams: FastSet::default(),
            harm: Harm::default(),
            ended: BTreeMap::new(),
            stopped: BTreeSet::new(),
            patience: None,
            next_worker: 0,
            next_run: 0,
            events: 0,
            submitted: 0,
            queued_ahead: 0,
            moves: 0,
            leases: Leases::default(),
            routed: Routes::default(),
            crowds: Crowds::default(),
            waits: Waits::default(),
            disks: Disks::default(),
            streams: Streams::default(),
            finished: 0,
            trace: std::env::var_os("SIM_TRACE").is_some(),
            options,
        };
        simulation.head_up();
        for _ in 0..simulation.options.workers {
            simulation.join();
        }
        for number in 1..=simulation.options.jobs.len() as u32 {
            let at = simulation.rng.below(20 * MILLISECOND);
            simulation.agenda.at(at & !1, Event::Submit(JobId(number)));
        }
        let first = simulation.options.fault_every;
        simulation.agenda.at(first, Event::Fault);
        simulation
    }

    /// Runs until every job has ended and all is quiet, then looks for what is left.
    pub fn run(&mut self) {
        let mut quiet_until = None;
        while let Some((at, event)) = self.agenda.pop() {
            if let Some(until) = self.stalled(&event).filter(|until| at < *until) {
                self.agenda.put_off(until, event);
                continue;
            }
            self.now = at;
            self.events += 1;
            self.happen(event);
            self.end_detached();
            if self.ended.len() == self.options.jobs.len() && self.now > self.options.fault_time {
                let until = *quiet_until.get_or_insert(self.now + 10_000 * MILLISECOND);
                if self.now > until {
                    break;
                }
            }
            let latest = self.options.fault_time + 3_600_000 * MILLISECOND;
            assert!(self.now < latest, "no end in sight:\n{}", self.stuck());
        }
        let jobs = self.options.jobs.len();
        assert_eq!(self.ended.len(), jobs, "everything waits:\n{}", self.stuck());
        self.check_end();
    }

    pub fn trace(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>12} {}", self.now, what());
        }
    }

    pub fn mix_of(&self, job: JobId) -> Mix {
        self.options.jobs[job.0 as usize - 1]
    }

    /// What a job may hold; nothing: whatever there is.
    fn quota_of(&self, job: JobId) -> Resources {
        Resources::cpus(self.mix_of(job).quota as f64)
    }

    fn check_end(&mut self) {
        for (id, worker) in self.workers.iter() {
            worker.core.check_invariants();
            let objects: Vec<_> = worker.core.objects().take(5).collect();
            assert!(objects.is_empty(), "{id} keeps {objects:#?}");
            let tasks: Vec<_> = worker.core.tasks().take(5).collect();
            assert!(tasks.is_empty(), "{id} keeps {tasks:#?}");
            let actors: Vec<_> = worker.core.actors().take(5).collect();
            assert!(actors.is_empty(), "{id} keeps {actors:#?}");
            let bundles: Vec<_> = worker.core.bundles().take(5).collect();
            assert!(bundles.is_empty(), "{id} keeps {bundles:#?}");
            let groups: Vec<_> = worker.core.groups().take(5).collect();
            assert!(groups.is_empty(), "{id} keeps {groups:#?}");
            let values: Vec<_> = worker.table.keys().take(5).collect();
            assert!(values.is_empty(), "the table of {id} keeps {values:?}");
            assert!(worker.processes.is_empty(), "{id} keeps {:?}", worker.processes.keys());
            assert!(worker.core.is_idle(), "{id} is not idle");
            worker.usage.check_nothing(id);
            worker.disk.check_nothing(id);
        }
        let Some(head) = &self.head else { panic!("the head is down in the end") };
        head.check_invariants();
        assert_eq!(head.waiting(), 0, "tasks wait in the head");
        let members: Vec<WorkerId> = head.workers().map(|view| view.worker).collect();
        assert!(members.iter().eq(self.living.iter()), "members {members:?}");
        for view in head.workers() {
            assert_eq!(view.available, view.total, "room of {}", view.worker);
            assert_eq!(view.placed, 0, "tasks on {}", view.worker);
        }
        assert!(self.durable.names.is_empty(), "names are left: {:?}", self.durable.names);
    }

    fn stuck(&self) -> String {
        let mut lines = vec![format!("{:?}", self.options.faults)];
        for (id, worker) in self.workers.iter() {
            for task in worker.core.tasks().take(20) {
                let why = worker.core.explain(task.task);
                lines.push(format!(
                    "{id} {:?} of {} {}: {why:?}",
                    task.task, task.owner, task.state
                ));
            }
            for (executor, process) in &worker.processes {
                lines.push(format!(
                    "{id} {executor} {:?} runs {:?}",
                    process.role,
                    process.runs.values().map(|run| run.spec.id).take(10).collect::<Vec<_>>()
                ));
            }
        }
        if let Some(head) = &self.head {
            lines.extend(head.jobs().map(|job| format!("{job:?}")));
            lines.extend(head.workers().take(20).map(|worker| format!("{worker:?}")));
        }
        lines.join("\n")
    }
}

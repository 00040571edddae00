//! The whole cluster in one thread: workers' cores, the head's core, tables of values, and what
//! goes wrong between them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rdist_scheduler::cluster::{ClusterAction, ClusterConfig, ClusterCore, ClusterEvent, JobState};
use rdist_scheduler::hash::{FastMap, FastSet};
use rdist_scheduler::id::{ActorId, ExecutorId, JobId, ObjectId, TaskId, WorkerId};
use rdist_scheduler::local::{LocalAction, LocalConfig, LocalCore, LocalEvent};
use rdist_scheduler::message::{FromHead, Held, PeerMessage, Place, ToHead};
use rdist_scheduler::outcome::{Death, Outcome, TaskError};
use rdist_scheduler::resource::Resources;
use rdist_scheduler::spec::{Strategy, TaskKind, TaskSpec};
use rdist_scheduler::time::Timestamp;

use super::checker::{ActorLog, Harm, Usage};
use super::executor::{At, Command, Process, Stored};
use super::network::{Address, Agenda, Rng};
use super::workload::{Mix, Oracle};

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

#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    pub executors: bool,
    pub workers: bool,
    pub heads: bool,
    pub joins: bool,
    pub stalls: bool,
    pub breaks: bool,
    pub drains: bool,
    pub stops: bool,
}

/// What happens.
#[derive(Debug)]
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
    ProcessUp(WorkerId, ExecutorId),
    Peer {
        from: WorkerId,
        to: WorkerId,
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
    ToHead(WorkerId, u64, ToHead),
    HeadFound(WorkerId, u64),
    FromHead(WorkerId, u64, FromHead),
    HeadLost(WorkerId, u64),
    Hello(WorkerId),
    HeadUp,
    Detected(WorkerId),
    WorkerTimer(WorkerId),
    HeadTimer,
    Submit(JobId),
    Stop(JobId),
    Leave(WorkerId),
    Fault,
    ForgetLost(WorkerId),
    /// Keeps a link busy.
    Nothing,
}

pub struct Worker {
    pub core: LocalCore,
    total: Resources,
    pub table: FastMap<ObjectId, Stored>,
    pub processes: BTreeMap<ExecutorId, Process>,
    usage: Usage,
    timer: Option<u64>,
    /// Known to be lost: their links are closed.
    closed: FastSet<WorkerId>,
    ended: FastSet<JobId>,
    /// The head that it has a session with.
    session: Option<u64>,
    stalled_until: u64,
    drained: bool,
}

#[derive(Default)]
struct Durable {
    jobs: BTreeMap<JobId, (TaskSpec, u32)>,
    workers: BTreeSet<WorkerId>,
    names: BTreeMap<String, (ActorId, WorkerId)>,
}

pub struct Simulation {
    pub seed: u64,
    pub options: Options,
    pub rng: Rng,
    pub now: u64,
    pub agenda: Agenda<Event>,
    pub workers: BTreeMap<WorkerId, Worker>,
    pub living: Arc<[WorkerId]>,
    head: Option<ClusterCore>,
    head_number: u64,
    head_timer: Option<u64>,
    durable: Durable,
    /// Until when what a dead worker had sent still arrives.
    cuts: FastMap<WorkerId, u64>,
    pub oracle: Oracle,
    pub actors: ActorLog,
    harm: Harm,
    ended: BTreeMap<JobId, JobState>,
    stopped: BTreeSet<JobId>,
    next_worker: u64,
    pub next_run: u64,
    pub events: u64,
    pub submitted: u64,
    pub finished: u64,
    trace: bool,
}

pub fn killed() -> Death {
    Death::Killed { signal: 9, stderr: String::new() }
}

impl Simulation {
    pub fn new(seed: u64, options: Options) -> Self {
        let mut simulation = Self {
            seed,
            rng: Rng(seed),
            now: 0,
            agenda: Agenda::new(),
            workers: BTreeMap::new(),
            living: Arc::new([]),
            head: None,
            head_number: 0,
            head_timer: None,
            durable: Durable::default(),
            cuts: FastMap::default(),
            oracle: Oracle::default(),
            actors: ActorLog::default(),
            harm: Harm::default(),
            ended: BTreeMap::new(),
            stopped: BTreeSet::new(),
            next_worker: 0,
            next_run: 0,
            events: 0,
            submitted: 0,
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
        let jobs = self.options.jobs.len();
        let mut quiet_until = None;
        while let Some((at, event)) = self.agenda.pop() {
            if let Some(until) = self.stalled(&event).filter(|until| at < *until) {
                self.agenda.at(until, event);
                continue;
            }
            self.now = at;
            self.events += 1;
            self.happen(event);
            if self.ended.len() == jobs && self.now > self.options.fault_time {
                let until = *quiet_until.get_or_insert(self.now + 10_000 * MILLISECOND);
                if self.now > until {
                    break;
                }
            }
            let latest = self.options.fault_time + 3_600_000 * MILLISECOND;
            assert!(self.now < latest, "no end in sight:\n{}", self.stuck());
        }
        assert_eq!(self.ended.len(), jobs, "everything waits:\n{}", self.stuck());
        self.check_end();
    }

    pub fn mix_of(&self, job: JobId) -> Mix {
        self.options.jobs[job.0 as usize - 1]
    }

    /// What is left of a job that has ended may find anything lost.
    pub fn excuse(&self, job: JobId, error: &TaskError) {
        if !self.stopped.contains(&job) && !self.ended.contains_key(&job) {
            self.harm.excuse(error);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::FromExecutor { worker, executor, message, values } => {
                self.executor_says(worker, executor, message, values);
            }
            Event::ToExecutor { worker, executor, command } => {
                self.command(worker, executor, command);
            }
            Event::Step(at) => self.step(at),
            Event::ProcessUp(worker, executor) => {
                let process = self.workers.get_mut(&worker);
                let process = process.and_then(|w| w.processes.get_mut(&executor));
                if let Some(process) = process {
                    process.up = true;
                    self.tell(worker, LocalEvent::ExecutorStarted { executor });
                }
            }
            Event::Peer { from, to, message, values } => self.peer_says(from, to, message, values),
            Event::Pulled { worker, object, size, from } => {
                let value = self.workers.get(&from).and_then(|w| w.table.get(&object)).cloned();
                let Some(at) = self.workers.get_mut(&worker) else { return };
                let event = match value {
                    Some(value) => {
                        at.table.insert(object, value);
                        LocalEvent::Pulled { object, size }
                    }
                    None => LocalEvent::PullFailed { object, from },
                };
                self.tell(worker, event);
            }
            Event::Joined(worker, number, held) => self.joined(worker, number, held),
            Event::ToHead(from, number, message) => {
                if number == self.head_number && self.arrives(from) {
                    self.tell_head(ClusterEvent::FromWorker { from, message });
                }
            }
            Event::HeadFound(worker, number) => {
                if self.workers.get(&worker).is_some_and(|w| w.session == Some(number)) {
                    self.tell(worker, LocalEvent::HeadFound { fresh: true });
                }
            }
            Event::FromHead(to, number, message) => self.head_says(to, number, message),
            Event::HeadLost(worker, number) => {
                // A stalled worker may notice late, and a new one have met the next head.
                if let Some(at) = self.workers.get_mut(&worker)
                    && at.session == Some(number)
                {
                    at.session = None;
                    self.tell(worker, LocalEvent::HeadLost);
                    let again = self.now + 1 + self.rng.below(100 * MILLISECOND);
                    self.agenda.at(again & !1, Event::Hello(worker));
                }
            }
            Event::Hello(worker) => self.hello(worker),
            Event::HeadUp => self.head_up(),
            Event::Detected(worker) => {
                if self.head.is_some() {
                    let reason = "it does not answer".to_owned();
                    self.tell_head(ClusterEvent::WorkerLost { worker, reason });
                    let forget = self.now + 10_000 * MILLISECOND;
                    self.agenda.at(forget, Event::ForgetLost(worker));
                }
            }
            Event::ForgetLost(worker) => drop(self.durable.workers.remove(&worker)),
            Event::WorkerTimer(worker) => self.worker_timer(worker),
            Event::HeadTimer => self.head_timer(),
            Event::Submit(job) => self.submit_job(job),
            Event::Stop(job) => match self.head {
                Some(_) => {
                    self.stopped.insert(job);
                    self.tell_head(ClusterEvent::JobStopRequested { job });
                }
                None => self.agenda.at(self.now + 50 * MILLISECOND, Event::Stop(job)),
            },
            Event::Leave(worker) => self.leave(worker),
            Event::Fault => self.fault(),
            Event::Nothing => {}
        }
    }

    // Workers.

    fn join(&mut self) {
        self.next_worker += 1;
        let worker = WorkerId(self.next_worker);
        let total = Resources::cpus([4.0, 4.0, 8.0][self.rng.below(3) as usize]);
        let core = LocalCore::new(LocalConfig::new(worker, total.clone()));
        let new = Worker {
            core,
            total,
            table: FastMap::default(),
            processes: BTreeMap::new(),
            usage: Usage::default(),
            timer: None,
            closed: FastSet::default(),
            ended: FastSet::default(),
            session: None,
            stalled_until: 0,
            drained: false,
        };
        self.workers.insert(worker, new);
        self.living = self.workers.keys().copied().collect();
        self.agenda.at((self.now + self.rng.below(MILLISECOND)) & !1, Event::Hello(worker));
    }

    /// Tells a worker's core, and does what it wants done.
    fn tell(&mut self, worker: WorkerId, event: LocalEvent) {
        if self.trace {
            println!("{:>12} {worker} <- {event:?}", self.now);
        }
        let Some(at) = self.workers.get_mut(&worker) else { return };
        at.core.handle(Timestamp(self.now), event);
        self.do_actions(worker);
    }

    fn do_actions(&mut self, worker: WorkerId) {
        let check = self.events.is_multiple_of(self.options.check_every);
        let Some(at) = self.workers.get_mut(&worker) else { return };
        if check {
            at.core.check_invariants();
        }
        while let Some(action) = self.workers.get_mut(&worker).and_then(|w| w.core.poll_action()) {
            if self.trace {
                println!("{:>12} {worker} -> {action:?}", "");
            }
            self.act(worker, action);
        }
        let Some(at) = self.workers.get_mut(&worker) else { return };
        if let Some(due) = at.core.poll_timeout()
            && at.timer.is_none_or(|timer| timer > due.0)
        {
            at.timer = Some(due.0);
            self.agenda.at(due.0.max(self.now), Event::WorkerTimer(worker));
        }
    }

    fn worker_timer(&mut self, worker: WorkerId) {
        let Some(at) = self.workers.get_mut(&worker) else { return };
        at.timer = None;
        if at.core.poll_timeout().is_some_and(|due| due.0 <= self.now) {
            at.core.handle_timeout(Timestamp(self.now));
        }
        self.do_actions(worker);
    }

    fn act(&mut self, worker: WorkerId, action: LocalAction) {
        let Some(at) = self.workers.get_mut(&worker) else { return };
        match action {
            LocalAction::StartExecutor { executor, role, .. } => {
                at.processes.insert(executor, Process::new(role));
                let up = self.now + MILLISECOND + self.rng.below(20 * MILLISECOND);
                self.agenda.at(up & !1, Event::ProcessUp(worker, executor));
            }
            LocalAction::StopExecutor { executor, .. } => {
                at.usage.end_executor(executor);
                if let Some(process) = at.processes.get_mut(&executor) {
                    process.leaving = true;
                }
                self.order(worker, executor, Command::Stop);
            }
            LocalAction::Run { executor, spec, attempt } => {
                assert!(at.processes.get(&executor).is_none_or(|p| p.up), "runs before it is up");
                for dependency in &spec.dependencies {
                    let there = at.table.contains_key(&dependency.object);
                    assert!(there, "{:?} runs on {worker} without {dependency:?}", spec.id);
                }
                if !matches!(spec.kind, TaskKind::ActorCall { .. }) {
                    let actor = matches!(spec.kind, TaskKind::ActorCreate(_));
                    at.usage.start(&at.total, (executor, spec.id), &spec.request, actor);
                }
                self.order(worker, executor, Command::Run(spec, attempt));
            }
            LocalAction::Deliver { executor, object, error } => {
                let there = error.is_some() || at.table.contains_key(&object);
                assert!(there, "{object:?} is delivered on {worker}, where it is not");
                self.order(worker, executor, Command::Deliver(object, error));
            }
            LocalAction::Cancel { executor, task } => {
                self.order(worker, executor, Command::Cancel(task));
            }
            LocalAction::DropActor { executor, actor } => {
                at.usage.end((executor, actor.0));
                self.order(worker, executor, Command::DropActor(actor));
            }
            LocalAction::ActorFound { .. } => {}
            LocalAction::Pull { object, size, from } => {
                let when = self.now + self.rng.below(3 * MILLISECOND);
                self.agenda.at(when & !1, Event::Pulled { worker, object, size, from });
            }
            LocalAction::Free { object } => self.freed(worker, object),
            LocalAction::Send { to, message } => self.send_peer(worker, to, message),
            LocalAction::SendHead(message) => {
                if let Some(number) = at.session {
                    let when = self.delay();
                    let link = (Address::Worker(worker), Address::Head);
                    self.agenda.send(link, when, Event::ToHead(worker, number, message));
                }
            }
        }
    }

    fn freed(&mut self, worker: WorkerId, object: ObjectId) {
        let Some(at) = self.workers.get_mut(&worker) else { return };
        at.table.remove(&object);
        if at.ended.contains(&object.task.job()) {
            return;
        }
        for (executor, process) in at.processes.iter().filter(|(_, process)| !process.leaving) {
            let viewed = process.views.contains(&object);
            assert!(!viewed, "{object:?} is freed while {executor} of {worker} reads it");
            for run in process.runs.values() {
                let used = run.spec.dependencies.iter().any(|d| d.object == object);
                assert!(!used, "{object:?} is freed under {:?} on {worker}", run.spec.id);
            }
        }
    }

    fn order(&mut self, worker: WorkerId, executor: ExecutorId, command: Command) {
        let link = (Address::Worker(worker), Address::Executor(worker, executor));
        let at = (self.now + 1_000 + self.rng.below(10_000)) & !1;
        self.agenda.send(link, at, Event::ToExecutor { worker, executor, command });
    }

    fn executor_says(
        &mut self,
        worker: WorkerId,
        executor: ExecutorId,
        message: LocalEvent,
        values: Vec<(ObjectId, Stored)>,
    ) {
        let Some(at) = self.workers.get_mut(&worker) else { return };
        at.table.extend(values);
        match &message {
            LocalEvent::Finished { task, outcome, .. } => {
                let returned = matches!(outcome, Outcome::Returned(_));
                let lives = returned && at.usage.is_actor((executor, *task));
                if !lives {
                    at.usage.end((executor, *task));
                }
            }
            LocalEvent::Blocked { task, .. } => at.usage.block((executor, *task), true),
            LocalEvent::Unblocked { task, .. } => at.usage.block((executor, *task), false),
            LocalEvent::ExecutorDied { .. } => at.usage.end_executor(executor),
            _ => {}
        }
        self.tell(worker, message);
    }

    // Between workers.

    fn delay(&mut self) -> u64 {
        (self.now + 50_000 + self.rng.below(MILLISECOND)) & !1
    }

    fn send_peer(&mut self, from: WorkerId, to: WorkerId, message: PeerMessage) {
        assert_ne!(to, WorkerId::HEAD, "the head is no peer: {message:?}");
        let Some(at) = self.workers.get(&from) else { return };
        let value = |object: ObjectId| match at.table.get(&object) {
            Some(stored) => (object, stored.clone()),
            None => panic!("{from} announces {object:?}, which it does not have"),
        };
        let values = match &message {
            PeerMessage::Finished { task, outcome: Outcome::Returned(all), .. } => {
                let inline = (0..).zip(all).filter(|(_, returned)| returned.inline);
                inline.map(|(index, _)| value(task.object(index))).collect()
            }
            PeerMessage::Located { object, place: Place::Inline } => vec![value(*object)],
            _ => Vec::new(),
        };
        let when = self.delay();
        let link = (Address::Worker(from), Address::Worker(to));
        self.agenda.send(link, when, Event::Peer { from, to, message, values });
    }

    fn peer_says(
        &mut self,
        from: WorkerId,
        to: WorkerId,
        message: PeerMessage,
        values: Vec<(ObjectId, Stored)>,
    ) {
        if !self.arrives(from) {
            return;
        }
        let Some(at) = self.workers.get_mut(&to) else { return };
        if at.closed.contains(&from) {
            return;
        }
        at.table.extend(values);
        self.tell(to, LocalEvent::FromPeer { from, message });
    }

    /// Whether what that worker sent comes through: a dead one's last words may not.
    fn arrives(&self, from: WorkerId) -> bool {
        self.cuts.get(&from).is_none_or(|cut| self.now <= *cut)
    }

    // The head.

    fn head_up(&mut self) {
        let restarted = self.head_number > 0;
        self.head_number += 1;
        let seed = self.seed;
        self.head = Some(ClusterCore::new(ClusterConfig { seed, ..ClusterConfig::default() }));
        self.head_timer = None;
        if restarted {
            let jobs = self.durable.jobs.iter();
            let names = self.durable.names.iter();
            let restored = ClusterEvent::Restored {
                jobs: jobs.map(|(job, (spec, n))| (*job, spec.clone(), *n)).collect(),
                workers: self.durable.workers.iter().copied().collect(),
                names: names.map(|(name, (actor, at))| (name.clone(), *actor, *at)).collect(),
            };
            self.tell_head(restored);
        }
    }

    /// A worker asks for a session: from now on, all that it says goes to this head, after what
    /// it holds at this moment.
    fn hello(&mut self, worker: WorkerId) {
        let number = self.head_number;
        let here = self.head.is_some();
        let when = self.delay();
        let Some(at) = self.workers.get_mut(&worker) else { return };
        if !here {
            let again = self.now + 20 * MILLISECOND;
            return self.agenda.at(again, Event::Hello(worker));
        }
        at.session = Some(number);
        let held = at.core.held();
        let link = (Address::Worker(worker), Address::Head);
        self.agenda.reset(link);
        self.agenda.reset((Address::Head, Address::Worker(worker)));
        self.agenda.send(link, when, Event::Joined(worker, number, held));
    }

    fn joined(&mut self, worker: WorkerId, number: u64, held: Held) {
        if number != self.head_number || self.head.is_none() || !self.arrives(worker) {
            return;
        }
        let total = match self.workers.get(&worker) {
            Some(at) => at.total.clone(),
            None => return,
        };
        self.durable.workers.insert(worker);
        let when = self.delay();
        let link = (Address::Head, Address::Worker(worker));
        self.agenda.send(link, when, Event::HeadFound(worker, number));
        let labels = Vec::new();
        self.tell_head(ClusterEvent::WorkerJoined { worker, total, labels, held });
    }

    fn tell_head(&mut self, event: ClusterEvent) {
        if self.trace {
            println!("{:>12} head <- {event:?}", self.now);
        }
        let Some(head) = &mut self.head else { return };
        head.handle(Timestamp(self.now), event);
        self.do_head_actions();
    }

    fn head_timer(&mut self) {
        self.head_timer = None;
        let Some(head) = &mut self.head else { return };
        if head.poll_timeout().is_some_and(|due| due.0 <= self.now) {
            head.handle_timeout(Timestamp(self.now));
        }
        self.do_head_actions();
    }

    fn do_head_actions(&mut self) {
        let Some(head) = &mut self.head else { return };
        if self.events.is_multiple_of(self.options.check_every) {
            head.check_invariants();
        }
        while let Some(action) = self.head.as_mut().and_then(ClusterCore::poll_action) {
            if self.trace {
                println!("{:>12} head -> {action:?}", "");
            }
            match action {
                ClusterAction::Send { to, message } => {
                    let when = self.delay();
                    let link = (Address::Head, Address::Worker(to));
                    let number = self.head_number;
                    self.agenda.send(link, when, Event::FromHead(to, number, message));
                }
                ClusterAction::JobChanged { job, state } => self.job_changed(job, state),
                ClusterAction::NameChanged { name, actor } => {
                    match actor {
                        Some(holder) => self.durable.names.insert(name, holder),
                        None => self.durable.names.remove(&name),
                    };
                }
            }
        }
        let Some(due) = self.head.as_ref().and_then(ClusterCore::poll_timeout) else { return };
        if self.head_timer.is_none_or(|timer| timer > due.0) {
            self.head_timer = Some(due.0);
            self.agenda.at(due.0.max(self.now), Event::HeadTimer);
        }
    }

    fn head_says(&mut self, to: WorkerId, number: u64, message: FromHead) {
        let Some(at) = self.workers.get_mut(&to) else { return };
        if at.session != Some(number) {
            return;
        }
        match &message {
            FromHead::WorkerDied { worker, .. } if *worker == to => {
                // Expelled: it ends itself.
                self.kill(to);
                return;
            }
            FromHead::WorkerDied { worker, .. } => drop(at.closed.insert(*worker)),
            FromHead::JobEnded { job } => drop(at.ended.insert(*job)),
            _ => {}
        }
        self.tell(to, LocalEvent::FromHead(message));
    }

    // Jobs.

    fn submit_job(&mut self, job: JobId) {
        if self.head.is_none() {
            return self.agenda.at(self.now + 50 * MILLISECOND, Event::Submit(job));
        }
        let id = TaskId::driver(job);
        let driver = TaskSpec {
            id,
            parent: id,
            kind: TaskKind::Driver,
            function: 0,
            request: Resources::NONE,
            dependencies: Vec::new(),
            borrowed: Vec::new(),
            returns: 0,
            max_retries: 1_000,
            strategy: Strategy::Default,
            priority: 0,
            body: super::network::mix(self.seed, job.0.into()).to_le_bytes().to_vec(),
        };
        self.durable.jobs.insert(job, (driver.clone(), 0));
        self.tell_head(ClusterEvent::JobSubmitted { job, driver });
    }

    fn job_changed(&mut self, job: JobId, state: JobState) {
        match state {
            JobState::Waiting { attempt, .. } | JobState::Running { attempt, .. } => {
                if let Some((_, known)) = self.durable.jobs.get_mut(&job) {
                    assert!(*known <= attempt, "{job} goes back to attempt {attempt}");
                    *known = attempt;
                }
            }
            state => {
                if let JobState::Failed(error) = &state {
                    self.excuse(job, error);
                }
                self.durable.jobs.remove(&job);
                let before = self.ended.insert(job, state);
                assert!(before.is_none(), "{job} ended twice");
            }
        }
    }

    // Faults.

    fn stalled(&self, event: &Event) -> Option<u64> {
        let worker = match event {
            Event::FromExecutor { worker, .. }
            | Event::ToExecutor { worker, .. }
            | Event::ProcessUp(worker, _)
            | Event::Pulled { worker, .. }
            | Event::Peer { to: worker, .. }
            | Event::HeadFound(worker, _)
            | Event::FromHead(worker, ..)
            | Event::HeadLost(worker, _)
            | Event::Hello(worker)
            | Event::WorkerTimer(worker) => worker,
            Event::Step(at) => &at.worker,
            _ => return None,
        };
        Some(self.workers.get(worker)?.stalled_until)
    }

    fn fault(&mut self) {
        if self.now > self.options.fault_time {
            return;
        }
        let next = self.now + 2 + self.rng.below(2 * self.options.fault_every);
        self.agenda.at(next & !1, Event::Fault);
        let faults = self.options.faults;
        let living = Arc::clone(&self.living);
        let Some(worker) = self.rng.pick(&living) else { return };
        match self.rng.below(10) {
            0..=2 if faults.executors => self.kill_executor(worker),
            3 if faults.workers => {
                let at = &self.workers[&worker];
                if at.drained || self.open_workers() > 2 {
                    self.kill(worker);
                }
            }
            4 if faults.heads && self.rng.one_in(3) => self.kill_head(),
            5 if faults.joins => self.join(),
            6 if faults.stalls => {
                let until = self.now + self.rng.below(200 * MILLISECOND);
                if let Some(at) = self.workers.get_mut(&worker)
                    && at.stalled_until < self.now
                {
                    at.stalled_until = until | 1;
                }
            }
            7 if faults.breaks => {
                // The connection is made again, and what was not acknowledged sent again.
                let Some(other) = self.rng.pick(&living) else { return };
                let late = (self.now + self.rng.below(300 * MILLISECOND)) & !1;
                let link = match self.rng.one_in(3) {
                    true => (Address::Worker(worker), Address::Head),
                    false => (Address::Worker(worker), Address::Worker(other)),
                };
                self.agenda.send(link, late, Event::Nothing);
            }
            8 if faults.drains && self.rng.one_in(4) => {
                let open = self.open_workers();
                let Some(at) = self.workers.get_mut(&worker) else { return };
                if open > 2 && !at.drained && self.head.is_some() {
                    at.drained = true;
                    self.agenda.at(next, Event::Leave(worker));
                    self.tell_head(ClusterEvent::WorkerDraining { worker });
                    self.tell(worker, LocalEvent::Drain);
                }
            }
            9 if faults.stops && self.rng.one_in(6) => {
                let job = JobId(1 + self.rng.below(self.options.jobs.len() as u64) as u32);
                if self.durable.jobs.contains_key(&job) {
                    self.agenda.at(self.now, Event::Stop(job));
                }
            }
            _ => {}
        }
    }

    /// Workers that programs can know of.
    pub fn members(&self) -> Vec<WorkerId> {
        let joined = |worker: &WorkerId| self.durable.workers.contains(worker);
        self.living.iter().copied().filter(joined).collect()
    }

    fn open_workers(&self) -> usize {
        self.workers.values().filter(|at| !at.drained).count()
    }

    /// A worker that is to leave goes when it is idle, or when its operator has lost patience.
    fn leave(&mut self, worker: WorkerId) {
        let Some(at) = self.workers.get(&worker) else { return };
        if at.core.is_idle() || self.now > self.options.fault_time {
            return self.kill(worker);
        }
        self.agenda.at(self.now + 100 * MILLISECOND, Event::Leave(worker));
    }

    fn kill_executor(&mut self, worker: WorkerId) {
        let Some(at) = self.workers.get(&worker) else { return };
        let up: Vec<ExecutorId> =
            at.processes.iter().filter(|(_, p)| p.up).map(|(id, _)| *id).collect();
        if let Some(executor) = self.rng.pick(&up) {
            self.harm.executors_died = true;
            self.exit(worker, executor);
        }
    }

    fn kill(&mut self, worker: WorkerId) {
        if self.workers.remove(&worker).is_none() {
            return;
        }
        self.harm.workers_died = true;
        let cut = self.now + self.rng.below(MILLISECOND);
        self.cuts.insert(worker, cut);
        self.living = self.workers.keys().copied().collect();
        let detected = self.now + 5 * MILLISECOND + self.rng.below(300 * MILLISECOND);
        self.agenda.at(detected & !1, Event::Detected(worker));
    }

    fn kill_head(&mut self) {
        if self.head.take().is_none() {
            return;
        }
        self.harm.heads_died = true;
        let number = self.head_number;
        self.head_number += 1; // what is under way to it, or from it, is lost
        let workers = Arc::clone(&self.living);
        for worker in workers.iter() {
            let when = self.delay();
            self.agenda.at(when, Event::HeadLost(*worker, number));
        }
        let up = self.now + 10 * MILLISECOND + self.rng.below(500 * MILLISECOND);
        self.agenda.at(up & !1, Event::HeadUp);
    }

    // The end.

    fn check_end(&mut self) {
        for (id, worker) in &self.workers {
            worker.core.check_invariants();
            let objects: Vec<_> = worker.core.objects().take(5).collect();
            assert!(objects.is_empty(), "{id} keeps {objects:#?}");
            let tasks: Vec<_> = worker.core.tasks().take(5).collect();
            assert!(tasks.is_empty(), "{id} keeps {tasks:#?}");
            let actors: Vec<_> = worker.core.actors().take(5).collect();
            assert!(actors.is_empty(), "{id} keeps {actors:#?}");
            let values: Vec<_> = worker.table.keys().take(5).collect();
            assert!(values.is_empty(), "the table of {id} keeps {values:?}");
            assert!(worker.processes.is_empty(), "{id} keeps {:?}", worker.processes.keys());
            assert!(worker.core.is_idle(), "{id} is not idle");
            worker.usage.check_nothing(*id);
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
        for (id, worker) in &self.workers {
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

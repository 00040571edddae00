//! The world around several cores: links, a head, runtimes with tables of values, and programs.

#[path = "ending.rs"]
mod ending;
#[path = "program.rs"]
mod program;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::super::bench::killed;
use crate::id::{ActorId, ExecutorId, JobId, ObjectId, TaskId, WorkerId};
use crate::local::{LocalAction, LocalConfig, LocalCore, LocalEvent};
use crate::message::{FromHead, PeerMessage, Place, ToHead};
use crate::outcome::{Cause, Death, Outcome, TaskError};
use crate::resource::Resources;
use crate::spec::{Assignment, Reference, TaskKind, TaskSpec};
use crate::time::Timestamp;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Faults {
    None,
    Executors,
    Workers,
}

/// A value: the references inside.
#[derive(Debug, Clone)]
struct Stored {
    contains: Vec<Reference>,
}

#[derive(Debug)]
enum Frame {
    Peer(PeerMessage, Vec<(ObjectId, Stored)>),
    Head(FromHead),
    ToHead(ToHead),
}

#[derive(Debug)]
struct Running {
    spec: Arc<TaskSpec>,
    attempt: u32,
    children: u64,
    puts: u32,
    waits_for: Option<ObjectId>,
}

#[derive(Debug, Default)]
struct Process {
    up: bool,
    running: Vec<Running>,
    refs: BTreeSet<Reference>,
    /// Delivered and not released: read in place.
    views: BTreeSet<ObjectId>,
    /// Calls that it made of each actor.
    calls: BTreeMap<ActorId, u64>,
}

struct Worker {
    core: LocalCore,
    table: BTreeMap<ObjectId, Stored>,
    processes: BTreeMap<ExecutorId, Process>,
    pulls: VecDeque<(ObjectId, WorkerId)>,
}

pub(super) struct World {
    rng: u64,
    faults: Faults,
    now: Timestamp,
    workers: BTreeMap<WorkerId, Worker>,
    links: BTreeMap<(WorkerId, WorkerId), VecDeque<Frame>>,
    actors: Vec<(ActorId, WorkerId)>,
    started: BTreeMap<(ActorId, WorkerId, u64), u64>,
    /// Objects in the order of their first mention: a value contains older ones only, since
    /// references in a circle would count each other for ever.
    ages: BTreeMap<ObjectId, usize>,
    /// What a task is that somebody has submitted: for who runs again, the same.
    kinds: BTreeMap<TaskId, TaskKind>,
    /// Who wants to know the workers.
    subscribed: BTreeSet<WorkerId>,
    /// Programs submit nothing more and let go of what they have.
    ending: bool,
}

/// EX-1: no state is without a reason, and everybody who keeps an object is named.
fn check_explained(core: &LocalCore) {
    for view in core.tasks() {
        let reason = core.explain(view.task);
        assert!(reason.is_some_and(|text| !text.is_empty()), "EX-1: {view:?} is explained");
    }
    for view in core.actors() {
        let reason = core.explain(view.actor.0);
        assert!(reason.is_some_and(|text| !text.is_empty()), "EX-1: {view:?} is explained");
    }
    for view in core.objects() {
        assert_eq!(view.holders as usize, view.held_by.len(), "EX-1: holders of {view:?}");
    }
    if let Some(view) = core.objects().next() {
        assert!(core.explain_object(view.object).is_some(), "EX-1: {view:?} is explained");
    }
}

const DRIVERS: [(JobId, WorkerId); 2] = [(JobId(1), WorkerId(1)), (JobId(2), WorkerId(2))];

impl World {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        let mut world = Self {
            rng: seed,
            faults,
            now: Timestamp(0),
            workers: BTreeMap::new(),
            links: BTreeMap::new(),
            actors: Vec::new(),
            started: BTreeMap::new(),
            ages: BTreeMap::new(),
            kinds: BTreeMap::new(),
            subscribed: BTreeSet::new(),
            ending: false,
        };
        for number in 1..=4 {
            let worker = WorkerId(number);
            let known = LocalConfig::new(worker, Resources::cpus(2.0));
            let short_runs = core::time::Duration::from_micros(200); // none here is
            let core = LocalCore::new(LocalConfig { short_runs, ..known });
            let (table, processes) = (BTreeMap::new(), BTreeMap::new());
            let pulls = VecDeque::new();
            world.workers.insert(worker, Worker { core, table, processes, pulls });
            world.handle(worker, LocalEvent::HeadFound { fresh: true });
        }
        for (job, worker) in DRIVERS {
            let mut spec = world.spec(TaskId::driver(job), TaskKind::Driver, Vec::new());
            spec.request = Resources::NONE;
            let driver = Assignment::new(spec, 0, WorkerId::HEAD);
            world.head_says(worker, FromHead::Assigned(vec![driver]));
        }
        world
    }

    pub(super) fn run(&mut self, steps: u32) {
        for _ in 0..steps {
            self.step();
        }
        self.ending = true;
        for round in 0.. {
            for _ in 0..200 {
                self.step();
            }
            if self.is_quiet() {
                break;
            }
            assert!(round < 600, "stuck: {:#?}", self.stuck());
        }
        self.check_end();
    }

    fn below(&mut self, bound: usize) -> usize {
        self.rng = self.rng.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.rng;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ x >> 31) % bound.max(1) as u64) as usize
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> Option<T> {
        (!items.is_empty()).then(|| items[self.below(items.len())])
    }

    fn step(&mut self) {
        self.now.0 += 1_000_000;
        let links: Vec<_> =
            self.links.iter().filter(|(_, queue)| !queue.is_empty()).map(|(l, _)| *l).collect();
        let workers: Vec<WorkerId> = self.workers.keys().copied().collect();
        match self.below(4) {
            0 | 1 => {
                if let Some(link) = self.pick(&links) {
                    self.deliver(link);
                }
            }
            _ => {
                let worker = self.pick(&workers).expect("a worker lives");
                self.tick(worker);
                self.step_worker(worker);
            }
        }
        if !self.ending && self.faults == Faults::Workers && self.chance(1_500) {
            // Drivers' workers stay, so that something is left to look at.
            let doomed = [WorkerId(3), WorkerId(4)];
            let doomed = self.pick(&doomed).expect("two");
            self.kill_worker(doomed);
        }
    }

    fn worker(&mut self, worker: WorkerId) -> &mut Worker {
        self.workers.get_mut(&worker).expect("a worker that lives")
    }

    fn process(&mut self, worker: WorkerId, executor: ExecutorId) -> &mut Process {
        self.worker(worker).processes.get_mut(&executor).expect("a process that runs")
    }

    fn handle(&mut self, at: WorkerId, event: LocalEvent) {
        if std::env::var_os("SIM_TRACE").is_some() {
            println!("{at} <- {event:?}");
        }
        let now = self.now;
        let core = &mut self.worker(at).core;
        core.handle(now, event);
        self.act_all(at);
    }

    /// Lets a worker's timers strike, if one is due.
    fn tick(&mut self, at: WorkerId) {
        let now = self.now;
        let core = &mut self.worker(at).core;
        if core.poll_timeout().is_some_and(|due| due <= now) {
            core.handle_timeout(now);
            self.act_all(at);
        }
    }

    fn act_all(&mut self, at: WorkerId) {
        self.worker(at).core.check_invariants();
        check_explained(&self.worker(at).core);
        while let Some(action) = self.worker(at).core.poll_action() {
            if std::env::var_os("SIM_TRACE").is_some() {
                println!("    {at} -> {action:?}");
            }
            self.act(at, action);
        }
    }

    fn act(&mut self, at: WorkerId, action: LocalAction) {
        match action {
            LocalAction::StartExecutor { executor, .. } => {
                self.worker(at).processes.insert(executor, Process::default());
            }
            LocalAction::StopExecutor { executor, .. } => {
                if self.worker(at).processes.remove(&executor).is_some() {
                    self.handle(at, LocalEvent::ExecutorDied { executor, death: killed() });
                }
            }
            LocalAction::Run { executor, spec, attempt } => self.start(at, executor, spec, attempt),
            LocalAction::Deliver { executor, object, error } => {
                self.delivered(at, executor, object, error);
            }
            LocalAction::Cancel { executor, task } => {
                if let Some(process) = self.worker(at).processes.get_mut(&executor)
                    && let Some(place) = process.running.iter().position(|r| r.spec.id == task)
                {
                    let attempt = process.running.swap_remove(place).attempt;
                    let cause = Cause::Cancelled;
                    let outcome = Outcome::Failed(TaskError { task, cause });
                    self.handle(at, LocalEvent::Finished { executor, task, attempt, outcome });
                }
            }
            LocalAction::DropActor { executor, actor } => {
                let Some(process) = self.worker(at).processes.get_mut(&executor) else { return };
                let calls = process.running.extract_if(.., |running| {
                    matches!(running.spec.kind,
                        TaskKind::ActorCall { actor: of, .. } if of == actor)
                });
                for running in calls.collect::<Vec<_>>() {
                    let (task, attempt) = (running.spec.id, running.attempt);
                    let cause = Cause::ActorDied(Death::Ended);
                    let outcome = Outcome::Failed(TaskError { task, cause });
                    self.handle(at, LocalEvent::Finished { executor, task, attempt, outcome });
                }
            }
            LocalAction::ActorFound { .. }
            | LocalAction::Offers { .. }
            | LocalAction::Credit { .. } => {}
            LocalAction::Route { .. }
            | LocalAction::RouteEnded { .. }
            | LocalAction::Lease { .. }
            | LocalAction::EndLease { .. } => {}
            LocalAction::RunAhead { .. } | LocalAction::Recall { .. } => {
                unreachable!("here every run takes milliseconds")
            }
            LocalAction::Restore { .. } | LocalAction::Keep { .. } => {
                panic!("no actor of these programs saves its state")
            }
            LocalAction::Pull { object, from, .. } => {
                self.worker(at).pulls.push_back((object, from));
            }
            LocalAction::PutNothing { .. } => unreachable!("no program here reserves groups"),
            LocalAction::Free { object } => self.freed(at, object),
            LocalAction::Send { to, message } => {
                let values = self.attached(at, &message);
                self.send(at, to, Frame::Peer(message, values));
            }
            LocalAction::SendHead(message) => {
                self.send(at, WorkerId::HEAD, Frame::ToHead(message));
            }
        }
    }

    fn start(&mut self, at: WorkerId, executor: ExecutorId, spec: Arc<TaskSpec>, attempt: u32) {
        for dependency in &spec.dependencies {
            let is_there = self.worker(at).table.contains_key(&dependency.object);
            assert!(is_there, "{:?} runs on {at} without {dependency:?}", spec.id);
        }
        if let (TaskKind::ActorCall { actor, rules, .. }, 0) = (&spec.kind, attempt)
            && !rules.out_of_order
        {
            let word = |at: usize| {
                u64::from_le_bytes(spec.body[at..at + 8].try_into().expect("eight bytes"))
            };
            let last = self.started.entry((*actor, at, word(9))).or_default();
            assert!(*last < word(1), "calls of one submitter start in order");
            *last = word(1);
        }
        let running = Running { spec, attempt, children: 0, puts: 0, waits_for: None };
        let process = self.process(at, executor);
        assert!(process.up, "nothing runs in {executor} before it is up");
        process.running.push(running);
    }

    fn delivered(
        &mut self,
        at: WorkerId,
        executor: ExecutorId,
        object: ObjectId,
        error: Option<Arc<TaskError>>,
    ) {
        let is_there = self.worker(at).table.contains_key(&object);
        match &error {
            None => assert!(is_there, "{object:?} is readable on {at}"),
            Some(error) if self.faults == Faults::None => {
                let is_meant = matches!(
                    error.cause,
                    Cause::Panicked { .. }
                        | Cause::Cancelled
                        | Cause::TimedOut { .. }
                        | Cause::ActorDied(Death::Ended)
                );
                assert!(is_meant, "{object:?}: {error}");
            }
            Some(_) => {}
        }
        let Some(process) = self.worker(at).processes.get_mut(&executor) else { return };
        if error.is_none() && process.refs.iter().any(|held| held.object == object) {
            process.views.insert(object);
        }
        let mut goes_on = Vec::new();
        for running in &mut process.running {
            if running.waits_for == Some(object) {
                running.waits_for = None;
                goes_on.push((running.spec.id, running.attempt));
            }
        }
        for (task, attempt) in goes_on {
            self.handle(at, LocalEvent::Unblocked { executor, task, attempt });
        }
    }

    fn freed(&mut self, at: WorkerId, object: ObjectId) {
        self.worker(at).table.remove(&object);
        for (executor, process) in &self.worker(at).processes {
            assert!(!process.views.contains(&object), "{executor} of {at} reads {object:?}");
            let is_argument = process
                .running
                .iter()
                .any(|running| running.spec.dependencies.iter().any(|d| d.object == object));
            assert!(!is_argument, "{object:?} is an argument in {executor} of {at}");
        }
    }

    /// The inline values that go with a message.
    fn attached(&mut self, at: WorkerId, message: &PeerMessage) -> Vec<(ObjectId, Stored)> {
        let table = &self.worker(at).table;
        let value = |object: ObjectId| {
            let stored = table.get(&object);
            (object, stored.unwrap_or_else(|| panic!("{object:?} is on {at}")).clone())
        };
        match message {
            PeerMessage::Finished { task, outcome: Outcome::Returned(values), .. } => (0..)
                .zip(values)
                .filter(|(_, returned)| returned.inline)
                .map(|(index, _)| value(task.object(index)))
                .collect(),
            PeerMessage::Located { object, place: Place::Inline } => vec![value(*object)],
            _ => Vec::new(),
        }
    }

    fn send(&mut self, from: WorkerId, to: WorkerId, frame: Frame) {
        if to == WorkerId::HEAD || self.workers.contains_key(&to) {
            self.links.entry((from, to)).or_default().push_back(frame);
        }
    }

    fn head_says(&mut self, to: WorkerId, message: FromHead) {
        self.send(WorkerId::HEAD, to, Frame::Head(message));
    }

    fn deliver(&mut self, (from, to): (WorkerId, WorkerId)) {
        let frame = self.links.get_mut(&(from, to)).and_then(VecDeque::pop_front);
        match frame {
            Some(Frame::Peer(message, values)) => {
                for (object, value) in values {
                    self.worker(to).table.insert(object, value);
                }
                self.handle(to, LocalEvent::FromPeer { from, message });
            }
            Some(Frame::Head(message)) => self.handle(to, LocalEvent::FromHead(message)),
            Some(Frame::ToHead(message)) => self.head_hears(from, message),
            None => {}
        }
    }

    fn head_hears(&mut self, from: WorkerId, message: ToHead) {
        match message {
            ToHead::Spilled(batch) => {
                for assignment in batch {
                    let workers: Vec<WorkerId> = self.workers.keys().copied().collect();
                    let to = self.pick(&workers).expect("a worker lives");
                    let placed = (assignment.spec.id, assignment.attempt, to);
                    self.head_says(from, FromHead::Placed(vec![placed]));
                    self.head_says(to, FromHead::Assigned(vec![assignment]));
                }
            }
            ToHead::Load(load) => {
                if let Some((request, _)) = load.backlog.first()
                    && self.chance(2)
                {
                    let request = request.clone();
                    self.head_says(from, FromHead::SpillRequested { request, count: 2 });
                }
            }
            ToHead::MembersWanted => {
                self.subscribed.insert(from);
                self.tell_members(from);
            }
            _ => {}
        }
    }

    fn tell_members(&mut self, to: WorkerId) {
        let members = self.workers.keys().copied().collect();
        self.head_says(to, FromHead::Members(members));
    }

    fn kill_worker(&mut self, doomed: WorkerId) {
        if self.workers.remove(&doomed).is_none() {
            return;
        }
        self.links.retain(|(from, to), _| *from != doomed && *to != doomed);
        for worker in self.workers.keys().copied().collect::<Vec<_>>() {
            let reason = "its power failed".to_owned();
            self.head_says(worker, FromHead::WorkerDied { worker: doomed, reason });
            if self.subscribed.contains(&worker) {
                self.tell_members(worker);
            }
        }
    }
}

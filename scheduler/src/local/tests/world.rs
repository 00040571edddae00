//! The world around several cores: links, a head, runtimes with tables of values, and programs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::super::bench::killed;
use crate::id::{ActorId, ExecutorId, JobId, ObjectId, TaskId, WorkerId};
use crate::local::{LocalAction, LocalConfig, LocalCore, LocalEvent};
use crate::message::{FromHead, PeerMessage, Place, ToHead};
use crate::outcome::{Cause, Death, Outcome, Returned, TaskError};
use crate::resource::Resources;
use crate::spec::{ActorOptions, Assignment, Reference, Strategy, TaskKind, TaskSpec};
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
    /// Programs submit nothing more and let go of what they have.
    ending: bool,
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
            ending: false,
        };
        for number in 1..=4 {
            let worker = WorkerId(number);
            let core = LocalCore::new(LocalConfig::new(worker, Resources::cpus(2.0)));
            let (table, processes) = (BTreeMap::new(), BTreeMap::new());
            let pulls = VecDeque::new();
            world.workers.insert(worker, Worker { core, table, processes, pulls });
            world.handle(worker, LocalEvent::HeadFound { fresh: true });
        }
        for (job, worker) in DRIVERS {
            let mut spec = world.spec(TaskId::driver(job), TaskKind::Driver, Vec::new());
            spec.request = Resources::NONE;
            let driver = Assignment { spec, attempt: 0, owner: WorkerId::HEAD };
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

    fn step_worker(&mut self, worker: WorkerId) {
        if let Some((object, from)) = self.worker(worker).pulls.pop_front() {
            let value = self.workers.get(&from).and_then(|other| other.table.get(&object)).cloned();
            return match value {
                Some(value) => {
                    self.worker(worker).table.insert(object, value);
                    self.handle(worker, LocalEvent::Pulled { object, size: 1 << 20 });
                }
                None => {
                    assert_ne!(self.faults, Faults::None, "no copy of {object:?} at {from}");
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
            let task = reference.object.task;
            self.handle(worker, LocalEvent::CancelRequested { task, force });
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
        if waits_for.is_some() {
            if self.ending {
                // Programs may wait in a circle; that is theirs to give up.
                self.process(worker, executor).running[which].waits_for = None;
                self.handle(worker, LocalEvent::Unblocked { executor, task: spec.id });
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
                    self.handle(worker, LocalEvent::Blocked { executor, task });
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

    fn spec(&mut self, id: TaskId, kind: TaskKind, refs: Vec<Reference>) -> TaskSpec {
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
            body: vec![0],
        }
    }

    fn submit(&mut self, w: WorkerId, executor: ExecutorId, which: usize, refs: &[Reference]) {
        let running = &mut self.process(w, executor).running[which];
        running.children += 1;
        let (id, depth) = (running.spec.id.child(running.children), running.spec.body[0]);
        let refs = self.some_refs(refs);
        // The kind follows from the id, so that a parent that runs again repeats it.
        let order = self.calls_of(id);
        let of_job: Vec<_> =
            self.actors.iter().copied().filter(|(actor, _)| actor.0.job() == id.job()).collect();
        let kind = match order % 8 {
            0 => TaskKind::ActorCreate(ActorOptions {
                max_restarts: 20,
                own_process: order & 8 == 0,
                ..ActorOptions::default()
            }),
            1..=3 if !of_job.is_empty() => {
                let (actor, actor_owner) = of_job[(order >> 8) as usize % of_job.len()];
                TaskKind::ActorCall { actor, actor_owner }
            }
            _ => TaskKind::Plain,
        };
        let mut spec = self.spec(id, kind, refs);
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
        let object = running.spec.id.put(running.puts);
        let inline = self.chance(2);
        let contains = self.some_older(refs, object);
        let value = Stored { contains: contains.clone() };
        self.worker(w).table.insert(object, value);
        self.process(w, executor).refs.insert(Reference { object, owner: w });
        self.handle(w, LocalEvent::Put { by: executor, object, size: 1, inline, contains });
    }

    fn finish(&mut self, w: WorkerId, executor: ExecutorId, which: usize, refs: &[Reference]) {
        let running = self.process(w, executor).running.swap_remove(which);
        let task = running.spec.id;
        let outcome = if self.chance(20) && !matches!(running.spec.kind, TaskKind::ActorCreate(_)) {
            let cause = Cause::Panicked { message: String::new() };
            Outcome::Failed(TaskError { task, cause })
        } else {
            let inline = self.chance(2);
            let contains = self.some_older(refs, task.object(0));
            let value = Stored { contains: contains.clone() };
            self.worker(w).table.insert(task.object(0), value);
            Outcome::Returned(vec![Returned { size: 1 << 20, inline, contains }])
        };
        let attempt = running.attempt;
        self.handle(w, LocalEvent::Finished { executor, task, attempt, outcome });
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
        core.check_invariants();
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
                if let Some(process) = self.worker(at).processes.get_mut(&executor) {
                    process.running.retain(|running| {
                        !matches!(running.spec.kind,
                        TaskKind::ActorCall { actor: of, .. } if of == actor)
                    });
                }
            }
            LocalAction::ActorFound { .. } => {}
            LocalAction::Pull { object, from, .. } => {
                self.worker(at).pulls.push_back((object, from));
            }
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
        if let (TaskKind::ActorCall { actor, .. }, 0) = (&spec.kind, attempt) {
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
                    Cause::Panicked { .. } | Cause::Cancelled | Cause::ActorDied(Death::Ended)
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
                goes_on.push(running.spec.id);
            }
        }
        for task in goes_on {
            self.handle(at, LocalEvent::Unblocked { executor, task });
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
            _ => {}
        }
    }

    fn kill_worker(&mut self, doomed: WorkerId) {
        if self.workers.remove(&doomed).is_none() {
            return;
        }
        self.links.retain(|(from, to), _| *from != doomed && *to != doomed);
        for worker in self.workers.keys().copied().collect::<Vec<_>>() {
            let reason = "its power failed".to_owned();
            self.head_says(worker, FromHead::WorkerDied { worker: doomed, reason });
        }
    }

    /// Nothing is under way, and programs are done but for the drivers.
    fn is_quiet(&self) -> bool {
        self.links.values().all(VecDeque::is_empty)
            && self.workers.values().all(|worker| {
                worker.pulls.is_empty()
                    && worker.core.tasks().all(|task| task.task == TaskId::driver(task.task.job()))
                    && worker.processes.values().all(|process| process.refs.is_empty())
            })
    }

    fn stuck(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (id, worker) in &self.workers {
            for task in worker.core.tasks() {
                let why = worker.core.explain(task.task);
                lines.push(format!("{id} {:?} {} {why:?}", task.task, task.state));
            }
            for (executor, process) in &worker.processes {
                for running in &process.running {
                    let waits = running
                        .waits_for
                        .map(|object| worker.core.objects().find(|view| view.object == object));
                    lines.push(format!("{id} {executor} {:?} {waits:?}", running.spec.id));
                }
            }
        }
        lines
    }

    /// Everybody has let go of everything: only actors' arguments may still be held.
    fn check_end(&mut self) {
        for (job, _) in DRIVERS {
            let owned: Vec<(ActorId, WorkerId)> =
                self.actors.iter().copied().filter(|actor| actor.0.0.job() == job).collect();
            for (actor, owner) in owned {
                if self.workers.contains_key(&owner) {
                    self.handle(owner, LocalEvent::ActorKillRequested { actor, owner });
                }
            }
        }
        for _ in 0..10_000 {
            self.step();
        }
        assert!(self.is_quiet(), "{:#?}", self.stuck());
        for (id, worker) in &self.workers {
            let objects: Vec<_> = worker.core.objects().collect();
            assert!(objects.is_empty(), "{id} keeps {objects:#?}");
            let held: Vec<_> = worker.table.keys().collect();
            assert!(held.is_empty(), "the table of {id} keeps {held:?}");
        }
    }
}

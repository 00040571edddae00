//! Simulated executors: processes that run programs and talk to their worker over rings.

pub mod end;
mod submit;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rdist_scheduler::checkpoint::EndedCall;
use rdist_scheduler::hash::{FastMap, FastSet};
use rdist_scheduler::id::{ActorId, ExecutorId, GroupId, ObjectId, TaskId, WorkerId};
use rdist_scheduler::local::{ExecutorRole, LocalEvent};
use rdist_scheduler::outcome::TaskError;
use rdist_scheduler::spec::{Reference, TaskKind, TaskSpec};

use super::cluster::{Event, Simulation};
use super::network::{Address, mix};
use super::workload::{Op, Program, driver_program, task_program};

/// A value in a worker's table.
#[derive(Debug, Clone)]
pub struct Stored {
    pub value: u64,
    pub contains: Vec<Reference>,
}

/// What a worker tells an executor.
#[derive(Debug)]
pub enum Command {
    Run(Arc<TaskSpec>, u32),
    /// With the last turn that the worker has heard of.
    RunAhead(Arc<TaskSpec>, u32, u64),
    Recall,
    Deliver(ObjectId, Option<Arc<TaskError>>),
    /// The actor that is made next is made from this.
    Restore(ActorId, Vec<u8>),
    Cancel(TaskId),
    DropActor(ActorId),
    Stop,
}

#[derive(Debug)]
pub struct Process {
    pub role: ExecutorRole,
    pub up: bool,
    /// Its job has ended, or it was told to go: what it holds counts no longer.
    pub leaving: bool,
    pub runs: BTreeMap<u64, Run>,
    /// How many places in it refer to an object.
    holds: FastMap<ObjectId, u32>,
    /// Delivered, and read in place.
    pub views: FastSet<ObjectId>,
    waiting: BTreeMap<ObjectId, Vec<u64>>,
    actors: BTreeMap<ActorId, Actor>,
    call_numbers: FastMap<ActorId, u64>,
    restores: FastMap<ActorId, Vec<u8>>,
    turns: Turns,
}

/// Tasks that wait for their turn.
#[derive(Debug, Default)]
struct Turns {
    /// Turns so far.
    now: u64,
    /// The last one that started a task that waited.
    used: u64,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    spec: Arc<TaskSpec>,
    attempt: u32,
    after: u64,
    cancelled: bool,
}

#[derive(Debug, Default)]
struct Actor {
    life: u64,
    count: u64,
    /// Calls in order; the first one runs.
    calls: VecDeque<u64>,
    /// Of one that saves its state: calls whose ends are not told yet.
    unsaved: Vec<EndedCall>,
}

#[derive(Debug)]
pub struct Run {
    pub spec: Arc<TaskSpec>,
    pub attempt: u32,
    program: Program,
    next: usize,
    slots: Vec<Reference>,
    actors: Vec<ActorId>,
    groups: Vec<GroupId>,
    /// What it has read so far.
    read: u64,
    children: u64,
    puts: u32,
    /// Still to be read for the current `Get`; the first one refers to the others.
    wants: VecDeque<Reference>,
    inner: bool,
    blocked: bool,
    failed: bool,
}

impl Process {
    pub fn new(role: ExecutorRole) -> Self {
        Self {
            role,
            up: false,
            leaving: false,
            runs: BTreeMap::new(),
            holds: FastMap::default(),
            views: FastSet::default(),
            waiting: BTreeMap::new(),
            actors: BTreeMap::new(),
            call_numbers: FastMap::default(),
            turns: Turns::default(),
            restores: FastMap::default(),
        }
    }
}

impl Run {
    /// What the ids of its children and puts derive from.
    fn root(&self) -> TaskId {
        self.spec.id.root(self.attempt)
    }
}

/// Which run of which process.
#[derive(Debug, Clone, Copy)]
pub struct At {
    pub worker: WorkerId,
    pub executor: ExecutorId,
    pub run: u64,
}

impl Simulation {
    pub fn command(&mut self, worker: WorkerId, executor: ExecutorId, command: Command) {
        let Some(process) = self.process(worker, executor) else { return };
        if process.leaving && !matches!(command, Command::Stop) {
            return; // what was under way when its job ended
        }
        match command {
            Command::Run(spec, attempt) => self.run_task(worker, executor, spec, attempt),
            Command::RunAhead(spec, attempt, after) => {
                self.run_ahead(
                    worker,
                    executor,
                    Waiting { spec, attempt, after, cancelled: false },
                );
            }
            Command::Recall => {
                let Some(process) = self.process(worker, executor) else { return };
                process.turns.waiting.clear();
                self.say(worker, executor, LocalEvent::Recalled { executor }, Vec::new());
            }
            Command::Deliver(object, error) => self.delivered(worker, executor, object, error),
            Command::Restore(actor, state) => {
                if let Some(process) = self.process(worker, executor) {
                    process.restores.insert(actor, state);
                }
            }
            Command::Cancel(task) => self.cancel(worker, executor, task),
            Command::DropActor(actor) => {
                let Some(process) = self.process(worker, executor) else { return };
                let calls = process.actors.remove(&actor).map(|actor| actor.calls);
                for run in calls.into_iter().flatten() {
                    self.forget_run(At { worker, executor, run });
                }
            }
            Command::Stop => self.exit(worker, executor),
        }
    }

    /// The process ends; what it said before still arrives first.
    pub fn exit(&mut self, worker: WorkerId, executor: ExecutorId) {
        let Some(at) = self.workers.get_mut(&worker) else { return };
        if at.processes.remove(&executor).is_some() {
            let death = super::cluster::killed();
            self.say(worker, executor, LocalEvent::ExecutorDied { executor, death }, Vec::new());
        }
    }

    fn run_task(&mut self, worker: WorkerId, executor: ExecutorId, spec: Arc<TaskSpec>, n: u32) {
        let program = match &spec.kind {
            TaskKind::Driver => driver_program(word(&spec, 0), self.mix_of(spec.id.job())),
            TaskKind::Plain => task_program(word(&spec, 0), spec.body[8], spec.borrowed.len()),
            TaskKind::ActorCreate(_) | TaskKind::ActorCall { .. } => Program {
                ops: vec![Op::Compute(mix(word(&spec, 0), 5) % 200_000)],
                returns: Vec::new(),
            },
            TaskKind::GroupCreate(_) | TaskKind::Bundle { .. } => {
                panic!("{:?} runs in {executor} of {worker}, and has no code", spec.id)
            }
        };
        let mut read = word(&spec, 0);
        for dependency in &spec.dependencies {
            let value = self.checked_value(worker, dependency.object);
            if self.oracle.get(dependency.object).is_some() {
                read = mix(read, value);
            }
        }
        self.next_run += 1;
        let at = At { worker, executor, run: self.next_run };
        for reference in &spec.borrowed {
            self.hold(at, *reference, true);
        }
        let slots = spec.borrowed.clone();
        let actor = match spec.kind {
            TaskKind::ActorCall { actor, .. } => Some(actor),
            _ => None,
        };
        let run = Run {
            spec,
            attempt: n,
            program,
            next: 0,
            slots,
            actors: Vec::new(),
            groups: Vec::new(),
            read,
            children: 0,
            puts: 0,
            wants: VecDeque::new(),
            inner: false,
            blocked: false,
            failed: false,
        };
        let Some(process) = self.process(worker, executor) else { return };
        process.runs.insert(at.run, run);
        match actor {
            None => self.step_soon(at, 0),
            Some(actor) => {
                let Some(actor) = process.actors.get_mut(&actor) else {
                    panic!("a call runs in {executor} of {worker}, where {actor} does not live");
                };
                actor.calls.push_back(at.run);
                if actor.calls.len() == 1 {
                    self.step_soon(at, 0);
                }
            }
        }
    }

    /// Runs a program until it computes, waits or ends.
    pub fn step(&mut self, at: At) {
        loop {
            let Some(run) = self.running(at) else { return };
            if run.blocked {
                return;
            }
            if !run.wants.is_empty() {
                if !self.read_wanted(at) {
                    return;
                }
                continue;
            }
            let Some(op) = run.program.ops.get(run.next).cloned() else { return self.finish(at) };
            run.next += 1;
            match op {
                Op::Compute(time) => return self.step_soon(at, time),
                Op::Submit(child) => self.submit_task(at, &child),
                Op::Put { seed, inline, contains } => self.put(at, seed, inline, &contains),
                Op::Get(slot) => {
                    let reference = run.slots[slot];
                    run.wants.push_back(reference);
                    run.inner = false;
                }
                Op::Drop(slot) => {
                    let object = run.slots[slot].object;
                    self.let_go(at, object);
                }
                Op::Spawn { own_process, cpus, named, place } => {
                    self.spawn(at, own_process, cpus, (named, place));
                }
                Op::Reserve { bundles, strategy } => self.reserve(at, &bundles, strategy),
                Op::Return(group) => self.return_group(at, group),
                Op::Call { actor, dependencies } => self.call(at, actor, &dependencies),
            }
        }
    }

    /// Reads the next wanted value; false if it has to wait.
    fn read_wanted(&mut self, at: At) -> bool {
        let Some(run) = self.running(at) else { return false };
        let Some(reference) = run.wants.front().copied() else { return true };
        let (task, object) = (run.spec.id, reference.object);
        let takes_turns = run.spec.takes_turns();
        let Some(process) = self.process(at.worker, at.executor) else { return false };
        if !process.views.contains(&object) {
            let waiting = process.waiting.entry(object).or_default();
            let first = waiting.is_empty();
            waiting.push(at.run);
            if let Some(run) = process.runs.get_mut(&at.run) {
                run.blocked = true;
            }
            let executor = at.executor;
            self.say(at.worker, executor, LocalEvent::Blocked { executor, task }, Vec::new());
            if takes_turns {
                self.turn(at.worker, executor);
            }
            if first {
                let wanted = LocalEvent::Wanted { by: executor, reference };
                self.say(at.worker, executor, wanted, Vec::new());
            }
            return false;
        }
        if self.workers[&at.worker].processes[&at.executor].leaving
            && !self.workers[&at.worker].table.contains_key(&object)
        {
            return false; // its job has ended, and it will not read on
        }
        let value = self.checked_value(at.worker, object);
        let known = self.oracle.get(object).is_some();
        let contains = match self.workers[&at.worker].table.get(&object) {
            Some(stored) => stored.contains.clone(),
            None => Vec::new(),
        };
        let Some(run) = self.running(at) else { return false };
        run.wants.pop_front();
        if known {
            run.read = mix(run.read, value);
        }
        let inner = run.inner;
        self.calls.observed(object.task, value);
        if inner {
            self.let_go(at, object);
            return true;
        }
        let Some(run) = self.running(at) else { return false };
        run.inner = true;
        run.wants.extend(&contains);
        for inner in contains {
            self.hold(at, inner, true);
        }
        true
    }

    fn delivered(
        &mut self,
        worker: WorkerId,
        executor: ExecutorId,
        object: ObjectId,
        error: Option<Arc<TaskError>>,
    ) {
        let Some(process) = self.process(worker, executor) else { return };
        let waiting = process.waiting.remove(&object).unwrap_or_default();
        if let Some(error) = &error {
            for run in &waiting {
                let at = At { worker, executor, run: *run };
                if !self.runs_for_nobody(at) {
                    self.excuse(object.task, error);
                }
            }
        }
        let Some(process) = self.process(worker, executor) else { return };
        if error.is_none() && process.holds.contains_key(&object) {
            process.views.insert(object);
        }
        for number in waiting {
            let at = At { worker, executor, run: number };
            let Some(run) = self.running(at) else { continue };
            run.blocked = false;
            let (task, inner) = (run.spec.id, run.inner);
            if error.is_some() {
                run.failed = true;
                run.wants.pop_front();
                if inner {
                    self.let_go(at, object);
                }
            }
            self.say(worker, executor, LocalEvent::Unblocked { executor, task }, Vec::new());
            self.step_soon(at, 0);
        }
    }

    /// A head that restarted may place a task again whose first run had just ended: the owner has
    /// its result, and may have freed what the second run reads, and what its children read.
    fn runs_for_nobody(&self, at: At) -> bool {
        let mut next = Some(at);
        while let Some(at) = next {
            if self.has_no_owner(at) {
                return true;
            }
            next = self.parent_of(at);
        }
        false
    }

    /// The run that submitted what runs there.
    fn parent_of(&self, at: At) -> Option<At> {
        let spec = &self.workers[&at.worker].processes[&at.executor].runs.get(&at.run)?.spec;
        let parent = Some(spec.parent).filter(|parent| *parent != spec.id)?;
        self.workers.iter().find_map(|(worker, of)| {
            of.processes.iter().find_map(|(executor, process)| {
                let (run, _) = process.runs.iter().find(|(_, run)| run.spec.id == parent)?;
                Some(At { worker: *worker, executor: *executor, run: *run })
            })
        })
    }

    fn has_no_owner(&self, at: At) -> bool {
        let Some(worker) = self.workers.get(&at.worker) else { return true };
        let Some(run) = worker.processes[&at.executor].runs.get(&at.run) else { return true };
        let task = run.spec.id;
        let Some(here) = worker.core.tasks().find(|view| view.task == task) else { return true };
        let owner = self.workers.get(&here.owner);
        here.owner != WorkerId::HEAD
            && owner.is_none_or(|owner| !owner.core.tasks().any(|view| view.task == task))
    }

    /// One more place in the process refers to an object.
    fn hold(&mut self, at: At, reference: Reference, borrowed: bool) {
        let Some(process) = self.process(at.worker, at.executor) else { return };
        let count = process.holds.entry(reference.object).or_default();
        *count += 1;
        if borrowed && *count == 1 {
            let event = LocalEvent::Retained { by: at.executor, reference };
            self.say(at.worker, at.executor, event, Vec::new());
        }
    }

    fn let_go(&mut self, at: At, object: ObjectId) {
        let Some(process) = self.process(at.worker, at.executor) else { return };
        let Some(count) = process.holds.get_mut(&object) else { return };
        *count -= 1;
        if *count == 0 {
            process.holds.remove(&object);
            process.views.remove(&object);
            process.waiting.remove(&object);
            let event = LocalEvent::Released { by: at.executor, object };
            self.say(at.worker, at.executor, event, Vec::new());
        }
    }

    /// The value in the worker's table, which must be there and right.
    fn checked_value(&self, worker: WorkerId, object: ObjectId) -> u64 {
        let Some(stored) = self.workers[&worker].table.get(&object) else {
            panic!("{object:?} is read on {worker}, where it is not");
        };
        if let Some(expected) = self.oracle.get(object) {
            assert_eq!(stored.value, expected.value, "{object:?} has a wrong value");
            let contains = stored.contains.iter().map(|inner| inner.object);
            assert!(contains.eq(expected.contains.iter().copied()), "{object:?} contains others");
        }
        stored.value
    }

    fn say(
        &mut self,
        worker: WorkerId,
        executor: ExecutorId,
        message: LocalEvent,
        values: Vec<(ObjectId, Stored)>,
    ) {
        let link = (Address::Executor(worker, executor), Address::Worker(worker));
        let at = self.now + 1_000 + self.rng.below(10_000);
        self.agenda.send(link, at, Event::FromExecutor { worker, executor, message, values });
    }

    fn step_soon(&mut self, at: At, after: u64) {
        let when = self.now + 500 + after;
        self.agenda.at(when & !1, Event::Step(at));
    }

    fn process(&mut self, worker: WorkerId, executor: ExecutorId) -> Option<&mut Process> {
        self.workers.get_mut(&worker)?.processes.get_mut(&executor)
    }

    pub(super) fn running(&mut self, at: At) -> Option<&mut Run> {
        self.process(at.worker, at.executor)?.runs.get_mut(&at.run)
    }
}

fn word(spec: &TaskSpec, at: usize) -> u64 {
    let bytes = spec.body.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    u64::from_le_bytes(bytes.expect("a body of this simulation"))
}

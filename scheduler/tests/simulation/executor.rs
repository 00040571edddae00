//! Simulated executors: processes that run programs and talk to their worker over rings.

pub mod end;
mod lane;
mod lease;
mod reading;
mod ring;
mod stream;
mod submit;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rdist_scheduler::checkpoint::EndedCall;
use rdist_scheduler::hash::{FastMap, FastSet};
use rdist_scheduler::id::{ActorId, ExecutorId, GroupId, JobId, ObjectId, TaskId, WorkerId};
use rdist_scheduler::local::{ExecutorRole, LeaseEnd, LocalEvent};
use rdist_scheduler::outcome::{Death, TaskError};
use rdist_scheduler::spec::{Reference, TaskKind, TaskSpec};

use super::cluster::{Event, Simulation};
use super::network::{Address, mix};
use super::workload::{Op, Program, driver_program, stream_program, task_program};

use lane::Host;
pub use lease::Leases;
use lease::Lessee;
pub use ring::Rings;
use stream::Reading;

/// A value in a worker's table.
#[derive(Debug, Clone)]
pub struct Stored {
    pub value: u64,
    pub contains: Vec<Reference>,
}

/// What a worker tells an executor.
#[derive(Debug, Clone)]
pub enum Command {
    Run(Arc<TaskSpec>, u32),
    /// With the last turn that the worker has heard of.
    RunAhead(Arc<TaskSpec>, u32, u64),
    Recall,
    Deliver(ObjectId, Option<Arc<TaskError>>),
    /// The actor that is made next is made from this.
    Restore(ActorId, Vec<u8>),
    Cancel(TaskId),
    Credit(TaskId, u32),
    DropActor(ActorId),
    /// What that executor gives next comes after this.
    Fence(u64, ExecutorId),
    /// The host, the fence there, and the lease's number; nothing: not now.
    Lease(Option<(ExecutorId, u64, u64)>),
    /// That executor's lease is wanted back.
    EndLease(ExecutorId, u64, LeaseEnd),
    /// What a leased task makes comes by the worker, which counts this process as a holder.
    Made(ObjectId),
    LinkEnded(ExecutorId, Death),
    Stop,
}

#[derive(Debug)]
pub struct Process {
    pub job: JobId,
    pub role: ExecutorRole,
    pub up: bool,
    /// Its job has ended, or it was told to go: what it holds counts no longer.
    pub leaving: bool,
    /// It is stopped, and reads nothing, until then.
    pub stalled_until: u64,
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
    host: Host,
    lessee: Lessee,
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
    /// Who gave it, if it came by a lease.
    lane: Option<ExecutorId>,
    program: Program,
    next: usize,
    slots: Vec<Reference>,
    /// Those that it has made, and whether they are in a group of its own.
    actors: Vec<(ActorId, bool)>,
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
    /// It waits for a lease, to submit this.
    unsent: Option<Box<TaskSpec>>,
    /// The stream that it reads.
    pub stream: Option<Reading>,
    /// What it has yielded, and how many of that were taken, as far as it knows.
    yielded: u32,
    taken: u32,
    /// It waits until so many are.
    credit: Option<u32>,
}

impl Process {
    pub fn new(job: JobId, role: ExecutorRole) -> Self {
        Self {
            job,
            role,
            up: false,
            leaving: false,
            stalled_until: 0,
            runs: BTreeMap::new(),
            holds: FastMap::default(),
            views: FastSet::default(),
            waiting: BTreeMap::new(),
            actors: BTreeMap::new(),
            call_numbers: FastMap::default(),
            turns: Turns::default(),
            restores: FastMap::default(),
            host: Host::default(),
            lessee: Lessee::default(),
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
            Command::Run(spec, attempt) => {
                self.run_task((worker, executor), spec, attempt, None);
            }
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
            Command::Credit(task, taken) => self.credit(worker, executor, task, taken),
            Command::DropActor(actor) => self.drop_actor(worker, executor, actor),
            Command::Fence(number, caller) => self.fence(worker, executor, (number, caller)),
            Command::Lease(granted) => self.lease_answered(worker, executor, granted),
            Command::EndLease(caller, number, how) => {
                self.end_lease(worker, (caller, executor), number, how);
            }
            Command::Made(object) => self.made(worker, executor, object),
            Command::LinkEnded(peer, death) => self.link_ended(worker, executor, peer, &death),
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

    fn run_task(
        &mut self,
        (worker, executor): (WorkerId, ExecutorId),
        spec: Arc<TaskSpec>,
        n: u32,
        lane: Option<ExecutorId>,
    ) -> Option<At> {
        let program = match &spec.kind {
            TaskKind::Driver => driver_program(word(&spec, 0), self.mix_of(spec.id.job())),
            TaskKind::Plain if n < u32::from(spec.body[12]) => {
                Program { ops: vec![Op::Compute(100_000_000_000)], returns: Vec::new() }
            }
            TaskKind::Plain if spec.stream().is_some() => {
                stream_program(word(&spec, 0), spec.body[10].into())
            }
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
        let taken = spec.stream().map_or(0, |stream| stream.consumed);
        let run = Run {
            spec,
            attempt: n,
            lane,
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
            unsent: None,
            stream: None,
            yielded: 0,
            taken,
            credit: None,
        };
        let process = self.process(worker, executor)?;
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
        Some(at)
    }

    /// Runs a program until it computes, waits or ends.
    pub fn step(&mut self, at: At) {
        loop {
            let Some(run) = self.running(at) else { return };
            if run.blocked || run.unsent.is_some() {
                return;
            }
            if !run.wants.is_empty() {
                if !self.read_wanted(at) {
                    return;
                }
                continue;
            }
            if run.stream.is_some() {
                self.read_on(at);
                continue;
            }
            let Some(op) = run.program.ops.get(run.next).cloned() else { return self.finish(at) };
            run.next += 1;
            if op.submits() {
                self.leave_lease(at);
            }
            let Some(run) = self.running(at) else { return };
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
                Op::Stream { child, take, keep } => self.open_stream(at, &child, take, keep),
                Op::Yield { seed, inline, contains } => {
                    if !self.yield_item(at, seed, inline, &contains) {
                        return;
                    }
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

    /// One more place in the process refers to an object.
    fn hold(&mut self, at: At, reference: Reference, borrowed: bool) {
        let Some(process) = self.process(at.worker, at.executor) else { return };
        let count = process.holds.entry(reference.object).or_default();
        *count += 1;
        if borrowed && *count == 1 && !self.is_counted(at, reference.object) {
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
            if !self.drops_own(at, object) {
                self.say_released(at.worker, at.executor, object);
            }
        }
    }

    fn say_released(&mut self, worker: WorkerId, executor: ExecutorId, object: ObjectId) {
        let event = LocalEvent::Released { by: executor, object };
        self.say(worker, executor, event, Vec::new());
    }

    /// What a run waited for is known.
    fn goes_on(&mut self, at: At) {
        let Some(run) = self.running(at) else { return };
        run.blocked = false;
        let (executor, task, attempt) = (at.executor, run.spec.id, run.told_as());
        let unblocked = LocalEvent::Unblocked { executor, task, attempt };
        self.say(at.worker, executor, unblocked, Vec::new());
        self.step_soon(at, 0);
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

//! Simulated executors: processes that run programs and talk to their worker over rings.

mod actor;
mod direct;
pub mod end;
mod lane;
mod lease;
mod named;
mod reading;
mod ring;
mod route;
mod run;
mod stream;
mod submit;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rdist_scheduler::hash::{FastMap, FastSet};
use rdist_scheduler::id::{ActorId, ExecutorId, JobId, ObjectId, TaskId, WorkerId};
use rdist_scheduler::local::{ExecutorRole, LeaseEnd, LocalEvent};
use rdist_scheduler::outcome::{Death, TaskError};
use rdist_scheduler::spec::{Reference, TaskSpec};

use super::cluster::{Event, Simulation, killed};
use super::network::Address;
use super::workload::Op;

use actor::Actor;
pub use actor::{Crowds, Waits};
use direct::Direct;
use lane::Host;
pub use lease::Leases;
use lease::Lessee;
pub use ring::Rings;
use route::Route;
pub use route::Routes;
use run::Given;
pub use run::{Handle, Run};
pub use stream::Streams;

/// A value in a worker's table.
#[derive(Debug, Clone)]
pub struct Stored {
    pub value: u64,
    /// It fits into a message, and never goes to disk.
    pub inline: bool,
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
    /// The actor's process, and the fence there; nothing: not now.
    Route(ActorId, Option<(ExecutorId, u64)>),
    RouteEnded(ActorId, Death),
    /// For a run that has asked for a name.
    Found(u64, Option<(ActorId, WorkerId)>),
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
    direct: Direct,
    routes: BTreeMap<ActorId, Route>,
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
            direct: Direct::default(),
            routes: BTreeMap::new(),
        }
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
                self.run_task((worker, executor), spec, attempt, Given::ByWorker);
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
            Command::Route(actor, granted) => {
                self.route_answered(worker, executor, actor, granted);
            }
            Command::RouteEnded(actor, death) => {
                self.route_ended(worker, executor, actor, &death);
            }
            Command::Found(run, actor) => self.found((worker, executor), run, actor),
            Command::Stop => self.exit(worker, executor, killed()),
        }
    }

    /// The process ends; what it said before still arrives first.
    pub fn exit(&mut self, worker: WorkerId, executor: ExecutorId, death: Death) {
        let Some(at) = self.workers.get_mut(&worker) else { return };
        if let Some(process) = at.processes.remove(&executor) {
            if process.role == ExecutorRole::Driver {
                self.tries.lost(process.runs.values().map(Run::root));
            }
            self.say(worker, executor, LocalEvent::ExecutorDied { executor, death }, Vec::new());
        }
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
            if run.claim.is_some() {
                self.claim_ends(at);
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
                Op::Stream { child, take, keep, ending } => {
                    self.open_stream(at, &child, (take, keep), ending);
                }
                Op::Yield { seed, inline, contains } => {
                    if !self.yield_item(at, seed, inline, &contains) {
                        return;
                    }
                }
                Op::Spawn { own_process, cpus, named, place } => {
                    self.spawn(at, own_process, cpus, (named, place));
                }
                Op::Cancel(slot, mode) => self.cancel_value(at, slot, mode),
                Op::Kill(actor) => self.kill_actor(at, actor),
                Op::Reserve { bundles, strategy } => self.reserve(at, &bundles, strategy),
                Op::Return(group) => self.return_group(at, group),
                Op::Claim { name, or_get } => self.claim(at, name, or_get),
                Op::LookUp(name) => self.look_up(at, name),
                Op::KillNamed(n) => self.kill_named(at, n),
                Op::KillFound(n) => self.kill_found(at, n),
                Op::Detach => self.detach(),
                Op::Find(n) => self.find(at, n),
                Op::Call { .. } | Op::CallNamed(_) | Op::Watch(_) | Op::Terminate(_) => {
                    let is_called = match op {
                        Op::Call { actor, dependencies, borrowed } => {
                            self.call(at, actor, &dependencies, &borrowed)
                        }
                        Op::CallNamed(n) => self.call_named(at, n),
                        Op::Watch(n) => self.watch(at, n),
                        Op::Terminate(n) => self.terminate(at, n),
                        _ => true,
                    };
                    if !is_called {
                        if let Some(run) = self.running(at) {
                            run.next -= 1;
                        }
                        return;
                    }
                }
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
        self.say_blocked(at, false);
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

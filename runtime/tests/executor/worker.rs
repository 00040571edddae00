//! A worker that schedules nothing and checks everything.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdist::ring::{Bell, DEFAULT_RING_BYTES, Receiver, RingPair, Sender, Spin};
use rdist::scheduler::id::{ActorId, ExecutorId, JobId, ObjectId, TaskId, WorkerId};
use rdist::scheduler::outcome::{Cause, Outcome, TaskError};
use rdist::scheduler::resource::Resources;
use rdist::scheduler::spec::{Reference, Strategy, TaskKind, TaskSpec};
use rdist::store::{Arena, LocalSocket};
use rdist::wire::executor::{CallEnd, FromExecutor, SocketMessage, ToExecutor, Value};
use rdist::wire::{decode, encode};

use crate::program::SCENARIO;

const ME: WorkerId = WorkerId(7);
/// A segment for each process, and no more.
const ARENA_BYTES: u64 = 128 << 20;
/// No scenario takes longer, on the slowest machine.
const LIMIT: Duration = Duration::from_secs(60);
const DRIVER: usize = 0;
const POOL: usize = 1;

/// What a scenario did.
pub(crate) struct Report {
    pub(crate) outcome: Outcome,
    pub(crate) events: Vec<String>,
    pub(crate) blocked: u32,
    pub(crate) unblocked: u32,
    /// References of which a process said that it has them.
    pub(crate) retained: usize,
    /// Puts and returns that are still held at the end.
    pub(crate) leaked: Vec<ObjectId>,
}

/// Runs a scenario in a driver's process and a pooled one.
pub(crate) fn run(scenario: &str) -> Report {
    let mut worker = FakeWorker::start(scenario);
    let job = JobId(1);
    let driver = TaskId::driver(job);
    let spec = TaskSpec {
        id: driver,
        parent: driver,
        kind: TaskKind::Driver,
        function: 0,
        request: Resources::NONE,
        dependencies: Vec::new(),
        borrowed: Vec::new(),
        returns: 0,
        max_retries: 0,
        strategy: Strategy::Default,
        priority: 0,
        policy: None,
        body: Vec::new(),
    };
    worker.running.insert(driver, spec.clone());
    worker
        .send(DRIVER, &ToExecutor::Run { spec, attempt: 0, dependencies: Vec::new(), after: None });
    worker.serve_until(|worker| worker.outcome.is_some());
    worker.settle_down();
    worker.shut_down()
}

/// A process whose worker is gone ends at once, busy or not.
pub(crate) fn dies_with_its_worker() {
    let mut worker = FakeWorker::start("cancel");
    worker.serve_until(|worker| worker.greeted == 2);
    let FakeWorker { executors, .. } = worker;
    for executor in executors {
        let Executor { mut child, socket, sender, receiver, .. } = executor;
        drop((socket, sender, receiver));
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(rdist::ABANDONED_STATUS));
    }
}

struct Executor {
    id: ExecutorId,
    child: Child,
    socket: LocalSocket,
    sender: Sender,
    receiver: Receiver,
    backlog: VecDeque<Vec<u8>>,
    /// Segments that it has a descriptor of.
    segments: BTreeSet<u32>,
}

enum Object {
    Ready { value: Value, contains: Vec<Reference> },
    Failed(TaskError),
}

struct FakeWorker {
    bell: Arc<Bell>,
    arena: Arena,
    executors: Vec<Executor>,
    objects: BTreeMap<ObjectId, Object>,
    freed: BTreeSet<ObjectId>,
    held: BTreeSet<(usize, ObjectId)>,
    wanted: BTreeSet<(ObjectId, usize)>,
    waiting: Vec<TaskSpec>,
    running: HashMap<TaskId, TaskSpec>,
    names: HashMap<String, ActorId>,
    outcome: Option<Outcome>,
    greeted: u32,
    /// Since the last look for what can be freed.
    released: usize,
    events: Vec<String>,
    blocked: u32,
    unblocked: u32,
    retained: usize,
}

impl FakeWorker {
    fn start(scenario: &str) -> Self {
        let bell = Arc::new(Bell::new().unwrap());
        let executors = (0..2).map(|index| start(index, scenario, &bell)).collect();
        Self {
            bell,
            arena: Arena::new(if scenario == "rates" { 8 } else { 1 } * ARENA_BYTES),
            executors,
            objects: BTreeMap::new(),
            freed: BTreeSet::new(),
            held: BTreeSet::new(),
            wanted: BTreeSet::new(),
            waiting: Vec::new(),
            running: HashMap::new(),
            names: HashMap::new(),
            outcome: None,
            greeted: 0,
            released: 0,
            events: Vec::new(),
            blocked: 0,
            unblocked: 0,
            retained: 0,
        }
    }

    fn serve_until(&mut self, is_over: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + LIMIT;
        let mut spin = Spin::new();
        while !is_over(self) {
            assert!(Instant::now() < deadline, "{} tasks wait", self.waiting.len());
            if self.step() {
                spin.progress();
            } else if !spin.again() {
                self.sleep(Duration::from_millis(100));
            }
        }
    }

    fn sleep(&mut self, limit: Duration) {
        let sleeps = self.executors.iter_mut().all(|executor| {
            let nothing_to_send = executor.backlog.is_empty() || executor.sender.announce_wait();
            executor.receiver.announce_sleep() && nothing_to_send
        });
        if sleeps {
            self.bell.wait(Some(limit)).unwrap();
        }
        for executor in &mut self.executors {
            executor.receiver.awake();
            executor.sender.awake();
        }
    }

    /// After the driver: tasks that still run end, and references are dropped.
    fn settle_down(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while !self.held.is_empty() && Instant::now() < deadline {
            if !self.step() {
                self.sleep(Duration::from_millis(10));
            }
        }
    }

    fn shut_down(mut self) -> Report {
        for index in [DRIVER, POOL] {
            self.send(index, &ToExecutor::Shutdown);
        }
        for executor in &mut self.executors {
            let status = executor.child.wait().unwrap();
            assert_eq!(status.code(), Some(0), "after a shutdown");
        }
        self.arena.check_invariants();
        Report {
            outcome: self.outcome.take().unwrap(),
            events: std::mem::take(&mut self.events),
            blocked: self.blocked,
            unblocked: self.unblocked,
            retained: self.retained,
            leaked: self.held.iter().map(|(_, object)| *object).collect(),
        }
    }

    fn step(&mut self) -> bool {
        let mut moved = false;
        for index in 0..self.executors.len() {
            let executor = &mut self.executors[index];
            if let Some(status) = executor.child.try_wait().unwrap() {
                panic!("executor {index} ended: {status}");
            }
            while let Some(frame) = executor.backlog.front()
                && executor.sender.try_send(frame).unwrap()
            {
                executor.backlog.pop_front();
                moved = true;
            }
            executor.sender.publish();
            // A bounded batch, so that no executor is starved.
            for _ in 0..1_000 {
                let Some(frame) = self.executors[index].receiver.try_recv().unwrap() else { break };
                let message = decode::<FromExecutor>(frame).unwrap();
                self.handle(index, message);
                moved = true;
            }
        }
        moved
    }

    fn send(&mut self, index: usize, message: &ToExecutor) {
        let frame = encode(message);
        let executor = &mut self.executors[index];
        if !executor.backlog.is_empty() || !executor.sender.try_send(&frame).unwrap() {
            executor.backlog.push_back(frame.to_vec());
        }
        executor.sender.publish();
    }

    fn handle(&mut self, by: usize, message: FromExecutor) {
        match message {
            FromExecutor::Hello { functions } => {
                assert!(functions.iter().any(|(_, name)| name == "executor::program::square"));
                self.greeted += 1;
            }
            FromExecutor::Submit(spec) => self.submitted(by, spec),
            FromExecutor::Recalled => unreachable!("nothing is given ahead here"),
            FromExecutor::Finished { task, outcome, values, .. } => {
                self.finished(by, task, outcome, values);
            }
            FromExecutor::Saved { state, calls, .. } => {
                assert!(!state.is_empty() && !calls.is_empty());
                for CallEnd { task, outcome, values, .. } in calls {
                    self.finished(by, task, outcome, values);
                }
            }
            FromExecutor::Put { object, value, contains, .. } => {
                assert!(self.held.insert((by, object)), "{object} put twice");
                let contains: Vec<_> = contains;
                self.check_alive(by, &contains);
                self.ready(by, object, value, contains);
            }
            FromExecutor::Wanted(reference) => {
                let object = reference.object;
                assert!(self.held.contains(&(by, object)), "{object} wanted without a reference");
                self.check_alive(by, &[reference]);
                assert!(self.wanted.insert((object, by)), "{object} wanted twice");
                self.deliver(object);
            }
            FromExecutor::Retained(reference) => {
                self.check_alive(by, &[reference]);
                assert!(self.held.insert((by, reference.object)), "retained while held");
                self.retained += 1;
            }
            FromExecutor::Released(object) => {
                assert!(self.held.remove(&(by, object)), "{object} released, not held");
                assert!(!self.wanted.contains(&(object, by)), "{object} released while wanted");
                self.released += 1;
                // Looking at everything each time would take longer than all the rest.
                if self.released * 8 > self.objects.len() {
                    self.collect();
                }
            }
            FromExecutor::Blocked(task, _) => {
                assert!(self.running.contains_key(&task));
                self.blocked += 1;
            }
            FromExecutor::Unblocked(..) => self.unblocked += 1,
            FromExecutor::Cancel { task, .. } => self.cancel(task),
            FromExecutor::KillActor { actor, owner } => {
                assert_eq!(owner, ME);
                self.names.retain(|_, named| *named != actor);
                self.send(POOL, &ToExecutor::DropActor(actor));
            }
            FromExecutor::ActorLookup { request, name } => {
                let actor = self.names.get(&name).map(|actor| (*actor, ME));
                self.send(by, &ToExecutor::ActorFound { request, actor });
            }
            FromExecutor::OffersWanted { request } => {
                let offers = vec![(ME, Resources::cpus(1.0))];
                self.send(by, &ToExecutor::Offers { request, offers });
            }
            FromExecutor::Detach(_) => panic!("no program here detaches an actor"),
            FromExecutor::RouteWanted(actor) => {
                self.send(by, &ToExecutor::Route { actor, granted: None });
            }
            FromExecutor::LeaseWanted => self.send(by, &ToExecutor::Lease { granted: None }),
            FromExecutor::LeaseOver { .. } => panic!("nobody has a lease"),
            FromExecutor::PutFailed { .. }
            | FromExecutor::Promised { .. }
            | FromExecutor::Answered { .. }
            | FromExecutor::Made { .. } => panic!("no call is direct"),
            FromExecutor::RemoveGroup { .. } => panic!("no program here reserves groups"),
            FromExecutor::SegmentWanted { len: 0 } => {}
            FromExecutor::SegmentWanted { len } => self.grant(by, len),
            FromExecutor::MemoryGiven { .. } => panic!("nobody wanted memory"),
            FromExecutor::Yielded { .. }
            | FromExecutor::CreditWanted { .. }
            | FromExecutor::Consumed { .. } => panic!("no scenario yields"),
            FromExecutor::Event(json) => self.events.push(json),
        }
    }

    /// Nothing that an executor names may have been freed.
    fn check_alive(&self, by: usize, references: &[Reference]) {
        for reference in references {
            let object = reference.object;
            assert_eq!(reference.owner, ME);
            assert!(!self.freed.contains(&object), "{object} is freed, and {by} refers to it");
        }
    }

    fn submitted(&mut self, by: usize, spec: TaskSpec) {
        assert!(self.held.insert((by, spec.id.object(0))), "{} submitted twice", spec.id);
        assert!(self.running.contains_key(&spec.parent), "{} has no parent", spec.id);
        self.check_alive(by, &spec.dependencies);
        self.check_alive(by, &spec.borrowed);
        if let TaskKind::ActorCreate(options) = &spec.kind
            && let Some(name) = &options.name
        {
            self.names.insert(name.clone(), ActorId(spec.id));
        }
        self.waiting.push(spec);
        self.start_tasks();
    }

    fn start_tasks(&mut self) {
        let mut index = 0;
        let mut kept_back = BTreeSet::new();
        while index < self.waiting.len() {
            let spec = &self.waiting[index];
            // An actor's calls start in the order of their submission.
            let actor = match &spec.kind {
                TaskKind::ActorCreate(_) => Some(ActorId(spec.id)),
                TaskKind::ActorCall { actor, .. } => Some(*actor),
                _ => None,
            };
            if actor.is_some_and(|actor| kept_back.contains(&actor)) {
                index += 1;
                continue;
            }
            let states = spec.dependencies.iter().map(|on| self.objects.get(&on.object));
            let states: Vec<_> = states.collect();
            let failed = states.iter().find_map(|state| match state {
                Some(Object::Failed(error)) => Some(error.clone()),
                _ => None,
            });
            let is_ready = states.iter().all(|state| matches!(state, Some(Object::Ready { .. })));
            if let Some(error) = failed {
                let spec = self.waiting.remove(index);
                self.objects.insert(spec.id.object(0), Object::Failed(error));
                self.deliver(spec.id.object(0));
                kept_back.clear();
                index = 0;
            } else if is_ready {
                let spec = self.waiting.remove(index);
                self.run(spec);
            } else {
                kept_back.extend(actor);
                index += 1;
            }
        }
    }

    fn run(&mut self, spec: TaskSpec) {
        let dependencies = spec.dependencies.iter().map(|on| match &self.objects[&on.object] {
            Object::Ready { value, .. } => value.clone(),
            Object::Failed(_) => unreachable!("checked"),
        });
        let dependencies: Vec<_> = dependencies.collect();
        dependencies.iter().for_each(|value| self.introduce(POOL, value));
        self.running.insert(spec.id, spec.clone());
        self.send(POOL, &ToExecutor::Run { spec, attempt: 0, dependencies, after: None });
    }

    fn finished(&mut self, by: usize, task: TaskId, outcome: Outcome, values: Vec<Value>) {
        let spec = self.running.remove(&task).expect("finished once");
        if spec.kind == TaskKind::Driver {
            self.outcome = Some(outcome);
            return;
        }
        match outcome {
            Outcome::Returned(returned) => {
                assert_eq!((returned.len(), values.len()), (1, 1));
                for (returned, value) in returned.into_iter().zip(values) {
                    assert_eq!(returned.inline, matches!(value, Value::Inline(_)));
                    self.check_alive(by, &returned.contains);
                    self.ready(by, task.object(0), value, returned.contains);
                }
            }
            Outcome::Streamed(_) => panic!("no scenario yields"),
            Outcome::Failed(error) | Outcome::Retryable(error) => {
                self.objects.insert(task.object(0), Object::Failed(error));
                self.start_tasks();
                self.deliver(task.object(0));
            }
        }
    }

    fn ready(&mut self, by: usize, object: ObjectId, value: Value, contains: Vec<Reference>) {
        if let Value::Block(block) = &value {
            self.arena.adopt(self.executors[by].id, *block).unwrap();
        }
        self.objects.insert(object, Object::Ready { value, contains });
        self.start_tasks();
        self.deliver(object);
    }

    /// Answers those who want what is there.
    fn deliver(&mut self, object: ObjectId) {
        if !self.objects.contains_key(&object) {
            return;
        }
        let wanted = self.wanted.range((object, 0)..=(object, usize::MAX));
        for (object, by) in wanted.copied().collect::<Vec<_>>() {
            self.wanted.remove(&(object, by));
            let message = match &self.objects[&object] {
                Object::Ready { value, .. } => {
                    let value = value.clone();
                    self.introduce(by, &value);
                    ToExecutor::Ready { object, value }
                }
                Object::Failed(error) => ToExecutor::Failed { object, error: error.clone() },
            };
            self.send(by, &message);
        }
    }

    /// Sends a segment's descriptor before its first use.
    fn introduce(&mut self, to: usize, value: &Value) {
        let Value::Block(block) = value else { return };
        if self.executors[to].segments.insert(block.segment) {
            let (fd, len) = self.arena.read_only(block.segment).unwrap();
            let segment = SocketMessage::Segment { segment: block.segment, len, writable: false };
            self.executors[to].socket.send(&segment, &[fd.as_fd()]).unwrap();
        }
    }

    fn grant(&mut self, by: usize, len: u64) {
        let executor = &mut self.executors[by];
        match self.arena.grant(executor.id, len) {
            Ok(grant) => {
                executor.segments.insert(grant.segment);
                let (segment, len) = (grant.segment, grant.len);
                let message = SocketMessage::Segment { segment, len, writable: true };
                executor.socket.send(&message, &[grant.fd.as_fd()]).unwrap();
            }
            Err(full) => {
                let executor = &self.executors[by];
                let message = SocketMessage::SegmentRefused { reason: full.to_string() };
                executor.socket.send(&message, &[]).unwrap();
            }
        }
    }

    fn cancel(&mut self, task: TaskId) {
        if self.running.contains_key(&task) {
            return self.send(POOL, &ToExecutor::Cancel(task));
        }
        if let Some(at) = self.waiting.iter().position(|spec| spec.id == task) {
            let spec = self.waiting.remove(at);
            let error = TaskError { task, cause: Cause::Cancelled };
            self.objects.insert(spec.id.object(0), Object::Failed(error));
            self.deliver(spec.id.object(0));
        }
    }

    /// Frees what nobody refers to: no process, no task, no value that is itself alive.
    fn collect(&mut self) {
        self.released = 0;
        let tasks = self.waiting.iter().chain(self.running.values());
        let of_tasks = tasks.flat_map(|spec| spec.dependencies.iter().chain(&spec.borrowed));
        let mut open: Vec<_> = of_tasks.map(|reference| reference.object).collect();
        open.extend(self.held.iter().map(|(_, object)| *object));
        let mut alive = BTreeSet::new();
        while let Some(object) = open.pop() {
            if alive.insert(object)
                && let Some(Object::Ready { contains, .. }) = self.objects.get(&object)
            {
                open.extend(contains.iter().map(|reference| reference.object));
            }
        }
        let dead = self.objects.keys().copied().filter(|object| !alive.contains(object));
        for object in dead.collect::<Vec<_>>() {
            let Some(state) = self.objects.remove(&object) else { continue };
            self.freed.insert(object);
            if let Object::Ready { value: Value::Block(block), .. } = state
                && let Some(writer) = self.arena.free(block)
            {
                let index = self.executors.iter().position(|other| other.id == writer).unwrap();
                self.send(index, &ToExecutor::Reclaim(vec![block]));
            }
        }
    }
}

/// Starts the test's own binary as an executor.
fn start(index: usize, scenario: &str, bell: &Arc<Bell>) -> Executor {
    let (socket, theirs) = LocalSocket::pair().unwrap();
    let theirs = theirs.into_fd();
    let number = theirs.as_raw_fd();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["executor_child", "--exact", "--nocapture"])
        .env(rdist::EXECUTOR_FD, rdist::__private::socket_text(theirs.as_fd()))
        .env(SCENARIO, scenario)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    // Safety: `fcntl` is async-signal-safe; the descriptor is open in the child, as `theirs` is
    // dropped after the spawn.
    unsafe {
        command.pre_exec(move || match libc::fcntl(number, libc::F_SETFD, 0) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    let child = command.spawn().unwrap();
    drop(theirs);
    let (rings, pair) = RingPair::create(DEFAULT_RING_BYTES).unwrap();
    let their_bell = Arc::new(Bell::new().unwrap());
    let id = ExecutorId(index as u32 + 1);
    let ring_bytes = DEFAULT_RING_BYTES as u64;
    let welcome = SocketMessage::Welcome { executor: id, worker: ME, job: JobId(1), ring_bytes };
    socket.send(&welcome, &[rings.as_fd(), bell.as_fd(), their_bell.as_fd()]).unwrap();
    let (sender, receiver) = pair.split(their_bell);
    let (backlog, segments) = (VecDeque::new(), BTreeSet::new());
    Executor { id, child, socket, sender, receiver, backlog, segments }
}

//! What a task asks for. The body (function and arguments) is opaque here.
#![allow(missing_docs, reason = "rkyv derives archived fields without docs")]

use core::time::Duration;

use core::fmt;

use rkyv::{Archive, Deserialize, Serialize};
use smallvec::SmallVec;

use crate::id::{ActorId, GroupId, ObjectId, TaskId, WorkerId};
use crate::resource::Resources;

/// An object and the worker that owns it: all that is needed to find its value.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize,
)]
pub struct Reference {
    /// The object.
    pub object: ObjectId,
    /// The worker that knows where copies are and who still refers to them.
    pub owner: WorkerId,
}

/// Everything that is needed to place a task and to run it, once or again. Small, since millions
/// may wait: what few tasks have lies elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Derived from parent and submit index.
    pub id: TaskId,
    /// The task that submitted it; the driver's parent is itself.
    pub parent: TaskId,
    /// What kind of work it is.
    pub kind: TaskKind,
    /// The function's id in the program; names for people are looked up from it.
    pub function: u64,
    /// What it holds while it runs (an actor: while it lives).
    pub request: Resources,
    /// Objects that must be readable before it starts, in the order of its arguments.
    pub dependencies: Vec<Reference>,
    /// References inside the argument values: kept alive while the task is, not waited for.
    pub borrowed: Vec<Reference>,
    /// How many values it returns.
    pub returns: u32,
    /// How often it is run again when an executor or a worker is lost under it.
    pub max_retries: u32,
    /// Where it should run.
    pub strategy: Strategy,
    /// Larger runs first among ready tasks of the same worker.
    pub priority: i32,
    /// What few tasks ask for; `None`: [`Policy::DEFAULT`].
    pub policy: Option<Box<Policy>>,
    /// Function arguments; opaque.
    pub body: Vec<u8>,
}

const _: () = assert!(size_of::<TaskSpec>() == 216);

impl TaskSpec {
    /// A plain task that needs nothing: no arguments, no resources, no retries, and one value
    /// returned. Others say what they have besides, and `..TaskSpec::plain(id, parent)`.
    pub fn plain(id: TaskId, parent: TaskId) -> Self {
        Self {
            id,
            parent,
            kind: TaskKind::Plain,
            function: 0,
            request: Resources::NONE,
            dependencies: Vec::new(),
            borrowed: Vec::new(),
            returns: 1,
            max_retries: 0,
            strategy: Strategy::Default,
            priority: 0,
            policy: None,
            body: Vec::new(),
        }
    }

    /// Its policy, or everybody's.
    pub fn policy(&self) -> &Policy {
        self.policy.as_deref().unwrap_or(&Policy::DEFAULT)
    }

    /// Whether the end of one such task makes just the room that another one needs: then short
    /// ones may wait for each other's end in their executor. Arguments may have to come back from
    /// disk first, so a task that depends on objects takes no part; nor does one in a bundle.
    pub fn takes_turns(&self) -> bool {
        matches!(self.kind, TaskKind::Plain)
            && self.dependencies.is_empty()
            && self.policy.is_none()
            && self.request.is_one_cpu()
            && !matches!(self.strategy, Strategy::Group(_))
    }

    /// Whether it has a process to itself, of its own resources: what asks for memory is held to
    /// it there, what asks for GPUs sees those alone, and that from the process's start.
    pub fn is_alone(&self) -> bool {
        match &self.kind {
            TaskKind::Plain => !self.request.memory.is_zero() || !self.request.gpu.is_zero(),
            TaskKind::ActorCreate(options) => options.own_process || !self.request.gpu.is_zero(),
            _ => false,
        }
    }

    /// How it yields, if it does.
    pub fn stream(&self) -> Option<&StreamPolicy> {
        self.policy.as_ref().and_then(|policy| policy.stream.as_ref())
    }
}

/// How long a try of a task may take, and which ends of a try begin another one, beside losses of
/// executors and workers ([`TaskSpec::max_retries`]). Each kind of end has its own count.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Policy {
    /// How long one try may run. Waiting for dependencies and resources does not count.
    pub timeout: Option<Duration>,
    /// How often a try is repeated that ran longer.
    pub timeout_retries: u32,
    /// How often a try is repeated that ended in [`Outcome::Retryable`](crate::outcome::Outcome).
    pub error_retries: u32,
    /// Id, in the program, of the predicate that tells which errors those are; opaque here.
    pub error_predicate: u64,
    /// How often a try is repeated whose process was killed for want of memory.
    pub memory_retries: u32,
    /// The pauses before tries that follow an error, a timeout or a want of memory.
    pub backoff: Backoff,
    /// It yields values while it runs, instead of returning some; `returns` is 0.
    pub stream: Option<StreamPolicy>,
}

impl Policy {
    /// What holds for tasks that ask for nothing else.
    pub const DEFAULT: Self = Self {
        timeout: None,
        timeout_retries: 0,
        error_retries: 0,
        error_predicate: 0,
        memory_retries: 10,
        backoff: Backoff::DEFAULT,
        stream: None,
    };
}

impl Default for Policy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How a task yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct StreamPolicy {
    /// How many items may be there that the consumer has not taken; 0 counts as 1.
    pub window: u32,
    /// The first item that this try yields; it makes those before, and keeps them. Set by the
    /// owner.
    pub start: u32,
    /// How many items the consumer has taken when the try begins; `u32::MAX`: nobody holds it
    /// back. Set by the owner.
    pub consumed: u32,
}

impl StreamPolicy {
    /// For a first try.
    pub fn new(window: u32) -> Self {
        Self { window, start: 0, consumed: 0 }
    }
}

/// Pauses that double from try to try, each shortened by up to a half: by another part for each
/// task and try, so that what failed together does not come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Backoff {
    /// The first pause.
    pub first: Duration,
    /// The longest one.
    pub most: Duration,
}

impl Backoff {
    /// From 100 ms to 30 s.
    pub const DEFAULT: Self =
        Self { first: Duration::from_millis(100), most: Duration::from_secs(30) };

    /// The pause of `task` before its `again`-th try of a kind, counted from 1.
    pub fn pause(&self, task: TaskId, again: u32) -> Duration {
        let doublings = again.saturating_sub(1).min(31);
        let whole = self.first.saturating_mul(1 << doublings).min(self.most);
        let part = task.child(u64::from(again)).fraction();
        whole.mul_f64(1.0 - part / 2.0)
    }
}

/// What kind of work a task is.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum TaskKind {
    /// A function that runs once.
    Plain,
    /// A job's main function, in an executor of its own.
    Driver,
    /// Makes an actor; `request` is held until the actor ends.
    ActorCreate(Box<ActorOptions>),
    /// A method call; runs where the actor lives, as a rule in order for each submitting executor.
    ActorCall {
        /// The actor.
        actor: ActorId,
        /// The worker that supervises the actor.
        actor_owner: WorkerId,
        /// How it stands to other calls, and to itself.
        rules: CallRules,
    },
    /// Reserves a placement group; it returns when every bundle is reserved. No executor runs it.
    GroupCreate(Box<GroupOptions>),
    /// A bundle of a group, for the worker that is to reserve its `request`. Between workers and
    /// head alone; no program submits one.
    Bundle {
        /// The group.
        group: GroupId,
        /// Which bundle, counted from 0.
        bundle: u32,
    },
}

/// What a placement group reserves. The bundles are reserved together or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct GroupOptions {
    /// What each bundle holds; none of them empty.
    pub bundles: Vec<Resources>,
    /// How the bundles lie to each other.
    pub strategy: GroupStrategy,
    /// For people.
    pub name: Option<String>,
}

impl GroupOptions {
    /// Most bundles of a group.
    pub const MAX_BUNDLES: usize = 10_000;
}

/// How the bundles of a placement group lie to each other.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Archive,
    Serialize,
    Deserialize,
)]
pub enum GroupStrategy {
    /// On as few workers as can be.
    #[default]
    Pack,
    /// On as many workers as can be.
    Spread,
    /// On one worker, or not at all.
    StrictPack,
    /// Each on another worker, or not at all.
    StrictSpread,
}

/// What all calls of an actor have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
pub struct CallRules {
    /// It starts as soon as its arguments are there, also before earlier calls.
    pub out_of_order: bool,
    /// The actor saves its state: a call counts once, however often it is sent.
    pub exactly_once: bool,
}

/// How an actor lives.
#[derive(Debug, Clone, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
pub struct ActorOptions {
    /// How often the actor is made again after its process or worker was lost.
    pub max_restarts: u32,
    /// A process of its own, instead of a place in the job's pooled executor.
    pub own_process: bool,
    /// Calls that may run at the same time; 0 counts as 1.
    pub max_concurrency: u32,
    /// A cluster-wide name.
    pub name: Option<String>,
    /// It saves its state, and is made again from what it saved.
    pub checkpoint: bool,
}

/// Where a task should run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
pub enum Strategy {
    /// Here if it can be, else where its arguments are, else where it fills a worker up.
    #[default]
    Default,
    /// On the worker with the most room.
    Spread,
    /// On that worker; `soft`: elsewhere when it is gone or too small. What is not soft fails when
    /// the worker is gone.
    Affinity {
        /// The worker.
        worker: WorkerId,
        /// Whether another one will do.
        soft: bool,
    },
    /// On a worker whose labels are as it says.
    Labels(Box<LabelSelector>),
    /// In a placement group, on what a bundle of it holds.
    Group(Box<InGroup>),
}

/// Where in a placement group a task runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct InGroup {
    /// The group.
    pub group: GroupId,
    /// The worker that leads the group.
    pub owner: WorkerId,
    /// Which bundle, counted from 0; `None`: any that is large enough.
    pub bundle: Option<u32>,
}

impl Strategy {
    /// The place in a placement group, if it is in one.
    pub fn in_group(&self) -> Option<InGroup> {
        match self {
            Self::Group(place) => Some(**place),
            _ => None,
        }
    }
}

/// Which workers a task may run on, by their labels, and which it would rather.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Archive, Serialize, Deserialize,
)]
pub struct LabelSelector {
    /// All of them hold where it runs.
    pub hard: Vec<LabelRule>,
    /// Of the workers with room, the one where the most of these hold is taken.
    pub soft: Vec<LabelRule>,
}

/// What has to be true of one label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
pub struct LabelRule {
    /// The label's name.
    pub key: String,
    /// What its value has to be.
    pub test: LabelTest,
}

/// What the value of a label has to be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
pub enum LabelTest {
    /// One of these.
    In(Vec<String>),
    /// None of these; a worker without the label will do.
    NotIn(Vec<String>),
    /// Anything.
    Exists,
    /// The worker does not have the label.
    Absent,
}

impl LabelRule {
    /// Whether it holds for a worker with these labels.
    pub fn holds(&self, labels: &[(String, String)]) -> bool {
        let mut values = labels.iter().filter(|(key, _)| *key == self.key).map(|(_, v)| v);
        match &self.test {
            LabelTest::In(wanted) => values.any(|value| wanted.contains(value)),
            LabelTest::NotIn(barred) => !values.any(|value| barred.contains(value)),
            LabelTest::Exists => values.next().is_some(),
            LabelTest::Absent => values.next().is_none(),
        }
    }
}

impl LabelSelector {
    /// Whether a worker with these labels will do.
    pub fn admits(&self, labels: &[(String, String)]) -> bool {
        self.hard.iter().all(|rule| rule.holds(labels))
    }

    /// How many of the soft rules hold for a worker with these labels.
    pub fn preference(&self, labels: &[(String, String)]) -> usize {
        self.soft.iter().filter(|rule| rule.holds(labels)).count()
    }
}

impl fmt::Display for LabelRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.test {
            LabelTest::In(values) if values.len() == 1 => write!(f, "{key}={}", values[0]),
            LabelTest::In(values) => write!(f, "{key} in ({})", values.join(", ")),
            LabelTest::NotIn(values) => write!(f, "{key} not in ({})", values.join(", ")),
            LabelTest::Exists => f.write_str(key),
            LabelTest::Absent => write!(f, "no {key}"),
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules: Vec<String> = self.hard.iter().map(ToString::to_string).collect();
        f.write_str(&rules.join(" and "))
    }
}

/// A task with the number of its current try and the worker that waits for its result.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Assignment {
    /// The task.
    pub spec: TaskSpec,
    /// 0 at first; a finished message of an older attempt is ignored.
    pub attempt: u32,
    /// Who gets the result; [`WorkerId::HEAD`] for drivers.
    pub owner: WorkerId,
    /// Where what it reads lies, as far as its owner knows: the worker with the most bytes first,
    /// [`NEAR`](Self::NEAR) of them. Of use until it is placed.
    pub near: Vec<WorkerId>,
}

impl Assignment {
    /// Most workers that are looked at because what a task reads lies there.
    pub const NEAR: usize = 3;

    /// One that may run anywhere.
    pub fn new(spec: TaskSpec, attempt: u32, owner: WorkerId) -> Self {
        Self { spec, attempt, owner, near: Vec::new() }
    }
}

/// A short list of references; most values contain none.
pub type References = SmallVec<[Reference; 2]>;

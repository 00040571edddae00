//! A worker with something that each message is about.

use std::sync::Arc;

use rdist_scheduler::id::{ActorId, ExecutorId, GroupId, TaskId, WorkerId};
use rdist_scheduler::local::{LocalAction, LocalConfig, LocalCore, LocalEvent};
use rdist_scheduler::message::{CancelMode, FromHead, GroupMessage, PeerMessage, Place};
use rdist_scheduler::outcome::{Outcome, Returned};
use rdist_scheduler::resource::{Amount, Resources};
use rdist_scheduler::spec::{
    ActorOptions, Assignment, CallRules, GroupOptions, GroupStrategy, InGroup, Policy, Reference,
    Strategy, StreamPolicy, TaskKind, TaskSpec,
};

use crate::{GONE, JOB, ME, NOW, PEER, driver, inline, kept, name, object, task};

/// The driver's process, and the job's for tasks.
pub(crate) const DRIVER: ExecutorId = ExecutorId(1);
pub(crate) const POOL: ExecutorId = ExecutorId(2);

pub(crate) fn worker() -> LocalCore {
    let total = one_spot(Resources::cpus(1.0));
    let mut core = LocalCore::new(LocalConfig::new(ME, total));
    let driver = Assignment::new(driver(), 0, WorkerId::HEAD);
    let first = vec![
        LocalEvent::HeadFound { fresh: true },
        from_head(FromHead::Assigned(vec![driver])),
        from_head(FromHead::Members(vec![ME, PEER])),
    ];
    for event in [first, waits(), runs_here(), runs_there(), refers(), groups()].concat() {
        core.handle(NOW, event);
        // Processes start at once; other actions are of no interest.
        while let Some(action) = core.poll_action() {
            if let LocalAction::StartExecutor { executor, .. } = action {
                core.handle(NOW, LocalEvent::ExecutorStarted { executor });
            }
        }
    }
    core
}

/// More than fits, and what the head has to answer.
fn waits() -> Vec<LocalEvent> {
    let cpu = || TaskSpec { request: Resources::cpus(1.0), ..plain() };
    let named = ActorOptions { name: Some(name()), ..ActorOptions::default() };
    vec![
        submit(1, cpu()),
        submit(2, cpu()),
        submit(3, cpu()),
        submit(20, large()),
        submit(21, creates(named, plain())),
        submit(4, reserves(64.0)),
        LocalEvent::ActorLookup { by: DRIVER, request: 1, name: name() },
        LocalEvent::OffersWanted { by: DRIVER, request: 2 },
    ]
}

/// What is `PEER`'s: a stream that waits until items are taken, an actor that has saved its state,
/// another one that is to be made again, and a task whose value has a reference inside.
fn runs_here() -> Vec<LocalEvent> {
    let returned = |index, outcome| {
        let (executor, attempt) = (POOL, 0);
        LocalEvent::Finished { executor, task: task(index), attempt, outcome }
    };
    let value = Returned { size: 8, inline: true, contains: vec![theirs()] };
    let (actor, state, calls) = (ActorId(task(31)), vec![1], Vec::new());
    vec![
        assign(30, streams(plain()), 0),
        LocalEvent::CreditWanted { executor: POOL, task: task(30), wanted: 1 },
        assign(31, creates(lasting(), plain()), 0),
        returned(31, inline()),
        LocalEvent::Saved { executor: POOL, actor, state, calls },
        assign(33, creates(lasting(), plain()), 1),
        assign(42, plain(), 0),
        returned(42, Outcome::Returned(vec![value])),
    ]
}

/// On `PEER`: a stream, an actor with a call of it, and a task that is to end.
fn runs_there() -> Vec<LocalEvent> {
    let placed = |index| from_head(FromHead::Placed(vec![(task(index), 0, PEER)]));
    let made = PeerMessage::Finished { task: task(32), attempt: 0, outcome: inline() };
    let mode = CancelMode::default();
    vec![
        submit(23, streams(large())),
        placed(23),
        submit(32, creates(lasting(), large())),
        placed(32),
        from_peer(made),
        submit(47, calls(ActorId(task(32)), ME)),
        submit(36, large()),
        placed(36),
        LocalEvent::CancelRequested { task: task(36), owner: ME, mode },
    ]
}

/// To an actor of `PEER`'s, to an object of `PEER`'s with a copy here, to one whose owner is dead;
/// `PEER` to one of its own, of which it has another one to keep.
fn refers() -> Vec<LocalEvent> {
    let (by, contains, theirs) = (DRIVER, Vec::new(), theirs());
    let orphan = Reference { object: object(46), owner: GONE };
    let place = Place::At { size: 1 << 20, copies: vec![PEER] };
    let died = FromHead::WorkerDied { worker: GONE, reason: "silent".to_owned() };
    vec![
        submit(34, calls(ActorId(task(35)), PEER)),
        LocalEvent::Retained { by, reference: theirs },
        LocalEvent::Wanted { by, reference: theirs },
        from_peer(PeerMessage::Located { object: theirs.object, place }),
        LocalEvent::Pulled { object: theirs.object, size: 1 << 20 },
        from_peer(PeerMessage::Retain { object: object(2) }),
        LocalEvent::Put { by, object: kept(), size: 1 << 20, inline: false, copies: 2, contains },
        LocalEvent::Retained { by, reference: orphan },
        LocalEvent::Wanted { by, reference: orphan },
        from_head(died),
    ]
}

/// A task in a group of `PEER`'s, a bundle of another one, and a group here that has its bundle
/// there, with a task in it.
fn groups() -> Vec<LocalEvent> {
    let (group, bundle, round) = (GroupId(task(43)), 0, 2);
    let placed = FromHead::GroupPlaced { group, round, workers: vec![PEER] };
    let reserved = GroupMessage::Reserved { group, bundle, round };
    vec![
        submit(38, within(GroupId(task(39)), PEER)),
        from_head(FromHead::Assigned(vec![reservation()])),
        submit(43, reserves(64.0)),
        from_head(placed),
        from_peer(PeerMessage::Group(reserved)),
        submit(44, within(group, ME)),
    ]
}

fn from_head(message: FromHead) -> LocalEvent {
    LocalEvent::FromHead(message)
}

fn from_peer(message: PeerMessage) -> LocalEvent {
    LocalEvent::FromPeer { from: PEER, message }
}

fn submit(index: u64, what: TaskSpec) -> LocalEvent {
    LocalEvent::Submitted { by: DRIVER, spec: Arc::new(spec(index, what)) }
}

fn assign(index: u64, what: TaskSpec, attempt: u32) -> LocalEvent {
    from_head(FromHead::Assigned(vec![Assignment::new(spec(index, what), attempt, PEER)]))
}

fn theirs() -> Reference {
    Reference { object: object(37), owner: PEER }
}

/// As the `index`-th of the driver's.
pub(crate) fn spec(index: u64, spec: TaskSpec) -> TaskSpec {
    TaskSpec { id: task(index), parent: TaskId::driver(JOB), ..spec }
}

/// Nobody's yet; [`spec`] makes it one of the driver's.
pub(crate) fn plain() -> TaskSpec {
    TaskSpec::plain(task(0), task(0))
}

/// Fits nowhere here.
fn large() -> TaskSpec {
    TaskSpec { request: Resources::cpus(64.0), ..plain() }
}

fn streams(spec: TaskSpec) -> TaskSpec {
    let policy = Policy { stream: Some(StreamPolicy::new(1)), ..Policy::DEFAULT };
    TaskSpec { returns: 0, policy: Some(Box::new(policy)), ..spec }
}

fn creates(options: ActorOptions, spec: TaskSpec) -> TaskSpec {
    TaskSpec { kind: TaskKind::ActorCreate(Box::new(options)), ..spec }
}

/// Saves its state, and is made again.
fn lasting() -> ActorOptions {
    ActorOptions { checkpoint: true, max_restarts: 1, ..ActorOptions::default() }
}

/// A call of an actor that `actor_owner` supervises.
pub(crate) fn calls(actor: ActorId, actor_owner: WorkerId) -> TaskSpec {
    let rules = CallRules::default();
    TaskSpec { kind: TaskKind::ActorCall { actor, actor_owner, rules }, ..plain() }
}

/// Of the actor that lives here.
pub(crate) fn call() -> Assignment {
    Assignment::new(spec(5, calls(ActorId(task(31)), PEER)), 0, PEER)
}

fn reserves(cpus: f64) -> TaskSpec {
    let bundles = vec![Resources::cpus(cpus)];
    let options = GroupOptions { bundles, strategy: GroupStrategy::Pack, name: None };
    TaskSpec { kind: TaskKind::GroupCreate(Box::new(options)), ..plain() }
}

pub(crate) fn within(group: GroupId, owner: WorkerId) -> TaskSpec {
    let place = InGroup { group, owner, bundle: Some(0) };
    TaskSpec { strategy: Strategy::Group(Box::new(place)), ..plain() }
}

/// A bundle of a group that `PEER` leads.
fn reservation() -> Assignment {
    let group = GroupId(task(41));
    let kind = TaskKind::Bundle { group, bundle: 0 };
    let request = one_spot(Resources::NONE);
    let spec = TaskSpec { kind, request, returns: 0, ..TaskSpec::plain(group.bundle(0), group.0) };
    Assignment::new(spec, 1, PEER)
}

fn one_spot(mut resources: Resources) -> Resources {
    resources.set("spot", Amount::whole(1));
    resources
}

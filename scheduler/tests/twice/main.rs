//! A message that comes twice, at once or after a later one, is taken once.
//!
//! There is an example of every message, the one after each in a match that names them all: a new
//! one does not compile until it has its example. What the cores say to each other while work runs
//! comes twice in the simulation (`messages_come_twice`).
#![allow(clippy::unwrap_used, missing_docs)]

mod executor;
mod worker;

use std::iter::successors;

use rdist_scheduler::cluster::{ClusterConfig, ClusterCore, ClusterEvent};
use rdist_scheduler::id::{ActorId, GroupId, JobId, ObjectId, TaskId, WorkerId};
use rdist_scheduler::local::{LocalCore, LocalEvent};
use rdist_scheduler::message::{
    ActorPlace, CancelMode, FromHead, GroupMessage, GroupPlace, GroupRequest, Held, Load,
    PeerMessage, Place, ToHead,
};
use rdist_scheduler::outcome::{Cause, Death, Outcome, Returned, TaskError};
use rdist_scheduler::resource::Resources;
use rdist_scheduler::spec::{Assignment, GroupStrategy, TaskKind, TaskSpec};
use rdist_scheduler::time::Timestamp;

use worker::{call, spec, within, worker};

const JOB: JobId = JobId(1);
const ME: WorkerId = WorkerId(1);
const PEER: WorkerId = WorkerId(2);
const GONE: WorkerId = WorkerId(5);
const NOW: Timestamp = Timestamp(1_000);

fn task(index: u64) -> TaskId {
    TaskId::driver(JOB).child(index)
}

fn object(index: u64) -> ObjectId {
    task(index).object(0)
}

/// Put by the driver, to lie on two workers.
fn kept() -> ObjectId {
    TaskId::driver(JOB).put_replicated(0)
}

fn actor() -> ActorId {
    ActorId(task(21))
}

fn group() -> GroupId {
    GroupId(task(4))
}

fn name() -> String {
    "counter".to_owned()
}

fn driver() -> TaskSpec {
    let id = TaskId::driver(JOB);
    TaskSpec { kind: TaskKind::Driver, max_retries: 3, ..TaskSpec::plain(id, id) }
}

fn assignment(index: u64, owner: WorkerId) -> Assignment {
    let request = Resources::cpus(1.0);
    let spec = TaskSpec { request, ..TaskSpec::plain(task(index), TaskId::driver(JOB)) };
    Assignment::new(spec, 0, owner)
}

fn inline() -> Outcome {
    Outcome::Returned(vec![Returned { size: 8, inline: true, contains: Vec::new() }])
}

/// What follows in the table of the head's messages.
fn after_to_head(message: &ToHead) -> Option<ToHead> {
    let (name, actor) = (name(), actor());
    Some(match message {
        ToHead::Load(_) => ToHead::Spilled(vec![assignment(2, PEER)]),
        ToHead::Spilled(_) => ToHead::Ended(vec![(task(1), 0)]),
        ToHead::Ended(_) => ToHead::Blocked { task: task(1), attempt: 0, blocked: true },
        ToHead::Blocked { .. } => {
            ToHead::DriverFinished { job: JOB, attempt: 0, outcome: inline() }
        }
        ToHead::DriverFinished { .. } => ToHead::Met(vec![WorkerId(77)]),
        ToHead::Met(_) => ToHead::Unspill { task: task(9) },
        ToHead::Unspill { .. } => ToHead::ActorNamed { name, actor, owner: PEER },
        ToHead::ActorNamed { .. } => {
            ToHead::ActorUnnamed { name: "taken".to_owned(), actor: ActorId(task(8)) }
        }
        ToHead::ActorUnnamed { .. } => ToHead::ActorLookup { request: 5, name },
        ToHead::ActorLookup { .. } => ToHead::GroupWanted(wanted(7, 1.0)),
        ToHead::GroupWanted(_) => ToHead::GroupUnwanted(group()),
        ToHead::GroupUnwanted(_) => ToHead::MembersWanted,
        ToHead::MembersWanted => ToHead::OffersWanted { request: 7 },
        ToHead::OffersWanted { .. } => return None,
    })
}

fn wanted(round: u32, cpus: f64) -> GroupRequest {
    let bundles = vec![(0, Resources::cpus(cpus))];
    let strategy = GroupStrategy::Pack;
    GroupRequest { group: group(), round, strategy, bundles, beside: Vec::new() }
}

/// A head with two workers, a job that runs and a task that runs on `PEER`, one that waits, and a
/// group that does.
fn head() -> (ClusterCore, u64) {
    let mut core = ClusterCore::new(ClusterConfig::default());
    let total = Resources::cpus(4.0);
    for worker in [PEER, ME] {
        let (total, labels, held) = (total.clone(), Vec::new(), Held::default());
        core.handle(NOW, ClusterEvent::WorkerJoined { worker, total, labels, held });
        if worker == PEER {
            // So that it gets the driver, and the task.
            core.handle(NOW, ClusterEvent::JobSubmitted { job: JOB, driver: driver() });
            let spilled = ToHead::Spilled(vec![assignment(1, PEER)]);
            core.handle(NOW, ClusterEvent::FromWorker { from: PEER, message: spilled });
        }
    }
    let mut large = assignment(9, PEER);
    large.spec.request = Resources::cpus(64.0);
    let name = "taken".to_owned();
    for message in [
        ToHead::Spilled(vec![large]),
        ToHead::GroupWanted(wanted(6, 64.0)),
        ToHead::ActorNamed { name, actor: ActorId(task(8)), owner: PEER },
    ] {
        core.handle(NOW, ClusterEvent::FromWorker { from: PEER, message });
    }
    while core.poll_action().is_some() {}
    (core, 40)
}

fn tell_head(core: &mut ClusterCore, number: u64, message: ToHead) -> usize {
    if core.is_news(PEER, number) {
        core.handle(NOW, ClusterEvent::FromWorker { from: PEER, message });
        core.check_invariants();
    }
    std::iter::from_fn(|| core.poll_action()).count()
}

#[test]
fn what_a_worker_says_to_the_head_twice_counts_once() {
    let available = Resources::cpus(2.0);
    let load = Load { available, assignments: 1, backlog: vec![(Resources::cpus(1.0), 3)] };
    for message in successors(Some(ToHead::Load(load)), after_to_head) {
        let (mut core, number) = head();
        let before = format!("{core:?}");
        let actions = tell_head(&mut core, number, message.clone());
        assert!(actions > 0 || format!("{core:?}") != before, "{message:?} changes nothing");
        let once = format!("{core:?}");
        assert_eq!(tell_head(&mut core, number, message.clone()), 0, "{message:?}");
        assert_eq!(format!("{core:?}"), once, "{message:?}");
        let later = ToHead::ActorLookup { request: 6, name: "nobody".to_owned() };
        tell_head(&mut core, number + 1, later);
        let once = format!("{core:?}");
        assert_eq!(tell_head(&mut core, number, message.clone()), 0, "{message:?}, late");
        assert_eq!(format!("{core:?}"), once, "{message:?}, late");
    }
}

#[test]
fn the_head_hears_members_alone_and_each_by_itself() {
    let (mut core, number) = head();
    assert!(!core.is_news(WorkerId(77), 1));
    assert!(core.is_news(PEER, number) && core.is_news(ME, number));
    assert!(!core.is_news(PEER, number) && !core.is_news(ME, number - 1));
}

fn after_from_head(message: &FromHead) -> Option<FromHead> {
    let reason = "because".to_owned();
    Some(match message {
        FromHead::Assigned(_) => FromHead::Placed(vec![(task(20), 0, PEER)]),
        FromHead::Placed(_) => FromHead::Waiting { task: task(20), reason },
        FromHead::Waiting { .. } => {
            FromHead::SpillRequested { request: Resources::cpus(1.0), count: 1 }
        }
        FromHead::SpillRequested { .. } => {
            FromHead::WorkerDied { worker: WorkerId(3), reason: "silent".to_owned() }
        }
        FromHead::WorkerDied { .. } => FromHead::WorkerLeft { worker: PEER },
        FromHead::WorkerLeft { .. } => FromHead::JobEnded { job: JOB },
        FromHead::JobEnded { .. } => {
            FromHead::ActorNameResult { name: name(), actor: actor(), taken_by: None }
        }
        FromHead::ActorNameResult { .. } => FromHead::ActorFound { request: 1, actor: None },
        FromHead::ActorFound { .. } => {
            FromHead::GroupPlaced { group: group(), round: 1, workers: vec![PEER] }
        }
        FromHead::GroupPlaced { .. } => FromHead::GroupWaiting { group: group(), reason },
        FromHead::GroupWaiting { .. } => FromHead::Members(vec![ME, PEER, WorkerId(6)]),
        FromHead::Members(_) => {
            FromHead::Offers { request: 2, offers: vec![(ME, Resources::cpus(4.0))] }
        }
        FromHead::Offers { .. } => return None,
    })
}

fn after_of_peer(message: &PeerMessage) -> Option<PeerMessage> {
    let (task, attempt, life, number) = (task(2), 0, 0, 1);
    let (object, actor, mode) = (object(2), actor(), CancelMode::default());
    let value = Returned { size: 8, inline: true, contains: Vec::new() };
    let [here, there, comes] = [31, 32, 33].map(|index| ActorId(self::task(index)));
    let lives = ActorPlace::At { worker: PEER, life };
    Some(match message {
        PeerMessage::Finished { .. } => PeerMessage::Yielded { task, attempt, index: 0, value },
        PeerMessage::Yielded { .. } => PeerMessage::CreditWanted { task, attempt, wanted: 1 },
        PeerMessage::CreditWanted { .. } => {
            PeerMessage::Credit { task: self::task(30), consumed: 1 }
        }
        PeerMessage::Credit { .. } => PeerMessage::Consumed { task: self::task(23), count: 1 },
        PeerMessage::Consumed { .. } => PeerMessage::Settled { task: self::task(42), attempt },
        PeerMessage::Settled { .. } => PeerMessage::call(call()),
        PeerMessage::Call(_) => PeerMessage::Locate { object, fetches: true },
        PeerMessage::Locate { .. } => PeerMessage::Located { object, place: Place::Inline },
        PeerMessage::Located { .. } => PeerMessage::Retain { object: self::object(1) },
        PeerMessage::Retain { .. } => PeerMessage::Retained { object },
        PeerMessage::Retained { .. } => PeerMessage::Release { object },
        PeerMessage::Release { .. } => PeerMessage::CopyMade { object },
        PeerMessage::CopyMade { .. } => PeerMessage::CopyLost { object, at: PEER },
        PeerMessage::CopyLost { .. } => PeerMessage::Free { object: self::object(37) },
        PeerMessage::Free { .. } => {
            PeerMessage::Replicate { object, size: 1 << 20, copies: vec![PEER] }
        }
        PeerMessage::Replicate { .. } => PeerMessage::NotKept { object: kept() },
        PeerMessage::NotKept { .. } => PeerMessage::OwnerWanted { object },
        PeerMessage::OwnerWanted { .. } => {
            PeerMessage::OwnerIs { object: self::object(46), owner: Some(PEER) }
        }
        PeerMessage::OwnerIs { .. } => PeerMessage::ActorLocate { actor },
        PeerMessage::ActorLocate { .. } => {
            PeerMessage::ActorLocated { actor: ActorId(self::task(35)), place: lives }
        }
        PeerMessage::ActorLocated { .. } => {
            PeerMessage::ActorLost { actor: there, life, death: Death::Ended }
        }
        PeerMessage::ActorLost { .. } => PeerMessage::ActorSaved {
            actor: there,
            life,
            number,
            state: vec![1],
            calls: Vec::new(),
        },
        PeerMessage::ActorSaved { .. } => PeerMessage::SavedKept { actor: here, life, number },
        PeerMessage::SavedKept { .. } => PeerMessage::ActorStateWanted { actor: there, life: 1 },
        PeerMessage::ActorStateWanted { .. } => {
            PeerMessage::ActorNotes { actor: comes, life: 1, calls: Vec::new() }
        }
        PeerMessage::ActorNotes { .. } => {
            PeerMessage::ActorStateSent { actor: comes, life: 1, state: None, calls: Vec::new() }
        }
        PeerMessage::ActorStateSent { .. } => {
            PeerMessage::CallsSettled { actor: there, calls: vec![task] }
        }
        PeerMessage::CallsSettled { .. } => PeerMessage::ActorKill { actor: here },
        PeerMessage::ActorKill { .. } => PeerMessage::Cancel { task, attempt, mode },
        PeerMessage::Cancel { .. } => {
            PeerMessage::CancelHeard { task: self::task(36), attempt, mode, found: false }
        }
        PeerMessage::CancelHeard { .. } => PeerMessage::CancelRequested { task, mode },
        PeerMessage::CancelRequested { .. } => PeerMessage::Leaves,
        PeerMessage::Leaves => PeerMessage::Group(GroupMessage::Locate(group())),
        PeerMessage::Group(message) => PeerMessage::Group(after_of_group(message)?),
    })
}

fn after_of_group(message: &GroupMessage) -> Option<GroupMessage> {
    let (group, bundle, round) = (group(), 0, 1);
    Some(match message {
        GroupMessage::Locate(_) => {
            let cause = Cause::Refused { reason: "it is gone".to_owned() };
            let place = GroupPlace::Gone(TaskError { task: task(39), cause });
            GroupMessage::Located { group: GroupId(task(39)), place }
        }
        GroupMessage::Located { .. } => GroupMessage::Remove(group),
        GroupMessage::Remove(_) => GroupMessage::Reserved { group, bundle, round },
        GroupMessage::Reserved { .. } => GroupMessage::Refused { group, bundle, round },
        GroupMessage::Refused { .. } => {
            GroupMessage::Return { group: GroupId(task(41)), bundle, round, gone: true }
        }
        GroupMessage::Return { .. } => {
            let entering = spec(6, within(GroupId(task(41)), PEER));
            GroupMessage::Enter {
                bundle,
                round,
                assignment: Box::new(Assignment::new(entering, 0, PEER)),
            }
        }
        GroupMessage::Enter { .. } => {
            GroupMessage::Turned { task: task(44), attempt: 0, bundle, round: 2 }
        }
        GroupMessage::Turned { .. } => return None,
    })
}

fn tell(core: &mut LocalCore, number: u64, (from, event): (WorkerId, LocalEvent)) -> usize {
    if core.is_news(from, number) {
        core.handle(NOW, event);
        core.check_invariants();
    }
    std::iter::from_fn(|| core.poll_action()).count()
}

/// Each changes something when it comes first, and nothing when it comes again.
fn each_twice(messages: impl Iterator<Item = (WorkerId, LocalEvent)>) {
    for message in messages {
        let mut core = worker();
        let actions = tell(&mut core, 40, message.clone());
        // What is kept of its number is always news.
        let blank = format!("{:?}", {
            let mut core = worker();
            core.is_news(message.0, 40);
            core
        });
        assert!(actions > 0 || format!("{core:?}") != blank, "{message:?} changes nothing");
        let once = format!("{core:?}");
        assert_eq!(tell(&mut core, 40, message.clone()), 0, "{message:?}");
        assert_eq!(format!("{core:?}"), once, "{message:?}");
        tell(&mut core, 41, (message.0, LocalEvent::FromHead(FromHead::Placed(Vec::new()))));
        let once = format!("{core:?}");
        assert_eq!(tell(&mut core, 40, message.clone()), 0, "{message:?}, late");
        assert_eq!(format!("{core:?}"), once, "{message:?}, late");
    }
}

#[test]
fn what_the_head_says_to_a_worker_twice_counts_once() {
    let first = FromHead::Assigned(vec![assignment(7, PEER)]);
    let messages = successors(Some(first), after_from_head);
    each_twice(messages.map(|m| (WorkerId::HEAD, LocalEvent::FromHead(m))));
}

#[test]
fn what_workers_say_to_each_other_twice_counts_once() {
    let first = PeerMessage::Finished { task: task(2), attempt: 0, outcome: inline() };
    let messages = successors(Some(first), after_of_peer);
    let of_peer = |message| (PEER, LocalEvent::FromPeer { from: PEER, message });
    each_twice(messages.map(of_peer));
}

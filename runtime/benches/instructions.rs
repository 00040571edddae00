//! Hot paths whose instructions `cargo xtask instructions` counts under valgrind: unlike a time,
//! such a count is the same on a busy machine as on an idle one. `--list` prints the paths' names;
//! `NAME ROUNDS` goes one of them so often, with what it needs made before. Everything runs on one
//! thread of one process, so that nothing is counted but the path.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use rdist::ring::{Bell, DEFAULT_RING_BYTES, RingPair};
use rdist::scheduler::cluster::{ClusterAction, ClusterConfig, ClusterCore, ClusterEvent};
use rdist::scheduler::id::{ActorId, ExecutorId, JobId, TaskId, WorkerId};
use rdist::scheduler::local::{ExecutorRole, LocalAction, LocalConfig, LocalCore, LocalEvent};
use rdist::scheduler::message::{FromHead, Held, ToHead};
use rdist::scheduler::outcome::{Outcome, Returned};
use rdist::scheduler::resource::Resources;
use rdist::scheduler::spec::{Assignment, Reference, TaskKind, TaskSpec};
use rdist::scheduler::time::Timestamp;
use rdist::store::{Arena, LocalSocket, Segments, Stored, Table, Writer};
use rdist::wire::direct::DirectCall;
use rdist::wire::executor::{FromExecutor, SocketMessage};
use rdist::wire::{decode, encode};

/// A path, and what goes it so often.
type Path = (&'static str, fn(u64));

const PATHS: [Path; 7] = [
    ("ring_frame", |rounds| ring_frames(rounds, 1)),
    // Twice the work of the one before: what counts must tell them apart.
    ("ring_frame_twice", |rounds| ring_frames(rounds, 2)),
    ("submit_message", submit_messages),
    ("direct_call_message", direct_call_messages),
    ("local_task", local_tasks),
    ("cluster_placement", cluster_placements),
    ("store_object", store_objects),
];

const JOB: JobId = JobId(1);
const ME: WorkerId = WorkerId(1);

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    if let [name, rounds] = arguments[..] {
        let path = PATHS.iter().find(|(known, _)| *known == name).expect("a name of --list");
        return path.1(rounds.parse().expect("a number of rounds"));
    }
    // Also for `cargo bench`, which gives arguments of its own.
    for (name, _) in PATHS {
        println!("{name}");
    }
}

/// Frames of 64 bytes, `each` in a round, from an executor's ring to the worker's end of it.
fn ring_frames(rounds: u64, each: u32) {
    let (fd, worker) = RingPair::create(DEFAULT_RING_BYTES).unwrap();
    let executor = RingPair::attach(&fd, DEFAULT_RING_BYTES as u64).unwrap();
    let bell = || Arc::new(Bell::new().unwrap());
    let (_to, mut receiver) = worker.split(bell());
    let (mut sender, _from) = executor.split(bell());
    let frame = black_box([7_u8; 64]);
    for _ in 0..rounds {
        for _ in 0..each {
            assert!(sender.try_send(&frame).unwrap());
            sender.publish();
            black_box(receiver.try_recv().unwrap().unwrap());
        }
    }
}

/// A submitted task: archived by the executor, checked and read by the worker.
fn submit_messages(rounds: u64) {
    for round in 0..rounds {
        let bytes = encode(&FromExecutor::Submit(spec(round + 1)));
        black_box(decode::<FromExecutor>(&bytes).unwrap());
    }
}

/// A call past the worker: archived by the caller, checked and read by the callee.
fn direct_call_messages(rounds: u64) {
    let parent = TaskId::driver(JOB);
    let actor = (ActorId(parent.child(1)), ME);
    for round in 0..rounds {
        let (id, body) = (parent.child(round + 2), vec![1; 16]);
        let bytes = encode(&DirectCall::Call { id, parent, actor, function: 1, body });
        black_box(decode::<DirectCall>(&bytes).unwrap());
    }
}

/// A worker's core from a task's submission until its result is delivered and released.
fn local_tasks(rounds: u64) {
    let mut core = LocalCore::new(LocalConfig::new(ME, Resources::cpus(2.0)));
    let mut now = Timestamp(1);
    core.handle(now, LocalEvent::HeadFound { fresh: true });
    let driver = Assignment::new(driver(), 0, WorkerId::HEAD);
    core.handle(now, LocalEvent::FromHead(FromHead::Assigned(vec![driver])));
    let mut by = ExecutorId(0);
    for index in 0..=rounds {
        now = Timestamp(now.0 + 1_000);
        let spec = Arc::new(spec(index + 1));
        let reference = Reference { object: spec.id.object(0), owner: ME };
        let mut delivered = index == 0;
        if !delivered {
            core.handle(now, LocalEvent::Submitted { by, spec });
            core.handle(now, LocalEvent::Wanted { by, reference });
        }
        while let Some(action) = core.poll_action() {
            match action {
                LocalAction::StartExecutor { executor, role, .. } => {
                    if role == ExecutorRole::Driver {
                        by = executor;
                    }
                    core.handle(now, LocalEvent::ExecutorStarted { executor });
                }
                LocalAction::Run { executor, spec, attempt } if spec.kind == TaskKind::Plain => {
                    let task = spec.id;
                    core.handle(now, finished(executor, task, attempt));
                }
                LocalAction::Deliver { object, .. } => {
                    core.handle(now, LocalEvent::Released { by, object });
                    delivered = true;
                }
                _ => {}
            }
        }
        assert!(delivered, "task {index} of {rounds}");
    }
}

fn finished(executor: ExecutorId, task: TaskId, attempt: u32) -> LocalEvent {
    let outcome = Outcome::Returned(vec![Returned { size: 8, inline: true, contains: Vec::new() }]);
    LocalEvent::Finished { executor, task, attempt, outcome }
}

/// The head's core from a task that a worker cannot run until another has run it, among 16.
fn cluster_placements(rounds: u64) {
    let mut core = ClusterCore::new(ClusterConfig { seed: 1, ..ClusterConfig::default() });
    let now = Timestamp(1);
    for worker in 1..=16 {
        let (worker, total) = (WorkerId(worker), Resources::cpus(4.0));
        let (labels, held) = (Vec::new(), Held::default());
        core.handle(now, ClusterEvent::WorkerJoined { worker, total, labels, held });
    }
    core.handle(now, ClusterEvent::JobSubmitted { job: JOB, driver: driver() });
    while core.poll_action().is_some() {}
    for round in 0..rounds {
        let assignment = Assignment::new(spec(round + 1), 0, ME);
        let message = ToHead::Spilled(vec![assignment]);
        core.handle(now, ClusterEvent::FromWorker { from: ME, message });
        let mut placed = None;
        while let Some(action) = core.poll_action() {
            if let ClusterAction::Send { to, message: FromHead::Assigned(all) } = action {
                placed = Some((to, all[0].spec.id));
            }
        }
        let (from, task) = placed.expect("there is room");
        let message = ToHead::Ended(vec![(task, 0)]);
        core.handle(now, ClusterEvent::FromWorker { from, message });
        while core.poll_action().is_some() {}
    }
}

/// An object of 1,000 bytes: allocated, written and sealed by an executor, taken over by its
/// worker, found, freed, and given back to the executor.
fn store_objects(rounds: u64) {
    const EXECUTOR: ExecutorId = ExecutorId(1);
    let arena = Arc::new(Mutex::new(Arena::new(1 << 30)));
    let (worker, executor) = LocalSocket::pair().unwrap();
    let segments = Arc::new(Segments::new(Arc::new(executor)).unwrap());
    let granting = arena.clone();
    let writer = Writer::new(segments, move |len| {
        let grant = granting.lock().unwrap().grant(EXECUTOR, len).unwrap();
        let (segment, len) = (grant.segment, grant.len);
        let message = SocketMessage::Segment { segment, len, writable: true };
        worker.send(&message, &[grant.fd.as_fd()]).unwrap();
        Ok(())
    });
    // Asks for its segment.
    writer.reclaim([writer.create(1_000).unwrap().seal()]);
    let (mut arena, mut table) = (arena.lock().unwrap(), Table::new());
    for round in 0..rounds {
        let object = TaskId::driver(JOB).child(round + 1).object(0);
        let mut draft = writer.try_create(1_000).unwrap();
        draft.fill(round as u8);
        let block = draft.seal();
        arena.adopt(EXECUTOR, block).unwrap();
        table.insert(object, Stored::Block(block));
        assert!(table.pin(object, EXECUTOR));
        black_box(table.get(object));
        table.unpin(object, EXECUTOR);
        table.remove(object);
        assert_eq!(arena.free(block), Some(EXECUTOR));
        writer.reclaim([block]);
    }
}

fn driver() -> TaskSpec {
    TaskSpec { id: TaskId::driver(JOB), kind: TaskKind::Driver, ..spec(0) }
}

/// The `index`-th task of the driver, with arguments of 16 bytes.
fn spec(index: u64) -> TaskSpec {
    let parent = TaskId::driver(JOB);
    let request = Resources::cpus(if index == 0 { 0.0 } else { 1.0 });
    let (id, body) = (parent.child(index), vec![1; 16]);
    TaskSpec { function: 1, request, body, ..TaskSpec::plain(id, parent) }
}

//! Values that are made again after their owner died.

use super::bench::*;
use crate::id::{ExecutorId, ObjectId, WorkerId};
use crate::local::{LocalAction, LocalEvent};
use crate::message::{FromHead, PeerMessage, Place};
use crate::outcome::{Cause, Outcome, Returned};
use crate::spec::{Reference, Strategy};

const SIZE: u64 = 1 << 20;

/// What the first task puts.
fn put() -> ObjectId {
    task(1).put(0)
}

fn put_on(owner: WorkerId) -> Reference {
    Reference { object: put(), owner }
}

/// The first task returns a small value that refers to what it put on `owner`.
fn returned(owner: WorkerId, attempt: u32) -> PeerMessage {
    let contains = vec![put_on(owner)];
    let outcome = Outcome::Returned(vec![Returned { size: 8, inline: true, contains }]);
    PeerMessage::Finished { task: task(1), attempt, outcome }
}

impl Bench {
    fn spilled_to(&mut self, worker: WorkerId, attempt: u32) {
        assert_eq!(self.claim_spilled(), [(task(1), attempt)]);
        self.head_says(FromHead::Placed(vec![(task(1), attempt, worker)]));
    }

    fn registers(&mut self, owner: WorkerId, attempt: u32) {
        let object = put();
        self.claim_send(owner, PeerMessage::Retain { object });
        self.claim_send(owner, PeerMessage::Settled { task: task(1), attempt });
        self.peer_says(owner, PeerMessage::Retained { object });
    }

    fn dies(&mut self, worker: WorkerId) {
        self.head_says(FromHead::WorkerDied { worker, reason: "its power failed".to_owned() });
    }

    /// The driver has the reference, and has let go of the value that it came in.
    fn with_put_on_peer(retries: u32) -> (Self, ExecutorId) {
        Self::with_put_by(TaskBuilder::new(1).strategy(Strategy::Spread).retries(retries))
    }

    fn with_put_by(task: TaskBuilder) -> (Self, ExecutorId) {
        let (mut bench, driver) = Self::with_driver(2.0);
        bench.submit(driver, task);
        bench.spilled_to(PEER, 0);
        bench.peer_says(PEER, returned(PEER, 0));
        bench.registers(PEER, 0);
        bench.handle(LocalEvent::Retained { by: driver, reference: put_on(PEER) });
        bench.release(driver, 1);
        bench.claim_free(1);
        (bench, driver)
    }

    fn claim_failure(&mut self, of: ObjectId) -> Cause {
        match self.claim() {
            LocalAction::Deliver { object, error: Some(error), .. } if object == of => {
                error.cause.clone()
            }
            other => panic!("no failure of {of:?}: {other:?}"),
        }
    }

    fn lets_go(&mut self, by: ExecutorId) {
        self.handle(LocalEvent::Released { by, object: put() });
    }
}

#[test]
fn what_a_task_put_is_made_again_where_its_owner_is_lost() {
    let (mut bench, driver) = Bench::with_put_on_peer(1);
    let object = put();
    bench.dies(PEER);
    // Not before somebody needs it.
    bench.want(driver, put_on(PEER));
    bench.spilled_to(OTHER, 1);
    bench.peer_says(OTHER, returned(OTHER, 1));
    bench.claim_send(OTHER, PeerMessage::Retain { object });
    bench.claim_send(OTHER, PeerMessage::Locate { object, fetches: true });
    bench.claim_free(1);
    bench.claim_send(OTHER, PeerMessage::Settled { task: task(1), attempt: 1 });
    bench.peer_says(OTHER, PeerMessage::Retained { object });
    let place = Place::At { size: SIZE, copies: vec![OTHER] };
    bench.peer_says(OTHER, PeerMessage::Located { object, place });
    bench.claim_exactly(LocalAction::Pull { object, size: SIZE, from: OTHER });
    // No tries are left.
    bench.dies(OTHER);
    bench.handle(LocalEvent::PullFailed { object, from: OTHER });
    assert_eq!(bench.claim_failure(object), Cause::OwnerDied);
    bench.lets_go(driver);
    assert_eq!(bench.core.objects().count(), 0);
}

#[test]
fn what_is_made_again_here_is_owned_here() {
    let (mut bench, driver) = Bench::with_put_on_peer(1);
    let object = put();
    bench.dies(PEER);
    bench.want(driver, put_on(PEER));
    bench.spilled_to(ME, 1);
    let spread = TaskBuilder::new(1).strategy(Strategy::Spread).retries(1);
    bench.head_says(FromHead::Assigned(vec![spread.assignment(1, ME)]));
    let LocalAction::StartExecutor { executor: pool, .. } = bench.claim() else { panic!() };
    bench.handle(LocalEvent::ExecutorStarted { executor: pool });
    assert_eq!(bench.claim_run(pool), (task(1), 1));
    let (size, contains) = (SIZE, Vec::new());
    bench.handle(LocalEvent::Put { by: pool, object, size, inline: false, copies: 1, contains });
    bench.claim_exactly(LocalAction::Deliver { executor: driver, object, error: None });
    bench.handle(LocalEvent::Released { by: pool, object });
    let contains = vec![put_on(ME)];
    let outcome = Outcome::Returned(vec![Returned { size: 8, inline: true, contains }]);
    bench.finish_attempt(pool, 1, 1, outcome);
    while bench.pending() > 0 {
        bench.claim();
    }
    bench.lets_go(driver);
    bench.claim_exactly(LocalAction::Free { object });
    assert_eq!(bench.core.objects().count(), 0);
}

#[test]
fn a_task_that_does_not_put_it_again_leaves_it_lost() {
    let (mut bench, driver) = Bench::with_put_on_peer(3);
    bench.dies(PEER);
    bench.want(driver, put_on(PEER));
    bench.spilled_to(OTHER, 1);
    let (task, attempt) = (task(1), 1);
    bench.peer_says(OTHER, PeerMessage::Finished { task, attempt, outcome: inline() });
    bench.claim_free(1);
    assert_eq!(bench.claim_failure(put()), Cause::OwnerDied);
    bench.lets_go(driver);
}

#[test]
fn who_needs_it_elsewhere_is_told_its_new_owner() {
    let (mut bench, driver) = Bench::with_put_on_peer(1);
    let (object, asker) = (put(), WorkerId(4));
    bench.dies(PEER);
    bench.peer_says(asker, PeerMessage::OwnerWanted { object });
    bench.spilled_to(OTHER, 1);
    bench.peer_says(OTHER, returned(OTHER, 1));
    bench.claim_send(OTHER, PeerMessage::Retain { object });
    bench.claim_send(asker, PeerMessage::OwnerIs { object, owner: Some(OTHER) });
    bench.claim_free(1);
    bench.claim_send(OTHER, PeerMessage::Settled { task: task(1), attempt: 1 });
    bench.peer_says(OTHER, PeerMessage::Retained { object });
    bench.lets_go(driver);
    bench.claim_send(OTHER, PeerMessage::Release { object });
    // Nobody knows of it here any longer.
    bench.peer_says(asker, PeerMessage::OwnerWanted { object });
    bench.claim_send(asker, PeerMessage::OwnerIs { object, owner: None });
}

#[test]
fn who_needs_it_elsewhere_is_told_that_its_maker_cannot_run_any_longer() {
    let only_there = Strategy::Affinity { worker: PEER, soft: false };
    let (mut bench, driver) =
        Bench::with_put_by(TaskBuilder::new(1).strategy(only_there).retries(1));
    let (object, asker) = (put(), WorkerId(4));
    bench.dies(PEER);
    bench.peer_says(asker, PeerMessage::OwnerWanted { object });
    bench.claim_send(asker, PeerMessage::OwnerIs { object, owner: None });
    bench.lets_go(driver);
}

#[test]
fn an_argument_of_a_dead_owner_is_asked_for_where_the_task_came_from() {
    let (mut bench, _, pool) = Bench::with_pool(2.0);
    let object = put();
    bench.dies(WorkerId(4));
    let of_dead = put_on(WorkerId(4));
    bench.head_says(FromHead::Assigned(vec![
        TaskBuilder::new(2).after(&[of_dead]).assignment(0, PEER),
    ]));
    bench.claim_send(PEER, PeerMessage::OwnerWanted { object });
    bench.peer_says(PEER, PeerMessage::OwnerIs { object, owner: Some(OTHER) });
    bench.claim_send(OTHER, PeerMessage::Retain { object });
    bench.claim_send(OTHER, PeerMessage::Locate { object, fetches: true });
    bench.peer_says(OTHER, PeerMessage::Retained { object });
    bench.peer_says(OTHER, PeerMessage::Located { object, place: Place::Inline });
    assert_eq!(bench.claim_run(pool), (task(2), 0));
    bench.finish(pool, 2, inline());
    while bench.pending() > 0 {
        bench.claim();
    }
}

//! Values that lie here for several owners.

use super::bench::*;
use crate::id::{ActorId, ExecutorId, TaskId, WorkerId};
use crate::local::{LocalAction, LocalEvent};
use crate::message::{FromHead, PeerMessage, Place};
use crate::outcome::{Cause, Outcome, Returned};
use crate::spec::{ActorOptions, Policy, Reference, StreamPolicy};

const SIZE: u64 = 1 << 20;

fn actor() -> ActorId {
    ActorId(task(1))
}

fn call() -> TaskBuilder {
    TaskBuilder::call(2, actor(), ME)
}

impl Bench {
    /// A driver, a pool, and an actor in it.
    fn with_callee() -> (Self, ExecutorId, ExecutorId) {
        let (mut bench, driver, pool) = Self::with_pool(2.0);
        let made = TaskBuilder::new(1).cpus(0.0).returns(0).actor(ActorOptions::default());
        bench.submit(driver, made);
        assert_eq!(bench.claim_run(pool), (task(1), 0));
        bench.finish(pool, 1, Outcome::Returned(Vec::new()));
        (bench, driver, pool)
    }

    /// The call of a task that runs on `owner`, and returns a large value.
    fn called_by(&mut self, owner: WorkerId, pool: ExecutorId, contains: &[Reference]) {
        self.peer_says(owner, PeerMessage::call(call().assignment(0, owner)));
        assert_eq!(self.claim_run(pool), (task(2), 0));
        let outcome = in_arena(contains);
        self.finish(pool, 2, outcome.clone());
        self.claim_send(owner, PeerMessage::Finished { task: task(2), attempt: 0, outcome });
    }

    /// The same call, of a program here.
    fn called_here(&mut self, driver: ExecutorId, pool: ExecutorId) {
        self.submit(driver, call());
        assert_eq!(self.claim_run(pool), (task(2), 0));
        self.finish(pool, 2, in_arena(&[]));
    }

    fn freed_by(&mut self, owner: WorkerId) {
        self.peer_says(owner, PeerMessage::Free { object: object(2) });
    }

    fn is_lost(&mut self, worker: WorkerId) {
        self.head_says(FromHead::WorkerDied { worker, reason: "its power failed".to_owned() });
    }

    fn knows_nothing(&self) {
        assert_eq!(self.core.objects().count(), 0);
    }
}

#[test]
fn the_last_owner_takes_the_value_with_it() {
    for (first, last) in [(PEER, OTHER), (OTHER, PEER)] {
        let (mut bench, _, pool) = Bench::with_callee();
        bench.called_by(PEER, pool, &[]);
        bench.called_by(OTHER, pool, &[]);
        bench.freed_by(first);
        bench.claim_nothing();
        assert!(bench.core.reads(object(2)));
        bench.freed_by(first);
        bench.freed_by(last);
        bench.claim_free(2);
        bench.knows_nothing();
    }
}

#[test]
fn this_worker_is_an_owner_as_every_other() {
    let (mut bench, driver, pool) = Bench::with_callee();
    bench.called_by(PEER, pool, &[]);
    bench.called_by(OTHER, pool, &[]);
    bench.called_here(driver, pool);
    bench.freed_by(OTHER);
    bench.want(driver, mine(2));
    assert_eq!(bench.claim_delivery(driver, 2), None);
    bench.release(driver, 2);
    bench.claim_nothing();
    assert!(bench.core.reads(object(2)));
    bench.freed_by(PEER);
    bench.claim_free(2);
    bench.knows_nothing();
}

#[test]
fn what_others_need_no_longer_stays_for_this_worker() {
    let (mut bench, driver, pool) = Bench::with_callee();
    bench.called_here(driver, pool);
    bench.called_by(PEER, pool, &[]);
    bench.freed_by(PEER);
    bench.want(driver, mine(2));
    assert_eq!(bench.claim_delivery(driver, 2), None);
    bench.release(driver, 2);
    bench.claim_free(2);
    bench.knows_nothing();
}

#[test]
fn a_value_that_comes_from_a_former_owner_is_let_go_of() {
    let (mut bench, driver, pool) = Bench::with_callee();
    let object = object(2);
    bench.handle(LocalEvent::Retained { by: driver, reference: of_peer(2) });
    bench.claim_send(PEER, PeerMessage::Retain { object });
    bench.want(driver, of_peer(2));
    bench.claim_send(PEER, PeerMessage::Locate { object, fetches: true });
    bench.peer_says(PEER, PeerMessage::Retained { object });
    bench.submit(pool, call());
    assert_eq!(bench.claim_run(pool), (task(2), 0));
    bench.peer_says(PEER, PeerMessage::Located { object, place: Place::Inline });
    bench.claim_free(2);
    bench.finish(pool, 2, inline());
    assert_eq!(bench.claim_delivery(driver, 2), None);
    // Another answer comes late: the value is here.
    bench.peer_says(PEER, PeerMessage::Located { object, place: Place::Inline });
    bench.claim_nothing();
    bench.release(driver, 2);
    bench.release(pool, 2);
    bench.claim_free(2);
    bench.claim_send(PEER, PeerMessage::Release { object });
    bench.knows_nothing();
}

#[test]
fn a_former_owner_that_counts_this_worker_counts_on_its_copy_too() {
    let (mut bench, driver, pool) = Bench::with_callee();
    bench.called_by(PEER, pool, &[]);
    let object = object(2);
    bench.handle(LocalEvent::Retained { by: driver, reference: of_peer(2) });
    bench.claim_send(PEER, PeerMessage::Retain { object });
    bench.peer_says(PEER, PeerMessage::Retained { object });
    bench.called_here(pool, pool);
    bench.release(pool, 2);
    bench.release(driver, 2);
    bench.claim_send(PEER, PeerMessage::Release { object });
    bench.claim_nothing();
    bench.freed_by(PEER);
    bench.claim_free(2);
    bench.knows_nothing();
}

#[test]
fn an_owner_that_is_lost_needs_nothing() {
    for (first, last) in [(PEER, OTHER), (OTHER, PEER)] {
        let (mut bench, _, pool) = Bench::with_callee();
        bench.called_by(PEER, pool, &[]);
        bench.called_by(OTHER, pool, &[]);
        bench.is_lost(first);
        bench.claim_nothing();
        assert!(bench.core.reads(object(2)));
        bench.is_lost(last);
        bench.claim_free(2);
        bench.knows_nothing();
    }
}

#[test]
fn who_reads_the_value_here_keeps_it_beyond_its_owners() {
    let (mut bench, driver, pool) = Bench::with_callee();
    bench.called_by(PEER, pool, &[]);
    bench.called_by(OTHER, pool, &[]);
    let object = object(2);
    bench.want(driver, of_peer(2));
    bench.claim_send(PEER, PeerMessage::Retain { object });
    assert_eq!(bench.claim_delivery(driver, 2), None);
    bench.peer_says(PEER, PeerMessage::Retained { object });
    bench.freed_by(OTHER);
    bench.is_lost(PEER);
    bench.claim_nothing();
    bench.release(driver, 2);
    bench.claim_free(2);
    bench.knows_nothing();
}

#[test]
fn an_item_of_a_stream_lies_here_for_each_owner() {
    let (mut bench, _, pool) = Bench::with_pool(2.0);
    let stream = Some(StreamPolicy::new(4));
    let yields = || TaskBuilder::new(2).returns(0).policy(Policy { stream, ..Policy::DEFAULT });
    let value = || Returned { size: SIZE, inline: false, contains: Vec::new() };
    for owner in [PEER, OTHER] {
        bench.head_says(FromHead::Assigned(vec![yields().assignment(0, owner)]));
        bench.claim_run(pool);
        let (executor, task, attempt, index) = (pool, task(2), 0, 0);
        let event = LocalEvent::Yielded { executor, task, attempt, index, value: value() };
        bench.handle(event);
        let message = PeerMessage::Yielded { task, attempt, index, value: value() };
        bench.claim_send(owner, message);
        bench.finish(pool, 2, Outcome::Streamed(1));
        while bench.pending() > 0 {
            bench.claim();
        }
    }
    bench.freed_by(PEER);
    bench.claim_nothing();
    bench.freed_by(OTHER);
    bench.claim_free(2);
}

#[test]
fn references_inside_are_one_owners() {
    let (mut bench, driver, pool) = Bench::with_callee();
    bench.submit(driver, TaskBuilder::new(3));
    assert_eq!(bench.claim_run(pool), (task(3), 0));
    bench.finish(pool, 3, inline());
    bench.called_by(PEER, pool, &[mine(3)]);
    bench.called_by(OTHER, pool, &[mine(3)]);
    for owner in [PEER, OTHER] {
        bench.peer_says(owner, PeerMessage::Settled { task: task(2), attempt: 0 });
    }
    // The other one finds that it is gone.
    bench.freed_by(PEER);
    bench.claim_free(2);
    bench.release(driver, 3);
    bench.claim_free(3);
    bench.knows_nothing();
}

#[test]
fn what_cannot_be_read_here_lies_here_for_nobody() {
    let (mut bench, driver, pool) = Bench::with_callee();
    bench.called_by(PEER, pool, &[]);
    bench.called_here(driver, pool);
    let object = object(2);
    bench.handle(LocalEvent::CopyUnreadable { object });
    bench.want(driver, mine(2));
    assert_eq!(bench.claim_delivery(driver, 2).unwrap().cause, Cause::ObjectLost);
    bench.release(driver, 2);
    bench.freed_by(PEER);
    bench.knows_nothing();
}

#[test]
fn a_worker_that_leaves_waits_for_every_owner() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    for owner in [PEER, OTHER] {
        let assignment = TaskBuilder::new(2).assignment(0, owner);
        bench.head_says(FromHead::Assigned(vec![assignment]));
        assert_eq!(bench.claim_run(pool), (task(2), 0));
        bench.finish(pool, 2, in_arena(&[]));
        let (task, attempt, outcome) = (task(2), 0, in_arena(&[]));
        bench.claim_send(owner, PeerMessage::Finished { task, attempt, outcome });
        bench.claim_head();
    }
    let outcome = Outcome::Returned(Vec::new());
    let (task, attempt) = (TaskId::driver(JOB), 0);
    for event in [
        LocalEvent::Drain,
        LocalEvent::Finished { executor: driver, task, attempt, outcome },
        LocalEvent::ExecutorDied { executor: driver, death: killed() },
    ] {
        bench.handle(event);
        while bench.pending() > 0 {
            bench.claim();
        }
    }
    bench.freed_by(PEER);
    assert!(!bench.core.is_idle());
    bench.freed_by(OTHER);
    bench.claim_free(2);
    assert!(bench.core.is_idle());
}

#[test]
fn a_copy_that_was_to_come_is_not_missed_where_the_value_was_made() {
    let failed = |object| LocalEvent::PullFailed { object, from: OTHER };
    let came = |object| LocalEvent::Pulled { object, size: SIZE };
    for ends in [failed, came] {
        let (mut bench, driver, pool) = Bench::with_callee();
        let object = object(2);
        bench.want(driver, of_peer(2));
        bench.claim_send(PEER, PeerMessage::Retain { object });
        bench.claim_send(PEER, PeerMessage::Locate { object, fetches: true });
        bench.peer_says(PEER, PeerMessage::Retained { object });
        let place = Place::At { size: SIZE, copies: vec![OTHER] };
        bench.peer_says(PEER, PeerMessage::Located { object, place });
        bench.claim_exactly(LocalAction::Pull { object, size: SIZE, from: OTHER });
        bench.peer_says(PEER, PeerMessage::call(call().assignment(0, PEER)));
        assert_eq!(bench.claim_run(pool), (task(2), 0));
        bench.finish(pool, 2, in_arena(&[]));
        assert_eq!(bench.claim_delivery(driver, 2), None);
        bench.claim();
        bench.release(driver, 2);
        bench.claim_send(PEER, PeerMessage::Release { object });
        bench.freed_by(PEER);
        bench.claim_nothing();
        bench.handle(ends(object));
        bench.claim_free(2);
        bench.knows_nothing();
    }
}

//! Actors that leave a worker which drains, as it sees that, their supervisor and their callers.

use super::bench::*;
use crate::id::{ActorId, ExecutorId, WorkerId};
use crate::local::LocalEvent;
use crate::message::{ActorPlace, FromHead, PeerMessage, ToHead};
use crate::outcome::{Cause, Death, Outcome, TaskError};
use crate::spec::{ActorOptions, Strategy};

fn actor() -> ActorId {
    ActorId(task(1))
}

fn call(index: u64) -> TaskBuilder {
    TaskBuilder::call(index, actor(), PEER)
}

fn restarts(max_restarts: u32) -> ActorOptions {
    ActorOptions { max_restarts, ..ActorOptions::default() }
}

fn finished(index: u64, outcome: Outcome) -> PeerMessage {
    PeerMessage::Finished { task: task(index), attempt: 0, outcome }
}

/// The end of a call that never ran.
fn missed(index: u64) -> PeerMessage {
    let cause = Cause::ActorDied(Death::Moved);
    finished(index, Outcome::Failed(TaskError { task: task(index), cause }))
}

fn lost(life: u32) -> PeerMessage {
    PeerMessage::ActorLost { actor: actor(), life, death: Death::Moved }
}

fn located(worker: WorkerId, life: u32) -> PeerMessage {
    PeerMessage::ActorLocated { actor: actor(), place: ActorPlace::At { worker, life } }
}

impl Bench {
    /// A light actor of `PEER` lives in a pool here, and runs a first call of `OTHER`.
    fn with_visitor(create: TaskBuilder) -> (Self, ExecutorId) {
        let (mut bench, _, pool) = Self::with_pool(2.0);
        bench.head_says(FromHead::Assigned(vec![create.cpus(0.0).assignment(0, PEER)]));
        assert_eq!(bench.claim_run(pool), (task(1), 0));
        bench.finish(pool, 1, inline());
        bench.claim_send(PEER, finished(1, inline()));
        bench.claim_free(1);
        bench.call_comes(call(2));
        assert_eq!(bench.claim_run(pool), (task(2), 0));
        (bench, pool)
    }

    fn call_comes(&mut self, call: TaskBuilder) {
        self.peer_says(OTHER, PeerMessage::call(call.assignment(0, OTHER)));
    }

    fn drain(&mut self) {
        self.handle(LocalEvent::Drain);
        for peer in [PEER, OTHER] {
            self.claim_send(peer, PeerMessage::Leaves);
        }
    }

    fn claim_move(&mut self, pool: ExecutorId) {
        self.claim_exactly(crate::local::LocalAction::DropActor { executor: pool, actor: actor() });
        self.claim_send(PEER, lost(0));
    }
}

#[test]
fn an_actor_leaves_a_worker_that_drains_between_two_calls() {
    let (mut bench, pool) = Bench::with_visitor(TaskBuilder::new(1).actor(restarts(1)));
    bench.drain();
    bench.call_comes(call(3));
    bench.claim_nothing();
    bench.finish(pool, 2, inline());
    bench.claim_send(OTHER, finished(2, inline()));
    bench.claim_free(2);
    bench.claim_move(pool);
    bench.claim_send(OTHER, missed(3));
    assert_eq!(bench.claim_head(), ToHead::Ended(vec![(task(1), 0)]));
    // One that was on its way has not run either.
    bench.call_comes(call(4));
    bench.claim_send(OTHER, missed(4));
}

#[test]
fn an_actor_without_a_next_life_or_another_place_stays_to_its_end() {
    let pinned = Strategy::Affinity { worker: ME, soft: false };
    let stays = [
        TaskBuilder::new(1).actor(restarts(0)),
        TaskBuilder::new(1).actor(restarts(1)).strategy(pinned),
    ];
    for create in stays {
        let (mut bench, pool) = Bench::with_visitor(create);
        bench.drain();
        bench.call_comes(call(3));
        assert_eq!(bench.claim_run(pool), (task(3), 0));
    }
}

#[test]
fn a_call_that_needs_another_ones_end_holds_nobody_up_for_ever() {
    let (mut bench, pool) = Bench::with_visitor(TaskBuilder::new(1).actor(restarts(1)));
    bench.drain();
    bench.call_comes(call(3));
    // It says that it waits,
    bench.handle(LocalEvent::Blocked { executor: pool, task: task(2), attempt: 0 });
    assert_eq!(bench.claim_run(pool), (task(3), 0));
    bench.handle(LocalEvent::Unblocked { executor: pool, task: task(2), attempt: 0 });
    // or it does not.
    bench.call_comes(call(4));
    bench.claim_nothing();
    bench.pass_time();
    assert_eq!(bench.claim_run(pool), (task(4), 0));
    bench.call_comes(call(5));
    assert_eq!(bench.claim_run(pool), (task(5), 0));
    // After a while they are held back again.
    bench.pass_some_time();
    bench.call_comes(call(6));
    bench.claim_nothing();
    for index in 2..6 {
        bench.finish(pool, index, inline());
        bench.claim_send(OTHER, finished(index, inline()));
        bench.claim_free(index);
    }
    bench.claim_move(pool);
    bench.claim_send(OTHER, missed(6));
    assert_eq!(bench.claim_head(), ToHead::Ended(vec![(task(1), 0)]));
}

#[test]
fn a_move_counts_for_no_restart() {
    let (mut bench, driver, pool) = Bench::with_pool(1.0);
    bench.submit(driver, TaskBuilder::new(9));
    bench.claim_run(pool);
    bench.submit(driver, TaskBuilder::new(1).cpus(1.0).actor(restarts(1)));
    assert_eq!(bench.claim_spilled(), [(task(1), 0)]);
    let places = [(PEER, Death::Moved), (OTHER, killed()), (PEER, Death::Moved)];
    for (life, (worker, death)) in (0..).zip(places) {
        bench.head_says(FromHead::Placed(vec![(task(1), life, worker)]));
        let made = PeerMessage::Finished { task: task(1), attempt: life, outcome: inline() };
        bench.peer_says(worker, made);
        bench.peer_says(worker, PeerMessage::ActorLost { actor: actor(), life, death });
        assert_eq!(bench.claim_spilled(), [(task(1), life + 1)], "it lives again");
    }
    bench.head_says(FromHead::Placed(vec![(task(1), 3, OTHER)]));
    let made = PeerMessage::Finished { task: task(1), attempt: 3, outcome: inline() };
    bench.peer_says(OTHER, made);
    let lost = PeerMessage::ActorLost { actor: actor(), life: 3, death: killed() };
    bench.peer_says(OTHER, lost);
    bench.claim_nothing();
    assert!(bench.core.explain(task(1)).unwrap().contains("died"), "its one restart was before");
}

#[test]
fn calls_that_come_back_go_before_later_ones_to_the_next_life() {
    let (mut bench, driver, _) = Bench::with_pool(2.0);
    bench.submit(driver, call(2));
    bench.claim_send(PEER, PeerMessage::ActorLocate { actor: actor() });
    bench.peer_says(PEER, located(OTHER, 0));
    bench.claim_send(OTHER, PeerMessage::call(call(2).assignment(0, ME)));
    bench.submit(driver, call(3));
    bench.claim_send(OTHER, PeerMessage::call(call(3).assignment(0, ME)));
    // The news of the next life is faster than what comes back from the one before.
    bench.peer_says(PEER, located(PEER, 1));
    bench.submit(driver, call(4));
    bench.claim_nothing();
    bench.peer_says(OTHER, missed(2));
    bench.claim_nothing();
    bench.peer_says(OTHER, missed(3));
    // They may not be tried again, and have not been.
    bench.claim_send(PEER, PeerMessage::call(call(2).assignment(1, ME)));
    bench.claim_send(PEER, PeerMessage::call(call(3).assignment(1, ME)));
    bench.claim_send(PEER, PeerMessage::call(call(4).assignment(0, ME)));
}

#[test]
fn calls_on_their_way_to_a_worker_that_left_have_not_run() {
    let (mut bench, driver, _) = Bench::with_pool(2.0);
    bench.submit(driver, call(2));
    bench.claim_send(PEER, PeerMessage::ActorLocate { actor: actor() });
    bench.peer_says(PEER, located(OTHER, 0));
    bench.claim_send(OTHER, PeerMessage::call(call(2).assignment(0, ME)));
    bench.head_says(FromHead::WorkerLeft { worker: OTHER });
    bench.head_says(FromHead::WorkerDied { worker: OTHER, reason: "it left".to_owned() });
    bench.claim_nothing();
    bench.peer_says(PEER, located(PEER, 1));
    bench.claim_send(PEER, PeerMessage::call(call(2).assignment(1, ME)));
}

//! References between workers, copies, lineage.

use super::bench::*;
use crate::id::WorkerId;
use crate::local::{LocalAction, LocalEvent};
use crate::message::{FromHead, PeerMessage, Place, ToHead};
use crate::outcome::{Cause, Outcome, TaskError};
use crate::spec::Strategy;

const SIZE: u64 = 1 << 20;

fn finished(index: u64, attempt: u32, outcome: Outcome) -> PeerMessage {
    PeerMessage::Finished { task: task(index), attempt, outcome }
}

fn at(copies: &[WorkerId]) -> Place {
    Place::At { size: SIZE, copies: copies.to_vec() }
}

impl Bench {
    /// A task of the driver that runs on `PEER`, as the given attempt.
    fn spill_to_peer(&mut self, index: u64, attempt: u32) {
        assert_eq!(self.claim_spilled(), [(task(index), attempt)]);
        self.head_says(FromHead::Placed(vec![(task(index), attempt, PEER)]));
    }

    fn lose(&mut self, worker: WorkerId) {
        let reason = "its power failed".to_owned();
        self.head_says(FromHead::WorkerDied { worker, reason });
    }
}

#[test]
fn a_remote_result_is_pulled_when_it_is_wanted() {
    let (mut bench, driver) = Bench::with_driver(2.0);
    bench.submit(driver, TaskBuilder::new(1).strategy(Strategy::Spread));
    bench.spill_to_peer(1, 0);
    bench.want(driver, mine(1));
    bench.peer_says(PEER, finished(1, 0, in_arena(&[])));
    bench.claim_exactly(LocalAction::Pull { object: object(1), size: SIZE, from: PEER });
    bench.handle(LocalEvent::Pulled { object: object(1), size: SIZE });
    assert_eq!(bench.claim_delivery(driver, 1), None);
    bench.release(driver, 1);
    bench.claim_free(1);
    bench.claim_send(PEER, PeerMessage::Free { object: object(1) });
}

#[test]
fn the_head_is_told_where_lies_what_a_task_reads() {
    let (mut bench, driver) = Bench::with_driver(2.0);
    let there = |index| TaskBuilder::new(index).strategy(Strategy::Spread);
    for index in [1, 2, 3] {
        bench.submit(driver, there(index));
        let worker = if index == 1 { OTHER } else { PEER };
        assert_eq!(bench.claim_spilled(), [(task(index), 0)]);
        bench.head_says(FromHead::Placed(vec![(task(index), 0, worker)]));
        bench.peer_says(worker, finished(index, 0, in_arena(&[])));
    }
    bench.submit(driver, there(4).after(&[mine(1), mine(2), mine(3)]));
    let ToHead::Spilled(batch) = bench.claim_head() else { panic!() };
    assert_eq!(batch[0].near, [PEER, OTHER], "the most bytes first");
    bench.submit(driver, there(5));
    let ToHead::Spilled(batch) = bench.claim_head() else { panic!() };
    assert_eq!(batch[0].near, []);
}

#[test]
fn a_lost_copy_is_made_again_with_what_it_needs() {
    let (mut bench, driver) = Bench::with_driver(2.0);
    let there = |index| TaskBuilder::new(index).strategy(Strategy::Spread).retries(1);
    bench.submit(driver, there(1));
    bench.spill_to_peer(1, 0);
    bench.submit(driver, there(2).after(&[mine(1)]));
    bench.release(driver, 1);
    bench.peer_says(PEER, finished(1, 0, in_arena(&[])));
    bench.spill_to_peer(2, 0);
    bench.peer_says(PEER, finished(2, 0, in_arena(&[])));
    // Nobody refers to the first value, but the second needs it to be made again.
    bench.claim_send(PEER, PeerMessage::Free { object: object(1) });
    bench.lose(PEER);
    assert_eq!(bench.claim_spilled(), [(task(1), 1)]);
    bench.head_says(FromHead::Placed(vec![(task(1), 1, OTHER)]));
    bench.peer_says(OTHER, finished(1, 1, inline()));
    assert_eq!(bench.claim_spilled(), [(task(2), 1)]);
    bench.want(driver, mine(2));
    bench.head_says(FromHead::Placed(vec![(task(2), 1, OTHER)]));
    bench.peer_says(OTHER, finished(2, 1, in_arena(&[])));
    bench.claim_exactly(LocalAction::Pull { object: object(2), size: SIZE, from: OTHER });
    bench.claim_free(1);
    // No tries are left.
    bench.lose(OTHER);
    let error = bench.claim_delivery(driver, 2).unwrap();
    assert_eq!(error.cause, Cause::ObjectLost);
    bench.handle(LocalEvent::PullFailed { object: object(2), from: OTHER });
}

#[test]
fn another_copy_is_as_good() {
    let (mut bench, driver) = Bench::with_driver(2.0);
    bench.submit(driver, TaskBuilder::new(1).strategy(Strategy::Spread));
    bench.spill_to_peer(1, 0);
    bench.peer_says(PEER, finished(1, 0, in_arena(&[])));
    bench.peer_says(OTHER, PeerMessage::Retain { object: object(1) });
    bench.claim_send(OTHER, PeerMessage::Retained { object: object(1) });
    bench.peer_says(OTHER, PeerMessage::Locate { object: object(1), fetches: true });
    let place = at(&[PEER]);
    bench.claim_send(OTHER, PeerMessage::Located { object: object(1), place });
    bench.peer_says(OTHER, PeerMessage::CopyMade { object: object(1) });
    bench.lose(PEER);
    bench.release(driver, 1);
    bench.peer_says(OTHER, PeerMessage::Release { object: object(1) });
    bench.claim_send(OTHER, PeerMessage::Free { object: object(1) });
}

#[test]
fn the_next_reader_is_pointed_to_one_that_still_receives() {
    let (mut bench, driver) = Bench::with_driver(2.0);
    bench.submit(driver, TaskBuilder::new(1).strategy(Strategy::Spread));
    bench.spill_to_peer(1, 0);
    bench.peer_says(PEER, finished(1, 0, in_arena(&[])));
    let asks = |bench: &mut Bench, reader: WorkerId, told: &[WorkerId]| {
        bench.peer_says(reader, PeerMessage::Locate { object: object(1), fetches: true });
        let place = at(told);
        bench.claim_send(reader, PeerMessage::Located { object: object(1), place });
    };
    let [a, b, c, d, e, f] = [10, 11, 12, 13, 14, 15].map(WorkerId);
    // Two for each source, whole copies first.
    asks(&mut bench, a, &[PEER]);
    asks(&mut bench, b, &[PEER]);
    asks(&mut bench, c, &[a, PEER]);
    asks(&mut bench, d, &[a, PEER]);
    asks(&mut bench, e, &[b, PEER]);
    // What fails on the way is got from a whole copy; the receiver is no copy that is lost.
    bench.peer_says(c, PeerMessage::CopyLost { object: object(1), at: a });
    let place = at(&[PEER]);
    bench.claim_send(c, PeerMessage::Located { object: object(1), place });
    // Who has its copy leaves its slot to others, and has two.
    bench.peer_says(b, PeerMessage::CopyMade { object: object(1) });
    bench.peer_says(f, PeerMessage::Locate { object: object(1), fetches: true });
    let place = at(&[b, PEER]);
    bench.claim_send(f, PeerMessage::Located { object: object(1), place });
    // Who only wants to know where it is takes no slot.
    bench.peer_says(OTHER, PeerMessage::Locate { object: object(1), fetches: false });
    let place = at(&[PEER, b]);
    bench.claim_send(OTHER, PeerMessage::Located { object: object(1), place });
    bench.release(driver, 1);
    for copy in [PEER, b] {
        bench.claim_send(copy, PeerMessage::Free { object: object(1) });
    }
}

#[test]
fn an_outcome_waits_until_borrowed_references_are_counted() {
    let (mut bench, _, pool) = Bench::with_pool(2.0);
    let assignment = TaskBuilder::new(1).after(&[of_peer(7)]).assignment(0, PEER);
    bench.head_says(FromHead::Assigned(vec![assignment]));
    bench.claim_send(PEER, PeerMessage::Retain { object: object(7) });
    bench.claim_send(PEER, PeerMessage::Locate { object: object(7), fetches: true });
    bench.peer_says(PEER, PeerMessage::Retained { object: object(7) });
    bench.peer_says(PEER, PeerMessage::Located { object: object(7), place: Place::Inline });
    assert_eq!(bench.claim_run(pool), (task(1), 0));
    // The argument held a reference to an object of a third worker.
    bench.handle(LocalEvent::Retained { by: pool, reference: of_other(8) });
    bench.claim_send(OTHER, PeerMessage::Retain { object: object(8) });
    bench.finish(pool, 1, inline());
    // Neither the outcome nor the release may reach the owner before the third one has answered.
    assert_eq!(bench.claim_head(), ToHead::Ended(vec![(task(1), 0)]));
    bench.peer_says(OTHER, PeerMessage::Retained { object: object(8) });
    bench.claim_send(PEER, finished(1, 0, inline()));
    bench.claim_free(1);
    bench.claim_send(PEER, PeerMessage::Release { object: object(7) });
    bench.claim_free(7);
    bench.handle(LocalEvent::Released { by: pool, object: object(8) });
    bench.claim_send(OTHER, PeerMessage::Release { object: object(8) });
}

#[test]
fn a_release_that_waits_is_sent_although_the_value_comes_meanwhile() {
    let (mut bench, _) = Bench::with_driver(2.0);
    let assignment = TaskBuilder::new(1).after(&[of_peer(7)]).assignment(0, PEER);
    bench.head_says(FromHead::Assigned(vec![assignment]));
    bench.claim_send(PEER, PeerMessage::Retain { object: object(7) });
    bench.claim_send(PEER, PeerMessage::Locate { object: object(7), fetches: true });
    let assignment = TaskBuilder::new(2).after(&[of_other(8)]).assignment(0, OTHER);
    bench.head_says(FromHead::Assigned(vec![assignment]));
    bench.claim_send(OTHER, PeerMessage::Retain { object: object(8) });
    bench.claim_send(OTHER, PeerMessage::Locate { object: object(8), fetches: true });
    let mode = asked(false);
    let (task, attempt) = (task(1), 0);
    bench.peer_says(PEER, PeerMessage::Cancel { task, attempt, mode });
    while bench.pending() > 0 {
        bench.claim();
    }
    bench.peer_says(PEER, PeerMessage::Located { object: object(7), place: Place::Inline });
    bench.peer_says(OTHER, PeerMessage::Retained { object: object(8) });
    let cause = Cause::Cancelled;
    bench.claim_send(PEER, finished(1, 0, Outcome::Failed(TaskError { task, cause })));
    bench.claim_send(PEER, PeerMessage::Release { object: object(7) });
    bench.claim_free(7);
}

#[test]
fn references_inside_a_result_live_until_the_owner_counts_them() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    let contains = Vec::new();
    let put = task(3).put(0);
    bench.handle(LocalEvent::Put {
        by: pool,
        object: put,
        size: 4,
        inline: true,
        copies: 1,
        contains,
    });
    bench.head_says(FromHead::Assigned(vec![TaskBuilder::new(1).assignment(0, PEER)]));
    bench.claim_run(pool);
    let reference = crate::spec::Reference { object: put, owner: ME };
    bench.finish(pool, 1, in_arena(&[reference]));
    bench.claim_send(PEER, finished(1, 0, in_arena(&[reference])));
    assert_eq!(bench.claim_head(), ToHead::Ended(vec![(task(1), 0)]));
    bench.handle(LocalEvent::Released { by: pool, object: put });
    bench.peer_says(PEER, PeerMessage::Retain { object: put });
    bench.claim_send(PEER, PeerMessage::Retained { object: put });
    bench.peer_says(PEER, PeerMessage::Settled { task: task(1), attempt: 0 });
    bench.peer_says(PEER, PeerMessage::Release { object: put });
    bench.claim_exactly(LocalAction::Free { object: put });
    bench.peer_says(PEER, PeerMessage::Free { object: object(1) });
    bench.claim_free(1);
    let _ = driver;
}

#[test]
fn an_owner_says_when_it_counts_what_a_result_contains() {
    let (mut bench, driver) = Bench::with_driver(2.0);
    bench.submit(driver, TaskBuilder::new(1).strategy(Strategy::Spread));
    bench.spill_to_peer(1, 0);
    bench.peer_says(PEER, finished(1, 0, in_arena(&[of_other(8)])));
    bench.claim_send(OTHER, PeerMessage::Retain { object: object(8) });
    bench.peer_says(OTHER, PeerMessage::Retained { object: object(8) });
    bench.claim_send(PEER, PeerMessage::Settled { task: task(1), attempt: 0 });
    bench.release(driver, 1);
    bench.claim_send(PEER, PeerMessage::Free { object: object(1) });
    bench.claim_send(OTHER, PeerMessage::Release { object: object(8) });
}

#[test]
fn objects_of_a_lost_owner_fail() {
    let (mut bench, driver) = Bench::with_driver(2.0);
    bench.want(driver, of_peer(5));
    bench.claim_send(PEER, PeerMessage::Retain { object: object(5) });
    bench.claim_send(PEER, PeerMessage::Locate { object: object(5), fetches: true });
    bench.lose(PEER);
    let error = TaskError { task: task(5), cause: Cause::OwnerDied };
    assert_eq!(*bench.claim_delivery(driver, 5).unwrap(), error);
    bench.want(driver, of_peer(6));
    assert_eq!(bench.claim_delivery(driver, 6).unwrap().cause, Cause::OwnerDied);
    bench.release(driver, 5);
    bench.release(driver, 6);
}

#[test]
fn a_stale_outcome_leaves_nothing_behind() {
    let (mut bench, driver) = Bench::with_driver(2.0);
    bench.submit(driver, TaskBuilder::new(1).strategy(Strategy::Spread).retries(1));
    bench.spill_to_peer(1, 0);
    bench.peer_says(PEER, finished(1, 5, in_arena(&[])));
    bench.claim_send(PEER, PeerMessage::Free { object: object(1) });
    bench.peer_says(PEER, finished(1, 5, inline()));
    bench.claim_free(1);
    let _ = driver;
}

#[test]
fn an_assignment_that_comes_twice_runs_once() {
    let (mut bench, _, pool) = Bench::with_pool(2.0);
    for _ in 0..2 {
        bench.head_says(FromHead::Assigned(vec![TaskBuilder::new(1).assignment(3, PEER)]));
        if bench.pending() > 0 {
            assert_eq!(bench.claim_run(pool), (task(1), 3));
        }
    }
    assert_eq!(bench.core.held().assigned.len(), 2, "it and the driver");
    bench.finish_attempt(pool, 1, 3, inline());
    bench.claim_send(PEER, finished(1, 3, inline()));
    bench.claim_free(1);
    assert_eq!(bench.claim_head(), ToHead::Ended(vec![(task(1), 3)]));
}

#[test]
fn a_value_made_for_another_owner_is_made_again_for_this_one() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    let (contains, put) = (Vec::new(), task(1).put(0));
    let reference = crate::spec::Reference { object: put, owner: ME };
    bench.head_says(FromHead::Assigned(vec![TaskBuilder::new(1).assignment(0, PEER)]));
    bench.claim_run(pool);
    bench.handle(LocalEvent::Put {
        by: pool,
        object: put,
        size: 4,
        inline: true,
        copies: 1,
        contains,
    });
    bench.finish(pool, 1, in_arena(&[reference]));
    bench.claim_send(PEER, finished(1, 0, in_arena(&[reference])));
    assert_eq!(bench.claim_head(), ToHead::Ended(vec![(task(1), 0)]));
    // Its maker runs again, here; whoever counts what the old value contains may stop to.
    bench.submit(driver, TaskBuilder::new(1));
    bench.claim_free(1);
    assert_eq!(bench.claim_run(pool), (task(1), 0));
    bench.finish(pool, 1, in_arena(&[reference]));
    bench.handle(LocalEvent::Released { by: pool, object: put });
    bench.peer_says(PEER, PeerMessage::Settled { task: task(1), attempt: 0 });
    bench.peer_says(PEER, PeerMessage::Free { object: object(1) });
    bench.release(driver, 1);
    bench.claim_free(1);
    bench.claim_exactly(LocalAction::Free { object: put });
}

#[test]
fn who_uses_the_old_value_of_an_adopted_object_keeps_it() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    bench.want(pool, of_peer(1));
    bench.claim_send(PEER, PeerMessage::Retain { object: object(1) });
    bench.claim_send(PEER, PeerMessage::Locate { object: object(1), fetches: true });
    bench.peer_says(PEER, PeerMessage::Located { object: object(1), place: Place::Inline });
    assert_eq!(bench.claim_delivery(pool, 1), None);
    bench.submit(driver, TaskBuilder::new(1));
    assert_eq!(bench.claim_run(pool), (task(1), 0));
    bench.finish(pool, 1, inline());
    bench.release(driver, 1);
    bench.release(pool, 1);
    // The former owner has counted this worker until now.
    bench.claim_free(1);
    bench.claim_send(PEER, PeerMessage::Release { object: object(1) });
}

#[test]
fn an_own_value_that_nobody_wants_is_not_mixed_up_with_another_owners() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    bench.submit(driver, TaskBuilder::new(1).strategy(Strategy::Spread).retries(1));
    assert_eq!(bench.claim_spilled(), [(task(1), 0)]);
    bench.head_says(FromHead::Placed(vec![(task(1), 0, OTHER)]));
    bench.release(driver, 1);
    bench.head_says(FromHead::Assigned(vec![TaskBuilder::new(1).assignment(0, PEER)]));
    bench.claim_run(pool);
    bench.finish(pool, 1, in_arena(&[]));
    bench.claim_send(PEER, finished(1, 0, in_arena(&[])));
    assert_eq!(bench.claim_head(), ToHead::Ended(vec![(task(1), 0)]));
    bench.peer_says(OTHER, finished(1, 0, in_arena(&[])));
    bench.claim_send(OTHER, PeerMessage::Free { object: object(1) });
    bench.peer_says(PEER, PeerMessage::Free { object: object(1) });
    bench.claim_free(1);
}

#[test]
fn an_inline_value_stays_until_the_last_message_that_carries_it_is_sent() {
    let (mut bench, _, pool) = Bench::with_pool(2.0);
    let third = WorkerId(4);
    bench.handle(LocalEvent::Retained {
        by: pool,
        reference: crate::spec::Reference { object: object(8), owner: third },
    });
    bench.claim_send(third, PeerMessage::Retain { object: object(8) });
    for owner in [PEER, OTHER] {
        bench.head_says(FromHead::Assigned(vec![TaskBuilder::new(1).assignment(0, owner)]));
        bench.claim_run(pool);
        bench.finish(pool, 1, inline());
        assert_eq!(bench.claim_head(), ToHead::Ended(vec![(task(1), 0)]));
    }
    bench.peer_says(third, PeerMessage::Retained { object: object(8) });
    bench.claim_send(PEER, finished(1, 0, inline()));
    bench.claim_send(OTHER, finished(1, 0, inline()));
    bench.claim_free(1);
    bench.handle(LocalEvent::Released { by: pool, object: object(8) });
    bench.claim_send(third, PeerMessage::Release { object: object(8) });
}

#[test]
fn each_result_of_a_task_that_is_submitted_anew_is_settled_by_itself() {
    let (mut bench, _, pool) = Bench::with_pool(2.0);
    let put = task(1).put(0);
    let reference = crate::spec::Reference { object: put, owner: ME };
    for _ in 0..2 {
        bench.head_says(FromHead::Assigned(vec![TaskBuilder::new(1).assignment(0, PEER)]));
        bench.claim_run(pool);
        let contains = Vec::new();
        bench.handle(LocalEvent::Put {
            by: pool,
            object: put,
            size: 4,
            inline: true,
            copies: 1,
            contains,
        });
        bench.finish(pool, 1, in_arena(&[reference]));
        bench.claim_send(PEER, finished(1, 0, in_arena(&[reference])));
        assert_eq!(bench.claim_head(), ToHead::Ended(vec![(task(1), 0)]));
        bench.handle(LocalEvent::Released { by: pool, object: put });
    }
    let settled = PeerMessage::Settled { task: task(1), attempt: 0 };
    bench.peer_says(PEER, settled.clone());
    bench.claim_nothing();
    bench.peer_says(PEER, settled);
    bench.claim_exactly(LocalAction::Free { object: put });
    bench.peer_says(PEER, PeerMessage::Free { object: object(1) });
    bench.claim_free(1);
}

#[test]
fn a_value_that_is_made_again_elsewhere_is_not_asked_of_its_former_owner() {
    let (mut bench, driver) = Bench::with_driver(2.0);
    bench.handle(LocalEvent::Retained { by: driver, reference: of_peer(7) });
    bench.claim_send(PEER, PeerMessage::Retain { object: object(7) });
    bench.peer_says(PEER, PeerMessage::Retained { object: object(7) });
    bench.want(driver, of_peer(7));
    bench.claim_send(PEER, PeerMessage::Locate { object: object(7), fetches: true });
    let place = Place::At { size: 9, copies: vec![PEER] };
    bench.peer_says(PEER, PeerMessage::Located { object: object(7), place });
    let pull = |from| LocalAction::Pull { object: object(7), size: 9, from };
    bench.claim_exactly(pull(PEER));
    // It is let go of while it is fetched, and comes back as another worker's.
    bench.release(driver, 7);
    bench.claim_send(PEER, PeerMessage::Release { object: object(7) });
    bench.handle(LocalEvent::Retained { by: driver, reference: of_other(7) });
    bench.claim_send(OTHER, PeerMessage::Retain { object: object(7) });
    bench.peer_says(OTHER, PeerMessage::Retained { object: object(7) });
    bench.want(driver, of_other(7));
    bench.claim_send(OTHER, PeerMessage::Locate { object: object(7), fetches: true });
    let place = Place::At { size: 9, copies: vec![OTHER] };
    bench.peer_says(OTHER, PeerMessage::Located { object: object(7), place });
    bench.claim_nothing();
    // What was fetched is the former owner's.
    bench.handle(LocalEvent::Pulled { object: object(7), size: 9 });
    bench.claim_free(7);
    bench.claim_exactly(pull(OTHER));
    bench.handle(LocalEvent::Pulled { object: object(7), size: 9 });
    bench.claim_send(OTHER, PeerMessage::CopyMade { object: object(7) });
    assert_eq!(bench.claim_delivery(driver, 7), None);
}

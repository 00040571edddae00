//! Values that are kept in several copies.

use super::bench::*;
use crate::id::{ExecutorId, ObjectId, WorkerId};
use crate::local::{LocalAction, LocalEvent};
use crate::message::{FromHead, PeerMessage, Place, ToHead};
use crate::outcome::{Cause, TaskError};
use crate::spec::Reference;

const SIZE: u64 = 1 << 20;
const THIRD: WorkerId = WorkerId(4);

fn weights() -> ObjectId {
    task(3).put_replicated(0)
}

fn of(owner: WorkerId) -> Reference {
    Reference { object: weights(), owner }
}

/// `PEER` and `OTHER`, the first choice first.
fn ranked() -> [WorkerId; 2] {
    let mut members = [PEER, OTHER];
    members.sort_by_key(|member| weights().rank_of(*member));
    members
}

fn replicate(copies: &[WorkerId]) -> PeerMessage {
    PeerMessage::Replicate { object: weights(), size: SIZE, copies: copies.to_vec() }
}

fn copy_made() -> PeerMessage {
    PeerMessage::CopyMade { object: weights() }
}

impl Bench {
    fn put_weights(&mut self, by: ExecutorId, copies: u32) {
        let (object, size, contains) = (weights(), SIZE, Vec::new());
        self.handle(LocalEvent::Put { by, object, size, inline: false, copies, contains });
    }

    fn members_are(&mut self, members: &[WorkerId]) {
        self.head_says(FromHead::Members(members.to_vec()));
    }

    fn loses(&mut self, worker: WorkerId) {
        self.head_says(FromHead::WorkerDied { worker, reason: "its power failed".to_owned() });
    }

    /// A copy here that `PEER` counts on.
    fn keep(&mut self) {
        self.peer_says(PEER, replicate(&[PEER]));
        self.claim_exactly(LocalAction::Pull { object: weights(), size: SIZE, from: PEER });
        self.handle(LocalEvent::Pulled { object: weights(), size: SIZE });
        self.claim_send(PEER, copy_made());
    }

    fn asks_for_weights(&mut self, who: WorkerId, place: Place) {
        let object = weights();
        self.peer_says(who, PeerMessage::Locate { object, fetches: true });
        self.claim_send(who, PeerMessage::Located { object, place });
    }
}

#[test]
fn a_keeper_that_is_lost_is_replaced_as_soon_as_somebody_can_be() {
    let (mut bench, driver) = Bench::with_driver(2.0);
    bench.put_weights(driver, 2);
    assert_eq!(bench.claim_head(), ToHead::MembersWanted);
    bench.members_are(&[ME]);
    bench.members_are(&[ME, PEER]);
    bench.claim_send(PEER, replicate(&[ME]));
    bench.peer_says(PEER, copy_made());
    bench.members_are(&[ME, PEER, OTHER]);
    // The second source is one that has a copy.
    bench.loses(PEER);
    bench.claim_send(OTHER, replicate(&[ME]));
    bench.peer_says(OTHER, PeerMessage::NotKept { object: weights() });
    bench.members_are(&[ME, OTHER, THIRD]);
    bench.claim();
    bench.handle(LocalEvent::HeadFound { fresh: true });
    while bench.pending() > 0 {
        bench.claim();
    }
    bench.handle(LocalEvent::Released { by: driver, object: weights() });
    bench.claim_exactly(LocalAction::Free { object: weights() });
}

#[test]
fn a_worker_that_leaves_is_no_keeper_any_longer() {
    let (mut bench, driver) = Bench::with_driver(2.0);
    bench.put_weights(driver, 2);
    bench.claim_head();
    bench.members_are(&[PEER, OTHER]);
    let [first, second] = ranked();
    bench.claim_send(first, replicate(&[ME]));
    bench.peer_says(first, copy_made());
    bench.peer_says(first, PeerMessage::Leaves);
    bench.claim_send(second, replicate(&[ME, first]));
    bench.claim_send(first, PeerMessage::Free { object: weights() });
    bench.handle(LocalEvent::Released { by: driver, object: weights() });
    bench.claim_exactly(LocalAction::Free { object: weights() });
    // A copy that comes too late is freed.
    bench.peer_says(second, copy_made());
    bench.claim_send(second, PeerMessage::Free { object: weights() });
}

#[test]
fn a_keeper_has_its_copy_until_its_owner_frees_it() {
    let (mut bench, _) = Bench::with_driver(2.0);
    bench.keep();
    bench.peer_says(PEER, PeerMessage::Free { object: weights() });
    bench.claim_exactly(LocalAction::Free { object: weights() });
    assert_eq!(bench.core.objects().count(), 0);
    // One that cannot get it says so.
    bench.peer_says(PEER, replicate(&[PEER]));
    bench.claim_exactly(LocalAction::Pull { object: weights(), size: SIZE, from: PEER });
    bench.handle(LocalEvent::PullFailed { object: weights(), from: PEER });
    bench.claim_send(PEER, PeerMessage::NotKept { object: weights() });
    assert_eq!(bench.core.objects().count(), 0);
}

#[test]
fn a_copy_outlives_its_owner_until_the_job_ends() {
    let (mut bench, driver) = Bench::with_driver(2.0);
    bench.keep();
    bench.loses(PEER);
    bench.asks_for_weights(OTHER, Place::At { size: SIZE, copies: vec![ME] });
    bench.want(driver, of(PEER));
    let delivered = LocalAction::Deliver { executor: driver, object: weights(), error: None };
    bench.claim_exactly(delivered);
    bench.handle(LocalEvent::Released { by: driver, object: weights() });
    assert_eq!(bench.core.objects().count(), 1);
    bench.head_says(FromHead::JobEnded { job: JOB });
    while bench.pending() > 0 {
        bench.claim();
    }
    assert_eq!(bench.core.objects().count(), 0);
    let cause = Cause::ObjectLost;
    bench.asks_for_weights(OTHER, Place::Failed(TaskError { task: task(3), cause }));
}

#[test]
fn what_a_dead_owner_had_is_got_from_a_member_that_has_it() {
    let (mut bench, driver) = Bench::with_driver(2.0);
    bench.loses(THIRD);
    bench.want(driver, of(THIRD));
    assert_eq!(bench.claim_head(), ToHead::MembersWanted);
    bench.members_are(&[ME, PEER, OTHER]);
    let object = weights();
    let [first, second] = ranked();
    bench.claim_send(first, PeerMessage::Locate { object, fetches: true });
    let lost = || Place::Failed(TaskError { task: task(3), cause: Cause::ObjectLost });
    bench.peer_says(first, PeerMessage::Located { object, place: lost() });
    bench.claim_send(second, PeerMessage::Locate { object, fetches: true });
    let place = Place::At { size: SIZE, copies: vec![second] };
    bench.peer_says(second, PeerMessage::Located { object, place });
    bench.claim_exactly(LocalAction::Pull { object, size: SIZE, from: second });
    bench.handle(LocalEvent::Pulled { object, size: SIZE });
    bench.claim_exactly(LocalAction::Deliver { executor: driver, object, error: None });
    bench.handle(LocalEvent::Released { by: driver, object });
    bench.claim_exactly(LocalAction::Free { object });
    // Where nobody has it, it is lost.
    bench.want(driver, of(THIRD));
    bench.claim_send(first, PeerMessage::Locate { object, fetches: true });
    bench.loses(first);
    bench.claim_send(second, PeerMessage::Locate { object, fetches: true });
    bench.peer_says(second, PeerMessage::Located { object, place: lost() });
    match bench.claim() {
        LocalAction::Deliver { error: Some(error), .. } => {
            assert_eq!(error.cause, Cause::OwnerDied);
        }
        other => panic!("not a failure: {other:?}"),
    }
    bench.handle(LocalEvent::Released { by: driver, object });
}

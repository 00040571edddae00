//! Spilling, a head that comes and goes, load, names, drain.

use super::bench::*;
use crate::id::ActorId;
use crate::local::{LocalAction, LocalEvent};
use crate::message::{FromHead, PeerMessage, Place, ToHead};
use crate::outcome::Cause;
use crate::resource::Resources;
use crate::spec::{ActorOptions, Strategy};

#[test]
fn what_does_not_fit_is_spilled_and_says_why() {
    let (mut bench, driver) = Bench::with_driver(2.0);
    bench.submit(driver, TaskBuilder::new(1).gpus(2));
    assert_eq!(bench.claim_spilled(), [(task(1), 0)]);
    let reason = "largest worker has 1".to_owned();
    bench.head_says(FromHead::Waiting { task: task(1), reason });
    let line = bench.core.explain(task(1)).unwrap();
    assert_eq!(line, "needs 2 GPU; this worker has 0, spilled to head: largest worker has 1");
    bench.head_says(FromHead::Placed(vec![(task(1), 0, PEER)]));
    assert_eq!(bench.core.explain(task(1)).unwrap(), "is on worker-2");
}

#[test]
fn a_spilled_task_that_comes_back_runs_here() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    for placed_first in [true, false] {
        let index = 1 + u64::from(placed_first);
        bench.submit(driver, TaskBuilder::new(index).strategy(Strategy::Spread));
        bench.claim_spilled();
        let placed = FromHead::Placed(vec![(task(index), 0, ME)]);
        let assignment = TaskBuilder::new(index).assignment(0, ME);
        let assigned = FromHead::Assigned(vec![assignment]);
        if placed_first {
            bench.head_says(placed.clone());
        }
        bench.head_says(assigned);
        assert_eq!(bench.claim_run(pool), (task(index), 0));
        if !placed_first {
            bench.head_says(placed);
        }
        bench.finish(pool, index, inline());
        assert_eq!(bench.claim_head(), ToHead::Ended(vec![(task(index), 0)]));
    }
}

#[test]
fn the_newest_of_the_backlog_goes_where_there_is_room() {
    let (mut bench, driver, pool) = Bench::with_pool(1.0);
    for index in 1..=4 {
        bench.submit(driver, TaskBuilder::new(index));
        if index == 1 {
            bench.claim_run(pool);
        }
    }
    let request = Resources::cpus(1.0);
    bench.head_says(FromHead::SpillRequested { request, count: 2 });
    assert_eq!(bench.claim_spilled(), [(task(4), 0), (task(3), 0)]);
    bench.head_says(FromHead::SpillRequested { request: Resources::cpus(9.0), count: 2 });
    bench.finish(pool, 1, inline());
    assert_eq!(bench.claim_run(pool).0, task(2));
}

#[test]
fn a_task_is_taken_back_from_the_head() {
    let (mut bench, driver) = Bench::with_driver(1.0);
    bench.submit(driver, TaskBuilder::new(1).strategy(Strategy::Spread));
    bench.claim_spilled();
    bench.want(driver, mine(1));
    bench.cancel(1, false);
    assert_eq!(bench.claim_head(), ToHead::Unspill { task: task(1) });
    assert_eq!(bench.claim_delivery(driver, 1).unwrap().cause, Cause::Cancelled);
    // The head had placed it already.
    bench.head_says(FromHead::Placed(vec![(task(1), 0, PEER)]));
    bench.claim_send(PEER, PeerMessage::Cancel { task: task(1), attempt: 0, mode: asked(false) });
}

#[test]
fn a_head_that_forgot_is_told_again() {
    let (mut bench, driver) = Bench::with_driver(1.0);
    let named = ActorOptions { name: Some("counter".to_owned()), ..ActorOptions::default() };
    bench.submit(driver, TaskBuilder::new(1).strategy(Strategy::Spread));
    bench.claim_spilled();
    bench.submit(driver, TaskBuilder::new(2).strategy(Strategy::Spread));
    bench.claim_spilled();
    bench.head_says(FromHead::Placed(vec![(task(1), 0, PEER)]));
    bench.submit(driver, TaskBuilder::new(3).actor(named).cpus(0.0));
    let name = "counter".to_owned();
    let claim = ToHead::ActorNamed { name: name.clone(), actor: ActorId(task(3)), owner: ME };
    assert_eq!(bench.claim_head(), claim);
    bench.handle(LocalEvent::ActorLookup { by: driver, request: 9, name: name.clone() });
    let ToHead::ActorLookup { request, .. } = bench.claim_head() else { panic!("a look-up") };
    bench.handle(LocalEvent::HeadLost);
    bench.submit(driver, TaskBuilder::new(4).strategy(Strategy::Spread));
    bench.now.0 += 1_000_000_000;
    bench.handle(LocalEvent::HeadFound { fresh: true });
    // Also what was placed: the assignment may be lost with the head that sent it.
    assert_eq!(bench.claim_spilled(), [(task(1), 0), (task(2), 0), (task(4), 0)]);
    assert_eq!(bench.claim_head(), claim);
    assert_eq!(bench.claim_head(), ToHead::ActorLookup { request, name });
    bench.claim_load();
    let actor = Some((ActorId(task(3)), ME));
    bench.head_says(FromHead::ActorFound { request, actor });
    bench.claim_exactly(LocalAction::ActorFound { executor: driver, request: 9, actor });
}

#[test]
fn what_all_workers_offer_is_asked_again_of_a_new_head() {
    let (mut bench, driver) = Bench::with_driver(1.0);
    bench.handle(LocalEvent::OffersWanted { by: driver, request: 9 });
    let ToHead::OffersWanted { request } = bench.claim_head() else { panic!("a question") };
    bench.handle(LocalEvent::HeadLost);
    bench.now.0 += 1_000_000_000;
    bench.handle(LocalEvent::HeadFound { fresh: true });
    assert_eq!(bench.claim_head(), ToHead::OffersWanted { request });
    bench.claim_load();
    let offers = vec![(ME, Resources::cpus(1.0)), (PEER, Resources::cpus(4.0))];
    let answer = FromHead::Offers { request, offers: offers.clone() };
    bench.head_says(answer.clone());
    bench.claim_exactly(LocalAction::Offers { executor: driver, request: 9, offers });
    bench.head_says(answer);
}

#[test]
fn load_is_reported_when_it_changed_and_not_too_often() {
    let (mut bench, driver, pool) = Bench::with_pool(1.0);
    bench.submit(driver, TaskBuilder::new(1));
    bench.claim_run(pool);
    bench.submit(driver, TaskBuilder::new(2));
    let due = bench.core.poll_timeout().unwrap();
    assert!(due > bench.now);
    bench.core.handle_timeout(due);
    bench.now = due;
    let Some(LocalAction::SendHead(ToHead::Load(load))) = bench.core.poll_action() else {
        panic!("no load report")
    };
    assert_eq!(load.available, Resources::NONE);
    assert_eq!(load.backlog, [(Resources::cpus(1.0), 1)]);
    assert_eq!(bench.core.poll_timeout(), None);
}

#[test]
fn a_worker_that_leaves_hands_on_what_has_not_started() {
    let (mut bench, driver, pool) = Bench::with_pool(1.0);
    bench.submit(driver, TaskBuilder::new(1));
    bench.claim_run(pool);
    bench.submit(driver, TaskBuilder::new(2));
    bench.handle(LocalEvent::Drain);
    assert_eq!(bench.claim_spilled(), [(task(2), 0)]);
    bench.submit(driver, TaskBuilder::new(3));
    assert_eq!(bench.claim_spilled(), [(task(3), 0)]);
    bench.finish(pool, 1, inline());
}

#[test]
fn the_work_of_a_lost_worker_is_placed_again() {
    let (mut bench, driver) = Bench::with_driver(1.0);
    bench.submit(driver, TaskBuilder::new(1).strategy(Strategy::Spread).retries(1));
    bench.claim_spilled();
    for attempt in 0..2 {
        bench.head_says(FromHead::Placed(vec![(
            task(1),
            attempt,
            [PEER, OTHER][attempt as usize],
        )]));
        if attempt == 1 {
            bench.want(driver, mine(1));
        }
        let worker = [PEER, OTHER][attempt as usize];
        bench.head_says(FromHead::WorkerDied { worker, reason: "gone".to_owned() });
        if attempt == 0 {
            assert_eq!(bench.claim_spilled(), [(task(1), 1)]);
        }
    }
    let error = bench.claim_delivery(driver, 1).unwrap();
    assert_eq!(error.cause, Cause::WorkerDied { reason: "gone".to_owned() });
}

#[test]
fn the_head_is_asked_about_workers_once_each_and_again_if_it_forgot() {
    let (mut bench, driver) = Bench::with_driver(2.0);
    for index in [5, 6] {
        let reference = of_peer(index);
        bench.handle(LocalEvent::Retained { by: driver, reference });
        bench.claim_send(PEER, PeerMessage::Retain { object: object(index) });
    }
    assert_eq!(bench.met, [PEER]);
    bench.handle(LocalEvent::HeadFound { fresh: true });
    bench.claim_load();
    assert_eq!(bench.met, [PEER, PEER]);
    // It is gone since before this worker came.
    let reason = "it is no member".to_owned();
    bench.head_says(FromHead::WorkerDied { worker: PEER, reason });
    bench.release(driver, 5);
    bench.release(driver, 6);
}

#[test]
fn a_job_with_a_quota_asks_the_head_for_what_it_limits() {
    let (mut bench, driver, pool) = Bench::with_pool(4.0);
    let mut quota = Resources::cpus(1.0);
    quota.set("license", crate::resource::Amount::whole(1));
    bench.handle(LocalEvent::JobLimited { job: JOB, quota });
    bench.submit(driver, TaskBuilder::new(1));
    assert_eq!(bench.claim_spilled(), [(task(1), 0)]);
    let reason = "waits for 1 CPU of its job's quota of 1, of which 1 is in use".to_owned();
    bench.head_says(FromHead::Waiting { task: task(1), reason });
    let line = bench.core.explain(task(1)).unwrap();
    let expected = "its job has a quota, spilled to head: \
                    waits for 1 CPU of its job's quota of 1, of which 1 is in use";
    assert_eq!(line, expected);
    // What asks for nothing that is limited starts at once.
    bench.submit(driver, TaskBuilder::new(2).cpus(0.0));
    assert_eq!(bench.claim_run(pool), (task(2), 0));
    let assigned = vec![TaskBuilder::new(1).assignment(0, ME)];
    bench.head_says(FromHead::Assigned(assigned));
    assert_eq!(bench.claim_run(pool), (task(1), 0));
    for blocked in [true, false] {
        let (executor, task, attempt) = (pool, task(1), 0);
        bench.handle(match blocked {
            true => LocalEvent::Blocked { executor, task, attempt },
            false => LocalEvent::Unblocked { executor, task, attempt },
        });
        assert_eq!(bench.claim_head(), ToHead::Blocked { task, attempt: 0, blocked });
    }
    bench.handle(LocalEvent::Blocked { executor: pool, task: task(1), attempt: 0 });
    let blocked = ToHead::Blocked { task: task(1), attempt: 0, blocked: true };
    assert_eq!(bench.claim_head(), blocked);
    // A head that knows nothing is told again.
    bench.handle(LocalEvent::HeadLost);
    bench.handle(LocalEvent::HeadFound { fresh: true });
    assert_eq!(bench.claim_head(), blocked);
    bench.claim_load();
}

#[test]
fn an_assigned_task_that_waits_for_long_gives_back_what_it_is_counted_for() {
    // Its job has a quota, but nothing of it has run here: only the head knows.
    let (mut bench, _, pool) = Bench::with_pool(4.0);
    let argument = of_peer(5);
    let assigned = vec![TaskBuilder::new(1).after(&[argument]).assignment(0, PEER)];
    bench.head_says(FromHead::Assigned(assigned));
    let object = argument.object;
    bench.claim_send(PEER, PeerMessage::Retain { object });
    bench.claim_send(PEER, PeerMessage::Locate { object, fetches: true });
    let next_load = |bench: &mut Bench| {
        let due = bench.core.poll_timeout().unwrap();
        bench.now = due;
        bench.core.handle_timeout(due);
        let mut said = Vec::new();
        while let Some(action) = bench.core.poll_action() {
            let LocalAction::SendHead(message) = action else { panic!("{action:?}") };
            said.push(message);
        }
        said
    };
    let start = bench.now;
    let [ToHead::Load(load)] = &next_load(&mut bench)[..] else { panic!("no load report") };
    assert_eq!(load.available, Resources::cpus(3.0));
    // The argument was lost, and does not come.
    let [ToHead::Blocked { task: late, blocked: true, .. }, ToHead::Load(load)] =
        &next_load(&mut bench)[..]
    else {
        panic!("it is not late")
    };
    assert_eq!((*late, &load.available), (task(1), &Resources::cpus(4.0)));
    assert_eq!(bench.now - start, core::time::Duration::from_millis(500));
    bench.peer_says(PEER, PeerMessage::Located { object, place: Place::Inline });
    let goes_on = ToHead::Blocked { task: task(1), attempt: 0, blocked: false };
    assert_eq!(bench.claim_head(), goes_on);
    assert_eq!(bench.claim_run(pool), (task(1), 0));
}

#[test]
fn a_head_hears_of_each_try_that_the_one_before_has_counted() {
    let (mut bench, _, pool) = Bench::with_pool(4.0);
    let comes = |owner| TaskBuilder::new(1).assignment(0, owner);
    bench.head_says(FromHead::Assigned(vec![comes(PEER)]));
    assert_eq!(bench.claim_run(pool), (task(1), 0));
    // Its submitter ran again on another worker, and submitted it there.
    bench.head_says(FromHead::Assigned(vec![comes(OTHER)]));
    let held = bench.core.held().assigned;
    let owners: Vec<_> = held.iter().filter(|held| held.task == task(1)).map(|h| h.owner).collect();
    assert_eq!(owners, [PEER, OTHER]);
    bench.claim_nothing();
}

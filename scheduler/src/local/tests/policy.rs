//! Time limits, retries of each kind, and cancellation with children.

use core::time::Duration;

use super::bench::*;
use crate::local::{LocalAction, LocalEvent};
use crate::message::{FromHead, PeerMessage, ToHead};
use crate::outcome::{Cause, Death, Outcome, TaskError};
use crate::spec::{Backoff, Policy};

const LIMIT: Duration = Duration::from_secs(2);

fn limited() -> Policy {
    Policy { timeout: Some(LIMIT), ..Policy::DEFAULT }
}

fn error(index: u64) -> TaskError {
    TaskError { task: task(index), cause: Cause::Returned { message: "no".to_owned() } }
}

fn out_of_memory() -> Death {
    Death::OutOfMemory { reason: "5 GB of 4 GB".to_owned() }
}

#[test]
fn a_task_that_runs_too_long_is_asked_to_end_and_has_failed() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    bench.submit(driver, TaskBuilder::new(1).policy(limited()));
    bench.claim_run(pool);
    let started = bench.now;
    bench.want(driver, mine(1));
    // What it has submitted is of no use to anybody.
    bench.submit(pool, TaskBuilder::new(0).child_of(task(1), 1).cpus(1.0));
    bench.claim();
    bench.submit(pool, TaskBuilder::new(0).child_of(task(1), 2).cpus(1.0));
    bench.pass_time();
    assert_eq!(bench.now - started, LIMIT);
    bench.claim_exactly(LocalAction::Cancel { executor: pool, task: task(1) });
    bench.claim_exactly(LocalAction::Cancel { executor: pool, task: task(1).child(1) });
    assert!(bench.core.tasks().all(|view| view.task != task(1).child(2)));
    // What it returns now comes too late.
    bench.finish(pool, 1, inline());
    bench.claim_free(1);
    let error = bench.claim_delivery(driver, 1).unwrap();
    assert_eq!(error.cause, Cause::TimedOut { limit: LIMIT });
    assert!(error.to_string().contains("2s"), "{error}");
}

#[test]
fn a_task_that_does_not_end_is_killed_and_its_neighbour_runs_again_uncounted() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    bench.submit(driver, TaskBuilder::new(1).policy(limited()));
    bench.claim_run(pool);
    bench.submit(driver, TaskBuilder::new(2).retries(0));
    bench.claim_run(pool);
    bench.want(driver, mine(1));
    bench.pass_time();
    bench.claim_exactly(LocalAction::Cancel { executor: pool, task: task(1) });
    bench.pass_time();
    bench.claim_exactly(LocalAction::StopExecutor { executor: pool, force: true });
    bench.handle(LocalEvent::ExecutorDied { executor: pool, death: Death::Ended });
    let error = bench.claim_delivery(driver, 1).unwrap();
    assert_eq!(error.cause, Cause::TimedOut { limit: LIMIT });
    let pool = bench.claim_start(crate::local::ExecutorRole::Pool);
    bench.claim_load();
    bench.handle(LocalEvent::ExecutorStarted { executor: pool });
    assert_eq!(bench.claim_run(pool), (task(2), 1));
    // The next loss counts.
    bench.want(driver, mine(2));
    bench.handle(LocalEvent::ExecutorDied { executor: pool, death: killed() });
    let cause = bench.claim_delivery(driver, 2).unwrap().cause.clone();
    assert_eq!(cause, Cause::ExecutorDied(killed()));
}

#[test]
fn a_timer_stops_with_its_task() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    bench.submit(driver, TaskBuilder::new(1).policy(limited()));
    bench.claim_run(pool);
    bench.finish(pool, 1, inline());
    bench.release(driver, 1);
    bench.claim_free(1);
    let next = bench.core.poll_timeout();
    assert!(next.is_none_or(|due| due - bench.now < LIMIT), "{next:?}: only the load is due");
}

#[test]
fn errors_are_tried_again_as_often_as_wanted_with_growing_pauses() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    let backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(3) };
    let policy = Policy { error_retries: 3, backoff, ..Policy::DEFAULT };
    bench.submit(driver, TaskBuilder::new(1).retries(0).policy(policy));
    for (attempt, most) in [(0, 1.0), (1, 2.0), (2, 3.0)] {
        assert_eq!(bench.claim_run(pool), (task(1), attempt));
        bench.finish_attempt(pool, 1, attempt, Outcome::Retryable(error(1)));
        bench.claim_nothing();
        let line = bench.core.explain(task(1)).unwrap();
        assert!(line.contains("tried again in"), "{line}");
        let failed = bench.now;
        bench.pass_time();
        let pause = (bench.now - failed).as_secs_f64();
        assert!((most / 2.0..=most).contains(&pause), "{pause} s of {most} s");
    }
    assert_eq!(bench.claim_run(pool), (task(1), 3));
    bench.want(driver, mine(1));
    bench.finish_attempt(pool, 1, 3, Outcome::Retryable(error(1)));
    assert_eq!(*bench.claim_delivery(driver, 1).unwrap(), error(1));
}

#[test]
fn each_kind_of_end_has_its_own_count() {
    let (mut bench, driver, mut pool) = Bench::with_pool(2.0);
    let policy = Policy { error_retries: 1, memory_retries: 1, ..Policy::DEFAULT };
    bench.submit(driver, TaskBuilder::new(1).retries(1).policy(policy));
    assert_eq!(bench.claim_run(pool), (task(1), 0));
    bench.want(driver, mine(1));
    bench.finish(pool, 1, Outcome::Retryable(error(1)));
    bench.pass_time();
    assert_eq!(bench.claim_run(pool), (task(1), 1));
    for (attempt, death, pauses) in [(2, killed(), false), (3, out_of_memory(), true)] {
        bench.handle(LocalEvent::ExecutorDied { executor: pool, death });
        if pauses {
            bench.claim_nothing();
            bench.pass_time();
        }
        pool = bench.claim_start(crate::local::ExecutorRole::Pool);
        bench.handle(LocalEvent::ExecutorStarted { executor: pool });
        assert_eq!(bench.claim_run(pool), (task(1), attempt));
    }
    bench.handle(LocalEvent::ExecutorDied { executor: pool, death: out_of_memory() });
    let cause = bench.claim_delivery(driver, 1).unwrap().cause.clone();
    assert_eq!(cause, Cause::ExecutorDied(out_of_memory()));
}

#[test]
fn a_pause_ends_when_the_task_is_cancelled() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    let policy = Policy { error_retries: 3, ..Policy::DEFAULT };
    bench.submit(driver, TaskBuilder::new(1).policy(policy));
    bench.claim_run(pool);
    bench.want(driver, mine(1));
    bench.finish(pool, 1, Outcome::Retryable(error(1)));
    bench.cancel(1, false);
    assert_eq!(bench.claim_delivery(driver, 1).unwrap().cause, Cause::Cancelled);
}

#[test]
fn children_are_cancelled_with_their_parent_unless_it_alone_is_meant() {
    for children in [true, false] {
        let (mut bench, driver, pool) = Bench::with_pool(3.0);
        let child = task(1).child(1);
        let of = |parent| TaskBuilder::new(0).child_of(parent, 1);
        for spec in [TaskBuilder::new(1), of(task(1)), of(child)] {
            bench.submit(if bench.core.tasks().count() > 1 { pool } else { driver }, spec);
            assert!(matches!(bench.claim(), LocalAction::Run { .. }));
        }
        let mode = crate::message::CancelMode { force: false, children };
        bench.handle(LocalEvent::CancelRequested { task: task(1), owner: ME, mode });
        let cancelled = if children { vec![task(1), child, child.child(1)] } else { vec![task(1)] };
        for task in cancelled {
            bench.claim_exactly(LocalAction::Cancel { executor: pool, task });
        }
    }
}

#[test]
fn whoever_refers_to_a_result_may_cancel_its_task_elsewhere() {
    let (mut bench, driver, _) = Bench::with_pool(2.0);
    bench.handle(LocalEvent::Retained { by: driver, reference: of_peer(7) });
    bench.claim_send(PEER, PeerMessage::Retain { object: object(7) });
    let (task_there, mode) = (task(7), asked(true));
    let event = LocalEvent::CancelRequested { task: task_there, owner: PEER, mode };
    bench.handle(event);
    bench.claim_send(PEER, PeerMessage::CancelRequested { task: task_there, mode });
    // And the other way round.
    bench.submit(driver, TaskBuilder::new(8).cpus(9.0));
    bench.claim_spilled();
    bench.want(driver, mine(8));
    bench.peer_says(PEER, PeerMessage::CancelRequested { task: task(8), mode });
    assert_eq!(bench.claim_head(), ToHead::Unspill { task: task(8) });
    assert_eq!(bench.claim_delivery(driver, 8).unwrap().cause, Cause::Cancelled);
}

#[test]
fn a_cancellation_that_overtakes_its_task_is_said_again() {
    let (mut bench, driver, _) = Bench::with_pool(2.0);
    let mode = asked(false);
    let (task_there, attempt) = (task(3), 1);
    bench.peer_says(PEER, PeerMessage::Cancel { task: task_there, attempt, mode });
    bench.claim_send(
        PEER,
        PeerMessage::CancelHeard { task: task_there, attempt, mode, found: false },
    );
    // As the owner: until the task is there, or has ended there.
    bench.submit(driver, TaskBuilder::new(1).cpus(9.0));
    bench.claim_spilled();
    bench.head_says(FromHead::Placed(vec![(task(1), 0, PEER)]));
    bench.want(driver, mine(1));
    bench.cancel(1, false);
    let cancel = PeerMessage::Cancel { task: task(1), attempt: 0, mode };
    for _ in 0..3 {
        bench.claim_send(PEER, cancel.clone());
        bench.peer_says(
            PEER,
            PeerMessage::CancelHeard { task: task(1), attempt: 0, mode, found: false },
        );
        bench.pass_time();
    }
    bench.claim_send(PEER, cancel);
    let outcome = Outcome::Failed(TaskError { task: task(1), cause: Cause::Cancelled });
    bench.peer_says(PEER, PeerMessage::Finished { task: task(1), attempt: 0, outcome });
    assert_eq!(bench.claim_delivery(driver, 1).unwrap().cause, Cause::Cancelled);
    bench.peer_says(
        PEER,
        PeerMessage::CancelHeard { task: task(1), attempt: 0, mode, found: false },
    );
    bench.claim_nothing();
}

#[test]
fn a_task_that_was_cancelled_in_the_head_is_cancelled_where_it_is_placed_meanwhile() {
    let (mut bench, driver, _) = Bench::with_pool(2.0);
    let mode = asked(false);
    bench.submit(driver, TaskBuilder::new(1).cpus(9.0));
    bench.claim_spilled();
    bench.release(driver, 1);
    bench.cancel(1, false);
    assert_eq!(bench.claim_head(), ToHead::Unspill { task: task(1) });
    bench.head_says(FromHead::Placed(vec![(task(1), 0, PEER)]));
    let cancel = PeerMessage::Cancel { task: task(1), attempt: 0, mode };
    let heard = |found| PeerMessage::CancelHeard { task: task(1), attempt: 0, mode, found };
    // It may come there later than the word to end it.
    for _ in 0..3 {
        bench.claim_send(PEER, cancel.clone());
        bench.peer_says(PEER, heard(false));
        bench.pass_time();
    }
    bench.claim_send(PEER, cancel);
    bench.peer_says(PEER, heard(true));
    bench.pass_idle_time();
}

#[test]
fn a_task_that_was_cancelled_in_the_head_and_never_comes_is_forgotten() {
    let (mut bench, driver, _) = Bench::with_pool(2.0);
    let mode = asked(false);
    bench.submit(driver, TaskBuilder::new(1).cpus(9.0));
    bench.claim_spilled();
    bench.cancel(1, false);
    assert_eq!(bench.claim_head(), ToHead::Unspill { task: task(1) });
    bench.head_says(FromHead::Placed(vec![(task(1), 0, PEER)]));
    let heard = PeerMessage::CancelHeard { task: task(1), attempt: 0, mode, found: false };
    let mut times = 0;
    while bench.pending() > 0 {
        times += 1;
        bench.claim_send(PEER, PeerMessage::Cancel { task: task(1), attempt: 0, mode });
        bench.peer_says(PEER, heard.clone());
        while bench.pending() == 0 && bench.pass_some_time() {}
    }
    assert!((8..20).contains(&times), "it was told {times} times");
}

#[test]
fn a_call_is_never_ended_by_force() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    let actor = crate::id::ActorId(task(1));
    bench.submit(driver, TaskBuilder::new(1).cpus(0.0).actor(Default::default()));
    bench.claim_run(pool);
    bench.finish(pool, 1, inline());
    bench.submit(driver, TaskBuilder::call(2, actor, ME));
    bench.claim_run(pool);
    bench.cancel(2, true);
    bench.claim_exactly(LocalAction::Cancel { executor: pool, task: task(2) });
}

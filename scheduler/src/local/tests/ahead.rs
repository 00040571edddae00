//! Short tasks that wait in their executor for their turn.

use core::time::Duration;

use super::bench::*;
use crate::id::{ExecutorId, TaskId};
use crate::local::{LocalAction, LocalEvent};
use crate::outcome::Cause;

/// A worker of one CPU whose pool has run many short tasks.
fn short_runs() -> (Bench, ExecutorId, ExecutorId) {
    let (mut bench, driver, pool) = Bench::with_pool(1.0);
    for index in 100..130 {
        bench.submit(driver, TaskBuilder::new(index));
        bench.claim_run(pool);
        end(&mut bench, driver, pool, index);
    }
    (bench, driver, pool)
}

fn end(bench: &mut Bench, driver: ExecutorId, pool: ExecutorId, index: u64) {
    bench.finish(pool, index, inline());
    let_go(bench, driver, index);
}

fn let_go(bench: &mut Bench, driver: ExecutorId, index: u64) {
    bench.release(driver, index);
    bench.claim_free(index);
}

/// The task that is given ahead next, and the last turn that was heard of.
fn claim_ahead(bench: &mut Bench, at: ExecutorId) -> (TaskId, u64) {
    match bench.claim() {
        LocalAction::RunAhead { executor, spec, after, .. } if executor == at => (spec.id, after),
        other => panic!("not given ahead: {other:?}"),
    }
}

#[test]
fn a_short_task_waits_in_the_executor_and_its_turn_starts_it() {
    let (mut bench, driver, pool) = short_runs();
    bench.submit(driver, TaskBuilder::new(1));
    bench.claim_run(pool);
    bench.submit(driver, TaskBuilder::new(2));
    let (first, after) = claim_ahead(&mut bench, pool);
    assert_eq!(first, task(2));
    bench.submit(driver, TaskBuilder::new(3));
    assert_eq!(claim_ahead(&mut bench, pool), (task(3), after));
    for index in 1..=3 {
        end(&mut bench, driver, pool, index);
    }
    bench.submit(driver, TaskBuilder::new(4));
    assert_eq!(bench.claim_run(pool), (task(4), 0));
    bench.submit(driver, TaskBuilder::new(5));
    assert_eq!(claim_ahead(&mut bench, pool), (task(5), after + 3));
    end(&mut bench, driver, pool, 4);
    end(&mut bench, driver, pool, 5);
}

#[test]
fn a_task_that_blocks_makes_room_for_the_next_and_its_debt_is_paid() {
    let (mut bench, driver, pool) = short_runs();
    bench.submit(driver, TaskBuilder::new(1));
    bench.claim_run(pool);
    bench.submit(driver, TaskBuilder::new(2));
    claim_ahead(&mut bench, pool);
    bench.handle(LocalEvent::Blocked { executor: pool, task: task(1), attempt: 0 });
    bench.handle(LocalEvent::Unblocked { executor: pool, task: task(1), attempt: 0 });
    // Two run on one CPU: nothing comes after them before one has ended.
    bench.submit(driver, TaskBuilder::new(3));
    bench.claim_nothing();
    bench.finish(pool, 2, inline());
    assert_eq!(claim_ahead(&mut bench, pool).0, task(3));
    let_go(&mut bench, driver, 2);
    end(&mut bench, driver, pool, 1);
    end(&mut bench, driver, pool, 3);
}

#[test]
fn what_waits_behind_a_task_that_became_long_is_taken_back() {
    let (mut bench, driver, pool) = short_runs();
    bench.submit(driver, TaskBuilder::new(1));
    bench.claim_run(pool);
    bench.submit(driver, TaskBuilder::new(2));
    claim_ahead(&mut bench, pool);
    bench.now = bench.now + Duration::from_millis(7);
    let now = bench.now;
    bench.core.handle_timeout(now);
    bench.core.check_invariants();
    assert_eq!(bench.core.poll_action(), Some(LocalAction::Recall { executor: pool }));
    bench.submit(driver, TaskBuilder::new(3));
    bench.claim_load();
    bench.claim_nothing();
    bench.handle(LocalEvent::Recalled { executor: pool });
    bench.now = bench.now + Duration::from_millis(30);
    bench.finish(pool, 1, inline());
    assert_eq!(bench.claim_run(pool), (task(3), 0));
    bench.claim_load();
    // The function counts as long now.
    bench.finish(pool, 3, inline());
    assert_eq!(bench.claim_run(pool), (task(2), 0));
    bench.finish(pool, 2, inline());
    (1..=3).for_each(|index| let_go(&mut bench, driver, index));
}

#[test]
fn a_dead_executor_has_not_started_what_waited_in_it() {
    let (mut bench, driver, pool) = short_runs();
    bench.submit(driver, TaskBuilder::new(1).retries(0));
    bench.claim_run(pool);
    bench.submit(driver, TaskBuilder::new(2).retries(0));
    claim_ahead(&mut bench, pool);
    bench.want(driver, mine(1));
    bench.handle(LocalEvent::ExecutorDied { executor: pool, death: killed() });
    let error = bench.claim_delivery(driver, 1).unwrap();
    assert_eq!(error.cause, Cause::ExecutorDied(killed()));
    let pool = bench.claim_start(crate::local::ExecutorRole::Pool);
    bench.handle(LocalEvent::ExecutorStarted { executor: pool });
    assert_eq!(bench.claim_run(pool), (task(2), 0));
    end(&mut bench, driver, pool, 2);
    bench.release(driver, 1);
}

#[test]
fn another_request_is_not_passed_by() {
    let (mut bench, driver, pool) = short_runs();
    bench.submit(driver, TaskBuilder::new(1));
    bench.claim_run(pool);
    bench.submit(driver, TaskBuilder::new(2).cpus(0.5));
    bench.submit(driver, TaskBuilder::new(3));
    bench.claim_nothing();
    for index in 1..=3 {
        bench.finish(pool, index, inline());
        if index < 3 {
            assert_eq!(bench.claim_run(pool), (task(index + 1), 0));
        }
        let_go(&mut bench, driver, index);
    }
}

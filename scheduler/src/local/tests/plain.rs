//! Plain tasks on one worker.

use super::bench::*;
use crate::id::JobId;
use crate::local::{ExecutorRole, LocalAction, LocalEvent};
use crate::message::{FromHead, ToHead};
use crate::outcome::{Cause, Death, Outcome, TaskError};
use crate::spec::{ActorOptions, Reference, Strategy};

#[test]
fn a_task_runs_and_its_result_is_delivered_and_freed() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    bench.submit(driver, TaskBuilder::new(1));
    assert_eq!(bench.claim_run(pool), (task(1), 0));
    bench.want(driver, mine(1));
    bench.finish(pool, 1, inline());
    assert_eq!(bench.claim_delivery(driver, 1), None);
    bench.release(driver, 1);
    bench.claim_free(1);
    assert!(bench.core.objects().next().is_none());
}

#[test]
fn a_result_that_nobody_waits_for_is_forgotten_at_once() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    bench.submit(driver, TaskBuilder::new(1));
    bench.claim_run(pool);
    bench.release(driver, 1);
    bench.finish(pool, 1, inline());
    bench.claim_free(1);
}

#[test]
fn a_dependent_waits_and_keeps_the_value_alive() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    bench.submit(driver, TaskBuilder::new(1));
    bench.claim_run(pool);
    bench.submit(driver, TaskBuilder::new(2).after(&[mine(1), mine(1)]));
    assert!(bench.core.explain(task(2)).unwrap().starts_with("waits for task-"));
    bench.release(driver, 1);
    bench.finish(pool, 1, inline());
    assert_eq!(bench.claim_run(pool), (task(2), 0));
    bench.finish(pool, 2, inline());
    bench.claim_free(1);
}

#[test]
fn a_dependent_fails_with_the_error_of_the_origin() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    bench.submit(driver, TaskBuilder::new(1));
    bench.claim_run(pool);
    for index in 2..100 {
        bench.submit(driver, TaskBuilder::new(index).after(&[mine(index - 1)]).retries(3));
    }
    bench.want(driver, mine(99));
    bench.finish(pool, 1, Outcome::Failed(panicked(1)));
    assert_eq!(*bench.claim_delivery(driver, 99).unwrap(), panicked(1));
}

#[test]
fn resources_bound_what_runs_and_priority_orders_it() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    bench.submit(driver, TaskBuilder::new(1));
    bench.submit_more(driver, pool);
    bench.submit(driver, TaskBuilder::new(3));
    bench.submit(driver, TaskBuilder::new(4).priority(5));
    bench.submit(driver, TaskBuilder::new(5));
    let line = bench.core.explain(task(5)).unwrap();
    assert_eq!(line, "waits for 1 CPU; 0 of 2 free; 2 other tasks queue, 2 of them alike");
    for (ended, next) in [(1, 4), (2, 3), (4, 5)] {
        bench.finish(pool, ended, inline());
        assert_eq!(bench.claim_run(pool).0, task(next));
    }
}

impl Bench {
    /// Claims task 1, submits and claims task 2.
    fn submit_more(&mut self, driver: crate::id::ExecutorId, pool: crate::id::ExecutorId) {
        assert_eq!(self.claim_run(pool).0, task(1));
        self.submit(driver, TaskBuilder::new(2));
        assert_eq!(self.claim_run(pool).0, task(2));
    }
}

#[test]
fn a_large_request_is_passed_by_but_not_for_ever() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    bench.submit(driver, TaskBuilder::new(1));
    bench.submit_more(driver, pool);
    bench.submit(driver, TaskBuilder::new(3).cpus(2.0));
    let mut running = std::collections::VecDeque::from([1, 2]);
    for index in 4..1_000 {
        bench.submit(driver, TaskBuilder::new(index));
        bench.finish(pool, running.pop_front().unwrap(), inline());
        if bench.core.tasks().any(|view| view.task == task(3) && view.state == "queued") {
            match running.len() {
                1 if bench.pending() == 0 => break,
                _ => running.push_back(index),
            }
            bench.claim_run(pool);
        }
    }
    assert_eq!(running.len(), 1, "later tasks stopped overtaking");
    bench.finish(pool, running[0], inline());
    assert_eq!(bench.claim_run(pool).0, task(3));
}

#[test]
fn a_blocked_task_frees_its_cpu_and_takes_it_back() {
    let (mut bench, driver, pool) = Bench::with_pool(1.0);
    bench.submit(driver, TaskBuilder::new(1));
    bench.claim_run(pool);
    bench.submit(driver, TaskBuilder::new(2));
    bench.handle(LocalEvent::Blocked { executor: pool, task: task(1), attempt: 0 });
    assert_eq!(bench.claim_run(pool).0, task(2));
    bench.handle(LocalEvent::Unblocked { executor: pool, task: task(1), attempt: 0 });
    bench.submit(driver, TaskBuilder::new(3));
    bench.finish(pool, 2, inline());
    bench.finish(pool, 1, inline());
    assert_eq!(bench.claim_run(pool).0, task(3));
}

#[test]
fn a_dead_executor_costs_an_attempt_and_stale_news_is_ignored() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    bench.submit(driver, TaskBuilder::new(1).retries(1));
    bench.claim_run(pool);
    bench.want(driver, mine(1));
    bench.handle(LocalEvent::ExecutorDied { executor: pool, death: killed() });
    let second = bench.claim_start(ExecutorRole::Pool);
    bench.finish(pool, 1, inline());
    bench.claim_free(1);
    bench.handle(LocalEvent::ExecutorStarted { executor: second });
    assert_eq!(bench.claim_run(second), (task(1), 1));
    bench.handle(LocalEvent::ExecutorDied { executor: second, death: killed() });
    let error = bench.claim_delivery(driver, 1).unwrap();
    assert_eq!(error.cause, Cause::ExecutorDied(killed()));
}

#[test]
fn a_failure_of_the_task_itself_is_not_retried() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    bench.submit(driver, TaskBuilder::new(1).retries(5));
    bench.claim_run(pool);
    bench.want(driver, mine(1));
    bench.finish(pool, 1, Outcome::Failed(panicked(1)));
    assert_eq!(*bench.claim_delivery(driver, 1).unwrap(), panicked(1));
}

#[test]
fn a_program_that_does_not_start_fails_what_waits_for_it() {
    let (mut bench, driver) = Bench::with_driver(2.0);
    bench.submit(driver, TaskBuilder::new(1));
    for attempt in 0..3 {
        let pool = bench.claim_start(ExecutorRole::Pool);
        if attempt == 0 {
            bench.want(driver, mine(1));
        }
        let death = Death::Exited { status: 127, stderr: "no such file".to_owned() };
        bench.handle(LocalEvent::ExecutorDied { executor: pool, death });
    }
    let error = bench.claim_delivery(driver, 1).unwrap();
    assert!(matches!(&error.cause, Cause::ExecutorDied(Death::NotStarted { reason })
        if reason.contains("no such file")));
}

#[test]
fn a_queued_task_is_cancelled_at_once_and_a_running_one_is_asked() {
    let (mut bench, driver, pool) = Bench::with_pool(1.0);
    bench.submit(driver, TaskBuilder::new(1));
    bench.claim_run(pool);
    bench.submit(driver, TaskBuilder::new(2));
    bench.want(driver, mine(2));
    bench.cancel(2, false);
    assert_eq!(bench.claim_delivery(driver, 2).unwrap().cause, Cause::Cancelled);
    bench.cancel(1, false);
    bench.claim_exactly(LocalAction::Cancel { executor: pool, task: task(1) });
    bench.want(driver, mine(1));
    bench.cancel(1, true);
    bench.claim_exactly(LocalAction::StopExecutor { executor: pool, force: true });
    bench.handle(LocalEvent::ExecutorDied { executor: pool, death: killed() });
    assert_eq!(bench.claim_delivery(driver, 1).unwrap().cause, Cause::Cancelled);
}

#[test]
fn what_ends_in_a_process_before_its_kill_has_ended_well() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    for index in [1, 2] {
        bench.submit(driver, TaskBuilder::new(index));
        bench.claim_run(pool);
    }
    bench.cancel(2, true);
    bench.claim_exactly(LocalAction::StopExecutor { executor: pool, force: true });
    let inner = Reference { object: task(1).put(0), owner: ME };
    let (size, inline, copies, contains) = (1 << 20, false, 1, Vec::new());
    let object = inner.object;
    bench.handle(LocalEvent::Put { by: pool, object, size, inline, copies, contains });
    bench.finish(pool, 1, in_arena(&[inner]));
    bench.handle(LocalEvent::Released { by: pool, object });
    bench.handle(LocalEvent::ExecutorDied { executor: pool, death: killed() });
    bench.want(driver, mine(1));
    assert_eq!(bench.claim_delivery(driver, 1), None);
    bench.handle(LocalEvent::Retained { by: driver, reference: inner });
    bench.want(driver, inner);
    let delivered = LocalAction::Deliver { executor: driver, object, error: None };
    bench.claim_exactly(delivered);
}

#[test]
fn a_repeated_submit_is_a_no_op_that_refers_again() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    bench.submit(driver, TaskBuilder::new(1));
    bench.claim_run(pool);
    bench.submit(pool, TaskBuilder::new(1));
    bench.release(driver, 1);
    bench.finish(pool, 1, inline());
    bench.submit(pool, TaskBuilder::new(1));
    bench.release(pool, 1);
    bench.claim_free(1);
}

#[test]
fn a_pool_that_is_expected_starts_beside_the_driver_where_a_cpu_is_free() {
    let (mut bench, driver) = Bench::with_driver(1.0);
    bench.handle(LocalEvent::PoolExpected { job: JobId(9) });
    bench.claim_nothing();
    bench.handle(LocalEvent::PoolExpected { job: JOB });
    let pool = bench.claim_start(ExecutorRole::Pool);
    bench.handle(LocalEvent::PoolExpected { job: JOB });
    bench.claim_nothing();
    bench.submit(driver, TaskBuilder::new(1));
    bench.claim_nothing();
    bench.handle(LocalEvent::ExecutorStarted { executor: pool });
    assert_eq!(bench.claim_run(pool), (task(1), 0));

    let (mut bench, _) = Bench::with_driver(0.5);
    bench.handle(LocalEvent::PoolExpected { job: JOB });
    bench.claim_nothing();
}

#[test]
fn a_driver_reports_to_the_head_and_its_executor_ends() {
    let (mut bench, driver) = Bench::with_driver(2.0);
    let finished = LocalEvent::Finished {
        executor: driver,
        task: crate::id::TaskId::driver(JOB),
        attempt: 0,
        outcome: Outcome::Returned(Vec::new()),
    };
    bench.handle(finished);
    bench.claim_exactly(LocalAction::StopExecutor { executor: driver, force: false });
    assert!(matches!(bench.claim_head(), ToHead::Ended(_)));
    assert!(matches!(bench.claim_head(), ToHead::DriverFinished { job: JOB, attempt: 0, .. }));
    // A head that forgot hears it again.
    bench.handle(LocalEvent::HeadFound { fresh: true });
    assert!(matches!(bench.claim_head(), ToHead::DriverFinished { job: JOB, attempt: 0, .. }));
    bench.claim_load();
    bench.now.0 += 1_000_000_000;
    bench.head_says(FromHead::JobEnded { job: JOB });
    // It does not end: it is killed.
    bench.now = bench.core.poll_timeout().unwrap();
    bench.core.handle_timeout(bench.now);
    let kill = LocalAction::StopExecutor { executor: driver, force: true };
    assert_eq!(bench.core.poll_action(), Some(kill));
    bench.handle(LocalEvent::ExecutorDied { executor: driver, death: killed() });
    assert!(bench.core.is_idle());
}

#[test]
fn the_end_of_a_job_takes_everything_of_it() {
    let (mut bench, driver, pool) = Bench::with_pool(1.0);
    bench.submit(driver, TaskBuilder::new(1));
    bench.claim_run(pool);
    bench.submit(driver, TaskBuilder::new(2).after(&[mine(1)]));
    bench.submit(driver, TaskBuilder::new(3).strategy(Strategy::Spread));
    assert_eq!(bench.claim_spilled(), [(task(3), 0)]);
    bench.handle(LocalEvent::JobEnded { job: JOB });
    bench.claim_exactly(LocalAction::StopExecutor { executor: driver, force: false });
    bench.claim_exactly(LocalAction::StopExecutor { executor: pool, force: false });
    let driver_task = crate::id::TaskId::driver(JOB);
    assert_eq!(bench.claim_head(), ToHead::Ended(vec![(driver_task, 0)]));
    bench.finish(pool, 1, inline());
    bench.claim_free(1);
    for executor in [driver, pool] {
        bench.handle(LocalEvent::ExecutorDied { executor, death: Death::Ended });
    }
    assert!(bench.core.is_idle());
    assert_eq!(bench.core.objects().count(), 0);
    assert_eq!(bench.core.held().assigned.len(), 0);
}

#[test]
fn what_may_only_run_on_a_lost_worker_fails_at_once() {
    let (mut bench, driver) = Bench::with_driver(2.0);
    let only = Strategy::Affinity { worker: PEER, soft: false };
    let pinned = |index| TaskBuilder::new(index).strategy(only.clone()).retries(3);
    // One on that worker, one in the head, one that waits for the second.
    for index in [1, 2] {
        bench.submit(driver, pinned(index));
        assert_eq!(bench.claim_spilled(), [(task(index), 0)]);
    }
    bench.head_says(FromHead::Placed(vec![(task(1), 0, PEER)]));
    bench.submit(driver, pinned(3).after(&[mine(2)]));
    for index in 1..=3 {
        bench.want(driver, mine(index));
    }
    let reason = "its power failed".to_owned();
    bench.head_says(FromHead::WorkerDied { worker: PEER, reason });
    let cause = bench.claim_delivery(driver, 1).unwrap().cause.clone();
    assert_eq!(cause, Cause::WorkerDied { reason: "its power failed".to_owned() });
    let text = "it may only run on worker-2, which is gone; soft affinity lets it move";
    let cause = Cause::WorkerDied { reason: text.to_owned() };
    assert_eq!(bench.claim_head(), ToHead::Unspill { task: task(2) });
    for index in [2, 3] {
        let error = TaskError { task: task(index), cause: cause.clone() };
        assert_eq!(*bench.claim_delivery(driver, index).unwrap(), error);
    }
    // Nor is a later one tried; an actor is dead; what may move does.
    bench.submit(driver, pinned(4));
    bench.want(driver, mine(4));
    assert_eq!(bench.claim_delivery(driver, 4).unwrap().cause, cause);
    bench.submit(driver, pinned(5).actor(ActorOptions::default()));
    let text_of = bench.core.explain(task(5)).unwrap();
    let line = text_of.lines().next().unwrap();
    assert!(line.starts_with("is dead: ") && line.ends_with(text), "{line}");
    let soft = Strategy::Affinity { worker: PEER, soft: true };
    bench.submit(driver, TaskBuilder::new(6).strategy(soft));
    assert_eq!(bench.claim_spilled(), [(task(6), 0)]);
}

#[test]
fn what_may_only_run_here_runs_while_the_worker_leaves() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    bench.handle(LocalEvent::Drain);
    let only = Strategy::Affinity { worker: ME, soft: false };
    bench.submit(driver, TaskBuilder::new(1).strategy(only));
    assert_eq!(bench.claim_run(pool), (task(1), 0));
    bench.finish(pool, 1, inline());
    bench.release(driver, 1);
    bench.claim_free(1);
}

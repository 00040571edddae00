//! Jobs beside each other on one worker.

use super::bench::*;
use crate::id::{ExecutorId, JobId, TaskId, WorkerId};
use crate::local::{ExecutorRole, LocalAction, LocalEvent};
use crate::message::FromHead;

const OTHER: JobId = JobId(77);

fn other(index: u64) -> TaskId {
    TaskId::driver(OTHER).child(index)
}

/// The driver and the pool of a second job.
fn second_job(bench: &mut Bench) -> (ExecutorId, ExecutorId) {
    let mut driver = TaskBuilder::driver().assignment(0, WorkerId::HEAD);
    driver.spec.id = TaskId::driver(OTHER);
    driver.spec.parent = driver.spec.id;
    bench.handle(LocalEvent::FromHead(FromHead::Assigned(vec![driver])));
    let executor = bench.claim_start(ExecutorRole::Driver);
    bench.handle(LocalEvent::ExecutorStarted { executor });
    bench.claim_run(executor);
    submit(bench, executor, 0);
    let pool = bench.claim_start(ExecutorRole::Pool);
    bench.handle(LocalEvent::ExecutorStarted { executor: pool });
    bench.claim_run(pool);
    let outcome = inline();
    bench.handle(LocalEvent::Finished { executor: pool, task: other(0), attempt: 0, outcome });
    (executor, pool)
}

fn submit(bench: &mut Bench, by: ExecutorId, index: u64) {
    let mut spec = (*TaskBuilder::new(index).cpus(0.5).build()).clone();
    spec.id = other(index);
    spec.parent = TaskId::driver(OTHER);
    bench.handle(LocalEvent::Submitted { by, spec: spec.into() });
}

#[test]
fn a_call_of_a_job_that_ends_waits_no_longer_in_the_actor_of_another() {
    let (mut bench, driver) = Bench::with_driver(4.0);
    let (_, pool) = second_job(&mut bench);
    // Never there; a call of the first job that runs in the second one's actor waits for it.
    bench.submit(driver, TaskBuilder::new(1).cpus(8.0));
    bench.claim_spilled();
    bench.want(pool, mine(1));

    bench.handle(LocalEvent::JobEnded { job: JOB });
    let told = |action: &LocalAction| {
        matches!(action, LocalAction::Deliver { executor, object: of, error: Some(_) }
            if *executor == pool && *of == object(1))
    };
    let actions: Vec<LocalAction> = (0..bench.pending()).map(|_| bench.claim()).collect();
    assert!(actions.iter().any(told), "{actions:?}");
    bench.release(pool, 1);
    bench.claim_nothing();
}

#[test]
fn what_is_free_goes_to_the_job_that_has_the_least() {
    for (weight, expected) in [(1, "212121212"), (2, "212212212")] {
        let (mut bench, driver, pool) = Bench::with_pool(if weight == 1 { 1.0 } else { 1.5 });
        let (second, second_pool) = second_job(&mut bench);
        bench.handle(LocalEvent::JobWeighed { job: OTHER, weight });
        let mut running = Vec::new();
        let mut seen = String::new();
        for index in 1..=20 {
            // Half a CPU each: such tasks are not run ahead of their turn.
            bench.submit(driver, TaskBuilder::new(index).cpus(0.5));
            while bench.pending() > 0 {
                running.push((pool, bench.claim_run(pool).0));
            }
        }
        (1..=20).for_each(|index| submit(&mut bench, second, index));
        while seen.len() < expected.len() {
            let (executor, task) = running.remove(0);
            let outcome = inline();
            bench.handle(LocalEvent::Finished { executor, task, attempt: 0, outcome });
            match bench.claim() {
                LocalAction::Run { executor, spec, .. } => {
                    let is_second = executor == second_pool;
                    seen.push(if is_second { '2' } else { '1' });
                    running.push((executor, spec.id));
                }
                other => panic!("nothing runs: {other:?}"),
            }
        }
        let (twos, wanted) = (seen.matches('2').count(), expected.matches('2').count());
        assert!(twos.abs_diff(wanted) <= 1, "weight {weight}: {seen}, not {expected}");
    }
}

//! What is left of a try of a driver whose process has died.

use super::bench::*;
use crate::id::{ActorId, ExecutorId};
use crate::local::{ExecutorRole, LocalAction, LocalEvent};
use crate::message::ToHead;
use crate::spec::{ActorOptions, Strategy};

/// What the worker does about it, but for what it tells the head.
fn driver_lost(bench: &mut Bench, driver: ExecutorId) -> Vec<LocalAction> {
    bench.handle(LocalEvent::ExecutorDied { executor: driver, death: killed() });
    let mut actions = Vec::new();
    while bench.pending() > 0 {
        actions.push(bench.claim());
    }
    let told = |action: &LocalAction| {
        matches!(action, LocalAction::SendHead(ToHead::DriverFinished { job: JOB, .. }))
    };
    assert!(actions.iter().any(told), "{actions:?}");
    actions.retain(|action| !matches!(action, LocalAction::SendHead(_)));
    actions
}

#[test]
fn its_actors_end_and_their_cpus_are_free() {
    let (mut bench, driver, _) = Bench::with_pool(2.0);
    let options = ActorOptions { own_process: true, ..ActorOptions::default() };
    bench.submit(driver, TaskBuilder::new(1).cpus(2.0).actor(options.clone()));
    let actor = ActorId(task(1));
    let own = bench.claim_start(ExecutorRole::Actor(actor));
    bench.handle(LocalEvent::ExecutorStarted { executor: own });
    bench.claim_run(own);
    bench.finish(own, 1, inline());
    // Another one waits in the head for room.
    bench.submit(driver, TaskBuilder::new(2).cpus(2.0).actor(options));
    assert_eq!(bench.claim_spilled(), [(task(2), 0)]);

    let actions = driver_lost(&mut bench, driver);
    let stop = LocalAction::StopExecutor { executor: own, force: true };
    assert_eq!(actions, [stop, LocalAction::Free { object: object(1) }]);
    bench.handle(LocalEvent::ExecutorDied { executor: own, death: killed() });
    bench.claim_nothing();
    assert_eq!(bench.core.tasks().count(), 0);
    assert!(bench.core.actors().all(|actor| actor.death.is_some()));
}

#[test]
fn its_tasks_end_where_they_wait_and_where_they_run() {
    let (mut bench, driver, pool) = Bench::with_pool(1.0);
    bench.submit(driver, TaskBuilder::new(1).retries(3));
    bench.claim_run(pool);
    bench.submit(driver, TaskBuilder::new(2));
    bench.submit(driver, TaskBuilder::new(3).strategy(Strategy::Spread));
    assert_eq!(bench.claim_spilled(), [(task(3), 0)]);
    // One of a task, of which nobody else knows.
    bench.submit(pool, TaskBuilder::new(1).child_of(task(1), 7));

    let actions = driver_lost(&mut bench, driver);
    assert_eq!(actions, [LocalAction::StopExecutor { executor: pool, force: true }]);
    bench.handle(LocalEvent::ExecutorDied { executor: pool, death: killed() });
    assert_eq!(bench.core.tasks().count(), 0);
}

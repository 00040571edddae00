//! Leases, and what is told of leased tasks.

use super::bench::*;
use crate::id::{ActorId, ExecutorId};
use crate::local::{ExecutorRole, LEASED_ATTEMPT, LeaseEnd, LocalAction, LocalEvent};
use crate::outcome::{Cause, Outcome};
use crate::spec::ActorOptions;

impl Bench {
    /// A driver with a lease, which the pool hosts.
    fn with_lease(cpus: f64) -> (Self, ExecutorId, ExecutorId) {
        let (mut bench, driver, pool) = Self::with_pool(cpus);
        bench.ask_lease(driver);
        bench.claim_lease(driver, Some((pool, 1)));
        (bench, driver, pool)
    }

    fn ask_lease(&mut self, by: ExecutorId) {
        self.handle(LocalEvent::LeaseWanted { by });
    }

    fn claim_lease(&mut self, caller: ExecutorId, granted: Option<(ExecutorId, u64)>) {
        self.claim_exactly(LocalAction::Lease { caller, granted });
    }

    fn claim_end(&mut self, executor: ExecutorId, caller: ExecutorId, how: LeaseEnd) {
        self.claim_end_of(executor, caller, 1, how);
    }

    fn claim_end_of(
        &mut self,
        executor: ExecutorId,
        caller: ExecutorId,
        number: u64,
        how: LeaseEnd,
    ) {
        self.claim_exactly(LocalAction::EndLease { executor, caller, number, how });
    }

    fn lease_over(&mut self, host: ExecutorId, caller: ExecutorId, running: Option<TaskBuilder>) {
        let running = running.map(TaskBuilder::build);
        self.handle(LocalEvent::LeaseOver { executor: host, caller, number: 1, running });
    }

    fn promise_task(&mut self, by: ExecutorId, index: u64) {
        let spec = TaskBuilder::new(index).retries(3).build();
        self.handle(LocalEvent::Promised { by, spec, lost: None });
    }

    fn wait_leased(&mut self, executor: ExecutorId, index: u64, waits: bool) {
        let (task, attempt) = (task(index), LEASED_ATTEMPT);
        self.handle(match waits {
            true => LocalEvent::Blocked { executor, task, attempt },
            false => LocalEvent::Unblocked { executor, task, attempt },
        });
    }

    fn finish_leased(&mut self, pool: ExecutorId, index: u64, outcome: Outcome) {
        self.finish_attempt(pool, index, LEASED_ATTEMPT, outcome);
    }
}

#[test]
fn a_lease_is_granted_where_a_cpu_is_free_and_nothing_waits() {
    let (mut bench, driver, pool) = Bench::with_lease(1.0);
    bench.ask_lease(driver);
    bench.claim_lease(driver, None);
    bench.ask_lease(pool);
    bench.claim_lease(pool, None);
    bench.lease_over(pool, driver, None);
    bench.submit(driver, TaskBuilder::new(2));
    assert_eq!(bench.claim_run(pool), (task(2), 0));
    bench.ask_lease(driver);
    bench.claim_lease(driver, None);
    bench.finish(pool, 2, inline());
    bench.ask_lease(driver);
    bench.claim_lease(driver, Some((pool, 2)));
}

#[test]
fn a_lease_that_is_old_is_taken_back_more_and_more_firmly() {
    let (mut bench, driver, pool) = Bench::with_lease(2.0);
    for how in [LeaseEnd::WhenDry, LeaseEnd::Closed, LeaseEnd::AtOnce] {
        bench.pass_time();
        bench.claim_end(pool, driver, how);
    }
    bench.pass_idle_time();
    bench.lease_over(pool, driver, None);
    bench.claim_load();
}

#[test]
fn what_waits_takes_the_lease_of_a_host_without_work() {
    let (mut bench, driver, pool) = Bench::with_lease(1.0);
    bench.submit(driver, TaskBuilder::new(2));
    bench.claim_end(pool, driver, LeaseEnd::WhenDry);
    bench.submit(driver, TaskBuilder::new(3));
    bench.lease_over(pool, driver, None);
    assert_eq!(bench.claim_run(pool), (task(2), 0));
}

#[test]
fn an_actor_waits_for_the_lease_instead_of_going_elsewhere() {
    let (mut bench, driver, pool) = Bench::with_lease(1.0);
    bench.submit(driver, TaskBuilder::new(2).actor(ActorOptions::default()));
    bench.claim_end(pool, driver, LeaseEnd::AtOnce);
    bench.lease_over(pool, driver, None);
    assert_eq!(bench.claim_run(pool), (task(2), 0));
    bench.submit(driver, TaskBuilder::new(3).actor(ActorOptions::default()));
    assert_eq!(bench.claim_spilled(), [(task(3), 0)]);
}

#[test]
fn a_task_that_leaves_its_lease_goes_on_as_others_do() {
    let (mut bench, driver, pool) = Bench::with_lease(1.0);
    bench.lease_over(pool, driver, Some(TaskBuilder::new(2).retries(3)));
    bench.want(driver, mine(2));
    bench.submit(driver, TaskBuilder::new(3));
    bench.wait_leased(pool, 2, true);
    assert_eq!(bench.claim_run(pool), (task(3), 0));
    bench.wait_leased(pool, 2, false);
    bench.finish_leased(pool, 2, inline());
    assert_eq!(bench.claim_delivery(driver, 2), None);
    bench.submit(driver, TaskBuilder::new(4));
    bench.now = bench.now + core::time::Duration::from_millis(2);
    bench.finish(pool, 3, inline());
    assert_eq!(bench.claim_run(pool), (task(4), 0));
}

#[test]
fn a_promised_task_holds_nothing_until_it_leaves_its_lease() {
    let (mut bench, driver, pool) = Bench::with_lease(1.0);
    bench.promise_task(driver, 2);
    bench.promise_task(driver, 3);
    bench.wait_leased(pool, 2, true);
    bench.handle(LocalEvent::Answered { by: driver, task: task(2), outcome: inline() });
    bench.lease_over(pool, driver, Some(TaskBuilder::new(3).retries(3)));
    bench.submit(driver, TaskBuilder::new(4).after(&[mine(2), mine(3)]));
    bench.finish_leased(pool, 3, inline());
    assert_eq!(bench.claim_run(pool), (task(4), 0));
}

#[test]
fn a_promised_task_that_has_not_started_comes_back() {
    let (mut bench, driver, pool) = Bench::with_lease(1.0);
    bench.promise_task(driver, 2);
    bench.promise_task(driver, 3);
    bench.cancel(3, false);
    bench.claim_exactly(LocalAction::Cancel { executor: pool, task: task(3) });
    bench.lease_over(pool, driver, None);
    bench.submit(driver, TaskBuilder::new(2).retries(3));
    assert_eq!(bench.claim_run(pool), (task(2), 0));
    bench.want(driver, mine(3));
    bench.submit(driver, TaskBuilder::new(3).retries(3));
    assert_eq!(bench.claim_delivery(driver, 3).unwrap().cause, Cause::Cancelled);
}

#[test]
fn what_a_host_took_along_runs_again() {
    let (mut bench, driver, pool) = Bench::with_lease(1.0);
    bench.promise_task(driver, 2);
    bench.handle(LocalEvent::ExecutorDied { executor: pool, death: killed() });
    let next = bench.claim_start(ExecutorRole::Pool);
    let spec = TaskBuilder::new(3).retries(3).build();
    bench.handle(LocalEvent::Promised { by: driver, spec, lost: Some(killed()) });
    let spec = TaskBuilder::new(4).build();
    bench.handle(LocalEvent::Promised { by: driver, spec, lost: Some(killed()) });
    bench.want(driver, mine(4));
    let error = bench.claim_delivery(driver, 4).unwrap();
    assert_eq!(error.cause, Cause::ExecutorDied(killed()));
    bench.handle(LocalEvent::ExecutorStarted { executor: next });
    assert_eq!(bench.claim_run(next), (task(2), 1));
    bench.now = bench.now + core::time::Duration::from_millis(2);
    bench.finish_attempt(next, 2, 1, inline());
    assert_eq!(bench.claim_run(next), (task(3), 1));
}

#[test]
fn a_promise_that_comes_after_the_next_lease_is_of_the_last_host() {
    let (mut bench, driver, pool) = Bench::with_lease(1.0);
    bench.handle(LocalEvent::ExecutorDied { executor: pool, death: killed() });
    bench.submit(driver, TaskBuilder::new(2));
    let next = bench.claim_start(ExecutorRole::Pool);
    bench.handle(LocalEvent::ExecutorStarted { executor: next });
    assert_eq!(bench.claim_run(next), (task(2), 0));
    bench.now = bench.now + core::time::Duration::from_millis(5);
    bench.finish(next, 2, inline());
    bench.claim_load();
    bench.ask_lease(driver);
    bench.claim_lease(driver, Some((next, 2)));
    // The driver has yet to read that the host has ended.
    bench.promise_task(driver, 3);
    let spec = TaskBuilder::new(3).retries(3).build();
    bench.handle(LocalEvent::Promised { by: driver, spec, lost: Some(killed()) });
    bench.claim_end_of(next, driver, 2, LeaseEnd::WhenDry);
    let over = LocalEvent::LeaseOver { executor: next, caller: driver, number: 2, running: None };
    bench.handle(over);
    assert_eq!(bench.claim_run(next), (task(3), 1));
}

#[test]
fn a_lease_ends_with_its_process_as_its_host_says() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    let options = ActorOptions { own_process: true, ..ActorOptions::default() };
    bench.submit(driver, TaskBuilder::new(1).cpus(0.0).actor(options));
    let actor = ActorId(task(1));
    let own = bench.claim_start(ExecutorRole::Actor(actor));
    bench.handle(LocalEvent::ExecutorStarted { executor: own });
    bench.claim_run(own);
    bench.finish(own, 1, inline());
    bench.ask_lease(own);
    bench.claim_lease(own, Some((pool, 1)));
    bench.promise_task(own, 2);
    bench.promise_task(own, 3);
    bench.submit(driver, TaskBuilder::new(4).after(&[mine(2), mine(3)]));
    bench.handle(LocalEvent::ExecutorDied { executor: own, death: killed() });
    bench.claim_end(pool, own, LeaseEnd::AtOnce);
    // It runs the one, and nobody will say what became of the other.
    bench.lease_over(pool, own, Some(TaskBuilder::new(2).retries(3)));
    assert_eq!(bench.claim_run(pool), (task(3), 0));
    bench.finish(pool, 3, inline());
    bench.finish_leased(pool, 2, inline());
    assert_eq!(bench.claim_run(pool), (task(4), 0));
}

#[test]
fn what_was_promised_by_a_lease_is_not_lost_with_a_route_to_the_same_process() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    let options = ActorOptions { own_process: true, ..ActorOptions::default() };
    bench.submit(driver, TaskBuilder::new(1).cpus(0.0).actor(options));
    let own = bench.claim_start(ExecutorRole::Actor(ActorId(task(1))));
    bench.handle(LocalEvent::ExecutorStarted { executor: own });
    bench.claim_run(own);
    bench.finish(own, 1, inline());
    bench.submit(driver, TaskBuilder::new(2).cpus(0.0).actor(ActorOptions::default()));
    bench.claim_run(pool);
    bench.finish(pool, 2, inline());
    let actor = ActorId(task(2));
    bench.handle(LocalEvent::RouteWanted { by: own, actor });
    bench.claim_exactly(LocalAction::Route { caller: own, actor, executor: Some(pool) });
    bench.ask_lease(own);
    bench.claim_lease(own, Some((pool, 1)));
    bench.promise_task(own, 3);
    bench.submit(driver, TaskBuilder::new(4).after(&[mine(3)]));
    bench.handle(LocalEvent::ExecutorDied { executor: own, death: killed() });
    // It runs there, and does not begin anew beside that.
    bench.claim_end(pool, own, LeaseEnd::AtOnce);
    bench.lease_over(pool, own, Some(TaskBuilder::new(3).retries(3)));
    bench.finish_leased(pool, 3, inline());
    assert_eq!(bench.claim_run(pool), (task(4), 0));
}

#[test]
fn what_a_leased_try_says_is_not_of_another_try_in_the_same_process() {
    let (mut bench, driver, pool) = Bench::with_lease(2.0);
    bench.submit(driver, TaskBuilder::new(2).retries(3));
    assert_eq!(bench.claim_run(pool), (task(2), 0));
    // Another life of its maker has given the same task by the lease.
    bench.lease_over(pool, driver, Some(TaskBuilder::new(2).retries(3)));
    bench.submit(driver, TaskBuilder::new(3).cpus(2.0));
    bench.wait_leased(pool, 2, true);
    bench.finish_leased(pool, 2, inline());
    bench.claim_free(2);
    bench.claim_nothing();
    bench.finish(pool, 2, inline());
    assert_eq!(bench.claim_run(pool), (task(3), 0));
}

#[test]
fn leases_end_with_their_job_and_with_the_worker() {
    let (mut bench, driver, pool) = Bench::with_lease(1.0);
    bench.handle(LocalEvent::Drain);
    while !matches!(bench.claim(), LocalAction::EndLease { how: LeaseEnd::Closed, .. }) {}
    while bench.pending() > 0 {
        bench.claim();
    }
    bench.promise_task(driver, 2);
    bench.handle(LocalEvent::JobEnded { job: JOB });
    while bench.pending() > 0 {
        bench.claim();
    }
    bench.lease_over(pool, driver, Some(TaskBuilder::new(2).retries(3)));
}

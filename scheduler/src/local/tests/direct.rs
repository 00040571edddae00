//! Routes of direct calls, and what is told of such calls.

use super::bench::*;
use crate::id::{ActorId, ExecutorId};
use crate::local::{ExecutorRole, LocalAction, LocalEvent};
use crate::message::PeerMessage;
use crate::outcome::{Cause, Death, Outcome, Returned};
use crate::spec::ActorOptions;

fn actor() -> ActorId {
    ActorId(task(1))
}

fn call(index: u64) -> TaskBuilder {
    TaskBuilder::call(index, actor(), ME)
}

impl Bench {
    /// A driver, a pool, an actor in a process of its own, and a route of the driver to it.
    fn with_route(options: ActorOptions) -> (Self, ExecutorId, ExecutorId, ExecutorId) {
        let (mut bench, driver, pool) = Self::with_pool(2.0);
        let options = ActorOptions { own_process: true, ..options };
        bench.submit(driver, TaskBuilder::new(1).cpus(0.0).actor(options));
        let own = bench.claim_start(ExecutorRole::Actor(actor()));
        bench.handle(LocalEvent::ExecutorStarted { executor: own });
        assert_eq!(bench.claim_run(own), (task(1), 0));
        bench.ask_route(driver);
        bench.claim_route(driver, None);
        bench.finish(own, 1, inline());
        bench.ask_route(driver);
        bench.claim_route(driver, Some(own));
        (bench, driver, pool, own)
    }

    fn ask_route(&mut self, by: ExecutorId) {
        self.handle(LocalEvent::RouteWanted { by, actor: actor() });
    }

    fn claim_route(&mut self, caller: ExecutorId, executor: Option<ExecutorId>) {
        self.claim_exactly(LocalAction::Route { caller, actor: actor(), executor });
    }

    fn claim_route_ended(&mut self, caller: ExecutorId, death: Death) {
        self.claim_exactly(LocalAction::RouteEnded { caller, actor: actor(), death });
    }

    fn promise(&mut self, by: ExecutorId, call: TaskBuilder, lost: Option<Death>) {
        self.handle(LocalEvent::Promised { by, spec: call.build(), lost });
    }
}

#[test]
fn a_route_is_granted_where_all_calls_before_are_with_the_actor() {
    let (mut bench, driver, pool, own) = Bench::with_route(ActorOptions::default());
    bench.submit(driver, TaskBuilder::new(9));
    assert_eq!(bench.claim_run(pool), (task(9), 0));
    bench.submit(driver, call(2).after(&[mine(9)]));
    bench.ask_route(driver);
    bench.claim_route(driver, None);
    bench.finish(pool, 9, inline());
    assert_eq!(bench.claim_run(own), (task(2), 0));
    bench.ask_route(driver);
    bench.claim_route(driver, Some(own));
}

#[test]
fn a_promised_call_is_a_task_until_its_caller_has_the_answer() {
    let (mut bench, driver, pool, own) = Bench::with_route(ActorOptions::default());
    bench.promise(driver, call(2), None);
    bench.submit(driver, TaskBuilder::new(3).after(&[mine(2)]));
    bench.cancel(2, false);
    bench.claim_exactly(LocalAction::Cancel { executor: own, task: task(2) });
    bench.handle(LocalEvent::Answered { by: pool, task: task(2), outcome: inline() });
    bench.claim_free(2);
    bench.handle(LocalEvent::Answered { by: driver, task: task(2), outcome: inline() });
    assert_eq!(bench.claim_run(pool), (task(3), 0));
}

#[test]
fn the_end_of_the_actor_ends_its_routes_and_promised_calls() {
    let (mut bench, driver, _, own) = Bench::with_route(ActorOptions::default());
    bench.promise(driver, call(2), None);
    bench.want(driver, mine(2));
    bench.handle(LocalEvent::ActorKillRequested { actor: actor(), owner: ME });
    bench.claim_route_ended(driver, Death::Ended);
    bench.claim_exactly(LocalAction::StopExecutor { executor: own, force: true });
    let error = bench.claim_delivery(driver, 2).unwrap();
    assert_eq!(error.cause, Cause::ActorDied(Death::Ended));
    // One that crosses the news finds no actor.
    bench.promise(driver, call(3), None);
    bench.want(driver, mine(3));
    let error = bench.claim_delivery(driver, 3).unwrap();
    assert!(matches!(error.cause, Cause::ActorDied(_)), "{error}");
    bench.handle(LocalEvent::ExecutorDied { executor: own, death: killed() });
    bench.ask_route(driver);
    bench.claim_route(driver, None);
}

#[test]
fn a_lost_call_is_tried_again_in_the_next_life() {
    let options = ActorOptions { max_restarts: 1, ..ActorOptions::default() };
    let (mut bench, driver, _, own) = Bench::with_route(options);
    bench.promise(driver, call(2).retries(1), None);
    bench.handle(LocalEvent::ExecutorDied { executor: own, death: killed() });
    bench.claim_route_ended(driver, killed());
    let next = bench.claim_start(ExecutorRole::Actor(actor()));
    bench.promise(driver, call(3).retries(1), Some(killed()));
    bench.promise(driver, call(4), Some(killed()));
    bench.want(driver, mine(4));
    assert_eq!(bench.claim_delivery(driver, 4).unwrap().cause, Cause::ActorDied(killed()));
    bench.submit(driver, call(5));
    bench.handle(LocalEvent::ExecutorStarted { executor: next });
    assert_eq!(bench.claim_run(next), (task(1), 1));
    bench.finish_attempt(next, 1, 1, inline());
    assert_eq!(bench.claim_run(next), (task(2), 1));
    assert_eq!(bench.claim_run(next), (task(3), 1));
    assert_eq!(bench.claim_run(next), (task(5), 0));
    bench.ask_route(driver);
    bench.claim_route(driver, Some(next));
}

#[test]
fn what_was_promised_by_a_process_that_died_fails() {
    let (mut bench, driver, pool, own) = Bench::with_route(ActorOptions::default());
    bench.ask_route(pool);
    bench.claim_route(pool, Some(own));
    bench.promise(pool, call(2), None);
    bench.submit(driver, TaskBuilder::new(3).after(&[mine(2)]));
    bench.want(driver, mine(3));
    bench.handle(LocalEvent::ExecutorDied { executor: pool, death: killed() });
    assert_eq!(bench.claim_delivery(driver, 3).unwrap().cause, Cause::ExecutorDied(killed()));
}

#[test]
fn a_value_that_was_made_before_for_another_owner_is_as_good() {
    let (mut bench, driver, _, own) = Bench::with_route(ActorOptions::default());
    // The same call, made by the same task, when that ran on another worker.
    bench.peer_says(PEER, PeerMessage::call(call(2).assignment(0, PEER)));
    assert_eq!(bench.claim_run(own), (task(2), 0));
    let outcome = in_arena(&[]);
    bench.finish(own, 2, outcome.clone());
    bench.claim_send(PEER, PeerMessage::Finished { task: task(2), attempt: 0, outcome });
    let value = Returned { size: 1 << 20, inline: false, contains: Vec::new() };
    let made = LocalEvent::Made { executor: own, caller: driver, object: object(2), value };
    bench.handle(made);
    bench.want(driver, mine(2));
    assert_eq!(bench.claim_delivery(driver, 2), None);
}

#[test]
fn a_value_of_a_direct_call_does_not_end_the_same_call_of_another_owner() {
    let (mut bench, driver, _, own) = Bench::with_route(ActorOptions::default());
    bench.peer_says(PEER, PeerMessage::call(call(2).assignment(0, PEER)));
    assert_eq!(bench.claim_run(own), (task(2), 0));
    let value = Returned { size: 1 << 20, inline: false, contains: Vec::new() };
    let made = LocalEvent::Made { executor: own, caller: driver, object: object(2), value };
    bench.handle(made);
    bench.claim_nothing();
    let outcome = in_arena(&[]);
    bench.finish(own, 2, outcome.clone());
    bench.claim_send(PEER, PeerMessage::Finished { task: task(2), attempt: 0, outcome });
    bench.peer_says(PEER, PeerMessage::Free { object: object(2) });
    bench.want(driver, mine(2));
    assert_eq!(bench.claim_delivery(driver, 2), None);
    bench.release(driver, 2);
    bench.claim_free(2);
}

#[test]
fn a_value_that_fits_no_ring_is_its_callers() {
    let (mut bench, driver, _, own) = Bench::with_route(ActorOptions::default());
    let value = Returned { size: 9_000, inline: false, contains: Vec::new() };
    let made = |caller, index, value| LocalEvent::Made {
        executor: own,
        caller,
        object: object(index),
        value,
    };
    bench.handle(made(driver, 2, value.clone()));
    bench.want(driver, mine(2));
    assert_eq!(bench.claim_delivery(driver, 2), None);
    bench.release(driver, 2);
    bench.claim_free(2);
    bench.handle(made(ExecutorId(99), 3, value.clone()));
    bench.claim_free(3);
    bench.promise(driver, call(4), None);
    bench.want(driver, mine(4));
    bench.handle(made(driver, 4, value));
    assert_eq!(bench.claim_delivery(driver, 4), None);
    let error = Outcome::Failed(panicked(5));
    let Outcome::Failed(error) = error else { unreachable!() };
    bench.handle(LocalEvent::PutFailed { by: driver, object: object(5), error: error.clone() });
    bench.want(driver, mine(5));
    assert_eq!(*bench.claim_delivery(driver, 5).unwrap(), error);
}

#[test]
fn an_actor_tells_who_calls_it_directly() {
    let (mut bench, driver, _, own) = Bench::with_route(ActorOptions::default());
    let explained = |bench: &Bench| bench.core.explain(task(1)).unwrap();
    let lives = format!("lives in {own}, life 0\n1 process calls it directly; ");
    let lines = explained(&bench);
    assert!(lines.starts_with(&format!("{lives}0 such calls are known here")), "{lines}");
    bench.promise(driver, call(2), None);
    let lines = explained(&bench);
    assert!(lines.starts_with(&format!("{lives}1 such call is known here")), "{lines}");
    let job = bench.core.explain_job(task(1).job()).unwrap();
    assert!(job.contains("1 actors") && job.contains("1 way of direct calls"), "{job}");
    bench.handle(LocalEvent::Answered { by: driver, task: task(2), outcome: inline() });
    assert_eq!(bench.core.explain(task(3)), None);
}

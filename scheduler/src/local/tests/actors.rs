//! Actors: made, called, lost, made again, killed.

use super::bench::*;
use crate::id::{ActorId, ExecutorId, JobId, TaskId, WorkerId};
use crate::local::{ExecutorRole, LocalAction, LocalEvent};
use crate::message::{ActorPlace, FromHead, PeerMessage, Place, ToHead};
use crate::outcome::{Cause, Death, Outcome, TaskError};
use crate::spec::{ActorOptions, Reference};

fn actor() -> ActorId {
    ActorId(task(1))
}

fn call(index: u64) -> TaskBuilder {
    TaskBuilder::call(index, actor(), ME)
}

impl Bench {
    /// A driver, a pool, and a light actor in it.
    fn with_actor(options: ActorOptions) -> (Self, ExecutorId, ExecutorId) {
        let (mut bench, driver, pool) = Self::with_pool(2.0);
        bench.submit(driver, TaskBuilder::new(1).cpus(0.0).actor(options));
        assert_eq!(bench.claim_run(pool), (task(1), 0));
        bench.finish(pool, 1, inline());
        (bench, driver, pool)
    }
}

#[test]
fn calls_wait_for_their_actor_and_run_in_order() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    bench.submit(driver, TaskBuilder::new(1).cpus(0.0).actor(ActorOptions::default()));
    assert_eq!(bench.claim_run(pool), (task(1), 0));
    bench.submit(driver, TaskBuilder::new(9));
    assert_eq!(bench.claim_run(pool), (task(9), 0));
    bench.submit(driver, call(2));
    // Its argument does not exist, and it holds back what was called after it.
    bench.submit(driver, call(3).after(&[mine(9)]));
    bench.submit(driver, call(4));
    assert!(bench.core.explain(task(2)).unwrap().contains("to be made"));
    bench.finish(pool, 1, inline());
    assert_eq!(bench.claim_run(pool), (task(2), 0));
    bench.submit(pool, call(5));
    assert_eq!(bench.claim_run(pool), (task(5), 0), "another submitter is not held back");
    bench.finish(pool, 9, inline());
    assert_eq!(bench.claim_run(pool), (task(3), 0));
    assert_eq!(bench.claim_run(pool), (task(4), 0));
}

#[test]
fn calls_that_may_start_out_of_order_keep_nobody_waiting() {
    let (mut bench, driver, pool) = Bench::with_pool(4.0);
    bench.submit(driver, TaskBuilder::new(1).cpus(0.0).actor(ActorOptions::default()));
    assert_eq!(bench.claim_run(pool), (task(1), 0));
    for index in [8, 9] {
        bench.submit(driver, TaskBuilder::new(index));
        assert_eq!(bench.claim_run(pool), (task(index), 0));
    }
    bench.submit(driver, call(2).after(&[mine(8)]).out_of_order());
    bench.submit(driver, call(3).after(&[mine(9)]).out_of_order());
    bench.submit(driver, call(4).out_of_order());
    bench.finish(pool, 9, inline());
    bench.finish(pool, 1, inline());
    // As soon as the actor is there: those that have their arguments.
    assert_eq!(bench.claim_run(pool), (task(4), 0));
    assert_eq!(bench.claim_run(pool), (task(3), 0));
    bench.submit(driver, call(5).out_of_order());
    assert_eq!(bench.claim_run(pool), (task(5), 0));
    bench.finish(pool, 8, inline());
    assert_eq!(bench.claim_run(pool), (task(2), 0));
}

#[test]
fn an_actor_is_made_again_and_only_then_called_again() {
    let options = ActorOptions { max_restarts: 1, ..ActorOptions::default() };
    let (mut bench, driver, pool) = Bench::with_actor(options);
    bench.submit(driver, call(2));
    bench.claim_run(pool);
    bench.submit(driver, call(3).retries(1));
    bench.claim_run(pool);
    bench.want(driver, mine(2));
    bench.want(driver, mine(3));
    bench.handle(LocalEvent::ExecutorDied { executor: pool, death: killed() });
    let error = bench.claim_delivery(driver, 2).unwrap();
    assert_eq!(error.cause, Cause::ActorDied(killed()));
    let second = bench.claim_start(ExecutorRole::Pool);
    bench.handle(LocalEvent::ExecutorStarted { executor: second });
    assert_eq!(bench.claim_run(second), (task(1), 1));
    bench.submit(driver, call(4));
    bench.finish_attempt(second, 1, 1, inline());
    assert_eq!(bench.claim_run(second), (task(3), 1));
    assert_eq!(bench.claim_run(second), (task(4), 0));
    // No restarts are left.
    bench.want(driver, mine(4));
    bench.handle(LocalEvent::ExecutorDied { executor: second, death: killed() });
    assert_eq!(bench.claim_delivery(driver, 3).unwrap().cause, Cause::ActorDied(killed()));
    assert_eq!(bench.claim_delivery(driver, 4).unwrap().cause, Cause::ActorDied(killed()));
    bench.submit(driver, call(5));
    bench.want(driver, mine(5));
    let error = bench.claim_delivery(driver, 5).unwrap();
    assert_eq!((error.task, &error.cause), (task(1), &Cause::ActorDied(killed())));
    assert!(bench.core.explain(task(1)).unwrap().starts_with("is dead"));
}

#[test]
fn an_actor_that_cannot_be_made_fails_its_calls_with_the_reason() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    bench.submit(driver, TaskBuilder::new(1).cpus(0.0).actor(ActorOptions::default()));
    bench.claim_run(pool);
    bench.submit(driver, call(2));
    bench.want(driver, mine(2));
    bench.finish(pool, 1, Outcome::Failed(panicked(1)));
    assert_eq!(*bench.claim_delivery(driver, 2).unwrap(), panicked(1));
}

#[test]
fn an_actor_of_its_own_process_holds_its_cpus_until_it_is_killed() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    let options = ActorOptions { own_process: true, ..ActorOptions::default() };
    bench.submit(driver, TaskBuilder::new(1).cpus(2.0).actor(options));
    let own = bench.claim_start(ExecutorRole::Actor(actor()));
    bench.handle(LocalEvent::ExecutorStarted { executor: own });
    bench.claim_run(own);
    bench.finish(own, 1, inline());
    bench.submit(driver, TaskBuilder::new(5));
    bench.submit(driver, call(2));
    bench.claim_run(own);
    // While its only call waits, its CPUs are free.
    bench.handle(LocalEvent::Blocked { executor: own, task: task(2), attempt: 0 });
    assert_eq!(bench.claim_run(pool).0, task(5));
    bench.handle(LocalEvent::Unblocked { executor: own, task: task(2), attempt: 0 });
    bench.finish(pool, 5, inline());
    bench.submit(driver, TaskBuilder::new(6));
    bench.want(driver, mine(2));
    bench.handle(LocalEvent::ActorKillRequested { actor: actor(), owner: ME });
    bench.claim_exactly(LocalAction::StopExecutor { executor: own, force: true });
    let error = bench.claim_delivery(driver, 2).unwrap();
    assert_eq!(error.cause, Cause::ActorDied(Death::Ended));
    assert_eq!(bench.claim_run(pool).0, task(6));
    bench.handle(LocalEvent::ExecutorDied { executor: own, death: killed() });
}

#[test]
fn a_killed_light_actor_leaves_its_executor_to_the_others() {
    let (mut bench, driver, pool) = Bench::with_actor(ActorOptions::default());
    bench.handle(LocalEvent::ActorKillRequested { actor: actor(), owner: ME });
    bench.claim_exactly(LocalAction::DropActor { executor: pool, actor: actor() });
    bench.submit(driver, TaskBuilder::new(2));
    assert_eq!(bench.claim_run(pool), (task(2), 0));
}

#[test]
fn an_actor_without_room_goes_to_the_head() {
    let (mut bench, driver, pool) = Bench::with_pool(1.0);
    bench.submit(driver, TaskBuilder::new(9));
    bench.claim_run(pool);
    bench.submit(driver, TaskBuilder::new(1).cpus(1.0).actor(ActorOptions::default()));
    assert_eq!(bench.claim_spilled(), [(task(1), 0)]);
    bench.submit(driver, call(2));
    bench.head_says(FromHead::Placed(vec![(task(1), 0, PEER)]));
    let finished = PeerMessage::Finished { task: task(1), attempt: 0, outcome: inline() };
    bench.peer_says(PEER, finished);
    let assignment = call(2).assignment(0, ME);
    bench.claim_send(PEER, PeerMessage::call(assignment));
    // Another worker asks for it, and hears of its end.
    bench.peer_says(OTHER, PeerMessage::ActorLocate { actor: actor() });
    let place = ActorPlace::At { worker: PEER, life: 0 };
    bench.claim_send(OTHER, PeerMessage::ActorLocated { actor: actor(), place });
    bench.want(driver, mine(2));
    let lost = PeerMessage::ActorLost { actor: actor(), life: 0, death: killed() };
    bench.peer_says(PEER, lost);
    let LocalAction::Send { to: OTHER, message } = bench.claim() else { panic!("a notice") };
    assert!(matches!(message, PeerMessage::ActorLocated { place: ActorPlace::Dead(_), .. }));
    let cause = Cause::ActorDied(killed());
    let error = TaskError { task: task(2), cause };
    let outcome = Outcome::Failed(error.clone());
    bench.peer_says(PEER, PeerMessage::Finished { task: task(2), attempt: 0, outcome });
    assert_eq!(*bench.claim_delivery(driver, 2).unwrap(), error);
}

#[test]
fn an_actor_is_made_again_though_its_call_is_known_to_be_lost_before() {
    let (mut bench, driver, pool) = Bench::with_pool(1.0);
    bench.submit(driver, TaskBuilder::new(9));
    bench.claim_run(pool);
    let options = ActorOptions { max_restarts: 1, ..ActorOptions::default() };
    bench.submit(driver, TaskBuilder::new(1).cpus(1.0).actor(options));
    assert_eq!(bench.claim_spilled(), [(task(1), 0)]);
    bench.head_says(FromHead::Placed(vec![(task(1), 0, PEER)]));
    let finished = PeerMessage::Finished { task: task(1), attempt: 0, outcome: inline() };
    bench.peer_says(PEER, finished);
    bench.submit(driver, call(2).retries(1));
    bench.claim_send(PEER, PeerMessage::call(call(2).retries(1).assignment(0, ME)));
    let cause = Cause::ActorDied(Death::WorkerLost);
    let outcome = Outcome::Failed(TaskError { task: task(2), cause });
    bench.peer_says(PEER, PeerMessage::Finished { task: task(2), attempt: 0, outcome });
    bench.claim_nothing();
    let death = Death::WorkerLost;
    bench.peer_says(PEER, PeerMessage::ActorLost { actor: actor(), life: 0, death });
    assert_eq!(bench.claim_spilled(), [(task(1), 1)]);
}

#[test]
fn an_actor_of_another_worker_is_located_once_and_called_there() {
    let (mut bench, driver, _) = Bench::with_pool(2.0);
    let call = |index| TaskBuilder::call(index, actor(), PEER);
    bench.submit(driver, call(2));
    bench.claim_send(PEER, PeerMessage::ActorLocate { actor: actor() });
    bench.submit(driver, call(3).retries(1));
    let located = |worker: WorkerId, life| PeerMessage::ActorLocated {
        actor: actor(),
        place: ActorPlace::At { worker, life },
    };
    bench.peer_says(PEER, located(OTHER, 0));
    bench.claim_send(OTHER, PeerMessage::call(call(2).assignment(0, ME)));
    bench.claim_send(OTHER, PeerMessage::call(call(3).retries(1).assignment(0, ME)));
    bench.want(driver, mine(2));
    bench.head_says(FromHead::WorkerDied { worker: OTHER, reason: "gone".to_owned() });
    let error = bench.claim_delivery(driver, 2).unwrap();
    assert_eq!(error.cause, Cause::ActorDied(Death::WorkerLost));
    // Old news do not count.
    bench.peer_says(PEER, located(OTHER, 0));
    bench.peer_says(PEER, located(PEER, 1));
    bench.claim_send(PEER, PeerMessage::call(call(3).retries(1).assignment(1, ME)));
}

#[test]
fn a_hosted_actor_serves_other_workers() {
    let (mut bench, _, pool) = Bench::with_pool(2.0);
    let create = TaskBuilder::new(1).actor(ActorOptions::default());
    bench.head_says(FromHead::Assigned(vec![create.assignment(0, PEER)]));
    bench.claim_run(pool);
    bench.finish(pool, 1, inline());
    let finished = PeerMessage::Finished { task: task(1), attempt: 0, outcome: inline() };
    bench.claim_send(PEER, finished);
    bench.claim_free(1);
    let call = TaskBuilder::call(2, actor(), PEER).assignment(0, OTHER);
    bench.peer_says(OTHER, PeerMessage::call(call.clone()));
    assert_eq!(bench.claim_run(pool), (task(2), 0));
    bench.peer_says(OTHER, PeerMessage::call(call));
    bench.handle(LocalEvent::ExecutorDied { executor: pool, death: killed() });
    let lost = PeerMessage::ActorLost { actor: actor(), life: 0, death: killed() };
    bench.claim_send(PEER, lost);
    let LocalAction::Send { to: OTHER, message } = bench.claim() else { panic!("an outcome") };
    assert!(matches!(message, PeerMessage::Finished { outcome: Outcome::Failed(_), .. }));
    assert_eq!(bench.claim_head(), ToHead::Ended(vec![(task(1), 0)]));
    assert_eq!(bench.core.held().assigned.len(), 1, "the driver alone");
}

#[test]
fn a_taken_name_refuses_the_actor() {
    let (mut bench, driver, _) = Bench::with_pool(2.0);
    let options = ActorOptions { name: Some("counter".to_owned()), ..ActorOptions::default() };
    bench.submit(driver, TaskBuilder::new(1).cpus(0.0).actor(options));
    assert!(matches!(bench.claim_head(), ToHead::ActorNamed { .. }));
    bench.want(driver, mine(1));
    let taken_by = Some(ActorId(task(77)));
    let name = "counter".to_owned();
    bench.head_says(FromHead::ActorNameResult { name, actor: actor(), taken_by });
    let error = bench.claim_delivery(driver, 1).unwrap();
    let by = ActorId(task(77));
    assert_eq!(error.cause, Cause::NameTaken { name: "counter".to_owned(), by });
}

#[test]
fn a_call_that_is_cut_off_keeps_its_arguments_until_its_executor_says_that_it_ended() {
    let (mut bench, driver, pool) = Bench::with_actor(ActorOptions::default());
    bench.handle(LocalEvent::Put {
        by: driver,
        object: object(9),
        size: 1 << 20,
        inline: false,
        copies: 1,
        contains: Vec::new(),
    });
    bench.submit(driver, call(2).after(&[mine(9)]));
    assert_eq!(bench.claim_run(pool), (task(2), 0));
    bench.release(driver, 9);
    bench.want(driver, mine(2));
    bench.handle(LocalEvent::ActorKillRequested { actor: actor(), owner: ME });
    bench.claim_exactly(LocalAction::DropActor { executor: pool, actor: actor() });
    let error = bench.claim_delivery(driver, 2).unwrap();
    assert_eq!(error.cause, Cause::ActorDied(Death::Ended));
    bench.claim_nothing();
    bench.finish(pool, 2, inline());
    bench.claim_free(2);
    bench.claim_free(9);
}

#[test]
fn calls_of_an_actor_fail_when_its_job_ends_and_theirs_does_not() {
    let (mut bench, driver, pool) = Bench::with_actor(ActorOptions::default());
    bench.submit(driver, TaskBuilder::new(9));
    assert_eq!(bench.claim_run(pool), (task(9), 0));
    bench.submit(driver, TaskBuilder::new(8).cpus(0.0).actor(ActorOptions::default()));
    assert_eq!(bench.claim_run(pool), (task(8), 0));
    let visitor = TaskId::driver(JobId(77));
    let of_visitor = |index, actor| TaskBuilder::call(index, actor, ME).child_of(visitor, index);
    // One waits for its actor to be made, one comes from another worker and waits for its
    // argument.
    bench.submit(driver, of_visitor(3, ActorId(task(8))));
    let argument = Reference { object: visitor.child(5).object(0), owner: OTHER };
    let call = of_visitor(4, actor()).after(&[argument]).assignment(0, OTHER);
    bench.peer_says(OTHER, PeerMessage::call(call));
    bench.claim_send(OTHER, PeerMessage::Retain { object: argument.object });
    bench.claim_send(OTHER, PeerMessage::Locate { object: argument.object, fetches: true });
    bench.head_says(FromHead::JobEnded { job: JOB });
    let mut failed = 0;
    while bench.pending() > 0 {
        if let LocalAction::Send { to: OTHER, message: PeerMessage::Finished { outcome, .. } } =
            bench.claim()
        {
            let Outcome::Failed(error) = outcome else { panic!("it ran") };
            assert_eq!(error.cause, Cause::ActorDied(Death::JobEnded { job: JOB }));
            failed += 1;
        }
    }
    assert_eq!(failed, 1);
    let left = bench.core.tasks().filter(|view| view.task.job() != JOB).count();
    assert_eq!(left, 0, "the one that waited for its actor failed, too");
}

#[test]
fn who_asks_for_an_actor_of_a_job_that_ends_hears_of_that() {
    let (mut bench, _, _) = Bench::with_actor(ActorOptions::default());
    bench.peer_says(OTHER, PeerMessage::ActorLocate { actor: actor() });
    let place = ActorPlace::At { worker: ME, life: 0 };
    bench.claim_send(OTHER, PeerMessage::ActorLocated { actor: actor(), place });
    bench.head_says(FromHead::JobEnded { job: JOB });
    let cause = Cause::ActorDied(Death::JobEnded { job: JOB });
    let place = ActorPlace::Dead(TaskError { task: actor().0, cause });
    bench.claim_send(OTHER, PeerMessage::ActorLocated { actor: actor(), place });
    while bench.pending() > 0 {
        bench.claim();
    }
}

#[test]
fn calls_of_a_lost_life_wait_for_the_owner_to_tell_of_the_next() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    let create = TaskBuilder::new(1).cpus(0.0).actor(ActorOptions::default());
    bench.head_says(FromHead::Assigned(vec![create.assignment(0, PEER)]));
    bench.claim_run(pool);
    bench.finish(pool, 1, inline());
    let finished = PeerMessage::Finished { task: task(1), attempt: 0, outcome: inline() };
    bench.claim_send(PEER, finished);
    bench.claim_free(1);
    // A program here calls it too, and would try without end.
    let call = || TaskBuilder::call(2, actor(), PEER).retries(u32::MAX);
    let located = |worker: WorkerId, life| PeerMessage::ActorLocated {
        actor: actor(),
        place: ActorPlace::At { worker, life },
    };
    bench.submit(driver, call());
    bench.claim_send(PEER, PeerMessage::ActorLocate { actor: actor() });
    bench.peer_says(PEER, located(ME, 0));
    assert_eq!(bench.claim_run(pool), (task(2), 0));
    bench.handle(LocalEvent::ExecutorDied { executor: pool, death: killed() });
    let lost = PeerMessage::ActorLost { actor: actor(), life: 0, death: killed() };
    bench.claim_send(PEER, lost);
    assert_eq!(bench.claim_head(), ToHead::Ended(vec![(task(1), 0)]));
    bench.peer_says(PEER, located(OTHER, 1));
    bench.claim_send(OTHER, PeerMessage::call(call().assignment(1, ME)));
}

#[test]
fn a_call_out_of_order_ends_though_its_dead_actor_was_forgotten_with_another_job() {
    let (mut bench, driver, _) = Bench::with_pool(2.0);
    let caller = TaskId::driver(JobId(77));
    let call = TaskBuilder::call(3, actor(), PEER).child_of(caller, 3).out_of_order();
    let argument = Reference { object: caller.child(5).object(0), owner: OTHER };
    bench.submit(driver, call.after(&[argument]));
    bench.claim_send(OTHER, PeerMessage::Retain { object: argument.object });
    bench.claim_send(PEER, PeerMessage::ActorLocate { actor: actor() });
    bench.claim_send(OTHER, PeerMessage::Locate { object: argument.object, fetches: false });
    bench.head_says(FromHead::WorkerDied { worker: PEER, reason: "gone".to_owned() });
    bench.head_says(FromHead::JobEnded { job: JobId(78) });
    let located = PeerMessage::Located { object: argument.object, place: Place::Inline };
    bench.peer_says(OTHER, located);
    assert!(!bench.core.tasks().any(|view| view.task == caller.child(3)), "it failed");
    while bench.pending() > 0 {
        bench.claim();
    }
}

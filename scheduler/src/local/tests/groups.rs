//! Placement groups: led here, used here, reserved here; messages that come late or twice.

use super::bench::*;
use crate::id::{ExecutorId, GroupId};
use crate::local::{LocalAction, LocalEvent};
use crate::message::{FromHead, GroupMessage, PeerMessage, ToHead};
use crate::resource::Resources;
use crate::spec::{Assignment, GroupOptions, GroupStrategy, InGroup, Strategy, TaskKind};

fn group() -> GroupId {
    GroupId(task(500))
}

fn reserve(bench: &mut Bench, driver: ExecutorId, bundles: &[f64], strategy: GroupStrategy) {
    let mut spec = (*TaskBuilder::new(500).cpus(0.0).build()).clone();
    let bundles = bundles.iter().map(|cpus| Resources::cpus(*cpus)).collect();
    spec.kind = TaskKind::GroupCreate(Box::new(GroupOptions { bundles, strategy, name: None }));
    bench.handle(LocalEvent::Submitted { by: driver, spec: spec.into() });
}

fn into(bundle: Option<u32>) -> Strategy {
    Strategy::Group(Box::new(InGroup { group: group(), owner: ME, bundle }))
}

fn claim_round(bench: &mut Bench) -> (u32, Vec<u32>) {
    match bench.claim_head() {
        ToHead::GroupWanted(request) => {
            (request.round, request.bundles.into_iter().map(|(number, _)| number).collect())
        }
        other => panic!("no group is wanted: {other:?}"),
    }
}

fn claim_ready(bench: &mut Bench) {
    bench.claim_exactly(LocalAction::PutNothing { object: object(500) });
}

fn reserved(bundle: u32, round: u32) -> PeerMessage {
    PeerMessage::Group(GroupMessage::Reserved { group: group(), bundle, round })
}

fn refused(bundle: u32, round: u32) -> PeerMessage {
    PeerMessage::Group(GroupMessage::Refused { group: group(), bundle, round })
}

fn returned(bundle: u32, round: u32, gone: bool) -> PeerMessage {
    PeerMessage::Group(GroupMessage::Return { group: group(), bundle, round, gone })
}

/// The head tells this worker to reserve a bundle of another leader's group.
fn assign(bench: &mut Bench, cpus: f64, round: u32) {
    let mut spec = (*TaskBuilder::new(0).cpus(cpus).build()).clone();
    spec.id = group().bundle(0);
    spec.returns = 0;
    spec.kind = TaskKind::Bundle { group: group(), bundle: 0 };
    let assignment = Assignment::new(spec, round, PEER);
    bench.head_says(FromHead::Assigned(vec![assignment]));
}

fn free(bench: &Bench) -> f64 {
    let held: f64 = bench.core.bundles().map(|bundle| bundle.total.cpu.as_f64()).sum();
    2.0 - held
}

#[test]
fn what_fits_here_is_reserved_at_once_and_given_back() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    for _ in 0..2 {
        reserve(&mut bench, driver, &[1.0, 0.5], GroupStrategy::Pack);
        claim_ready(&mut bench);
        assert_eq!(free(&bench), 0.5);
        bench.submit(driver, TaskBuilder::new(1).cpus(0.5).strategy(into(Some(1))));
        assert_eq!(bench.claim_run(pool), (task(1), 0));
        bench.submit(driver, TaskBuilder::new(2).cpus(0.5).strategy(into(Some(1))));
        bench.claim_nothing();
        let waits = bench.core.explain(task(2)).unwrap();
        assert!(waits.starts_with("waits for 0.5 CPU in bundle 1 of group-"), "{waits}");
        bench.finish(pool, 1, inline());
        assert_eq!(bench.claim_run(pool), (task(2), 0));
        bench.finish(pool, 2, inline());
        bench.handle(LocalEvent::GroupRemoveRequested { group: group(), owner: ME });
        bench.handle(LocalEvent::GroupRemoveRequested { group: group(), owner: ME });
        assert_eq!(free(&bench), 2.0);
        for index in [500, 1, 2] {
            bench.release(driver, index);
            bench.claim_free(index);
        }
    }
}

#[test]
fn nothing_enters_before_every_bundle_is_reserved() {
    let (mut bench, driver) = Bench::with_driver(2.0);
    reserve(&mut bench, driver, &[1.0, 1.0], GroupStrategy::StrictSpread);
    let (round, wanted) = claim_round(&mut bench);
    assert_eq!(wanted, [0, 1]);
    bench.submit(driver, TaskBuilder::new(1).strategy(into(Some(0))));
    bench.peer_says(PEER, reserved(0, round));
    let workers = vec![PEER, OTHER];
    bench.head_says(FromHead::GroupPlaced { group: group(), round, workers });
    bench.peer_says(PEER, reserved(0, round));
    // What comes twice is no other bundle, and what is of no open round goes back.
    bench.claim_send(PEER, returned(0, round, true));
    bench.claim_nothing();
    bench.peer_says(OTHER, reserved(1, round));
    claim_ready(&mut bench);
    match bench.claim() {
        LocalAction::Send { to: PEER, message: PeerMessage::Group(message) } => {
            let GroupMessage::Enter { bundle, round: of, assignment } = message else { panic!() };
            assert_eq!((bundle, of, assignment.spec.id), (0, round, task(1)));
        }
        other => panic!("the task goes in: {other:?}"),
    }
    bench.peer_says(OTHER, reserved(1, round + 7));
    bench.claim_send(OTHER, returned(1, round + 7, true));
}

#[test]
fn a_round_that_fails_gives_back_what_it_had() {
    let (mut bench, driver) = Bench::with_driver(2.0);
    reserve(&mut bench, driver, &[1.0, 1.0], GroupStrategy::StrictSpread);
    let (first, _) = claim_round(&mut bench);
    let workers = vec![PEER, OTHER];
    bench.head_says(FromHead::GroupPlaced { group: group(), round: first, workers });
    bench.peer_says(PEER, reserved(0, first));
    bench.peer_says(OTHER, refused(1, first));
    bench.claim_send(PEER, returned(0, first, false));
    bench.claim_send(OTHER, returned(1, first, false));
    let (second, wanted) = claim_round(&mut bench);
    assert!(second > first && wanted == [0, 1]);
    bench.peer_says(OTHER, refused(1, first));
    bench.claim_nothing();
    bench.peer_says(PEER, reserved(0, second));
    bench.peer_says(OTHER, reserved(1, second));
    claim_ready(&mut bench);

    // Only what is lost is placed again.
    let reason = "its machine burnt".to_owned();
    bench.head_says(FromHead::WorkerDied { worker: OTHER, reason });
    let (third, wanted) = claim_round(&mut bench);
    assert!(third > second && wanted == [1]);
    assert!(bench.core.groups().all(|view| !view.reserved));
    bench.handle(LocalEvent::GroupRemoveRequested { group: group(), owner: ME });
    assert_eq!(bench.claim_head(), ToHead::GroupUnwanted(group()));
    bench.claim_send(PEER, returned(0, second, true));
}

#[test]
fn a_round_that_takes_too_long_begins_again() {
    let (mut bench, driver) = Bench::with_driver(2.0);
    reserve(&mut bench, driver, &[1.0, 1.0], GroupStrategy::StrictSpread);
    let (first, _) = claim_round(&mut bench);
    let workers = vec![PEER, OTHER];
    bench.head_says(FromHead::GroupPlaced { group: group(), round: first, workers });
    assert!(bench.core.poll_timeout().is_some());
    bench.now = bench.now + core::time::Duration::from_secs(3);
    bench.core.handle_timeout(bench.now);
    let mut seen = Vec::new();
    while let Some(action) = bench.core.poll_action() {
        seen.push(format!("{action:?}"));
    }
    assert_eq!(seen.iter().filter(|action| action.contains("Return")).count(), 2, "{seen:?}");
    assert!(seen.iter().any(|action| action.contains("GroupWanted")), "{seen:?}");
}

#[test]
fn a_bundle_is_held_until_its_leader_wants_it_back_or_dies() {
    let (mut bench, _driver) = Bench::with_driver(2.0);
    assign(&mut bench, 1.5, 3);
    bench.claim_send(PEER, reserved(0, 3));
    assign(&mut bench, 1.5, 3);
    bench.claim_nothing();
    bench.peer_says(PEER, returned(0, 2, true));
    assert_eq!(free(&bench), 0.5, "an older round's return is about nothing");
    assign(&mut bench, 1.0, 4);
    bench.claim_send(PEER, reserved(0, 4));
    assert_eq!(bench.claim_head(), ToHead::Ended(vec![(group().bundle(0), 3)]));
    assert_eq!(free(&bench), 1.0);
    bench.peer_says(PEER, returned(0, 4, true));
    assert_eq!(bench.claim_head(), ToHead::Ended(vec![(group().bundle(0), 4)]));
    assert_eq!(free(&bench), 2.0);

    assign(&mut bench, 1.0, 5);
    bench.claim_send(PEER, reserved(0, 5));
    let reason = "its machine burnt".to_owned();
    bench.head_says(FromHead::WorkerDied { worker: PEER, reason });
    assert_eq!(bench.claim_head(), ToHead::Ended(vec![(group().bundle(0), 5)]));
    assert_eq!(free(&bench), 2.0);
}

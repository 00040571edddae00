//! Policies on small fields.

use super::*;
use crate::id::{JobId, TaskId};
use crate::resource::Amount;
use crate::spec::GroupStrategy;

fn cpus(n: f64) -> Resources {
    Resources::cpus(n)
}

fn gpus(n: u64) -> Resources {
    let mut request = cpus(1.0);
    request.gpu = Amount::whole(n);
    request
}

fn field(workers: &[(u64, f64)]) -> Field {
    let mut field = Field::new(7);
    for (worker, cpu) in workers {
        field.add(WorkerId(*worker), cpus(*cpu), Vec::new());
    }
    field
}

fn pick(field: &Field, request: &Resources, strategy: &Strategy) -> Option<u64> {
    pick_with(field, request, strategy, &[])
}

fn pick_with(
    field: &Field,
    request: &Resources,
    strategy: &Strategy,
    dependencies: &[Reference],
) -> Option<u64> {
    pick_near(field, request, (strategy, dependencies), &[])
}

fn pick_near(
    field: &Field,
    request: &Resources,
    (strategy, dependencies): (&Strategy, &[Reference]),
    near: &[u64],
) -> Option<u64> {
    let (owner, near) = (WorkerId(99), near.iter().copied().map(WorkerId).collect::<Vec<_>>());
    let ask = Ask { request, strategy, driver: false, owner, dependencies, near: &near };
    choose(field, &ask).map(|worker| worker.0)
}

fn gang(
    field: &Field,
    bundles: &[f64],
    strategy: GroupStrategy,
    beside: &[WorkerId],
) -> Option<Vec<u64>> {
    let bundles: Vec<_> = (0..).zip(bundles).map(|(n, cpu)| (n, cpus(*cpu))).collect();
    let ask = GangAsk { bundles: &bundles, strategy, beside };
    let chosen = choose_gang(field, &ask);
    if chosen.is_none() {
        assert_ne!(gang_reason(field, &ask), "");
    }
    chosen.map(|workers| workers.into_iter().map(|worker| worker.0).collect())
}

#[test]
fn packing_takes_one_worker_if_it_can_and_few_if_not() {
    use GroupStrategy::{Pack, StrictPack};
    let field = field(&[(1, 8.0), (2, 2.0), (3, 4.0)]);
    assert_eq!(gang(&field, &[1.0, 2.0, 1.0], Pack, &[]), Some(vec![3; 3]), "the best fit");
    assert_eq!(gang(&field, &[1.0, 1.0], Pack, &[WorkerId(1)]), Some(vec![1; 2]), "beside");
    assert_eq!(gang(&field, &[2.0, 4.0, 4.0, 2.0], Pack, &[]), Some(vec![3, 1, 1, 3]));
    assert_eq!(gang(&field, &[2.0, 4.0, 4.0, 2.0], StrictPack, &[]), None);
    assert_eq!(gang(&field, &[4.0, 4.0], StrictPack, &[]), Some(vec![1; 2]));
    assert_eq!(gang(&field, &[2.0], StrictPack, &[WorkerId(3)]), Some(vec![3]));
    assert_eq!(gang(&field, &[5.0], StrictPack, &[WorkerId(3)]), None, "not beside it");
    assert_eq!(gang(&field, &[8.0, 4.0, 2.0, 1.0], Pack, &[]), None, "one CPU too many");
}

#[test]
fn spreading_uses_every_worker_before_any_twice() {
    use GroupStrategy::{Spread, StrictSpread};
    let field = field(&[(1, 8.0), (2, 2.0), (3, 4.0)]);
    assert_eq!(gang(&field, &[1.0; 3], StrictSpread, &[]), Some(vec![1, 3, 2]));
    assert_eq!(gang(&field, &[1.0; 4], StrictSpread, &[]), None);
    assert_eq!(gang(&field, &[1.0; 3], StrictSpread, &[WorkerId(3)]), None);
    let mut four = gang(&field, &[1.0; 4], Spread, &[]).unwrap();
    four.sort_unstable();
    four.dedup();
    assert_eq!(four, [1, 2, 3]);
    assert_eq!(gang(&field, &[3.0; 3], Spread, &[]), Some(vec![1, 3, 1]));
    assert_eq!(gang(&field, &[2.0; 8], Spread, &[]), None);
    let alone = gang(&field, &[2.0], Spread, &[WorkerId(1), WorkerId(3)]);
    assert_eq!(alone, Some(vec![2]), "where no other bundle is");
}

#[test]
fn spreading_strictly_finds_a_way_wherever_there_is_one() {
    // The larger request in CPUs would take the only worker that has the GPU.
    let mut field = Field::new(7);
    let mut both = cpus(8.0);
    both.gpu = Amount::whole(1);
    field.add(WorkerId(1), both, Vec::new());
    field.add(WorkerId(2), cpus(4.0), Vec::new());
    let mut special = cpus(1.0);
    special.set("licence", Amount::whole(1));
    let bundles = [(0, cpus(4.0)), (1, gpus(1))];
    let strategy = GroupStrategy::StrictSpread;
    let ask = GangAsk { bundles: &bundles, strategy, beside: &[] };
    assert_eq!(choose_gang(&field, &ask), Some(vec![WorkerId(2), WorkerId(1)]));
    let bundles = [(0, special), (1, cpus(1.0))];
    let ask = GangAsk { bundles: &bundles, strategy, beside: &[] };
    assert_eq!(choose_gang(&field, &ask), None);
    assert_eq!(gang_reason(&field, &ask), "bundle 0: needs 1 licence; no worker has any");
}

#[test]
fn default_fills_up_the_worker_with_the_least_room() {
    let field = field(&[(1, 8.0), (2, 2.0), (3, 4.0)]);
    assert_eq!(pick(&field, &cpus(2.0), &Strategy::Default), Some(2));
    assert_eq!(pick(&field, &cpus(3.0), &Strategy::Default), Some(3));
    assert_eq!(pick(&field, &cpus(9.0), &Strategy::Default), None);
}

#[test]
fn spread_takes_the_worker_with_the_most_room() {
    let mut field = field(&[(1, 4.0), (2, 6.0)]);
    assert_eq!(pick(&field, &cpus(1.0), &Strategy::Spread), Some(2));
    field.update(WorkerId(2), |spot| spot.room.subtract(&cpus(3.0)));
    assert_eq!(pick(&field, &cpus(1.0), &Strategy::Spread), Some(1));
}

#[test]
fn requests_of_nothing_go_where_the_fewest_tasks_are() {
    let mut field = field(&[(1, 4.0), (2, 1.0)]);
    field.update(WorkerId(1), |spot| spot.placed += 1);
    assert_eq!(pick(&field, &Resources::NONE, &Strategy::Default), Some(2));
}

#[test]
fn a_driver_goes_to_the_idlest_worker() {
    let field = field(&[(1, 4.0), (2, 8.0), (3, 6.0)]);
    let strategy = Strategy::Default;
    let request = &Resources::NONE;
    let owner = WorkerId::HEAD;
    let ask =
        Ask { request, strategy: &strategy, driver: true, owner, dependencies: &[], near: &[] };
    assert_eq!(choose(&field, &ask), Some(WorkerId(2)));
}

#[test]
fn tasks_go_where_what_they_read_lies_before_they_go_to_its_owner() {
    let mut field = field(&[(1, 4.0), (2, 2.0), (3, 4.0)]);
    let object = TaskId::driver(JobId(1)).put(0);
    let reads = [Reference { object, owner: WorkerId(1) }];
    let pick = |field: &Field, near: &[u64]| {
        pick_near(field, &cpus(1.0), (&Strategy::Default, &reads), near)
    };
    assert_eq!(pick(&field, &[3, 2]), Some(3));
    assert_eq!(pick(&field, &[7, 3]), Some(3), "7 is gone");
    assert_eq!(pick(&field, &[7, 7, 7, 3]), Some(1), "no more than three are looked at");
    field.update(WorkerId(3), |spot| spot.room = Resources::NONE);
    assert_eq!(pick(&field, &[3, 2]), Some(2));
    assert_eq!(pick(&field, &[3]), Some(1));
}

#[test]
fn tasks_go_to_the_owner_of_most_dependencies_while_it_has_room() {
    let mut field = field(&[(1, 4.0), (2, 2.0), (3, 4.0)]);
    let object = TaskId::driver(JobId(1)).put(0);
    let on = |worker| Reference { object, owner: WorkerId(worker) };
    let reads = [on(1), on(3), on(3)];
    assert_eq!(pick_with(&field, &cpus(1.0), &Strategy::Default, &reads), Some(3));
    field.update(WorkerId(3), |spot| spot.room = Resources::NONE);
    assert_eq!(pick_with(&field, &cpus(1.0), &Strategy::Default, &reads), Some(1));
    field.close(WorkerId(1));
    assert_eq!(pick_with(&field, &cpus(1.0), &Strategy::Default, &reads), Some(2));
}

#[test]
fn neighbours_of_the_submitter_come_before_strangers() {
    let mut field = Field::new(1);
    let rack = |name: &str| vec![("rack".to_owned(), name.to_owned())];
    field.add(WorkerId(99), cpus(1.0), rack("b"));
    field.add(WorkerId(1), cpus(2.0), rack("a"));
    field.add(WorkerId(2), cpus(8.0), rack("b"));
    assert_eq!(pick(&field, &cpus(2.0), &Strategy::Default), Some(2));
}

#[test]
fn machines_with_gpus_are_kept_for_those_who_ask() {
    let mut field = field(&[(1, 8.0)]);
    field.add(WorkerId(2), gpus(4), Vec::new());
    assert_eq!(pick(&field, &cpus(1.0), &Strategy::Default), Some(1));
    assert_eq!(pick(&field, &gpus(1), &Strategy::Default), Some(2));
    field.update(WorkerId(1), |spot| spot.room = Resources::NONE);
    assert_eq!(pick(&field, &cpus(1.0), &Strategy::Default), Some(2), "better than waiting");
}

#[test]
fn affinity_binds_and_soft_affinity_lets_go() {
    let mut field = field(&[(1, 2.0), (2, 4.0)]);
    let hard = Strategy::Affinity { worker: WorkerId(1), soft: false };
    let soft = Strategy::Affinity { worker: WorkerId(1), soft: true };
    assert_eq!(pick(&field, &cpus(2.0), &hard), Some(1));
    assert_eq!(pick(&field, &cpus(3.0), &hard), None);
    assert_eq!(pick(&field, &cpus(3.0), &soft), Some(2), "too small");
    field.update(WorkerId(1), |spot| spot.room = Resources::NONE);
    assert_eq!(pick(&field, &cpus(2.0), &soft), None, "busy is worth waiting for");
    field.remove(WorkerId(1));
    assert_eq!(pick(&field, &cpus(2.0), &soft), Some(2), "gone");
    assert_eq!(pick(&field, &cpus(2.0), &hard), None);
}

#[test]
fn reasons_read_like_sentences() {
    let mut field = field(&[(1, 8.0)]);
    field.add(WorkerId(2), gpus(1), Vec::new());
    let why = |field: &Field, request: &Resources| {
        Reason::find(field, request, &Strategy::Default).to_string()
    };
    assert_eq!(why(&field, &gpus(2)), "needs 2 GPU; largest worker has 1");
    let mut licence = Resources::NONE;
    licence.set("licence", Amount::whole(1));
    assert_eq!(why(&field, &licence), "needs 1 licence; no worker has any");
    let mut both = gpus(1);
    both.cpu = Amount::whole(4);
    assert_eq!(why(&field, &both), "needs 4 CPU, 1 GPU together; no single worker has all of it");
    let mut memory = Resources::NONE;
    memory.memory = Amount::whole(3 << 30);
    field.update(WorkerId(1), |spot| spot.total.memory = Amount::whole(1 << 30));
    assert_eq!(why(&field, &memory), "needs 3072 MiB of memory; largest worker has 1024 MiB");
    assert_eq!(why(&field, &cpus(1.0)), "waits for 1 CPU; 2 workers are large enough, all in use");
    let hard = Strategy::Affinity { worker: WorkerId(5), soft: false };
    let gone = Reason::find(&field, &cpus(1.0), &hard);
    assert_eq!(gone.to_string(), "may only run on worker-5, which is gone");
    assert!(gone.is_hopeless());
}

#[test]
fn the_seed_decides_ties_and_nothing_else() {
    let order = |seed| {
        let mut field = Field::new(seed);
        for worker in 1..=20 {
            field.add(WorkerId(worker), cpus(1.0), Vec::new());
        }
        let mut order = Vec::new();
        while let Some(worker) = pick(&field, &cpus(1.0), &Strategy::Default) {
            field.update(WorkerId(worker), |spot| spot.room.subtract(&cpus(1.0)));
            field.check_invariants();
            order.push(worker);
        }
        order
    };
    assert_eq!(order(3), order(3));
    assert_ne!(order(3), order(4));
    assert_eq!(order(3).len(), 20);
}

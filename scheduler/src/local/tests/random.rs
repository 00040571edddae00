//! Several cores over lossless ordered links, with a head that places at random and programs that
//! submit, put, wait, borrow, nest references, call actors and die. One seed replays a failure:
//! `SIM_SEED=7 cargo test -p rdist-scheduler random`.
//!
//! Checked from outside: what runs or is delivered is readable there; nothing is freed while it is
//! used; calls of one submitter start in order; without faults nothing is ever lost; and when
//! every program has let go of everything, no core and no table has anything left.

#[path = "world.rs"]
mod world;

use world::{Faults, World};

fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("SIM_SEED") {
        Ok(seed) => vec![seed.parse().expect("SIM_SEED is a number")],
        Err(_) => (1..=count).collect(),
    }
}

fn run(count: u64, faults: Faults) {
    for seed in seeds(count) {
        println!("SIM_SEED={seed} {faults:?}");
        World::new(seed, faults).run(3_000);
    }
}

#[test]
fn without_faults_nothing_is_lost_or_leaked() {
    run(60, Faults::None);
}

#[test]
fn executors_that_die_leak_nothing() {
    run(60, Faults::Executors);
}

#[test]
fn workers_that_die_leave_the_others_consistent() {
    run(60, Faults::Workers);
}

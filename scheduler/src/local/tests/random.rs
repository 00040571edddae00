//! Several cores over lossless ordered links, with a head that places at random and programs that
//! submit, put, wait, borrow, nest references, call actors and die. One seed replays a failure:
//! `SIM_SEED=7 cargo test -p rdist-scheduler random`; `SIM_SEEDS=1000` tries that many.
//!
//! Checked from outside: what runs or is delivered is readable there; nothing is freed while it is
//! used; calls of one submitter start in order; without faults nothing is ever lost; and when
//! every program has let go of everything, no core and no table has anything left.

#[path = "world.rs"]
mod world;

use world::{Faults, World};

pub(super) fn seeds(count: u64) -> Vec<u64> {
    let number = |name: &str| {
        std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number of seeds"))
    };
    match number("SIM_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("SIM_SEEDS").unwrap_or(count)).collect(),
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
    run(25, Faults::None);
}

#[test]
fn executors_that_die_leak_nothing() {
    run(25, Faults::Executors);
}

#[test]
fn workers_that_die_leave_the_others_consistent() {
    run(25, Faults::Workers);
}

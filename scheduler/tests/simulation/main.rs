//! Seeded simulation of a whole cluster in one thread.
//!
//! The cores under test are the real ones; network, executors, stores, crashes and time are
//! simulated. One seed replays one history:
//! - `SIM_SEED=7 cargo test -p rdist-scheduler --test simulation swarm` runs one seed,
//!   `SIM_TRACE=1 ... -- --nocapture` prints every event and action of it;
//! - `SIM_SEEDS=10000` sets how many seeds each test runs, `SIM_FIRST=501` the first of them;
//! - `SIM_WORKERS`, `SIM_TASKS` set the size of `a_thousand_workers`
//!   (`SIM_TASKS=1000000` is an ordinary run).
//!
//! Checked from outside the cores: every value that a program reads is there and is right; a task
//! starts only where its arguments are and its request fits, but for what unblocked tasks take
//! back; nothing is freed while a program reads it; an actor's calls start in the order of each
//! caller and count once, of actors that save their state also after a restart; calls of another
//! job's actors end, at the latest with that job; a stream has its
//! items in order and ends after the last; a task runs in a placement group only when every bundle
//! of it is reserved, and together with others within what they hold; a job with a quota never
//! holds more, over all workers and whether or not there is a head, but for what unblocked tasks
//! take back; a lease has a CPU for itself until it is over or a task leaves it; errors appear
//! only when something died that explains them; when faults stop, every job ends; and then no
//! worker has a task, object, value, actor, process or lease left, and the head has all room back.
//!
//! Where faults are drawn by seed, values go to disk and are damaged there, in about half of them:
//! who reads such a value gets another copy, or one that is made again, or an error.
//!
//! In about half of the seeds each, drawn independently:
//! - processes ask for leases and give short tasks to their job's pool themselves, over rings that
//!   outlive who wrote them, as the runtime's processes do;
//! - processes ask for routes to actors and call them over such rings, drivers and tasks alike;
//!   what the calls return is read, or passed on before it is there;
//! - tasks are cancelled where they wait, run or have ended, wherever they came from, alone or with
//!   what they have submitted, by force where processes die anyway; and actors are killed;
//! - actors have names that others want too: each name is one actor's at a time, and a program that
//!   has one finds its own actor by it; some are detached: jobs of their own that end when somebody
//!   ends them, and are called and ended by whom finds them; some are asked to end themselves when
//!   they have answered what the same process has called before;
//! - tasks return several values and ask for labels, and processes run out of memory;
//! - actors run several calls at a time, in groups with limits of their own: calls of a group
//!   start in order and end in any, and an actor that ends itself ends after all of them;
//! - consumers let go of streams that go on, having asked for one more item or not, or have them
//!   cancelled and read on; such a stream ends, also one that would never end by itself;
//! - actors are called with what is still to come, which keeps back those calls of the same caller
//!   alone that may not pass; and their calls wait for values while they run.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod checker;
mod cluster;
mod executor;
mod network;
mod seen;
mod workload;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use cluster::{Faults, Options, Simulation};
use network::Rng;
use seen::Seen;
use workload::Mix;

const MILLISECOND: u64 = 1_000_000;
/// For dice of their own.
const DISK: u64 = 0x4449_534b;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Runs seeds; the first that fails names itself and how to run it again.
fn run(test: &str, count: u64, options: impl Fn(&mut Rng) -> Options) {
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = number("SIM_FIRST").unwrap_or(1);
            first..first + number("SIM_SEEDS").unwrap_or(count)
        }
    };
    let mut seen = Seen::default();
    for seed in seeds {
        let options = options(&mut Rng(seed ^ 0x5157_4152_4d00_0000));
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let mut simulation = Simulation::new(seed, options.clone());
            simulation.run();
            simulation
        }));
        match ran {
            Ok(simulation) => {
                seen.add(&simulation, &options);
                if number("SIM_SEED").is_some() {
                    let (now, events) = (simulation.now / MILLISECOND, simulation.events);
                    let (submitted, finished) = (simulation.submitted, simulation.finished);
                    println!(
                        "{submitted} submitted, {finished} finished, {events} events, {now} ms"
                    );
                }
            }
            Err(panic) => {
                eprintln!("seed {seed} fails with {options:?}\nrun it again:");
                let command = "cargo test -p rdist-scheduler --test simulation";
                eprintln!("SIM_SEED={seed} {command} {test}");
                resume_unwind(panic);
            }
        }
    }
    seen.check();
}

fn jobs(rng: &mut Rng, workers: u64, faults: Faults) -> Vec<Mix> {
    let may_kill = faults.executors || faults.workers;
    let mix = |rng: &mut Rng| Mix {
        tasks: 1 + rng.below(80),
        strict_spread: workers > 2,
        actors_hold: !may_kill,
        trouble: rng.one_in(2),
        stubborn: may_kill,
        forces: faults.executors,
        ..Mix::NOTHING
    };
    (0..1 + rng.below(3)).map(|_| mix(rng)).collect()
}

fn small(rng: &mut Rng, faults: Faults) -> Options {
    let workers = 1 + rng.below(6);
    let mut jobs = jobs(rng, workers, faults);
    // Of their own, so that a seed is what it was before there were quotas, but for these.
    let mut dice = Rng(rng.0 ^ 0x5155_4f54_4153);
    for job in &mut jobs {
        job.quota = if dice.one_in(3) { 4 + dice.below(4) } else { 0 };
    }
    // And so were leases added.
    let mut dice = Rng(rng.0 ^ 0x4c45_4153_4553);
    if dice.one_in(2) {
        for job in &mut jobs {
            job.leases = job.quota == 0 || dice.one_in(2);
        }
    }
    // And so were direct calls.
    let mut dice = Rng(rng.0 ^ 0x524f_5554_4553);
    if dice.one_in(2) {
        jobs.iter_mut().for_each(|job| job.routes = true);
    }
    // And cancels.
    let mut dice = Rng(rng.0 ^ 0x4341_4e43_454c);
    if dice.one_in(2) {
        jobs.iter_mut().for_each(|job| job.cancels = true);
    }
    // And several returns.
    let mut dice = Rng(rng.0 ^ 0x5345_5645_5241);
    if dice.one_in(2) {
        jobs.iter_mut().for_each(|job| job.several = true);
    }
    // And names.
    let mut dice = Rng(rng.0 ^ 0x4e41_4d45_5300);
    if dice.one_in(2) {
        jobs.iter_mut().for_each(|job| job.names = true);
    }
    // And calls beside each other.
    let mut dice = Rng(rng.0 ^ 0x4352_4f57_4453);
    if dice.one_in(2) {
        jobs.iter_mut().for_each(|job| job.crowds = true);
    }
    // And streams that are left.
    let mut dice = Rng(rng.0 ^ 0x5354_5245_414d);
    if dice.one_in(2) {
        jobs.iter_mut().for_each(|job| job.lets_go = true);
    }
    // And calls that wait.
    let mut dice = Rng(rng.0 ^ 0x5741_4954_5300);
    if dice.one_in(2) {
        jobs.iter_mut().for_each(|job| job.waits = true);
    }
    // And moves.
    let mut dice = Rng(rng.0 ^ 0x4d4f_5645_5300);
    if faults.drains && dice.one_in(2) {
        jobs.iter_mut().for_each(|job| job.scatters = true);
    }
    Options {
        workers,
        jobs,
        faults,
        fault_time: 1_000 * MILLISECOND,
        fault_every: 4 * MILLISECOND,
        check_every: 1,
    }
}

#[test]
fn without_faults_everything_succeeds() {
    run("without_faults", 300, |rng| small(rng, Faults::default()));
}

#[test]
fn executors_die() {
    run("executors_die", 300, |rng| small(rng, Faults { executors: true, ..Faults::default() }));
}

#[test]
fn heads_restart() {
    let faults =
        Faults { heads: true, stalls: true, breaks: true, joins: true, ..Faults::default() };
    run("heads_restart", 300, |rng| small(rng, faults));
}

#[test]
fn workers_die() {
    run("workers_die", 300, |rng| {
        let damages = Rng(rng.0 ^ DISK).one_in(3);
        small(rng, Faults { workers: true, joins: true, damages, ..Faults::default() })
    });
}

#[test]
fn swarm() {
    run("swarm", 600, |rng| {
        let faults = Faults {
            executors: rng.one_in(2),
            workers: rng.one_in(2),
            heads: rng.one_in(2),
            joins: rng.one_in(2),
            stalls: rng.one_in(2),
            breaks: rng.one_in(2),
            drains: rng.one_in(2),
            stops: rng.one_in(4),
            damages: Rng(rng.0 ^ DISK).one_in(2),
            repeats: false,
        };
        small(rng, faults)
    });
}

#[test]
fn messages_come_twice() {
    run("messages_come_twice", 300, |rng| {
        let faults = Faults {
            executors: rng.one_in(3),
            workers: rng.one_in(3),
            heads: rng.one_in(3),
            joins: rng.one_in(3),
            stalls: rng.one_in(3),
            breaks: rng.one_in(3),
            drains: rng.one_in(3),
            stops: rng.one_in(4),
            damages: Rng(rng.0 ^ DISK).one_in(3),
            repeats: true,
        };
        small(rng, faults)
    });
}

#[test]
fn a_thousand_workers() {
    let workers = number("SIM_WORKERS").unwrap_or(1_000);
    let tasks = number("SIM_TASKS").unwrap_or(20_000);
    run("a_thousand_workers", 1, |_| Options {
        workers,
        jobs: vec![Mix { tasks, plain: true, ..Mix::NOTHING }],
        faults: Faults {
            executors: true,
            workers: true,
            heads: true,
            joins: true,
            stalls: true,
            breaks: true,
            drains: true,
            stops: false,
            damages: false,
            repeats: false,
        },
        fault_time: 2_000 * MILLISECOND,
        fault_every: 20 * MILLISECOND,
        // Checks look at every task: in the largest runs only at the end.
        check_every: if tasks > 50_000 { u64::MAX } else { 50_000 },
    });
}

//! `cargo xtask chaos`: the end-to-end tests of faults, for as long as one likes. Half of the time
//! processes are killed; in the other half, and once at least, come all other faults, each round
//! with another seed; then a large object moves through a damaged network, and from host to host.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::{interrupt, libtorch, step};

/// Of the object that moves through a damaged network, and from host to host.
const OBJECT_BYTES: u64 = 500_000_000;

/// Tasks of a round of the job whose processes are killed, and counters that are called in it.
const TASKS: u64 = 20_000;
const COUNTERS: u64 = 200;
/// Most seconds that the head is away.
const HEAD_AWAY: u64 = 20;

/// Tests of other faults.
const FAULTS: &[&str] = &[
    "network::",
    "hosts::",
    "stalls::",
    "exhaustion::",
    "durability::",
    "misbehaviour::",
    "training_faults::",
];

/// How long, and what is killed when.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long processes are killed, and again for how long other faults begin.
    #[arg(long, value_name = "N", default_value_t = 5.0)]
    minutes: f64,
    /// Decides what is killed and lost when.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

/// Builds the programs, and runs the tests with their output shown.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    interrupt::catch()?;
    let libtorch = libtorch::ensure().context("the trainings among the tests need libtorch")?;
    let time = Duration::try_from_secs_f64((options.minutes * 60.0).max(1.0))?;
    let packages = ["-p", "rdist-cli", "-p", "rdist-workloads"];
    step::run(step::cargo(&libtorch).arg("build").args(packages).arg("--all-targets"))?;
    let test = |names: &[&str], seed: u64| {
        let mut cargo = step::cargo(&libtorch);
        cargo.args(["test", "-p", "rdist-cli", "--test", "end_to_end", "--"]).args(names);
        cargo.args(["--nocapture", "--test-threads", "1"]).env("CHAOS_SEED", seed.to_string());
        cargo
    };
    let mut chaos = test(&["chaos::"], options.seed);
    chaos.env("CHAOS_SECONDS", time.as_secs().to_string());
    chaos.env("CHAOS_TASKS", TASKS.to_string()).env("CHAOS_COUNTERS", COUNTERS.to_string());
    step::run(chaos.env("CHAOS_HEAD_AWAY", HEAD_AWAY.to_string()))?;
    let start = Instant::now();
    for seed in options.seed.. {
        step::run(&mut test(FAULTS, seed))?;
        if start.elapsed() >= time {
            break;
        }
    }
    let mut moves = test(&["network::an_object_moves", "hosts::an_object_moves"], options.seed);
    step::run(moves.env("NETWORK_OBJECT_BYTES", OBJECT_BYTES.to_string()))?;
    Ok(ExitCode::SUCCESS)
}

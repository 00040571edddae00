//! `cargo xtask chaos`: the end-to-end test that kills processes, for as long as one likes, and
//! the one that moves an object through a damaged network, with a large one.

use std::process::ExitCode;

use crate::{interrupt, step};

/// Of the object that moves through a damaged network.
const OBJECT_BYTES: u64 = 500_000_000;

/// Tasks of a round of the job whose processes are killed, and counters that are called in it.
const TASKS: u64 = 20_000;
const COUNTERS: u64 = 200;
/// Most seconds that the head is away.
const HEAD_AWAY: u64 = 20;

/// How long, and what is killed when.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long processes are killed.
    #[arg(long, value_name = "N", default_value_t = 5.0)]
    minutes: f64,
    /// Decides what is killed when.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

/// Builds the programs, and runs the test with its output shown.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    interrupt::catch()?;
    let seconds = (options.minutes * 60.0).max(1.0).ceil() as u64;
    step::run(step::plain_cargo().args(["build", "-p", "rdist-cli", "--all-targets"]))?;
    let test = |name| {
        let mut cargo = step::plain_cargo();
        cargo.args(["test", "-p", "rdist-cli", "--test", "end_to_end", name, "--", "--nocapture"]);
        cargo
    };
    let seed = options.seed.to_string();
    let mut chaos = test("chaos::");
    chaos.env("CHAOS_SECONDS", seconds.to_string()).env("CHAOS_SEED", &seed);
    chaos.env("CHAOS_TASKS", TASKS.to_string()).env("CHAOS_COUNTERS", COUNTERS.to_string());
    step::run(chaos.env("CHAOS_HEAD_AWAY", HEAD_AWAY.to_string()))?;
    let mut moves = test("network::an_object_moves");
    moves.env("NETWORK_OBJECT_BYTES", OBJECT_BYTES.to_string()).env("NETWORK_SEED", &seed);
    step::run(&mut moves)?;
    Ok(ExitCode::SUCCESS)
}

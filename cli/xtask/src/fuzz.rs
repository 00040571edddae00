//! `cargo xtask fuzz`: the tests that feed damaged input to what reads bytes from outside, for as
//! long as one likes.

use std::process::ExitCode;

use anyhow::Context as _;

use crate::{interrupt, libtorch, step};

/// Which tests, and the share of the time that each gets.
const TESTS: &[(&[&str], f64)] = &[
    (&["-p", "rdist", "--test", "fuzz"], 0.6),
    (&["-p", "rdist-cli", "--bin", "rdist", "plan::build::fuzz_tests"], 0.2),
    (&["-p", "rdist-workloads", "--lib", "fuzz_tests::damaged"], 0.2),
];

/// How long, and from where on.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long, in all.
    #[arg(long, value_name = "N", default_value_t = 5.0)]
    minutes: f64,
    /// The first input; others follow it.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

/// Builds the tests and runs them, with their output shown.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    interrupt::catch()?;
    let libtorch = libtorch::ensure().context("the workloads' tests need libtorch")?;
    for (test, share) in TESTS {
        let seconds = (options.minutes * 60.0 * share).max(1.0).ceil() as u64;
        let mut cargo = step::cargo(&libtorch);
        cargo.arg("test").args(*test).args(["--", "--nocapture"]);
        cargo.env("FUZZ_SECONDS", seconds.to_string()).env("FUZZ_SEED", options.seed.to_string());
        step::run(&mut cargo)?;
    }
    Ok(ExitCode::SUCCESS)
}

//! `cargo xtask test`: everything in one profile, one summary line at the end.

use std::io::{BufRead as _, BufReader};
use std::process::{ExitCode, Stdio};
use std::time::Instant;

use anyhow::Context as _;

use crate::{instructions, interrupt, libtorch, step};

/// What to test.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Test only this package; may be repeated.
    #[arg(short, long = "package", value_name = "PACKAGE")]
    packages: Vec<String>,
    /// A part of the names of the tests to run, and options of the test programs.
    #[arg(last = true, value_name = "FILTER")]
    filters: Vec<String>,
}

/// Builds the programs that the end-to-end tests start, then runs the tests.
///
/// The test profile is the dev profile: nothing is built twice. Building all targets first makes
/// `rdist`, `rdist-workloads` and the examples, which `cargo test -p` alone would leave out.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    interrupt::catch()?;
    let started = Instant::now();
    let libtorch = libtorch::ensure().context("the workloads' tests need libtorch")?;
    eprintln!("libtorch: {} ({})", libtorch.prefix.display(), libtorch.source);
    if options.packages.is_empty() {
        step::run(step::cargo(&libtorch).args(["build", "--workspace", "--all-targets"]))?;
    }
    let mut cargo = step::cargo(&libtorch);
    cargo.args(["test", "--no-fail-fast"]);
    if options.packages.is_empty() {
        cargo.arg("--workspace");
    }
    cargo.args(options.packages.iter().flat_map(|package| ["-p", package]));
    if !options.filters.is_empty() {
        cargo.arg("--").args(&options.filters);
    }
    let (mut tally, success) = run_counted(&mut cargo)?;
    if options.packages.is_empty() && options.filters.is_empty() {
        tally.add_instructions()?;
    }
    eprintln!("{} test programs, {:.0} s", tally.programs, started.elapsed().as_secs_f64());
    let failed = if success { tally.failed } else { tally.failed.max(1) };
    if failed > tally.failed {
        eprintln!("cargo test failed outside of a test; its output above says where");
    }
    println!("{} passed, {failed} failed", tally.passed);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs `cargo test`, passes its output on, and counts.
fn run_counted(cargo: &mut std::process::Command) -> anyhow::Result<(Tally, bool)> {
    let shown = step::shown(cargo);
    eprintln!("+ {shown}");
    let mut child =
        cargo.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run `{shown}`"))?;
    let output = child.stdout.take().context("cargo's output is a pipe")?;
    let counting = std::thread::spawn(move || {
        let mut tally = Tally::default();
        for line in BufReader::new(output).split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            tally.count(&line);
        }
        std::io::Result::Ok(tally)
    });
    let status = step::wait(child)?;
    let tally = counting.join().map_err(|_| anyhow::anyhow!("the counting thread panicked"))??;
    Ok((tally, status.success()))
}

/// Sums over the test programs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    programs: u64,
    passed: u64,
    failed: u64,
}

impl Tally {
    /// Counts the hot paths whose instructions are as many as they may be.
    fn add_instructions(&mut self) -> anyhow::Result<()> {
        if !instructions::is_possible() {
            eprintln!("instructions of the hot paths are not counted: no valgrind is installed");
            return Ok(());
        }
        let (passed, failed) = instructions::check()?;
        (self.passed, self.failed) = (self.passed + passed, self.failed + failed);
        Ok(())
    }

    /// Counts a line like `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
    fn count(&mut self, line: &str) {
        let Some((_, result)) = line.split_once("test result: ") else { return };
        let number = |what: &str| -> Option<u64> {
            let before = &result[..result.find(what)?];
            before.rsplit(' ').next()?.parse().ok()
        };
        if let (Some(passed), Some(failed)) = (number(" passed;"), number(" failed;")) {
            self.programs += 1;
            self.passed += passed;
            self.failed += failed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn results_of_test_programs_add_up() {
        let mut tally = Tally::default();
        for line in [
            "running 4 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; finished in 0.01s",
            "test a_name_with_passed; ... ok",
            "test result: FAILED. 12 passed; 2 failed; 0 ignored; 0 measured; finished in 1.00s",
        ] {
            tally.count(line);
        }
        assert_eq!(tally, Tally { programs: 2, passed: 15, failed: 2 });
    }
}

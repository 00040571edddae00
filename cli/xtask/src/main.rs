//! Project commands, run as `cargo xtask COMMAND`: the demo, the tests, the set-up of libtorch.
//!
//! Nothing here is part of what users install; it leaves all scheduling to the programs it runs.

mod chaos;
mod cluster;
mod demo;
mod fuzz;
mod instructions;
mod interrupt;
mod libtorch;
mod s3;
mod step;
mod test;
#[cfg(test)]
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Project commands of rdist.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train MNIST on a cluster of its own on this machine, and stop everything afterwards.
    #[command(after_help = "Example:\n  cargo xtask demo --data ~/data")]
    Demo(demo::Options),
    /// Build what the tests need and run all of them, also those with real processes.
    #[command(after_help = "Examples:\n  cargo xtask test\n  \
                            cargo xtask test -p rdist-scheduler -- placement")]
    Test(test::Options),
    /// Count the instructions of the hot paths, and compare them with what is committed.
    #[command(after_help = "Examples:\n  cargo xtask instructions\n  \
                            cargo xtask instructions --accept")]
    Instructions(instructions::Options),
    /// Kill executors, workers and heads at random while a job checks its results.
    #[command(after_help = "Example:\n  cargo xtask chaos --minutes 5 --seed 1")]
    Chaos(chaos::Options),
    /// Feed damaged input to what reads bytes from outside.
    #[command(after_help = "Example:\n  cargo xtask fuzz --minutes 30 --seed 1000000")]
    Fuzz(fuzz::Options),
    /// Run an S3 server on a free port, with MNIST in it, until it is stopped.
    #[command(after_help = "Example:\n  cargo xtask s3 --data ~/data")]
    S3(s3::Options),
    /// Fetch libtorch, unless it is there already, and say where it is.
    #[command(after_help = "Example:\n  eval \"$(cargo xtask libtorch --export)\"\n  \
                            cargo clippy --workspace --all-targets")]
    Libtorch {
        /// Print shell commands that make cargo find it.
        #[arg(long)]
        export: bool,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Instructions(options) => instructions::run(&options),
        Command::Chaos(options) => chaos::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::S3(options) => s3::run(&options),
        Command::Libtorch { export } => print_libtorch(export),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print_libtorch(export: bool) -> anyhow::Result<ExitCode> {
    let libtorch = libtorch::ensure()?;
    if export {
        for (name, value) in libtorch.environment() {
            println!("export {name}={}", shell_quoted(&value.to_string_lossy()));
        }
    } else {
        println!("libtorch: {} ({})", libtorch.prefix.display(), libtorch.source);
    }
    Ok(ExitCode::SUCCESS)
}

/// `text` as one word of a POSIX shell.
fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The root of the repository.
fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// Where cargo puts what it builds: two folders above this very program, `target/debug/xtask`.
fn target_folder() -> PathBuf {
    let here = std::env::current_exe().ok();
    let target = here.as_deref().and_then(|program| program.ancestors().nth(2));
    target.map_or_else(|| repository().join("target"), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Arguments::command().debug_assert();
    }

    #[test]
    fn a_quoted_word_survives_the_shell() {
        let word = "it's $HOME";
        let script = format!("printf %s {}", super::shell_quoted(word));
        let output = std::process::Command::new("sh").args(["-c", &script]).output();
        assert_eq!(output.map(|output| output.stdout).ok(), Some(word.into()));
    }
}

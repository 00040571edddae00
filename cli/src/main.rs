//! The `rdist` command: starts clusters, submits jobs, looks inside.
//!
//! Commands parse, call the library `rdist`, and print. What a user of the library would miss is
//! in the library, not here. This program never loads libtorch: workload files are given to
//! `rdist-workloads`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod arguments;
mod bench;
mod command;
mod daemon;
mod follow;
mod job;
mod local;
mod output;
mod plan;
mod program;
mod progress;
mod units;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    // `rdist bench` and plain command jobs submit this program, which a worker starts again.
    if std::env::var_os(rdist::EXECUTOR_FD).is_some() {
        return job::execute();
    }
    let arguments = arguments::Arguments::parse();
    let json = arguments.json;
    match command::run(arguments) {
        Ok(code) => code,
        // Whoever reads our output has seen enough: `rdist jobs | head -1`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let message = format!("{error:#}");
            eprintln!("error: {message}");
            if json {
                println!("{}", serde_json::json!({"event": "error", "message": message}));
            }
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    kind == Some(std::io::ErrorKind::BrokenPipe)
}

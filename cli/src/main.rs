#![cfg_attr(test, allow(clippy::unwrap_used))]
//! The `rdist` command: starts clusters, submits jobs, looks inside.
//!
//! Commands parse, call the library `rdist`, and print. What a user of the library would miss is
//! in the library, not here. This program never loads libtorch: workload files are given to
//! `rdist-workloads`.

mod arguments;
mod daemon;
mod local;
mod output;
mod program;
mod progress;
mod units;
fn main() {}

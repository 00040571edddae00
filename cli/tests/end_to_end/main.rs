//! End to end: real processes, started, used, broken and stopped as a person would.
//!
//! The programs that are submitted are the library's examples and `programs/faults.rs`;
//! `cargo xtask test` builds both.
#![allow(clippy::unwrap_used, missing_docs)]

mod bench;
mod cluster;
mod commands;
mod daemons;
mod jobs;

//! End to end: real processes, started, used, broken and stopped as a person would.
//!
//! The programs that are submitted are the library's examples, `programs/*.rs`, and for
//! trainings the real `rdist-workloads`; `cargo xtask test` builds all of them.
#![allow(clippy::unwrap_used, missing_docs)]

mod actors;
mod bad_input;
mod bench;
mod chaos;
mod cluster;
mod commands;
mod daemons;
mod dice;
mod direct;
mod disk;
mod durability;
mod exhaustion;
mod explain;
mod files;
mod gpus;
mod groups;
mod hosts;
mod jobs;
mod lan;
mod leases;
mod misbehaviour;
mod network;
mod objects;
mod options;
mod pictures;
mod plain_commands;
mod relay;
mod settings;
mod stalls;
mod tasks;
mod training;
mod training_faults;
mod training_members;
mod training_resume;
mod training_s3;

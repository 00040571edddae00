//! Tests of the worker's core. `bench` holds the builders and the double that fails on any
//! unclaimed action; `random` drives several cores over lossless links.

mod actors;
mod ahead;
mod bench;
mod direct;
mod fairness;
mod gpus;
mod groups;
mod head;
mod job;
mod lease;
mod lease_random;
mod lodgers;
mod moves;
mod objects;
mod plain;
mod policy;
mod random;
mod remake;
mod replicas;
mod scale;
mod stream;

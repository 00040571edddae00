//! Training and inference workloads of rdist: task graphs whose actors hold replicas of a model.
//!
//! ```text
//! spec      a job's TOML, checked        graph   its task graph, drawn
//! data      IDX files, where they are found, who trains on what
//! model     parameters and forward passes          tensor  slices as tensors
//! device    CPUs or a GPU: asked for, found, or said to be missing
//! train     trainer (one model, no cluster) <- replica (an actor) <- fleet (all of them)
//!           <- strategies (who does what when) <- run (a job)
//! pipeline  files to predictions, through pools of actors; how long each activity takes
//! metric    what is counted              report  what people see
//! place     files by their path          s3      those of them that are objects
//! ```
//! Pure parts know nothing of clusters; strategies know nothing of tensors. Everything that is
//! random comes from the job's seed.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod data;
pub mod device;
#[cfg(test)]
mod fuzz_tests;
pub mod graph;
pub mod metric;
pub mod model;
pub mod pipeline;
pub mod place;
pub mod plan;
pub mod report;
pub mod s3;
pub mod spec;
pub mod tensor;
pub mod train;

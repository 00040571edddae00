//! Training and inference workloads of rdist.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod data;
pub mod metric;
pub mod model;
pub mod report;
pub mod spec;
pub mod tensor;
pub mod train;

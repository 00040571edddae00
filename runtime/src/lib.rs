//! rdist.
#![cfg_attr(test, allow(clippy::unwrap_used))]
pub mod config;
pub mod ring;
pub mod store;
pub mod wire;

pub use rdist_scheduler as scheduler;

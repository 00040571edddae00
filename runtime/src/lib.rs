//! rdist.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod config;
pub mod transport;
pub mod wire;

pub use rdist_scheduler as scheduler;

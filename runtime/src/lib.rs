//! rdist.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod config;
pub mod machine;
pub mod ring;
pub mod store;
mod transfer;
pub mod transport;
pub mod wire;
pub mod worker;

pub use rdist_scheduler as scheduler;

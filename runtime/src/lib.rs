//! rdist.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod client;
pub mod config;
pub mod head;
pub mod ring;
pub mod store;
mod transfer;
pub mod transport;
pub mod wire;
pub mod worker;

pub use rdist_scheduler as scheduler;

//! rdist.
pub mod config;
pub mod wire;

pub use rdist_scheduler as scheduler;

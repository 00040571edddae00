//! rdist.
pub mod config;
pub mod machine;
pub mod wire;

pub use rdist_scheduler as scheduler;

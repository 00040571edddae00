//! rdist.
pub mod wire;

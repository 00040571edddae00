//! Training.

pub mod aggregate;
pub mod optimiser;
pub mod trainer;

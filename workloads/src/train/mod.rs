//! Training: pure parts (aggregation, optimisers), the computing half of a replica, checkpoints.

pub mod aggregate;
pub mod checkpoint;
pub mod optimiser;
pub mod trainer;

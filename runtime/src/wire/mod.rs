//! Messages between processes, as rkyv archives that are validated before they are read.

pub mod executor;

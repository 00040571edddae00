//! What people see.

pub mod digits;

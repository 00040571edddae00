//! What people see, and what other programs draw.

pub mod digits;
pub mod page;
pub mod rounds;
pub mod tensorboard;

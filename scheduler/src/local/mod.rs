//! The worker's core: the tasks, actors and objects of one machine.

mod action;
mod event;

pub use action::{ExecutorRole, LocalAction};
pub use event::LocalEvent;

//! The head's core: members, placement across them, jobs, names.

mod action;
mod event;

pub use action::{ClusterAction, JobState};
pub use event::ClusterEvent;

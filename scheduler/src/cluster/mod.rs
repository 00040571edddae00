//! The head's core: members, placement across them, jobs, names.
//!
//! Events in ([`ClusterCore::handle`]), actions out ([`ClusterCore::poll_action`]), in order. It
//! reads no clock, draws no random numbers and does no I/O; making records durable, sessions and
//! detecting lost workers are the runtime's part. It never sees results: those go from where a
//! task ran to the task's owner.
//!
//! What holds (see [`ClusterCore::check_invariants`]):
//! - **CL-1** A task waits or is placed, for each owner and attempt: never both.
//! - **CL-2** The ledger of placements and the members' own lists agree, and name members only.
//! - **CL-3** Every waiting task stands in the line of exactly its shape.
//! - **CL-4** The ordered sets of workers agree with the workers' room.
//! - **CL-5** No task waits while a worker has room for it, and no placement group while all of
//!   its bundles can be placed.
//! - **CL-6** A running job's driver is placed where the job says it runs; a waiting job's driver
//!   waits; an ended job has nothing waiting and nothing placed.
//! - **CL-7** Names belong to actors of unended jobs, and to members or to workers that may still
//!   come back.

mod action;
mod core;
mod event;
mod explain;
mod fairness;
mod groups;
mod invariants;
mod jobs;
mod member;
mod members;
mod names;
mod placing;
mod queue;
mod recovery;
mod sharing;
#[cfg(test)]
mod tests;
mod view;

pub use action::{ClusterAction, JobState};
pub use event::ClusterEvent;
pub use view::{JobView, WorkerView};

pub use self::core::{ClusterConfig, ClusterCore};

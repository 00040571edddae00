//! Where a task should run: policies over the room that workers have.
//!
//! [`Field`] knows each worker's room, ordered by every kind of resource, so that no policy walks
//! over all workers to find one. A policy only chooses: it takes no room, keeps no state, and
//! knows nothing about queues, jobs or messages; that is the cluster core's part.
//!
//! | policy | serves | prefers |
//! |---|---|---|
//! | `affinity` | `Strategy::Affinity` | the worker that was named |
//! | `spread` | `Strategy::Spread`, drivers | the most room; for nothing, the fewest tasks |
//! | `locality` | `Strategy::Default` | where dependencies lie, their owners, its owner's place |
//! | `labels` | `Strategy::Labels` | the most preferences, then as `pack` |
//! | `gang` | placement groups | by the group's strategy, all bundles at once |
//! | `pack` | the same, where locality finds none | the worker that the task fills best |
//!
//! Ties go by a seeded hash of the worker's id: the same seed places the same way, and no worker
//! is everybody's favourite because its number is low.

mod affinity;
mod field;
mod filter;
mod gang;
mod labels;
mod locality;
mod pack;
mod reason;
mod score;
mod spread;
#[cfg(test)]
mod tests;

pub use field::{Field, Spot};
pub use filter::{admits, pinned};
pub use gang::{GangAsk, choose_gang, gang_reason};
pub use reason::Reason;

use crate::id::WorkerId;
use crate::resource::Resources;
use crate::spec::{Reference, Strategy};

/// What a policy needs to know about a task.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// What it holds while it runs.
    pub request: &'a Resources,
    /// What its author asked for.
    pub strategy: &'a Strategy,
    /// Whether it is a job's main function. Tasks start where they are submitted, so a driver
    /// goes where the most room is.
    pub driver: bool,
    /// The worker that spilled it.
    pub owner: WorkerId,
    /// What it reads.
    pub dependencies: &'a [Reference],
    /// Where that lies, as far as its owner knows.
    pub near: &'a [WorkerId],
}

/// The worker that should run the task now; `None` while no worker has the room.
///
/// Whether there is one depends on request and strategy alone, not on owner, dependencies or their
/// places: a queue of tasks with equal request and strategy is served or blocked as a whole.
pub fn choose(field: &Field, ask: &Ask<'_>) -> Option<WorkerId> {
    if let Some(worker) = pinned(field, ask.request, ask.strategy) {
        return affinity::choose(field, ask.request, worker);
    }
    match ask.strategy {
        Strategy::Labels(selector) => labels::choose(field, ask.request, selector),
        Strategy::Spread => spread::choose(field, ask.request),
        Strategy::Default | Strategy::Affinity { .. } | Strategy::Group(_) if ask.driver => {
            spread::choose_for_driver(field, ask.request)
        }
        Strategy::Default | Strategy::Affinity { .. } | Strategy::Group(_) => {
            locality::choose(field, ask).or_else(|| pack::choose(field, ask.request))
        }
    }
}

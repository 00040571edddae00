//! Which workers can run a task at all, and which of them now.

use super::{Field, Spot};
use crate::id::WorkerId;
use crate::resource::Resources;
use crate::spec::Strategy;

/// Whether the worker could run it if it were idle.
pub(super) fn able(spot: &Spot, request: &Resources) -> bool {
    !spot.closed && spot.total.covers(request)
}

/// Whether the worker has the room now. What is over-used (less than nothing) stands in nobody's
/// way but theirs who ask for it.
pub(super) fn fits(spot: &Spot, request: &Resources) -> bool {
    !spot.closed && fits_in(&spot.room, request)
}

/// The same for room that is no worker's.
pub(super) fn fits_in(room: &Resources, request: &Resources) -> bool {
    // Most tasks ask for CPUs alone: look no further than needed.
    let asked = |wanted: crate::resource::Amount, held| wanted.is_zero() || wanted <= held;
    asked(request.cpu, room.cpu)
        && asked(request.gpu, room.gpu)
        && asked(request.memory, room.memory)
        && request.custom().all(|(name, wanted)| wanted <= room.get(name))
}

/// The only worker that the strategy allows. Affinity that is soft binds as long as its worker
/// is a member, takes tasks, and is large enough.
pub fn pinned(field: &Field, request: &Resources, strategy: &Strategy) -> Option<WorkerId> {
    match strategy {
        Strategy::Default | Strategy::Spread | Strategy::Labels(_) | Strategy::Group(_) => None,
        Strategy::Affinity { worker, soft: false } => Some(*worker),
        Strategy::Affinity { worker, soft: true } => {
            field.spot(*worker).is_some_and(|spot| able(spot, request)).then_some(*worker)
        }
    }
}

/// Whether the worker's labels are as the strategy wants them.
pub fn admits(spot: &Spot, strategy: &Strategy) -> bool {
    match strategy {
        Strategy::Labels(selector) => selector.admits(&spot.labels),
        _ => true,
    }
}

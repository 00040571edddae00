//! The worker with the most room, so that tasks share as little as possible.

use super::{Field, filter, score};
use crate::id::WorkerId;
use crate::resource::Resources;

/// Equally idle workers to compare for a driver.
const EQUALS: usize = 64;

pub(super) fn choose(field: &Field, request: &Resources) -> Option<WorkerId> {
    if request.is_none() {
        // A request of nothing leaves no trace in the room: count tasks instead.
        return field.fewest_first().map(|(worker, _)| worker).next();
    }
    let kind = score::rarest(request);
    let mut fitting = field.fullest_first(kind, kind.of(request)).rev();
    fitting.find(|(_, spot)| filter::fits(spot, request)).map(|(worker, _)| worker)
}

/// For a driver, whose tasks start beside it: the most free CPUs, then the fewest tasks.
pub(super) fn choose_for_driver(field: &Field, request: &Resources) -> Option<WorkerId> {
    if !request.is_none() {
        return choose(field, request);
    }
    let (_, idlest) = field.idlest_first().next()?;
    let equals = field.idlest_first().take_while(|(_, spot)| spot.room.cpu == idlest.room.cpu);
    equals.take(EQUALS).min_by_key(|(_, spot)| spot.placed).map(|(worker, _)| worker)
}

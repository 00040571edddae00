//! Near the data: the worker with the most bytes of what the task reads, else one that owns some
//! of it, else the worker that submitted it, else one that shares a label of place with that one.
//!
//! The worker that spilled the task says where large values lie, so that the head needs no
//! directory of copies. Of values of others it may not know that: their owners stand for places.

use super::{Ask, Field, filter};
use crate::id::WorkerId;
use crate::spec::Assignment;

/// Labels that say where a worker is, the closest first.
const PLACES: [&str; 3] = ["host", "rack", "zone"];
/// Dependencies to look at; more would cost time and change little.
const DEPENDENCIES: usize = 32;
/// Neighbours to look at for one with room.
const NEIGHBOURS: usize = 16;

pub(super) fn choose(field: &Field, ask: &Ask<'_>) -> Option<WorkerId> {
    let fits =
        |worker: WorkerId| field.spot(worker).is_some_and(|spot| filter::fits(spot, ask.request));
    let told = ask.near.iter().take(Assignment::NEAR).copied();
    if let Some(worker) = told.chain(owners(ask)).find(|worker| fits(*worker)) {
        return Some(worker);
    }
    let submitter = field.spot(ask.owner)?;
    if filter::fits(submitter, ask.request) && !ask.request.is_none() {
        return Some(ask.owner);
    }
    PLACES.iter().find_map(|place| {
        let label = submitter.labels.iter().find(|(key, _)| key == place)?;
        let mut near = field.labelled(label).take(NEIGHBOURS);
        near.find(|(_, spot)| filter::fits(spot, ask.request)).map(|(worker, _)| worker)
    })
}

/// Owners of the dependencies, those of the most first, then those of the earliest.
fn owners(ask: &Ask<'_>) -> Vec<WorkerId> {
    let mut counted: Vec<(usize, WorkerId)> = Vec::new();
    for dependency in ask.dependencies.iter().take(DEPENDENCIES) {
        match counted.iter_mut().find(|(_, owner)| *owner == dependency.owner) {
            Some((count, _)) => *count += 1,
            None => counted.push((1, dependency.owner)),
        }
    }
    counted.sort_by_key(|(count, _)| core::cmp::Reverse(*count));
    counted.into_iter().map(|(_, owner)| owner).collect()
}

//! The worker that the task fills best: the least room that is enough (best fit), so that large
//! requests find whole workers free.

use super::{Field, filter, score, spread};
use crate::id::WorkerId;
use crate::resource::Resources;

/// How many more workers to look at for one without GPUs, once one with GPUs would do.
const LOOK_FURTHER: usize = 64;

pub(super) fn choose(field: &Field, request: &Resources) -> Option<WorkerId> {
    if request.is_none() {
        // It fills nothing: give everybody the same number of such tasks.
        return spread::choose(field, request);
    }
    let kind = score::rarest(request);
    let mut wasteful = None;
    let mut further = 0;
    for (worker, spot) in field.fullest_first(kind, kind.of(request)) {
        if wasteful.is_some() {
            further += 1;
            if further > LOOK_FURTHER {
                break;
            }
        }
        if !filter::fits(spot, request) {
            continue;
        }
        if !score::wasted(spot, request) {
            return Some(worker);
        }
        wasteful = wasteful.or(Some(worker));
    }
    wasteful
}

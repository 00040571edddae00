//! The worker that the author named, or none: waiting for it is what was asked for.

use super::{Field, filter};
use crate::id::WorkerId;
use crate::resource::Resources;

pub(super) fn choose(field: &Field, request: &Resources, worker: WorkerId) -> Option<WorkerId> {
    let spot = field.spot(worker)?;
    filter::fits(spot, request).then_some(worker)
}

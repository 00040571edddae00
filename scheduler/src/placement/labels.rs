//! A worker whose labels are as the author wants them; of those with room the one of which the
//! most preferences hold, and among equals the one that the task fills best.

use core::cmp::Reverse;

use super::field::{Field, Spot};
use super::{filter, score};
use crate::id::WorkerId;
use crate::resource::Resources;
use crate::spec::{LabelSelector, LabelTest};

pub(super) fn choose(
    field: &Field,
    request: &Resources,
    selector: &LabelSelector,
) -> Option<WorkerId> {
    // Few workers have a given value of a label: there is an index of those.
    let narrow = selector.hard.iter().find_map(|rule| match &rule.test {
        LabelTest::In(values) => Some((&rule.key, values)),
        _ => None,
    });
    match narrow {
        Some((key, values)) => {
            let labels = values.iter().map(|value| (key.clone(), value.clone()));
            let found = labels.flat_map(|label| field.labelled(&label).collect::<Vec<_>>());
            best(found, request, selector)
        }
        None => best(field.spots(), request, selector),
    }
}

fn best<'a>(
    spots: impl IntoIterator<Item = (WorkerId, &'a Spot)>,
    request: &Resources,
    selector: &LabelSelector,
) -> Option<WorkerId> {
    let kind = score::rarest(request);
    let rank = |(worker, spot): &(WorkerId, &Spot)| {
        let preference = Reverse(selector.preference(&spot.labels));
        // A request of nothing fills nothing: the fewest tasks.
        let full = if request.is_none() { spot.placed as i64 } else { kind.of(&spot.room).0 };
        (preference, score::wasted(spot, request), full, *worker)
    };
    let fits = |(_, spot): &(WorkerId, &Spot)| {
        filter::fits(spot, request) && selector.admits(&spot.labels)
    };
    spots.into_iter().filter(fits).min_by_key(rank).map(|(worker, _)| worker)
}

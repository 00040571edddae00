//! Parameter averaging in rounds (workload 1): the epoch's order is split into as many parts as
//! there are replicas, each trains on its part from the same parameters, and the results are
//! averaged. Little communication: one model there and one back for each epoch.

use super::error::JobError;
use super::fleet::Fleet;
use super::trainer::Work;
use super::{Course, Epoch, Scheme, Standing, merged};
use crate::data::shard;

/// See the module.
pub(super) struct ParameterAverage;

impl Scheme for ParameterAverage {
    async fn epoch(
        &mut self,
        fleet: &mut Fleet,
        course: &Course,
        standing: &Standing,
    ) -> Result<Option<Epoch>, JobError> {
        let whole = (0, course.images);
        let parts: Vec<Work> = shard::split(0..course.images, fleet.len())
            .into_iter()
            .map(|part| Work {
                order: standing.epochs,
                from: part.start,
                to: part.end,
                among: whole,
            })
            .collect();
        let trained = fleet
            .spread(&parts, |replica, part| replica.train(&standing.parameters, part).submit())
            .await?;
        let Some(trained) = trained else { return Ok(None) };
        // Parts differ by one image at most; counting them equally is workload 1's average.
        merged(fleet, &trained, |tally| if tally.images > 0 { 1.0 } else { 0.0 }).await
    }
}

//! Federated averaging (workload 4; `McMahan` et al. 2017): the data set is split once, each
//! replica only ever trains on its own part, and results count by the size of their part. A part
//! whose replica is lost is trained by another one: the federation is simulated, and what counts
//! is that no part is left out.

use super::error::JobError;
use super::fleet::Fleet;
use super::trainer::Work;
use super::{Course, Epoch, Scheme, Standing, merged};
use crate::data::shard;

/// See the module.
#[derive(Default)]
pub(super) struct Fedavg {
    /// The parts as they were split at first; they stay.
    parts: Vec<(u64, u64)>,
}

impl Scheme for Fedavg {
    async fn epoch(
        &mut self,
        fleet: &mut Fleet,
        course: &Course,
        standing: &Standing,
    ) -> Result<Option<Epoch>, JobError> {
        if self.parts.is_empty() {
            let parts = shard::split(0..course.images, fleet.len());
            self.parts = parts.into_iter().map(|part| (part.start, part.end)).collect();
        }
        let works: Vec<Work> = self
            .parts
            .iter()
            .map(|among| Work {
                order: standing.epochs,
                from: 0,
                to: among.1 - among.0,
                among: *among,
            })
            .collect();
        let trained = fleet
            .spread(&works, |replica, work| replica.train(&standing.parameters, work).submit())
            .await?;
        let Some(trained) = trained else { return Ok(None) };
        merged(fleet, &trained, |tally| tally.images as f64).await
    }
}

//! Parameter averaging in rounds (workload 1): the epoch's order is split into as many parts as
//! there are replicas, each trains on its part from the same parameters, and the results are
//! averaged. Little communication: one model there and one back for each epoch. With rounds of
//! some batches and an outer optimiser it is `DiLoCo` (Douillard et al. 2023); inner optimisers
//! begin each round anew, so that any replica can do any part.

use std::ops::Range;

use super::error::JobError;
use super::fleet::Fleet;
use super::{Course, Progress, Scheme, Standing, merged};
use crate::metric::Tally;

/// See the module.
pub(super) struct ParameterAverage {
    /// Whether rounds are as long as `train.exchange` says, or an epoch.
    pub(super) exchange: bool,
}

impl Scheme for ParameterAverage {
    async fn train(
        &mut self,
        fleet: &mut Fleet,
        course: &Course,
        standing: &Standing,
        positions: Range<u64>,
    ) -> Result<Option<Progress>, JobError> {
        let rounds = match self.exchange {
            true => course.rounds(&positions, fleet.len()),
            false => vec![positions],
        };
        let (mut standing, mut tally) = (standing.clone(), Tally::default());
        for round in rounds {
            let parts = course.works(standing.epochs, round, fleet.len());
            let trained = fleet
                .spread(&parts, |replica, part| replica.train(&standing.parameters, part).submit())
                .await?;
            let Some(trained) = trained else { return Ok(None) };
            // Parts differ by one image at most; counting them equally is workload 1's average.
            let weigh = |tally: &Tally| if tally.images > 0 { 1.0 } else { 0.0 };
            let Some(progress) = merged(fleet, course, &standing, &trained, weigh).await? else {
                return Ok(None);
            };
            tally += progress.tally;
            standing = Standing {
                parameters: progress.parameters,
                optimiser: progress.optimiser,
                ..standing
            };
        }
        let Standing { parameters, optimiser, .. } = standing;
        Ok(Some(Progress { parameters, optimiser, tally }))
    }
}

//! Training: pure parts (aggregation, optimisers), the computing half of a replica, checkpoints,
//! and on top the strategies, each a thin graph of calls to replicas.
//!
//! The driver holds the state between epochs: it is what checkpoints hold, what replicas that
//! join then start from, and what an epoch is run from again when too much of it was lost.

pub mod aggregate;
mod allreduce;
pub mod checkpoint;
mod compare;
pub mod error;
mod fedavg;
mod feed;
pub mod fleet;
mod gradient_master;
pub mod optimiser;
pub mod outer;
mod page;
mod parameter_average;
pub mod predict;
pub mod prepare;
pub mod record;
pub mod replica;
mod resume;
pub mod run;
pub mod schedule;
pub mod shelf;
mod speed;
pub mod spent;
pub mod start;
mod telling;
pub mod test_set;
pub mod trainer;
mod upload;

use std::ops::Range;

use rdist::prelude::*;

use error::JobError;
use fleet::Fleet;
use optimiser::OptimiserState;
use schedule::Rates;
use trainer::{Among, Work};

use crate::data::shard;
use crate::metric::Tally;
use crate::spec::Merging;

/// Where a training stands.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Epochs done.
    pub epochs: u64,
    /// Images of the next epoch that were shown already.
    pub shown: u64,
    /// Parameters of the model.
    pub parameters: ObjectRef<Vec<f32>>,
    /// What the optimiser remembers, with strategies that have one optimiser; the outer one, with
    /// those that merge parameters.
    pub optimiser: Option<OptimiserState>,
}

/// What a stretch of training comes to.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Parameters of the model.
    pub parameters: ObjectRef<Vec<f32>>,
    /// What the optimiser remembers.
    pub optimiser: Option<OptimiserState>,
    /// What was counted in training.
    pub tally: Tally,
}

/// What strategies know of the job.
#[derive(Debug, Clone)]
pub struct Course {
    /// Images to train on.
    pub images: u64,
    /// Their classes.
    pub labels: Vec<u32>,
    /// Images per step and replica.
    pub batch: u64,
    /// Batches between exchanges; `None`: an epoch.
    pub exchange: Option<u32>,
    /// The learning rate.
    pub rates: Rates,
    /// How results become one.
    pub merging: Merging,
    /// Members of the federation, where there is one.
    pub members: u32,
    /// How many of the model's values are trained parameters.
    pub trained: usize,
    /// The job's.
    pub seed: u64,
}

impl Course {
    /// How much of an epoch is over at a position.
    fn within(&self, position: u64) -> f64 {
        position as f64 / self.images.max(1) as f64
    }

    /// Positions of a whole epoch's order.
    fn work(&self, order: u64, positions: Range<u64>) -> Work {
        let span = (self.within(positions.start), self.within(positions.end));
        let Range { start: from, end: to } = positions;
        Work { order, from, to, next: (to, to), among: Among::All, span }
    }

    /// `positions` in a part for each of so many replicas, all of whom are likely to have as many
    /// of those behind `positions` next.
    fn works(&self, order: u64, positions: Range<u64>, replicas: usize) -> Vec<Work> {
        let count = positions.end - positions.start;
        let end = self.images.min(positions.end.saturating_add(count)).max(positions.end);
        let next = shard::split(positions.end..end, replicas);
        let parts = shard::split(positions, replicas).into_iter().zip(next);
        parts
            .map(|(part, next)| Work { next: (next.start, next.end), ..self.work(order, part) })
            .collect()
    }

    /// `positions` in pieces of as many batches as lie between two exchanges.
    fn rounds(&self, positions: &Range<u64>, replicas: usize) -> Vec<Range<u64>> {
        let piece = self.exchange.map_or(u64::MAX, |batches| {
            self.batch.saturating_mul(u64::from(batches)).saturating_mul(replicas as u64)
        });
        let (mut rounds, mut from) = (Vec::new(), positions.start);
        while from < positions.end {
            let to = positions.end.min(from.saturating_add(piece));
            rounds.push(from..to);
            from = to;
        }
        rounds
    }
}

/// A way to train one model on many replicas.
trait Scheme {
    /// Trains on the images at these positions of the next epoch's order, from `standing`.
    /// `None`: too much was lost on the way; try again.
    async fn train(
        &mut self,
        fleet: &mut Fleet,
        course: &Course,
        standing: &Standing,
        positions: Range<u64>,
    ) -> Result<Option<Progress>, JobError>;
}

/// Combines parameters; a task of the graph. It holds no CPU: replicas hold them all, and wait
/// for it.
#[rdist::task]
fn merge(
    parts: Vec<(ObjectRef<Vec<f32>>, f64)>,
    how: aggregate::Combine,
) -> Result<Vec<f32>, String> {
    let views: Result<Vec<_>, _> =
        parts.iter().map(|(part, weight)| Ok((part.read()?, *weight))).collect();
    let views = views.map_err(|e: Error| format!("{}: {e}", replica::INPUT_LOST))?;
    let parts: Vec<aggregate::Part<'_>> = views
        .iter()
        .map(|(view, weight)| aggregate::Part {
            values: crate::tensor::floats(view),
            weight: *weight,
        })
        .collect();
    let combined = aggregate::combine(&parts, how).map_err(|error| error.to_string())?;
    for part in combined.left_out {
        println!("result {} has values that are not finite; it is left out", part + 1);
    }
    Ok(combined.values)
}

/// Merges products by their weights, and takes the outer step there.
async fn merged(
    fleet: &Fleet,
    course: &Course,
    standing: &Standing,
    products: &[replica::Product],
    weigh: impl Fn(&Tally) -> f64,
) -> Result<Option<Progress>, JobError> {
    let Merging { combine, outer, .. } = &course.merging;
    let parts: Vec<_> =
        products.iter().map(|each| (each.values.clone(), weigh(&each.tally))).collect();
    let parameters = merge.with().cpus(0.0).submit(fleet.cx(), &parts, combine);
    let tally = products.iter().map(|each| each.tally).sum();
    let merged = match parameters.read() {
        Ok(merged) => merged,
        Err(error) if error::loss(&error).is_some() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if *outer == outer::Outer::None {
        return Ok(Some(Progress { parameters, optimiser: None, tally }));
    }
    let start = match standing.parameters.read() {
        Ok(start) => start,
        Err(error) if error::loss(&error).is_some() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let (start, merged) = (crate::tensor::floats(&start), crate::tensor::floats(&merged));
    let state = standing.optimiser.clone();
    let (values, optimiser) = outer.step(state, start, merged, course.trained);
    Ok(Some(Progress { parameters: fleet.cx().put(&values)?, optimiser, tally }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Spec;

    #[test]
    fn what_a_replica_is_told_to_expect_is_what_it_is_given() {
        let spec = Spec::parse("job.toml", "", &[]).unwrap().train;
        let course = Course {
            images: 103,
            labels: vec![0; 103],
            batch: 5,
            exchange: Some(2),
            rates: spec.rates,
            merging: spec.merging,
            members: 3,
            trained: 1,
            seed: 1,
        };
        let rounds = course.rounds(&(0..103), 3);
        let works: Vec<Vec<Work>> =
            rounds.into_iter().map(|round| course.works(4, round, 3)).collect();
        assert_eq!(works.len(), 4);
        for pair in works.windows(2) {
            for (now, next) in pair[0].iter().zip(&pair[1]) {
                assert_eq!((now.next, now.order), ((next.from, next.to), next.order));
            }
        }
        let behind = works[3].iter().map(|work| work.next);
        assert!(behind.into_iter().all(|next| next == (103, 103)), "the epoch is over");
    }
}

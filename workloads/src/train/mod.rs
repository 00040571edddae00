//! Training: pure parts (aggregation, optimisers), the computing half of a replica, checkpoints,
//! and on top the strategies, each a thin graph of calls to replicas.
//!
//! The driver holds the state between epochs: it is what checkpoints hold, what replicas that
//! join start from, and what an epoch is run from again when too much of it was lost.

pub mod aggregate;
mod allreduce;
pub mod checkpoint;
pub mod error;
mod fedavg;
pub mod fleet;
mod gradient_master;
pub mod optimiser;
mod parameter_average;
pub mod replica;
pub mod run;
pub mod schedule;
pub mod trainer;

use rdist::prelude::*;

use error::JobError;
use fleet::Fleet;
use optimiser::OptimiserState;
use schedule::Rates;

use crate::metric::Tally;

/// What an epoch starts from.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Epochs done.
    pub epochs: u64,
    /// Parameters of the model.
    pub parameters: ObjectRef<Vec<f32>>,
    /// What the optimiser remembers, with strategies that have one optimiser.
    pub optimiser: Option<OptimiserState>,
}

/// What an epoch comes to.
#[derive(Debug, Clone)]
pub struct Epoch {
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
    /// Images per step and replica.
    pub batch: u64,
    /// Batches between exchanges of gradients; `None`: an epoch.
    pub exchange: Option<u32>,
    /// The learning rate.
    pub rates: Rates,
}

/// A way to train one model on many replicas.
trait Scheme {
    /// Trains one epoch from `standing`. `None`: too much was lost on the way; try again.
    async fn epoch(
        &mut self,
        fleet: &mut Fleet,
        course: &Course,
        standing: &Standing,
    ) -> Result<Option<Epoch>, JobError>;
}

/// The weighted average of parameters; a task of the graph. It holds no CPU: replicas hold them
/// all, and wait for it.
#[rdist::task]
fn merge(parts: Vec<(ObjectRef<Vec<f32>>, f64)>) -> Result<Vec<f32>, String> {
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
    aggregate::weighted_average(&parts).map_err(|error| error.to_string())
}

/// Merges products by their weights, and waits until the result is there.
async fn merged(
    fleet: &Fleet,
    products: &[replica::Product],
    weigh: impl Fn(&Tally) -> f64,
) -> Result<Option<Epoch>, JobError> {
    let parts: Vec<_> =
        products.iter().map(|each| (each.values.clone(), weigh(&each.tally))).collect();
    let parameters = merge.with().cpus(0.0).submit(fleet.cx(), &parts);
    match parameters.read() {
        Ok(_) => {
            let tally = products.iter().map(|each| each.tally).sum();
            Ok(Some(Epoch { parameters, optimiser: None, tally }))
        }
        Err(error) if error::loss(&error).is_some() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

//! Loss: the mean cross-entropy of the true class, without class weights.

use super::{Metric, Seen};

/// See the module.
pub const LOSS: Metric =
    Metric { name: "loss", unit: "nats per image", higher_is_better: false, of };

fn of(seen: &Seen) -> Option<f64> {
    (!seen.pairs.is_empty()).then(|| seen.loss / seen.pairs.len() as f64)
}

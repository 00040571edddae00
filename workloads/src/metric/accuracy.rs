//! Accuracy: the share of images that were classified rightly.

use super::{Metric, Seen};

/// See the module.
pub const ACCURACY: Metric =
    Metric { name: "accuracy", unit: "share of images", higher_is_better: true, of };

fn of(seen: &Seen) -> Option<f64> {
    let right = seen.pairs.iter().filter(|(label, class)| label == class).count();
    (!seen.pairs.is_empty()).then(|| right as f64 / seen.pairs.len() as f64)
}

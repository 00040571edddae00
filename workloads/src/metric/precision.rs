//! Precision: of the images taken for a class, the share that is of it. With two classes, of
//! class 1; else the mean over classes.

use super::confusion::{ClassCounts, of_classes};
use super::{Metric, Seen};

/// See the module.
pub const PRECISION: Metric =
    Metric { name: "precision", unit: "share of images", higher_is_better: true, of };

fn of(seen: &Seen) -> Option<f64> {
    of_classes(seen, ClassCounts::precision)
}

//! Recall: of a class's images, the share that was taken for it. With two classes, of class 1;
//! else the mean over classes.

use super::confusion::{ClassCounts, of_classes};
use super::{Metric, Seen};

/// See the module.
pub const RECALL: Metric =
    Metric { name: "recall", unit: "share of images", higher_is_better: true, of };

fn of(seen: &Seen) -> Option<f64> {
    of_classes(seen, ClassCounts::recall)
}

//! F1: the harmonic mean of precision and recall. With two classes, of class 1; else, and as
//! `macro_f1` always, the mean over classes.

use super::confusion::{ClassCounts, mean_of_classes, of_classes};
use super::{Metric, Seen};

/// See the module.
pub const F1: Metric = Metric { name: "f1", unit: "0 to 1", higher_is_better: true, of };

/// The mean over classes, also with two of them: Herbarium 2021's own metric.
pub const MACRO_F1: Metric =
    Metric { name: "macro_f1", unit: "0 to 1", higher_is_better: true, of: macro_of };

fn of(seen: &Seen) -> Option<f64> {
    of_classes(seen, ClassCounts::f1)
}

fn macro_of(seen: &Seen) -> Option<f64> {
    mean_of_classes(seen, ClassCounts::f1)
}

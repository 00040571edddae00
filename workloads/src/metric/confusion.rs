//! The confusion matrix, and the counts by class that precision, recall and F1 come from. Only
//! pairs that occur take room, so that 65,000 classes are no matter.

use std::collections::BTreeMap;

use super::Seen;

/// How often an image of one class was taken for another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Confusion {
    /// By true class and seen class.
    counts: BTreeMap<(u32, u32), u64>,
}

/// What is known of one class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClassCounts {
    /// Images of the class that were taken for it.
    pub right: u64,
    /// Images of the class.
    pub present: u64,
    /// Images that were taken for it.
    pub seen: u64,
}

impl ClassCounts {
    /// Of the images that were taken for the class, the share that is of it; 0 where there are
    /// none, as in scikit-learn.
    pub fn precision(&self) -> f64 {
        self.right as f64 / self.seen.max(1) as f64
    }

    /// Of the class's images, the share that was taken for it; 0 where there are none.
    pub fn recall(&self) -> f64 {
        self.right as f64 / self.present.max(1) as f64
    }

    /// The harmonic mean of both; 0 where both are.
    pub fn f1(&self) -> f64 {
        2.0 * self.right as f64 / (self.present + self.seen).max(1) as f64
    }
}

impl Confusion {
    /// Counts.
    pub fn of(seen: &Seen) -> Self {
        let mut counts = BTreeMap::new();
        for pair in &seen.pairs {
            *counts.entry(*pair).or_default() += 1;
        }
        Self { counts }
    }

    /// How many images of class `label` were taken for `class`.
    pub fn count(&self, label: u32, class: u32) -> u64 {
        self.counts.get(&(label, class)).copied().unwrap_or(0)
    }

    /// The matrix row by row: true classes down, seen classes across.
    pub fn rows(&self, classes: u32) -> Vec<Vec<u64>> {
        let row = |label| (0..classes).map(|class| self.count(label, class)).collect();
        (0..classes).map(row).collect()
    }

    /// Counts of the classes that occur, true or seen.
    pub fn by_class(&self) -> BTreeMap<u32, ClassCounts> {
        let mut classes: BTreeMap<u32, ClassCounts> = BTreeMap::new();
        for ((label, class), count) in &self.counts {
            classes.entry(*label).or_default().present += count;
            let seen = classes.entry(*class).or_default();
            seen.seen += count;
            if label == class {
                seen.right += count;
            }
        }
        classes
    }
}

/// A figure of one class: with two classes, of class 1; else the mean over those that occur.
pub(super) fn of_classes(seen: &Seen, figure: fn(&ClassCounts) -> f64) -> Option<f64> {
    if !seen.is_binary() {
        return mean_of_classes(seen, figure);
    }
    let classes = Confusion::of(seen).by_class();
    let positive = classes.get(&1).copied().unwrap_or_default();
    (!seen.pairs.is_empty()).then(|| figure(&positive))
}

/// The mean of a figure over the classes that occur.
pub(super) fn mean_of_classes(seen: &Seen, figure: fn(&ClassCounts) -> f64) -> Option<f64> {
    let classes = Confusion::of(seen).by_class();
    let sum: f64 = classes.values().map(figure).sum();
    (!classes.is_empty()).then(|| sum / classes.len() as f64)
}

//! Metrics, one per file, each with its unit and its direction, over tallies that add up across
//! replicas.

pub mod accuracy;
pub mod loss;

use rkyv::{Archive, Deserialize, Serialize};

/// What is counted while images are shown to a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Archive, Serialize, Deserialize)]
#[allow(missing_docs, reason = "rkyv copies fields without their docs")]
pub struct Tally {
    /// Images shown.
    pub images: u64,
    /// Of them, classified rightly.
    pub correct: u64,
    /// Sum of the images' losses.
    pub loss: f64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.images += other.images;
        self.correct += other.correct;
        self.loss += other.loss;
    }
}

impl std::iter::Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |mut sum, tally| {
            sum += tally;
            sum
        })
    }
}

/// A figure that tells how good a model is.
pub trait Metric {
    /// Its name in events and tables.
    const NAME: &'static str;
    /// Its unit.
    const UNIT: &'static str;
    /// Whether more is better.
    const HIGHER_IS_BETTER: bool;

    /// The figure; `None` where nothing was shown.
    fn of(tally: &Tally) -> Option<f64>;
}

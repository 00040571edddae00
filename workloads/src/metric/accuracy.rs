//! Accuracy: the share of images that were classified rightly.

use super::{Metric, Tally};

/// See the module.
pub struct Accuracy;

impl Metric for Accuracy {
    const NAME: &'static str = "accuracy";
    const UNIT: &'static str = "share of images, 0 to 1";
    const HIGHER_IS_BETTER: bool = true;

    fn of(tally: &Tally) -> Option<f64> {
        (tally.images > 0).then(|| tally.correct as f64 / tally.images as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_count_by_their_images() {
        let small = Tally { images: 1, correct: 1, loss: 0.0 };
        let large = Tally { images: 3, correct: 0, loss: 0.0 };
        assert_eq!(Accuracy::of(&[small, large].into_iter().sum()), Some(0.25));
        assert_eq!(Accuracy::of(&Tally::default()), None);
    }
}

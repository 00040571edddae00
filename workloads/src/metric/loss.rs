//! Loss: the mean cross-entropy of the true class.

use super::{Metric, Tally};

/// See the module.
pub struct Loss;

impl Metric for Loss {
    const NAME: &'static str = "loss";
    const UNIT: &'static str = "nats per image";
    const HIGHER_IS_BETTER: bool = false;

    fn of(tally: &Tally) -> Option<f64> {
        (tally.images > 0).then(|| tally.loss / tally.images as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_mean_over_images() {
        let parts = [(1, 4.0), (3, 0.0)].map(|(images, loss)| Tally { images, correct: 0, loss });
        assert_eq!(Loss::of(&parts.into_iter().sum()), Some(1.0));
        assert_eq!(Loss::of(&Tally::default()), None);
    }
}

//! How the learning rate falls over a training. A pure function of how far the training is, so
//! that whoever does a piece of work, and however often, does it at the same rate.

use rkyv::{Archive, Deserialize, Serialize};

/// The shape of the fall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[allow(missing_docs, reason = "rkyv copies variants without their docs")]
pub enum Schedule {
    /// No fall.
    Constant,
    /// Along half a cosine to zero (Loshchilov and Hutter 2017, without restarts).
    Cosine,
    /// Along a straight line to zero.
    Linear,
    /// To a tenth after each third.
    Step,
}

impl Schedule {
    /// Every one, by the name that the TOML uses.
    pub const ALL: [(&'static str, Self); 4] = [
        ("constant", Self::Constant),
        ("cosine", Self::Cosine),
        ("linear", Self::Linear),
        ("step", Self::Step),
    ];

    /// The share of the first rate that is left at `progress`, from 0 (start) to 1 (end).
    fn share(self, progress: f64) -> f64 {
        let progress = progress.clamp(0.0, 1.0);
        match self {
            Self::Constant => 1.0,
            Self::Cosine => f64::midpoint(1.0, (std::f64::consts::PI * progress).cos()),
            Self::Linear => 1.0 - progress,
            Self::Step => [1.0, 0.1, 0.01][((progress * 3.0) as usize).min(2)],
        }
    }
}

/// The learning rate of a whole training.
#[derive(Debug, Clone, Copy, PartialEq, Archive, Serialize, Deserialize)]
#[allow(missing_docs, reason = "rkyv copies fields without their docs")]
pub struct Rates {
    pub schedule: Schedule,
    /// At the start.
    pub first: f64,
    /// Epochs in which it rises from zero.
    pub warmup: f64,
    /// How many epochs the training has.
    pub epochs: u64,
}

impl Rates {
    /// The rate of a step that begins when a share `within` of an epoch, 0 to 1, was shown. Epochs
    /// count from 0.
    pub fn at(&self, epoch: u64, within: f64) -> f64 {
        let done = epoch as f64 + within;
        let rise = if done < self.warmup { done / self.warmup } else { 1.0 };
        self.first * rise * self.schedule.share(done / self.epochs.max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rates(schedule: Schedule) -> Rates {
        Rates { schedule, first: 0.5, warmup: 0.0, epochs: 4 }
    }

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-12, "{found} instead of {expected}");
    }

    #[test]
    fn falls_from_the_first_rate_to_zero() {
        for (name, schedule) in Schedule::ALL {
            let rates = rates(schedule);
            near(rates.at(0, 0.0), 0.5);
            let end = match name {
                "constant" => 0.5,
                "step" => 0.005,
                _ => 0.0,
            };
            near(rates.at(3, 1.0), end);
            near(rates.at(4, 0.0), end);
            // A checkpoint of a longer training: nothing is left to learn.
            near(rates.at(9, 0.5), end);
        }
        near(rates(Schedule::Linear).at(1, 0.5), 0.5 * (1.0 - 1.5 / 4.0));
        near(rates(Schedule::Cosine).at(2, 0.0), 0.25);
        near(rates(Schedule::Cosine).at(1, 0.0), 0.25 * (1.0 + 0.5_f64.sqrt()));
        near(rates(Schedule::Step).at(2, 0.0), 0.05);
    }

    #[test]
    fn warms_up_along_a_line() {
        let rates = Rates { warmup: 1.5, ..rates(Schedule::Constant) };
        near(rates.at(0, 0.0), 0.0);
        near(rates.at(0, 0.75), 0.25);
        near(rates.at(1, 0.5), 0.5);
    }

    #[test]
    fn no_epochs_are_no_division_by_zero() {
        let rates = Rates { epochs: 0, ..rates(Schedule::Linear) };
        assert!(rates.at(0, 0.0).is_finite());
    }

    proptest! {
        #[test]
        fn never_rises_nor_jumps_between_epochs(epoch in 0..4_u64, within in 0.0..1.0_f64) {
            for (name, schedule) in Schedule::ALL {
                let rates = rates(schedule);
                let (now, next) = (rates.at(epoch, within), rates.at(epoch, within + 0.001));
                prop_assert!(next <= now, "{} {}", now, next);
                prop_assert!(name == "step" || now - next < 0.001, "{} {}", now, next);
                near(rates.at(epoch, 1.0), rates.at(epoch + 1, 0.0));
            }
        }
    }
}

//! The outer step: from the parameters that a round started with towards what its results were
//! merged to. Pure; the state is an optimiser's, so that checkpoints carry it.

use super::optimiser::OptimiserState;

/// What takes the step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outer {
    /// Nothing: the merged parameters are taken as they are.
    None,
    /// Momentum over rounds: `FedAvgM` (Hsu, Qi and Brown 2019); with Nesterov's, `DiLoCo`
    /// (Douillard et al. 2023).
    Momentum {
        /// Learning rate.
        rate: f64,
        /// Share of the last step that is kept.
        momentum: f64,
        /// Whether to look ahead.
        nesterov: bool,
    },
    /// `FedAdam` (Reddi et al. 2020).
    Adam {
        /// Learning rate.
        rate: f64,
    },
}

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.99;
/// Adaptivity of the paper's experiments.
const EPSILON: f64 = 1e-3;

impl Outer {
    fn memories(self) -> usize {
        match self {
            Self::None => 0,
            Self::Momentum { .. } => 1,
            Self::Adam { .. } => 2,
        }
    }

    /// Takes the step. The first `trained` values are parameters; running statistics behind them
    /// are taken as merged, as a step beyond them could make a variance negative. A `state` of
    /// another kind or size is begun anew.
    pub fn step(
        self,
        state: Option<OptimiserState>,
        start: &[f32],
        merged: &[f32],
        trained: usize,
    ) -> (Vec<f32>, Option<OptimiserState>) {
        let mut values = merged.to_vec();
        if self == Self::None {
            return (values, None);
        }
        let fits = |state: &OptimiserState| {
            state.memories.len() == self.memories()
                && state.memories.iter().all(|memory| memory.len() == trained)
        };
        let mut state = state.filter(fits).unwrap_or_else(|| OptimiserState {
            steps: 0,
            memories: vec![vec![0.0; trained]; self.memories()],
        });
        state.steps += 1;
        for index in 0..trained {
            let from = f64::from(start[index]);
            let gradient = from - f64::from(merged[index]);
            let step = match (self, &mut state.memories[..]) {
                (Self::Momentum { rate, momentum, nesterov }, [velocity]) => {
                    let moved = momentum * f64::from(velocity[index]) + gradient;
                    velocity[index] = moved as f32;
                    rate * if nesterov { gradient + momentum * moved } else { moved }
                }
                (Self::Adam { rate }, [first, second]) => {
                    let mean = BETA1 * f64::from(first[index]) + (1.0 - BETA1) * gradient;
                    let square =
                        BETA2 * f64::from(second[index]) + (1.0 - BETA2) * gradient * gradient;
                    (first[index], second[index]) = (mean as f32, square as f32);
                    rate * mean / (square.sqrt() + EPSILON)
                }
                _ => 0.0,
            };
            values[index] = (from - step) as f32;
        }
        (values, Some(state))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: Outer = Outer::Momentum { rate: 1.0, momentum: 0.0, nesterov: false };

    proptest! {
        #[test]
        fn a_full_step_without_momentum_is_the_merged_one(
            pairs in prop::collection::vec((-10.0..10.0_f32, -10.0..10.0_f32), 1..20))
        {
            let (start, merged): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let (values, _) = PLAIN.step(None, &start, &merged, start.len());
            for (value, merged) in values.iter().zip(&merged) {
                prop_assert!((value - merged).abs() < 1e-5);
            }
            prop_assert_eq!(Outer::None.step(None, &start, &merged, start.len()).0, merged);
        }

        #[test]
        fn nothing_learnt_is_no_step_and_statistics_are_as_merged(
            start in prop::collection::vec(-10.0..10.0_f32, 2..20))
        {
            for outer in [PLAIN, Outer::Adam { rate: 0.1 }] {
                let mut merged = start.clone();
                let last = merged.len() - 1;
                merged[last] = 99.0;
                prop_assert_eq!(&outer.step(None, &start, &merged, last).0, &merged);
            }
        }
    }

    #[test]
    fn momentum_goes_on_over_rounds_and_nesterov_looks_ahead() {
        let outer = |nesterov| Outer::Momentum { rate: 0.5, momentum: 0.8, nesterov };
        let (first, state) = outer(false).step(None, &[1.0], &[0.0], 1);
        assert_eq!(first, [0.5]);
        // The round learns nothing more, but the step goes on with 0.8 of the last one.
        let (second, _) = outer(false).step(state, &[0.5], &[0.5], 1);
        assert!((second[0] - 0.1).abs() < 1e-6, "{second:?}");
        let (ahead, _) = outer(true).step(None, &[1.0], &[0.0], 1);
        assert!((ahead[0] - 0.1).abs() < 1e-6, "{ahead:?}");
    }

    #[test]
    fn adam_steps_by_its_rate_whatever_the_distance() {
        let outer = Outer::Adam { rate: 0.01 };
        for distance in [1.0_f32, 100.0] {
            let (values, state) = outer.step(None, &[0.0], &[distance], 1);
            assert!((values[0] - 0.01).abs() < 2e-4, "{values:?}");
            assert_eq!(state.unwrap().steps, 1);
        }
    }
}

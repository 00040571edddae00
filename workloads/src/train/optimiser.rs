//! Optimisers over flat runs of parameters. The same gradient gives the same bits on every
//! machine: each element has its own arithmetic, in a fixed order, without fused operations.

use std::ops::Range;

use rkyv::{Archive, Deserialize, Serialize};

/// Which optimiser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[allow(missing_docs, reason = "rkyv copies variants without their docs")]
pub enum Rule {
    /// Gradient descent with momentum 0.9, as in PyTorch's `SGD`.
    Sgd,
    /// Kingma and Ba 2014, with PyTorch's defaults.
    Adam,
}

impl Rule {
    /// Every one, by the name that the TOML uses.
    pub const ALL: [(&'static str, Self); 2] = [("adam", Self::Adam), ("sgd", Self::Sgd)];

    /// How many values are remembered for each parameter.
    fn memories(self) -> usize {
        match self {
            Self::Sgd => 1,
            Self::Adam => 2,
        }
    }
}

const MOMENTUM: f32 = 0.9;
const BETA1: f32 = 0.9;
const BETA2: f32 = 0.999;
const EPSILON: f32 = 1e-8;

/// What an optimiser remembers between steps: enough to go on elsewhere as if nothing happened.
#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
#[allow(missing_docs, reason = "rkyv copies fields without their docs")]
pub struct OptimiserState {
    /// Steps taken.
    pub steps: u64,
    /// Momentum (SGD), or first and second moments (Adam); each as long as the parameters.
    pub memories: Vec<Vec<f32>>,
}

/// An optimiser with its state.
#[derive(Debug, Clone)]
pub struct Optimiser {
    rule: Rule,
    state: OptimiserState,
}

impl Optimiser {
    /// For `len` parameters, with nothing remembered.
    pub fn new(rule: Rule, len: usize) -> Self {
        let memories = vec![vec![0.0; len]; rule.memories()];
        Self { rule, state: OptimiserState { steps: 0, memories } }
    }

    /// What it remembers.
    pub fn state(&self) -> &OptimiserState {
        &self.state
    }

    /// Goes on from a state. `false`, and nothing changed, where the state is of another rule or
    /// another model.
    #[must_use]
    pub fn restore(&mut self, state: OptimiserState) -> bool {
        let own = self.state.memories.iter().map(Vec::len);
        let fits = own.eq(state.memories.iter().map(Vec::len));
        if fits {
            self.state = state;
        }
        fits
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        self.state.steps = 0;
        self.state.memories.iter_mut().for_each(|memory| memory.fill(0.0));
    }

    /// One step with the mean of `gradients`, each as long as `parameters`. The mean is summed in
    /// the order of the slice, so everybody who gets the same order and the same learning `rate`
    /// gets the same bits.
    pub fn step(&mut self, parameters: &mut [f32], gradients: &[&[f32]], rate: f64) {
        // Small enough that gradients are averaged and used without leaving the first cache.
        const BLOCK: usize = 1_024;
        self.state.steps += 1;
        let mut mean = [0.0; BLOCK];
        for start in (0..parameters.len()).step_by(BLOCK) {
            let block = start..parameters.len().min(start + BLOCK);
            let mean = &mut mean[..block.len()];
            super::aggregate::mean_into(mean, gradients, block.clone());
            self.update(&mut parameters[block.clone()], mean, block, rate);
        }
    }

    fn update(&mut self, parameters: &mut [f32], gradient: &[f32], block: Range<usize>, rate: f64) {
        match (self.rule, &mut self.state.memories[..]) {
            (Rule::Sgd, [velocity, ..]) => {
                let rate = rate as f32;
                let velocity = &mut velocity[block];
                for ((value, gradient), velocity) in
                    parameters.iter_mut().zip(gradient).zip(velocity)
                {
                    *velocity = MOMENTUM * *velocity + gradient;
                    *value -= rate * *velocity;
                }
            }
            (Rule::Adam, [first, second, ..]) => {
                let steps = self.state.steps as f64;
                let correct = |beta: f32| 1.0 - f64::from(beta).powf(steps);
                let rate = (rate / correct(BETA1)) as f32;
                let scale = (1.0 / correct(BETA2).sqrt()) as f32;
                let memories = first[block.clone()].iter_mut().zip(&mut second[block]);
                for ((value, gradient), (first, second)) in
                    parameters.iter_mut().zip(gradient).zip(memories)
                {
                    *first = BETA1 * *first + (1.0 - BETA1) * gradient;
                    *second = BETA2 * *second + (1.0 - BETA2) * gradient * gradient;
                    *value -= rate * *first / (second.sqrt() * scale + EPSILON);
                }
            }
            // `new` makes as many memories as the rule has, and `restore` keeps to that.
            (Rule::Sgd | Rule::Adam, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_those_of_libtorch() {
        use tch::nn::{self, OptimizerConfig};

        let len = 2_500;
        let first: Vec<f32> = (0..len).map(|n| (n as f32 * 0.7).cos()).collect();
        let gradients: Vec<Vec<f32>> = (0..5)
            .map(|step| (0..len).map(|n| ((n + 31 * step) as f32).sin() * 0.1).collect())
            .collect();
        for (name, rule) in Rule::ALL {
            let mut variables = nn::VarStore::new(tch::Device::Cpu);
            let value = variables.root().var_copy("value", &tch::Tensor::from_slice(&first));
            let mut theirs = match rule {
                Rule::Sgd => nn::sgd(0.9, 0.0, 0.0, false).build(&variables, 0.01),
                Rule::Adam => nn::Adam::default().build(&variables, 0.01),
            }
            .unwrap();
            let (mut ours, mut values) = (Optimiser::new(rule, len), first.clone());
            for gradient in &gradients {
                theirs.backward_step(&(&value * tch::Tensor::from_slice(gradient)).sum(None));
                ours.step(&mut values, &[gradient], 0.01);
            }
            let expected: Vec<f32> = (&value).try_into().unwrap();
            for (index, (found, expected)) in values.iter().zip(&expected).enumerate() {
                assert!((found - expected).abs() < 1e-6, "{name} {index}: {found} {expected}");
            }
            variables.freeze();
        }
    }

    #[test]
    fn a_state_carried_over_goes_on_bit_for_bit() {
        for (_, rule) in Rule::ALL {
            let gradient: Vec<f32> = (0..3_000).map(|n| (n as f32).sin()).collect();
            let mut whole = Optimiser::new(rule, 3_000);
            let mut values = vec![0.5; 3_000];
            (0..3).for_each(|_| whole.step(&mut values, &[&gradient], 0.01));
            let (mut other, mut carried) = (Optimiser::new(rule, 3_000), values.clone());
            assert!(other.restore(whole.state().clone()));
            whole.step(&mut values, &[&gradient], 0.01);
            other.step(&mut carried, &[&gradient], 0.01);
            assert_eq!(values, carried);
            assert!(!Optimiser::new(rule, 7).restore(whole.state().clone()));
        }
    }
}

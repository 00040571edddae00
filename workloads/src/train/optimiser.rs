//! Optimisers over flat runs of parameters. The same gradient gives the same bits on every
//! machine: each element has its own arithmetic, in a fixed order, without fused operations.

use std::ops::Range;

use rkyv::{Archive, Deserialize, Serialize};

use super::aggregate::mean_into;

/// Which optimiser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[allow(missing_docs, reason = "rkyv copies variants without their docs")]
pub enum Rule {
    /// Gradient descent with momentum, as in PyTorch's `SGD`.
    Sgd,
    /// Kingma and Ba 2014, with PyTorch's defaults.
    Adam,
    /// Adam whose weight decay is no part of the gradient (Loshchilov and Hutter 2019).
    Adamw,
}

impl Rule {
    /// Every one, by the name that the TOML uses.
    pub const ALL: [(&'static str, Self); 3] =
        [("adam", Self::Adam), ("adamw", Self::Adamw), ("sgd", Self::Sgd)];

    /// How many values are remembered for each parameter.
    fn memories(self) -> usize {
        match self {
            Self::Sgd => 1,
            Self::Adam | Self::Adamw => 2,
        }
    }
}

/// An optimiser as the job wants it.
#[derive(Debug, Clone, Copy, PartialEq, Archive, Serialize, Deserialize)]
#[allow(missing_docs, reason = "rkyv copies fields without their docs")]
pub struct OptimiserSpec {
    pub rule: Rule,
    /// Of [`Rule::Sgd`].
    pub momentum: f32,
    /// Weight decay: part of the gradient, or with [`Rule::Adamw`] apart from it.
    pub decay: f32,
    /// Largest norm of a gradient; longer ones are shortened to it.
    pub clip: Option<f64>,
}

impl OptimiserSpec {
    /// How many values it remembers for each parameter.
    pub fn memories(&self) -> usize {
        self.rule.memories()
    }

    /// A rule without decay or clipping.
    pub fn plain(rule: Rule) -> Self {
        Self { rule, momentum: 0.9, decay: 0.0, clip: None }
    }
}

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
    spec: OptimiserSpec,
    state: OptimiserState,
    /// How many of the parameters it trains: the first ones.
    trained: usize,
}

impl Optimiser {
    /// For so many trained parameters, with nothing remembered.
    pub fn new(spec: OptimiserSpec, trained: usize) -> Self {
        let memories = vec![vec![0.0; trained]; spec.rule.memories()];
        Self { spec, state: OptimiserState { steps: 0, memories }, trained }
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

    /// One step with the mean of `gradients`, each as long as `values`. The mean is summed in the
    /// order of the slice, so everybody who gets the same order and the same learning `rate` gets
    /// the same bits. Values behind the trained ones, running statistics, are not gradients in
    /// `gradients` but values: they become their mean.
    pub fn step(&mut self, values: &mut [f32], gradients: &[&[f32]], rate: f64) {
        // Small enough that gradients are averaged and used without leaving the first cache.
        const BLOCK: usize = 1_024;
        self.state.steps += 1;
        let trained = self.trained;
        let blocks =
            (0..trained).step_by(BLOCK).map(move |start| start..trained.min(start + BLOCK));
        let mut mean = [0.0; BLOCK];
        let shorter = self.spec.clip.map_or(1.0, |clip| {
            let mut square = 0.0;
            for block in blocks.clone() {
                let mean = &mut mean[..block.len()];
                mean_into(mean, gradients, block);
                square += mean.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
            }
            // As PyTorch's `clip_grad_norm_`.
            (clip / (square.sqrt() + 1e-6)).min(1.0) as f32
        });
        for block in blocks {
            let mean = &mut mean[..block.len()];
            mean_into(mean, gradients, block.clone());
            if shorter < 1.0 {
                mean.iter_mut().for_each(|value| *value *= shorter);
            }
            self.update(&mut values[block.clone()], mean, block, rate);
        }
        let statistics = trained..values.len();
        mean_into(&mut values[statistics.clone()], gradients, statistics);
    }

    fn update(&mut self, values: &mut [f32], gradient: &mut [f32], block: Range<usize>, rate: f64) {
        let OptimiserSpec { rule, momentum, decay, .. } = self.spec;
        if decay > 0.0 && rule == Rule::Adamw {
            let kept = (1.0 - rate * f64::from(decay)) as f32;
            values.iter_mut().for_each(|value| *value *= kept);
        } else if decay > 0.0 {
            for (gradient, value) in gradient.iter_mut().zip(values.iter()) {
                *gradient += decay * value;
            }
        }
        match (rule, &mut self.state.memories[..]) {
            (Rule::Sgd, [velocity, ..]) => {
                let rate = rate as f32;
                let velocity = &mut velocity[block];
                for ((value, gradient), velocity) in values.iter_mut().zip(gradient).zip(velocity) {
                    *velocity = momentum * *velocity + *gradient;
                    *value -= rate * *velocity;
                }
            }
            (Rule::Adam | Rule::Adamw, [first, second, ..]) => {
                let steps = self.state.steps as f64;
                let correct = |beta: f32| 1.0 - f64::from(beta).powf(steps);
                let rate = (rate / correct(BETA1)) as f32;
                let scale = (1.0 / correct(BETA2).sqrt()) as f32;
                let memories = first[block.clone()].iter_mut().zip(&mut second[block]);
                for ((value, gradient), (first, second)) in
                    values.iter_mut().zip(gradient).zip(memories)
                {
                    *first = BETA1 * *first + (1.0 - BETA1) * *gradient;
                    *second = BETA2 * *second + (1.0 - BETA2) * *gradient * *gradient;
                    *value -= rate * *first / (second.sqrt() * scale + EPSILON);
                }
            }
            // `new` makes as many memories as the rule has, and `restore` keeps to that.
            (Rule::Sgd | Rule::Adam | Rule::Adamw, _) => {}
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
            for (decay, clip) in [(0.0, None), (0.1, None), (0.0, Some(1.5))] {
                let spec = OptimiserSpec { decay, clip, ..OptimiserSpec::plain(rule) };
                let mut variables = nn::VarStore::new(tch::Device::Cpu);
                let value = variables.root().var_copy("value", &tch::Tensor::from_slice(&first));
                let decay = f64::from(decay);
                let mut theirs = match rule {
                    Rule::Sgd => nn::sgd(0.9, 0.0, decay, false).build(&variables, 0.01),
                    Rule::Adam => nn::adam(0.9, 0.999, decay).build(&variables, 0.01),
                    Rule::Adamw => nn::adamw(0.9, 0.999, decay).build(&variables, 0.01),
                }
                .unwrap();
                let (mut ours, mut values) = (Optimiser::new(spec, len), first.clone());
                for gradient in &gradients {
                    let loss = (&value * tch::Tensor::from_slice(gradient)).sum(None);
                    match clip {
                        Some(clip) => theirs.backward_step_clip_norm(&loss, clip),
                        None => theirs.backward_step(&loss),
                    }
                    ours.step(&mut values, &[gradient], 0.01);
                }
                let expected: Vec<f32> = (&value).try_into().unwrap();
                for (index, (found, expected)) in values.iter().zip(&expected).enumerate() {
                    let near = (found - expected).abs() < 2e-6;
                    assert!(near, "{name} {decay} {clip:?} {index}: {found} {expected}");
                }
                variables.freeze();
            }
        }
    }

    #[test]
    fn running_statistics_become_the_mean_of_what_was_sent() {
        let mut optimiser = Optimiser::new(OptimiserSpec::plain(Rule::Adamw), 2);
        let mut values = [1.0, 1.0, 7.0];
        optimiser.step(&mut values, &[&[0.1, 0.0, 3.0], &[0.1, 0.0, 5.0]], 0.01);
        assert!(values[0] < 1.0 && values[1] == 1.0 && values[2] == 4.0, "{values:?}");
    }

    #[test]
    fn a_state_carried_over_goes_on_bit_for_bit() {
        for (_, rule) in Rule::ALL {
            let spec = OptimiserSpec::plain(rule);
            let gradient: Vec<f32> = (0..3_000).map(|n| (n as f32).sin()).collect();
            let mut whole = Optimiser::new(spec, 3_000);
            let mut values = vec![0.5; 3_000];
            (0..3).for_each(|_| whole.step(&mut values, &[&gradient], 0.01));
            let (mut other, mut carried) = (Optimiser::new(spec, 3_000), values.clone());
            assert!(other.restore(whole.state().clone()));
            whole.step(&mut values, &[&gradient], 0.01);
            other.step(&mut carried, &[&gradient], 0.01);
            assert_eq!(values, carried);
            assert!(!Optimiser::new(spec, 7).restore(whole.state().clone()));
        }
    }
}

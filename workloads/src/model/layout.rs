//! The parameters of a model by name, shape and place in one flat run.

use std::ops::Range;

use crate::data::random::Random;

/// What a parameter holds before training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Initial {
    /// Evenly between minus and plus this.
    Even(f64),
    /// This.
    Constant(f32),
}

/// One parameter tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its name in PyTorch's style: `layer.weight`.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its first values.
    pub initial: Initial,
    /// Whether gradients train it; else it is a running statistic, which forward passes update
    /// and strategies average.
    pub trained: bool,
    /// Where it lies in the flat run.
    pub range: Range<usize>,
}

/// The parameters of a model in the model's order. In the flat run, those that are trained come
/// first and running statistics last: optimisers look at the first part alone.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Layout {
    entries: Vec<Entry>,
    trained: usize,
    len: usize,
}

impl Layout {
    /// Of entries whose ranges are not known yet.
    pub(super) fn of(mut entries: Vec<Entry>) -> Self {
        let mut len = 0;
        let mut trained = 0;
        for of_trained in [true, false] {
            for entry in entries.iter_mut().filter(|entry| entry.trained == of_trained) {
                let size: usize = entry.shape.iter().product();
                entry.range = len..len + size;
                len += size;
            }
            if of_trained {
                trained = len;
            }
        }
        Self { entries, trained, len }
    }

    /// The entries, in the model's order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Length of the flat run.
    pub fn len(&self) -> usize {
        self.len
    }

    /// How much of it gradients train.
    pub fn trained(&self) -> usize {
        self.trained
    }

    /// Whether the model has no parameters.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// First values, drawn from a seed.
    pub fn initial(&self, seed: u64) -> Vec<f32> {
        const PURPOSE: u64 = 0x1a17;
        let mut values = vec![0.0; self.len];
        for (index, entry) in self.entries.iter().enumerate() {
            let part = &mut values[entry.range.clone()];
            match entry.initial {
                Initial::Constant(value) => part.fill(value),
                Initial::Even(bound) => {
                    let mut random = Random::new(&[seed, PURPOSE, index as u64]);
                    part.iter_mut().for_each(|value| *value = random.between(-bound, bound) as f32);
                }
            }
        }
        values
    }
}

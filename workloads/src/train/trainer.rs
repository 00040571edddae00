//! The computing half of a replica: a model with parameters, trained and tested on runs of
//! images. It knows nothing of other replicas, actors or objects.

use std::ops::Range;

use rkyv::{Archive, Deserialize, Serialize};
use tch::Tensor;

use super::optimiser::{Optimiser, OptimiserState, Rule};
use super::schedule::Rates;
use crate::data::random::Random;
use crate::data::shard;
use crate::metric::Tally;
use crate::model::{Architecture, Layout, Model};
use crate::tensor::{self, Parameters};

/// Images, wherever they lie.
#[derive(Debug, Clone, Copy)]
pub struct Images<'a> {
    /// `labels.len() x rows x columns` bytes.
    pub pixels: &'a [u8],
    /// Their classes.
    pub labels: &'a [u8],
    /// Height of an image.
    pub rows: u32,
    /// Width of an image.
    pub columns: u32,
}

impl<'a> From<&'a crate::data::ImageSet> for Images<'a> {
    fn from(set: &'a crate::data::ImageSet) -> Self {
        Self { pixels: &set.pixels, labels: &set.labels, rows: set.rows, columns: set.columns }
    }
}

impl<'a> From<&'a crate::data::ArchivedImageSet> for Images<'a> {
    fn from(set: &'a crate::data::ArchivedImageSet) -> Self {
        Self {
            pixels: &set.pixels,
            labels: &set.labels,
            rows: set.rows.to_native(),
            columns: set.columns.to_native(),
        }
    }
}

/// How to train.
#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
#[allow(missing_docs, reason = "rkyv copies fields without their docs")]
pub struct Recipe {
    pub architecture: Architecture,
    pub rows: u32,
    pub columns: u32,
    pub classes: u32,
    pub dropout: f64,
    pub rule: Rule,
    pub rates: Rates,
    pub batch: u32,
    pub seed: u64,
}

impl Recipe {
    /// The model.
    pub fn model(&self) -> Box<dyn Model> {
        self.architecture.build(self.rows, self.columns, self.classes as usize, self.dropout)
    }
}

/// Which images of an order: positions in the order that (seed, order) draws of the images whose
/// index is in `among`.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[allow(missing_docs, reason = "rkyv copies fields without their docs")]
pub struct Work {
    /// Number of the order: the epoch, from 0.
    pub order: u64,
    /// First and past-the-last position.
    pub from: u64,
    pub to: u64,
    /// The order is drawn of images `among.0..among.1` alone.
    pub among: (u64, u64),
}

/// What an order is drawn from: its number, and the images that it is of.
type Key = (u64, (u64, u64));

/// A model under training.
pub struct Trainer {
    recipe: Recipe,
    model: Box<dyn Model>,
    parameters: Parameters,
    optimiser: Optimiser,
    gradient: Vec<f32>,
    /// The order drawn last, with what it was drawn from.
    order: Option<(Key, Vec<u32>)>,
    pixels: Vec<f32>,
}

/// Largest batch that is only looked at.
const LOOK_BATCH: usize = 500;

impl Trainer {
    /// With the first values that the seed draws.
    pub fn new(recipe: Recipe) -> Self {
        let model = recipe.model();
        let layout = model.layout();
        let mut parameters = Parameters::new(layout);
        parameters.values_mut().copy_from_slice(&layout.initial(recipe.seed));
        let optimiser = Optimiser::new(recipe.rule, layout.len());
        let gradient = vec![0.0; layout.len()];
        Self { recipe, model, parameters, optimiser, gradient, order: None, pixels: Vec::new() }
    }

    /// The parameters' names and shapes.
    pub fn layout(&self) -> &Layout {
        self.model.layout()
    }

    /// The parameters.
    pub fn parameters(&self) -> &[f32] {
        self.parameters.values()
    }

    /// The gradient computed last.
    pub fn last_gradient(&self) -> &Vec<f32> {
        &self.gradient
    }

    /// What the optimiser remembers.
    pub fn optimiser_state(&self) -> &OptimiserState {
        self.optimiser.state()
    }

    /// Multiplies the gradient computed last.
    pub fn scale_gradient(&mut self, factor: f32) {
        if factor != 1.0 {
            self.gradient.iter_mut().for_each(|value| *value *= factor);
        }
    }

    /// Takes over parameters. `false`, and nothing changed, where they are of another model.
    #[must_use]
    pub fn set_parameters(&mut self, values: &[f32]) -> bool {
        let own = self.parameters.values_mut();
        let fits = own.len() == values.len();
        if fits {
            own.copy_from_slice(values);
        }
        fits
    }

    /// Takes over what an optimiser remembers; `None`: nothing. `false`, and nothing changed,
    /// where it is of another model or rule.
    #[must_use]
    pub fn set_optimiser(&mut self, state: Option<OptimiserState>) -> bool {
        match state {
            Some(state) => self.optimiser.restore(state),
            None => {
                self.optimiser.reset();
                true
            }
        }
    }

    /// Trains on `work`, batch by batch, as this model's share of the epoch.
    pub fn train(&mut self, images: Images<'_>, work: &Work) -> Tally {
        let mut tally = Tally::default();
        let mut from = work.from;
        while from < work.to {
            let to = work.to.min(from + u64::from(self.recipe.batch));
            tally += self.compute_gradient(images, &Work { from, to, ..work.clone() });
            let rate = self.recipe.rates.at(work.order, from - work.from, work.to - work.from);
            self.optimiser.step(self.parameters.values_mut(), &[&self.gradient], rate);
            from = to;
        }
        tally
    }

    /// The gradient of the mean loss of all of `work`, as one batch.
    pub fn compute_gradient(&mut self, images: Images<'_>, work: &Work) -> Tally {
        if work.from >= work.to {
            self.gradient.fill(0.0);
            return Tally::default();
        }
        let count = work.to - work.from;
        let (input, labels) = self.batch(images, work);
        // Dropout repeats with the work, whoever does it and whatever was done before.
        let key = [self.recipe.seed, work.order, work.among.0, work.from];
        let mut dropout = Random::new(&key);
        let scores = self.model.forward(self.parameters.leaves(), &input, Some(&mut dropout));
        let loss = scores.cross_entropy_for_logits(&labels);
        tensor::gradient(&loss, &self.parameters, &mut self.gradient);
        let correct = tch::no_grad(|| scores.argmax(1, false).eq_tensor(&labels).sum(None));
        Tally {
            images: count,
            correct: correct.int64_value(&[]) as u64,
            loss: loss.double_value(&[]) * count as f64,
        }
    }

    /// The mean of the gradients of all batches of `work`, without steps between them.
    pub fn mean_gradient(&mut self, images: Images<'_>, work: &Work) -> (Vec<f32>, Tally) {
        let (mut mean, mut tally) = (vec![0.0; self.gradient.len()], Tally::default());
        let total = work.to.saturating_sub(work.from).max(1) as f32;
        let mut from = work.from;
        while from < work.to {
            let to = work.to.min(from + u64::from(self.recipe.batch));
            tally += self.compute_gradient(images, &Work { from, to, ..work.clone() });
            let share = (to - from) as f32 / total;
            for (sum, value) in mean.iter_mut().zip(&self.gradient) {
                *sum += share * value;
            }
            from = to;
        }
        (mean, tally)
    }

    /// One optimiser step with the mean of `gradients`, in their order, at a learning `rate`.
    pub fn step(&mut self, gradients: &[&[f32]], rate: f64) {
        self.optimiser.step(self.parameters.values_mut(), gradients, rate);
    }

    /// Shows images `range` and counts.
    pub fn evaluate(&mut self, images: Images<'_>, range: Range<u64>) -> Tally {
        let mut tally = Tally::default();
        self.look(images, range, |scores, labels| {
            let loss = scores.cross_entropy_for_logits(labels).double_value(&[]);
            let correct = scores.argmax(1, false).eq_tensor(labels).sum(None).int64_value(&[]);
            let images = labels.size()[0] as u64;
            tally += Tally { images, correct: correct as u64, loss: loss * images as f64 };
        });
        tally
    }

    /// The classes that the model sees in images `range`.
    pub fn predict(&mut self, images: Images<'_>, range: Range<u64>) -> Vec<u8> {
        let mut classes = Vec::new();
        self.look(images, range, |scores, _| {
            let best = scores.argmax(1, false);
            let before = classes.len();
            classes.resize(before + best.numel(), 0);
            let best = best.to_kind(tch::Kind::Uint8).contiguous();
            best.copy_data(&mut classes[before..], best.numel());
        });
        classes
    }

    fn look(
        &mut self,
        images: Images<'_>,
        range: Range<u64>,
        mut see: impl FnMut(&Tensor, &Tensor),
    ) {
        let indices: Vec<u32> = range.map(|index| index as u32).collect();
        for chunk in indices.chunks(LOOK_BATCH) {
            let (input, labels) = gather(&mut self.pixels, images, chunk);
            let leaves = self.parameters.leaves();
            let scores = tch::no_grad(|| self.model.forward(leaves, &input, None));
            see(&scores, &labels);
        }
    }

    fn batch(&mut self, images: Images<'_>, work: &Work) -> (Tensor, Tensor) {
        let key = (work.order, work.among);
        if self.order.as_ref().is_none_or(|(drawn, _)| *drawn != key) {
            let len = work.among.1.saturating_sub(work.among.0) as usize;
            let seed = Random::new(&[self.recipe.seed, work.among.0]).bits();
            let mut order = shard::order(len, seed, work.order);
            order.iter_mut().for_each(|index| *index += work.among.0 as u32);
            self.order = Some((key, order));
        }
        let order = self.order.as_ref().map_or(&[][..], |(_, order)| order);
        let positions = &order[work.from as usize..work.to as usize];
        gather(&mut self.pixels, images, positions)
    }
}

/// Images by index as a batch (`n x 1 x rows x columns`, 0 to 1) and their labels.
fn gather(scratch: &mut Vec<f32>, images: Images<'_>, indices: &[u32]) -> (Tensor, Tensor) {
    let size = (images.rows * images.columns) as usize;
    scratch.clear();
    scratch.reserve(indices.len() * size);
    for index in indices {
        let start = *index as usize * size;
        let pixels = &images.pixels[start..start + size];
        scratch.extend(pixels.iter().map(|pixel| f32::from(*pixel) * (1.0 / 255.0)));
    }
    let shape = [indices.len() as i64, 1, i64::from(images.rows), i64::from(images.columns)];
    let labels: Vec<i64> =
        indices.iter().map(|index| i64::from(images.labels[*index as usize])).collect();
    (Tensor::from_slice(scratch).view(shape), Tensor::from_slice(&labels))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::synthetic;
    use crate::train::schedule::Schedule;

    fn recipe(architecture: Architecture, dropout: f64) -> Recipe {
        // Tests run beside each other; more threads would spin in each other's way.
        tensor::use_leased_threads();
        Recipe {
            architecture,
            rows: 28,
            columns: 28,
            classes: 10,
            dropout,
            rule: Rule::Adam,
            rates: Rates { schedule: Schedule::Constant, first: 1e-3, epochs: 1 },
            batch: 32,
            seed: 1,
        }
    }

    fn whole(set: &crate::data::ImageSet, order: u64) -> Work {
        let len = set.len() as u64;
        Work { order, from: 0, to: len, among: (0, len) }
    }

    #[test]
    fn learns_drawn_digits_and_repeats_bit_for_bit() {
        let (train, test) = (synthetic::draw(2_000, 1), synthetic::draw(500, 2));
        let run = || {
            let mut trainer = Trainer::new(recipe(Architecture::Convnet, 0.25));
            for epoch in 0..2 {
                trainer.train((&train).into(), &whole(&train, epoch));
            }
            trainer
        };
        let (mut once, again) = (run(), run());
        assert!(once.parameters() == again.parameters());
        let tally = once.evaluate((&test).into(), 0..500);
        assert_eq!(tally.images, 500);
        assert!(tally.correct > 440, "{tally:?}");
        let classes = once.predict((&test).into(), 0..500);
        let right = classes.iter().zip(&test.labels).filter(|(a, b)| a == b).count();
        assert_eq!(right as u64, tally.correct);
    }

    /// The claim of `allreduce`: n replicas with batch b are one with batch n x b. Adam divides a
    /// gradient by its own size, so that through a deep model it also blows up what is nothing but
    /// rounding: there it holds after a step, and no longer after four.
    #[test]
    fn two_halves_of_a_batch_give_the_whole_batchs_step() {
        for (architecture, rule, steps) in [
            (Architecture::Mlp, Rule::Adam, 4),
            (Architecture::DeepMlp, Rule::Sgd, 4),
            (Architecture::DeepMlp, Rule::Adam, 1),
        ] {
            let furthest = halves_from_whole(architecture, rule, steps);
            assert!(furthest < 1e-5, "{architecture:?}, {rule:?}, {steps} steps: {furthest}");
        }
    }

    /// How far apart the furthest parameters are.
    fn halves_from_whole(architecture: Architecture, rule: Rule, steps: usize) -> f32 {
        let train = synthetic::draw(512, 1);
        let work = |from, to| Work { order: 0, from, to, among: (0, 512) };
        let recipe = Recipe { rule, ..recipe(architecture, 0.0) };
        let mut whole = Trainer::new(recipe.clone());
        let mut halves = [(); 2].map(|()| Trainer::new(recipe.clone()));
        for from in (0..512).step_by(128).take(steps) {
            whole.compute_gradient((&train).into(), &work(from, from + 128));
            let gradient = whole.last_gradient().clone();
            whole.step(&[&gradient], 1e-3);
            let gradients: Vec<Vec<f32>> = halves
                .iter_mut()
                .zip([from, from + 64])
                .map(|(half, from)| {
                    half.compute_gradient((&train).into(), &work(from, from + 64));
                    half.last_gradient().clone()
                })
                .collect();
            let gradients: Vec<&[f32]> = gradients.iter().map(|gradient| &gradient[..]).collect();
            halves.iter_mut().for_each(|half| half.step(&gradients, 1e-3));
            assert!(halves[0].parameters() == halves[1].parameters());
        }
        let pairs = whole.parameters().iter().zip(halves[0].parameters());
        pairs.fold(0.0_f32, |furthest, (a, b)| furthest.max((a - b).abs()))
    }

    #[test]
    fn work_on_a_part_shows_only_that_part() {
        let mut trainer = Trainer::new(recipe(Architecture::Mlp, 0.0));
        let mut train = synthetic::draw(200, 1);
        let work = Work { order: 3, from: 0, to: 50, among: (100, 150) };
        train.labels.iter_mut().for_each(|label| *label = 5);
        train.labels[100..150].fill(2);
        let tally = trainer.train((&train).into(), &work);
        assert_eq!(tally.images, 50);
        trainer.train((&train).into(), &Work { order: 4, ..work.clone() });
        for order in 5..20 {
            trainer.train((&train).into(), &Work { order, ..work.clone() });
        }
        // Images outside the part would have taught it label 5.
        assert!(trainer.predict((&train).into(), 0..50).iter().all(|class| *class == 2));
    }
}

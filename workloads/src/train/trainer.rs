//! The computing half of a replica: a model with parameters, trained and tested on runs of
//! images. It knows nothing of other replicas, actors or objects.

use std::ops::Range;
use std::sync::Arc;

use rkyv::{Archive, Deserialize, Serialize};
use tch::{Device, Tensor};

use super::feed::{Batch, Feed, Look, Run};
use super::optimiser::{Optimiser, OptimiserSpec, OptimiserState};
use super::schedule::Rates;
use super::spent::{Laps, Spent};
use crate::data::Images;
use crate::data::augment::{Augment, Normal};
use crate::data::random::Random;
use crate::data::shard::{self, Partition};
use crate::device::Processor;
use crate::metric::{Answers, Tally, scores_of};
use crate::model::{Architecture, Input, Layout, Model};
use crate::tensor::{self, Parameters};

/// How to train.
#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
#[allow(missing_docs, reason = "rkyv copies fields without their docs")]
pub struct Recipe {
    pub architecture: Architecture,
    pub input: Input,
    pub processor: Processor,
    pub normal: Normal,
    pub augment: Augment,
    /// How much an image's loss counts, by class; their mean over the training images is 1.
    pub class_weights: Option<Vec<f32>>,
    pub label_smoothing: f64,
    pub optimiser: OptimiserSpec,
    pub rates: Rates,
    /// Strength of the pull towards the parameters that a round starts with (`FedProx`).
    pub proximal: f64,
    pub batch: u32,
    pub seed: u64,
}

impl Recipe {
    /// The model.
    pub fn model(&self) -> Model {
        self.architecture.build(&self.input)
    }
}

/// Of which images an order is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Archive, Serialize, Deserialize)]
#[allow(missing_docs, reason = "rkyv copies variants without their docs")]
pub enum Among {
    /// All.
    All,
    /// Those of a member of a federation.
    Member(Member),
}

/// A member of a federation: which one, and of which.
#[derive(Debug, Clone, Copy, PartialEq, Archive, Serialize, Deserialize)]
#[allow(missing_docs, reason = "rkyv copies fields without their docs")]
pub struct Member {
    pub index: u32,
    pub partition: Partition,
}

/// Which images of an order: positions in the order that (seed, order) draws.
#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
#[allow(missing_docs, reason = "rkyv copies fields without their docs")]
pub struct Work {
    /// Number of the order: the epoch, from 0.
    pub order: u64,
    /// First and past-the-last position.
    pub from: u64,
    pub to: u64,
    /// First and past-the-last position of what is likely to be the replica's next work in this
    /// order: its images are prepared meanwhile.
    pub next: (u64, u64),
    pub among: Among,
    /// How much of the epoch is over when the work begins and when it ends, 0 to 1.
    pub span: (f64, f64),
}

/// A model under training.
pub struct Trainer {
    recipe: Recipe,
    learner: Learner,
    orders: Orders,
    feed: Feed,
    spent: Spent,
}

/// The part that computes.
struct Learner {
    model: Model,
    device: Device,
    parameters: Parameters,
    optimiser: Optimiser,
    /// Gradients of the trained parameters, then running statistics as they would become.
    gradient: Vec<f32>,
    class_weights: Option<Tensor>,
    label_smoothing: f64,
}

/// Values of images that are only looked at, in one batch.
const LOOK_VALUES: usize = 1 << 20;
/// Most images in it.
const LOOK_BATCH: usize = 500;

impl Trainer {
    /// With the first values that the seed draws.
    ///
    /// # Errors
    /// It is to compute on a GPU, and this process sees none.
    pub fn new(recipe: Recipe) -> Result<Self, String> {
        let device = recipe.processor.device()?;
        let learner = Learner::new(&recipe, device);
        let (orders, feed, spent) = Default::default();
        Ok(Self { recipe, learner, orders, feed, spent })
    }

    /// The parameters' names and shapes.
    pub fn layout(&self) -> &Layout {
        self.learner.model.layout()
    }

    /// The parameters.
    pub fn parameters(&self) -> &[f32] {
        self.learner.parameters.values()
    }

    /// The gradient computed last; behind the trained parameters, running statistics.
    pub fn last_gradient(&self) -> &Vec<f32> {
        &self.learner.gradient
    }

    /// What the optimiser remembers.
    pub fn optimiser_state(&self) -> &OptimiserState {
        self.learner.optimiser.state()
    }

    /// What it has counted and computed so far; the rest of the replica's time is not its matter.
    pub fn spent(&self) -> &Spent {
        &self.spent
    }

    /// Multiplies the gradient computed last.
    pub fn scale_gradient(&mut self, factor: f32) {
        if factor != 1.0 {
            self.learner.gradient.iter_mut().for_each(|value| *value *= factor);
        }
    }

    /// Takes over parameters. `false`, and nothing changed, where they are of another model.
    #[must_use]
    pub fn set_parameters(&mut self, values: &[f32]) -> bool {
        let own = self.learner.parameters.values_mut();
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
            Some(state) => self.learner.optimiser.restore(state),
            None => {
                self.learner.optimiser.reset();
                true
            }
        }
    }

    /// Trains on `work`, batch by batch, and has `told` hear of each.
    pub fn train<I: Images + 'static>(
        &mut self,
        images: &Arc<I>,
        work: &Work,
        mut told: impl FnMut(Tally),
    ) -> Tally {
        let Self { recipe, learner, orders, feed, spent } = self;
        let run = orders.run(&**images, recipe.seed, work, u64::from(recipe.batch));
        let look = recipe.look(work.order);
        let anchor = (recipe.proximal > 0.0).then(|| learner.parameters.values().to_vec());
        let (mut tally, mut from) = (Tally::default(), work.from);
        let mut laps = Laps::start();
        feed.each(images, &look, run, |batch| {
            spent.data += laps.lap();
            let dropout = recipe.dropout(work, from);
            let counted = learner.compute_gradient(batch, recipe.input, dropout);
            if let Some(anchor) = &anchor {
                learner.pull(anchor, recipe.proximal as f32);
            }
            let within = (from - work.from) as f64 / (work.to - work.from).max(1) as f64;
            let within = work.span.0 + (work.span.1 - work.span.0) * within;
            learner.step(recipe.rates.at(work.order, within));
            from += batch.labels.len() as u64;
            tally += counted;
            spent.compute += laps.lap();
            told(counted);
        });
        spent.tally += tally;
        tally
    }

    /// The gradient of the mean loss of all of `work`, as one batch. Parameters stay as they are.
    pub fn compute_gradient<I: Images + 'static>(&mut self, images: &Arc<I>, work: &Work) -> Tally {
        if work.from >= work.to {
            self.learner.gradient.fill(0.0);
            return Tally::default();
        }
        let Self { recipe, learner, orders, feed, spent } = self;
        let run = orders.run(&**images, recipe.seed, work, u64::MAX);
        let (mut tally, before) = (Tally::default(), learner.statistics());
        let mut laps = Laps::start();
        feed.each(images, &recipe.look(work.order), run, |batch| {
            spent.data += laps.lap();
            let dropout = recipe.dropout(work, work.from);
            tally = learner.compute_gradient(batch, recipe.input, dropout);
            spent.compute += laps.lap();
        });
        learner.set_statistics(&before);
        spent.tally += tally;
        tally
    }

    /// The mean of the gradients of all batches of `work`, without steps between them; `told`
    /// hears of each. Parameters stay as they are.
    pub fn mean_gradient<I: Images + 'static>(
        &mut self,
        images: &Arc<I>,
        work: &Work,
        mut told: impl FnMut(Tally),
    ) -> (Vec<f32>, Tally) {
        let Self { recipe, learner, orders, feed, spent } = self;
        let run = orders.run(&**images, recipe.seed, work, u64::from(recipe.batch));
        let (mut mean, mut tally) = (vec![0.0; learner.gradient.len()], Tally::default());
        let (trained, before) = (learner.model.layout().trained(), learner.statistics());
        let total = work.to.saturating_sub(work.from).max(1) as f32;
        let (mut from, mut laps) = (work.from, Laps::start());
        feed.each(images, &recipe.look(work.order), run, |batch| {
            spent.data += laps.lap();
            let count = batch.labels.len();
            let counted = learner.compute_gradient(batch, recipe.input, recipe.dropout(work, from));
            let share = count as f32 / total;
            for (sum, value) in mean[..trained].iter_mut().zip(&learner.gradient) {
                *sum += share * value;
            }
            from += count as u64;
            tally += counted;
            spent.compute += laps.lap();
            told(counted);
        });
        spent.tally += tally;
        // Statistics ran through all batches; what they came to is sent.
        mean[trained..].copy_from_slice(&learner.statistics());
        learner.set_statistics(&before);
        (mean, tally)
    }

    /// One optimiser step with the mean of `gradients`, in their order, at a learning `rate`.
    pub fn step(&mut self, gradients: &[&[f32]], rate: f64) {
        let Learner { optimiser, parameters, .. } = &mut self.learner;
        optimiser.step(parameters.values_mut(), gradients, rate);
    }

    /// What the model says of images `range`.
    pub fn answers(&mut self, images: &dyn Images, range: Range<u64>) -> Answers {
        let Self { recipe, learner, spent, .. } = self;
        let (classes, mut laps) = (recipe.input.classes, Laps::start());
        let look = Look { normal: recipe.normal, augment: None };
        let indices: Vec<u32> = range.map(|index| index as u32).collect();
        let most = (LOOK_VALUES / images.shape().len().max(1)).clamp(8, LOOK_BATCH);
        let (mut answers, mut batch) = (Answers::default(), Batch::default());
        for chunk in indices.chunks(most) {
            batch.fill(images, &look, chunk);
            spent.data += laps.lap();
            let scores = tch::no_grad(|| learner.scores(&batch, recipe.input, None));
            answers.extend(answers_of(&scores, &batch.labels, classes));
            spent.compute += laps.lap();
        }
        answers
    }
}

impl Recipe {
    fn look(&self, epoch: u64) -> Look {
        let augment = (!self.augment.is_none()).then_some((self.augment, self.seed, epoch));
        Look { normal: self.normal, augment }
    }

    /// Dropout repeats with the work, whoever does it and whatever was done before.
    fn dropout(&self, work: &Work, from: u64) -> Random {
        Random::new(&[self.seed, work.order, work.among.key(), from])
    }
}

impl Among {
    fn key(&self) -> u64 {
        match self {
            Self::All => 0,
            Self::Member(member) => 1 + u64::from(member.index),
        }
    }
}

impl Learner {
    fn new(recipe: &Recipe, device: Device) -> Self {
        let model = recipe.model();
        let layout = model.layout();
        let mut parameters = Parameters::on(device, layout);
        parameters.values_mut().copy_from_slice(&layout.initial(recipe.seed));
        let optimiser = Optimiser::new(recipe.optimiser, layout.trained());
        let gradient = vec![0.0; layout.len()];
        let class_weights = recipe.class_weights.as_ref();
        let class_weights = class_weights.map(|each| Tensor::from_slice(each).to_device(device));
        let label_smoothing = recipe.label_smoothing;
        Self { model, device, parameters, optimiser, gradient, class_weights, label_smoothing }
    }

    fn scores(&self, batch: &Batch, input: Input, dropout: Option<&mut Random>) -> Tensor {
        let images = tensor::batch(&batch.values, input.shape).to_device(self.device);
        self.model.forward(self.parameters.leaves(), &images, dropout)
    }

    /// Running statistics in the parameters move on; the gradient carries them too.
    fn compute_gradient(&mut self, batch: &Batch, input: Input, mut dropout: Random) -> Tally {
        let scores = self.scores(batch, input, Some(&mut dropout));
        self.parameters.fetch_statistics();
        let labels = Tensor::from_slice(&batch.labels).to_device(self.device);
        let loss = self.loss(&scores, &labels);
        tensor::gradient(&loss, &self.parameters, &mut self.gradient);
        let trained = self.model.layout().trained();
        self.gradient[trained..].copy_from_slice(&self.parameters.values()[trained..]);
        let correct = tch::no_grad(|| scores.argmax(1, false).eq_tensor(&labels).sum(None));
        let images = batch.labels.len() as u64;
        Tally {
            images,
            correct: correct.int64_value(&[]) as u64,
            loss: loss.double_value(&[]) * images as f64,
        }
    }

    fn loss(&self, scores: &Tensor, labels: &Tensor) -> Tensor {
        let smoothing = self.label_smoothing;
        let Some(weights) = &self.class_weights else {
            let mean = tch::Reduction::Mean;
            return scores.cross_entropy_loss(labels, None::<&Tensor>, mean, -100, smoothing);
        };
        // Not PyTorch's weighted mean, which divides by the batch's weights: replicas' gradients
        // would not add up to the whole batch's.
        let none = tch::Reduction::None;
        let losses = scores.cross_entropy_loss(labels, None::<&Tensor>, none, -100, smoothing);
        (losses * weights.index_select(0, labels)).mean(None)
    }

    /// Adds the pull towards `anchor`.
    fn pull(&mut self, anchor: &[f32], strength: f32) {
        let trained = self.model.layout().trained();
        let values = self.parameters.values()[..trained].iter().zip(anchor);
        for (gradient, (value, anchor)) in self.gradient.iter_mut().zip(values) {
            *gradient += strength * (value - anchor);
        }
    }

    fn step(&mut self, rate: f64) {
        self.optimiser.step(self.parameters.values_mut(), &[&self.gradient], rate);
    }

    fn statistics(&self) -> Vec<f32> {
        self.parameters.values()[self.model.layout().trained()..].to_vec()
    }

    fn set_statistics(&mut self, statistics: &[f32]) {
        let trained = self.model.layout().trained();
        self.parameters.values_mut()[trained..].copy_from_slice(statistics);
    }
}

/// Classes, probabilities and losses of `n x classes` scores.
pub(crate) fn answers_of(scores: &Tensor, labels: &[i64], classes: i64) -> Answers {
    let scores = scores.to_device(Device::Cpu);
    let probabilities = scores.softmax(1, tch::Kind::Float);
    let (certainty, best) = probabilities.max_dim(1, false);
    let known: Vec<bool> = labels.iter().map(|label| (0..classes).contains(label)).collect();
    let mut loss = 0.0;
    if known.contains(&true) {
        let safe: Vec<i64> = labels.iter().map(|label| (*label).clamp(0, classes - 1)).collect();
        let none = tch::Reduction::None;
        let losses =
            scores.cross_entropy_loss(&Tensor::from_slice(&safe), None::<&Tensor>, none, -100, 0.0);
        let losses = values(&losses);
        loss = losses
            .iter()
            .zip(&known)
            .filter(|(_, known)| **known)
            .map(|(loss, _)| f64::from(*loss))
            .sum();
    }
    let mut indices = vec![0_i64; labels.len()];
    best.contiguous().copy_data(&mut indices, labels.len());
    let scores = match scores_of(classes as u32) {
        0 => Vec::new(),
        1 => values(&probabilities.select(1, 1)),
        _ => values(&probabilities),
    };
    Answers {
        classes: indices.into_iter().map(|class| class as u32).collect(),
        certainty: values(&certainty),
        scores,
        loss,
    }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    let mut values = vec![0.0; tensor.numel()];
    let count = values.len();
    tensor.contiguous().copy_data(&mut values, count);
    values
}

/// The orders that images are shown in, as far as they were drawn already.
#[derive(Default)]
struct Orders {
    /// Number and member that `order` was drawn for.
    key: Option<(u64, u64)>,
    order: Vec<u32>,
    members: Option<(Partition, Vec<Vec<u32>>)>,
}

impl Orders {
    /// The images of `work`, so many to a batch, and those of what comes after it.
    fn run(&mut self, images: &dyn Images, seed: u64, work: &Work, batch: u64) -> Run<'_> {
        let key = (work.order, work.among.key());
        if self.key != Some(key) {
            let drawn = Random::new(&[seed, work.among.key()]).bits();
            self.order = match work.among {
                Among::All => shard::order(images.count(), drawn, work.order),
                Among::Member(Member { index, partition }) => {
                    let own = self.member(images, seed, partition, index);
                    let order = shard::order(own.len(), drawn, work.order);
                    order.into_iter().map(|position| own[position as usize]).collect()
                }
            };
            self.key = Some(key);
        }
        let part = |from: u64, to: u64| {
            let [from, to] = [from, to].map(|at| (at as usize).min(self.order.len()));
            self.order.get(from..to).unwrap_or_default()
        };
        let (now, next) = (part(work.from, work.to), part(work.next.0, work.next.1));
        Run { now, next, size: batch as usize }
    }

    fn member(&mut self, images: &dyn Images, seed: u64, of: Partition, index: u32) -> &[u32] {
        if self.members.as_ref().is_none_or(|(drawn, _)| *drawn != of) {
            let labels: Vec<u32> = (0..images.count()).map(|at| images.label(at)).collect();
            self.members = Some((of, shard::partition(&labels, of, seed)));
        }
        let members = self.members.as_ref().map_or(&[][..], |(_, members)| members);
        members.get(index as usize).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests;

//! A replica: an actor in a process of its own that holds a copy of the model, and the data where
//! the object store has it.
//!
//! Calls that start from given parameters depend on nothing that happened before, so any replica
//! can do what another one left undone. Those of `allreduce` go on from the replica's own
//! parameters and say at which version they expect them.

use std::sync::Arc;

use rdist::prelude::*;
use rkyv::rend::f32_le;
use rkyv::vec::ArchivedVec;

use super::optimiser::OptimiserState;
use super::spent::{Laps, Spent};
use super::telling::Telling;
use super::trainer::{Recipe, Trainer, Work};
use crate::data::stored::{Dataset, Stored};
use crate::metric::{Answers, Tally};
use crate::tensor;

/// Values in the object store, and what was counted while they were made.
#[rdist::value]
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "rkyv copies fields without their docs")]
pub struct Product {
    /// Parameters or a gradient.
    pub values: ObjectRef<Vec<f32>>,
    pub tally: Tally,
}

/// An optimiser step of `allreduce`, which all replicas take alike.
#[rdist::value]
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "rkyv copies fields without their docs")]
pub struct Update {
    /// At which version of the parameters.
    pub version: u64,
    /// With the mean of these; none: no step.
    pub gradients: Vec<ObjectRef<Vec<f32>>>,
    /// The learning rate. Computed by the driver: a cosine has other last bits on other machines.
    pub rate: f64,
}

/// All that a replica needs to go on where another one stands.
#[rdist::value]
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "rkyv copies fields without their docs")]
pub struct State {
    /// Optimiser steps that the parameters have seen.
    pub version: u64,
    pub parameters: Vec<f32>,
    /// `None`: nothing yet.
    pub optimiser: Option<OptimiserState>,
}

/// The data of a job, as its replicas see it.
#[rdist::value]
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "rkyv copies fields without their docs")]
pub struct Sets {
    /// To train on.
    pub train: Dataset,
    /// To judge each round by.
    pub watch: Dataset,
}

/// See the module.
pub struct Replica {
    trainer: Trainer,
    train: Arc<Stored>,
    watch: Stored,
    /// Optimiser steps that its parameters have seen; `None`: they are nobody else's yet.
    version: Option<u64>,
    telling: Telling,
    /// Seconds spent on what is shared with others.
    merge: f64,
}

#[rdist::actor]
impl Replica {
    pub(super) fn new(number: u32, recipe: Recipe, sets: Sets) -> Result<Self, String> {
        let telling = Telling::of(number);
        tensor::use_leased_threads();
        let [train, watch] = [&sets.train, &sets.watch].map(|set| set.open().map_err(text));
        let trainer = Trainer::new(recipe)?;
        let (version, merge) = Default::default();
        let train = Arc::new(train?);
        Ok(Self { trainer, train, watch: watch?, version, telling, merge })
    }

    /// Trains on `work`, from `parameters` and a fresh optimiser; the product is parameters.
    pub(super) fn train(
        &mut self,
        cx: &Context,
        parameters: View<Vec<f32>>,
        work: Work,
    ) -> Result<Product, String> {
        self.start_from(&parameters)?;
        if !self.trainer.set_optimiser(None) {
            return Err("the optimiser cannot be reset".to_owned());
        }
        let Self { trainer, train, telling, .. } = self;
        telling.begin();
        let tally = trainer.train(train, &work, |batch| telling.count(cx, work.order, batch));
        let mut laps = Laps::start();
        let values = cx.put(&self.trainer.parameters().to_vec()).map_err(text)?;
        self.merge += laps.lap();
        Ok(Product { values, tally })
    }

    /// The gradient at `parameters`, averaged over the batches of `work`.
    pub(super) fn gradient(
        &mut self,
        cx: &Context,
        parameters: View<Vec<f32>>,
        work: Work,
    ) -> Result<Product, String> {
        self.start_from(&parameters)?;
        let Self { trainer, train, telling, .. } = self;
        telling.begin();
        let told = |batch| telling.count(cx, work.order, batch);
        let (values, tally) = trainer.mean_gradient(train, &work, told);
        let mut laps = Laps::start();
        let values = cx.put(&values).map_err(text)?;
        self.merge += laps.lap();
        Ok(Product { values, tally })
    }

    /// As the master: one optimiser step with the mean of `gradients` at a learning `rate`; the
    /// product is the new parameters.
    pub(super) fn apply(
        &mut self,
        cx: &Context,
        gradients: Vec<ObjectRef<Vec<f32>>>,
        rate: f64,
        tally: Tally,
    ) -> Result<Product, String> {
        self.step_with(&gradients, rate)?;
        let values = cx.put(&self.trainer.parameters().to_vec()).map_err(text)?;
        Ok(Product { values, tally })
    }

    /// One round of `allreduce`: applies the mean of the last gradients, then computes the
    /// gradient of `work` at the new parameters, scaled by `scale`.
    pub(super) fn step(
        &mut self,
        cx: &Context,
        last: Update,
        work: Work,
        scale: f32,
    ) -> Result<Product, String> {
        self.telling.begin();
        self.update(&last)?;
        let tally = self.trainer.compute_gradient(&self.train, &work);
        let mut laps = Laps::start();
        self.trainer.scale_gradient(scale);
        let values = cx.put(self.trainer.last_gradient()).map_err(text)?;
        self.merge += laps.lap();
        self.telling.count(cx, work.order, tally);
        Ok(Product { values, tally })
    }

    /// Ends a run of `step`s: applies the last gradients; returns a digest of the parameters,
    /// which is the same for all replicas or something is broken.
    pub(super) fn settle(&mut self, last: Update) -> Result<u64, String> {
        self.update(&last)?;
        Ok(digest(self.trainer.parameters()))
    }

    /// Where its time went so far.
    pub(super) fn spent(&self) -> Spent {
        Spent { merge: self.merge, alive: self.telling.age(), ..*self.trainer.spent() }
    }

    /// The machine that it is on, and how many CPUs there are for it and its like.
    pub(super) fn machine(&self) -> (String, u64) {
        // Of one boot of one machine; where there is none, all are taken for one machine.
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
        (boot.trim().to_owned(), cpus)
    }

    /// Optimiser steps that its parameters have seen; `None`: it has not been given any.
    pub(super) fn version(&self) -> Option<u64> {
        self.version
    }

    /// All that another replica needs to go on from here.
    pub(super) fn state(&self) -> State {
        State {
            version: self.version.unwrap_or_default(),
            parameters: self.trainer.parameters().to_vec(),
            optimiser: Some(self.trainer.optimiser_state().clone()),
        }
    }

    /// Goes on from another's state.
    pub(super) fn adopt(&mut self, state: State) -> Result<(), String> {
        let fits = self.trainer.set_parameters(&state.parameters)
            && self.trainer.set_optimiser(state.optimiser);
        self.version = fits.then_some(state.version);
        fits.then_some(()).ok_or_else(|| "the state is of another model".to_owned())
    }

    /// What the model with `parameters` says of images `from..to` of those that judge rounds.
    pub(super) fn answers(
        &mut self,
        parameters: View<Vec<f32>>,
        from: u64,
        to: u64,
    ) -> Result<Answers, String> {
        self.start_from(&parameters)?;
        Ok(self.trainer.answers(&self.watch, from..to))
    }
}

impl Replica {
    fn start_from(&mut self, parameters: &ArchivedVec<f32_le>) -> Result<(), String> {
        let mut laps = Laps::start();
        let fits = self.trainer.set_parameters(tensor::floats(parameters));
        self.merge += laps.lap();
        fits.then_some(()).ok_or_else(|| "the parameters are of another model".to_owned())
    }

    fn update(&mut self, update: &Update) -> Result<(), String> {
        let Update { version, gradients, rate } = update;
        if Some(*version) != self.version {
            let own = self.version.map_or_else(|| "no version".to_owned(), |own| own.to_string());
            return Err(format!("this replica stands at {own}, the others at {version}"));
        }
        if !gradients.is_empty() {
            self.step_with(gradients, *rate)?;
            self.version = Some(version + 1);
        }
        Ok(())
    }

    /// All or nothing: where a gradient is lost, no step is taken.
    fn step_with(&mut self, gradients: &[ObjectRef<Vec<f32>>], rate: f64) -> Result<(), String> {
        let mut laps = Laps::start();
        let views: Result<Vec<_>, _> = gradients.iter().map(ObjectRef::read).collect();
        let views = views.map_err(|error| format!("{INPUT_LOST}: {error}"))?;
        let len = self.trainer.layout().len();
        let slices: Vec<&[f32]> = views.iter().map(|view| tensor::floats(view)).collect();
        if slices.iter().any(|gradient| gradient.len() != len) {
            return Err("a gradient is of another model".to_owned());
        }
        self.trainer.step(&slices, rate);
        self.merge += laps.lap();
        Ok(())
    }
}

/// How the error of a call begins whose input was lost with another replica.
pub const INPUT_LOST: &str = "an input is lost";

fn text(error: Error) -> String {
    error.to_string()
}

/// FNV-1a over the values' bits.
fn digest(values: &[f32]) -> u64 {
    values.iter().fold(0xcbf2_9ce4_8422_2325, |hash, value| {
        (hash ^ u64::from(value.to_bits())).wrapping_mul(0x0100_0000_01b3)
    })
}

//! A job from its TOML to its metrics: data, replicas, rounds, checkpoints, the model; or the
//! predictions of a model that was saved.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdist::prelude::*;
use serde_json::{Map, Value, json};

use super::allreduce::Allreduce;
use super::checkpoint::{BEST_FILE, CHECKPOINT_FILE, Identity, MODEL_FILE, Saved, Terms};
use super::compare;
use super::error::JobError;
use super::fedavg::Fedavg;
use super::fleet::{Fleet, Material};
use super::gradient_master::GradientMaster;
use super::page::{Outcome, Subject};
use super::parameter_average::ParameterAverage;
use super::predict;
use super::prepare::{Prepared, prepare};
use super::record::{Record, figures};
use super::resume;
use super::shelf;
use super::speed::Speed;
use super::start::{self, Start};
use super::trainer::Recipe;
use super::upload::{self, Uploaded};
use super::{Course, Scheme, Standing};
use crate::device::Processor;
use crate::metric::roc_auc::ROC_AUC;
use crate::metric::{Answers, MOST_SCORED, Seen, Tally, scores_of};
use crate::model::Input;
use crate::report::rounds::Round;
use crate::spec::{Spec, Strategy};

/// How often a stretch of one step is tried again after losses that its strategy could not make up
/// for; longer ones are tried with half as many steps.
const MAX_TRIES: u32 = 5;

/// Runs a job.
///
/// # Errors
/// What ended it.
pub async fn run(cx: Driver, mut spec: Spec) -> Result<(), JobError> {
    spec.train.device = spec.train.device.settled(&cx).await?;
    if let Some(path) = spec.infer.model.clone() {
        return predict::predict(cx, spec, &path).await;
    }
    upload::probe(&spec.output)?;
    let (jobs, mut table) = (compare::jobs(&spec), compare::Table::default());
    let folders: Vec<&Path> = jobs.iter().map(|job| job.output.folder.as_path()).collect();
    // Once for all models: what replicas see of it stays in the object store.
    let data = Arc::new(prepare(&cx, &spec, &folders)?);
    for job in &jobs {
        let metrics = train(cx.clone(), job.clone(), data.clone()).await?;
        table.add(job, metrics);
    }
    table.tell(&cx, &spec)
}

/// Trains and tests one model; returns the figures.
async fn train(
    cx: Driver,
    spec: Spec,
    data: Arc<Prepared>,
) -> Result<Map<String, Value>, JobError> {
    let strategy = spec.train.strategy;
    let run = Run::start(cx, spec, data).await?;
    match strategy {
        Strategy::ParameterAverage => run.go(|| ParameterAverage { exchange: false }).await,
        Strategy::Diloco => run.go(|| ParameterAverage { exchange: true }).await,
        Strategy::Fedavg | Strategy::Fedprox => run.go(Fedavg::default).await,
        Strategy::GradientMaster => run.go(GradientMaster::default).await,
        Strategy::Allreduce => run.go(Allreduce::default).await,
    }
}

/// How replicas of a job train.
pub(super) fn recipe(spec: &Spec, data: &Prepared) -> Recipe {
    Recipe {
        architecture: spec.model.architecture,
        input: Input {
            shape: data.shape,
            classes: data.classes.len() as i64,
            dropout: spec.model.dropout(),
        },
        processor: spec.train.device.processor(),
        normal: spec.data.normal,
        augment: spec.data.augment,
        class_weights: spec.data.balanced.then(|| data.balance()),
        label_smoothing: spec.train.label_smoothing,
        optimiser: spec.train.optimiser,
        rates: spec.train.rates,
        proximal: spec.train.merging.proximal,
        batch: spec.train.batch,
        seed: spec.train.seed,
    }
}

/// Whether what says which round is best can say anything of so many classes.
fn check_monitor(spec: &Spec, classes: usize) -> Result<(), JobError> {
    let selection = &spec.train.selection;
    if selection.monitor != ROC_AUC || !selection.is_watched() || scores_of(classes as u32) > 0 {
        return Ok(());
    }
    Err(JobError::Unfit(format!(
        "train.monitor = \"roc_auc\" is for 2 to {MOST_SCORED} classes, the data has {classes}; \
         \"macro_f1\" and \"accuracy\" are for any number"
    )))
}

/// A training under way.
struct Run {
    spec: Spec,
    data: Arc<Prepared>,
    identity: Identity,
    /// What a checkpoint says of the training.
    terms: Terms,
    course: Course,
    fleet: Fleet,
    standing: Standing,
    record: Record,
    /// Most images of a stretch after losses; with each stretch that is done, twice as many.
    reach: Option<u64>,
    /// The best value that was watched, and in which round.
    best: Option<(f64, u64)>,
    /// Of the round under way: time in training, and what was counted.
    round: (Duration, Tally),
    /// How often replicas had come or gone when it began.
    began: u64,
    /// The same of all rounds of this run.
    total: (Duration, u64),
    /// What the model said when it was judged last.
    last: Option<Answers>,
    speed: Speed,
}

impl Run {
    async fn start(cx: Driver, spec: Spec, data: Arc<Prepared>) -> Result<Self, JobError> {
        check_monitor(&spec, data.classes.len())?;
        let recipe = recipe(&spec, &data);
        let model = recipe.model();
        let identity = Identity {
            architecture: recipe.architecture,
            input: recipe.input,
            normal: recipe.normal,
            classes: data.classes.clone(),
        };
        let terms = resume::terms(&spec, data.train_labels.len());
        let Start { standing, resumed, best, members } =
            start::start(&cx, &spec, &recipe, &identity, &terms)?;
        let record = Record::open(&spec.output.folder, &spec.name, resumed, standing.epochs)?;
        let material = Material { recipe, sets: data.sets.clone() };
        let fleet = Fleet::assemble(cx, material, spec.train.replicas).await?;
        let course = Course {
            images: data.train_labels.len() as u64,
            labels: data.train_labels.clone(),
            batch: spec.train.batch.into(),
            exchange: spec.train.exchange,
            rates: spec.train.rates,
            merging: spec.train.merging.clone(),
            members: members.or(spec.train.members()).unwrap_or(fleet.len() as u32),
            trained: model.layout().trained(),
            seed: spec.train.seed,
        };
        println!(
            "training {} ({} parameters) on {} images with {}, {} {}replicas, {} epochs",
            spec.model.architecture.name(),
            model.layout().len(),
            data.train_labels.len(),
            spec.train.strategy.name(),
            fleet.len(),
            if spec.train.device.processor() == Processor::Gpu { "GPU " } else { "" },
            spec.train.epochs
        );
        if spec.train.strategy.is_federated() {
            println!("they are divided among {} members", course.members);
        }
        let (round, total, speed) = Default::default();
        let (last, reach, began) = (None, None, fleet.changes());
        Ok(Self {
            spec,
            data,
            identity,
            terms,
            course,
            fleet,
            standing,
            record,
            reach,
            best,
            round,
            began,
            total,
            last,
            speed,
        })
    }

    async fn go<S: Scheme>(
        mut self,
        scheme: impl Fn() -> S,
    ) -> Result<Map<String, Value>, JobError> {
        if self.standing.epochs >= self.spec.train.epochs {
            println!("nothing left to train: the checkpoint has all epochs; testing it");
        }
        if let Some(steps) = self.spec.train.baseline {
            let Self { fleet, course, standing, speed, .. } = &mut self;
            speed.measure_one(fleet, course, standing, &mut scheme(), steps).await?;
        }
        let spent = self.fleet.spent().await;
        self.record.begin(self.fleet.cx(), self.spec.train.epochs, self.course.images, &spent);
        let mut scheme = scheme();
        while self.standing.epochs < self.spec.train.epochs && !self.is_enough() {
            self.fleet.refresh().await?;
            if self.standing.shown == 0 {
                self.began = self.fleet.changes();
            }
            let stretch = self.next_stretch();
            self.stretch(&mut scheme, stretch).await?;
            if self.standing.shown == 0 {
                self.end_round().await?;
            } else {
                self.checkpoint()?;
            }
        }
        self.finish().await
    }

    /// The positions up to the next checkpoint, or to the epoch's end.
    fn next_stretch(&self) -> Range<u64> {
        let (from, images) = (self.standing.shown, self.course.images);
        let steps = self.spec.output.checkpoint_steps;
        let planned = steps.map_or(images, |steps| steps.saturating_mul(self.step()));
        let most = planned.min(self.reach.unwrap_or(images)).max(1);
        from..images.min(from.saturating_add(most))
    }

    /// Images of a step of all replicas.
    fn step(&self) -> u64 {
        self.course.batch.saturating_mul(self.fleet.len() as u64).max(1)
    }

    async fn stretch(
        &mut self,
        scheme: &mut impl Scheme,
        mut positions: Range<u64>,
    ) -> Result<(), JobError> {
        let started = Instant::now();
        let mut tries = 0;
        let progress = loop {
            let Self { fleet, course, standing, .. } = self;
            let tried = scheme.train(fleet, course, standing, positions.clone()).await?;
            if let Some(progress) = tried {
                break progress;
            }
            let (epoch, images) = (self.standing.epochs + 1, positions.end - positions.start);
            let half = (images / 2).next_multiple_of(self.step());
            if half < images {
                positions.end = positions.start + half;
                self.reach = Some(half);
                let from = positions.start;
                println!("epoch {epoch} goes on from image {from}, with {half} images at first");
            } else {
                tries += 1;
                if tries == MAX_TRIES {
                    let last = "not even one step was done before the next loss".to_owned();
                    return Err(JobError::TooManyLosses { losses: tries, last });
                }
                println!("epoch {epoch}: the step from image {} is tried again", positions.start);
            }
            self.fleet.refresh().await?;
        };
        let twice = self.reach.map(|reach| reach.saturating_mul(2));
        self.reach = twice.filter(|reach| *reach < self.course.images);
        self.round.0 += started.elapsed();
        self.round.1 += progress.tally;
        // The driver's own copy: the cluster may lose the workers that made it.
        let parameters = self.fleet.cx().put(&progress.parameters.get()?)?;
        let whole = positions.end >= self.course.images;
        self.standing = Standing {
            epochs: self.standing.epochs + u64::from(whole),
            shown: if whole { 0 } else { positions.end },
            parameters,
            optimiser: progress.optimiser,
        };
        Ok(())
    }

    /// Judges the model, tells of the round, and keeps what is to be kept.
    async fn end_round(&mut self) -> Result<(), JobError> {
        let (time, tally) = std::mem::take(&mut self.round);
        self.total.0 += time;
        self.total.1 += tally.images;
        let parameters = self.standing.parameters.clone();
        let count = self.data.watch_labels.len();
        let answers = predict::answers(&mut self.fleet, &parameters, count).await?;
        let classes = self.data.classes.len() as u32;
        let seen = Seen::new(&answers, &self.data.watch_labels, classes);
        self.last = Some(answers);
        let round = Round {
            round: self.standing.epochs,
            rounds: self.spec.train.epochs,
            replicas: self.fleet.len(),
            seconds: time.as_secs_f64(),
            train: tally,
            split: self.data.split(),
            figures: figures(&seen),
        };
        self.record.round(self.fleet.cx(), &round)?;
        let spent = self.fleet.spent().await;
        self.record.replicas(self.fleet.cx(), &round, &spent);
        self.speed.add(&round, self.fleet.changes() == self.began);
        let monitor = self.spec.train.selection.monitor;
        let value = round.figure(monitor);
        if value.is_none() && self.spec.train.selection.is_watched() {
            println!(
                "{} means nothing on these images: round {} cannot be the best",
                monitor.name, round.round
            );
        }
        if monitor.is_better(value, self.best.map(|(best, _)| best)) {
            self.best = value.map(|value| (value, round.round));
            if self.spec.train.selection.best {
                self.save(&self.spec.output.checkpoints.join(BEST_FILE), false)?;
            }
        }
        let epochs = self.standing.epochs;
        let last = epochs >= self.spec.train.epochs;
        if epochs.is_multiple_of(self.spec.output.checkpoint_every) && !last {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Whether rounds have gone by without a better value, as many as the job has patience for.
    fn is_enough(&self) -> bool {
        let (Some(patience), Some((_, round))) = (self.spec.train.selection.patience, self.best)
        else {
            return false;
        };
        self.standing.epochs >= round + patience
    }

    fn checkpoint(&self) -> Result<(), JobError> {
        self.save(&self.spec.output.checkpoints.join(CHECKPOINT_FILE), true)?;
        if self.standing.shown == 0 {
            let (folder, keep) = (&self.spec.output.checkpoints, self.spec.output.keep);
            shelf::retire(folder, self.standing.epochs, keep)?;
        }
        Ok(())
    }

    fn save(&self, path: &Path, to_go_on: bool) -> Result<(), JobError> {
        let train = &self.spec.train;
        let saved = Saved {
            identity: self.identity.clone(),
            epochs: self.standing.epochs,
            shown: self.standing.shown,
            parameters: self.standing.parameters.get()?,
            optimiser: self.standing.optimiser.clone().filter(|_| to_go_on),
            best: self.best.filter(|_| to_go_on),
            members: train.strategy.is_federated().then_some(self.course.members),
            memory: train.memory().filter(|_| to_go_on).map(str::to_owned),
            terms: self.terms.clone(),
            run: self.spec.run.clone(),
        };
        Ok(saved.write(path)?)
    }

    async fn finish(mut self) -> Result<Map<String, Value>, JobError> {
        if self.is_enough() && self.standing.epochs < self.spec.train.epochs {
            println!(
                "no better value for a while: training ends after {} rounds",
                self.standing.epochs
            );
        }
        // Before the best model takes the last one's place: going on goes on from the last one.
        self.checkpoint()?;
        let mut selected = self.standing.epochs;
        let monitor = self.spec.train.selection.monitor;
        let best = self.best.filter(|_| self.spec.train.selection.best);
        if let Some((value, round)) = best.filter(|(_, round)| *round != self.standing.epochs) {
            let saved = Saved::read(&self.spec.output.checkpoints.join(BEST_FILE))?;
            self.standing.parameters = self.fleet.cx().put(&saved.parameters)?;
            (self.standing.epochs, selected, self.last) = (saved.epochs, round, None);
            println!("round {round} is the best, with {} {value:.4}", monitor.name);
        }
        let path = self.spec.output.folder.join(MODEL_FILE);
        self.save(&path, false)?;
        println!("model saved to {}", path.display());
        let sped = self.speed.tell(&mut self.fleet).await?;
        let watched = self.watched().await?;
        let (seconds, images) = (self.total.0.as_secs_f64(), self.total.1);
        let Self { spec, data, fleet, record, identity, standing, .. } = self;
        let cx = fleet.cx().clone();
        // What follows needs their CPUs.
        fleet.dismiss();
        let fallback = data.fallback();
        let test = predict::Test { spec: &spec, identity: &identity, tests: &data.tests, fallback };
        let (mut metrics, predicted, pipeline) = if data.validates {
            let (metrics, predicted, report) = test.predict(&cx, standing.parameters).await?;
            (metrics, predicted, Some(report))
        } else {
            let (metrics, predicted) = test.tell_watched(&cx, &data.sets.watch, &watched)?;
            (metrics, predicted, None)
        };
        if data.validates {
            let seen = Seen::new(&watched, &data.watch_labels, data.classes.len() as u32);
            metrics.extend(predict::named("val", &seen));
        }
        metrics.insert("train_seconds".to_owned(), json!(seconds));
        metrics.insert("round".to_owned(), json!(selected));
        if images > 0 {
            let rate = images as f64 / seconds.max(1e-9);
            metrics.insert("train_images_per_second".to_owned(), json!(rate));
        }
        metrics.extend(sped);
        if let Some(to) = &spec.output.upload {
            let uploaded = Uploaded { from: path, recipe: recipe(&spec, &data) };
            metrics.extend(uploaded.upload(&cx, to, &data).await?);
        }
        let parameters = identity.architecture.build(&identity.input).layout().len();
        let outcome = Outcome {
            spec: &spec,
            subject: Subject::Training { data: &data, record: &record, parameters },
            source: &data.source,
            classes: &data.classes,
            tests: &data.tests,
            predicted: &predicted,
            pipeline: pipeline.as_ref(),
            metrics: &metrics,
        };
        outcome.tell(&cx)?;
        Ok(metrics)
    }

    /// What the chosen model says of the images that rounds are judged by.
    async fn watched(&mut self) -> Result<Answers, JobError> {
        if let Some(answers) = self.last.take() {
            return Ok(answers);
        }
        let (parameters, count) = (self.standing.parameters.clone(), self.data.watch_labels.len());
        predict::answers(&mut self.fleet, &parameters, count).await
    }
}

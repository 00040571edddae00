//! A job from its TOML to its metrics: data, replicas, epochs, checkpoints, the model; or the
//! predictions of a model that was saved.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rdist::prelude::*;
use serde_json::json;

use super::allreduce::Allreduce;
use super::checkpoint::{self, CHECKPOINT_FILE, MODEL_FILE, Saved};
use super::error::JobError;
use super::fedavg::Fedavg;
use super::fleet::{Fleet, Material};
use super::gradient_master::GradientMaster;
use super::parameter_average::ParameterAverage;
use super::trainer::Recipe;
use super::{Course, Scheme, Standing};
use crate::data::ImageSet;
use crate::data::mnist::{self, Mnist, Places};
use crate::metric::accuracy::Accuracy;
use crate::metric::loss::Loss;
use crate::metric::{Metric, Tally};
use crate::report::digits::{self, Sample};
use crate::spec::{DataSet, Spec, Strategy};

/// How often one epoch is tried again after losses that its strategy could not make up for.
const MAX_TRIES: u32 = 5;
/// Width of the drawn samples, in characters.
const WIDTH: usize = 100;

/// Runs a job.
///
/// # Errors
/// What ended it.
pub async fn run(cx: Driver, spec: Spec) -> Result<(), JobError> {
    let Mnist { train, test, source } = find_data(&spec)?;
    println!("data: {source}");
    match &spec.infer.model {
        Some(path) => predict(cx, &spec, Saved::read(path)?, test).await,
        None => {
            let train = train.portion(spec.data.portion);
            checkpoint::probe(&spec.output.folder)?;
            match spec.train.strategy {
                Strategy::ParameterAverage => {
                    Run::start(cx, spec, train, test).await?.go(ParameterAverage).await
                }
                Strategy::Fedavg => {
                    Run::start(cx, spec, train, test).await?.go(Fedavg::default()).await
                }
                Strategy::GradientMaster => {
                    Run::start(cx, spec, train, test).await?.go(GradientMaster::default()).await
                }
                Strategy::Allreduce => {
                    Run::start(cx, spec, train, test).await?.go(Allreduce::default()).await
                }
            }
        }
    }
}

fn find_data(spec: &Spec) -> Result<Mnist, JobError> {
    let places = Places::of_environment(spec.data.path.clone(), spec.data.download);
    Ok(match spec.data.set {
        DataSet::Mnist => mnist::find(&places)?,
        DataSet::Synthetic => mnist::drawn(&places, Vec::new())?,
    })
}

fn recipe(spec: &Spec, rows: u32, columns: u32) -> Recipe {
    Recipe {
        architecture: spec.model.architecture,
        rows,
        columns,
        classes: mnist::CLASSES as u32,
        dropout: spec.model.dropout,
        rule: spec.train.rule,
        rates: spec.train.rates(),
        batch: spec.train.batch,
        seed: spec.train.seed,
    }
}

/// A training under way.
struct Run {
    spec: Spec,
    recipe: Recipe,
    course: Course,
    fleet: Fleet,
    standing: Standing,
    /// For the samples at the end.
    test: ImageSet,
    /// Time spent in epochs, evaluation apart, and images shown in it.
    trained: (Duration, u64),
    last: Tally,
}

impl Run {
    async fn start(
        cx: Driver,
        spec: Spec,
        train: ImageSet,
        test: ImageSet,
    ) -> Result<Self, JobError> {
        let recipe = recipe(&spec, train.rows, train.columns);
        let standing = first_standing(&cx, &spec, &recipe)?;
        let course = Course {
            images: train.len() as u64,
            batch: spec.train.batch.into(),
            exchange: spec.train.exchange,
            rates: spec.train.rates(),
        };
        let material = Material {
            recipe: recipe.clone(),
            train: cx.put(&train)?,
            test: cx.put(&test)?,
            tests: test.len() as u64,
        };
        let fleet = Fleet::assemble(cx, material, spec.train.replicas).await?;
        println!(
            "training {} on {} images with {}, {} replicas, {} epochs",
            spec.model.architecture.name(),
            train.len(),
            spec.train.strategy.name(),
            fleet.len(),
            spec.train.epochs
        );
        let trained = (Duration::ZERO, 0);
        let last = Tally::default();
        Ok(Self { spec, recipe, course, fleet, standing, test, trained, last })
    }

    async fn go(mut self, mut scheme: impl Scheme) -> Result<(), JobError> {
        if self.standing.epochs >= self.spec.train.epochs {
            println!("nothing left to train: the checkpoint has all epochs; testing it");
            self.last = self.test_now().await?;
        }
        while self.standing.epochs < self.spec.train.epochs {
            self.fleet.refresh().await?;
            self.epoch(&mut scheme).await?;
        }
        self.finish().await
    }

    async fn epoch(&mut self, scheme: &mut impl Scheme) -> Result<(), JobError> {
        let started = Instant::now();
        let mut tries = 0;
        let epoch = loop {
            let tried = scheme.epoch(&mut self.fleet, &self.course, &self.standing).await?;
            if let Some(epoch) = tried {
                break epoch;
            }
            tries += 1;
            if tries == MAX_TRIES {
                let last = "too much of the epoch was lost with them".to_owned();
                return Err(JobError::TooManyLosses { losses: tries, last });
            }
            println!("epoch {} starts again", self.standing.epochs + 1);
            self.fleet.refresh().await?;
        };
        let seconds = started.elapsed();
        self.trained.0 += seconds;
        self.trained.1 += epoch.tally.images;
        // The driver's own copy: the cluster may lose the workers that made it.
        let parameters = self.fleet.cx().put(&epoch.parameters.get()?)?;
        self.standing =
            Standing { epochs: self.standing.epochs + 1, parameters, optimiser: epoch.optimiser };
        self.last = self.test_now().await?;
        self.report(&epoch.tally, seconds);
        let epochs = self.standing.epochs;
        if epochs.is_multiple_of(self.spec.output.checkpoint_every)
            && epochs < self.spec.train.epochs
        {
            self.save(CHECKPOINT_FILE, true)?;
        }
        Ok(())
    }

    async fn test_now(&mut self) -> Result<Tally, JobError> {
        for _ in 0..MAX_TRIES {
            if let Some(tally) = self.fleet.evaluate(&self.standing.parameters).await? {
                return Ok(tally);
            }
        }
        let last = "the parameters could not be read".to_owned();
        Err(JobError::TooManyLosses { losses: MAX_TRIES, last })
    }

    fn report(&self, tally: &Tally, seconds: Duration) {
        let (epoch, epochs) = (self.standing.epochs, self.spec.train.epochs);
        let rate = tally.images as f64 / seconds.as_secs_f64().max(1e-9);
        let accuracy = Accuracy::of(&self.last).unwrap_or_default();
        println!(
            "round {epoch}/{epochs}: loss {:.4}, test accuracy {accuracy:.4}, {rate:.0} images/s, \
             {} replicas",
            Loss::of(tally).unwrap_or_default(),
            self.fleet.len()
        );
        self.fleet.cx().emit(&json!({
            "event": "round",
            "round": epoch,
            "rounds": epochs,
            "replicas": self.fleet.len(),
            "seconds": seconds.as_secs_f64(),
            "images_per_second": rate,
            "train_loss": Loss::of(tally),
            "train_accuracy": Accuracy::of(tally),
            "test_loss": Loss::of(&self.last),
            "test_accuracy": accuracy,
        }));
    }

    fn save(&self, file: &str, with_optimiser: bool) -> Result<PathBuf, JobError> {
        let path = self.spec.output.folder.join(file);
        let saved = Saved {
            architecture: self.recipe.architecture,
            rows: self.recipe.rows,
            columns: self.recipe.columns,
            classes: self.recipe.classes,
            epochs: self.standing.epochs,
            parameters: self.standing.parameters.get()?,
            optimiser: self.standing.optimiser.clone().filter(|_| with_optimiser),
        };
        saved.write(&path)?;
        Ok(path)
    }

    async fn finish(mut self) -> Result<(), JobError> {
        let path = self.save(MODEL_FILE, false)?;
        // Last, so that a driver that dies before can still go on from an older one.
        self.save(CHECKPOINT_FILE, true)?;
        println!("model saved to {}", path.display());
        let shown = u64::from(self.spec.infer.samples).min(self.test.len() as u64);
        let parameters = self.standing.parameters.clone();
        let classes = classes(&mut self.fleet, &parameters, shown).await?;
        show(&self.test, &classes);
        let (seconds, images) = (self.trained.0.as_secs_f64(), self.trained.1);
        let mut metrics = json!({
            "test_accuracy": Accuracy::of(&self.last),
            "test_loss": Loss::of(&self.last),
            "train_seconds": seconds,
        });
        if images > 0 {
            metrics["train_images_per_second"] = json!(images as f64 / seconds.max(1e-9));
        }
        println!("test accuracy {:.4}", Accuracy::of(&self.last).unwrap_or_default());
        self.fleet.cx().emit(&json!({ "event": "metrics", "metrics": metrics }));
        self.fleet.dismiss();
        Ok(())
    }
}

/// Where training starts: at first values, or at the checkpoint, where the TOML says so or where
/// this driver has been running before.
fn first_standing(cx: &Driver, spec: &Spec, recipe: &Recipe) -> Result<Standing, JobError> {
    let path = spec.output.folder.join(CHECKPOINT_FILE);
    let again = cx.attempt() > 0;
    if spec.train.resume || (again && path.exists()) {
        let saved = Saved::read(&path)?;
        if (saved.architecture, saved.rows, saved.columns)
            != (recipe.architecture, recipe.rows, recipe.columns)
        {
            return Err(JobError::Unfit(format!(
                "{} holds a {} for {}x{} images, the job trains a {} for {}x{}",
                path.display(),
                saved.architecture.name(),
                saved.rows,
                saved.columns,
                recipe.architecture.name(),
                recipe.rows,
                recipe.columns
            )));
        }
        let why = if again { "the driver was restarted" } else { "train.resume" };
        println!("{why}: going on from epoch {} of {}", saved.epochs, path.display());
        let parameters = cx.put(&saved.parameters)?;
        return Ok(Standing { epochs: saved.epochs, parameters, optimiser: saved.optimiser });
    }
    if again {
        println!("the driver was restarted before its first checkpoint: starting anew");
    } else if path.exists() {
        // A restarted driver must not take an older job's checkpoint for its own.
        std::fs::remove_file(&path).map_err(|source| {
            JobError::Checkpoint(checkpoint::CheckpointError::Write { path: path.clone(), source })
        })?;
    }
    let parameters = cx.put(&recipe.model().layout().initial(recipe.seed))?;
    Ok(Standing { epochs: 0, parameters, optimiser: None })
}

/// Predicts the whole test set with a saved model, on as many replicas as there are.
async fn predict(cx: Driver, spec: &Spec, saved: Saved, test: ImageSet) -> Result<(), JobError> {
    if (saved.rows, saved.columns) != (test.rows, test.columns) {
        return Err(JobError::Unfit(format!(
            "the model takes images of {}x{} pixels, the test set has {}x{}",
            saved.rows, saved.columns, test.rows, test.columns
        )));
    }
    let mut recipe = recipe(spec, saved.rows, saved.columns);
    recipe.architecture = saved.architecture;
    recipe.classes = saved.classes;
    let images = cx.put(&test)?;
    let tests = test.len() as u64;
    let material = Material { recipe, train: images.clone(), test: images, tests };
    let parameters = cx.put(&saved.parameters)?;
    let mut fleet = Fleet::assemble(cx, material, spec.train.replicas).await?;
    let started = Instant::now();
    let classes = classes(&mut fleet, &parameters, tests).await?;
    let rate = tests as f64 / started.elapsed().as_secs_f64().max(1e-9);
    let right = classes.iter().zip(&test.labels).filter(|(seen, label)| seen == label).count();
    let accuracy = right as f64 / test.len().max(1) as f64;
    show(&test, &classes[..classes.len().min(spec.infer.samples as usize)]);
    println!(
        "test accuracy {accuracy:.4} of the saved {} ({} epochs), {rate:.0} images/s, {} replicas",
        saved.architecture.name(),
        saved.epochs,
        fleet.len()
    );
    let metrics = json!({ "test_accuracy": accuracy, "infer_images_per_second": rate });
    fleet.cx().emit(&json!({ "event": "metrics", "metrics": metrics }));
    fleet.dismiss();
    Ok(())
}

/// The classes of the first `count` test images.
async fn classes(
    fleet: &mut Fleet,
    parameters: &ObjectRef<Vec<f32>>,
    count: u64,
) -> Result<Vec<u8>, JobError> {
    // Several runs for each replica: a slow one gets fewer of them only when others are lost, but
    // a lost one loses less.
    let parts = crate::data::shard::split(0..count, fleet.len() * 4);
    for _ in 0..MAX_TRIES {
        let seen = fleet
            .spread(&parts, |replica, part| {
                replica.predict(parameters, part.start, part.end).submit()
            })
            .await?;
        if let Some(seen) = seen {
            return Ok(seen.concat());
        }
    }
    let last = "the parameters could not be read".to_owned();
    Err(JobError::TooManyLosses { losses: MAX_TRIES, last })
}

/// Draws the first images with what they are taken for.
fn show(test: &ImageSet, classes: &[u8]) {
    if classes.is_empty() {
        return;
    }
    let samples: Vec<Sample<'_>> = classes
        .iter()
        .enumerate()
        .map(|(index, class)| {
            let label = test.labels[index];
            let mark = if *class == label { "" } else { " (wrong)" };
            let caption = format!("predicted {class}, true {label}{mark}");
            Sample { pixels: test.image(index), caption }
        })
        .collect();
    print!("{}", digits::draw(&samples, test.columns as usize, WIDTH));
}

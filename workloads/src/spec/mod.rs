//! A job as its TOML says it, checked before anything runs: every key, type, range and name.

mod document;

use std::path::PathBuf;

pub use document::SpecError;
use document::{Document, Section};

use crate::model::Architecture;
use crate::train::optimiser::Rule;
use crate::train::schedule::{Rates, Schedule};

/// A job.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// What the job is called.
    pub name: String,
    /// What it learns from.
    pub data: DataSpec,
    /// What learns.
    pub model: ModelSpec,
    /// How.
    pub train: TrainSpec,
    /// Where results go.
    pub output: OutputSpec,
    /// What is shown at the end, or done instead of training.
    pub infer: InferSpec,
}

/// `[data]`
#[derive(Debug, Clone, PartialEq)]
pub struct DataSpec {
    /// `set`
    pub set: DataSet,
    /// `path`: the folder with the files; `None`: the places where they usually are.
    pub path: Option<PathBuf>,
    /// `portion`: how much of the training set to use, above 0 and up to 1.
    pub portion: f64,
    /// `download`: whether mirrors may be asked.
    pub download: bool,
}

/// `data.set`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataSet {
    /// Handwritten digits.
    Mnist,
    /// Drawn digits.
    Synthetic,
}

/// `[model]`
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// `name`
    pub architecture: Architecture,
    /// `dropout`: share of activations dropped in training.
    pub dropout: f64,
}

/// `[train]`
#[derive(Debug, Clone, PartialEq)]
pub struct TrainSpec {
    /// `strategy`
    pub strategy: Strategy,
    /// `replicas`; `None` is `"auto"`: one for each CPU of the cluster.
    pub replicas: Option<u32>,
    /// `epochs`: how often every image is shown.
    pub epochs: u64,
    /// `batch`: images per step and replica.
    pub batch: u32,
    /// `learning_rate`: at the start.
    pub learning_rate: f64,
    /// `schedule`: how it falls.
    pub schedule: Schedule,
    /// `optimiser`
    pub rule: Rule,
    /// `seed`: of first values, orders and dropout.
    pub seed: u64,
    /// `exchange`: batches between two exchanges of gradients; `None` is `"epoch"`.
    pub exchange: Option<u32>,
    /// `resume`: go on from the checkpoint in the output folder.
    pub resume: bool,
}

impl TrainSpec {
    /// The learning rate over the epochs.
    pub fn rates(&self) -> Rates {
        Rates { schedule: self.schedule, first: self.learning_rate, epochs: self.epochs }
    }
}

/// `train.strategy`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Replicas train an epoch each on their part; their parameters are averaged.
    ParameterAverage,
    /// Gradients are averaged every step; replicas stay equal.
    Allreduce,
    /// Gradients go to a master replica, which steps.
    GradientMaster,
    /// Each replica keeps its own part of the data; averages weighted by the parts' sizes.
    Fedavg,
}

impl Strategy {
    /// Every one, by the name that the TOML uses.
    pub const ALL: [(&'static str, Self); 4] = [
        ("parameter_average", Self::ParameterAverage),
        ("allreduce", Self::Allreduce),
        ("gradient_master", Self::GradientMaster),
        ("fedavg", Self::Fedavg),
    ];

    /// Its name in the TOML.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, each)| *each == self).map_or("", |(name, _)| name)
    }
}

/// `[output]`
#[derive(Debug, Clone, PartialEq)]
pub struct OutputSpec {
    /// `folder`, seen from where the job was submitted.
    pub folder: PathBuf,
    /// `checkpoint_every`: epochs between two checkpoints.
    pub checkpoint_every: u64,
}

/// `[infer]`
#[derive(Debug, Clone, PartialEq)]
pub struct InferSpec {
    /// `model`: predict with this saved model instead of training one.
    pub model: Option<PathBuf>,
    /// `samples`: how many test images to show with their predicted label.
    pub samples: u32,
}

impl Spec {
    /// Reads `text`, with `overrides` of the form `section.key=value` on top. `file` is only for
    /// messages and for the default name.
    ///
    /// # Errors
    /// The first thing that is wrong: where, what is allowed, and what was probably meant.
    pub fn parse(file: &str, text: &str, overrides: &[String]) -> Result<Self, SpecError> {
        const SECTIONS: [&str; 5] = ["data", "model", "train", "output", "infer"];
        let mut document = Document::parse(file, text)?;
        for each in overrides {
            document.set(each)?;
        }
        let mut root = document.root();
        let stem = std::path::Path::new(file).file_stem().unwrap_or_default().to_string_lossy();
        let name = root.text("name")?.unwrap_or_else(|| stem.into_owned());
        // A misspelt section comes before what is wrong inside the others.
        let [data, model, train, output, infer] = SECTIONS.map(|section| root.section(section));
        root.finish()?;
        Ok(Self {
            name,
            data: data_section(data?)?,
            model: model_section(model?)?,
            train: train_section(train?)?,
            output: output_section(output?)?,
            infer: infer_section(infer?)?,
        })
    }
}

fn data_section(mut section: Section<'_>) -> Result<DataSpec, SpecError> {
    let sets = [("mnist", DataSet::Mnist), ("synthetic", DataSet::Synthetic)];
    let spec = DataSpec {
        set: section.choice("set", &sets)?.unwrap_or(DataSet::Mnist),
        path: section.text("path")?.map(PathBuf::from),
        portion: section
            .number("portion", "above 0, up to 1", |n| n > 0.0 && n <= 1.0)?
            .unwrap_or(1.0),
        download: section.flag("download")?.unwrap_or(true),
    };
    section.finish()?;
    Ok(spec)
}

fn model_section(mut section: Section<'_>) -> Result<ModelSpec, SpecError> {
    let architecture = section.choice("name", &Architecture::ALL)?.unwrap_or(Architecture::Mlp);
    let dropout = section.number("dropout", "from 0, below 1", |n| (0.0..1.0).contains(&n))?;
    section.finish()?;
    Ok(ModelSpec { architecture, dropout: dropout.unwrap_or(architecture.default_dropout()) })
}

fn train_section(mut section: Section<'_>) -> Result<TrainSpec, SpecError> {
    let whole = |n: i64| u32::try_from(n).ok().filter(|n| *n > 0);
    let spec = TrainSpec {
        strategy: section.choice("strategy", &Strategy::ALL)?.unwrap_or(Strategy::ParameterAverage),
        replicas: section.integer_or("replicas", "auto")?.unwrap_or(None),
        epochs: section.integer("epochs", "at least 1", whole)?.unwrap_or(5).into(),
        batch: section.integer("batch", "at least 1", whole)?.unwrap_or(64),
        learning_rate: section
            .number("learning_rate", "above 0, at most 10", |n| n > 0.0 && n <= 10.0)?
            .unwrap_or(1e-3),
        schedule: section.choice("schedule", &Schedule::ALL)?.unwrap_or(Schedule::Cosine),
        rule: section.choice("optimiser", &Rule::ALL)?.unwrap_or(Rule::Adam),
        seed: section.integer("seed", "at least 0", |n| u64::try_from(n).ok())?.unwrap_or(1),
        exchange: section.integer_or("exchange", "epoch")?.unwrap_or(Some(1)),
        resume: section.flag("resume")?.unwrap_or(false),
    };
    section.finish()?;
    Ok(spec)
}

fn output_section(mut section: Section<'_>) -> Result<OutputSpec, SpecError> {
    let every = |n: i64| u32::try_from(n).ok().filter(|n| *n > 0);
    let spec = OutputSpec {
        folder: section.text("folder")?.unwrap_or_else(|| "output".into()).into(),
        checkpoint_every: section
            .integer("checkpoint_every", "at least 1", every)?
            .unwrap_or(1)
            .into(),
    };
    section.finish()?;
    Ok(spec)
}

fn infer_section(mut section: Section<'_>) -> Result<InferSpec, SpecError> {
    let few = |n: i64| u32::try_from(n).ok().filter(|n| *n <= 100);
    let spec = InferSpec {
        model: section.text("model")?.map(PathBuf::from),
        samples: section.integer("samples", "from 0 to 100", few)?.unwrap_or(6),
    };
    section.finish()?;
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, overrides: &[&str]) -> Result<Spec, String> {
        let overrides: Vec<String> = overrides.iter().map(|each| (*each).to_owned()).collect();
        Spec::parse("job.toml", text, &overrides).map_err(|error| error.to_string())
    }

    fn refused(text: &str, overrides: &[&str], pieces: &[&str]) {
        let error = parse(text, overrides).unwrap_err();
        for piece in pieces {
            assert!(error.contains(piece), "`{piece}` is not in: {error}");
        }
    }

    #[test]
    fn nothing_at_all_is_a_job() {
        let spec = parse("", &[]).unwrap();
        assert_eq!(spec.name, "job");
        assert_eq!(spec.train.strategy, Strategy::ParameterAverage);
        assert_eq!((spec.train.replicas, spec.train.exchange), (None, Some(1)));
        assert_eq!(spec.train.schedule, Schedule::Cosine);
    }

    #[test]
    fn overrides_win_over_the_file_and_may_add_to_it() {
        let text = "[train]\nepochs = 3\nreplicas = 2\n";
        let set = [
            "train.epochs=7",
            "train.replicas=auto",
            "model.name=convnet",
            "infer.model=out/model.safetensors",
            "data.portion=1",
            "train.exchange=epoch",
        ];
        let spec = parse(text, &set).unwrap();
        assert_eq!((spec.train.epochs, spec.train.replicas, spec.train.exchange), (7, None, None));
        assert_eq!(spec.model, ModelSpec { architecture: Architecture::Convnet, dropout: 0.25 });
        assert_eq!(spec.infer.model, Some("out/model.safetensors".into()));
        assert_eq!(parse(text, &[]).unwrap().train.replicas, Some(2));
    }

    #[test]
    fn says_line_what_is_allowed_and_the_nearest_name() {
        refused(
            "name = \"x\"\n\n[train]\nepoch = 3\n",
            &[],
            &["job.toml, line 4", "train.epoch", "`epochs`", "learning_rate"],
        );
        refused("[trian]\nepochs = 3", &[], &["line 1", "trian", "did you mean `train`", "output"]);
        refused(
            "[train]\nstrategy = \"all_reduce\"",
            &[],
            &["line 2", "all_reduce", "did you mean `allreduce`", "fedavg"],
        );
        refused("[model]\nname = \"zzz\"", &[], &["line 2", "zzz", "deep_mlp", "convnet"]);
        refused(
            "[train]\nschedule = \"cosinus\"",
            &[],
            &["line 2", "did you mean `cosine`", "constant", "linear"],
        );
        refused("[train]\nepochs = \"three\"", &[], &["line 2", "train.epochs", "integer"]);
        refused("[train]\nepochs = 0", &[], &["line 2", "at least 1", "0"]);
        refused("[data]\nportion = 1.5", &[], &["line 2", "up to 1", "1.5"]);
        refused("train = 3", &[], &["line 1", "[train]"]);
        refused("[train]\nreplicas = \"all\"", &[], &["line 2", "auto", "all"]);
        refused("[train]\nepochs = \n", &[], &["line 2"]);
        refused("[train]\nepochs = 1\nepochs = 2\n", &[], &["line 3"]);
    }

    #[test]
    fn overrides_are_checked_alike() {
        refused("", &["train.epoch=3"], &["--set train.epoch=3", "`epochs`"]);
        refused("", &["train.epochs"], &["--set train.epochs", "section.key=value"]);
        refused("", &["trian.epochs=3"], &["--set trian.epochs=3", "did you mean `train`"]);
        refused("", &["train.epochs=x"], &["--set train.epochs=x", "integer"]);
        refused("", &["train.epochs.x=3"], &["--set", "section.key=value"]);
    }
}

//! A job as its TOML says it, checked before anything runs: every key, type, range and name, and
//! what does not go together.

mod data;
mod document;
mod infer;
mod nearest;
mod reference;
mod train;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use data::{Amount, DataSet, DataSpec, Digits, Shares};
pub use document::SpecError;
use document::{Document, Section};
pub use reference::reference;
pub use train::{Merging, Resume, Selection, Strategy, TrainSpec};

use crate::model::Architecture;
use crate::pipeline::Settings;
use crate::s3::Address;

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
    /// Every key with its value in words, and whether it was given rather than left out.
    pub settings: Vec<(String, String, bool)>,
    /// The submission that it is, unlike all others; `None`: it was not submitted.
    pub run: Option<String>,
}

/// `[model]`
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// `name`
    pub architecture: Architecture,
    /// `dropout`: share of activations dropped in training; `None`: what each model is known with.
    pub dropout: Option<f64>,
    /// `weights`: a state dict to start from.
    pub weights: Option<PathBuf>,
    /// `compare`: models that are trained and tested too, one after the other.
    pub compare: Vec<Architecture>,
}

impl ModelSpec {
    /// The share of activations that training drops.
    pub fn dropout(&self) -> f64 {
        self.dropout.unwrap_or(self.architecture.default_dropout())
    }
}

/// `[output]`
#[derive(Debug, Clone, PartialEq)]
pub struct OutputSpec {
    /// `folder`, seen from where the job was submitted.
    pub folder: PathBuf,
    /// `checkpoints`: the folder of checkpoints, or `s3://bucket/prefix`.
    pub checkpoints: PathBuf,
    /// `upload`: where the model is copied to, `s3://bucket/key`.
    pub upload: Option<PathBuf>,
    /// `checkpoint_every`: epochs between two checkpoints.
    pub checkpoint_every: u64,
    /// `checkpoint_steps`: steps of each replica between two checkpoints within an epoch.
    pub checkpoint_steps: Option<u64>,
    /// `keep`: how many old checkpoints to keep beside the newest one.
    pub keep: u64,
}

/// `[infer]`
#[derive(Debug, Clone, PartialEq)]
pub struct InferSpec {
    /// `model`: predict with this saved model instead of training one.
    pub model: Option<PathBuf>,
    /// `samples`: how many test images to show with their predicted label.
    pub samples: u64,
    /// `batch`, `readers`, `balance`, ...: the pipeline that predicts.
    pub pipeline: Settings,
}

/// Keys of a training that say where and for how long, not what is learnt.
const ELSEWHERE: [&str; 9] = [
    "data.path",
    "data.download",
    "train.replicas",
    "train.device",
    "train.members",
    "train.select",
    "train.patience",
    "train.baseline",
    "train.resume",
];

const SECTIONS: [&str; 6] = ["data", "augment", "model", "train", "output", "infer"];

impl Spec {
    /// Reads `text`, with `overrides` of the form `section.key=value` on top. `file` is only for
    /// messages and for the default name.
    ///
    /// # Errors
    /// The first thing that is wrong: where, what is allowed, and what was probably meant.
    pub fn parse(file: &str, text: &str, overrides: &[String]) -> Result<Self, SpecError> {
        let mut document = Document::parse(file, text)?;
        for each in overrides {
            document.set(each)?;
        }
        let spec = Self::read(file, &document)?;
        // Known only when every key was asked for.
        Ok(Self { settings: document.settings(), ..spec })
    }

    /// What a training depends on beside its data and model: keys with their values in words.
    pub fn terms(&self) -> BTreeMap<String, String> {
        let counts = |key: &str| {
            ["data.", "augment.", "train."].iter().any(|section| key.starts_with(section))
                && !ELSEWHERE.contains(&key)
                || key == "model.dropout"
        };
        let settings = self.settings.iter().filter(|(key, _, _)| counts(key));
        settings.map(|(key, value, _)| (key.clone(), value.clone())).collect()
    }

    fn read(file: &str, document: &Document) -> Result<Self, SpecError> {
        let mut root = document.root();
        let stem = std::path::Path::new(file).file_stem().unwrap_or_default().to_string_lossy();
        let name = root.text("name", "the file's name", NAME)?;
        // A misspelt section comes before what is wrong inside the others.
        let sections = SECTIONS.map(|section| root.section(section));
        root.finish()?;
        let [data, augment, model, train, output, infer] = sections;
        let (data, infer) = (data::read(data?, augment?)?, infer::read(infer?)?);
        let model = model_section(model?, &data, &infer)?;
        let train = train::read(train?)?;
        Ok(Self {
            name: name.unwrap_or_else(|| stem.into_owned()),
            model,
            data,
            output: output_section(output?, &train)?,
            train,
            infer,
            settings: Vec::new(),
            run: None,
        })
    }
}

const NAME: &str = "What the job is called.";

fn model_section(
    mut section: Section<'_>,
    data: &DataSpec,
    infer: &InferSpec,
) -> Result<ModelSpec, SpecError> {
    let architecture = section.choice("name", &Architecture::ALL, Architecture::Mlp, MODEL)?;
    let shown = "what the model is known with";
    let share = |n: f64| (0.0..1.0).contains(&n);
    let dropout = section.number_or("dropout", "from 0, below 1", share, shown, DROPOUT)?;
    let weights = section.named("weights", "none", WEIGHTS, "a state dict's file")?;
    let smallest = architecture.smallest_side();
    if let Some(side) = data.side().filter(|side| *side < smallest) {
        let expected = format!("a model for pictures of {side} pixels, or data.size={smallest}");
        return Err(section.unfit("name", &expected));
    }
    let compare = compared(&mut section, architecture, data)?;
    if !compare.is_empty() && weights.is_some() {
        let expected = "nothing beside model.compare: a state dict fits one model alone";
        return Err(section.unfit("weights", expected));
    }
    if !compare.is_empty() && infer.model.is_some() {
        let expected = "nothing beside infer.model, with which nothing is trained";
        return Err(section.unfit("compare", expected));
    }
    section.finish()?;
    Ok(ModelSpec { architecture, dropout, weights, compare })
}

/// `compare`: other models than `own`, each once.
fn compared(
    section: &mut Section<'_>,
    own: Architecture,
    data: &DataSpec,
) -> Result<Vec<Architecture>, SpecError> {
    let mut compare = Vec::new();
    let names = section.text("compare", "none", COMPARE)?.unwrap_or_default();
    for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let found = Architecture::ALL.iter().find(|(each, _)| *each == name);
        match found {
            Some((_, other)) if *other == own || compare.contains(other) => {
                let expected = format!("{name} once: a model is compared with others");
                return Err(section.unfit("compare", &expected));
            }
            Some((_, other)) if data.side().is_none_or(|side| other.smallest_side() <= side) => {
                compare.push(*other);
            }
            Some((_, other)) => {
                let expected = format!("data.size={} for {name}", other.smallest_side());
                return Err(section.unfit("compare", &expected));
            }
            None => {
                let names: Vec<&str> = Architecture::ALL.iter().map(|(name, _)| *name).collect();
                let expected = format!("names of models, with commas: {}", names.join(", "));
                return Err(section.unfit("compare", &expected));
            }
        }
    }
    Ok(compare)
}

const MODEL: &str = "What learns. The last eight are torchvision's, with its parameter names: \
    `densenet` is densenet121, `inception` inception_v3 (without the auxiliary head), \
    `squeezenet` squeezenet1_0, `vgg` vgg11_bn.";
const DROPOUT: &str = "Share of activations that training drops.";
const COMPARE: &str = "More models, with commas between their names: each is trained and tested \
    after `name`, in a folder of its own below `output.folder` (and below `output.checkpoints` and \
    the folder of `output.upload`), and a table compares them.";
const WEIGHTS: &str = "A state dict to start from: safetensors, what `torch.save` makes of one \
    (`.pt`, `.pth`), or libtorch's `.ot`. A last layer for another number of classes is left out.";

fn output_section(mut section: Section<'_>, train: &TrainSpec) -> Result<OutputSpec, SpecError> {
    let folder = section.named("folder", "`output`", FOLDER, "the name of a folder")?;
    let folder = folder.unwrap_or_else(|| "output".into());
    let expected = "a folder, or s3://BUCKET/PREFIX";
    let checkpoints = section.named("checkpoints", "`folder`", CHECKPOINTS, expected)?;
    let expected = "s3://BUCKET/KEY";
    let upload = section.named("upload", "none", UPLOAD, expected)?;
    let is_remote = |path: &PathBuf| matches!(Address::of(path), Some(Ok(_)));
    if Address::of(&folder).is_some() {
        let expected = "a folder; output.checkpoints and output.upload may be in S3";
        return Err(section.unfit("folder", expected));
    }
    if checkpoints.as_ref().is_some_and(|path| matches!(Address::of(path), Some(Err(_)))) {
        return Err(section.unfit("checkpoints", "a folder, or s3://BUCKET/PREFIX"));
    }
    if upload.as_ref().is_some_and(|path| !is_remote(path) || path.extension().is_none()) {
        let expected = "an object of S3 with its whole name, as s3://BUCKET/model.safetensors";
        return Err(section.unfit("upload", expected));
    }
    let count = 1..=u32::MAX.into();
    let checkpoint_every = section.integer("checkpoint_every", count.clone(), 1, EVERY)?;
    let checkpoint_steps = section.integer_or("checkpoint_steps", "none", count, None, STEPS)?;
    if let Some(expected) = checkpoint_steps.and_then(|steps| uncut(train, steps)) {
        return Err(section.unfit("checkpoint_steps", &expected));
    }
    let spec = OutputSpec {
        checkpoints: checkpoints.unwrap_or_else(|| folder.clone()),
        folder,
        upload,
        checkpoint_every,
        checkpoint_steps,
        keep: section.integer("keep", 0..=1_000, 0, KEEP)?,
    };
    section.finish()?;
    Ok(spec)
}

/// What `checkpoint_steps` should be instead, where a checkpoint after so many steps would be one
/// more exchange of the replicas' results, and so change what is learnt.
fn uncut(train: &TrainSpec, steps: u64) -> Option<String> {
    let exchange = train.exchange.map(u64::from);
    match (train.strategy, exchange) {
        (Strategy::Allreduce, _) => None,
        (Strategy::GradientMaster | Strategy::Diloco, Some(exchange)) => {
            let expected = "a multiple of train.exchange: replicas have nothing in common between";
            (!steps.is_multiple_of(exchange)).then(|| format!("{expected} two exchanges"))
        }
        _ => Some(format!(
            "\"none\": with train.strategy \"{}\" as it is set here replicas exchange results \
             at the end of an epoch; output.checkpoint_every counts those",
            train.strategy.name()
        )),
    }
}

const FOLDER: &str = "Where the model, checkpoints, tables and `metrics/` go, seen from where the \
    job was submitted.";
const CHECKPOINTS: &str = "Where checkpoints go instead: another folder, or `s3://bucket/prefix`.";
const UPLOAD: &str = "Copies the model to `s3://bucket/key` in the end; a task of its own fetches \
    it from there and tests it.";
const EVERY: &str = "Epochs between two checkpoints.";
const STEPS: &str = "Steps of each replica between two checkpoints within an epoch; with \
    `allreduce`, and with `gradient_master` and `diloco` in multiples of `train.exchange`. Other \
    replicas have nothing in common until the epoch's end.";
const KEEP: &str = "How many checkpoints of ended epochs to keep, the newest among them, each by \
    its epoch (`checkpoint-00012.safetensors`); 0: `checkpoint.safetensors`, the newest, alone.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Shape;
    use crate::device::Wish;
    use crate::train::schedule::Schedule;

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
        assert_eq!(spec.train.rates.schedule, Schedule::Cosine);
    }

    #[test]
    fn going_on_may_be_left_to_what_is_there() {
        let resume = |set: &[&str]| parse("", set).unwrap().train.resume;
        assert_eq!(resume(&[]), Resume::Never);
        assert_eq!(resume(&["train.resume=true"]), Resume::Always);
        assert_eq!(resume(&["train.resume=auto"]), Resume::Auto);
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        let whose = ["line 2", "gradient_master"];
        refused("[train]\nexchange = 4", &["train.strategy=fedavg"], &whose);
        for strategy in ["allreduce", "gradient_master"] {
            let set = format!("train.strategy={strategy}");
            refused("[train]\nproximal = 0.1", &[&set], &["line 2", "expected 0"]);
        }
        refused("[data]\ntest = 0.1", &[], &["line 2", "test images of their own"]);
        let both = ["model.compare=resnet18", "infer.model=m", "data.set=folders"];
        refused("", &both, &["model.compare", "nothing beside infer.model"]);
    }

    #[test]
    fn digits_are_made_larger_where_the_job_says_so() {
        let own = Shape { rows: 28, columns: 28, channels: 1 };
        let made = |set: &[&str]| parse("", set).unwrap().data.digits.of(own);
        assert_eq!(made(&[]), own);
        assert_eq!(made(&["data.size=32"]), Shape { rows: 32, columns: 32, channels: 1 });
        assert_eq!(made(&["data.colour=true"]), Shape { channels: 3, ..own });
        refused("", &["data.size=28", "model.name=resnet18"], &["data.size=32"]);
    }

    #[test]
    fn a_checkpoint_within_an_epoch_changes_nothing_or_is_refused() {
        let steps = |strategy: &str, exchange: &str| {
            let (strategy, exchange) =
                (format!("train.strategy={strategy}"), format!("train.exchange={exchange}"));
            parse("", &["output.checkpoint_steps=6", &strategy, &exchange])
        };
        assert_eq!(steps("diloco", "3").unwrap().output.checkpoint_steps, Some(6));
        assert!(steps("gradient_master", "1").is_ok());
        assert!(parse("", &["output.checkpoint_steps=6", "train.strategy=allreduce"]).is_ok());
        assert!(steps("diloco", "4").unwrap_err().contains("a multiple of train.exchange"));
        let instead = "output.checkpoint_every";
        assert!(steps("gradient_master", "epoch").unwrap_err().contains(instead));
        for strategy in ["parameter_average", "fedavg", "fedprox", "diloco"] {
            let set = [&format!("train.strategy={strategy}"), "output.checkpoint_steps=6"];
            refused("", &set, &["--set output.checkpoint_steps=6", "\"none\"", instead]);
        }
    }

    #[test]
    fn a_device_is_a_wish_with_its_place() {
        let device =
            |set: &[&str]| parse("\n[train]\ndevice = \"cuda:0\"", set).unwrap().train.device;
        assert_eq!((device(&[]).wish, device(&[]).place.as_str()), (Wish::Gpu, "job.toml, line 3"));
        assert_eq!(device(&["train.device=cuda"]).place, "--set train.device=cuda");
        assert_eq!(device(&["train.device=cpu"]).wish, Wish::Cpu);
        assert_eq!(parse("", &[]).unwrap().train.device.wish, Wish::Auto);
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
            "train.strategy=diloco",
            "train.exchange=epoch",
        ];
        let spec = parse(text, &set).unwrap();
        assert_eq!((spec.train.epochs, spec.train.replicas, spec.train.exchange), (7, None, None));
        let setting = |key: &str| spec.settings.iter().find(|setting| setting.0 == key).cloned();
        assert_eq!(setting("train.epochs"), Some(("train.epochs".into(), "7".into(), true)));
        assert_eq!(setting("train.batch"), Some(("train.batch".into(), "64".into(), false)));
        assert_eq!(setting("model.name").unwrap().1, "convnet");
        assert_eq!(spec.model.architecture, Architecture::Convnet);
        assert_eq!((spec.model.dropout, spec.model.dropout()), (None, 0.25));
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
        refused("[train]\ndevice = \"gpu\"", &[], &["line 2", "gpu", "\"cuda\""]);
        let which = ["line 2", "cuda:1", "the one GPU", "CUDA_VISIBLE_DEVICES=1"];
        refused("[train]\ndevice = \"cuda:1\"", &[], &which);
        refused("[output]\nfolder = \"\"", &[], &["line 2", "the name of a folder"]);
        refused("[train]\nresume = \"car\"", &[], &["line 2", "car", "\"auto\""]);
        refused("train = 3", &[], &["line 1", "[train]"]);
        refused("[train]\nreplicas = \"all\"", &[], &["line 2", "auto", "all"]);
        refused("[train]\nepochs = \n", &[], &["line 2"]);
        refused("[train]\nepochs = 1\nepochs = 2\n", &[], &["line 3"]);
    }

    #[test]
    fn no_file_is_without_a_name() {
        for (key, expected) in [
            ("data.path", "a folder, or s3://"),
            ("model.weights", "a state dict's file; left out, the key is none"),
            ("output.folder", "the name of a folder; left out, the key is `output`"),
            ("output.checkpoints", "a folder, or s3://BUCKET/PREFIX; left out"),
            ("output.upload", "s3://BUCKET/KEY; left out"),
            ("infer.model", "a saved model or checkpoint (a file, or s3://BUCKET/KEY); left out"),
        ] {
            for nothing in ["", "' '"] {
                let set = format!("{key}={nothing}");
                refused("", &[&set], &[&format!("--set {set}: {key} is the text"), expected]);
            }
        }
        refused("\n[infer]\nmodel = \"\"", &[], &["job.toml, line 3", "infer.model"]);
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

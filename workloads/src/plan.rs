//! What a job would do, told without doing it: data, model, replicas, memory, what travels. What
//! `rdist submit --dry-run` prints.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::data::Shape;
use crate::data::stored::decoding_tasks;
use crate::device::Wish;
use crate::graph::{self, Format};
use crate::model::{Input, Layout, weights};
use crate::spec::{Spec, Strategy};
use crate::train::checkpoint::Saved;
use crate::train::error::JobError;
use crate::train::prepare::{self, Amounts};

/// A job's plan.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The job's name and strategy.
    pub job: (String, &'static str),
    /// What there is to learn from.
    pub data: Amounts,
    /// Of all images.
    pub shape: Shape,
    /// The model's name, trained parameters and running statistics.
    pub model: (&'static str, usize, usize),
    /// The saved model or the weights that it starts from, in words.
    pub from: Option<String>,
    /// The models that it is compared with: names, and trained parameters.
    pub compared: Vec<(&'static str, usize)>,
    /// `None`: as many as the cluster has CPUs.
    pub replicas: Option<u32>,
    /// What a replica computes on.
    pub device: Wish,
    /// Epochs, and images per step and replica.
    pub epochs: (u64, u32),
    /// Bytes that the object store holds of the data.
    pub stored_bytes: u64,
    /// Bytes that one copy of the model takes when it travels.
    pub model_bytes: u64,
    /// Bytes of a replica's own memory for parameters, gradients and the optimiser.
    pub replica_bytes: u64,
    /// Bytes that travel in an epoch for each replica.
    pub traffic_bytes: u64,
    /// The task graph, as Mermaid.
    pub graph: String,
    /// Where results go.
    pub output: String,
}

/// Makes a plan: finds and counts the data, decodes nothing, needs no cluster.
///
/// # Errors
/// What would end the job before it starts.
pub fn plan(spec: &Spec) -> Result<Plan, JobError> {
    let data = prepare::count(spec)?;
    let shape = data.shape;
    let classes = data.classes as i64;
    let input = Input { shape, classes, dropout: spec.model.dropout() };
    let layout = spec.model.architecture.build(&input).layout().clone();
    let from = from(spec, &layout)?;
    let compared = spec.model.compare.iter().map(|other| {
        let dropout = spec.model.dropout.unwrap_or(other.default_dropout());
        (other.name(), other.build(&Input { dropout, ..input }).layout().trained())
    });
    let model_bytes = 4 * layout.len() as u64;
    let memories = spec.train.optimiser.memories() as u64 + 2;
    // Test pictures pass through the pipeline, a queue at a time.
    let passing = spec.data.set.is_pictures() && data.validation > 0;
    let tests = if passing { 0 } else { data.test };
    let images = (data.train + data.validation + tests) as u64;
    let replicas = u64::from(spec.train.replicas.unwrap_or(1));
    let exchanges = exchanges(spec, data.train as u64, replicas);
    let known = graph::Amounts {
        decoding_tasks: Some(decoding_tasks(data.train) + decoding_tasks(watched(&data))),
        validates: data.validation > 0,
    };
    Ok(Plan {
        job: (spec.name.clone(), spec.train.strategy.name()),
        stored_bytes: images * shape.len() as u64,
        shape,
        model: (spec.model.architecture.name(), layout.trained(), layout.len() - layout.trained()),
        from,
        compared: compared.collect(),
        replicas: spec.train.replicas,
        device: spec.train.device.wish,
        epochs: (spec.train.epochs, spec.train.batch),
        model_bytes,
        replica_bytes: model_bytes * memories,
        // There and back.
        traffic_bytes: 2 * model_bytes * exchanges,
        graph: graph::graph(spec, known, Format::Mermaid),
        output: spec.output.folder.display().to_string(),
        data,
    })
}

/// Images that rounds are judged by.
fn watched(data: &Amounts) -> usize {
    if data.validation > 0 { data.validation } else { data.test }
}

/// What the job starts from; read, so that a dry run finds what does not fit.
fn from(spec: &Spec, layout: &Layout) -> Result<Option<String>, JobError> {
    if let Some(path) = &spec.infer.model {
        let Saved { identity, epochs, .. } = Saved::read(path)?;
        let path = path.display();
        return Ok(Some(format!("{path}, {identity} of {epochs} epochs; nothing is trained")));
    }
    let Some(path) = &spec.model.weights else { return Ok(None) };
    let mut values = vec![0.0; layout.len()];
    let loaded = weights::load(path, layout, spec.model.architecture.head(), &mut values)?;
    Ok(Some(format!("weights of {}: {loaded}", path.display())))
}

/// How often parameters or gradients are exchanged in an epoch.
fn exchanges(spec: &Spec, images: u64, replicas: u64) -> u64 {
    let step = (u64::from(spec.train.batch) * replicas).max(1);
    let batches = spec.train.exchange.map(u64::from);
    match spec.train.strategy {
        Strategy::ParameterAverage | Strategy::Fedavg | Strategy::Fedprox => 1,
        Strategy::Allreduce => images.div_ceil(step),
        Strategy::GradientMaster | Strategy::Diloco => {
            batches.map_or(1, |batches| images.div_ceil(step.saturating_mul(batches)))
        }
    }
}

impl Plan {
    /// For people.
    pub fn text(&self) -> String {
        let Self { data, shape, .. } = self;
        let (name, strategy) = &self.job;
        let (model, trained, statistics) = self.model;
        let (epochs, batch) = self.epochs;
        let mut text = format!("plan of {name}: {strategy}, {epochs} epochs; nothing is started\n");
        let mut line = |label: &str, line: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{label:>9}  {line}");
        };
        line("data", data.source.clone());
        line(
            "",
            format!(
                "{} images to train on, {} to validate, {} to test; {} classes",
                data.train, data.validation, data.test, data.classes
            ),
        );
        line("", format!("{shape}, {} in the object store", bytes(self.stored_bytes)));
        if data.skipped > 0 {
            line("", format!("{} listed, but left out; the job names them", data.skipped));
        }
        line(
            "model",
            format!(
                "{model}: {trained} parameters, {statistics} running statistics, {}",
                bytes(self.model_bytes)
            ),
        );
        if let Some(from) = &self.from {
            line("", format!("from {from}"));
        }
        for (model, trained) in &self.compared {
            line("", format!("then {model}: {trained} parameters, in a folder of its own"));
        }
        let (each, with) = match self.device {
            Wish::Cpu => ("CPU", "1 CPU"),
            Wish::Gpu => ("GPU", "1 CPU and 1 GPU"),
            Wish::Auto => ("CPU", "1 CPU, or 1 CPU and 1 GPU where workers have GPUs"),
        };
        let replicas = self.replicas.map_or_else(
            || format!("one for each {each} of the cluster"),
            |replicas| replicas.to_string(),
        );
        line("replicas", format!("{replicas}; each a process of its own with {with}"));
        line(
            "",
            format!(
                "each {} for parameters, gradients and optimiser, beside libtorch and activations",
                bytes(self.replica_bytes)
            ),
        );
        line("steps", format!("of {batch} images a replica"));
        line("traffic", format!("about {} a replica in an epoch", bytes(self.traffic_bytes)));
        line("output", self.output.clone());
        text + "\n" + &self.graph
    }

    /// As one JSON object.
    pub fn json(&self) -> Value {
        let Self { data, shape, .. } = self;
        json!({
            "event": "plan",
            "job": self.job.0,
            "strategy": self.job.1,
            "source": data.source,
            "train_images": data.train,
            "validation_images": data.validation,
            "test_images": data.test,
            "skipped": data.skipped,
            "classes": data.classes,
            "shape": [shape.rows, shape.columns, shape.channels],
            "model": self.model.0,
            "parameters": self.model.1,
            "running_statistics": self.model.2,
            "from": self.from,
            "compared": self.compared.iter().map(|(model, _)| model).collect::<Vec<_>>(),
            "replicas": self.replicas,
            "cpus_per_replica": 1,
            // `null`: the cluster decides, when the job starts.
            "gpus_per_replica": match self.device {
                Wish::Cpu => Some(0),
                Wish::Gpu => Some(1),
                Wish::Auto => None,
            },
            "epochs": self.epochs.0,
            "batch": self.epochs.1,
            "stored_bytes": self.stored_bytes,
            "model_bytes": self.model_bytes,
            "replica_bytes": self.replica_bytes,
            "traffic_bytes_per_epoch": self.traffic_bytes,
            "output": self.output,
            "graph": self.graph,
        })
    }
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} bytes"),
        10_000..10_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_is_too_large_for_the_digits_is_refused_by_name() {
        for model in ["model.name=resnet18", "model.compare=resnet18"] {
            let set = ["data.set=synthetic".to_owned(), model.to_owned()];
            let spec = Spec::parse("job.toml", "", &set).unwrap();
            let error = plan(&spec).unwrap_err().to_string();
            assert!(error.contains("resnet18 takes images of at least 32x32"), "{error}");
            assert!(error.contains("28x28"), "{error}");
        }
    }

    #[test]
    fn counts_pictures_without_decoding_them() {
        let root = tempfile::tempdir().unwrap();
        for class in ["0", "1"] {
            std::fs::create_dir(root.path().join(class)).unwrap();
            for index in 0..10 {
                // Not one of them is a picture: nobody looks.
                std::fs::write(root.path().join(class).join(format!("{index}.png")), "").unwrap();
            }
        }
        let set = [
            "data.set=folders".to_owned(),
            format!("data.path={}", root.path().display()),
            "data.validation=0.2".to_owned(),
            "data.test=0.2".to_owned(),
            "data.size=32".to_owned(),
            "model.name=breast_convnet".to_owned(),
            "train.strategy=allreduce".to_owned(),
            "train.replicas=2".to_owned(),
            "train.batch=4".to_owned(),
        ];
        let spec = Spec::parse("job.toml", "", &set).unwrap();
        let plan = plan(&spec).unwrap();
        assert_eq!((plan.data.train, plan.data.validation, plan.data.test), (12, 4, 4));
        // Those to test on are decoded when the pipeline predicts them.
        assert_eq!(plan.stored_bytes, 16 * 32 * 32 * 3);
        assert_eq!(plan.traffic_bytes, 2 * plan.model_bytes * 2);
        let text = plan.text();
        for piece in [
            "allreduce",
            "12 images to train on",
            "replica 2",
            "32x32 colour",
            "decoding2",
            "read1",
        ] {
            assert!(text.contains(piece), "{piece}: {text}");
        }
        assert_eq!(plan.json()["train_images"], 12);
        assert_eq!(plan.json()["gpus_per_replica"], Value::Null);
        let gpu = [&set[..], &["train.device=cuda".to_owned()]].concat();
        let gpu = super::plan(&Spec::parse("job.toml", "", &gpu).unwrap()).unwrap();
        assert_eq!(gpu.json()["gpus_per_replica"], 1);
        assert!(gpu.text().contains("with 1 CPU and 1 GPU"), "{}", gpu.text());

        // What it is to start from is looked at too.
        for key in ["model.weights", "infer.model"] {
            let missing = root.path().join("nothing.safetensors").display().to_string();
            let set = [&set[..], &[format!("{key}={missing}")]].concat();
            let spec = Spec::parse("job.toml", "", &set).unwrap();
            let error = super::plan(&spec).unwrap_err().to_string();
            assert!(error.contains(&missing), "{key}: {error}");
        }
    }
}

//! A job's task graph, drawn from its TOML without running it: tasks that decode, replicas, rounds,
//! merges, evaluation, the test's pipeline, models that are compared.

use std::fmt::{self, Write};

use crate::pipeline::stage::Stage;
use crate::spec::{Spec, Strategy};

/// Replicas that are drawn where their number is not known before the job runs.
const DRAWN_REPLICAS: u32 = 2;
/// Tasks that are drawn of those that decode.
const DRAWN_TASKS: usize = 2;
/// Rounds that are drawn; more look like these.
const DRAWN_ROUNDS: u64 = 3;

/// In which language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Mermaid, which many Markdown viewers draw.
    Mermaid,
    /// Graphviz.
    Dot,
}

/// A graph of named boxes.
#[derive(Debug, Default)]
struct Graph {
    boxes: Vec<(String, String)>,
    arrows: Vec<(String, String, &'static str)>,
}

impl Graph {
    fn add(&mut self, id: impl Into<String>, label: impl Into<String>) -> String {
        let id = id.into();
        self.boxes.push((id.clone(), label.into()));
        id
    }

    fn arrow(&mut self, from: &str, to: &str, label: &'static str) {
        self.arrows.push((from.to_owned(), to.to_owned(), label));
    }

    fn write(&self, format: Format) -> Result<String, fmt::Error> {
        let mut text = String::new();
        match format {
            Format::Mermaid => {
                writeln!(text, "flowchart TD")?;
                for (id, label) in &self.boxes {
                    writeln!(text, "    {id}[\"{label}\"]")?;
                }
                for (from, to, label) in &self.arrows {
                    let label = if label.is_empty() { String::new() } else { format!("|{label}|") };
                    writeln!(text, "    {from} -->{label} {to}")?;
                }
            }
            Format::Dot => {
                writeln!(text, "digraph job {{")?;
                writeln!(text, "    node [shape=box];")?;
                for (id, label) in &self.boxes {
                    writeln!(text, "    {id} [label=\"{label}\"];")?;
                }
                for (from, to, label) in &self.arrows {
                    writeln!(text, "    {from} -> {to} [label=\"{label}\"];")?;
                }
                writeln!(text, "}}")?;
            }
        }
        Ok(text)
    }
}

/// What a job's data says about its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amounts {
    /// Tasks that decode pictures before the training; `None`: nobody has counted the pictures.
    pub decoding_tasks: Option<usize>,
    /// Whether there are validation images: else rounds are judged by the test images, and the
    /// last one's judgement is the test.
    pub validates: bool,
}

impl Amounts {
    /// Of data that nobody has looked at.
    pub fn unknown(spec: &Spec) -> Self {
        Self { decoding_tasks: None, validates: spec.data.shares.validation > 0.0 }
    }
}

/// The graph of a job.
pub fn graph(spec: &Spec, amounts: Amounts, format: Format) -> String {
    let mut graph = Graph::default();
    let is_pictures = spec.data.set.is_pictures();
    let source = match is_pictures {
        true => "data: find pictures, write tables",
        false => "data: find and put into the object store",
    };
    let source = graph.add("data", source);
    if spec.infer.model.is_some() {
        let model = graph.add("model", "saved model");
        inference(&mut graph, (&source, &model), spec);
    } else {
        let train = match is_pictures {
            true => decoding(&mut graph, &source, amounts.decoding_tasks),
            false => source.clone(),
        };
        let tested = training(&mut graph, (&source, &train), amounts, spec);
        comparison(&mut graph, &train, &tested, spec);
    }
    // Writing to a string cannot fail.
    graph.write(format).unwrap_or_default()
}

/// The tasks that decode pictures once, for all models and replicas; returns where they go.
fn decoding(graph: &mut Graph, source: &str, tasks: Option<usize>) -> String {
    let store = graph.add("store", "pixels to train and to judge by, in the object store");
    let drawn = tasks.unwrap_or(DRAWN_TASKS).min(DRAWN_TASKS);
    for task in 1..=drawn {
        let id = graph.add(format!("decoding{task}"), format!("task: decode and resize, {task}"));
        graph.arrow(source, &id, "files");
        graph.arrow(&id, &store, "pixels");
    }
    let more = match tasks {
        Some(tasks) if tasks == drawn => return store,
        Some(tasks) => format!("{} more tasks like these", tasks - drawn),
        None => "more tasks like these, by the number of pictures".to_owned(),
    };
    let more = graph.add("more_decoding", more);
    graph.arrow(source, &more, "files");
    graph.arrow(&more, &store, "pixels");
    store
}

/// From test images and a model to what is predicted; returns the end.
fn inference(graph: &mut Graph, (source, model): (&str, &str), spec: &Spec) -> String {
    let is_pictures = spec.data.set.is_pictures();
    let stages = Stage::ALL.into_iter().filter(|stage| is_pictures || *stage >= Stage::Normalise);
    let mut before = (source.to_owned(), "test images");
    for stage in stages {
        let product = ["files", "pixels", "batches", "classes"][stage as usize];
        let actors = spec.infer.pipeline.actors[stage as usize];
        let actors = match stage {
            Stage::Predict => actors.or(spec.train.replicas).unwrap_or(DRAWN_REPLICAS),
            _ => actors.unwrap_or(1),
        };
        let mut ids = Vec::new();
        for actor in 1..=actors {
            let label = format!("{} actor {actor}", stage.name());
            let id = graph.add(format!("{}{actor}", stage.name()), label);
            if stage == Stage::Predict {
                graph.arrow(model, &id, "parameters");
            }
            graph.arrow(&before.0, &id, before.1);
            ids.push(id);
        }
        let queue = match stage {
            Stage::Predict => graph.add("collect", "collect: table, figures, samples, report"),
            _ => graph.add(format!("{product}_queue"), format!("queue of {product}")),
        };
        ids.iter().for_each(|id| graph.arrow(id, &queue, product));
        before = (queue, product);
    }
    before.0
}

/// Rounds, the model, its test; returns the end.
fn training(
    graph: &mut Graph,
    (source, train): (&str, &str),
    amounts: Amounts,
    spec: &Spec,
) -> String {
    let replicas = spec.train.replicas.unwrap_or(DRAWN_REPLICAS);
    let mut parameters = graph.add("initial", "initial parameters");
    let rounds = spec.train.epochs.min(DRAWN_ROUNDS);
    let mut judged = parameters.clone();
    for round in 1..=rounds {
        let (work, product, merge) = words(spec.train.strategy);
        let merged = graph.add(format!("merge{round}"), format!("round {round}: {merge}"));
        for replica in 1..=replicas {
            let id = format!("train{round}_{replica}");
            let id = graph.add(id, format!("round {round}, replica {replica}: {work}"));
            if round == 1 {
                graph.arrow(train, &id, "train images");
            }
            graph.arrow(&parameters, &id, "parameters");
            graph.arrow(&id, &merged, product);
        }
        judged = graph.add(
            format!("evaluate{round}"),
            format!("round {round}: evaluate on {replicas} replicas"),
        );
        graph.arrow(&merged, &judged, "parameters");
        parameters = merged;
    }
    if spec.train.epochs > rounds {
        let left = spec.train.epochs - rounds;
        let more = graph.add("more", format!("{left} more rounds like these"));
        graph.arrow(&parameters, &more, "parameters");
        parameters = more;
        judged.clone_from(&parameters);
    }
    let saved = graph.add("save", "save model.safetensors");
    graph.arrow(&parameters, &saved, "parameters");
    if let Some(to) = &spec.output.upload {
        let to = graph.add("upload", format!("upload to {}", to.display()));
        let test = graph.add("test", "task: fetch the model and test it");
        graph.arrow(&saved, &to, "model");
        graph.arrow(&to, &test, "model");
        graph.arrow(source, &test, "test images");
    }
    if amounts.validates {
        return inference(graph, (source, &saved), spec);
    }
    let told = graph.add("collect", "the last evaluation is the test: figures, samples, report");
    graph.arrow(&judged, &told, "classes");
    told
}

/// The other models of a comparison, one after the other, and the table.
fn comparison(graph: &mut Graph, train: &str, tested: &str, spec: &Spec) {
    if spec.model.compare.is_empty() {
        return;
    }
    let table = graph.add("compare", "results.csv: the table of all models");
    graph.arrow(tested, &table, "figures");
    let mut before = tested.to_owned();
    for model in &spec.model.compare {
        let (name, first) = (model.name(), spec.model.architecture.name());
        let label = format!("{name}: rounds, model and test like those of {first}");
        let id = graph.add(format!("model_{name}"), label);
        graph.arrow(&before, &id, "then");
        graph.arrow(train, &id, "train images");
        graph.arrow(&id, &table, "figures");
        before = id;
    }
}

/// What a replica does, what it hands on, and what becomes of it.
fn words(strategy: Strategy) -> (&'static str, &'static str, &'static str) {
    match strategy {
        Strategy::ParameterAverage => ("train its part", "parameters", "merge by average"),
        Strategy::Fedavg | Strategy::Fedprox => {
            ("train its own data", "parameters", "merge by weighted average")
        }
        Strategy::Diloco => ("train its part", "parameters", "merge by average, outer step"),
        Strategy::Allreduce => {
            ("gradient of its share, every step", "gradients", "all-reduce on every replica")
        }
        Strategy::GradientMaster => {
            ("gradient of its chunk", "gradients", "master replica merges and steps")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(overrides: &[&str]) -> Spec {
        let overrides: Vec<String> = overrides.iter().map(|each| (*each).to_owned()).collect();
        Spec::parse("mnist.toml", "", &overrides).unwrap()
    }

    #[test]
    fn names_replicas_rounds_merges_and_evaluation() {
        for (name, _) in Strategy::ALL {
            let spec = spec(&[&format!("train.strategy={name}"), "train.replicas=3"]);
            let text = graph(&spec, Amounts::unknown(&spec), Format::Mermaid);
            for piece in ["flowchart", "round 2, replica 3", "merge3", "evaluate", "2 more rounds"]
            {
                assert!(text.contains(piece), "{name}: {piece}: {text}");
            }
        }
    }

    #[test]
    fn decoding_the_tests_pipeline_and_compared_models_are_drawn() {
        let set = ["data.set=herbarium", "data.validation=0.1", "model.name=resnet18"];
        let spec = spec(&[&set[..], &["model.compare=vgg,alexnet", "infer.decoders=3"]].concat());
        let known = Amounts { decoding_tasks: Some(9), validates: true };
        let text = graph(&spec, known, Format::Mermaid);
        for piece in [
            "data -->|files| decoding2",
            "decoding2 -->|pixels| store",
            "7 more tasks like these",
            "store -->|train images| train1_1",
            "data -->|test images| read1",
            "decode3[",
            "save -->|parameters| predict1",
            "collect -->|then| model_vgg",
            "model_vgg -->|then| model_alexnet",
            "alexnet: rounds, model and test like those of resnet18",
            "model_alexnet -->|figures| compare",
        ] {
            assert!(text.contains(piece), "{piece}: {text}");
        }
        let judged = Amounts { decoding_tasks: Some(2), validates: false };
        let text = graph(&spec, judged, Format::Mermaid);
        assert!(text.contains("more -->|classes| collect"), "{text}");
        assert!(!text.contains("read1") && !text.contains("more tasks"), "{text}");
        let unknown = graph(&spec, Amounts::unknown(&spec), Format::Mermaid);
        assert!(unknown.contains("by the number of pictures"), "{unknown}");
    }

    #[test]
    fn every_arrow_joins_boxes_that_are_there() {
        let upload = "output.upload=s3://models/model.safetensors";
        let pictures = ["data.set=folders", "model.name=vgg", "model.compare=alexnet"];
        let pictures = [&pictures[..], &["data.validation=0.2"]].concat();
        for overrides in
            [&["train.epochs=1", upload][..], &["infer.model=x"][..], &[][..], &pictures[..]]
        {
            let spec = spec(overrides);
            let text = graph(&spec, Amounts::unknown(&spec), Format::Dot);
            assert!(text.starts_with("digraph job {\n") && text.ends_with("}\n"));
            let boxes: Vec<&str> = text
                .lines()
                .filter(|line| line.contains("[label") && !line.contains("->"))
                .filter_map(|line| line.split_whitespace().next())
                .collect();
            let mut arrows = 0;
            for line in text.lines().filter(|line| line.contains("->")) {
                let words: Vec<&str> = line.split_whitespace().collect();
                assert!(boxes.contains(&words[0]) && boxes.contains(&words[2]), "{line}");
                arrows += 1;
            }
            assert!(arrows >= 3);
        }
    }
}

//! A job's task graph, drawn from its TOML without running it: replicas, rounds, merges,
//! evaluation.

use std::fmt::{self, Write};

use crate::pipeline::stage::Stage;
use crate::spec::{Spec, Strategy};

/// Replicas that are drawn where their number is not known before the job runs.
const DRAWN_REPLICAS: u32 = 2;
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

/// The graph of a job.
pub fn graph(spec: &Spec, format: Format) -> String {
    let mut graph = Graph::default();
    let replicas = spec.train.replicas.unwrap_or(DRAWN_REPLICAS);
    let source = graph.add("data", "data: find and put into the object store");
    match &spec.infer.model {
        Some(_) => inference(&mut graph, &source, spec),
        None => training(&mut graph, &source, replicas, spec),
    }
    // Writing to a string cannot fail.
    graph.write(format).unwrap_or_default()
}

fn inference(graph: &mut Graph, source: &str, spec: &Spec) {
    let model = graph.add("model", "saved model");
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
                graph.arrow(&model, &id, "parameters");
            }
            graph.arrow(&before.0, &id, before.1);
            ids.push(id);
        }
        let queue = match stage {
            Stage::Predict => graph.add("collect", "collect: table, figures, samples"),
            _ => graph.add(format!("{product}_queue"), format!("queue of {product}")),
        };
        ids.iter().for_each(|id| graph.arrow(id, &queue, product));
        before = (queue, product);
    }
}

fn training(graph: &mut Graph, source: &str, replicas: u32, spec: &Spec) {
    let mut parameters = graph.add("initial", "initial parameters");
    let rounds = spec.train.epochs.min(DRAWN_ROUNDS);
    for round in 1..=rounds {
        let (work, product, merge) = words(spec.train.strategy);
        let merged = graph.add(format!("merge{round}"), format!("round {round}: {merge}"));
        for replica in 1..=replicas {
            let id = format!("train{round}_{replica}");
            let id = graph.add(id, format!("round {round}, replica {replica}: {work}"));
            if round == 1 {
                graph.arrow(source, &id, "train images");
            }
            graph.arrow(&parameters, &id, "parameters");
            graph.arrow(&id, &merged, product);
        }
        let evaluated = graph.add(
            format!("evaluate{round}"),
            format!("round {round}: evaluate on {replicas} replicas"),
        );
        graph.arrow(&merged, &evaluated, "parameters");
        parameters = merged;
    }
    if spec.train.epochs > rounds {
        let left = spec.train.epochs - rounds;
        let more = graph.add("more", format!("{left} more rounds like these"));
        graph.arrow(&parameters, &more, "parameters");
        parameters = more;
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
            let text = graph(&spec, Format::Mermaid);
            for piece in ["flowchart", "round 2, replica 3", "merge3", "evaluate", "2 more rounds"]
            {
                assert!(text.contains(piece), "{name}: {piece}: {text}");
            }
        }
    }

    #[test]
    fn every_arrow_joins_boxes_that_are_there() {
        let upload = "output.upload=s3://models/model.safetensors";
        for overrides in [&["train.epochs=1", upload][..], &["infer.model=x"][..], &[][..]] {
            let text = graph(&spec(overrides), Format::Dot);
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

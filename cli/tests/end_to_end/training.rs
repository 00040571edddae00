//! Training jobs, submitted as a person would: every strategy, checkpoints, saved models.
//!
//! They learn from drawn digits, which every machine has.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cluster::{Cluster, Finished, Running};

/// A training of a few seconds, and the folder for what it leaves.
pub(crate) struct Training {
    folder: tempfile::TempDir,
    settings: Vec<String>,
}

impl Training {
    /// `workloads/mnist.toml` on some of the drawn digits, with these values changed.
    pub(crate) fn of(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let output = format!("output.folder={}", folder.path().display());
        let given = [
            "data.set=synthetic",
            "data.portion=0.25",
            // Small enough that a debug build does an epoch in no time.
            "model.name=mlp",
            "infer.samples=0",
            &output,
        ];
        let settings = given.iter().chain(settings).map(|each| (*each).to_owned()).collect();
        Self { folder, settings }
    }

    /// Submits it, with more values changed, and follows it.
    pub(crate) fn start(&self, cluster: &Cluster, settings: &[&str]) -> Running {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("workloads/mnist.toml");
        let mut arguments = vec!["submit", "--json", file.to_str().unwrap()];
        for setting in self.settings.iter().map(String::as_str).chain(settings.iter().copied()) {
            arguments.extend(["--set", setting]);
        }
        cluster.start(&arguments)
    }

    /// Runs it to its end, which is a good one.
    pub(crate) fn run(&self, cluster: &Cluster, settings: &[&str]) -> Finished {
        let finished = self.start(cluster, settings).finish();
        finished.assert_success();
        finished
    }

    /// What it leaves.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where its model goes.
    pub(crate) fn model(&self) -> PathBuf {
        self.folder.path().join("model.safetensors")
    }

    /// The parameters of its model.
    pub(crate) fn parameters(&self) -> Vec<f32> {
        let bytes = std::fs::read(self.model()).unwrap();
        // A safetensors file: the length of a header, the header, then all tensors.
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let values = bytes[8 + header..].chunks_exact(4);
        values.map(|value| f32::from_le_bytes(value.try_into().unwrap())).collect()
    }
}

/// The rounds that a job has told of.
pub(crate) fn rounds(finished: &Finished) -> Vec<Value> {
    let lines = finished.json_lines();
    lines.into_iter().filter(|line| line["event"] == "round").collect()
}

/// A figure at the end of a job.
pub(crate) fn metric(finished: &Finished, name: &str) -> f64 {
    let end = finished.json_line("job_finished");
    end["metrics"][name].as_f64().unwrap_or_else(|| panic!("no {name} in {finished}"))
}

/// Whether a line of a job's output has these words.
pub(crate) fn says(finished: &Finished, words: &str) -> bool {
    finished.stdout.iter().any(|line| line.contains(words))
}

fn furthest(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |furthest, (a, b)| furthest.max((a - b).abs()))
}

#[test]
fn every_strategy_trains_on_two_workers_and_its_model_predicts() {
    let cluster = Cluster::with_workers(&[1, 1]);
    for (strategy, epochs, reached) in [
        ("parameter_average", 3, 0.96),
        ("fedavg", 3, 0.96),
        ("fedprox", 3, 0.96),
        ("diloco", 3, 0.93),
        // After each epoch the replicas' parameters are compared, bit by bit.
        ("allreduce", 2, 0.95),
        ("gradient_master", 2, 0.95),
    ] {
        let strategy = format!("train.strategy={strategy}");
        let epochs_set = format!("train.epochs={epochs}");
        let training = Training::of(&["data.portion=1", &strategy, &epochs_set]);
        let trained = training.run(&cluster, &[]);
        let rounds = rounds(&trained);
        assert_eq!(rounds.len(), epochs, "{trained}");
        assert!(rounds.iter().all(|round| round["replicas"] == 2), "{trained}");
        let accuracy = metric(&trained, "test_accuracy");
        assert!(accuracy >= reached, "{accuracy} with {trained}");
        assert!(metric(&trained, "train_images_per_second") > 0.0);

        let model = format!("infer.model={}", training.model().display());
        let predicted = training.run(&cluster, &[&model]);
        assert!((metric(&predicted, "test_accuracy") - accuracy).abs() < 1e-9, "{predicted}");
    }
}

#[test]
fn two_replicas_train_as_one_with_twice_the_batch() {
    let cluster = Cluster::with_workers(&[1, 1]);
    let settings = ["train.strategy=allreduce", "train.epochs=1", "model.dropout=0"];
    let (one, two) = (Training::of(&settings), Training::of(&settings));
    one.run(&cluster, &["train.replicas=1", "train.batch=64"]);
    two.run(&cluster, &["train.replicas=2", "train.batch=32"]);
    let furthest = furthest(&one.parameters(), &two.parameters());
    assert!(furthest < 1e-5, "{furthest}");
}

//! Training from S3 and back to it, with a real server: data in parts, checkpoints, the model that
//! is uploaded and tested from there, what goes wrong.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::cluster::{Cluster, Finished, Running, signal};
use crate::training::{metric, rounds};

/// A program built beside `rdist`.
fn built(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_rdist")).with_file_name(name);
    assert!(path.is_file(), "{} is not built; run `cargo xtask test`", path.display());
    path
}

/// A server with drawn digits in place of MNIST.
struct Store {
    server: Running,
    environment: Vec<(String, String)>,
    folder: tempfile::TempDir,
}

impl Store {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Whoever counts drawn digits draws them, and keeps the files.
        let mut draw = Command::new(built("rdist-workloads"));
        draw.arg("plan").arg(workload("mnist")).args(["--set", "data.set=synthetic"]);
        Running::start({
            draw.env("XDG_CACHE_HOME", folder.path());
            draw
        })
        .finish()
        .assert_success();
        let mut server = Command::new(built("rdist-s3-server"));
        server.arg("--data").arg(folder.path().join("rdist/mnist-synthetic-1"));
        server.env("TMPDIR", folder.path());
        let server = Running::start(server);
        let variable = |name: &str| {
            let start = format!("export {name}=");
            let value = server.wait_for(name, |line| line.strip_prefix(&start).map(str::to_owned));
            (name.to_owned(), value)
        };
        let environment =
            ["AWS_ENDPOINT_URL", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
                .map(variable)
                .into();
        Self { server, environment, folder }
    }

    fn output(&self) -> PathBuf {
        self.folder.path().join("output")
    }

    /// `workloads/mnist_s3.toml`, small and quick, with more settings and variables.
    fn submit(&self, cluster: &Cluster, more: &[&str], variables: &[(&str, &str)]) -> Finished {
        let (file, output) = (workload("mnist_s3"), self.output());
        let output = format!("output.folder={}", output.display());
        let mut set = vec![
            "model.name=mlp",
            "model.dropout=0",
            "train.epochs=2",
            "train.baseline=30",
            "infer.samples=4",
            "output.checkpoints=s3://models/checkpoints",
            &output,
        ];
        set.extend(more);
        let mut arguments = vec!["submit", "--json", file.to_str().unwrap()];
        arguments.extend(set.iter().flat_map(|each| ["--set", *each]));
        let mut submit = cluster.rdist(&arguments);
        submit.envs(self.environment.iter().map(|(name, value)| (name, value)));
        submit.envs(variables.iter().copied());
        Running::start(submit).finish()
    }
}

fn workload(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("workloads").join(format!("{name}.toml"))
}

fn said(finished: &Finished, words: &str) -> bool {
    finished.stdout.iter().any(|line| line.contains(words))
}

#[test]
fn a_model_goes_from_s3_to_s3_and_is_tested_from_there() {
    let store = Store::start();
    let cluster = Cluster::with_workers(&[1, 1]);
    let trained = store.submit(&cluster, &[], &[("RDIST_NUM_REPLICAS", "2")]);
    trained.assert_success();
    assert!(said(&trained, "MNIST from s3://datasets/mnist"), "{trained}");
    let rounds_of = rounds(&trained);
    assert_eq!(rounds_of.len(), 2, "{trained}");
    assert!(rounds_of.iter().all(|round| round["replicas"] == 2), "{trained}");
    let accuracy = metric(&trained, "test_accuracy");
    assert!(accuracy > 0.9, "{trained}");

    // The round trip, by a task that has only the address.
    assert_eq!(trained.json_line("uploaded")["path"], "s3://models/mnist/mnist.safetensors");
    assert!(said(&trained, "s3://models/mnist/mnist.safetensors, fetched: test accuracy"));
    assert!((metric(&trained, "uploaded_test_accuracy") - accuracy).abs() < 1e-9, "{trained}");

    // Speed-up and efficiency are of the same run.
    let speed_up = metric(&trained, "speed_up");
    assert!(speed_up > 0.0, "{trained}");
    assert!((metric(&trained, "efficiency") - speed_up / 2.0).abs() < 1e-9, "{trained}");
    assert!(metric(&trained, "one_replica_images_per_second") > 0.0, "{trained}");

    // What each replica did in each round, and where its time went.
    let lines = trained.json_lines();
    let parts: Vec<_> = lines.iter().filter(|line| line["event"] == "replica").collect();
    assert_eq!(parts.len(), 4, "{trained}");
    let images: u64 = parts.iter().filter_map(|part| part["images"].as_u64()).sum();
    assert_eq!(images, 2 * 12_000, "{parts:?}");
    assert!(parts.iter().all(|part| part["compute_seconds"].as_f64() > Some(0.0)), "{parts:?}");

    // And all of it on one page.
    let page = std::fs::read_to_string(store.output().join("report.html")).unwrap();
    for piece in ["Where the time went", "replica 2", "Confusion", "data:image/png;base64", "<svg"]
    {
        assert!(page.contains(piece), "no {piece} in {page}");
    }
    assert!(!page.contains("http"), "it needs something from elsewhere: {page}");

    // Checkpoints are in S3, and there alone; training goes on from them.
    assert!(store.output().join("model.safetensors").is_file());
    assert!(!store.output().join("checkpoint.safetensors").exists());
    let more = ["train.epochs=3", "train.resume=auto", "train.replicas=2"];
    let resumed = store.submit(&cluster, &more, &[]);
    resumed.assert_success();
    assert!(said(&resumed, "from epoch 2 of s3://models/checkpoints"), "{resumed}");
    assert_eq!(rounds(&resumed).len(), 1, "{resumed}");

    let model = "infer.model=s3://models/mnist/mnist.safetensors";
    let predicted = store.submit(&cluster, &[model], &[]);
    predicted.assert_success();
    assert!(said(&predicted, "nothing goes to output.upload"), "{predicted}");
    let again = metric(&predicted, "test_accuracy");
    assert!((again - metric(&resumed, "test_accuracy")).abs() < 1e-9, "{predicted}");

    // One that starts anew leaves what is there.
    let anew = store.submit(&cluster, &["train.epochs=1", "data.limit=200"], &[]);
    anew.assert_success();
    assert!(said(&anew, "are now in s3://models/checkpoints/earlier-1"), "{anew}");
    let old = "infer.model=s3://models/checkpoints/earlier-1/checkpoint.safetensors";
    let old = store.submit(&cluster, &[old], &[]);
    old.assert_success();
    assert!((again - metric(&old, "test_accuracy")).abs() < 1e-9, "{old}");
}

#[test]
fn what_is_wrong_with_s3_is_said_before_training() {
    let store = Store::start();
    let cluster = Cluster::with_workers(&[1]);
    let wrong = [("AWS_SECRET_ACCESS_KEY", "wrong")];
    store.submit(&cluster, &[], &wrong).assert_failure("refuses the credentials");
    let elsewhere = ["data.path=s3://nowhere/mnist"];
    store.submit(&cluster, &elsewhere, &[]).assert_failure("there is no bucket nowhere");
    let elsewhere = ["data.path=s3://datasets/digits"];
    let refused = store.submit(&cluster, &elsewhere, &[]);
    refused.assert_failure("s3://datasets/digits/train/train-images-idx3-ubyte");

    // Stopped, the server leaves nothing.
    let folder = store.folder;
    signal(&store.server, Signal::TERM);
    store.server.finish().assert_success();
    let left = std::fs::read_dir(folder.path()).unwrap().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("rdist-s3-")), "{left:?}");
}

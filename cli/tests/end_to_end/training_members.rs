//! Federations, whose members are not the replicas: who trains on what, and when.

use std::process::Command;

use crate::cluster::{Cluster, Finished};
use crate::training::{Training, metric, says};

/// Images that were trained on in each round.
fn images(finished: &Finished) -> Vec<u64> {
    let mut images = Vec::new();
    for part in finished.json_lines().iter().filter(|line| line["event"] == "replica") {
        let round = part["round"].as_u64().unwrap() as usize;
        images.resize(images.len().max(round), 0);
        images[round - 1] += part["images"].as_u64().unwrap();
    }
    images
}

#[test]
fn a_federation_of_three_stays_one_on_two_cpus_and_when_it_goes_on() {
    let cluster = Cluster::with_workers(&[1, 1]);
    let set = ["train.strategy=fedavg", "train.epochs=2", "data.limit=600", "output.keep=2"];
    let (few, whole, resumed) = (Training::of(&set), Training::of(&set), Training::of(&set));
    let trained = few.run(&cluster, &["train.replicas=3"]);
    assert!(says(&trained, "starting with 2 of 3 replicas"), "{trained}");
    assert!(says(&trained, "divided among 3 members"), "{trained}");
    assert_eq!(images(&trained), [600, 600], "{trained}");
    let first = few.folder().join("checkpoint-00001.safetensors");
    std::fs::copy(first, resumed.folder().join("checkpoint.safetensors")).unwrap();
    let went_on = resumed.run(&cluster, &["train.replicas=2", "train.resume=true"]);
    assert!(says(&went_on, "divided among 3 members"), "{went_on}");
    assert!(few.parameters() == resumed.parameters());
    let other = ["train.members=2", "train.resume=true", "train.epochs=3"];
    let refused = resumed.start(&cluster, &other).finish();
    refused.assert_failure("is of a federation of 3 members");

    cluster.join(&["--cpus", "1"]);
    let trained = whole.run(&cluster, &["train.replicas=3"]);
    assert!(!says(&trained, "starting with"), "{trained}");
    assert!(few.parameters() == whole.parameters(), "it matters how many replicas there are");
}

#[test]
fn a_share_of_the_members_trains_in_a_round() {
    let cluster = Cluster::with_workers(&[1, 1]);
    let training = Training::of(&["train.strategy=fedavg", "train.members=4", "train.epochs=4"]);
    let trained = training.run(&cluster, &["train.participation=0.5", "data.limit=2000"]);
    assert_eq!(images(&trained), [1_000; 4], "{trained}");
    assert!(metric(&trained, "test_accuracy") > 0.6, "{trained}");
}

/// More members than images, and one of them at a time: often there is nothing to train on.
#[test]
fn members_without_images_end_nothing() {
    let cluster = Cluster::with_workers(&[1]);
    let training = Training::of(&["train.strategy=fedavg", "train.members=40", "data.limit=10"]);
    let trained = training.run(&cluster, &["train.participation=0.025", "train.epochs=12"]);
    let images = images(&trained);
    assert_eq!(images.len(), 12, "{trained}");
    assert!(images.contains(&0) && images.iter().all(|images| *images <= 1), "{images:?}");
}

/// A library in which powers are wrong, for a machine whose replica computes nonsense: Adam's steps
/// become a million times too long, and stay finite.
fn broken_powers() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("powers.c");
    let powers = "double pow(double a, double b) { (void)a; (void)b; return 1.0 - 1e-12; }\n";
    std::fs::write(&source, powers).unwrap();
    // The compiler that links Rust's programs.
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-fno-builtin", "-o"]);
    let compiled = compiler.arg(folder.path().join("powers.so")).arg(&source).status().unwrap();
    assert!(compiled.success());
    folder
}

#[test]
fn a_median_withstands_a_replica_that_returns_nonsense() {
    let mut cluster = Cluster::with_workers(&[1, 1]);
    let powers = broken_powers();
    cluster.set_variable("LD_PRELOAD", powers.path().join("powers.so").to_str().unwrap());
    cluster.join(&["--cpus", "1"]);
    cluster.set_variable("LD_PRELOAD", "");
    let set = ["train.strategy=fedavg", "train.replicas=3", "train.epochs=8", "data.limit=1500"];
    let accuracy = |aggregate: &str| {
        let training = Training::of(&[&set[..], &[aggregate]].concat());
        let trained = training.run(&cluster, &[]);
        assert!(!says(&trained, "starting with"), "{trained}");
        metric(&trained, "test_accuracy")
    };
    let (mean, median) = (accuracy("train.aggregate=mean"), accuracy("train.aggregate=median"));
    assert!(median > 0.8 && mean < median - 0.2, "median {median}, mean {mean}");
}

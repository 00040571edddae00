//! Trainings that go on from their checkpoint, or start where an earlier one has left some.

use crate::cluster::Cluster;
use crate::training::{Training, rounds, says};

#[test]
fn going_on_from_a_checkpoint_is_as_good_as_never_having_stopped() {
    let cluster = Cluster::with_workers(&[1, 1]);
    for strategy in ["allreduce", "parameter_average"] {
        // The rate must not depend on how many epochs were planned when it was stopped.
        let settings = [&format!("train.strategy={strategy}"), "train.schedule=constant"];
        let (whole, stopped) = (Training::of(&settings), Training::of(&settings));
        whole.run(&cluster, &["train.epochs=2"]);
        stopped.run(&cluster, &["train.epochs=1"]);
        assert!(whole.parameters() != stopped.parameters());
        let resumed = stopped.run(&cluster, &["train.epochs=2", "train.resume=true"]);
        assert!(says(&resumed, "from epoch 1"), "{resumed}");
        assert_eq!(rounds(&resumed).len(), 1, "{resumed}");
        assert!(whole.parameters() == stopped.parameters(), "{strategy}: not the same bits");
    }
}

/// As the scripts for Slurm and PBS promise: submitted, stopped, submitted again.
#[test]
fn the_same_line_starts_a_training_and_goes_on_with_it() {
    let cluster = Cluster::with_workers(&[1]);
    let training = Training::of(&["train.resume=auto", "train.epochs=40"]);
    let job = training.start(&cluster, &[]);
    job.wait_for("a round", |line| line.contains(r#""round":3"#).then_some(()));
    cluster.run(&["stop", "job-1"]).assert_success();
    let stopped = job.finish();
    stopped.assert_failure("stopped");
    assert!(says(&stopped, "starting"), "{stopped}");
    let done = rounds(&stopped).len();

    let resumed = training.run(&cluster, &[]);
    assert!(says(&resumed, "going on from epoch"), "{resumed}");
    let again: Vec<u64> = rounds(&resumed).iter().filter_map(|r| r["round"].as_u64()).collect();
    // A round may have been told of whose checkpoint was not written any more.
    assert!((done as u64..=done as u64 + 1).contains(&again[0]), "{again:?}");
    assert_eq!(*again.last().unwrap(), 40);
    assert!(!training.folder().join("earlier-1").exists());

    // Another model cannot go on from there, and loses nothing.
    let other = training.run(&cluster, &["model.name=deep_mlp", "train.epochs=1"]);
    assert!(says(&other, "holds a mlp"), "{other}");
    assert!(says(&other, "starting anew"), "{other}");
    assert_eq!(rounds(&other).len(), 1, "{other}");
    assert!(training.folder().join("earlier-1/checkpoint.safetensors").is_file());
}

#[test]
fn a_training_that_starts_moves_an_earlier_ones_checkpoints_away() {
    let cluster = Cluster::with_workers(&[1]);
    let training = Training::of(&["train.epochs=1", "train.select=best"]);
    let nothing = training.start(&cluster, &["train.resume=true"]).finish();
    nothing.assert_failure("train.resume = \\\"auto\\\" starts");
    training.run(&cluster, &[]);
    let first = std::fs::read(training.folder().join("checkpoint.safetensors")).unwrap();
    let second = training.run(&cluster, &["train.seed=2"]);
    assert!(says(&second, "checkpoints of an earlier training are now in"), "{second}");
    let aside = training.folder().join("earlier-1");
    assert!(std::fs::read(aside.join("checkpoint.safetensors")).unwrap() == first);
    assert!(aside.join("best.safetensors").is_file());
}

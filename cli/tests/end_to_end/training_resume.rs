//! Trainings that go on from their checkpoint, or start where an earlier one has left some.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::cluster::{Cluster, kill, number, wait_until};
use crate::pictures::herbarium;
use crate::training::{Training, metric, rounds, says};
use crate::training_faults::{cluster_of, split_by_driver};

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
    let first = fs::read(training.folder().join("checkpoint.safetensors")).unwrap();
    let second = training.run(&cluster, &["train.seed=2"]);
    assert!(says(&second, "checkpoints of an earlier training are now in"), "{second}");
    let aside = training.folder().join("earlier-1");
    assert!(fs::read(aside.join("checkpoint.safetensors")).unwrap() == first);
    assert!(aside.join("best.safetensors").is_file());
}

/// Puts a pipe where a file is, which whoever reads it waits for; returns what was in the file.
fn make_pipe(path: &Path) -> Vec<u8> {
    let content = fs::read(path).unwrap();
    fs::remove_file(path).unwrap();
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    content
}

/// Waits until somebody reads from a pipe; what is returned keeps them waiting for more.
fn wait_for_reader(pipe: &Path) -> File {
    let mut open = OpenOptions::new();
    open.write(true).custom_flags(libc::O_NONBLOCK);
    wait_until("somebody reads the pipe", || open.open(pipe).map_err(|error| error.to_string()))
}

/// Its driver is lost before it has moved the other training's checkpoints away.
#[test]
fn a_driver_that_starts_again_knows_its_own_checkpoints_from_an_earlier_trainings() {
    let (cluster, workers) = cluster_of(2);
    let root = tempfile::tempdir().unwrap();
    herbarium(root.path());
    let data = format!("data.path={}", root.path().join("herbarium").display());
    let set =
        ["data.set=herbarium", &data, "data.validation=0.1", "data.size=20", "train.epochs=2"];
    let training = Training::of(&set);
    training.run(&cluster, &[]);

    let listing = root.path().join("herbarium/train/metadata.json");
    let content = make_pipe(&listing);
    let job = training.start(&cluster, &["train.seed=2"]);
    let (driver, _) = split_by_driver(&job, &workers);
    let waiting = wait_for_reader(&listing);
    let whole = root.path().join("whole.json");
    fs::write(&whole, content).unwrap();
    fs::rename(&whole, &listing).unwrap();
    kill(number(driver, "pid"));
    let finished = job.finish();
    drop(waiting);
    finished.assert_success();
    assert!(says(&finished, "before its first checkpoint: starting anew"), "{finished}");
    assert_eq!(rounds(&finished).len(), 2, "{finished}");
    assert!(training.folder().join("earlier-1/checkpoint.safetensors").is_file());
}

/// The position in the epoch that a checkpoint stands at.
fn shown(checkpoint: &Path) -> u64 {
    let bytes = fs::read(checkpoint).unwrap_or_default();
    let header = String::from_utf8_lossy(&bytes);
    let after = header.split_once(r#""rdist.shown":""#).map_or("", |(_, after)| after);
    after.split('"').next().unwrap_or_default().parse().unwrap_or_default()
}

/// A model with running statistics, from the first epoch's checkpoint; and, where there is one,
/// from one within an epoch.
#[test]
fn every_strategy_goes_on_to_the_same_bits() {
    let cluster = Cluster::with_workers(&[1, 1]);
    for (strategy, more) in [
        ("parameter_average", &["train.outer=momentum"][..]),
        ("fedavg", &["train.members=3", "train.participation=0.7"]),
        ("fedprox", &["train.skew=0.5"]),
        ("diloco", &["train.exchange=2", "output.checkpoint_steps=2"]),
        ("gradient_master", &["train.exchange=2", "output.checkpoint_steps=2"]),
        ("allreduce", &["output.checkpoint_steps=2", "train.optimiser=sgd"]),
    ] {
        let strategy_set = format!("train.strategy={strategy}");
        let set = [
            &strategy_set,
            "model.name=herbarium_convnet",
            "data.limit=160",
            "train.batch=8",
            "train.replicas=2",
            "train.epochs=3",
            "train.clip=1.0",
            "output.keep=9",
        ];
        let set = [&set[..], more].concat();
        let (whole, from_epoch, within) =
            (Training::of(&set), Training::of(&set), Training::of(&set));
        let newest = whole.folder().join("checkpoint.safetensors");
        let job = whole.start(&cluster, &[]);
        let has_steps = more.contains(&"output.checkpoint_steps=2");
        if has_steps {
            let copy = within.folder().join("checkpoint.safetensors");
            wait_until("a checkpoint within an epoch", || {
                // A file is replaced whole: what is copied is one checkpoint.
                fs::copy(&newest, &copy).map_err(|error| error.to_string())?;
                if shown(&copy) > 0 { Ok(()) } else { Err("none".to_owned()) }
            });
        }
        job.finish().assert_success();
        let first = whole.folder().join("checkpoint-00001.safetensors");
        fs::copy(first, from_epoch.folder().join("checkpoint.safetensors")).unwrap();
        let resumed = from_epoch.run(&cluster, &["train.resume=true"]);
        assert!(says(&resumed, "from epoch 1 of"), "{resumed}");
        assert!(!says(&resumed, "unlike"), "{resumed}");
        assert!(whole.parameters() == from_epoch.parameters(), "{strategy}: not the same bits");
        if has_steps {
            let resumed = within.run(&cluster, &["train.resume=true"]);
            assert!(says(&resumed, "images were shown already"), "{resumed}");
            assert!(whole.parameters() == within.parameters(), "{strategy}: not the same bits");
        }
    }
}

#[test]
fn what_a_checkpoint_is_of_no_use_to_is_refused_and_what_differs_is_said() {
    let cluster = Cluster::with_workers(&[1]);
    let training = Training::of(&["data.limit=300", "train.strategy=diloco", "train.epochs=1"]);
    training.run(&cluster, &[]);
    let more = ["train.epochs=2", "train.resume=true"];
    let other = [&more[..], &["train.strategy=allreduce", "train.optimiser=sgd"]].concat();
    let refused = training.start(&cluster, &other).finish();
    refused.assert_failure("momentum over rounds, which is of no use");
    refused.assert_failure("model.weights");
    let other = [&more[..], &["train.strategy=parameter_average", "train.seed=7"]].concat();
    let said = training.run(&cluster, &other);
    for piece in [
        "train.strategy is parameter_average, was diloco",
        "train.seed is 7, was 1",
        "train.epochs is 2, was 1",
    ] {
        assert!(says(&said, piece), "{piece}: {said}");
    }
    assert!(!says(&said, "train.batch"), "{said}");
}

/// A rate at which nothing is learnt: the first round is the best, and stays it.
const STILL: &str = "train.learning_rate=1e-9";

#[test]
fn the_best_round_is_chosen_also_where_it_was_not_kept() {
    let cluster = Cluster::with_workers(&[1]);
    let set = ["data.limit=300", STILL, "train.schedule=constant"];
    let best = ["train.select=best", "train.resume=true"];
    let training = Training::of(&set);
    training.run(&cluster, &["train.epochs=1"]);
    // It is the checkpoint's own.
    let resumed = training.run(&cluster, &[&best[..], &["train.epochs=2"]].concat());
    assert!(says(&resumed, "round 1 is the best"), "{resumed}");
    assert_eq!(metric(&resumed, "round"), 1.0);

    let training = Training::of(&set);
    training.run(&cluster, &["train.epochs=2"]);
    let resumed = training.run(&cluster, &[&best[..], &["train.epochs=4"]].concat());
    assert!(says(&resumed, "its model was not kept"), "{resumed}");
    assert_eq!(metric(&resumed, "round"), 3.0);
}

#[test]
fn training_ends_when_nothing_has_got_better_for_a_while() {
    let cluster = Cluster::with_workers(&[1]);
    let training = Training::of(&["data.limit=300", STILL, "train.epochs=50"]);
    let ended = training.run(&cluster, &["train.patience=2"]);
    assert!(says(&ended, "training ends after 3 rounds"), "{ended}");
    assert_eq!(rounds(&ended).len(), 3);
    // Going on, it has still nothing to do.
    let again = training.run(&cluster, &["train.patience=2", "train.resume=true"]);
    assert_eq!(rounds(&again).len(), 0, "{again}");
}

/// What is left of one training is not taken for the other's.
#[test]
fn two_trainings_in_one_folder_leave_what_the_second_one_did() {
    let cluster = Cluster::with_workers(&[1]);
    let training = Training::of(&["data.limit=300", "output.keep=2", "train.select=best"]);
    training.run(&cluster, &["train.epochs=4"]);
    training.run(&cluster, &["train.epochs=3", "train.seed=2"]);
    let files = |folder: &Path| {
        let entries = fs::read_dir(folder).unwrap().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name.starts_with("checkpoint"))
            .collect();
        names.sort();
        names
    };
    let kept = ["checkpoint-00002.safetensors", "checkpoint-00003.safetensors"];
    assert_eq!(files(training.folder())[..2], kept);
    let old = ["checkpoint-00003.safetensors", "checkpoint-00004.safetensors"];
    assert_eq!(files(&training.folder().join("earlier-1"))[..2], old);
    let read = |name: &str| fs::read(training.folder().join(name)).unwrap();
    assert!(read(kept[1]) == read("checkpoint.safetensors"));
    let events = training.folder().join("metrics/tensorboard");
    let count = |folder: &Path| {
        let entries = fs::read_dir(folder).unwrap().flatten();
        entries.filter(|entry| entry.path().is_file()).count()
    };
    assert_eq!((count(&events), count(&events.join("earlier-1"))), (1, 1));
}

//! Trainings that cannot go well: what is wrong with the file, the data or the disk reaches
//! whoever submitted them, and nothing that was there before is lost.

use std::fs;
use std::path::Path;

use crate::cluster::{Cluster, Running, wait_until};
use crate::training::Training;

#[test]
fn a_mistake_in_a_training_is_named_with_its_line_and_what_is_allowed() {
    // No head: a mistake shows before there is any need of one.
    let cluster = Cluster::new();
    let file = cluster.home().join("job.toml");
    for (text, pieces) in [
        ("[train]\nepoch = 3\n", ["line 2", "did you mean `epochs`", "learning_rate"]),
        ("[train]\nepochs = \"3\"\n", ["line 2", "train.epochs", "an integer of at least 1"]),
        ("\n[model]\nname = \"convnett\"", ["line 3", "did you mean `convnet`", "deep_mlp"]),
        ("[train]\nstrategy = \"allreduse\"", ["line 2", "did you mean `allreduce`", "fedavg"]),
        ("[train]\nschedule = \"cosin\"", ["line 2", "did you mean `cosine`", "linear"]),
        ("[infer]\nmodel = \"\"", ["line 2", "infer.model is the text \"\"", "a saved model"]),
        ("[train\n", ["line 1", "job.toml", "error"]),
    ] {
        fs::write(&file, text).unwrap();
        let finished = cluster.run(&["submit", file.to_str().unwrap()]);
        pieces.iter().for_each(|piece| finished.assert_failure(piece));
    }
    let set = ["submit", file.to_str().unwrap(), "--set", "train.epochs=0"];
    fs::write(&file, "").unwrap();
    cluster.run(&set).assert_failure("--set train.epochs=0");
}

/// The four files of a data set with two images for training and one for testing.
fn write_data(folder: &Path) {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect();
    for (part, images) in [("train", 2_u32), ("t10k", 1)] {
        let mut pixels: Vec<u8> = words(&[0x803, images, 28, 28]);
        pixels.resize(16 + images as usize * 784, 0);
        fs::write(folder.join(format!("{part}-images-idx3-ubyte")), pixels).unwrap();
        let mut labels: Vec<u8> = words(&[0x801, images]);
        labels.resize(8 + images as usize, 7);
        fs::write(folder.join(format!("{part}-labels-idx1-ubyte")), labels).unwrap();
    }
}

#[test]
fn damaged_data_is_named_and_never_trained_on() {
    let cluster = Cluster::with_workers(&[1]);
    let data = tempfile::tempdir().unwrap();
    let path = format!("data.path={}", data.path().display());
    let training = Training::of(&["data.set=mnist", &path, "train.epochs=1"]);
    let images = data.path().join("train-images-idx3-ubyte");
    let labels = data.path().join("train-labels-idx1-ubyte");
    let refused = |reason: &str| {
        let finished = training.start(&cluster, &[]).finish();
        finished.assert_failure(reason);
        assert_eq!(finished.json_line("job_finished")["status"], "failed", "{finished}");
        assert!(!training.model().exists());
    };
    refused("train-images-idx3-ubyte is missing");
    write_data(data.path());
    let whole = fs::read(&images).unwrap();
    fs::write(&images, &whole[..1_000]).unwrap();
    refused("984 bytes of images, its header promises 1568");
    fs::write(&images, &whole[..10]).unwrap();
    refused("bytes of header");
    fs::copy(&labels, &images).unwrap();
    refused("magic number 0x801, expected 0x803");
    fs::write(&images, &whole).unwrap();
    fs::write(&labels, [0, 0, 8, 1, 0, 0, 0, 3, 1, 2, 3]).unwrap();
    refused("2 images");
    write_data(data.path());
    training.run(&cluster, &[]);
}

#[test]
fn an_output_folder_that_takes_nothing_is_named_before_the_training() {
    let cluster = Cluster::with_workers(&[1]);
    // Nobody can write there, not even root.
    let training = Training::of(&["output.folder=/proc/rdist/output"]);
    let finished = training.start(&cluster, &[]).finish();
    finished.assert_failure("cannot write /proc/rdist/output");
    finished
        .assert_failure("output.folder, output.checkpoints and output.upload name other places");
    assert!(!finished.stdout.iter().any(|line| line.contains("\"round\"")), "{finished}");
}

/// The worker sees the output folder as a file system of 100 KiB; nobody else does.
#[test]
fn a_full_disk_fails_the_job_and_leaves_the_old_model() {
    let cluster = Cluster::with_workers(&[]);
    let training = Training::of(&["train.epochs=2"]);
    let folder = training.model().with_file_name("");
    let script = "mount -t tmpfs -o size=100k tmpfs \"$1\" && echo old > \"$1/model.safetensors\" \
                  && shift && exec \"$@\"";
    let mut worker = std::process::Command::new("unshare");
    worker.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]).arg(&folder);
    let join = ["worker", "join", "--foreground", "--cpus", "1", "--store-memory", "256MiB"];
    let rdist = cluster.rdist(&join);
    worker.arg(rdist.get_program()).args(rdist.get_args()).env("RDIST_HOME", cluster.home());
    let mut worker = Running::start(worker);
    let joined = wait_until("the worker has joined, or cannot", || {
        if worker.has_ended() {
            return Ok(false);
        }
        let listed = cluster.run(&["list", "workers", "--json"]).stdout;
        if listed.is_empty() { Err("no worker".to_owned()) } else { Ok(true) }
    });
    if !joined {
        let finished = worker.finish();
        assert!(finished.stderr.contains("unshare") || finished.stderr.contains("mount"));
        eprintln!("skipped: no file system can be mounted here: {finished}");
        return;
    }
    let finished = training.start(&cluster, &[]).finish();
    finished.assert_failure("checkpoint.safetensors: No space left on device");
    finished.assert_failure("what was there before is untouched");
    let seen = format!("/proc/{}/root{}", worker.pid().as_raw_nonzero(), folder.display());
    assert_eq!(fs::read(Path::new(&seen).join("model.safetensors")).unwrap(), b"old\n");
    let left = fs::read_dir(&seen).unwrap().map(|entry| entry.unwrap().file_name());
    // Figures of rounds are told as they come.
    let models: Vec<_> = left.filter(|name| name != "metrics").collect();
    assert_eq!(models, ["model.safetensors"], "nothing half-written is left");
}

#[test]
fn without_a_worker_a_training_waits_and_says_for_what() {
    let cluster = Cluster::with_workers(&[]);
    let training = Training::of(&["train.epochs=1"]);
    let job = training.start(&cluster, &[]);
    job.wait_for("why it waits", |line| {
        (line.contains("\"waiting\"") && line.contains("worker")).then_some(())
    });
    cluster.run(&["stop", "job-1"]).assert_success();
    job.finish().assert_failure("stopped");
}

//! GPUs: given to processes by number, and what a training says where there is none.

use rdist::machine::{Machine, VISIBLE_GPUS};

use crate::cluster::{Cluster, Finished, example};
use crate::training::{Training, metric};

#[test]
fn who_asks_for_a_gpu_sees_that_one_and_nobody_else_sees_any() {
    for (variable, expected) in [
        (None, "2: 0; 1; 0; []; 0,1"),
        // Numbers are the machine's, or names.
        (Some("5,GPU-8f1,7"), "2: 5; GPU-8f1; 5; []; 5,GPU-8f1"),
    ] {
        let mut cluster = Cluster::new();
        if let Some(visible) = variable {
            cluster.set_variable(VISIBLE_GPUS, visible);
        }
        cluster.start_head();
        cluster.join(&["--cpus", "2", "--gpus", "2"]);
        let actors = example("actors");
        let finished = cluster.run(&["submit", actors.to_str().unwrap(), "--", "gpus"]);
        finished.assert_success();
        assert!(finished.stdout.iter().any(|line| line == expected), "{finished}");
    }
}

fn said(finished: &Finished, pieces: &[&str]) {
    let all = finished.to_string();
    for piece in pieces {
        assert!(all.contains(piece), "`{piece}` is not in: {all}");
    }
}

#[test]
fn a_training_says_which_gpu_is_missing_before_it_starts() {
    let cluster = Cluster::with_workers(&[1]);
    let training = Training::of(&["train.epochs=1", "data.portion=0.05"]);
    let refused = training.start(&cluster, &["train.device=cuda:0"]).finish();
    assert!(!refused.status.success(), "{refused}");
    said(&refused, &["--set train.device=cuda:0", "no worker of the cluster has a GPU"]);
    let trained = training.run(&cluster, &["train.device=auto"]);
    assert!(metric(&trained, "test_accuracy") > 0.0);
}

/// Trains on a GPU where there is one that libtorch can use; elsewhere a worker is told that there
/// is one, and the job finds out.
#[test]
fn a_training_computes_on_a_gpu_or_says_why_not() {
    let cluster = Cluster::new();
    cluster.start_head();
    cluster.join(&["--cpus", "1", "--gpus", "1"]);
    let training = Training::of(&["train.epochs=2", "data.portion=0.1"]);
    let on_gpu = training.start(&cluster, &["train.device=cuda"]).finish();
    let auto = training.run(&cluster, &["train.device=auto"]);
    if on_gpu.status.success() {
        said(&on_gpu, &["1 GPU replicas"]);
        return said(&auto, &["1 GPU replicas"]);
    }
    eprintln!("skipped: no GPU; this machine has {}", Machine::detect().gpus);
    said(&on_gpu, &["train.device is \\\"cuda\\\"", "CUDA", "train.device = \\\"cpu\\\""]);
    said(&auto, &["computes on CPUs", "CUDA"]);
}

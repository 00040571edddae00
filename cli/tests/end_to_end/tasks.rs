//! What tasks can do, in a cluster of real processes: `programs/tasks.rs` checks itself.

use crate::cluster::{Cluster, example};

fn passes(cluster: &Cluster, scenario: &str) {
    let folder = tempfile::tempdir().unwrap();
    let program = example("tasks");
    let program = program.to_str().unwrap();
    let finished =
        cluster.run(&["submit", program, "--", scenario, folder.path().to_str().unwrap()]);
    finished.assert_success();
    assert_eq!(finished.stdout.last().map(String::as_str), Some("ok"), "{finished}");
}

#[test]
fn errors_are_retried_where_a_predicate_says_so() {
    passes(&Cluster::with_workers(&[1, 1]), "retries");
}

#[test]
fn a_task_that_runs_too_long_is_ended_and_named_with_its_limit() {
    passes(&Cluster::with_workers(&[2]), "timeouts");
}

#[test]
fn a_cancelled_task_takes_its_children_along() {
    let cluster = Cluster::with_workers(&[2]);
    cluster.join(&["--cpus", "1", "--resource", "second=1"]);
    passes(&cluster, "cancel");
}

#[test]
fn a_task_makes_several_objects_or_thousands() {
    passes(&Cluster::with_workers(&[1, 1]), "returns");
}

#[test]
fn a_task_takes_ten_thousand_objects() {
    passes(&Cluster::with_workers(&[2]), "arguments");
}

#[test]
fn a_stream_is_read_while_its_task_runs() {
    passes(&Cluster::with_workers(&[1]), "streams");
}

#[test]
fn a_stream_comes_from_another_worker() {
    let cluster = Cluster::with_workers(&[1]);
    cluster.join(&["--cpus", "1", "--resource", "second=1"]);
    passes(&cluster, "streams-elsewhere");
}

#[test]
fn a_stream_survives_its_producers() {
    let cluster = Cluster::with_workers(&[1]);
    cluster.join(&["--cpus", "1", "--resource", "second=2"]);
    passes(&cluster, "streams-under-fire");
}

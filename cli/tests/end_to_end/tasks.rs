//! What tasks can do, in a cluster of real processes: `programs/tasks.rs` checks itself.

use crate::cluster::Cluster;

#[test]
fn errors_are_retried_where_a_predicate_says_so() {
    Cluster::with_workers(&[1, 1]).passes("tasks", "retries");
}

#[test]
fn a_task_that_runs_too_long_is_ended_and_named_with_its_limit() {
    Cluster::with_workers(&[2]).passes("tasks", "timeouts");
}

#[test]
fn a_cancelled_task_takes_its_children_along() {
    let cluster = Cluster::with_workers(&[2]);
    cluster.join(&["--cpus", "1", "--resource", "second=1"]);
    cluster.passes("tasks", "cancel");
}

#[test]
fn a_task_makes_several_objects_or_thousands() {
    Cluster::with_workers(&[1, 1]).passes("tasks", "returns");
}

#[test]
fn a_task_takes_ten_thousand_objects() {
    Cluster::with_workers(&[2]).passes("tasks", "arguments");
}

#[test]
fn a_stream_is_read_while_its_task_runs() {
    Cluster::with_workers(&[1]).passes("tasks", "streams");
}

#[test]
fn a_stream_comes_from_another_worker() {
    let cluster = Cluster::with_workers(&[1]);
    cluster.join(&["--cpus", "1", "--resource", "second=1"]);
    cluster.passes("tasks", "streams-elsewhere");
}

#[test]
fn a_stream_survives_its_producers() {
    let cluster = Cluster::with_workers(&[1]);
    cluster.join(&["--cpus", "1", "--resource", "second=2"]);
    cluster.passes("tasks", "streams-under-fire");
}

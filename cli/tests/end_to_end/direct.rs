//! Calls of actors in other processes of the same worker, past the worker.

use crate::cluster::{Cluster, example};

fn runs(cluster: &Cluster, what: &str, last: &str) {
    let program = example("direct").to_str().unwrap().to_owned();
    let finished = cluster.run(&["submit", &program, "--", what]);
    finished.assert_success();
    assert!(finished.stdout.iter().any(|line| line == last), "{finished}");
}

#[test]
fn calls_of_all_kinds_come_in_order() {
    runs(&Cluster::with_workers(&[2]), "order", "in order");
}

#[test]
fn results_of_direct_calls_are_passed_on() {
    runs(&Cluster::with_workers(&[2]), "passed", "passed on");
}

#[test]
fn direct_calls_end_with_their_actor_or_are_made_again() {
    runs(&Cluster::with_workers(&[2]), "ends", "ended");
}

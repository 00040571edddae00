//! Programs that write noise where their worker reads: they end, with a reason, and nobody else is
//! harmed.

use crate::cluster::{Cluster, faults};
use crate::network::Network;

#[test]
fn who_writes_noise_into_its_rings_is_killed_and_harms_no_other_job() {
    let network = Network::start(7);
    let others = network.waves(50_000, 0, 1);
    for what in ["tail", "frames"] {
        let spoiling = network.cluster.run(&["submit", &faults(), "--", "spoil", what, "4"]);
        spoiling.assert_success();
        let killed = spoiling.stdout.iter().filter(|line| line.contains("broke the protocol"));
        assert_eq!(killed.count(), 4, "{spoiling}");
    }
    others.more(1);
    let runs = others.end();
    assert!(runs.iter().all(|runs| *runs == 1), "run twice or never: {runs:?}");
}

#[test]
fn who_writes_noise_into_its_part_of_the_store_harms_its_own_values_alone() {
    let cluster = Cluster::with_workers(&[2]);
    let spoiling = cluster.run(&["submit", &faults(), "--", "spoil", "values", "4"]);
    spoiling.assert_success();
    cluster.run(&["submit", &faults(), "--", "squares", "100"]).assert_success();
    cluster.run(&["head", "stop"]).assert_success();
    cluster.assert_all_gone();
}

//! What options of tasks and actors change: `programs/options.rs` checks itself.

use crate::cluster::{Cluster, wait_until};

#[test]
fn tasks_and_bundles_are_where_their_strategy_says() {
    let cluster = Cluster::with_workers(&[2, 2, 2]);
    cluster.passes("options", "places");
    for [strategy, count, cpus, workers] in [
        ["pack", "2", "1", "1"],
        ["pack", "3", "2", "3"],
        ["spread", "3", "1", "3"],
        ["spread", "6", "1", "3"],
        ["strict-pack", "2", "1", "1"],
        ["strict-pack", "2", "2", "0"],
        ["strict-spread", "3", "2", "3"],
        ["strict-spread", "4", "1", "0"],
    ] {
        // What is packed or spread goes by the room that there is.
        wait_until("all CPUs are free", || {
            let workers = cluster.run(&["list", "workers", "--json"]).json_lines();
            let free = workers.iter().filter_map(|worker| worker["available_cpus"].as_f64());
            let free: Vec<f64> = free.collect();
            if free == [2.0; 3] { Ok(()) } else { Err(format!("{free:?}")) }
        });
        cluster.says_ok("options", &["bundles", strategy, count, cpus, workers]);
    }
}

#[test]
fn urgent_tasks_go_first_and_a_child_outlives_a_parent_that_is_cancelled_alone() {
    Cluster::with_workers(&[1]).passes("options", "order");
}

#[test]
fn deaths_for_want_of_memory_are_counted_apart() {
    Cluster::with_workers(&[1]).passes("options", "memory");
}

#[test]
fn calls_run_beside_each_other_in_the_order_and_number_that_the_actor_allows() {
    let cluster = Cluster::with_workers(&[2]);
    cluster.join(&["--cpus", "2", "--resource", "second=1"]);
    cluster.passes("options", "concurrency");
}

//! `rdist bench`: its rows, its bad input, and that nothing of its cluster is left.

use crate::cluster::{Cluster, Running};

#[test]
fn rows_are_measured_and_the_cluster_ends() {
    let cluster = Cluster::new();
    let arguments = ["bench", "--quick", "--json", "--filter", "object containing 10k refs"];
    let mut command = cluster.rdist(&arguments);
    command.env("TMPDIR", cluster.home());
    let finished = Running::start(command).finish();
    finished.assert_success();
    let row = finished.json_line("bench_row");
    assert_eq!(row["row"], "single client get object containing 10k refs");
    assert!(row["per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{finished}");
    assert!(row["p50_us"].as_f64() <= row["p99_us"].as_f64(), "{finished}");
    let left: Vec<_> = cluster.home().read_dir().unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn actors_are_made_and_each_row_has_its_aim() {
    let cluster = Cluster::new();
    let mut command =
        cluster.rdist(&["bench", "--quick", "--json", "--filter", "create actors (own process)"]);
    command.env("TMPDIR", cluster.home());
    let finished = Running::start(command).finish();
    finished.assert_success();
    let row = finished.json_line("bench_row");
    let rate = row["per_second"].as_f64().unwrap();
    let share = row["aim_ratio"].as_f64().unwrap();
    assert!((rate / 100.0 - share).abs() < 1e-9 && rate > 0.0, "{finished}");
}

#[test]
fn the_costs_of_a_growing_cluster_are_told_and_plotted() {
    let cluster = Cluster::new();
    let plot = cluster.home().join("scale.svg");
    let mut command = cluster.rdist(&["bench", "scale", "--quick", "--json", "--plot"]);
    command.arg(&plot).args(["--workers", "2", "--simulated", "10,1000"]);
    command.env("TMPDIR", cluster.home());
    let finished = Running::start(command).finish();
    finished.assert_success();
    let row = finished.json_line("bench_scale");
    assert_eq!((&row["kind"], &row["workers"]), (&"processes".into(), &2.into()), "{finished}");
    let figure = |name: &str| row[name].as_f64().unwrap_or_else(|| panic!("{name}: {finished}"));
    assert!(figure("head_bytes") > 1e6 && figure("worker_bytes") > 1e6, "{finished}");
    assert!(figure("head_cpu_ms_per_1000_tasks") > 0.0, "{finished}");
    assert!(figure("worker_idle_cpu_percent") < 50.0, "{finished}");
    let svg = std::fs::read_to_string(&plot).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("core alone"), "{svg}");
    std::fs::remove_file(plot).unwrap();
    let left: Vec<_> = cluster.home().read_dir().unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_filter_without_rows_and_a_file_that_is_no_comparison_are_refused() {
    let cluster = Cluster::new();
    let mut command = cluster.rdist(&["bench", "--quick", "--filter", "nonsense"]);
    command.env("TMPDIR", cluster.home());
    Running::start(command).finish().assert_failure("no row's name holds \"nonsense\"");
    let missing = cluster.home().join("missing.txt");
    let missing = missing.to_str().unwrap();
    cluster.run(&["bench", "--against", missing]).assert_failure("missing.txt");
    std::fs::write(missing, "nothing measured\n").unwrap();
    cluster.run(&["bench", "--against", missing]).assert_failure("ray microbenchmark");
}

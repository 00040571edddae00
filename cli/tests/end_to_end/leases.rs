//! Tasks that are submitted one by one, past the worker.

use std::time::Duration;

use crate::cluster::{Cluster, Running, example, kill, wait_until};

fn start(cluster: &Cluster, scenario: &str, file: &std::path::Path) -> Running {
    let program = example("leases").to_str().unwrap().to_owned();
    cluster.start(&["submit", &program, "--", scenario, file.to_str().unwrap()])
}

fn ends_well(job: Running) {
    let finished = job.finish();
    finished.assert_success();
    assert_eq!(finished.stdout.last().map(String::as_str), Some("ok"), "{finished}");
}

#[test]
fn tasks_one_by_one_are_exact_whatever_they_do_and_whoever_dies() {
    let cluster = Cluster::with_workers(&[2]);
    let stop = cluster.home().join("stop");
    let job = start(&cluster, "all", &stop);
    let driver: i32 = job.wait_for("the driver's process", |line| {
        line.split("driver-pid ").nth(1)?.trim().parse().ok()
    });
    let processes = cluster.processes().into_iter();
    let mut daemons = processes.filter(|(_, line)| line.contains("worker join"));
    let (daemon, _) = daemons.next().unwrap();
    for _ in 0..10 {
        let host = wait_until("there is an executor beside the driver", || {
            let mut executors = cluster.executors(daemon).into_iter();
            executors.find(|pid| *pid != driver).ok_or_else(|| "only the driver runs".to_owned())
        });
        kill(host);
        std::thread::sleep(Duration::from_millis(150));
    }
    std::fs::write(&stop, "").unwrap();
    ends_well(job);
}

#[test]
fn a_task_that_runs_for_long_is_listed_although_it_came_by_a_lease() {
    let cluster = Cluster::with_workers(&[1]);
    let file = cluster.home().join("go-on");
    let job = start(&cluster, "long", &file);
    let task = cluster.listed_task("wait_for_file");
    let explained = cluster.run(&["explain", &task]);
    explained.assert_success();
    assert!(explained.to_string().contains("worker-1: runs in"), "{explained}");
    std::fs::write(&file, "").unwrap();
    ends_well(job);
}

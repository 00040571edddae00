//! Jobs: submitted, followed, left alone, stopped, and failing in every way.

use crate::cluster::{Cluster, Running, example, faults, kill, parent, signal, text, wait_until};
use rustix::process::Signal;
use serde_json::Value;

/// The process id that a task of `wait` prints.
fn task_pid(job: &Running, but: Option<i32>) -> i32 {
    job.wait_for("the task's process", |line| {
        let pid = line.split("task-pid ").nth(1)?.trim().parse().ok()?;
        (Some(pid) != but).then_some(pid)
    })
}

#[test]
fn a_job_prints_what_its_driver_prints() {
    let cluster = Cluster::with_workers(&[2]);
    let finished = cluster.run(&["submit", &faults(), "--", "squares", "100"]);
    finished.assert_success();
    assert_eq!(finished.stdout, ["sum 328350"]);
    cluster.run(&["head", "stop"]).assert_success();
    cluster.assert_all_gone();
}

#[test]
fn an_example_runs_on_two_workers() {
    let cluster = Cluster::with_workers(&[1, 1]);
    let pi = example("pi");
    let finished = cluster.run(&["submit", pi.to_str().unwrap()]);
    finished.assert_success();
    assert!(finished.stdout.iter().any(|line| line.contains("3.1")), "{finished}");
}

#[test]
fn json_is_one_object_per_line_and_ends_with_the_job() {
    let cluster = Cluster::with_workers(&[1]);
    let finished = cluster.run(&["submit", &faults(), "--json", "--", "events"]);
    finished.assert_success();
    let lines = finished.json_lines();
    let last = lines.last().unwrap();
    assert_eq!(last["event"], "job_finished");
    assert_eq!(last["status"], "succeeded");
    assert_eq!(last["metrics"], serde_json::json!({"loss": 1.0}));
    assert!(last["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0));
    assert_eq!(lines.iter().filter(|line| line["event"] == "lap").count(), 2);
    let printed = |stream: &str| -> String {
        let of_stream = lines.iter().filter(|line| line["stream"] == stream);
        of_stream.filter_map(|line| line["text"].as_str()).collect()
    };
    assert_eq!(printed("stdout"), "to standard output\n");
    assert!(printed("stderr").contains("to standard error"));
}

#[test]
fn every_failure_reaches_the_submitter() {
    let cluster = Cluster::with_workers(&[1]);
    let fails = |arguments: &[&str], reason: &str| {
        let program = faults();
        let mut all = vec!["submit", program.as_str(), "--"];
        all.extend(arguments);
        let finished = cluster.run(&all);
        finished.assert_failure(reason);
        finished
    };
    fails(&["panic"], "x is only 3").assert_failure("faults.rs");
    let finished = fails(&["error"], "cannot work with 4");
    assert_eq!(finished.stderr.matches("cannot work with 4").count(), 1, "{finished}");
    fails(&["exit", "5"], "5");
    fails(&["driver-panic"], "the driver gives up");
    fails(&["driver-exit"], "3");
    fails(&["no-such-thing"], "no-such-thing");
    let states: Vec<Value> = cluster.run(&["jobs", "--json"]).json_lines();
    assert_eq!(states.len(), 6);
    assert!(states.iter().all(|job| job["state"] == "failed"), "{states:?}");
}

#[test]
fn the_environment_and_the_folder_travel() {
    let cluster = Cluster::with_workers(&[1]);
    let folder = tempfile::tempdir().unwrap();
    let names = ["RDIST_NUM_REPLICAS", "AWS_REGION", "GIVEN", "RDIST_TOKEN"];
    let mut submit =
        cluster.rdist(&["submit", &faults(), "--env", "GIVEN=a=b", "--", "environment"]);
    submit.args(names).current_dir(folder.path());
    submit.env("RDIST_NUM_REPLICAS", "3").env("AWS_REGION", "eu-1");
    let output = submit.output().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let expected = format!(
        "RDIST_NUM_REPLICAS=3\nAWS_REGION=eu-1\nGIVEN=a=b\nRDIST_TOKEN=(not set)\nfolder={}\n",
        folder.display()
    );
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn with_no_worker_a_job_says_what_it_waits_for_until_the_time_is_over() {
    let cluster = Cluster::with_workers(&[]);
    let submit = ["submit", &faults(), "--timeout", "300ms", "--", "squares", "3"];
    let finished = cluster.run(&submit);
    finished.assert_failure("worker");
    assert!(finished.stderr.contains("rdist worker join"), "{finished}");
    let jobs = cluster.run(&["jobs", "--json"]).json_lines();
    assert_eq!(jobs[0]["state"], "stopped");
}

#[test]
fn a_job_that_waits_starts_when_a_worker_joins() {
    let cluster = Cluster::with_workers(&[]);
    let job = cluster.start(&["submit", &faults(), "--json", "--", "squares", "3"]);
    job.wait_for("that it waits", |line| line.contains("\"waiting\"").then_some(()));
    cluster.join(&["--cpus", "1"]);
    job.finish().assert_success();
}

#[test]
fn what_cannot_run_is_explained() {
    let cluster = Cluster::with_workers(&[1]);
    let job = cluster.start(&["submit", &faults(), "--json", "--", "gpus", "2"]);
    job.wait_for("that it runs", |line| line.contains("\"running\"").then_some(()));
    let task = cluster.listed_task("gpu_only");
    let explained = wait_until("the reason is known", || {
        let explained = cluster.run(&["explain", &task]);
        explained.assert_success();
        let said = explained.stdout.join("\n");
        if said.contains("GPU") { Ok(said) } else { Err(said) }
    });
    assert!(explained.contains('2'), "{explained}");
    cluster.run(&["stop", "job-1"]).assert_success();
    job.finish().assert_failure("stopped");
}

#[test]
fn a_killed_executor_is_replaced_and_its_task_runs_again() {
    let cluster = Cluster::with_workers(&[2]);
    let file = cluster.home().join("go-on");
    let job = cluster.start(&["submit", &faults(), "--", "wait", file.to_str().unwrap()]);
    let first = task_pid(&job, None);
    kill(first);
    task_pid(&job, Some(first));
    std::fs::write(&file, "").unwrap();
    let finished = job.finish();
    finished.assert_success();
    assert!(finished.stdout.iter().any(|line| line == "value 7"), "{finished}");
}

#[test]
fn a_job_survives_the_death_of_a_worker() {
    let cluster = Cluster::with_workers(&[1, 1]);
    let file = cluster.home().join("go-on");
    let job = cluster.start(&["submit", &faults(), "--", "wait", file.to_str().unwrap()]);
    let first = task_pid(&job, None);
    let daemon = parent(first).unwrap();
    assert!(cluster.processes()[&daemon].contains("worker join"), "an executor's parent");
    kill(daemon);
    task_pid(&job, Some(first));
    std::fs::write(&file, "").unwrap();
    job.finish().assert_success();
}

#[test]
fn ctrl_c_detaches_and_says_how_to_go_on() {
    let cluster = Cluster::with_workers(&[1]);
    let file = cluster.home().join("go-on");
    let job = cluster.start(&["submit", &faults(), "--", "wait", file.to_str().unwrap()]);
    task_pid(&job, None);
    signal(&job, Signal::INT);
    let detached = job.finish();
    detached.assert_failure("rdist logs job-1 -f");
    assert!(detached.stderr.contains("rdist stop job-1"), "{detached}");

    let logs = cluster.start(&["logs", "job-1", "-f"]);
    task_pid(&logs, None);
    std::fs::write(&file, "").unwrap();
    let finished = logs.finish();
    finished.assert_success();
    assert!(finished.stdout.iter().any(|line| line == "value 7"), "{finished}");
}

#[test]
fn a_stopped_job_leaves_no_process() {
    let cluster = Cluster::with_workers(&[1]);
    let before = cluster.processes().len();
    let never = cluster.home().join("never");
    let arguments = ["--json", "submit", "-d", &faults(), "--", "wait", never.to_str().unwrap()];
    let detached = cluster.run(&arguments);
    detached.assert_success();
    let submitted = detached.json_line("job_submitted");
    let job = text(&submitted, "job");
    let logs = cluster.start(&["logs", job, "-f"]);
    let executor = task_pid(&logs, None);
    assert!(cluster.processes().contains_key(&executor));
    cluster.run(&["stop", job]).assert_success();
    logs.finish().assert_failure("stopped");
    wait_until("the job's processes are gone", || {
        let processes = cluster.processes();
        if processes.len() == before { Ok(()) } else { Err(format!("{processes:#?}")) }
    });
    cluster.run(&["stop", "job-77"]).assert_failure("job-77");
}

/// Tasks run beside each other in one process, and its lines are told apart all the same.
#[test]
fn every_line_says_which_task_printed_it() {
    let cluster = Cluster::with_workers(&[3]);
    let finished = cluster.run(&["submit", &faults(), "--json", "--", "print", "6"]);
    finished.assert_success();
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for line in finished.json_lines().iter().filter(|line| line["event"] == "output") {
        let task = line["task"].as_str().unwrap_or_else(|| panic!("whose is {line}?"));
        for text in line["text"].as_str().unwrap().lines() {
            assert_eq!(text, format!("I am {task}"));
            *seen.entry(task.to_owned()).or_default() += 1;
        }
    }
    let mut counts: Vec<usize> = seen.into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 400, 400, 400, 400, 400, 400]);
}

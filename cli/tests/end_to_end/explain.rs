//! `rdist explain` and `rdist list objects`: why, where, how often, and who ended it.

use serde_json::json;

use crate::cluster::{Cluster, Running, faults, kill, text, wait_until};

fn task_pid(job: &Running, but: Option<i32>) -> i32 {
    job.wait_for("the task's process", |line| {
        let pid = line.split("task-pid ").nth(1)?.trim().parse().ok()?;
        (Some(pid) != but).then_some(pid)
    })
}

/// Explains until the words are there.
fn explained(cluster: &Cluster, id: &str, words: &[&str]) -> String {
    wait_until("all is explained", || {
        let explained = cluster.run(&["explain", id]);
        let said = format!("{}{}", explained.stdout.join("\n"), explained.stderr);
        match words.iter().find(|word| !said.contains(**word)) {
            None => Ok(said),
            Some(word) => Err(format!("no {word:?} in: {said}")),
        }
    })
}

#[test]
fn a_task_that_was_killed_tells_by_what_and_goes_on_explained() {
    let cluster = Cluster::with_workers(&[2]);
    let file = cluster.home().join("go-on");
    let job = cluster.start(&["submit", &faults(), "--", "wait", file.to_str().unwrap()]);
    let first = task_pid(&job, None);
    kill(first);
    task_pid(&job, Some(first));
    let task = wait_until("the task is listed", || {
        let tasks = cluster.run(&["list", "tasks", "--json"]).json_lines();
        let running = tasks.iter().find(|task| task.to_string().contains("waits_for"));
        running.map(|task| text(task, "task").to_owned()).ok_or_else(|| format!("{tasks:?}"))
    });
    let words =
        ["runs in executor", "in its try 2", "try 1 on worker-1", "signal 9", "tried again"];
    explained(&cluster, &task, &words);
    let object = format!("{task}/return/0");
    explained(&cluster, &object, &["its task runs in executor", "kept for executor"]);
    explained(&cluster, "job-1", &["job-1 (faults) is running", "tasks running", "1 objects"]);
    let rows = cluster.run(&["list", "objects", "--json"]).json_lines();
    let row = rows.iter().find(|row| row["object"] == object.as_str()).unwrap();
    assert_eq!((&row["state"], &row["owner"]), (&"pending".into(), &"worker-1".into()));
    assert!(row["held_by"][0].as_str().unwrap().starts_with("executor-"), "{row}");
    std::fs::write(&file, "").unwrap();
    job.finish().assert_success();
    explained(&cluster, &task, &["try 2 ended well on worker-1", "job-1 has succeeded"]);
}

#[test]
fn a_task_that_failed_is_explained_after_its_job() {
    let cluster = Cluster::with_workers(&[1]);
    let failed = cluster.run(&["submit", &faults(), "--", "exit", "5"]);
    failed.assert_failure("status 5");
    let task = failed
        .stderr
        .split_whitespace()
        .find(|word| word.starts_with("task-") && word.len() == "task-".len() + 32);
    // The driver's own error names the task that failed first.
    let task = task.unwrap_or_else(|| panic!("no task in {failed}"));
    explained(&cluster, task, &["status 5", "not tried again", "job-1 has failed"]);
    explained(&cluster, "job-1", &["is failed", "status 5"]);
    cluster.run(&["explain", "task-1"]).assert_failure("no id");
    cluster.run(&["explain", "job-9"]).assert_failure("no job-9");
}

#[test]
fn what_waits_for_room_says_so_as_a_task_and_as_an_object() {
    let cluster = Cluster::with_workers(&[1]);
    let job = cluster.start(&["submit", &faults(), "--json", "--", "gpus", "2"]);
    job.wait_for("that it runs", |line| line.contains("\"running\"").then_some(()));
    let task = cluster.listed_task("gpu_only");
    explained(&cluster, &format!("{task}/return/0"), &["needs 2 GPU", "kept for"]);
    explained(&cluster, "job-1", &["tasks spilled", "needs 2 GPU"]);
    cluster.run(&["stop", "job-1"]).assert_success();
    job.finish().assert_failure("stopped");
}

#[test]
fn a_list_that_is_cut_says_so() {
    let cluster = Cluster::with_workers(&[1]);
    cluster.run(&["submit", "--detach", &faults(), "--", "stuck", "30"]).assert_success();
    let list = |options: &[&str]| cluster.run(&[&["list", "tasks"], options].concat());
    wait_until("all tasks are listed", || match list(&["--json"]).json_lines() {
        // The driver is one more.
        rows if rows.len() == 31 => Ok(()),
        rows => Err(format!("{} tasks", rows.len())),
    });
    let rows = list(&["--json", "--limit", "7"]).json_lines();
    assert_eq!(rows.len(), 8, "{rows:?}");
    assert_eq!(rows[7], json!({"event": "rows_left_out", "shown": 7, "total": 31}));
    let people = list(&["--limit", "7"]);
    assert_eq!(people.stderr.trim(), "7 of 31 shown; --limit 31 shows more");
    assert_eq!(list(&["--limit", "31"]).stderr, "");
    cluster.run(&["stop", "job-1"]).assert_success();
}

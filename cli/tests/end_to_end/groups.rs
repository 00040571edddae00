//! Work is where groups and labels say, and jobs share what there is. Groups: reserved whole,
//! used, moved when a worker dies, and given back.

use crate::cluster::{Cluster, Running, example, kill, number, text, wait_until};

fn groups() -> String {
    example("groups").to_str().unwrap().to_owned()
}

/// The three numbers of a line that starts with `word`.
fn hosts(job: &Running, word: &str) -> [i32; 3] {
    job.wait_for(word, |line| {
        let numbers = line.strip_prefix(word)?.split_whitespace();
        let numbers: Vec<i32> = numbers.filter_map(|number| number.parse().ok()).collect();
        numbers.try_into().ok()
    })
}

#[test]
fn bundles_are_where_the_strategy_says_and_hold_what_they_say() {
    let cluster = Cluster::with_workers(&[2, 2]);
    for mode in ["apart", "exclusive"] {
        let finished = cluster.run(&["submit", &groups(), "--", mode]);
        finished.assert_success();
        assert!(finished.stdout.iter().any(|line| line.starts_with(mode)), "{finished}");
    }
    let left = cluster.run(&["list", "placement-groups"]);
    assert_eq!(left.stdout, ["no placement group is reserved"]);
    wait_until("all CPUs are free again", || {
        let workers = cluster.run(&["list", "workers", "--json"]).json_lines();
        let free: f64 = workers.iter().filter_map(|w| w["available_cpus"].as_f64()).sum();
        if free == 4.0 { Ok(()) } else { Err(format!("{free} are")) }
    });
}

#[test]
fn a_group_moves_when_a_worker_dies() {
    let cluster = Cluster::with_workers(&[1, 1, 1]);
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    let program = groups();
    let job = cluster.start(&["submit", &program, "--", "moved", go.to_str().unwrap()]);
    let [first, second, driver] = hosts(&job, "placed ");
    assert_ne!(first, second);

    let listed = cluster.run(&["list", "placement-groups", "--json"]).json_lines();
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(text(&listed[0], "name"), "pair");
    assert_eq!(text(&listed[0], "state"), "reserved");
    assert_eq!(text(&listed[0], "strategy"), "strict spread");
    let explained = cluster.run(&["explain", text(&listed[0], "group")]);
    explained.assert_success();
    assert!(explained.stdout.join("\n").contains("all 2 bundles are reserved"), "{explained}");

    let lost = if first == driver { second } else { first };
    kill(lost);
    wait_until("the bundle is reserved elsewhere", || {
        let listed = cluster.run(&["list", "placement-groups", "--json"]).json_lines();
        let workers = cluster.run(&["list", "workers", "--json"]).json_lines();
        let dead = workers.iter().any(|worker| number(worker, "pid") == lost);
        let bundles = listed[0]["bundles"].to_string();
        match !dead && listed[0]["state"] == "reserved" && !bundles.contains("nowhere") {
            true => Ok(()),
            false => Err(format!("{listed:?} on {workers:?}")),
        }
    });
    std::fs::write(&go, "").unwrap();
    let [third, fourth, actor] = hosts(&job, "then ");
    assert!(third != lost && fourth != lost && third != fourth, "{third} {fourth} after {lost}");
    assert_eq!(actor, third);
    job.finish().assert_success();
}

#[test]
fn a_job_that_is_stopped_leaves_no_group() {
    let cluster = Cluster::with_workers(&[2]);
    let folder = tempfile::tempdir().unwrap();
    let never = folder.path().join("never");
    let program = groups();
    let job = cluster.start(&["submit", &program, "--", "holds", never.to_str().unwrap()]);
    job.wait_for("a task", |line| line.contains("running ").then_some(()));
    let tasks = cluster.run(&["list", "tasks", "--json"]).json_lines();
    let waits = tasks.iter().find(|task| task["state"] == "queued").unwrap();
    let explained = cluster.run(&["explain", text(waits, "task")]);
    assert!(explained.stdout.join("\n").contains("in bundle 0 of group-"), "{explained}");
    cluster.run(&["stop", "job-1"]).assert_success();
    wait_until("all CPUs are free again", || {
        let workers = cluster.run(&["list", "workers", "--json"]).json_lines();
        let free = workers[0]["available_cpus"].as_f64();
        if free == Some(2.0) { Ok(()) } else { Err(format!("{workers:?}")) }
    });
    let left = cluster.run(&["list", "placement-groups"]);
    assert_eq!(left.stdout, ["no placement group is reserved"]);
}

#[test]
fn labels_decide_where_tasks_run() {
    let cluster = Cluster::new();
    cluster.start_head();
    let first = cluster.join(&["--cpus", "1", "--label", "zone=a"]);
    let second = cluster.join(&["--cpus", "1", "--label", "zone=b", "--label", "disk=nvme"]);
    let job = cluster.start(&["submit", &groups(), "--", "labels"]);
    let [a, b, _] = hosts(&job, "labels ");
    assert_eq!([a, b], [number(&first, "pid"), number(&second, "pid")]);
    // The last task waits for a worker like none.
    let waits = wait_until("the head has said why", || {
        let tasks = cluster.run(&["list", "tasks", "--json"]).json_lines();
        let spilled = tasks.iter().find(|task| task["state"] == "spilled");
        let spilled = spilled.ok_or_else(|| format!("{tasks:?}"))?;
        let explained = cluster.run(&["explain", text(spilled, "task")]).stdout.join("\n");
        if explained.contains("zone=nowhere") { Ok(explained) } else { Err(explained) }
    });
    assert!(waits.contains("needs a worker with zone=nowhere; no worker is like that"), "{waits}");
    cluster.join(&["--cpus", "1", "--label", "zone=nowhere"]);
    job.finish().assert_success();
}

#[test]
fn a_long_job_does_not_keep_a_short_one_waiting() {
    let cluster = Cluster::with_workers(&[1]);
    let mut long = cluster.start(&["submit", &groups(), "--", "sleep", "20000", "5"]);
    long.wait_for("its first task", |line| line.contains("begun").then_some(()));
    let short = ["submit", &groups(), "--weight", "3", "--", "sleep", "60", "5"];
    cluster.run(&short).assert_success();
    assert!(!long.has_ended(), "the long job has 100 seconds of work");
    cluster.run(&["stop", "job-1"]).assert_success();
}

#[test]
fn a_job_holds_no_more_than_its_quota() {
    let cluster = Cluster::with_workers(&[2, 2]);
    let file = cluster.home().join("sleeps.toml");
    let plan = "quota = { CPU = 2 }\n[[task]]\ncommand = \"sleep 600\"\narray = \"1-4\"\n";
    std::fs::write(&file, plan).unwrap();
    let mut sleeps = cluster.start(&["submit", file.to_str().unwrap()]);
    let running = |tasks: &[serde_json::Value]| {
        let mut sleeping: Vec<&str> = Vec::new();
        for task in tasks.iter().filter(|task| task["state"] == "running") {
            if task["request"] == "1 CPU" && !sleeping.contains(&text(task, "task")) {
                sleeping.push(text(task, "task"));
            }
        }
        sleeping.len()
    };
    let waits = wait_until("two run and the others wait", || {
        let tasks = cluster.run(&["list", "tasks", "--json"]).json_lines();
        assert!(running(&tasks) <= 2, "{tasks:?}");
        let spilled: Vec<_> = tasks.iter().filter(|task| task["state"] == "spilled").collect();
        match spilled.first() {
            Some(first) if spilled.len() == 2 && running(&tasks) == 2 => {
                let explained = cluster.run(&["explain", text(first, "task")]).stdout.join("\n");
                if explained.contains("quota of 2") { Ok(explained) } else { Err(explained) }
            }
            _ => Err(format!("{tasks:?}")),
        }
    });
    let wanted = "waits for 1 CPU of its job's quota of 2, of which 2 is in use";
    assert!(waits.contains(wanted), "{waits}");
    // There is room for others.
    cluster.run(&["submit", "--each", "true", "a", "b", "c"]).assert_success();
    assert!(!sleeps.has_ended(), "the first job has work for 20 minutes");
    cluster.run(&["stop", "job-1"]).assert_success();
    // What is larger than the quota waits, and says so.
    let large = ["submit", "--quota", "CPU=0.5", "--detach", "--each", "sleep", "1"];
    cluster.run(&large).assert_success();
    wait_until("the head has said why", || {
        let tasks = cluster.run(&["list", "tasks", "--json"]).json_lines();
        let spilled = tasks.iter().find(|task| task["state"] == "spilled");
        let spilled = spilled.ok_or_else(|| format!("{tasks:?}"))?;
        let explained = cluster.run(&["explain", text(spilled, "task")]).stdout.join("\n");
        let why = "needs 1 CPU; the quota of its job is 0.5";
        if explained.contains(why) { Ok(()) } else { Err(explained) }
    });
    let refused = cluster.run(&["submit", "--quota", "CPU=0", "--each", "true", "a"]);
    refused.assert_failure("--quota CPU=0: it could never hold any");
}

//! Daemons: started in the background, seen, drained, stopped, killed; and who may join.

use std::net::UdpSocket;

use crate::cluster::{Cluster, Running, faults, kill, number, signal, text, wait_until};
use rustix::process::Signal;

#[test]
fn a_head_starts_shows_workers_and_stops_with_them() {
    let cluster = Cluster::new();
    let head = cluster.start_head();
    assert!(!text(&head, "address").ends_with(":0"));
    let worker = cluster.join(&["--cpus", "2", "--label", "zone=a", "--resource", "tpu=3"]);

    let status = cluster.run(&["status"]);
    status.assert_success();
    let shown = status.stdout.join("\n");
    assert!(shown.contains(text(&head, "address")), "{shown}");
    assert!(shown.contains(text(&worker, "worker")), "{shown}");
    let listed = cluster.run(&["list", "workers", "--json"]);
    assert_eq!(listed.json_lines().len(), 1, "{listed}");

    cluster.run(&["head", "stop"]).assert_success();
    cluster.assert_all_gone();
    cluster.run(&["status"]).assert_failure("rdist head start");
}

#[test]
fn a_second_head_in_the_same_folder_is_refused_and_leaves_the_first_alone() {
    let cluster = Cluster::with_workers(&[]);
    let second = cluster.run(&["head", "start", "--listen", "127.0.0.1:0"]);
    second.assert_failure("already");
    cluster.run(&["status"]).assert_success();
}

/// Every daemon changes its certificate many times under a job, its executors and its peers.
#[test]
fn certificates_change_under_a_job_that_runs() {
    let cluster = Cluster::new();
    let often = ["--rotate-every", "50ms"];
    let head = [&["head", "start", "--listen", "127.0.0.1:0"][..], &often].concat();
    cluster.run(&head).assert_success();
    cluster.join(&[&["--cpus", "1"][..], &often].concat());
    cluster.join(&[&["--cpus", "1"][..], &often].concat());
    let file = cluster.home().join("go-on");
    let job = cluster.start(&["submit", &faults(), "--", "wait", file.to_str().unwrap()]);
    job.wait_for("the task", |line| line.contains("task-pid").then_some(()));
    let rotations = |log: &str| log.matches("has a new certificate").count();
    wait_until("all have changed twice", || {
        let logs = std::fs::read_dir(cluster.home().join("logs")).unwrap().flatten();
        let counts: Vec<usize> =
            logs.map(|entry| rotations(&std::fs::read_to_string(entry.path()).unwrap())).collect();
        let all = counts.len() == 3 && counts.iter().all(|count| *count >= 2);
        if all { Ok(()) } else { Err(format!("{counts:?}")) }
    });
    cluster.join(&["--cpus", "1"]);
    let squares = cluster.run(&["submit", &faults(), "--", "squares", "50"]);
    squares.assert_success();
    std::fs::write(&file, "").unwrap();
    job.finish().assert_success();
    cluster.run(&["head", "stop"]).assert_success();
    cluster.assert_all_gone();
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let cluster = Cluster::new();
    cluster.run(&["head", "start", "--listen", &address]).assert_failure(&address);
    cluster.assert_all_gone();
}

#[test]
fn a_head_in_the_foreground_ends_on_sigterm() {
    let cluster = Cluster::new();
    let head =
        cluster.start(&["--json", "head", "start", "--foreground", "--listen", "127.0.0.1:0"]);
    head.wait_for("head_ready", |line| line.contains("head_ready").then_some(()));
    signal(&head, Signal::TERM);
    head.finish().assert_success();
    cluster.assert_all_gone();
}

#[test]
fn workers_leave_one_by_one_or_all_at_once() {
    let cluster = Cluster::with_workers(&[1, 1]);
    let third = cluster.join(&["--cpus", "1"]);
    cluster.run(&["worker", "leave", text(&third, "worker")]).assert_success();
    let rows = |wanted: usize| {
        wait_until("the head lists the workers that are left", || {
            let rows = cluster.run(&["list", "workers", "--json"]).json_lines();
            if rows.len() == wanted { Ok(()) } else { Err(format!("{rows:?}")) }
        });
    };
    rows(2);
    cluster.run(&["worker", "leave"]).assert_success();
    rows(0);
    assert_eq!(cluster.processes().len(), 1, "only the head is left");
    cluster.run(&["worker", "leave"]).assert_failure("rdist worker join");
}

#[test]
fn a_drained_worker_ends_its_work_first() {
    let cluster = Cluster::with_workers(&[1]);
    let file = cluster.home().join("go-on");
    let job = cluster.start(&["submit", &faults(), "--", "wait", file.to_str().unwrap()]);
    job.wait_for("the task's process", |line| line.contains("task-pid").then_some(()));
    cluster.run(&["worker", "drain"]).assert_success();
    std::fs::write(&file, "").unwrap();
    let finished = job.finish();
    finished.assert_success();
    wait_until("the worker has left", || {
        let processes = cluster.processes();
        if processes.len() == 1 { Ok(()) } else { Err(format!("{processes:?}")) }
    });
}

#[test]
fn killing_a_worker_daemon_leaves_no_executor_behind() {
    let cluster = Cluster::with_workers(&[]);
    let worker = cluster.join(&["--cpus", "1"]);
    let never = cluster.home().join("never");
    let job = cluster.start(&["submit", &faults(), "--", "wait", never.to_str().unwrap()]);
    job.wait_for("the task's process", |line| line.contains("task-pid").then_some(()));
    kill(number(&worker, "pid"));
    let (head, client) = (1, 1);
    wait_until("only the head and the client are left", || {
        let processes = cluster.processes();
        if processes.len() == head + client { Ok(()) } else { Err(format!("{processes:#?}")) }
    });
    cluster.run(&["head", "stop"]).assert_success();
    job.finish().assert_failure("");
    cluster.assert_all_gone();
}

/// A second state folder stands for a second machine.
#[test]
fn another_machine_joins_with_a_token_and_only_with_a_good_one() {
    let cluster = Cluster::new();
    let head = cluster.start_head();
    let address = text(&head, "address");
    let token = |arguments: &[&str]| {
        let mut all = vec!["--json", "token", "create"];
        all.extend(arguments);
        let made = cluster.run(&all);
        made.assert_success();
        made.json_line("token_created")
    };
    let far = Cluster::new();
    let join = |token: &str| {
        far.run(&["worker", "join", address, "--token", token, "--listen", "127.0.0.1:0"])
    };

    join("nonsense").assert_failure("token");
    let good = token(&[]);
    let mut wrong = text(&good, "token").to_owned();
    let last = if wrong.pop() == Some('A') { 'B' } else { 'A' };
    wrong.push(last);
    join(&wrong).assert_failure("token");
    let client = token(&["--role", "client"]);
    join(text(&client, "token")).assert_failure("worker");
    let expired = token(&["--ttl", "0s"]);
    join(text(&expired, "token")).assert_failure("expired");
    let revoked = token(&[]);
    cluster.run(&["token", "revoke", text(&revoked, "id")]).assert_success();
    join(text(&revoked, "token")).assert_failure("revoked");

    let other = Cluster::new();
    let foreign = other.start_head();
    join(text(&foreign, "token")).assert_failure("");

    assert!(far.processes().is_empty(), "a refused worker does not stay");
    join(text(&good, "token")).assert_success();
    assert_eq!(cluster.run(&["list", "workers", "--json"]).json_lines().len(), 1);
    assert_eq!(token(&["--uses", "1"])["uses"], 1);
    cluster.run(&["token", "list"]).assert_success();
}

#[test]
fn garbage_on_the_port_leaves_the_head_undisturbed() {
    let cluster = Cluster::new();
    let head = cluster.start_head();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut state = 1_u64;
    for length in (0..1_500).step_by(7) {
        let garbage: Vec<u8> = (0..length)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        socket.send_to(&garbage, text(&head, "address")).unwrap();
    }
    cluster.join(&["--cpus", "1"]);
    cluster.run(&["submit", &faults(), "--", "squares", "3"]).assert_success();
}

#[test]
fn a_killed_head_comes_back_and_the_job_ends_with_its_history() {
    let cluster = Cluster::new();
    let head = cluster.start_head();
    cluster.join(&["--cpus", "1"]);
    let file = cluster.home().join("go-on");
    let job = cluster.start(&["submit", &faults(), "--", "wait", file.to_str().unwrap()]);
    job.wait_for("the task's process", |line| line.contains("task-pid").then_some(()));
    let id = only_job(&cluster);

    kill(number(&head, "pid"));
    let address = text(&head, "address");
    cluster.run(&["head", "start", "--listen", address]).assert_success();
    std::fs::write(&file, "").unwrap();
    let logs = cluster.run(&["logs", &id, "-f"]);
    logs.assert_success();
    assert!(logs.stdout.iter().any(|line| line.contains("value 7")), "{logs}");
    assert_eq!(cluster.run(&["jobs", "--json"]).json_lines()[0]["state"], "succeeded");
    drop::<Running>(job);
    cluster.run(&["head", "stop"]).assert_success();
    cluster.assert_all_gone();
}

fn only_job(cluster: &Cluster) -> String {
    let jobs = cluster.run(&["jobs", "--json"]).json_lines();
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    text(&jobs[0], "job").to_owned()
}

//! Processes that are stopped (SIGSTOP) hold nobody up for long, and what they say late, when they
//! go on, is ignored.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::cluster::{Cluster, kill, number, text};
use crate::dice::Dice;
use crate::network::Network;
use crate::settings::seed;

/// Within which a stopped process is known to be lost.
const LOSS: Duration = Duration::from_secs(5);

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[test]
fn a_stopped_worker_is_lost_and_comes_back_as_another_when_it_goes_on() {
    let network = Network::start(4);
    let waves = network.waves(100_000, 1_000, 2);
    let pid = number(&waves.workers[1], "pid");
    signal(pid, Signal::STOP);
    let lost = network.wait_for_workers(2);
    assert!(lost < LOSS, "{lost:?}");
    waves.more(2);
    // Its executors have worked on, and their results wait in its memory.
    signal(pid, Signal::CONT);
    network.wait_for_workers(3);
    assert!(!network.workers().contains(&text(&waves.workers[1], "worker").to_owned()));
    assert!(network.cluster.processes().contains_key(&pid), "it is the same process");
    waves.more(1);
    waves.end();
    network.cluster.run(&["head", "stop"]).assert_success();
    network.cluster.assert_all_gone();
}

#[test]
fn a_head_that_is_told_to_be_patient_gives_nobody_up_too_soon() {
    let cluster = Cluster::new();
    let network = Network::behind(cluster, 7, &["--dead-after", "8s"]);
    let waves = network.waves(1_000, 0, 2);
    let (pid, before) = (number(&waves.workers[1], "pid"), network.workers());
    signal(pid, Signal::STOP);
    // Longer than anybody waits who was told nothing.
    std::thread::sleep(Duration::from_secs(5));
    signal(pid, Signal::CONT);
    waves.more(2);
    assert_eq!(network.workers(), before);
    let runs = waves.end();
    assert!(runs.iter().all(|runs| *runs == 1), "run twice or never: {runs:?}");
}

#[test]
fn a_stopped_executor_is_lost_and_its_task_runs_again() {
    let network = Network::start(5);
    let go = network.cluster.home().join("go");
    let (running, _) = network.submit(&["long", go.to_str().unwrap(), "1"], 1);
    let pid = |line: &str| -> Option<i32> { line.split_once("task-pid ")?.1.trim().parse().ok() };
    let first = running.wait_for("that the task runs", pid);
    signal(first, Signal::STOP);
    let stopped = Instant::now();
    let second = running.wait_for("that it runs again", |line| pid(line).filter(|p| *p != first));
    assert!(stopped.elapsed() < LOSS, "{:?}", stopped.elapsed());
    signal(second, Signal::STOP);
    let finished = running.finish();
    finished.assert_failure("the process was stopped (by SIGSTOP or its like) for 3 s");
}

#[test]
fn a_stopped_head_holds_up_no_work_and_loses_no_worker() {
    let network = Network::start(6);
    let waves = network.steps(2);
    let pid = number(&network.head, "pid");
    signal(pid, Signal::STOP);
    let back = Instant::now() + LOSS;
    waves.work_goes_on();
    // Longer than the silence after which anybody is given up.
    std::thread::sleep(back.saturating_duration_since(Instant::now()));
    signal(pid, Signal::CONT);
    let recovery = waves.more(2);
    assert!(recovery < Duration::from_secs(10), "{recovery:?}");
    network.wait_for_workers(3);
    let runs = waves.end();
    assert!(runs.iter().all(|runs| *runs == 1), "run twice or never: {runs:?}");
}

#[test]
fn a_killed_head_loses_no_task_and_no_actor_while_work_goes_on() {
    let network = Network::start(9);
    let waves = network.steps(2);
    let mut head = network.head.clone();
    let mut dice = Dice(seed(9));
    for _ in 0..3 {
        kill(number(&head, "pid"));
        let back = Instant::now() + Duration::from_millis(dice.below(5_000) as u64);
        waves.work_goes_on();
        std::thread::sleep(back.saturating_duration_since(Instant::now()));
        head = network.cluster.start_head_with(&["--listen", text(&head, "address")]);
        let listed = network.wait_for_workers(3);
        assert!(listed < Duration::from_secs(10), "{listed:?}");
        waves.work_goes_on();
    }
    let runs = waves.end_of(&network.cluster);
    assert!(runs.iter().all(|runs| *runs == 1), "run twice or never: {runs:?}");
    network.cluster.run(&["head", "stop"]).assert_success();
    network.cluster.assert_all_gone();
}

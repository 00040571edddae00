//! Processes that are stopped (SIGSTOP) hold nobody up for long, and what they say late, when they
//! go on, is ignored.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::cluster::{number, wait_until};
use crate::network::Network;

/// Within which a stopped process is known to be lost.
const LOSS: Duration = Duration::from_secs(5);

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[test]
fn a_stopped_worker_is_lost_and_ends_when_it_goes_on() {
    let network = Network::start(4);
    let waves = network.waves(100_000, 1_000, 2);
    let pid = number(&waves.workers[1], "pid");
    signal(pid, Signal::STOP);
    let lost = network.wait_for_workers(2);
    assert!(lost < LOSS, "{lost:?}");
    waves.more(2);
    // Its executors have worked on, and their results wait in its memory.
    signal(pid, Signal::CONT);
    wait_until("the worker that goes on has ended", || {
        let left = network.cluster.processes();
        if left.contains_key(&pid) { Err(format!("{left:?}")) } else { Ok(()) }
    });
    waves.more(1);
    waves.end();
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
    let waves = network.waves(100_000, 0, 2);
    let pid = number(&network.head, "pid");
    signal(pid, Signal::STOP);
    // Longer than the silence after which anybody is given up.
    std::thread::sleep(Duration::from_secs(5));
    signal(pid, Signal::CONT);
    let recovery = waves.more(2);
    assert!(recovery < Duration::from_secs(10), "{recovery:?}");
    network.wait_for_workers(3);
    let runs = waves.end();
    assert!(runs.iter().all(|runs| *runs == 1), "run twice or never: {runs:?}");
}

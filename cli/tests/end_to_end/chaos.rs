//! Processes are killed without end while a job checks its own results. A short time of it is a
//! test; `cargo xtask chaos --minutes 5 --seed 1` is the same for longer, with more to do and heads
//! that stay away for longer.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::{Cluster, example, kill, number, parent, text, wait_until};
use crate::dice::Dice;
use crate::settings::setting;

/// How often an executor is killed.
const EXECUTOR_EVERY: Duration = Duration::from_millis(200);
/// How often a worker daemon is, and another one joins.
const WORKER_EVERY: Duration = Duration::from_secs(4);
/// How often the head is.
const HEAD_EVERY: Duration = Duration::from_secs(9);
/// Most seconds that the head is away.
const HEAD_AWAY: u64 = 2;
/// Tasks of a round of the job, and counters that are called in it.
const TASKS: u64 = 400;
const COUNTERS: u64 = 40;

struct Chaos {
    cluster: Cluster,
    dice: Dice,
    head: Value,
    workers: Vec<Value>,
    job: String,
    driver: i32,
    killed: [usize; 3],
}

impl Chaos {
    /// Starts the cluster and the job.
    fn start(seed: u64, seconds: u64) -> Self {
        let cluster = Cluster::new();
        let head = cluster.start_head();
        let workers = (0..3).map(|_| cluster.join(&["--cpus", "1"])).collect();
        let program = example("chaos");
        let (tasks, counters) =
            (setting("CHAOS_TASKS", TASKS), setting("CHAOS_COUNTERS", COUNTERS));
        let arguments = [seconds, tasks, counters].map(|number| number.to_string());
        let mut submit = vec!["submit", "--detach", program.to_str().unwrap(), "--"];
        submit.extend(arguments.iter().map(String::as_str));
        cluster.run(&submit).assert_success();
        let jobs = cluster.run(&["jobs", "--json"]).json_lines();
        let job = text(&jobs[0], "job").to_owned();
        let driver = wait_until("the driver has said which process it is", || {
            let logs = cluster.run(&["logs", &job]);
            let pid = logs.stdout.iter().find_map(|line| line.split("driver-pid ").nth(1));
            pid.and_then(|pid| pid.parse().ok()).ok_or_else(|| logs.to_string())
        });
        Self { cluster, dice: Dice(seed), head, workers, job, driver, killed: [0; 3] }
    }

    fn kill_an_executor(&mut self) {
        let daemons = self.workers.iter().map(|worker| number(worker, "pid"));
        let executors: Vec<i32> = daemons
            .flat_map(|daemon| self.cluster.executors(daemon))
            .filter(|pid| *pid != self.driver)
            .collect();
        if !executors.is_empty() {
            kill(executors[self.dice.below(executors.len())]);
            self.killed[0] += 1;
        }
    }

    /// Not the driver's: with it the job would start from its beginning.
    fn kill_a_worker(&mut self) {
        let home = parent(self.driver);
        let others: Vec<usize> = (0..self.workers.len())
            .filter(|at| Some(number(&self.workers[*at], "pid")) != home)
            .collect();
        let doomed = self.workers.swap_remove(others[self.dice.below(others.len())]);
        kill(number(&doomed, "pid"));
        self.killed[1] += 1;
        self.workers.push(self.cluster.join(&["--cpus", "1"]));
    }

    fn kill_the_head(&mut self) {
        kill(number(&self.head, "pid"));
        self.killed[2] += 1;
        let most = Duration::from_secs(setting("CHAOS_HEAD_AWAY", HEAD_AWAY));
        let away = self.dice.below(most.as_millis() as usize);
        let back = Instant::now() + Duration::from_millis(away as u64);
        while Instant::now() < back {
            std::thread::sleep(EXECUTOR_EVERY);
            self.kill_an_executor();
        }
        let address = text(&self.head, "address").to_owned();
        let started = self.cluster.run(&["--json", "head", "start", "--listen", &address]);
        started.assert_success();
        self.head = started.json_line("head_ready");
    }

    fn state(&self) -> String {
        let jobs = self.cluster.run(&["jobs", "--json"]);
        text(&jobs.json_lines()[0], "state").to_owned()
    }

    /// Kills for a while, and lets the job come to its end.
    fn run(&mut self, time: Duration) {
        let end = Instant::now() + time;
        let mut next_worker = Instant::now() + WORKER_EVERY;
        let mut next_head = Instant::now() + HEAD_EVERY / 2;
        while Instant::now() < end {
            // The rhythm of the test, not a wait for something.
            std::thread::sleep(EXECUTOR_EVERY);
            self.kill_an_executor();
            if Instant::now() >= next_worker {
                self.kill_a_worker();
                next_worker = Instant::now() + WORKER_EVERY;
            }
            if Instant::now() >= next_head {
                self.kill_the_head();
                next_head = Instant::now() + HEAD_EVERY;
            }
        }
        wait_until("the job has ended", || match self.state().as_str() {
            "running" => Err(self.job.clone()),
            _ => Ok(()),
        });
    }
}

#[test]
fn results_are_right_and_counters_exact_while_processes_are_killed() {
    let (seed, seconds) = (setting("CHAOS_SEED", 1), setting("CHAOS_SECONDS", 12));
    let mut chaos = Chaos::start(seed, seconds);
    chaos.run(Duration::from_secs(seconds));
    let logs = chaos.cluster.run(&["logs", &chaos.job]);
    let exact = logs.stdout.iter().find(|line| line.contains("exact: "));
    let state = chaos.state();
    let [executors, workers, heads] = chaos.killed;
    println!("seed {seed}: killed {executors} executors, {workers} workers, {heads} heads");
    println!("{state}; {}", exact.map_or("not exact", String::as_str));
    assert!(state == "succeeded" && exact.is_some(), "{state}: {logs}");
    assert!(executors > 0 && workers > 0 && heads > 0, "everything was killed");
    for what in ["tasks", "actors", "objects"] {
        wait_until("the job has left nothing behind", || {
            let rows = chaos.cluster.run(&["list", what, "--json"]).json_lines();
            if rows.is_empty() { Ok(()) } else { Err(format!("{what}: {rows:?}")) }
        });
    }
    chaos.cluster.run(&["head", "stop"]).assert_success();
    chaos.cluster.assert_all_gone();
}

//! Daemons that reach each other only through a network that damages what it carries.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::{Cluster, Finished, Running, example, text, wait_until};
use crate::relay::{Damage, Relay};
use crate::settings::{seed, setting};

/// In each wave of the program.
const TASKS: usize = 40;
/// Within which everything goes on after the network has healed.
pub(crate) const RECOVERY: Duration = Duration::from_secs(10);
/// Within which a lost worker is known to be lost, with what a busy machine takes on top.
pub(crate) const LOSS: Duration = Duration::from_secs(5);

/// Workers behind a relay, and a job that works in waves across them.
pub(crate) struct Network {
    pub(crate) cluster: Cluster,
    pub(crate) relay: Relay,
    pub(crate) head: Value,
    entrance: SocketAddr,
    /// Of each worker, in MiB.
    store: u64,
}

impl Network {
    /// A head that workers reach through the relay, which does the damage of that number.
    pub(crate) fn start(number: u64) -> Self {
        Self::of(Cluster::new(), number)
    }

    /// The same, of a cluster that was prepared.
    pub(crate) fn of(cluster: Cluster, number: u64) -> Self {
        Self::behind(cluster, number, &[])
    }

    /// The same, of a head with these options.
    pub(crate) fn behind(cluster: Cluster, number: u64, options: &[&str]) -> Self {
        let relay = Relay::start(seed(number));
        let head = cluster.start_head_with(options);
        let (door, entrance) = relay.door();
        relay.lead(door, address(&head));
        Self { cluster, relay, head, entrance, store: 256 }
    }

    /// A worker that reaches the head, and is reached by others, through the relay.
    pub(crate) fn join(&self, arguments: &[&str]) -> Value {
        let (door, outside) = self.relay.door();
        let outside = outside.to_string();
        let listen = ["--listen", "127.0.0.1:0", "--advertise", &outside];
        let worker = self.join_as(&[&listen, arguments].concat());
        self.relay.lead(door, address(&worker));
        worker
    }

    /// A worker that reaches the head through the relay, and listens where its arguments say.
    fn join_as(&self, arguments: &[&str]) -> Value {
        let token = fs::read_to_string(self.cluster.home().join("join.token")).unwrap();
        let entrance = self.entrance.to_string();
        let mut all = vec!["--json", "worker", "join", &entrance, "--token", token.trim()];
        let store = format!("{}MiB", self.store);
        all.extend(["--store-memory", &store]);
        all.extend(arguments);
        let mut join = self.cluster.rdist(&all);
        // As if each were a machine of its own.
        join.env("RDIST_SAME_HOST", "off");
        let finished = Running::start(join).finish();
        finished.assert_success();
        finished.json_line("worker_ready")
    }

    /// Starts the program on a first worker, then joins others that have `spot`.
    pub(crate) fn submit(&self, arguments: &[&str], spots: usize) -> (Running, Vec<Value>) {
        let mut workers = vec![self.join(&["--cpus", "2"])];
        let running = submit(&self.cluster, arguments);
        workers.extend(self.join_spots(spots));
        (running, workers)
    }

    fn join_spots(&self, spots: usize) -> impl Iterator<Item = Value> {
        (0..spots).map(|_| self.join(&["--cpus", "1", "--resource", "spot=1"]))
    }

    /// The program's waves.
    pub(crate) fn waves(&self, bytes: u64, retries: u32, spots: usize) -> Waves {
        self.repeat("waves", &[&bytes.to_string(), &retries.to_string()], spots)
    }

    /// The program's steps, which need no head.
    pub(crate) fn steps(&self, spots: usize) -> Waves {
        self.repeat("steps", &[], spots)
    }

    fn repeat(&self, what: &str, how: &[&str], spots: usize) -> Waves {
        let first = self.join(&["--cpus", "2"]);
        let mut waves = Waves::submit(&self.cluster, what, how);
        waves.workers.push(first);
        waves.workers.extend(self.join_spots(spots));
        waves.more(1);
        waves
    }

    /// The workers that are listed.
    pub(crate) fn workers(&self) -> Vec<String> {
        workers(&self.cluster)
    }

    /// Waits until so many workers are listed; returns how long that took.
    pub(crate) fn wait_for_workers(&self, count: usize) -> Duration {
        wait_for_workers(&self.cluster, count)
    }
}

/// Submits the program; returns when its driver runs.
pub(crate) fn submit(cluster: &Cluster, arguments: &[&str]) -> Running {
    let program = example("network");
    let running =
        cluster.start(&[&["submit", program.to_str().unwrap(), "--"], arguments].concat());
    running.wait_for("that the driver runs", |line| line.contains("driver-pid").then_some(()));
    running
}

/// The workers that are listed.
pub(crate) fn workers(cluster: &Cluster) -> Vec<String> {
    let lines = cluster.run(&["list", "workers", "--json"]).json_lines();
    lines.iter().map(|line| text(line, "worker").to_owned()).collect()
}

/// Waits until so many workers are listed; returns how long that took.
pub(crate) fn wait_for_workers(cluster: &Cluster, count: usize) -> Duration {
    let start = Instant::now();
    wait_until("the workers are as they should be", || {
        let workers = workers(cluster);
        if workers.len() == count { Ok(()) } else { Err(format!("{workers:?}")) }
    });
    start.elapsed()
}

/// What all daemons have logged.
pub(crate) fn logs(cluster: &Cluster) -> String {
    let logs = fs::read_dir(cluster.home().join("logs")).unwrap().flatten();
    logs.map(|log| fs::read_to_string(log.path()).unwrap()).collect()
}

/// How often each task has run, by the lines of a file.
pub(crate) fn runs(marks: &Path, tasks: usize) -> Vec<usize> {
    let mut runs = vec![0; tasks];
    for line in fs::read_to_string(marks).unwrap().lines() {
        runs[line.parse::<usize>().unwrap()] += 1;
    }
    runs
}

/// How many tasks the program has found right.
pub(crate) fn right(finished: &Finished) -> usize {
    let right = finished.stdout.iter().find_map(|line| line.split_once("right: "));
    let (_, right) = right.unwrap_or_else(|| panic!("nothing is right: {finished}"));
    right.split(' ').next().unwrap().parse().unwrap()
}

/// A job that works in waves.
pub(crate) struct Waves {
    pub(crate) running: Running,
    pub(crate) workers: Vec<Value>,
    marks: PathBuf,
    stop: PathBuf,
}

impl Waves {
    /// Submits the program that repeats this, until it is told to stop. The workers are for the
    /// caller to add.
    pub(crate) fn submit(cluster: &Cluster, what: &str, how: &[&str]) -> Self {
        let (marks, stop) = (cluster.home().join("marks"), cluster.home().join("stop"));
        let paths = [marks.to_str().unwrap(), stop.to_str().unwrap()];
        let running = submit(cluster, &[&[what, paths[0], paths[1]], how].concat());
        Self { running, workers: Vec::new(), marks, stop }
    }

    fn count(&self) -> usize {
        self.running.lines().iter().filter(|line| line.contains("wave ")).count()
    }

    /// Waits for so many waves more than there are now; returns how long that took.
    pub(crate) fn more(&self, waves: usize) -> Duration {
        let (start, wanted) = (Instant::now(), self.count() + waves);
        self.running.wait_for("further waves", |line| {
            let (_, wave) = line.split_once("wave ")?;
            wave.trim().parse().is_ok_and(|wave: usize| wave >= wanted).then_some(())
        });
        start.elapsed()
    }

    /// Waits for more tasks to run than there are in two waves, whether or not anybody hears of
    /// that.
    pub(crate) fn work_goes_on(&self) {
        let marks = || fs::read_to_string(&self.marks).unwrap().lines().count();
        let wanted = marks() + 2 * TASKS;
        wait_until("tasks run", || match marks() {
            few if few < wanted => Err(format!("{few} of {wanted}")),
            _ => Ok(()),
        });
    }

    /// Lets the job come to its end. Returns how often each task has run.
    pub(crate) fn end(self) -> Vec<usize> {
        fs::write(&self.stop, "").unwrap();
        let finished: Finished = self.running.finish();
        finished.assert_success();
        runs(&self.marks, right(&finished))
    }

    /// The same, of the only job of a cluster whose head has changed since it was submitted.
    pub(crate) fn end_of(self, cluster: &Cluster) -> Vec<usize> {
        fs::write(&self.stop, "").unwrap();
        let jobs = cluster.run(&["jobs", "--json"]).json_lines();
        let logs = cluster.run(&["logs", text(&jobs[0], "job"), "-f"]);
        logs.assert_success();
        runs(&self.marks, right(&logs))
    }
}

/// Where a daemon says that it listens.
pub(crate) fn address(ready: &Value) -> SocketAddr {
    text(ready, "address").parse().unwrap()
}

/// As the issue of networks goes: 5 % are lost, 50 ms to and fro, and some come out of order.
fn damage() -> Damage {
    Damage { lost: 50, doubled: 20, late: 50, delay: Duration::from_millis(25) }
}

#[test]
fn a_damaged_network_spoils_nothing_and_does_nothing_twice() {
    let network = Network::start(1);
    let waves = network.waves(setting("NETWORK_BYTES", 200_000), 0, 2);
    network.relay.damage(damage());
    let damaged = waves.more(2);
    // Shorter than the time after which workers are given up: nobody is.
    network.relay.cut_all();
    std::thread::sleep(Duration::from_secs(1));
    network.relay.heal();
    let recovery = waves.more(1);
    println!("2 damaged waves: {damaged:?}; one after healing: {recovery:?}");
    assert!(recovery < RECOVERY, "{recovery:?}");
    network.relay.damage(Damage::default());
    assert_eq!(network.wait_for_workers(3).as_secs() / 10, 0);
    let runs = waves.end();
    assert!(runs.iter().all(|runs| *runs == 1), "run twice or never: {runs:?}");
    network.cluster.run(&["head", "stop"]).assert_success();
    network.cluster.assert_all_gone();
}

/// Datagrams pass; returns how long that took.
fn wait_for_datagrams(network: &Network, count: u64) -> Duration {
    let (start, passed) = (Instant::now(), network.relay.passed());
    wait_until("datagrams pass", || match network.relay.passed() - passed {
        few if few < count => Err(format!("{few} of {count}")),
        _ => Ok(()),
    });
    start.elapsed()
}

#[test]
fn an_object_moves_through_a_damaged_network_at_the_speed_of_what_is_left() {
    let bytes = setting("NETWORK_OBJECT_BYTES", 30_000_000);
    let network = Network::start(4);
    let network = Network { store: 256 + bytes / 1_000_000 * 2, ..network };
    let (marks, go) = (network.cluster.home().join("marks"), network.cluster.home().join("go"));
    let paths = [marks.to_str().unwrap(), go.to_str().unwrap()];
    let arguments = ["move", paths[0], paths[1], &bytes.to_string()];
    let (running, _) = network.submit(&arguments, 1);
    running.wait_for("that the object is there", |line| line.contains("made").then_some(()));
    network.relay.damage(damage());
    fs::write(&go, "").unwrap();
    wait_for_datagrams(&network, 1_000);
    network.relay.cut_all();
    std::thread::sleep(Duration::from_secs(1));
    network.relay.heal();
    let recovery = wait_for_datagrams(&network, 500);
    assert!(recovery < RECOVERY, "{recovery:?}");
    let moved = || running.lines().into_iter().find(|line| line.contains("moved "));
    // To take each loss for congestion is to move 0.35 MB/s here, which is too slow for this.
    while moved().is_none() {
        let passed = network.relay.passed();
        wait_until("the object moves on", || match (moved(), network.relay.passed() - passed) {
            (None, few) if few < 20_000 => Err(format!("{few} datagrams")),
            _ => Ok(()),
        });
    }
    println!("went on {recovery:?} after healing; {}", moved().unwrap_or_default());
    let finished = running.finish();
    finished.assert_success();
    let runs = runs(&marks, right(&finished));
    assert!(runs.iter().all(|runs| *runs == 1), "run twice or never: {runs:?}");
    network.cluster.run(&["head", "stop"]).assert_success();
    network.cluster.assert_all_gone();
}

#[test]
fn a_worker_that_is_cut_off_is_replaced_and_comes_back_as_another() {
    let network = Network::start(2);
    let waves = network.waves(100_000, 1_000, 2);
    let cut = &waves.workers[1];
    network.relay.cut(address(cut));
    let lost = network.wait_for_workers(2);
    assert!(lost < LOSS, "{lost:?}");
    waves.more(2);
    network.relay.heal();
    let back = network.wait_for_workers(3);
    assert!(back < RECOVERY, "{back:?}");
    assert!(!network.workers().contains(&text(cut, "worker").to_owned()));
    waves.more(1);
    let runs = waves.end();
    assert!(runs.iter().all(|runs| *runs >= 1), "never run: {runs:?}");
    network.cluster.run(&["head", "stop"]).assert_success();
    network.cluster.assert_all_gone();
}

#[test]
fn when_all_were_cut_off_for_long_all_come_back_and_the_job_ends_well() {
    let network = Network::start(8);
    let waves = network.waves(100_000, 1_000, 2);
    network.relay.cut_all();
    let lost = network.wait_for_workers(0);
    assert!(lost < LOSS, "{lost:?}");
    let before = waves.count();
    network.relay.heal();
    let healed = Instant::now();
    network.wait_for_workers(3);
    // The driver was lost too, and its next try begins with a wave of its own.
    wait_until("the job goes on", || match waves.count() {
        count if count == before => Err(format!("{before} waves")),
        _ => Ok(()),
    });
    let recovery = healed.elapsed();
    println!("all lost after {lost:?}, going on {recovery:?} after healing");
    assert!(recovery < RECOVERY, "{recovery:?}");
    let runs = waves.end();
    assert!(runs.iter().all(|runs| *runs >= 1), "never run: {runs:?}");
    network.cluster.run(&["head", "stop"]).assert_success();
    network.cluster.assert_all_gone();
}

#[test]
fn workers_whose_addresses_change_keep_their_connections_and_their_task() {
    let network = Network::start(3);
    let go = network.cluster.home().join("go");
    let (running, workers) = network.submit(&["long", go.to_str().unwrap(), "0"], 1);
    running.wait_for("that the task runs", |line| line.contains("task-pid").then_some(()));
    for _ in 0..3 {
        network.relay.change_ports();
        // Long enough for everybody to say something by the new way.
        let passed = network.relay.passed();
        wait_until("datagrams pass", || match network.relay.passed() - passed {
            0..40 => Err(String::from("few")),
            _ => Ok(()),
        });
    }
    fs::write(&go, "").unwrap();
    let finished = running.finish();
    finished.assert_success();
    assert!(finished.stdout.iter().any(|line| line.ends_with("value 7")), "{finished}");
    let logs = logs(&network.cluster);
    assert!(!logs.contains("out of reach") && !logs.contains("broke"), "{workers:?}\n{logs}");
}

#[test]
fn a_worker_whose_host_changes_is_reached_by_those_that_come_later() {
    let network = Network::start(9);
    // It says no address, so that it is where its packets come from.
    network.join_as(&["--listen", "0.0.0.0:0", "--cpus", "2"]);
    let (program, go) = (example("network"), network.cluster.home().join("go"));
    fs::write(&go, "").unwrap();
    let arguments = ["submit", program.to_str().unwrap(), "--", "long", go.to_str().unwrap(), "0"];
    let running = network.cluster.start(&arguments);
    running.wait_for("that the driver runs", |line| line.contains("driver-pid").then_some(()));
    let host = Ipv4Addr::new(127, 0, 0, 2);
    network.relay.change_host(host);
    wait_until("the worker's new address is known", || {
        let workers = network.cluster.run(&["list", "workers", "--json"]).json_lines();
        let addresses: Vec<IpAddr> = workers.iter().map(|worker| address(worker).ip()).collect();
        if addresses == [host] { Ok(()) } else { Err(format!("{addresses:?}")) }
    });
    // What runs the task tells the worker whose it is.
    network.join(&["--cpus", "1", "--resource", "spot=1"]);
    let finished = running.finish();
    finished.assert_success();
    assert!(finished.stdout.iter().any(|line| line.ends_with("value 7")), "{finished}");
    let logs = logs(&network.cluster);
    assert!(logs.contains("a worker has moved") && !logs.contains("broke"), "{logs}");
}

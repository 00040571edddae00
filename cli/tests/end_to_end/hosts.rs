//! A head and workers on hosts of their own, with addresses and cables of their own. What is lost,
//! delayed and reordered on the way is in `network`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::{Cluster, Running, wait_until};
use crate::lan::{Lan, State};
use crate::network::{self, LOSS, RECOVERY, Waves, address};
use crate::settings::setting;

/// Shorter than the silence after which a worker is given up, with what the next sign of life may
/// take.
const BLINK: Duration = Duration::from_secs(1);
/// In `/24`s the hosts' first addresses are smaller.
const NEW: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 77, 0, 40), Ipv4Addr::new(10, 77, 0, 41)];

/// What puts a host's cable out of use.
const WAYS: [fn(&Lan, &str, State); 2] = [Lan::set_interface, Lan::set_port];

/// The host of the head, of the worker that drivers run on, and of the worker that has `spot`.
const HEAD: &str = "head";
const FIRST: &str = "first";
const SECOND: &str = "second";

/// In this order, so that no process is left when the networks go.
struct Hosts {
    cluster: Cluster,
    lan: Lan,
    head: Value,
    /// Of each worker, in MiB.
    store: u64,
}

impl Hosts {
    /// A head alone; `None` where there can be no hosts.
    fn start() -> Option<Self> {
        let lan = Lan::of(&[HEAD, FIRST, SECOND])?;
        let mut cluster = Cluster::new();
        cluster.settle(lan.namespace(HEAD));
        let listen = format!("{}:0", lan.address(HEAD));
        let head = cluster.start_head_with(&["--listen", &listen]);
        Some(Self { cluster, lan, head, store: 256 })
    }

    fn join(&self, host: &str, has: &[&str]) -> Value {
        let token = fs::read_to_string(self.cluster.home().join("join.token")).unwrap();
        let entrance = address(&self.head).to_string();
        let mut join = vec!["--json", "worker", "join", &entrance, "--token", token.trim()];
        let store = format!("{}MiB", self.store);
        join.extend(["--store-memory", &store]);
        join.extend(has);
        let join = self.cluster.rdist_in(Some(&self.lan.namespace(host)), &join);
        let finished = Running::start(join).finish();
        finished.assert_success();
        finished.json_line("worker_ready")
    }

    fn join_first(&self) -> Value {
        self.join(FIRST, &["--cpus", "2"])
    }

    fn join_second(&self) -> Value {
        self.join(SECOND, &["--cpus", "1", "--resource", "spot=1"])
    }

    /// Starts the program on the first worker, then joins the second one.
    fn submit(&self, arguments: &[&str]) -> Running {
        self.join_first();
        let running = network::submit(&self.cluster, arguments);
        self.join_second();
        running
    }

    /// The program's waves, across both.
    fn waves(&self, bytes: u64, retries: u32) -> Waves {
        let first = self.join_first();
        let how = [bytes.to_string(), retries.to_string()];
        let mut waves = Waves::submit(&self.cluster, "waves", &[&how[0], &how[1]]);
        waves.workers.extend([first, self.join_second()]);
        waves.more(1);
        waves
    }

    /// Waits until the workers are known to be there.
    fn wait_for_addresses(&self, wanted: &[Ipv4Addr]) {
        wait_until("the workers' addresses are known", || {
            let workers = self.cluster.run(&["list", "workers", "--json"]).json_lines();
            let known: Vec<IpAddr> = workers.iter().map(|worker| address(worker).ip()).collect();
            let all = known.len() == wanted.len()
                && wanted.iter().all(|wanted| known.contains(&IpAddr::V4(*wanted)));
            if all { Ok(()) } else { Err(format!("{known:?}")) }
        });
    }

    /// Gives both workers' hosts other addresses, one after the other.
    fn renumber(&self) {
        self.lan.renumber(SECOND, NEW[1]);
        self.wait_for_addresses(&[self.lan.address(FIRST), NEW[1]]);
        self.lan.renumber(FIRST, NEW[0]);
        self.wait_for_addresses(&NEW);
    }

    /// No worker was lost, nor has one lost its way to the head.
    fn assert_nobody_was_lost(&self) {
        let logs = network::logs(&self.cluster);
        for word in ["the head is out of reach", "is gone", "broke"] {
            assert!(!logs.contains(word), "{word:?} in\n{logs}");
        }
    }

    fn end(&self) {
        self.cluster.run(&["head", "stop"]).assert_success();
        self.cluster.assert_all_gone();
    }
}

#[test]
fn a_cable_that_is_out_for_a_second_spoils_nothing_and_does_nothing_twice() {
    let Some(hosts) = Hosts::start() else { return };
    let waves = hosts.waves(200_000, 0);
    for (host, set) in
        [HEAD, FIRST, SECOND].into_iter().flat_map(|host| WAYS.map(|way| (host, way)))
    {
        set(&hosts.lan, host, State::Down);
        std::thread::sleep(BLINK);
        set(&hosts.lan, host, State::Up);
        let recovery = waves.more(1);
        println!("without {host} for {BLINK:?}, going on {recovery:?} after healing");
        assert!(recovery < RECOVERY, "{host}: {recovery:?}");
        waves.more(1);
    }
    assert_eq!(network::workers(&hosts.cluster).len(), 2);
    let runs = waves.end();
    assert!(runs.iter().all(|runs| *runs == 1), "run twice or never: {runs:?}");
    hosts.end();
}

#[test]
fn a_worker_whose_cable_is_out_for_long_comes_back_as_another_and_counts_once() {
    let Some(hosts) = Hosts::start() else { return };
    let waves = hosts.waves(100_000, 1_000);
    for set in WAYS {
        let before = network::workers(&hosts.cluster);
        set(&hosts.lan, SECOND, State::Down);
        let lost = network::wait_for_workers(&hosts.cluster, 1);
        assert!(lost < LOSS, "{lost:?}");
        set(&hosts.lan, SECOND, State::Up);
        // No wave ends without that worker, and each checks the counter.
        let recovery = waves.more(1);
        println!("lost after {lost:?}, going on {recovery:?} after healing");
        assert!(recovery < RECOVERY, "{recovery:?}");
        assert_ne!(network::workers(&hosts.cluster), before);
    }
    let runs = waves.end();
    assert!(runs.iter().all(|runs| *runs >= 1), "never run: {runs:?}");
    hosts.end();
}

#[test]
fn when_the_heads_cable_was_out_for_long_all_come_back_and_the_job_ends_well() {
    let Some(hosts) = Hosts::start() else { return };
    let waves = hosts.waves(100_000, 1_000);
    hosts.lan.set_port(HEAD, State::Down);
    let lost = network::wait_for_workers(&hosts.cluster, 0);
    assert!(lost < LOSS, "{lost:?}");
    hosts.lan.set_port(HEAD, State::Up);
    let healed = Instant::now();
    // The driver was lost too. Its next try counts from the beginning, with another counter.
    wait_until("the next try of the driver has done a wave", || {
        let lines = waves.running.lines();
        let firsts = lines.iter().filter(|line| line.ends_with("wave 1")).count();
        if firsts == 2 { Ok(()) } else { Err(format!("{lines:?}")) }
    });
    network::wait_for_workers(&hosts.cluster, 2);
    let recovery = healed.elapsed();
    println!("all lost after {lost:?}, all back and going on {recovery:?} after healing");
    assert!(recovery < RECOVERY, "{recovery:?}");
    // Further than the first try came.
    waves.more(2);
    let runs = waves.end();
    assert!(runs.iter().all(|runs| *runs >= 1), "never run: {runs:?}");
    hosts.end();
}

#[test]
fn workers_that_get_other_addresses_keep_their_task() {
    let Some(hosts) = Hosts::start() else { return };
    let go = hosts.cluster.home().join("go");
    let running = hosts.submit(&["long", go.to_str().unwrap(), "0"]);
    running.wait_for("that the task runs", |line| line.contains("task-pid").then_some(()));
    let start = Instant::now();
    hosts.renumber();
    println!("both workers are known where they are after {:?}", start.elapsed());
    fs::write(&go, "").unwrap();
    let start = Instant::now();
    let finished = running.finish();
    println!("the end of the task was known {:?} later", start.elapsed());
    finished.assert_success();
    assert!(finished.stdout.iter().any(|line| line.ends_with("value 7")), "{finished}");
    let tries = finished.stdout.iter().filter(|line| line.contains("task-pid")).count();
    assert_eq!(tries, 1, "{finished}");
    hosts.assert_nobody_was_lost();
    hosts.end();
}

#[test]
fn work_goes_on_between_workers_that_get_other_addresses() {
    let Some(hosts) = Hosts::start() else { return };
    let waves = hosts.waves(200_000, 0);
    hosts.renumber();
    let recovery = waves.more(1);
    println!("going on {recovery:?} after both have moved");
    assert!(recovery < RECOVERY, "{recovery:?}");
    waves.more(2);
    let runs = waves.end();
    assert!(runs.iter().all(|runs| *runs == 1), "run twice or never: {runs:?}");
    hosts.assert_nobody_was_lost();
    hosts.end();
}

#[test]
fn an_object_moves_from_host_to_host_by_cable_also_by_one_that_is_out_for_a_second() {
    let bytes = setting("NETWORK_OBJECT_BYTES", 200_000_000);
    let Some(hosts) = Hosts::start() else { return };
    let hosts = Hosts { store: 256 + bytes / 1_000_000 * 2, ..hosts };
    let (marks, go) = (hosts.cluster.home().join("marks"), hosts.cluster.home().join("go"));
    let paths = [marks.to_str().unwrap(), go.to_str().unwrap()];
    let running = hosts.submit(&["move", paths[0], paths[1], &bytes.to_string()]);
    running.wait_for("that the object is there", |line| line.contains("made").then_some(()));
    let before = hosts.lan.received(FIRST);
    let received = || hosts.lan.received(FIRST) - before;
    let wait_for_bytes = |wanted: u64| {
        wait_until("the object moves", || match received() {
            few if few < wanted => Err(format!("{few} of {wanted} bytes")),
            _ => Ok(()),
        });
    };
    fs::write(&go, "").unwrap();
    wait_for_bytes(bytes / 20);
    hosts.lan.set_port(SECOND, State::Down);
    let part = received();
    std::thread::sleep(BLINK);
    hosts.lan.set_port(SECOND, State::Up);
    let healed = Instant::now();
    assert!(part < bytes, "the object was there before the cable was out");
    wait_for_bytes(part + bytes / 20);
    let recovery = healed.elapsed();
    assert!(recovery < RECOVERY, "{recovery:?}");
    let finished = running.finish();
    finished.assert_success();
    let moved = finished.stdout.iter().find(|line| line.contains("moved "));
    println!("{part} bytes, then on {recovery:?} after healing; {}", moved.unwrap());
    assert!(received() >= bytes, "{} of {bytes} bytes came by cable", received());
    let runs = network::runs(&marks, network::right(&finished));
    assert!(runs.iter().all(|runs| *runs == 1), "run twice or never: {runs:?}");
    hosts.end();
}

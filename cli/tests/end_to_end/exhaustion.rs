//! What a machine may run out of, and clocks that jump. Full stores, and disks for what does
//! not fit into them, are in `objects`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;

use crate::cluster::{Cluster, example, faults, number, text};
use crate::disk::SmallDisk;
use crate::network::Network;

/// Allows a daemon so many descriptors more than it has; returns what it had before.
fn allow_descriptors(daemon: &Value, more: u64) -> Rlimit {
    let pid = number(daemon, "pid");
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64;
    let pid = Pid::from_raw(pid);
    let before = rustix::process::getrlimit(Resource::Nofile);
    let limit = Rlimit { current: Some(open + more), maximum: before.maximum };
    prlimit(pid, Resource::Nofile, limit).unwrap()
}

fn give_back(daemon: &Value, limit: Rlimit) {
    prlimit(Pid::from_raw(number(daemon, "pid")), Resource::Nofile, limit).unwrap();
}

#[test]
fn without_descriptors_errors_say_so_and_with_them_all_goes_on() {
    let cluster = Cluster::new();
    let head = cluster.start_head();
    let worker = cluster.join(&["--cpus", "2"]);
    let squares = ["submit", &faults(), "--", "squares", "10"];
    cluster.run(&squares).assert_success();

    let before = allow_descriptors(&worker, 3);
    cluster.run(&squares).assert_failure("Too many open files");
    give_back(&worker, before);
    cluster.run(&squares).assert_success();

    let before = allow_descriptors(&head, 0);
    let program = example("groups");
    let unknown = ["submit", program.to_str().unwrap()];
    cluster.run(&unknown).assert_failure("Too many open files");
    cluster.run(&["status"]).assert_success();
    give_back(&head, before);
    cluster.run(&squares).assert_success();
}

#[test]
fn a_head_whose_disk_is_full_takes_nothing_and_goes_on_when_there_is_room() {
    let cluster = Cluster::new();
    let Some(disk) = SmallDisk::mount(cluster.home(), "512m") else { return };
    cluster.start_head();
    cluster.join(&["--cpus", "2"]);
    let go = cluster.home().join("go-on");
    let wait = ["submit", &faults(), "--", "wait", go.to_str().unwrap()];
    let running = cluster.start(&wait);
    running.wait_for("the task's process", |line| line.contains("task-pid").then_some(()));
    let filler = disk.fill(1 << 20);
    let squares = ["submit", &faults(), "--", "squares", "10"];
    cluster.run(&squares).assert_failure("its disk is full");
    let unknown = example("groups");
    let upload = cluster.run(&["submit", unknown.to_str().unwrap()]);
    upload.assert_failure("its disk is full");
    cluster.run(&["status"]).assert_success();
    // What runs goes on.
    fs::write(&go, "").unwrap();
    running.finish().assert_success();
    fs::remove_file(filler).unwrap();
    cluster.run(&squares).assert_success();
    assert_eq!(cluster.run(&["jobs", "--json"]).json_lines().len(), 2, "no refused one is there");
    cluster.run(&["head", "stop"]).assert_success();
    cluster.assert_all_gone();
    drop(disk);
}

/// A library that moves the clock of those who load it by as many seconds as a file says.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t id, struct timespec *at) {
    int result = syscall(SYS_clock_gettime, id, at);
    const char *path = getenv("TEST_CLOCK_FILE");
    if (result == 0 && id == CLOCK_REALTIME && path) {
        char text[32] = {0};
        int file = open(path, O_RDONLY | O_CLOEXEC);
        if (file >= 0) {
            if (read(file, text, sizeof text - 1) > 0) at->tv_sec += atol(text);
            close(file);
        }
    }
    return result;
}
"#;

/// A clock that all processes of a cluster have.
struct Clock(PathBuf);

impl Clock {
    /// `None`, and says why, where no C compiler is.
    fn install(cluster: &mut Cluster) -> Option<Self> {
        let at = |name: &str| cluster.home().join(name);
        let (source, library, file) = (at("clock.c"), at("clock.so"), at("clock"));
        fs::write(&source, CLOCK).unwrap();
        fs::write(&file, "0").unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
        match compiler.status() {
            Ok(status) => assert!(status.success(), "{CLOCK}"),
            Err(error) => {
                eprintln!("skipped: no C compiler: {error}");
                return None;
            }
        }
        cluster.set_variable("LD_PRELOAD", library.to_str().unwrap());
        cluster.set_variable("TEST_CLOCK_FILE", file.to_str().unwrap());
        Some(Self(file))
    }

    fn jump(&self, hours: i64) {
        // As a whole: a reader never meets half a number.
        let next = self.0.with_extension("next");
        fs::write(&next, (hours * 3_600).to_string()).unwrap();
        fs::rename(next, &self.0).unwrap();
    }
}

#[test]
fn clocks_that_jump_lose_nothing_and_tokens_heed_them() {
    let mut cluster = Cluster::new();
    let Some(clock) = Clock::install(&mut cluster) else { return };
    let network = Network::of(cluster, 8);
    let waves = network.waves(50_000, 0, 2);
    let made = network.cluster.run(&["token", "create", "--json", "--ttl", "1h"]);
    made.assert_success();
    let token = text(&made.json_lines()[0], "token").to_owned();
    for hours in [20, -20, 0] {
        clock.jump(hours);
        waves.more(1);
        // Somebody new is let in, whose certificate is of that time.
        network.join(&["--cpus", "1"]);
        let late = ["worker", "join", text(&network.head, "address"), "--token", &token];
        if hours == 20 {
            network.cluster.run(&late).assert_failure("expired");
        }
    }
    network.wait_for_workers(6);
    let runs = waves.end();
    assert!(runs.iter().all(|runs| *runs == 1), "run twice or never: {runs:?}");
}

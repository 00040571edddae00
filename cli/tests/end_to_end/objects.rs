//! More objects than memory: they go to disk and come back, and nothing is left over.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cluster::{Cluster, Running, example, kill, number, text, wait_until};
use crate::disk::SmallDisk;

fn program() -> String {
    example("objects").to_str().unwrap().to_owned()
}

/// A cluster with one worker whose store has so many bytes, and what the worker says of itself.
fn with_store(cpus: &str, arguments: &[&str]) -> (Cluster, Value) {
    let cluster = Cluster::new();
    cluster.start_head();
    let mut all = vec!["--cpus", cpus];
    all.extend(arguments);
    let worker = join(&cluster, &all);
    (cluster, worker)
}

fn join(cluster: &Cluster, arguments: &[&str]) -> Value {
    let mut all = vec!["--json", "worker", "join", "--store-memory", "32MiB"];
    all.extend(["--listen", "127.0.0.1:0"]);
    all.extend(arguments);
    let finished = cluster.run(&all);
    finished.assert_success();
    finished.json_line("worker_ready")
}

/// Files of spilled values below a folder.
fn spilled(folder: &Path) -> Vec<PathBuf> {
    let workers = fs::read_dir(folder).into_iter().flatten().flatten();
    let files = workers.filter_map(|worker| fs::read_dir(worker.path()).ok()).flatten().flatten();
    let paths = files.map(|file| file.path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "spill")).collect()
}

#[test]
fn three_times_as_many_bytes_as_memory_are_all_read_right() {
    let (cluster, _) = with_store("2", &[]);
    let finished = cluster.run(&["submit", &program(), "--", "many", "96", "1000000"]);
    finished.assert_success();
    assert!(finished.stdout.iter().any(|line| line.ends_with("all right: 95")), "{finished}");
    // With the job, its objects go, and with them their files.
    wait_until("the files are removed", || {
        let left = spilled(&cluster.home().join("spill"));
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

#[test]
fn a_call_that_waits_for_its_argument_from_disk_keeps_its_turn() {
    let (cluster, _) = with_store("2", &[]);
    let finished = cluster.run(&["submit", &program(), "--", "in-turn", "12", "4000000"]);
    finished.assert_success();
    assert!(finished.stdout.iter().any(|line| line.ends_with("all in turn")), "{finished}");
}

#[test]
fn what_is_on_disk_is_shown_and_goes_with_its_worker() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_str().unwrap();
    let (cluster, worker) = with_store("2", &["--spill-dir", place]);
    let go = cluster.home().join("go");
    let arguments = ["submit", &program(), "--", "damaged", "60", "1000000", go.to_str().unwrap()];
    let running = cluster.start(&arguments);
    running.wait_for("that all are made", |line| line.ends_with("made").then_some(()));
    let files = wait_until("values are spilled", || {
        let files = spilled(folder.path());
        if files.len() >= 30 { Ok(files) } else { Err(format!("{} files", files.len())) }
    });
    let listed = cluster.run(&["--json", "list", "objects"]);
    listed.assert_success();
    let on_disk = listed.stdout.iter().filter(|line| line.contains(r#""stored":"disk""#)).count();
    assert!(on_disk >= 30, "{on_disk} of {} files are listed", files.len());
    wait_until("the status shows them", || {
        let status = cluster.run(&["--json", "status"]).json_line("status");
        let shown = status["workers"][0]["spilled_bytes"].as_u64().unwrap();
        if shown >= 30_000_000 { Ok(()) } else { Err(format!("{shown} bytes")) }
    });

    // A damaged value is made again from its task.
    for file in files.iter().step_by(3) {
        let mut bytes = fs::read(file).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        // As a whole, so that no reader meets half of it.
        fs::write(file.with_extension("damaged"), &bytes).unwrap();
        fs::rename(file.with_extension("damaged"), file).unwrap();
    }
    fs::write(&go, "").unwrap();
    let finished = running.finish();
    finished.assert_success();
    assert!(finished.stdout.iter().any(|line| line.ends_with("all right: 59")), "{finished}");

    // Left-overs of a killed worker are removed by the next.
    let running =
        cluster.start(&["submit", &program(), "--", "damaged", "60", "1000000", "/nonexistent"]);
    running.wait_for("that all are made", |line| line.ends_with("made").then_some(()));
    kill(number(&worker, "pid"));
    assert!(!spilled(folder.path()).is_empty());
    let next = join(&cluster, &["--cpus", "1", "--spill-dir", place]);
    let folders: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().collect();
    let folders: Vec<_> = folders.iter().filter(|entry| entry.path().is_dir()).collect();
    assert_eq!(folders.len(), 1, "{folders:?}");
    assert_eq!(folders[0].file_name().to_str(), Some(text(&next, "worker")));
    cluster.run(&["head", "stop"]).assert_success();
    cluster.assert_all_gone();
    let left = fs::read_dir(folder.path()).unwrap().flatten().filter(|entry| entry.path().is_dir());
    assert_eq!(left.count(), 0, "a worker's folder goes with it");
}

#[test]
fn a_full_disk_is_an_error_that_says_so_and_spoils_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount(folder.path(), "16m") else { return };
    let (cluster, _) = with_store("2", &["--spill-dir", folder.path().to_str().unwrap()]);
    let finished = cluster.run(&["submit", &program(), "--", "fill", "96", "1000000"]);
    finished.assert_success();
    let line = finished.stdout.iter().find(|line| line.contains("after ")).unwrap();
    assert!(line.contains("the disk is full"), "{line}");
    let right = finished.stdout.iter().find(|line| line.ends_with("are right")).unwrap();
    let count: u64 = right.split_whitespace().rev().nth(2).unwrap().parse().unwrap();
    assert!((25..60).contains(&count), "{right}");
    drop(cluster);
}

#[test]
fn without_leave_to_spill_a_full_store_is_an_error() {
    let (cluster, _) = with_store("1", &["--spill-limit", "0"]);
    let finished = cluster.run(&["submit", &program(), "--", "fill", "96", "1000000"]);
    finished.assert_success();
    let line = finished.stdout.iter().find(|line| line.contains("after ")).unwrap();
    assert!(line.contains("--spill-limit 0"), "{line}");
}

#[test]
fn who_takes_more_memory_than_it_asked_for_ends_alone_and_with_its_figures() {
    let cluster = Cluster::with_workers(&[2]);
    let status = cluster.run(&["--json", "status"]).json_line("status");
    let limits = text(&status["workers"][0], "limits").to_owned();
    assert!(
        ["cgroup v2", "cgroup v1", "cgroup v1 (memory)", "rlimit, watch (memory alone)"]
            .contains(&&*limits)
    );
    let finished = cluster.run(&["submit", &program(), "--", "eaters"]);
    finished.assert_success();
    for who in ["greedy", "eater"] {
        let line = finished.stdout.iter().find(|line| line.contains(&format!("{who}: "))).unwrap();
        assert!(line.contains("ran out of memory"), "{line}");
        assert!(line.contains("where 100.0 MiB are its limit"), "{line}");
    }
    assert!(finished.stdout.iter().any(|line| line.ends_with("the others live")), "{finished}");
    cluster.run(&["head", "stop"]).assert_success();
    cluster.assert_all_gone();
}

#[test]
fn one_object_for_many_workers_is_handed_on_while_it_comes() {
    let cluster = Cluster::new();
    cluster.start_head();
    for spot in 0..5 {
        let spot = format!("spot{spot}=1");
        let arguments = ["--json", "worker", "join", "--cpus", "1", "--resource", &spot];
        let mut join = cluster.rdist(&arguments);
        join.args(["--store-memory", "256MiB", "--listen", "127.0.0.1:0"]);
        // As if each were a machine of its own.
        join.env("RDIST_SAME_HOST", "off").env("RDIST_LOG", "info,rdist::worker=debug");
        Running::start(join).finish().assert_success();
    }
    let finished = cluster.run(&["submit", &program(), "--", "broadcast", "5", "60000000"]);
    finished.assert_success();
    assert!(finished.stdout.iter().any(|line| line.contains("bytes to 5 workers")), "{finished}");
    let logs = fs::read_dir(cluster.home().join("logs")).unwrap().flatten();
    let logs: String = logs.map(|log| fs::read_to_string(log.path()).unwrap()).collect();
    let relayed = logs.lines().filter(|line| line.contains("is handed on while it comes")).count();
    assert!(relayed > 0, "all workers got it from one: {logs}");
    println!("{relayed} of 4 readers were served by receivers: {}", finished.stdout.join(" "));
}

/// A program with its driver on the cluster's first worker, which has made its values on another
/// one, and goes on when it is told to.
struct Made {
    running: Running,
    /// What the other worker said of itself.
    other: Value,
    go: PathBuf,
}

impl Made {
    fn start(cluster: &Cluster, part: &str) -> Self {
        let go = cluster.home().join("go");
        let running = cluster.start(&["submit", &program(), "--", part, go.to_str().unwrap()]);
        // The driver runs on the first worker; what it submits needs another.
        running.wait_for("that the driver runs", |line| line.ends_with("here").then_some(()));
        let other = cluster.join(&["--cpus", "1", "--resource", "spot=1"]);
        running.wait_for("that all are made", |line| line.ends_with("made").then_some(()));
        Self { running, other, go }
    }

    /// The program goes on, succeeds, and has a line that ends so.
    fn ends_with(self, end: &str) {
        fs::write(&self.go, "").unwrap();
        let finished = self.running.finish();
        finished.assert_success();
        assert!(finished.stdout.iter().any(|line| line.ends_with(end)), "{finished}");
    }
}

fn what_is_lost_is_made_again(part: &str, end: &str) {
    let cluster = Cluster::with_workers(&[1]);
    let made = Made::start(&cluster, part);
    kill(number(&made.other, "pid"));
    cluster.join(&["--cpus", "1", "--resource", "spot=1"]);
    made.ends_with(end);
}

#[test]
fn a_lost_value_is_made_again_from_its_grandparents() {
    what_is_lost_is_made_again("generations", "made again");
}

#[test]
fn what_a_task_put_is_put_again_where_its_worker_is_lost() {
    what_is_lost_is_made_again("put-again", "after 2 runs");
}

#[test]
fn a_replicated_value_outlives_its_owner() {
    let cluster = Cluster::with_workers(&[1, 1]);
    let made = Made::start(&cluster, "replicated");
    wait_until("there are two copies of each", || {
        let listed = cluster.run(&["--json", "list", "objects"]);
        let rows = listed.json_lines();
        let twice = |row: &&Value| {
            row["owner"] == made.other["worker"] && row["copies"].as_array().unwrap().len() == 2
        };
        if rows.iter().filter(twice).count() == 8 { Ok(()) } else { Err(format!("{listed}")) }
    });
    kill(number(&made.other, "pid"));
    made.ends_with("outlive their owner");
}

#[test]
fn a_worker_that_drains_leaves_its_values_behind() {
    let cluster = Cluster::with_workers(&[1]);
    let made = Made::start(&cluster, "evacuated");
    cluster.run(&["worker", "drain", text(&made.other, "worker")]).assert_success();
    let pid = number(&made.other, "pid");
    wait_until("the worker has left", || {
        let there = cluster.processes();
        if there.contains_key(&pid) { Err(format!("{there:#?}")) } else { Ok(()) }
    });
    made.ends_with("5 values by 5 runs");
}

#[test]
fn references_inside_values_and_actors_keep_what_they_refer_to_and_let_go() {
    let cluster = Cluster::with_workers(&[1]);
    let go = cluster.home().join("go");
    let running = cluster.start(&["submit", &program(), "--", "borrowed", go.to_str().unwrap()]);
    running.wait_for("that the driver runs", |line| line.ends_with("here").then_some(()));
    cluster.join(&["--cpus", "1", "--resource", "spot=1"]);
    running.wait_for("that all is let go of", |line| line.ends_with("let go").then_some(()));
    wait_until("no large object is left", || {
        let listed = cluster.run(&["--json", "list", "objects"]);
        let rows = listed.json_lines();
        let large = rows.iter().filter(|row| row["bytes"].as_u64() >= Some(1_000_000)).count();
        if large == 0 { Ok(()) } else { Err(format!("{listed}")) }
    });
    fs::write(&go, "").unwrap();
    running.finish().assert_success();
}

//! Plain command jobs: from a TOML, from `--each`, well and in every way that they can fail.

use std::fs;

use serde_json::Value;

use crate::cluster::{Cluster, Finished, Running, kill, number, text, wait_until};

/// A cluster, and a folder with a job's TOML and its files.
struct Place {
    cluster: Cluster,
    folder: tempfile::TempDir,
}

impl Place {
    fn new(cpus: &[u32]) -> Self {
        Self { cluster: Cluster::with_workers(cpus), folder: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn submit(&self, toml: &str) -> Finished {
        self.cluster.run(&["--json", "submit", &self.write("job.toml", toml)])
    }
}

/// The last row of a task.
fn row(finished: &Finished, name: &str) -> Value {
    let rows = finished.json_lines().into_iter().rev();
    let mut rows = rows.filter(|row| row["event"] == "task_finished" && row["name"] == name);
    rows.next().unwrap_or_else(|| panic!("no row of {name} in {finished}"))
}

/// What the tasks have printed, with their names.
fn printed(finished: &Finished) -> Vec<(String, String)> {
    let lines = finished.json_lines();
    let output = lines.iter().filter(|line| line["event"] == "output");
    let of = |line: &Value| {
        let lines: Vec<_> = text(line, "text").lines().map(str::to_owned).collect();
        let name = line["name"].as_str().unwrap_or_default().to_owned();
        lines.into_iter().map(move |line| (name.clone(), line)).collect::<Vec<_>>()
    };
    output.flat_map(of).collect()
}

#[test]
fn the_example_runs_on_two_workers_and_its_files_go_through_the_store() {
    let cluster = Cluster::with_workers(&[1, 1]);
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../workloads/commands.toml");
    let finished = cluster.run(&["submit", file]);
    finished.assert_success();
    let lines = finished.stdout.join("\n");
    assert!(lines.contains("all | 33860 primes, the largest is 399989"), "{finished}");
    assert!(lines.contains("twins | 3804 twins"), "{finished}");
    for name in ["bounds", "primes[0]", "primes[3]", "all", "twins"] {
        assert!(finished.stdout.iter().any(|line| line.trim().starts_with(name)), "{finished}");
    }
    let graph = cluster.run(&["graph", file]);
    assert!(graph.stdout.join("\n").contains("primes x 4"), "{graph}");
    cluster.run(&["head", "stop"]).assert_success();
    cluster.assert_all_gone();
}

#[test]
fn every_task_tells_its_status_its_time_and_its_memory() {
    let place = Place::new(&[2]);
    place.write("in.txt", "from the client\n");
    let finished = place.submit(
        r#"
        results = "out"
        [[task]]
        name = "read"
        inputs = ["in.txt", { file = "job.toml", as = "sub/job.toml" }]
        outputs = ["copy.txt"]
        command = "test -s sub/job.toml && cp in.txt copy.txt && cat in.txt"
        [[task]]
        name = "busy"
        command = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo $LEVEL $RDIST_TASK_NAME"
        env = { LEVEL = "7" }
        after = ["read"]
        [[task]]
        name = "where"
        command = "pwd"
        "#,
    );
    finished.assert_success();
    let busy = row(&finished, "busy");
    assert_eq!((&busy["status"], &busy["exit_status"]), (&"succeeded".into(), &0.into()));
    assert!(busy["user_seconds"].as_f64().unwrap() > 0.01, "{busy}");
    assert!(busy["seconds"].as_f64().unwrap() > 0.01, "{busy}");
    assert!(busy["max_rss_bytes"].as_u64().unwrap() > 100_000, "{busy}");
    assert!(text(&busy, "worker").starts_with("worker-"), "{busy}");
    let printed = printed(&finished);
    let folder = place.folder.path().canonicalize().unwrap().display().to_string();
    for (name, line) in
        [("read", "from the client"), ("busy", "7 busy"), ("where", folder.as_str())]
    {
        assert!(printed.contains(&(name.to_owned(), line.to_owned())), "{printed:?}");
    }
    let end = finished.json_line("job_finished");
    assert_eq!(end["metrics"]["tasks_succeeded"], 3);
    let copy = fs::read_to_string(place.folder.path().join("out/read/copy.txt")).unwrap();
    assert_eq!(copy, "from the client\n");
}

#[test]
fn a_failed_task_stops_what_depends_on_it_and_nothing_else() {
    let place = Place::new(&[2]);
    let finished = place.submit(
        r#"
        [[task]]
        name = "bad"
        command = "echo no luck >&2; exit 3"
        [[task]]
        name = "next"
        command = "true"
        after = ["bad"]
        [[task]]
        name = "last"
        command = "true"
        after = ["next", "apart"]
        [[task]]
        name = "apart"
        command = "true"
        "#,
    );
    finished.assert_failure("1 of 4 tasks failed: bad (exit status 3); 2 were not run");
    let bad = row(&finished, "bad");
    assert_eq!((&bad["status"], &bad["exit_status"]), (&"failed".into(), &3.into()));
    assert_eq!(bad["stderr"], "no luck");
    for name in ["next", "last"] {
        let skipped = row(&finished, name);
        assert_eq!(skipped["status"], "skipped");
        assert!(text(&skipped, "reason").contains("`bad` failed"), "{skipped}");
    }
    assert_eq!(row(&finished, "apart")["status"], "succeeded");
    let file = place.write(
        "job.toml",
        "[[task]]
name = \"dies\"
command = \"kill -SEGV $$\"
",
    );
    let finished = place.cluster.run(&["submit", &file]);
    finished.assert_failure("dies failed: killed by signal 11 (SIGSEGV)");
}

#[test]
fn retries_time_limits_and_missing_outputs() {
    let place = Place::new(&[2]);
    let marks = place.folder.path().join("marks");
    let again = format!("echo x >> {0}; test $(wc -l < {0}) -ge 3", marks.display());
    let finished = place.submit(&format!(
        r#"
        [[task]]
        name = "again"
        command = "{again}"
        retries = 5
        [[task]]
        name = "slow"
        command = "sleep 60"
        time_limit = "100ms"
        [[task]]
        name = "forgets"
        command = "true"
        outputs = ["never.txt"]
        [[task]]
        name = "misspelt"
        command = ["no-such-program", "x"]
        "#
    ));
    finished.assert_failure("3 of 4 tasks failed");
    let reason = |name: &str| text(&row(&finished, name), "reason").to_owned();
    assert_eq!(row(&finished, "again")["attempt"], 2);
    assert_eq!(row(&finished, "again")["status"], "succeeded");
    assert!(reason("slow").contains("time limit"), "{finished}");
    assert!(reason("forgets").contains("never.txt"), "{finished}");
    assert!(reason("misspelt").contains("no-such-program"), "{finished}");
}

#[test]
fn a_mistake_in_the_file_shows_before_anything_starts() {
    let cluster = Cluster::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("job.toml");
    let refused = |text: &str, reason: &str| {
        fs::write(&file, text).unwrap();
        cluster.run(&["submit", file.to_str().unwrap()]).assert_failure(reason);
    };
    refused("[[task]]\ncomand = \"x\"\n", "line 2");
    refused("[[task]]\ncommand = \"a\"\nafter = [\"b\"]\n", "there is no task `b`");
    let cycle =
        "[[task]]\ncommand = \"a\"\nafter = [\"b\"]\n[[task]]\ncommand = \"b\"\nafter = [\"a\"]\n";
    refused(cycle, "wait for each other");
    refused("[[task]]\ncommand = \"a\"\n[[task]]\ncommand = \"a\"\n", "another task is named `a`");
    refused("[[task]]\ncommand = \"a\"\narray = \"9-1\"\n", "9 comes after 1");
    fs::write(&file, "[[task]]\ncommand = \"a\"\n").unwrap();
    let path = file.to_str().unwrap();
    cluster.run(&["submit", path, "--set", "a.b=1"]).assert_failure("--env");
    cluster.run(&["submit", path, "more"]).assert_failure("one file too many");
    cluster.run(&["submit", "--each", "{}", "x"]).assert_failure("names no program");
}

#[test]
fn each_argument_gets_its_command_also_from_standard_input() {
    let place = Place::new(&[2]);
    let each = |arguments: &[&str]| {
        let all = [&["--json", "submit", "--each"], arguments].concat();
        let finished = place.cluster.run(&all);
        finished.assert_success();
        let mut printed = printed(&finished);
        printed.sort();
        printed
    };
    let pair = |name: &str, line: &str| (name.to_owned(), line.to_owned());
    assert_eq!(
        each(&["echo {}. | cat", "a b", "$HOME"]),
        [pair("echo[1]", "a b."), pair("echo[2]", "$HOME.")]
    );
    assert_eq!(each(&["echo", "x", "--", "-n", "y"]), [pair("echo[1]", "x"), pair("echo[3]", "y")]);

    let mut command = place.cluster.rdist(&["submit", "--each", "test {} = b", "-"]);
    let lines = place.write("lines", "b\n\nc\n");
    command.stdin(fs::File::open(lines).unwrap());
    let finished = Running::start(command).finish();
    finished.assert_failure("1 of 2 tasks failed: test[2] (exit status 1)");
}

#[test]
fn the_next_job_of_commands_begins_in_processes_that_wait_for_it() {
    let cluster = Cluster::new();
    cluster.start_head();
    let daemon = number(&cluster.join(&["--cpus", "1"]), "pid");
    cluster.run(&["submit", "--each", "true {}", "1"]).assert_success();
    let spares = wait_until("two processes wait", || {
        let waiting = cluster.executors(daemon);
        if waiting.len() == 2 { Ok(waiting) } else { Err(format!("{waiting:?}")) }
    });

    let folder = tempfile::tempdir().unwrap();
    let toml = "[[task]]\nname = \"look\"\ncommand = \"echo is $PPID; pwd; echo $NAMED; \
                echo why >&2; env | grep -c ^RDIST_EXECUTOR_FD\"\n";
    let path = folder.path().join("look.toml");
    fs::write(&path, toml).unwrap();
    let arguments = ["--json", "submit", "--env", "NAMED=by the job", path.to_str().unwrap()];
    let finished = cluster.run(&arguments);
    let printed: Vec<String> = printed(&finished).into_iter().map(|(_, line)| line).collect();
    // `grep` has found none, and says so by its status too.
    assert_eq!(row(&finished, "look")["exit_status"], 1, "{finished}");
    let is_of = |pid: &i32| printed.contains(&format!("is {pid}"));
    assert!(spares.iter().any(is_of), "{spares:?} {finished}");
    let here = folder.path().to_str().unwrap();
    for line in [here, "by the job", "why", "0"] {
        assert!(printed.iter().any(|printed| printed == line), "{line}: {finished}");
    }

    // One that was killed while it waited is not missed.
    let spares = wait_until("two others wait", || {
        let waiting = cluster.executors(daemon);
        let is_new = waiting.len() == 2 && waiting.iter().all(|pid| !spares.contains(pid));
        if is_new { Ok(waiting) } else { Err(format!("{waiting:?}")) }
    });
    spares.into_iter().for_each(kill);
    cluster.run(&["submit", "--each", "true {}", "1"]).assert_success();
    cluster.run(&["head", "stop"]).assert_success();
    cluster.assert_all_gone();
}

/// The processes that a process has started in the background.
fn children(pid: i32) -> Vec<i32> {
    wait_until("the command has started another", || {
        let all = fs::read_dir("/proc").unwrap().flatten();
        let all = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let children: Vec<i32> =
            all.filter(|child| crate::cluster::parent(*child) == Some(pid)).collect();
        if children.is_empty() { Err("none".to_owned()) } else { Ok(children) }
    })
}

#[test]
fn a_command_survives_its_executor_and_dies_with_its_job() {
    let place = Place::new(&[1]);
    let go_on = place.folder.path().join("go-on");
    let wait = format!(
        "[[task]]\nname = \"wait\"\ncommand = \"echo pid $$; (sleep 1000; true) & \
         until test -e {}; do sleep 0.05; done\"\n",
        go_on.display()
    );
    let path = place.write("wait.toml", &wait);
    let pid = |job: &Running, but: Option<i32>| {
        job.wait_for("the command's process", |line| {
            let pid = line.split("pid ").nth(1)?.trim().parse().ok()?;
            (Some(pid) != but).then_some(pid)
        })
    };
    let is_gone = |pid: i32| {
        wait_until("the command has ended", || {
            match fs::read_to_string(format!("/proc/{pid}/stat")) {
                Ok(stat) if !stat.contains(") Z ") => Err(stat),
                _ => Ok(()),
            }
        });
    };
    let job = place.cluster.start(&["submit", &path]);
    let first = pid(&job, None);
    let executor = crate::cluster::parent(first).unwrap();
    let background = children(first);
    kill(executor);
    is_gone(first);
    background.into_iter().for_each(is_gone);
    let second = pid(&job, Some(first));
    place.cluster.run(&["stop", "job-1"]).assert_success();
    job.finish().assert_failure("stopped");
    is_gone(second);

    let job = place.cluster.start(&["submit", &path]);
    pid(&job, None);
    fs::write(&go_on, "").unwrap();
    job.finish().assert_success();

    fs::remove_file(&go_on).unwrap();
    let job = place.cluster.start(&["submit", &path]);
    let last = pid(&job, None);
    let background = children(last);
    place.cluster.run(&["head", "stop"]).assert_success();
    job.finish();
    is_gone(last);
    background.into_iter().for_each(is_gone);
}

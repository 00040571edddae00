//! Actors in a real cluster: lost, made again from what they saved, counted.

use std::time::Duration;

use crate::cluster::{Cluster, example, kill, number, parent, text, wait_until};

fn actors() -> String {
    example("actors").to_str().unwrap().to_owned()
}

#[test]
fn calls_of_actors_that_save_their_state_may_wait_for_each_other() {
    let cluster = Cluster::with_workers(&[2]);
    let finished = cluster.run(&["submit", &actors(), "--", "chain"]);
    finished.assert_success();
    // Each round of the last part adds one, and then itself.
    let total = (0..20).fold(100_u64, |total, _| (total + 1) * 2);
    assert!(finished.stdout.contains(&format!("chain {total}")), "{finished}");
}

fn runs(cluster: &Cluster, arguments: &[&str], last: &str) {
    let program = actors();
    let mut all = vec!["submit", &program, "--"];
    all.extend(arguments);
    let finished = cluster.run(&all);
    finished.assert_success();
    assert!(finished.stdout.iter().any(|line| line == last), "{finished}");
}

#[test]
fn actors_are_found_by_name_and_end_when_they_are_told() {
    let cluster = Cluster::with_workers(&[2]);
    let file = cluster.home().join("diary");
    runs(&cluster, &["lives", file.to_str().unwrap()], "lived");
}

#[test]
fn an_actor_works_in_the_name_of_another_job_that_calls_it() {
    let cluster = Cluster::with_workers(&[2, 2]);
    let stop = cluster.home().join("stop");
    let job = cluster.start(&["submit", &actors(), "--", "serve", stop.to_str().unwrap()]);
    job.wait_for("that it serves", |line| line.contains("serving").then_some(()));
    for _ in 0..3 {
        runs(&cluster, &["visit"], "visited");
    }
    std::fs::write(&stop, "").unwrap();
    job.finish().assert_success();
}

#[test]
fn calls_of_another_jobs_actor_fail_when_that_job_is_stopped() {
    let cluster = Cluster::with_workers(&[2, 2]);
    let stop = cluster.home().join("never");
    let job = cluster.start(&["submit", &actors(), "--", "serve", stop.to_str().unwrap()]);
    job.wait_for("that it serves", |line| line.contains("serving").then_some(()));
    let visitor = cluster.start(&["submit", &actors(), "--", "outlive"]);
    visitor.wait_for("that it calls", |line| line.contains("calling").then_some(()));
    cluster.run(&["stop", "job-1"]).assert_success();
    let finished = visitor.finish();
    finished.assert_success();
    let failed = finished.stdout.iter().filter(|line| line.starts_with("failed: it"));
    assert_eq!(failed.count(), 2, "{finished}");
    assert!(finished.stdout.iter().any(|line| line.contains("job-1, has ended")), "{finished}");
}

#[test]
fn a_detached_actor_outlives_its_job_its_process_and_the_head_until_it_is_killed() {
    let cluster = Cluster::new();
    let head = cluster.start_head();
    cluster.join(&["--cpus", "2"]);
    cluster.join(&["--cpus", "2"]);
    runs(&cluster, &["leave"], "left with 5");
    let listed = cluster.run(&["list", "actors", "--json"]).json_lines();
    assert!(listed.iter().any(|actor| actor["name"] == "ledger"), "{listed:?}");
    let job = || {
        let jobs = cluster.run(&["jobs", "--json"]).json_lines();
        jobs.into_iter().find(|job| job["name"] == "actor ledger").unwrap()
    };
    assert_eq!(job()["state"], "running");
    // It saves its state: what was counted before its process dies is there after.
    let come_back = |expected: u64| {
        let found = cluster.run(&["submit", &actors(), "--", "come-back"]);
        found.assert_success();
        assert!(found.stdout.contains(&format!("found {expected}")), "{found}");
        let process = found.stdout.iter().find_map(|line| line.strip_prefix("process "));
        process.unwrap().parse::<i32>().unwrap()
    };
    kill(come_back(6));
    come_back(7);
    kill(number(&head, "pid"));
    cluster.start_head();
    come_back(8);
    let ended = cluster.run(&["submit", &actors(), "--", "make-an-end"]);
    ended.assert_success();
    assert!(ended.stdout.iter().any(|line| line.contains("ended on purpose")), "{ended}");
    wait_until("its job has ended, too", || {
        let job = job();
        if job["state"] == "succeeded" { Ok(()) } else { Err(job.to_string()) }
    });
    cluster.run(&["head", "stop"]).assert_success();
    cluster.assert_all_gone();
}

#[test]
fn a_pool_of_actors_works_off_calls() {
    let cluster = Cluster::with_workers(&[2]);
    runs(&cluster, &["pool"], "pooled");
}

#[test]
fn what_a_lost_driver_has_made_makes_room_for_its_next_try() {
    let cluster = Cluster::with_workers(&[2]);
    let go = cluster.home().join("go");
    let job = cluster.start(&["submit", &actors(), "--", "begin-again", go.to_str().unwrap()]);
    let mut last = 0;
    for _ in 0..3 {
        last = job.wait_for("that a try of the driver has all CPUs", |line| {
            let pid = line.split("driver-pid ").nth(1)?.strip_suffix(" has all")?.parse().ok()?;
            (pid != last).then_some(pid)
        });
        kill(last);
    }
    job.wait_for("the last try", |line| {
        let pid: i32 = line.split("driver-pid ").nth(1)?.strip_suffix(" has all")?.parse().ok()?;
        (pid != last).then_some(())
    });
    std::fs::write(&go, "").unwrap();
    let finished = job.finish();
    finished.assert_success();
    assert!(finished.stdout.iter().any(|line| line.ends_with("counted once")), "{finished}");
    cluster.run(&["head", "stop"]).assert_success();
    cluster.assert_all_gone();
}

#[test]
fn actors_move_from_workers_that_drain_and_lose_no_call() {
    let cluster = Cluster::with_workers(&[1]);
    let stop = cluster.home().join("stop");
    let job = cluster.start(&["submit", &actors(), "--", "moves", stop.to_str().unwrap()]);
    job.wait_for("the driver", |line| line.ends_with("here").then_some(()));
    let mut lived_in = Vec::new();
    let mut worker = cluster.join(&["--cpus", "1", "--resource", "spot=1"]);
    for _ in 0..2 {
        let process = job.wait_for("that the actor lives elsewhere", |line| {
            let process = line.split("lives in process ").nth(1)?.to_owned();
            (!lived_in.contains(&process)).then_some(process)
        });
        lived_in.push(process);
        let next = cluster.join(&["--cpus", "1", "--resource", "spot=1"]);
        cluster.run(&["worker", "drain", text(&worker, "worker")]).assert_success();
        // While the job that made the actors still calls them.
        let pid = number(&worker, "pid");
        wait_until("the worker has left", || {
            let there = cluster.processes();
            if there.contains_key(&pid) { Err(format!("{there:#?}")) } else { Ok(()) }
        });
        worker = next;
    }
    job.wait_for("that the actor lives elsewhere", |line| {
        let process = line.split("lives in process ").nth(1)?.to_owned();
        (!lived_in.contains(&process)).then_some(())
    });
    std::fs::write(&stop, "").unwrap();
    let finished = job.finish();
    finished.assert_success();
    let end = "lived in 3 places and lost nothing";
    assert!(finished.stdout.iter().any(|line| line.ends_with(end)), "{finished}");
}

/// Every 200 ms an executor dies, of tasks or of actors, on either worker.
#[test]
fn counters_under_a_storm_of_kills_end_exact() {
    let cluster = Cluster::with_workers(&[2, 2]);
    let stop = cluster.home().join("stop");
    let job = cluster.start(&["submit", &actors(), "--", "storm", stop.to_str().unwrap()]);
    let driver: i32 = job.wait_for("the driver's process", |line| {
        line.split("driver-pid ").nth(1)?.trim().parse().ok()
    });
    let daemons: Vec<i32> = cluster
        .processes()
        .into_iter()
        .filter(|(_, line)| line.contains("worker join"))
        .map(|(pid, _)| pid)
        .collect();
    assert_eq!(daemons.len(), 2);
    let mut random = 1_u64;
    for _ in 0..25 {
        let victim = wait_until("there is an executor to kill", || {
            let executors: Vec<i32> =
                daemons.iter().flat_map(|daemon| cluster.executors(*daemon)).collect();
            let others: Vec<i32> = executors.into_iter().filter(|pid| *pid != driver).collect();
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (random >> 33) as usize % others.len().max(1);
            others.get(at).copied().ok_or_else(|| "only the driver runs".to_owned())
        });
        assert!(daemons.contains(&parent(victim).unwrap_or(daemons[0])));
        kill(victim);
        std::thread::sleep(Duration::from_millis(200));
    }
    std::fs::write(&stop, "").unwrap();
    let finished = job.finish();
    finished.assert_success();
    assert!(finished.stdout.iter().any(|line| line.contains("all exact")), "{finished}");
    cluster.run(&["head", "stop"]).assert_success();
    cluster.assert_all_gone();
}

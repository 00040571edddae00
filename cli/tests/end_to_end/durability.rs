//! What was acknowledged outlives every process.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::cluster::{Cluster, faults, kill, number, text, wait_until};
use crate::dice::Dice;
use crate::network::address;
use crate::relay::{Damage, Relay};
use crate::settings::seed;

/// How often everything is killed.
const KILLS: usize = 4;

#[test]
fn every_acknowledged_submit_is_there_after_everything_was_killed() {
    let cluster = Cluster::new();
    let mut daemons = vec![cluster.start_head(), cluster.join(&["--cpus", "1"])];
    // The program is large, and travels once.
    cluster.run(&["submit", &faults(), "--", "squares", "3"]).assert_success();
    let (acknowledged, done) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for submitter in 0..2 {
            let (cluster, acknowledged, done) = (&cluster, &acknowledged, &done);
            scope.spawn(move || {
                let names = (0..).map(|number| format!("{submitter}-{number}"));
                for name in names.take_while(|_| !done.load(Ordering::Relaxed)) {
                    let submit = ["submit", "--detach", "--name", &name, &faults(), "--"];
                    let finished = cluster.run(&[&submit[..], &["squares", "3"]].concat());
                    if finished.status.success() {
                        acknowledged.lock().unwrap().push(name);
                    }
                }
            });
        }
        let mut dice = Dice(seed(1));
        for kills in 0..KILLS {
            wait_until("submits are acknowledged", || {
                let count = acknowledged.lock().unwrap().len();
                if count > kills { Ok(()) } else { Err(format!("{count} so far")) }
            });
            // The moment is what the test is about.
            std::thread::sleep(Duration::from_millis(dice.below(400) as u64));
            daemons.iter().for_each(|daemon| kill(number(daemon, "pid")));
            daemons = vec![cluster.start_head(), cluster.join(&["--cpus", "1"])];
        }
        done.store(true, Ordering::Relaxed);
    });
    let acknowledged = acknowledged.into_inner().unwrap();
    // Those that no head answered in time were submitted again, under the same id.
    let jobs = cluster.run(&["jobs", "--json"]).json_lines();
    for name in &acknowledged {
        let count = jobs.iter().filter(|job| text(job, "name") == name).count();
        assert_eq!(count, 1, "{name} in {jobs:#?}");
    }
    println!("{} submits were acknowledged", acknowledged.len());
    wait_until("all jobs have ended well", || {
        let jobs = cluster.run(&["jobs", "--json"]).json_lines();
        let left: Vec<_> = acknowledged
            .iter()
            .filter(|name| {
                let job = jobs.iter().find(|job| text(job, "name") == *name);
                job.is_none_or(|job| text(job, "state") != "succeeded")
            })
            .collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} of {jobs:#?}")) }
    });
}

/// On its way in each direction: longer than it takes to see that the head has the job.
const LONG_WAY: Duration = Duration::from_millis(700);

#[test]
fn a_head_that_took_a_job_and_was_lost_before_it_said_so_takes_no_second_one() {
    let cluster = Cluster::new();
    let head = cluster.start_head();
    cluster.join(&["--cpus", "1"]);
    // The program is large, and travels before.
    cluster.run(&["submit", &faults(), "--", "squares", "3"]).assert_success();
    let relay = Relay::start(seed(1));
    let (door, entrance) = relay.door();
    relay.lead(door, address(&head));
    relay.damage(Damage { delay: LONG_WAY, ..Damage::default() });
    let entrance = entrance.to_string();
    let submit = ["submit", "--head", &entrance, "--name", "once", &faults(), "--"];
    let running = cluster.start(&[&submit[..], &["squares", "3"]].concat());
    let jobs = || {
        let jobs = cluster.run(&["jobs", "--json"]).json_lines();
        jobs.into_iter().filter(|job| text(job, "name") == "once").collect::<Vec<_>>()
    };
    wait_until(
        "the head has the job",
        || if jobs().is_empty() { Err("no".into()) } else { Ok(()) },
    );
    // The answer is in the air, and lands nowhere.
    relay.cut_all();
    kill(number(&head, "pid"));
    wait_until("the client has given up the connection", || match running.errors() {
        errors if errors.contains("may or may not be done") => Ok(()),
        errors => Err(errors),
    });
    relay.lead(door, address(&cluster.start_head()));
    relay.damage(Damage::default());
    relay.heal();
    let finished = running.finish();
    finished.assert_success();
    assert_eq!(jobs().len(), 1, "{:#?}", jobs());
}

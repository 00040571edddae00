//! Trainings that lose a process in the middle, or gain a worker. Each job has so many rounds that
//! it is far from its end when its first one is told of.

use serde_json::Value;

use crate::cluster::{Cluster, Finished, Running, kill, number, text, wait_until};
use crate::training::{Training, metric, rounds};

/// A cluster of one-CPU workers, as they told of themselves.
pub(crate) fn cluster_of(workers: usize) -> (Cluster, Vec<Value>) {
    let cluster = Cluster::with_workers(&[]);
    let workers = (0..workers).map(|_| cluster.join(&["--cpus", "1"])).collect();
    (cluster, workers)
}

/// Waits for a line of a job's JSON.
fn wait_for_event(job: &Running, what: &str, choose: impl Fn(&Value) -> bool) -> Value {
    job.wait_for(what, |line| serde_json::from_str(line).ok().filter(&choose))
}

/// Waits until a round is over.
fn wait_for_round(job: &Running, round: u64) {
    wait_for_event(job, "a round", |line| line["event"] == "round" && line["round"] == round);
}

/// Waits until a round is over that two replicas have trained.
fn wait_for_both(job: &Running) {
    wait_for_event(job, "a round with two replicas", |line| {
        line["event"] == "round" && line["replicas"] == 2
    });
}

/// The workers with the driver's and without.
pub(crate) fn split_by_driver<'a>(job: &Running, workers: &'a [Value]) -> (&'a Value, &'a Value) {
    let running = wait_for_event(job, "the driver's worker", |line| line["state"] == "running");
    let has_driver = |worker: &&Value| text(worker, "worker") == text(&running, "worker");
    let with = workers.iter().find(has_driver);
    let without = workers.iter().find(|worker| !has_driver(worker));
    (with.unwrap(), without.unwrap())
}

/// How many lines the driver has printed with this in them.
fn said(finished: &Finished, piece: &str) -> usize {
    let lines = finished.json_lines();
    let printed = lines.iter().filter(|line| line["event"] == "output");
    printed.filter_map(|line| line["text"].as_str()).map(|text| text.matches(piece).count()).sum()
}

/// Every round is there, once and in order.
fn assert_rounds(finished: &Finished, expected: u64) {
    let rounds: Vec<u64> =
        rounds(finished).iter().filter_map(|round| round["round"].as_u64()).collect();
    assert_eq!(rounds, (1..=expected).collect::<Vec<_>>(), "{finished}");
}

fn assert_one_loss(finished: &Finished) {
    finished.assert_success();
    assert_eq!(said(finished, "replica 1 is lost") + said(finished, "replica 2 is lost"), 1);
    assert_eq!(said(finished, "is lost"), 1, "one line says what happened: {finished}");
}

#[test]
fn every_strategy_goes_on_when_a_replica_is_killed() {
    let (cluster, workers) = cluster_of(2);
    for strategy in ["parameter_average", "fedavg", "allreduce", "gradient_master"] {
        let training = Training::of(&[&format!("train.strategy={strategy}"), "train.replicas=2"]);
        let job = training.start(&cluster, &["train.epochs=30"]);
        let (_, other) = split_by_driver(&job, &workers);
        wait_for_both(&job);
        // Without the driver, a worker's only executor is its replica.
        let replica = cluster.executors(number(other, "pid"));
        assert_eq!(replica.len(), 1, "{:#?}", cluster.processes());
        replica.into_iter().for_each(kill);
        let finished = job.finish();
        assert_one_loss(&finished);
        assert_rounds(&finished, 30);
    }
}

/// A replica is killed, and the one that takes its place, and so on: as good as left in peace.
#[test]
fn replicas_killed_again_and_again_cost_no_accuracy() {
    const KILLS: usize = 2;
    let (cluster, workers) = cluster_of(2);
    let training = Training::of(&["data.portion=0.5", "train.replicas=2", "train.epochs=60"]);
    let peaceful = metric(&training.run(&cluster, &[]), "test_accuracy");
    let job = training.start(&cluster, &[]);
    let (_, other) = split_by_driver(&job, &workers);
    wait_for_both(&job);
    for kills in 1..=KILLS {
        let replica = cluster.executors(number(other, "pid"));
        assert_eq!(replica.len(), 1, "{:#?}", cluster.processes());
        replica.into_iter().for_each(kill);
        let joined = format!("replica {} joined", kills + 2);
        job.wait_for("the next replica", |line| line.contains(&joined).then_some(()));
    }
    let finished = job.finish();
    finished.assert_success();
    assert_eq!(said(&finished, "is lost"), KILLS, "{finished}");
    assert_rounds(&finished, 60);
    let disturbed = metric(&finished, "test_accuracy");
    assert!(disturbed > peaceful - 0.01, "{disturbed} after kills, else {peaceful}: {finished}");
}

#[test]
fn training_goes_on_with_what_is_left_of_the_cluster() {
    for strategy in ["parameter_average", "allreduce"] {
        let (cluster, workers) = cluster_of(2);
        let training = Training::of(&[&format!("train.strategy={strategy}"), "train.replicas=2"]);
        let job = training.start(&cluster, &["train.epochs=30"]);
        let (_, other) = split_by_driver(&job, &workers);
        wait_for_both(&job);
        kill(number(other, "pid"));
        let finished = job.finish();
        assert_one_loss(&finished);
        assert_rounds(&finished, 30);
        assert_eq!(rounds(&finished)[29]["replicas"], 1, "{finished}");
        assert!(training.model().is_file());
    }
}

/// Waits until a round after that one is over, which so many replicas have trained.
fn wait_for_round_of(job: &Running, replicas: u64, after: u64) -> u64 {
    let what = format!("a round after {after} with {replicas} replicas");
    let is_it = |line: &Value| {
        let is_later = line["round"].as_u64().is_some_and(|round| round > after);
        line["event"] == "round" && is_later && line["replicas"] == replicas
    };
    wait_for_event(job, &what, is_it)["round"].as_u64().unwrap()
}

#[test]
fn an_all_reduce_goes_on_while_workers_are_killed_in_turn_and_others_join() {
    const KILLS: usize = 3;
    let (cluster, workers) = cluster_of(2);
    let training = Training::of(&["train.strategy=allreduce", "train.epochs=100000"]);
    let job = training.start(&cluster, &[]);
    let mut other = split_by_driver(&job, &workers).1.clone();
    let mut round = wait_for_round_of(&job, 2, 0);
    for _ in 0..KILLS {
        kill(number(&other, "pid"));
        round = wait_for_round_of(&job, 1, round);
        other = cluster.join(&["--cpus", "1"]);
        round = wait_for_round_of(&job, 2, round);
    }
    cluster.run(&["stop", "job-1"]).assert_success();
    let finished = job.finish();
    finished.assert_failure("stopped");
    assert_rounds(&finished, rounds(&finished).len() as u64);
    assert_eq!(said(&finished, "is lost"), KILLS, "{finished}");
    assert_eq!(said(&finished, "the driver was restarted"), 0, "the world was not: {finished}");
}

/// An all-reduce of one epoch, which takes a while with one replica alone.
fn long_epoch(settings: &[&str]) -> Training {
    let set = ["train.strategy=allreduce", "train.epochs=1", "train.batch=4", "data.portion=1"];
    // With running statistics, which joiners need too.
    let model = ["model.name=herbarium_convnet"];
    Training::of(&[&set[..], &model, settings].concat())
}

/// Waits until a replica has told of images that it has trained on.
fn wait_for_step(job: &Running, replica: u64) {
    wait_for_event(job, "a step", |line| line["event"] == "step" && line["replica"] == replica);
}

fn wait_for_joining(job: &Running, replica: usize) {
    let joined = format!("replica {replica} joined; 2 replicas work now");
    job.wait_for("a replica that joins", |line| line.contains(&joined).then_some(()));
}

/// In the end the replicas' parameters are compared, bit by bit.
#[test]
fn an_all_reduce_takes_a_replica_in_between_two_steps() {
    let (cluster, _) = cluster_of(1);
    let training = long_epoch(&["data.limit=4000", "train.baseline=100"]);
    let job = training.start(&cluster, &[]);
    wait_for_event(&job, "the training", |line| line["event"] == "training");
    cluster.join(&["--cpus", "1"]);
    wait_for_joining(&job, 2);
    let finished = job.finish();
    finished.assert_success();
    let rounds = rounds(&finished);
    assert_eq!((rounds.len(), &rounds[0]["replicas"]), (1, &Value::from(2)), "{finished}");
    let lines = finished.json_lines();
    let parts = lines.iter().filter(|line| line["event"] == "replica");
    let images: Vec<u64> = parts.map(|part| part["images"].as_u64().unwrap()).collect();
    assert!(images.len() == 2 && images[0] > images[1] && images[1] > 0, "{images:?}");
    assert_eq!(images.iter().sum::<u64>(), 4_000, "each image once: {finished}");
    let accuracy = metric(&finished, "test_accuracy");
    assert!(accuracy > 0.9, "{accuracy}");
    assert_eq!(said(&finished, "replicas came or went in every round"), 1, "{finished}");
}

#[test]
fn an_all_reduce_survives_any_number_of_losses_between_which_it_gets_on() {
    // One more than a job bears that gets nowhere.
    const KILLS: usize = 13;
    let (cluster, workers) = cluster_of(2);
    let job = long_epoch(&["train.replicas=2", "train.batch=2"]).start(&cluster, &[]);
    let (_, other) = split_by_driver(&job, &workers);
    wait_for_step(&job, 2);
    for kills in 1..=KILLS {
        let replica = cluster.executors(number(other, "pid"));
        assert_eq!(replica.len(), 1, "{:#?}", cluster.processes());
        replica.into_iter().for_each(kill);
        wait_for_joining(&job, kills + 2);
    }
    cluster.run(&["stop", "job-1"]).assert_success();
    let finished = job.finish();
    finished.assert_failure("stopped");
    assert_eq!(said(&finished, "is lost"), KILLS, "{finished}");
    assert_eq!(rounds(&finished).len(), 0, "all of it in one epoch: {finished}");
}

#[test]
fn nobody_joins_a_replica_that_is_measured_alone() {
    let (cluster, _) = cluster_of(1);
    let job = long_epoch(&["train.baseline=100000", "data.limit=6000"]).start(&cluster, &[]);
    wait_for_step(&job, 1);
    cluster.join(&["--cpus", "1"]);
    wait_for_joining(&job, 2);
    // What is said at once may come in one event.
    let told = job.lines().join("\n");
    let (alone, joined) = (told.find("one replica alone: "), told.find("replica 2 joined"));
    assert!(alone.is_some() && alone < joined, "{told}");
    cluster.run(&["stop", "job-1"]).assert_success();
    job.finish().assert_failure("stopped");
}

#[test]
fn a_worker_that_joins_is_used() {
    let (cluster, _) = cluster_of(1);
    let training = Training::of(&["train.epochs=100000"]);
    let job = training.start(&cluster, &[]);
    wait_for_round(&job, 1);
    cluster.join(&["--cpus", "1"]);
    wait_for_both(&job);
    cluster.run(&["stop", "job-1"]).assert_success();
    let finished = job.finish();
    finished.assert_failure("stopped");
    assert_eq!(rounds(&finished)[0]["replicas"], 1);
    assert_eq!(said(&finished, "replica 2 joined; 2 replicas work now"), 1, "{finished}");
}

#[test]
fn a_killed_head_does_not_stop_a_training() {
    ["parameter_average", "allreduce"].into_iter().for_each(train_without_head);
}

fn train_without_head(strategy: &str) {
    let cluster = Cluster::new();
    let head = cluster.start_head();
    (0..2).for_each(|_| drop(cluster.join(&["--cpus", "1"])));
    let training = Training::of(&[&format!("train.strategy={strategy}"), "train.epochs=20"]);
    let job = training.start(&cluster, &[]);
    wait_for_round(&job, 1);
    kill(number(&head, "pid"));
    cluster.run(&["head", "start", "--listen", text(&head, "address")]).assert_success();
    let finished = job.finish();
    finished.assert_success();
    assert_eq!(said(&finished, "is lost"), 0, "{finished}");
    let jobs = cluster.run(&["jobs", "--json"]).json_lines();
    assert_eq!(jobs.len(), 1);
    assert_eq!(jobs[0]["state"], "succeeded");
    for told in [finished, cluster.run(&["logs", "job-1", "--json"])] {
        assert_rounds(&told, 20);
    }
}

#[test]
fn a_driver_whose_worker_is_killed_goes_on_from_its_checkpoint() {
    let (cluster, workers) = cluster_of(2);
    // With one replica it matters for nothing where that is, so that the result must not differ.
    let settings = ["train.strategy=allreduce", "train.replicas=1", "train.epochs=8"];
    let (whole, broken) = (Training::of(&settings), Training::of(&settings));
    let job = broken.start(&cluster, &[]);
    let (driver, _) = split_by_driver(&job, &workers);
    // The first round's checkpoint is older than the second round.
    wait_for_round(&job, 2);
    kill(number(driver, "pid"));
    let finished = job.finish();
    finished.assert_success();
    assert_eq!(said(&finished, "the driver was restarted: going on from epoch"), 1, "{finished}");
    assert_eq!(rounds(&finished).last().unwrap()["round"], 8);
    whole.run(&cluster, &[]);
    assert!(whole.parameters() == broken.parameters(), "not the same bits");
    wait_until("the job's processes are gone", || {
        let processes = cluster.processes();
        if processes.len() == 2 { Ok(()) } else { Err(format!("{processes:#?}")) }
    });
}

//! Jobs that wait in the head, and labels.

use super::*;
use crate::spec::{LabelRule, LabelSelector, LabelTest};

const OTHER: JobId = JobId(2);

fn of(job: JobId, index: u64) -> Assignment {
    let spec = spec(TaskId::driver(job).child(index), 1.0);
    Assignment::new(spec, 0, WorkerId(1))
}

/// A worker of that many CPUs and two jobs, the first of which waits with ten tasks.
fn two_jobs(cpus: f64, weight: u32) -> Bench {
    let mut bench = Bench::with(&[cpus]);
    let id = TaskId::driver(OTHER);
    let driver = TaskSpec { kind: TaskKind::Driver, ..spec(id, 0.0) };
    bench.event(ClusterEvent::JobWeighed { job: OTHER, weight });
    bench.event(ClusterEvent::JobSubmitted { job: OTHER, driver });
    bench.spill(1, (0..10).map(|index| of(JOB, index)).collect());
    bench
}

/// Ends what was assigned, task by task, and says which jobs followed.
fn follow(bench: &mut Bench, count: usize) -> Vec<u32> {
    let mut running: Vec<_> = bench
        .assigned()
        .into_iter()
        .filter(|(task, ..)| *task != TaskId::driver(task.job()))
        .collect();
    let mut jobs = Vec::new();
    while jobs.len() < count {
        let (task, attempt, _) = running.remove(0);
        bench.say(1, ToHead::Ended(vec![(task, attempt)]));
        let next = bench.assigned();
        jobs.extend(next.iter().map(|(task, ..)| task.job().0));
        running.extend(next);
    }
    jobs
}

#[test]
fn a_job_that_comes_late_is_not_behind_the_queue_of_another() {
    let mut bench = two_jobs(2.0, 1);
    bench.spill(1, (0..10).map(|index| of(OTHER, index)).collect());
    assert_eq!(follow(&mut bench, 6), [2, 1, 2, 1, 2, 1]);
}

#[test]
fn a_job_of_twice_the_weight_gets_twice_as_much() {
    let mut bench = two_jobs(3.0, 2);
    bench.spill(1, (0..10).map(|index| of(OTHER, index)).collect());
    let jobs = follow(&mut bench, 9);
    let others = jobs.iter().filter(|job| **job == 2).count();
    assert!((5..=7).contains(&others), "{jobs:?}");
}

#[test]
fn who_waits_long_may_stand_in_the_line_of_a_busy_worker() {
    let mut bench = Bench::with(&[1.0]);
    bench.load(1, 0.0, 1, &[(1.0, 50)]);
    bench.spill(1, vec![task(1, 1, 1.0), task(1, 2, 1.0)]);
    assert_eq!(bench.assigned(), []);
    bench.now = bench.now + std::time::Duration::from_secs(1);
    bench.load(1, 0.0, 1, &[(1.0, 49)]);
    assert_eq!(bench.assigned(), [(id(1), 0, 1)]);
    bench.now = bench.now + std::time::Duration::from_secs(1);
    bench.load(1, -1.0, 2, &[(1.0, 48)]);
    assert_eq!(bench.assigned(), [], "one at a time");
    bench.say(1, ToHead::Ended(vec![(id(1), 0)]));
    bench.load(1, 0.0, 2, &[(1.0, 48)]);
    assert_eq!(bench.assigned(), [(id(2), 0, 1)]);
}

#[test]
fn labels_bind_and_preferences_give_way() {
    let mut bench = Bench::new();
    for (worker, zone) in [(1, "a"), (2, "b"), (3, "b")] {
        let labels = vec![("zone".to_owned(), zone.to_owned())];
        let worker = WorkerId(worker);
        let (total, held) = (Resources::cpus(1.0), Held::default());
        bench.event(ClusterEvent::WorkerJoined { worker, total, labels, held });
    }
    bench.event(ClusterEvent::JobSubmitted { job: JOB, driver: driver(0) });
    bench.actions.clear();
    let rule = |key: &str, test| LabelRule { key: key.to_owned(), test };
    let is = |value: &str| LabelTest::In(vec![value.to_owned()]);
    let with = |index, hard, soft| {
        let mut assignment = task(1, index, 1.0);
        assignment.spec.strategy = Strategy::Labels(Box::new(LabelSelector { hard, soft }));
        assignment
    };
    let in_b = || vec![rule("zone", is("b"))];
    bench.spill(1, vec![with(1, in_b(), Vec::new()), with(2, in_b(), Vec::new())]);
    let mut placed: Vec<u64> = bench.assigned().iter().map(|(.., worker)| *worker).collect();
    placed.sort_unstable();
    assert_eq!(placed, [2, 3]);
    bench.spill(1, vec![with(3, in_b(), Vec::new()), with(4, Vec::new(), in_b())]);
    assert_eq!(bench.assigned(), [(id(4), 0, 1)], "rather there, but here is room");
    let not = rule("zone", LabelTest::NotIn(vec!["a".to_owned(), "b".to_owned()]));
    bench.spill(1, vec![with(5, vec![not], Vec::new())]);
    let why = "needs a worker with zone not in (a, b); no worker is like that";
    assert!(bench.take_sent(1, waiting(id(5), why)));
    let labels = Vec::new();
    let (worker, total, held) = (WorkerId(4), Resources::cpus(1.0), Held::default());
    bench.event(ClusterEvent::WorkerJoined { worker, total, labels, held });
    assert_eq!(bench.assigned(), [(id(5), 0, 4)]);
}

/// A job with that quota and ten tasks of one CPU, on two workers of eight.
fn limited(cpus: f64) -> Bench {
    let mut bench = Bench::new();
    bench.join(1, 8.0);
    bench.join(2, 8.0);
    bench.event(ClusterEvent::JobLimited { job: JOB, quota: Resources::cpus(cpus) });
    bench.event(ClusterEvent::JobSubmitted { job: JOB, driver: driver(0) });
    bench.actions.clear();
    bench.spill(1, (0..10).map(|index| task(1, index, 1.0)).collect());
    bench
}

#[test]
fn a_job_holds_no_more_than_its_quota_while_others_go_on() {
    let mut bench = limited(3.0);
    let running = bench.assigned();
    assert_eq!(running.len(), 3);
    let reason = "waits for 1 CPU of its job's quota of 3, of which 3 is in use";
    assert!(bench.take_sent(1, waiting(id(3), reason)));
    let line = bench.core.explain(id(4)).unwrap();
    assert_eq!(line, format!("waits in the head behind 1 tasks of its kind: {reason}"));
    // One more is as large as the quota, and one larger.
    bench.spill(1, vec![task(1, 20, 2.0), task(1, 21, 4.0)]);
    let hopeless = "needs 4 CPU; the quota of its job is 3";
    assert!(bench.take_sent(1, waiting(id(21), hopeless)));
    let other = TaskSpec { kind: TaskKind::Driver, ..spec(TaskId::driver(OTHER), 0.0) };
    bench.event(ClusterEvent::JobSubmitted { job: OTHER, driver: other });
    bench.spill(1, (0..10).map(|index| of(OTHER, index)).collect());
    assert_eq!(bench.assigned().len(), 1 + 10, "the driver and all of the other job's");
    bench.actions.clear();
    // As one ends the next one starts.
    for (task, attempt, worker) in running {
        bench.say(worker, ToHead::Ended(vec![(task, attempt)]));
        assert_eq!(bench.assigned().len(), 1);
    }
}

#[test]
fn a_task_that_waits_for_objects_gives_its_quota_back() {
    let mut bench = limited(1.0);
    let (first, attempt, worker) = bench.assigned()[0];
    let blocked = |blocked| ToHead::Blocked { task: first, attempt, blocked };
    bench.say(worker, blocked(true));
    let (second, ..) = bench.assigned()[0];
    bench.say(worker, blocked(true));
    assert_eq!(bench.assigned(), [], "said twice, it counts once");
    // Both run for a while; the next one waits for both.
    bench.say(worker, blocked(false));
    bench.say(worker, ToHead::Ended(vec![(second, 0)]));
    assert_eq!(bench.assigned(), []);
    bench.say(worker, blocked(true));
    assert_eq!(bench.assigned().len(), 1);
    // Its end gives back what it has not given back before.
    bench.say(worker, ToHead::Ended(vec![(first, 0)]));
    assert_eq!(bench.assigned(), []);
}

#[test]
fn what_a_lost_worker_held_of_a_quota_is_free() {
    let mut bench = Bench::new();
    // The driver's worker runs nothing else.
    bench.join(1, 0.0);
    bench.event(ClusterEvent::JobLimited { job: JOB, quota: Resources::cpus(2.0) });
    bench.event(ClusterEvent::JobSubmitted { job: JOB, driver: driver(0) });
    bench.join(2, 8.0);
    bench.actions.clear();
    bench.spill(1, (0..10).map(|index| task(1, index, 1.0)).collect());
    assert_eq!(bench.assigned(), [(id(0), 0, 2), (id(1), 0, 2)]);
    bench.join(3, 8.0);
    assert_eq!(bench.assigned(), [], "more room does not make the quota larger");
    bench.lose(2);
    assert_eq!(bench.assigned(), [(id(2), 0, 3), (id(3), 0, 3)]);
    bench.event(ClusterEvent::JobStopRequested { job: JOB });
    assert_eq!(bench.core.waiting(), 0);
}

use super::*;
use crate::id::GroupId;
use crate::message::GroupRequest;
use crate::placement::Reason;
use crate::spec::GroupStrategy;

fn restarted(workers: &[u64], attempt: u32, max_retries: u32) -> Bench {
    let mut bench = Bench::new();
    bench.event(ClusterEvent::Restored {
        jobs: vec![(JOB, driver(max_retries), attempt)],
        workers: workers.iter().map(|worker| WorkerId(*worker)).collect(),
        names: Vec::new(),
    });
    bench
}

#[test]
fn a_driver_that_still_runs_is_claimed() {
    let mut bench = restarted(&[1, 2], 0, 0);
    bench.join(1, 1.0);
    bench.nothing_more();
    bench.join_holding(2, 1.0, holding(&[(TaskId::driver(JOB), 0, 0)]));
    assert!(bench.take_state(JobState::Running { worker: WorkerId(2), attempt: 0 }));
    bench.nothing_more();
    let finished = ToHead::DriverFinished { job: JOB, attempt: 0, outcome: returned() };
    bench.say(2, finished);
    assert!(bench.take_state(JobState::Succeeded));
}

#[test]
fn a_driver_that_nobody_has_is_placed_when_all_are_back_whatever_its_retries() {
    let mut bench = restarted(&[1, 2], 0, 0);
    bench.join(1, 1.0);
    assert_eq!(bench.assigned(), []);
    bench.join(2, 1.0);
    let assigned = bench.assigned();
    assert_eq!(assigned.len(), 1);
    assert_eq!(assigned[0].1, 1);
}

#[test]
fn a_worker_that_does_not_come_back_is_lost_after_the_grace_and_the_driver_may_have_been_there() {
    let mut bench = restarted(&[1, 2], 0, 0);
    bench.join(1, 1.0);
    bench.wait_for_timeout();
    assert_eq!(bench.now, Timestamp(3_000_000_000));
    let reason = "did not come back within 3s after the head restarted".to_owned();
    let died = FromHead::WorkerDied { worker: WorkerId(2), reason };
    assert!(bench.take_sent(1, died.clone()));
    assert!(matches!(
        bench.actions.remove(0),
        ClusterAction::JobChanged { state: JobState::Failed(_), .. }
    ));
    bench.actions.clear();
    bench.join(2, 1.0);
    assert!(bench.take_sent(2, died));
    bench.nothing_more();
    assert_eq!(bench.core.workers().count(), 1);
}

#[test]
fn a_task_that_a_returning_worker_holds_is_not_placed_twice() {
    let mut bench = restarted(&[1, 2], 0, 0);
    bench.join_holding(1, 1.0, holding(&[(TaskId::driver(JOB), 0, 0)]));
    bench.actions.clear();
    bench.spill(1, vec![task(1, 0, 1.0), task(1, 1, 1.0)]);
    let reason = "the head has restarted and waits for its workers to come back";
    assert!(bench.take_sent(1, waiting(id(0), reason)));
    assert!(bench.take_sent(1, waiting(id(1), reason)));
    bench.nothing_more();
    assert!(bench.core.explain(id(0)).unwrap().contains(reason));
    bench.join_holding(2, 2.0, holding(&[(id(0), 0, 1)]));
    assert!(bench.placed().contains(&(1, id(0), 0, 2)));
    assert_eq!(bench.assigned().iter().map(|a| a.0).collect::<Vec<_>>(), [id(1)]);
}

#[test]
fn jobs_that_are_new_do_not_wait_for_the_grace() {
    let mut bench = restarted(&[1, 2], 0, 0);
    bench.join(1, 1.0);
    let job = JobId(2);
    let spec = TaskSpec { kind: TaskKind::Driver, ..spec(TaskId::driver(job), 0.0) };
    bench.event(ClusterEvent::JobSubmitted { job, driver: spec });
    assert_eq!(bench.assigned(), [(TaskId::driver(job), 0, 1)]);
}

#[test]
fn a_job_that_ended_while_a_worker_was_away_is_ended_there() {
    let mut bench = Bench::new();
    bench.event(ClusterEvent::Restored {
        jobs: Vec::new(),
        workers: vec![WorkerId(1)],
        names: Vec::new(),
    });
    bench.join_holding(1, 1.0, holding(&[(id(0), 0, 1)]));
    assert!(bench.take_sent(1, FromHead::JobEnded { job: JOB }));
    bench.nothing_more();
}

#[test]
fn a_name_is_free_whose_actor_has_ended_while_there_was_no_head() {
    let mut bench = Bench::new();
    let names = [("kept", actor(1)), ("ended", actor(2)), ("anew", actor(3))];
    let owned = |(name, actor): (&str, _)| (name.to_owned(), actor, WorkerId(1));
    let mut of_before: Vec<_> = names.into_iter().map(owned).collect();
    of_before.push(("elsewhere".to_owned(), actor(4), WorkerId(2)));
    bench.event(ClusterEvent::Restored {
        jobs: vec![(JOB, driver(0), 0)],
        workers: vec![WorkerId(1), WorkerId(2)],
        names: of_before,
    });
    let mut held = holding(&[(TaskId::driver(JOB), 0, 0)]);
    held.names.push(("kept".to_owned(), actor(1)));
    held.names.push(("anew".to_owned(), actor(5)));
    bench.join_holding(1, 1.0, held.clone());
    let changed = |name: &str, actor| ClusterAction::NameChanged { name: name.to_owned(), actor };
    for (name, actor) in [("anew", None), ("ended", None), ("anew", Some((actor(5), WorkerId(1))))]
    {
        assert!(bench.take(&changed(name, actor)), "{name}");
    }
    assert!(bench.take_state(JobState::Running { worker: WorkerId(1), attempt: 0 }));
    // What comes again may be older than what the head has heard since.
    bench.say(1, ToHead::ActorNamed { name: "late".into(), actor: actor(6), owner: WorkerId(1) });
    bench.join_holding(1, 1.0, held);
    let granted = Some((actor(6), WorkerId(1)));
    assert!(bench.take(&changed("late", granted)));
    let (name, taken_by) = ("late".to_owned(), None);
    let message = FromHead::ActorNameResult { name, actor: actor(6), taken_by };
    assert!(bench.take_sent(1, message));
    bench.nothing_more();
}

#[test]
fn a_returning_worker_hears_of_losses_and_keeps_its_names() {
    let mut bench = Bench::new();
    let name = "counter".to_owned();
    bench.event(ClusterEvent::Restored {
        jobs: vec![(JOB, driver(0), 0)],
        workers: vec![WorkerId(1), WorkerId(2)],
        names: vec![(name.clone(), actor(1), WorkerId(1))],
    });
    bench.lose(2);
    let mut held = holding(&[(TaskId::driver(JOB), 0, 0)]);
    held.names.push((name.clone(), actor(1)));
    held.names.push(("other".to_owned(), actor(2)));
    bench.join_holding(1, 1.0, held);
    bench.say(1, ToHead::Met(vec![WorkerId(1), WorkerId(2), WorkerId(3)]));
    let reason = "its machine burnt".to_owned();
    assert!(bench.take_sent(1, FromHead::WorkerDied { worker: WorkerId(2), reason }));
    let reason = "it is no member".to_owned();
    assert!(bench.take_sent(1, FromHead::WorkerDied { worker: WorkerId(3), reason }));
    assert!(bench.take_state(JobState::Running { worker: WorkerId(1), attempt: 0 }));
    let granted = Some((actor(2), WorkerId(1)));
    assert!(bench.take(&ClusterAction::NameChanged { name: "other".into(), actor: granted }));
    bench.nothing_more();
    assert_eq!(bench.core.poll_timeout(), None);
}

/// What an old head has placed of a job's quota is not known before every worker is back.
#[test]
fn nothing_is_given_of_a_quota_before_all_workers_are_back() {
    let mut bench = Bench::new();
    let quota = Resources::cpus(4.0);
    bench.event(ClusterEvent::JobLimited { job: JOB, quota });
    bench.event(ClusterEvent::Restored {
        jobs: vec![(JOB, driver(0), 0)],
        workers: vec![WorkerId(1), WorkerId(2)],
        names: Vec::new(),
    });
    bench.join_holding(1, 8.0, holding(&[(TaskId::driver(JOB), 0, 0), (id(0), 0, 1)]));
    bench.load(1, 7.0, 0, &[]);
    // It ends, and is to run anew; and a group is asked for, which is never parked.
    bench.spill(1, vec![task(1, 0, 1.0)]);
    bench.say(1, ToHead::Ended(vec![(id(0), 0)]));
    let group = GroupId(id(9));
    let (strategy, bundles) = (GroupStrategy::Pack, vec![(0, Resources::cpus(1.0))]);
    let request = GroupRequest { group, round: 1, strategy, bundles, beside: Vec::new() };
    bench.say(1, ToHead::GroupWanted(request));
    assert_eq!(bench.assigned(), []);
    let reason = Reason::Recovering.to_string();
    assert!(bench.take_sent(1, waiting(id(0), &reason)));
    assert!(bench.take_sent(1, FromHead::GroupWaiting { group, reason }));
    // What the other worker holds leaves room for one of the two.
    bench.join_holding(2, 8.0, holding(&[(id(1), 0, 1), (id(2), 0, 1), (id(3), 0, 1)]));
    assert_eq!(bench.assigned(), [(group.bundle(0), 1, 2)]);
    bench.say(2, ToHead::Ended(vec![(id(1), 0)]));
    assert_eq!(bench.assigned().len(), 1);
    bench.actions.clear();
}

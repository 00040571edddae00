use super::*;
use crate::outcome::{Cause, Death, TaskError};

fn failed(cause: Cause) -> Outcome {
    Outcome::Failed(TaskError { task: TaskId::driver(JOB), cause })
}

fn finish(bench: &mut Bench, from: u64, attempt: u32, outcome: Outcome) {
    bench.say(from, ToHead::DriverFinished { job: JOB, attempt, outcome });
}

#[test]
fn a_job_waits_for_a_worker_runs_and_succeeds() {
    let mut bench = Bench::new();
    bench.event(ClusterEvent::JobSubmitted { job: JOB, driver: driver(0) });
    let reason = "no worker takes tasks; start one: rdist worker join".to_owned();
    assert!(bench.take_state(JobState::Waiting { reason, attempt: 0 }));
    bench.join(1, 1.0);
    assert!(bench.take_state(JobState::Running { worker: WorkerId(1), attempt: 0 }));
    assert_eq!(bench.assigned(), [(TaskId::driver(JOB), 0, 1)]);
    finish(&mut bench, 1, 0, returned());
    assert!(bench.take_state(JobState::Succeeded));
    assert!(bench.take_sent(1, FromHead::JobEnded { job: JOB }));
    finish(&mut bench, 1, 0, returned());
    bench.event(ClusterEvent::JobSubmitted { job: JOB, driver: driver(0) });
    bench.nothing_more();
}

#[test]
fn a_driver_that_dies_is_tried_again_within_its_retries() {
    let mut bench = Bench::new();
    bench.join(1, 1.0);
    bench.event(ClusterEvent::JobSubmitted { job: JOB, driver: driver(1) });
    bench.actions.clear();
    let death = Cause::ExecutorDied(Death::Killed { signal: 9, stderr: String::new() });
    finish(&mut bench, 1, 0, failed(death.clone()));
    assert_eq!(bench.assigned(), [(TaskId::driver(JOB), 1, 1)]);
    bench.actions.clear();
    finish(&mut bench, 1, 0, failed(death.clone()));
    bench.nothing_more();
    finish(&mut bench, 1, 1, failed(death.clone()));
    let error = TaskError { task: TaskId::driver(JOB), cause: death };
    assert!(bench.take_state(JobState::Failed(error)));
}

#[test]
fn a_driver_that_passes_on_the_loss_of_its_task_is_not_tried_again() {
    let mut bench = Bench::new();
    bench.join(1, 1.0);
    bench.event(ClusterEvent::JobSubmitted { job: JOB, driver: driver(1) });
    bench.actions.clear();
    let cause = Cause::ExecutorDied(Death::Stopped { seconds: 3 });
    let error = TaskError { task: TaskId::driver(JOB).child(0), cause };
    finish(&mut bench, 1, 0, Outcome::Failed(error.clone()));
    assert!(bench.take_state(JobState::Failed(error)));
}

#[test]
fn a_panic_is_not_tried_again() {
    let mut bench = Bench::with(&[1.0]);
    let cause = Cause::Panicked { message: "no".to_owned() };
    finish(&mut bench, 1, 0, failed(cause.clone()));
    assert!(bench.take_state(JobState::Failed(TaskError { task: TaskId::driver(JOB), cause })));
}

#[test]
fn a_driver_moves_when_its_worker_is_lost() {
    let mut bench = Bench::new();
    bench.event(ClusterEvent::JobSubmitted { job: JOB, driver: driver(1) });
    bench.join(1, 1.0);
    bench.join(2, 1.0);
    bench.actions.clear();
    bench.lose(1);
    let reason = "its machine burnt".to_owned();
    assert!(bench.take_sent(2, FromHead::WorkerDied { worker: WorkerId(1), reason }));
    assert_eq!(bench.assigned(), [(TaskId::driver(JOB), 1, 2)]);
    finish(&mut bench, 2, 1, returned());
    assert!(bench.take_state(JobState::Succeeded));
}

#[test]
fn a_stopped_job_is_forgotten_everywhere() {
    let mut bench = Bench::with(&[1.0, 1.0]);
    bench.spill(1, vec![task(1, 0, 1.0), task(1, 1, 9.0)]);
    bench.say(1, ToHead::ActorNamed { name: "n".to_owned(), actor: actor(5), owner: WorkerId(1) });
    bench.actions.clear();
    bench.event(ClusterEvent::JobStopRequested { job: JOB });
    assert!(bench.take_state(JobState::Stopped));
    assert!(bench.take(&ClusterAction::NameChanged { name: "n".to_owned(), actor: None }));
    assert!(bench.take_sent(1, FromHead::JobEnded { job: JOB }));
    assert!(bench.take_sent(2, FromHead::JobEnded { job: JOB }));
    assert_eq!(bench.core.waiting(), 0);
    bench.spill(1, vec![task(1, 2, 1.0)]);
    bench.nothing_more();
}

#[test]
fn tasks_of_unknown_jobs_end_them() {
    let mut bench = Bench::new();
    bench.join(1, 1.0);
    bench.spill(1, vec![task(1, 0, 1.0)]);
    assert!(bench.take_sent(1, FromHead::JobEnded { job: JOB }));
    bench.nothing_more();
}

#[test]
fn names_are_first_come_first_served() {
    let mut bench = Bench::with(&[1.0, 1.0]);
    let claim = |worker, n| ToHead::ActorNamed {
        name: "counter".to_owned(),
        actor: actor(n),
        owner: WorkerId(worker),
    };
    let result = |n, taken_by| FromHead::ActorNameResult {
        name: "counter".to_owned(),
        actor: actor(n),
        taken_by,
    };
    bench.say(1, claim(1, 1));
    let granted = Some((actor(1), WorkerId(1)));
    assert!(bench.take(&ClusterAction::NameChanged { name: "counter".into(), actor: granted }));
    assert!(bench.take_sent(1, result(1, None)));
    bench.say(1, claim(1, 1));
    assert!(bench.take_sent(1, result(1, None)));
    bench.say(2, claim(2, 2));
    assert!(bench.take_sent(2, result(2, Some(actor(1)))));
    bench.say(2, ToHead::ActorLookup { request: 4, name: "counter".to_owned() });
    assert!(bench.take_sent(2, FromHead::ActorFound { request: 4, actor: granted }));
    bench.say(2, ToHead::OffersWanted { request: 5 });
    let offers = [1, 2].map(|worker| (WorkerId(worker), Resources::cpus(1.0))).to_vec();
    assert!(bench.take_sent(2, FromHead::Offers { request: 5, offers }));
    bench.say(2, ToHead::ActorUnnamed { name: "counter".to_owned(), actor: actor(2) });
    bench.nothing_more();
    bench.lose(1);
    assert!(bench.take(&ClusterAction::NameChanged { name: "counter".into(), actor: None }));
}

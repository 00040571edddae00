use super::*;

#[test]
fn a_spilled_task_is_assigned_and_its_owner_told() {
    let mut bench = Bench::with(&[1.0, 4.0]);
    bench.load(1, 0.0, 0, &[]);
    bench.spill(1, vec![task(1, 0, 2.0)]);
    assert_eq!(bench.assigned(), [(id(0), 0, 2)]);
    assert_eq!(bench.placed(), [(1, id(0), 0, 2)]);
    bench.nothing_more();
}

#[test]
fn what_is_told_again_is_answered_and_not_placed_again() {
    let mut bench = Bench::with(&[1.0, 4.0]);
    bench.spill(1, vec![task(1, 0, 2.0)]);
    bench.actions.clear();
    bench.spill(1, vec![task(1, 0, 2.0)]);
    assert_eq!(bench.assigned(), []);
    assert_eq!(bench.placed(), [(1, id(0), 0, 2)]);
    bench.nothing_more();
}

#[test]
fn a_task_that_runs_anew_is_placed_when_its_former_run_has_ended() {
    let mut bench = Bench::with(&[1.0, 4.0]);
    bench.load(1, 0.0, 0, &[]);
    bench.spill(1, vec![task(1, 0, 2.0)]);
    bench.actions.clear();
    bench.spill(1, vec![task(1, 0, 2.0)]);
    bench.nothing_more();
    bench.say(2, ToHead::Ended(vec![(id(0), 0)]));
    assert_eq!(bench.assigned(), [(id(0), 0, 2)]);
    assert_eq!(bench.placed(), [(1, id(0), 0, 2)]);
}

#[test]
fn a_newer_attempt_is_placed_before_the_older_has_ended_and_an_older_one_after_all() {
    let mut bench = Bench::with(&[1.0, 4.0]);
    bench.spill(1, vec![task(1, 0, 2.0)]);
    bench.spill(1, vec![Assignment { attempt: 1, ..task(1, 0, 2.0) }]);
    assert_eq!(bench.assigned(), [(id(0), 0, 2), (id(0), 1, 2)]);
    bench.actions.clear();
    bench.spill(1, vec![task(1, 0, 2.0)]);
    bench.say(2, ToHead::Ended(vec![(id(0), 0), (id(0), 0), (id(9), 3)]));
    bench.nothing_more();
    assert_eq!(bench.core.workers().nth(1).unwrap().available, Resources::cpus(2.0));
    // Its owner had forgotten the newer one when it submitted the task again.
    bench.say(2, ToHead::Ended(vec![(id(0), 1)]));
    assert_eq!(bench.assigned(), [(id(0), 0, 2)]);
}

#[test]
fn the_same_task_of_another_owner_is_another_task() {
    let mut bench = Bench::with(&[1.0, 4.0]);
    bench.spill(1, vec![task(1, 0, 2.0)]);
    bench.spill(2, vec![task(2, 0, 2.0)]);
    assert_eq!(bench.assigned().len(), 2);
}

#[test]
fn room_is_not_given_away_twice_while_reports_are_old() {
    let mut bench = Bench::with(&[1.0, 4.0]);
    bench.load(1, 0.0, 0, &[]);
    bench.spill(1, (0..6).map(|n| task(1, n, 1.0)).collect());
    assert_eq!(bench.assigned().len(), 4);
    bench.actions.clear();
    // Sent before the worker had seen any of the four.
    bench.load(2, 4.0, 0, &[]);
    assert_eq!(bench.assigned(), []);
    // It saw the driver and two of them, and runs them.
    bench.load(2, 2.0, 3, &[]);
    assert_eq!(bench.assigned(), []);
    bench.say(2, ToHead::Ended(vec![(id(0), 0)]));
    assert_eq!(bench.assigned(), [(id(4), 0, 2)]);
    // The report that counts the ended one as free, and has not seen the last assignment.
    bench.load(2, 1.0, 5, &[]);
    assert_eq!(bench.assigned(), []);
}

#[test]
fn a_large_task_does_not_hold_up_small_ones() {
    let mut bench = Bench::with(&[1.0, 4.0]);
    bench.spill(1, vec![task(1, 0, 8.0), task(1, 1, 1.0)]);
    assert_eq!(bench.assigned(), [(id(1), 0, 1)]);
    assert_eq!(bench.placed(), [(1, id(1), 0, 1)]);
    assert!(bench.take_sent(1, waiting(id(0), "needs 8 CPU; largest worker has 4")));
    bench.nothing_more();
    assert_eq!(
        bench.core.explain(id(0)).unwrap(),
        "waits in the head, first of its kind: needs 8 CPU; largest worker has 4"
    );
    bench.join(3, 8.0);
    assert_eq!(bench.assigned(), [(id(0), 0, 3)]);
}

#[test]
fn room_goes_to_the_highest_priority_then_to_the_earliest_across_shapes() {
    let mut bench = Bench::with(&[2.0]);
    bench.load(1, 0.0, 0, &[]);
    let mut urgent = task(1, 3, 1.5);
    urgent.spec.priority = 1;
    bench.spill(1, vec![task(1, 0, 1.0), task(1, 1, 0.5), task(1, 2, 1.0), urgent]);
    bench.load(1, 2.0, 0, &[]);
    assert_eq!(bench.assigned(), [(id(3), 0, 1), (id(1), 0, 1)]);
    bench.say(1, ToHead::Ended(vec![(id(3), 0)]));
    assert_eq!(bench.assigned(), [(id(0), 0, 1)]);
}

#[test]
fn a_draining_worker_gets_nothing_and_a_lost_one_is_announced() {
    let mut bench = Bench::with(&[1.0, 4.0]);
    bench.event(ClusterEvent::WorkerDraining { worker: WorkerId(2) });
    bench.spill(1, vec![task(1, 0, 2.0)]);
    assert_eq!(bench.assigned(), []);
    assert!(bench.take_sent(1, waiting(id(0), "needs 2 CPU; largest worker has 1")));
    bench.lose(2);
    let reason = "its machine burnt".to_owned();
    assert!(bench.take_sent(1, FromHead::WorkerDied { worker: WorkerId(2), reason }));
    bench.actions.retain(|action| !matches!(action, ClusterAction::JobChanged { .. }));
    bench.actions.retain(|action| {
        !matches!(action, ClusterAction::Send { message: FromHead::JobEnded { .. }, .. })
    });
    bench.nothing_more();
}

#[test]
fn a_head_that_comes_anew_hears_which_workers_are_draining() {
    let mut bench = Bench::with(&[1.0]);
    bench.join_holding(2, 4.0, Held { draining: true, ..Held::default() });
    bench.spill(1, vec![task(1, 0, 2.0)]);
    assert_eq!(bench.assigned(), []);
    assert!(bench.take_sent(1, waiting(id(0), "needs 2 CPU; largest worker has 1")));
}

#[test]
fn waiting_tasks_of_a_lost_owner_are_forgotten() {
    let mut bench = Bench::with(&[4.0, 1.0]);
    bench.spill(2, vec![task(2, 0, 8.0)]);
    bench.lose(2);
    assert_eq!(bench.core.waiting(), 0);
}

#[test]
fn soft_affinity_moves_on_when_its_worker_is_lost() {
    let mut bench = Bench::with(&[4.0, 1.0]);
    bench.load(2, 0.0, 0, &[]);
    let mut soft = task(1, 0, 1.0);
    soft.spec.strategy = Strategy::Affinity { worker: WorkerId(2), soft: true };
    bench.spill(1, vec![soft]);
    assert_eq!(bench.assigned(), []);
    assert!(bench.take_sent(1, waiting(id(0), "waits for 1 CPU on worker-2, which is in use")));
    bench.lose(2);
    assert_eq!(bench.assigned(), [(id(0), 0, 1)]);
}

#[test]
fn an_unspilled_task_is_dropped_unless_it_is_placed() {
    let mut bench = Bench::with(&[1.0]);
    bench.load(1, 0.0, 0, &[]);
    bench.spill(1, vec![task(1, 0, 1.0)]);
    bench.say(1, ToHead::Unspill { task: id(0) });
    bench.load(1, 1.0, 0, &[]);
    assert_eq!(bench.assigned(), []);
    assert_eq!(bench.core.explain(id(0)), None);
}

#[test]
fn a_backlog_is_shared_with_idle_workers_once() {
    let mut bench = Bench::with(&[2.0, 3.0]);
    let ask = |count| FromHead::SpillRequested { request: Resources::cpus(1.0), count };
    bench.load(1, 0.0, 0, &[(1.0, 10)]);
    assert!(bench.take_sent(1, ask(3)));
    // The next report crossed the request; the one after it did not.
    bench.now = Timestamp(20_000_000);
    bench.load(1, 0.0, 0, &[(1.0, 10)]);
    bench.nothing_more();
    // Two arrive and take room on worker 2: only one place is left there.
    bench.spill(1, vec![task(1, 0, 1.0), task(1, 1, 1.0)]);
    assert_eq!(bench.assigned().len(), 2);
    bench.actions.clear();
    bench.now = Timestamp(40_000_000);
    bench.load(1, 0.0, 0, &[(1.0, 8)]);
    assert!(bench.take_sent(1, ask(1)));
    bench.nothing_more();
}

#[test]
fn a_request_that_was_not_answered_is_repeated_after_the_patience() {
    let mut bench = Bench::with(&[2.0, 3.0]);
    bench.load(1, 0.0, 0, &[(1.0, 2)]);
    assert_eq!(bench.actions.len(), 1);
    bench.actions.clear();
    bench.wait_for_timeout();
    assert_eq!(bench.now, Timestamp(100_000_000));
    let request = Resources::cpus(1.0);
    assert!(bench.take_sent(1, FromHead::SpillRequested { request, count: 2 }));
}

#[test]
fn many_backlogs_do_not_get_the_same_room() {
    let mut bench = Bench::with(&[1.0, 1.0, 1.0, 2.0]);
    for worker in 1..=3 {
        bench.now = Timestamp(worker * 10_000_000);
        bench.load(worker, 0.0, 0, &[(1.0, 5)]);
    }
    let asked = bench.actions.iter().map(|action| match action {
        ClusterAction::Send { message: FromHead::SpillRequested { count, .. }, .. } => *count,
        other => panic!("unexpected {other:?}"),
    });
    // Worker 1 was asked when three others were idle; that room is spoken for.
    assert_eq!(asked.sum::<u32>(), 4);
}

#[test]
fn an_owner_hears_that_its_only_worker_was_lost_before_it_came() {
    let mut bench = Bench::with(&[1.0, 1.0]);
    bench.lose(2);
    bench.join(3, 1.0);
    bench.actions.clear();
    let mut pinned = task(3, 1, 1.0);
    pinned.spec.strategy = Strategy::Affinity { worker: WorkerId(2), soft: false };
    bench.spill(3, vec![pinned]);
    let reason = "its machine burnt".to_owned();
    assert!(bench.take_sent(3, FromHead::WorkerDied { worker: WorkerId(2), reason }));
    let reason = "may only run on worker-2, which is gone";
    assert!(bench.take_sent(3, waiting(id(1), reason)));
    bench.say(3, ToHead::Unspill { task: id(1) });
    bench.nothing_more();
}

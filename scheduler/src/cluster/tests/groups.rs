//! Placement groups wait whole, are placed whole, and are counted like tasks.

use super::*;
use crate::id::GroupId;
use crate::message::GroupRequest;
use crate::spec::GroupStrategy;

const GROUP: u64 = 900;

fn group() -> GroupId {
    GroupId(id(GROUP))
}

fn wanted(round: u32, bundles: &[f64]) -> ToHead {
    let bundles = (0..).zip(bundles).map(|(n, cpu)| (n, Resources::cpus(*cpu))).collect();
    let strategy = GroupStrategy::StrictSpread;
    ToHead::GroupWanted(GroupRequest { group: group(), round, strategy, bundles, beside: vec![] })
}

/// Takes the (round, workers) of what leader 1 hears.
fn placed(bench: &mut Bench) -> Option<(u32, Vec<u64>)> {
    let mut found = None;
    bench.actions.retain(|action| match action {
        ClusterAction::Send { to, message: FromHead::GroupPlaced { round, workers, .. } } => {
            assert_eq!(*to, WorkerId(1));
            found = Some((*round, workers.iter().map(|worker| worker.0).collect()));
            false
        }
        _ => true,
    });
    found
}

fn room(bench: &Bench) -> Vec<f64> {
    bench.core.workers().map(|view| view.available.cpu.as_f64()).collect()
}

#[test]
fn a_group_waits_until_all_of_it_has_room() {
    let mut bench = Bench::with(&[2.0, 2.0]);
    bench.say(1, wanted(1, &[2.0, 2.0, 1.0]));
    let reason = "needs 3 further workers, one for each bundle; 2 could take one".to_owned();
    assert!(bench.take_sent(1, FromHead::GroupWaiting { group: group(), reason: reason.clone() }));
    assert_eq!(bench.core.explain(group().0), Some(reason));
    assert_eq!(room(&bench), [2.0, 2.0], "nothing is set aside");
    bench.nothing_more();
    bench.join(3, 1.0);
    assert_eq!(placed(&mut bench), Some((1, vec![1, 2, 3])));
    let at = |n: u32, worker| (group().bundle(n), 1, worker);
    assert_eq!(bench.assigned(), [at(0, 1), at(1, 2), at(2, 3)]);
    assert_eq!(room(&bench), [0.0, 0.0, 0.0]);
    bench.say(2, ToHead::Ended(vec![(group().bundle(1), 1)]));
    assert_eq!(room(&bench), [0.0, 2.0, 0.0]);
    bench.nothing_more();
}

#[test]
fn a_later_round_replaces_an_earlier_one() {
    let mut bench = Bench::with(&[1.0]);
    bench.say(1, wanted(4, &[2.0]));
    bench.say(1, wanted(3, &[1.0]));
    bench.actions.clear();
    bench.join(2, 2.0);
    assert_eq!(placed(&mut bench), Some((4, vec![2])));
    bench.actions.clear();
    bench.say(1, wanted(5, &[4.0]));
    bench.say(1, ToHead::GroupUnwanted(group()));
    bench.actions.clear();
    bench.join(3, 4.0);
    assert_eq!(placed(&mut bench), None, "nobody wants it");
}

#[test]
fn groups_end_with_their_leader_and_their_job() {
    let mut bench = Bench::with(&[1.0, 1.0]);
    bench.say(1, wanted(1, &[1.0, 1.0]));
    assert!(placed(&mut bench).is_some());
    bench.say(1, wanted(2, &[4.0]));
    assert_eq!(bench.core.waiting(), 1);
    bench.event(ClusterEvent::JobStopRequested { job: JOB });
    assert_eq!(bench.core.waiting(), 0);
    assert_eq!(bench.core.workers().map(|view| view.placed).sum::<usize>(), 0);
    bench.say(1, wanted(3, &[1.0]));
    assert_eq!(bench.core.waiting(), 0, "its job has ended");

    let mut bench = Bench::with(&[1.0, 1.0]);
    bench.say(1, wanted(1, &[4.0]));
    bench.lose(1);
    assert_eq!(bench.core.waiting(), 0);
}

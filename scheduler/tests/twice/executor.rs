//! What an executor says twice: its ring delivers once, so that only one that lies does so, and its
//! second word is news to nobody. Questions are answered again.

use std::iter::successors;
use std::sync::Arc;

use rdist_scheduler::id::{ActorId, GroupId, TaskId};
use rdist_scheduler::local::{LocalAction, LocalCore, LocalEvent};
use rdist_scheduler::message::{ActorPlace, CancelMode, PeerMessage};
use rdist_scheduler::outcome::{Cause, Death, Returned, TaskError};
use rdist_scheduler::spec::Reference;

use crate::worker::{DRIVER, POOL, call, calls, plain, spec, worker};
use crate::{JOB, ME, NOW, PEER, inline, object, task};

/// What follows in the table of what executors say.
fn after(event: &LocalEvent) -> Option<LocalEvent> {
    let (by, executor, attempt) = (DRIVER, POOL, 0);
    let value = || Returned { size: 8, inline: true, contains: Vec::new() };
    let put = TaskId::driver(JOB).put(1);
    let reference = Reference { object: object(37), owner: PEER };
    let error = TaskError { task: task(52), cause: Cause::Cancelled };
    let actor = ActorId(task(31));
    let mode = CancelMode::default();
    Some(match event {
        LocalEvent::Submitted { .. } => {
            LocalEvent::Finished { executor, task: task(30), attempt, outcome: inline() }
        }
        LocalEvent::Finished { .. } => {
            LocalEvent::Saved { executor, actor, state: vec![2], calls: Vec::new() }
        }
        LocalEvent::Saved { .. } => {
            LocalEvent::Yielded { executor, task: task(30), attempt, index: 0, value: value() }
        }
        LocalEvent::Yielded { .. } => {
            LocalEvent::CreditWanted { executor, task: task(30), wanted: 2 }
        }
        LocalEvent::CreditWanted { .. } => {
            LocalEvent::Consumed { task: task(23), owner: ME, count: 1 }
        }
        LocalEvent::Consumed { .. } => LocalEvent::Put {
            by,
            object: put,
            size: 8,
            inline: true,
            copies: 1,
            contains: Vec::new(),
        },
        LocalEvent::Put { .. } => LocalEvent::PutFailed { by, object: object(52), error },
        LocalEvent::PutFailed { .. } => LocalEvent::RouteWanted { by, actor },
        LocalEvent::RouteWanted { .. } => {
            LocalEvent::Promised { by, spec: Arc::new(call().spec), lost: None }
        }
        LocalEvent::Promised { .. } => {
            LocalEvent::Answered { by, task: task(56), outcome: inline() }
        }
        LocalEvent::Answered { .. } => {
            LocalEvent::Made { executor, caller: by, object: object(53), value: value() }
        }
        LocalEvent::Made { .. } => LocalEvent::LeaseWanted { by },
        LocalEvent::LeaseWanted { .. } => {
            LocalEvent::LeaseOver { executor, caller: by, number: 1, running: None }
        }
        LocalEvent::LeaseOver { .. } => LocalEvent::Wanted { by, reference },
        LocalEvent::Wanted { .. } => {
            LocalEvent::Retained { by, reference: Reference { object: object(54), owner: PEER } }
        }
        LocalEvent::Retained { .. } => LocalEvent::Released { by, object: object(37) },
        LocalEvent::Released { .. } => LocalEvent::Blocked { executor, task: task(1), attempt },
        LocalEvent::Blocked { .. } => LocalEvent::Unblocked { executor, task: task(1), attempt },
        LocalEvent::Unblocked { .. } => LocalEvent::Recalled { executor },
        LocalEvent::Recalled { .. } => {
            LocalEvent::CancelRequested { task: task(2), owner: ME, mode }
        }
        LocalEvent::CancelRequested { .. } => {
            LocalEvent::ActorKillRequested { actor: ActorId(task(32)), owner: ME }
        }
        LocalEvent::ActorKillRequested { .. } => {
            LocalEvent::GroupRemoveRequested { group: GroupId(task(43)), owner: ME }
        }
        LocalEvent::GroupRemoveRequested { .. } => LocalEvent::OffersWanted { by, request: 9 },
        LocalEvent::OffersWanted { .. } => {
            LocalEvent::ActorLookup { by, request: 9, name: "nobody".to_owned() }
        }
        LocalEvent::ActorLookup { .. } => {
            LocalEvent::ExecutorDied { executor, death: Death::Ended }
        }
        // No words of executors.
        LocalEvent::ExecutorStarted { .. }
        | LocalEvent::ExecutorDied { .. }
        | LocalEvent::NotStarted { .. }
        | LocalEvent::Pulled { .. }
        | LocalEvent::PullFailed { .. }
        | LocalEvent::CopyUnreadable { .. }
        | LocalEvent::FromPeer { .. }
        | LocalEvent::FromHead(_)
        | LocalEvent::HeadFound { .. }
        | LocalEvent::HeadLost
        | LocalEvent::Drain
        | LocalEvent::JobWeighed { .. }
        | LocalEvent::JobLimited { .. }
        | LocalEvent::PoolExpected { .. }
        | LocalEvent::JobEnded { .. } => return None,
    })
}

/// What has to come before, so that the event has something to change.
fn before(event: &LocalEvent) -> Vec<LocalEvent> {
    let (by, executor, attempt) = (DRIVER, POOL, 0);
    let ends = |task| LocalEvent::Finished { executor, task, attempt, outcome: inline() };
    match event {
        LocalEvent::Unblocked { .. } => {
            vec![LocalEvent::Blocked { executor, task: task(1), attempt }]
        }
        // The CPU is free.
        LocalEvent::LeaseOver { .. } => {
            let lease = LocalEvent::LeaseWanted { by };
            vec![ends(task(1)), ends(task(2)), ends(task(3)), lease]
        }
        // The driver calls the actor that lives here directly.
        LocalEvent::Answered { .. } => {
            let actor = ActorId(task(31));
            let place = ActorPlace::At { worker: ME, life: 0 };
            vec![
                LocalEvent::Submitted { by, spec: Arc::new(spec(55, calls(actor, PEER))) },
                LocalEvent::FromPeer {
                    from: PEER,
                    message: PeerMessage::ActorLocated { actor, place },
                },
                ends(task(55)),
                LocalEvent::RouteWanted { by, actor },
                LocalEvent::Promised {
                    by,
                    spec: Arc::new(spec(56, calls(actor, PEER))),
                    lost: None,
                },
            ]
        }
        _ => Vec::new(),
    }
}

/// What comes of an event that comes again.
#[derive(Debug, PartialEq, Eq)]
enum Again {
    /// Nothing.
    Nothing,
    /// The value that came with it is let go of.
    Surplus,
    /// The same as before, which is the answer to a question, or which others take once.
    Same,
    /// A question, or a save, under the next number.
    Next,
}

fn expected(event: &LocalEvent) -> Again {
    match event {
        LocalEvent::Finished { .. } => Again::Surplus,
        LocalEvent::Yielded { .. }
        | LocalEvent::CreditWanted { .. }
        | LocalEvent::RouteWanted { .. }
        | LocalEvent::LeaseWanted { .. }
        | LocalEvent::Wanted { .. } => Again::Same,
        LocalEvent::Saved { .. }
        | LocalEvent::OffersWanted { .. }
        | LocalEvent::ActorLookup { .. } => Again::Next,
        _ => Again::Nothing,
    }
}

fn hear(core: &mut LocalCore, event: LocalEvent) -> Vec<LocalAction> {
    core.handle(NOW, event);
    core.check_invariants();
    std::iter::from_fn(|| core.poll_action()).collect()
}

#[test]
fn what_an_executor_says_twice_counts_once() {
    let spec = Arc::new(spec(50, plain()));
    for event in successors(Some(LocalEvent::Submitted { by: DRIVER, spec }), after) {
        let mut core = worker();
        for event in before(&event) {
            hear(&mut core, event);
        }
        let before = format!("{core:?}");
        let once = hear(&mut core, event.clone());
        let after = format!("{core:?}");
        let is_heard = !once.is_empty() || after != before;
        assert!(is_heard || matches!(event, LocalEvent::Recalled { .. }), "{event:?}");
        let again = hear(&mut core, event.clone());
        let is_free = |action: &LocalAction| matches!(action, LocalAction::Free { .. });
        let changed = format!("{core:?}") != after;
        let found = match (changed, again.as_slice()) {
            (false, []) => Again::Nothing,
            (false, [action]) if is_free(action) => Again::Surplus,
            (false, actions) if actions == once => Again::Same,
            (true, [_]) if once.len() == 1 => Again::Next,
            _ => panic!("{event:?}: {once:?}, then {again:?}"),
        };
        assert_eq!(found, expected(&event), "{event:?}: {once:?}, then {again:?}");
    }
}

//! Many tasks: what a task costs. The bounds are loose, for slow machines and debug builds; the
//! numbers that count are printed by
//! `cargo test --release -p rdist-scheduler scale -- --nocapture`.

use std::time::Instant;

use super::bench::*;
use crate::id::ExecutorId;
use crate::local::{LocalAction, LocalCore, LocalEvent};
use crate::spec::{Reference, TaskSpec};
use crate::time::Timestamp;

fn submit(core: &mut LocalCore, driver: ExecutorId, index: u64) {
    let spec: std::sync::Arc<TaskSpec> = TaskBuilder::new(index).build();
    core.handle(Timestamp(index), LocalEvent::Submitted { by: driver, spec });
}

/// Does what a runtime would do with a pool that finishes everything at once.
fn serve(core: &mut LocalCore, pool: ExecutorId, driver: ExecutorId) -> u64 {
    let mut ended = 0;
    while let Some(action) = core.poll_action() {
        match action {
            // Those that were given ahead have their turn by now.
            LocalAction::Run { spec, attempt, .. }
            | LocalAction::RunAhead { spec, attempt, .. } => {
                let task = spec.id;
                let outcome = inline();
                let event = LocalEvent::Finished { executor: pool, task, attempt, outcome };
                core.handle(Timestamp(ended), event);
                ended += 1;
            }
            LocalAction::Deliver { object, .. } => {
                core.handle(Timestamp(ended), LocalEvent::Released { by: driver, object });
            }
            _ => {}
        }
    }
    ended
}

#[test]
fn a_simple_task_costs_about_a_microsecond() {
    let count: u64 = if cfg!(debug_assertions) { 20_000 } else { 1_000_000 };
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    let core = &mut bench.core;
    let start = Instant::now();
    let mut ended = 0;
    for index in 0..count {
        submit(core, driver, index);
        let reference = Reference { object: object(index), owner: ME };
        core.handle(Timestamp(index), LocalEvent::Wanted { by: driver, reference });
        if index % 64 == 63 {
            ended += serve(core, pool, driver);
        }
    }
    ended += serve(core, pool, driver);
    let each = start.elapsed().as_nanos() / u128::from(count);
    println!("submit, want, run, finish, deliver, release: {each} ns for each task");
    assert_eq!(ended, count);
    assert!(core.objects().next().is_none(), "everything was released");
    assert!(each < 100_000, "{each} ns for each task");
}

#[test]
fn a_deep_queue_drains_in_linear_time() {
    let count: u64 = if cfg!(debug_assertions) { 20_000 } else { 1_000_000 };
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    let core = &mut bench.core;
    let before = resident_bytes();
    let start = Instant::now();
    for index in 0..count {
        submit(core, driver, index);
    }
    let queued = start.elapsed().as_nanos() / u128::from(count);
    let bytes = resident_bytes().saturating_sub(before) / count;
    let start = Instant::now();
    assert_eq!(serve(core, pool, driver), count);
    let each = start.elapsed().as_nanos() / u128::from(count);
    println!("queue: {queued} ns, {bytes} bytes for each task; drain: {each} ns for each");
    assert!(bytes < 1_000, "{bytes} bytes for each queued task");
    assert!(each < 100_000, "{each} ns for each task");
}

#[test]
fn room_that_a_burst_has_taken_is_given_back() {
    const COUNT: u64 = 70_000;
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    let core = &mut bench.core;
    for index in 0..COUNT {
        submit(core, driver, index);
    }
    assert!(!core.has_slack(), "all of it is in use");
    // The one that is left keeps its place.
    assert_eq!(serve(core, pool, driver), COUNT);
    for index in 1..COUNT {
        core.handle(Timestamp(COUNT), LocalEvent::Released { by: driver, object: object(index) });
    }
    assert!(core.has_slack());
    core.give_slack_back();
    assert!(!core.has_slack());
    core.check_invariants();
    let left: Vec<_> = core.objects().map(|object| object.object).collect();
    assert_eq!(left, [object(0)]);
    submit(core, driver, COUNT);
    assert_eq!(serve(core, pool, driver), 1, "it goes on");
    core.check_invariants();
}

fn resident_bytes() -> u64 {
    let Ok(text) = std::fs::read_to_string("/proc/self/statm") else { return 0 };
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

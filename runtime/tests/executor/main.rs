//! Executor processes, with real rings, sockets and shared memory. Only the scheduler on the other
//! side is trivial (`worker.rs`): everything runs at once in one pooled process, beside the
//! driver's. It keeps books about references, and fails on what a worker would call misbehaviour.
#![allow(clippy::unwrap_used, missing_docs)]

mod concurrency;
mod program;
mod worker;

use rdist::scheduler::outcome::{Cause, Outcome};

use worker::{Report, run};

/// Not a test: the entry of the processes that the tests start.
#[test]
fn executor_child() {
    let Ok(descriptor) = std::env::var(rdist::EXECUTOR_FD) else { return };
    rdist::__private::execute(&descriptor, program::main_of_scenario);
}

/// Runs a scenario whose driver checks everything itself.
fn passes(scenario: &str) -> Report {
    let report = run(scenario);
    assert!(matches!(report.outcome, Outcome::Returned(_)), "{:#?}", report.outcome);
    assert_eq!(report.leaked, [], "objects that nobody refers to any longer were not released");
    report
}

#[test]
fn tasks_take_values_and_references_and_return_values() {
    passes("tasks");
}

#[test]
fn errors_and_panics_come_back_with_their_origin() {
    passes("errors");
}

#[test]
fn large_values_are_read_in_place_and_their_space_is_used_again() {
    passes("large");
}

#[test]
fn references_travel_inside_values() {
    passes("nested_references");
}

#[test]
fn references_inside_a_value_that_is_held_need_no_message() {
    let report = passes("covered_references");
    assert!(report.retained < program::LEAVES as usize, "{} were told", report.retained);
}

#[test]
fn actors_keep_state_and_order() {
    passes("actors");
}

#[test]
fn calls_of_a_threaded_actor_run_beside_each_other_up_to_its_limits() {
    passes("threaded");
}

#[test]
fn thousands_of_async_calls_are_in_flight_without_a_thread_each() {
    passes("futures");
}

#[test]
fn nested_tasks_wait_without_a_deadlock_and_say_so() {
    let report = passes("nested_tasks");
    assert!(report.blocked > 0, "a wait of milliseconds tells the worker");
    assert_eq!(report.blocked, report.unblocked);
}

#[test]
fn quick_replies_are_awaited_without_a_word() {
    passes("async_driver");
}

#[test]
fn cancelled_tasks_end() {
    passes("cancel");
}

#[test]
fn waits_have_limits_and_counts() {
    passes("wait");
}

#[test]
fn many_threads_share_one_connection() {
    passes("threads");
}

#[test]
fn bursts_larger_than_the_ring_go_through() {
    passes("burst");
}

#[test]
fn however_many_threads_go_to_sleep_one_of_them_listens() {
    passes("waves");
}

#[test]
fn events_reach_the_worker() {
    let report = passes("events");
    assert_eq!(report.events, [r#"{"epoch":1,"loss":0.5}"#]);
}

#[test]
fn the_error_of_the_main_function_is_the_jobs() {
    let report = run("fails");
    let Outcome::Failed(error) = &report.outcome else { panic!("{:?}", report.outcome) };
    let Cause::Returned { message } = &error.cause else { panic!("{error}") };
    assert_eq!(message, "invalid digit found in string");
}

#[test]
fn the_worker_s_end_is_the_processes_end() {
    worker::dies_with_its_worker();
}

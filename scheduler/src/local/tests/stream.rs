//! Tasks that yield: items, ends, back-pressure, further tries, and streams that are dropped.

use super::bench::*;
use crate::id::{ExecutorId, ObjectId};
use crate::local::{LocalAction, LocalEvent};
use crate::message::{CancelMode, FromHead, PeerMessage};
use crate::outcome::{Cause, Outcome, Returned, TaskError};
use crate::spec::{Policy, Reference, StreamPolicy};

const WINDOW: u32 = 2;

fn yields(index: u64) -> TaskBuilder {
    let stream = Some(StreamPolicy::new(WINDOW));
    TaskBuilder::new(index).returns(0).retries(9).policy(Policy { stream, ..Policy::DEFAULT })
}

fn item(number: u32) -> Reference {
    Reference { object: task(1).object(number), owner: ME }
}

fn value(inline: bool) -> Returned {
    Returned { size: 8, inline, contains: Vec::new() }
}

impl Bench {
    fn yield_item(&mut self, executor: ExecutorId, attempt: u32, index: u32) {
        let (task, value) = (task(1), value(true));
        self.handle(LocalEvent::Yielded { executor, task, attempt, index, value });
    }

    fn take(&mut self, count: u32) {
        self.handle(LocalEvent::Consumed { task: task(1), owner: ME, count });
    }

    /// What the executor was told of an object.
    fn claim_item(&mut self, to: ExecutorId, wanted: u32) -> Option<Cause> {
        match self.claim() {
            LocalAction::Deliver { executor, object, error } => {
                assert_eq!((executor, object), (to, item(wanted).object));
                error.map(|error| error.cause.clone())
            }
            other => panic!("no delivery of item {wanted}: {other:?}"),
        }
    }

    fn release_object(&mut self, by: ExecutorId, object: ObjectId) {
        self.handle(LocalEvent::Released { by, object });
    }

    fn claim_free_of(&mut self, number: u32) {
        self.claim_exactly(LocalAction::Free { object: item(number).object });
    }

    /// How the task that now starts is to yield.
    fn claim_start_of_stream(&mut self, at: ExecutorId, wanted: u32) -> (u32, u32) {
        match self.claim() {
            LocalAction::Run { executor, spec, attempt } => {
                assert_eq!((executor, attempt), (at, wanted));
                let stream = spec.stream().unwrap();
                (stream.start, stream.consumed)
            }
            other => panic!("no start: {other:?}"),
        }
    }
}

#[test]
fn items_are_there_one_by_one_and_then_the_end() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    bench.submit(driver, yields(1));
    assert_eq!(bench.claim_start_of_stream(pool, 0), (0, 0));
    // Asked for before, and after it was made.
    bench.want(driver, item(0));
    bench.claim_nothing();
    bench.yield_item(pool, 0, 0);
    assert_eq!(bench.claim_item(driver, 0), None);
    bench.yield_item(pool, 0, 1);
    bench.want(driver, item(1));
    assert_eq!(bench.claim_item(driver, 1), None);
    // It is the stream's until it is taken.
    bench.release_object(driver, item(0).object);
    bench.take(1);
    bench.claim_free_of(0);
    bench.want(driver, item(2));
    bench.finish(pool, 1, Outcome::Streamed(2));
    assert_eq!(bench.claim_item(driver, 2), Some(Cause::EndOfStream));
    bench.want(driver, item(3));
    assert_eq!(bench.claim_item(driver, 3), Some(Cause::EndOfStream));
    // What nobody took goes with the stream, but for what somebody refers to.
    bench.release_object(driver, task(1).stream());
    bench.release_object(driver, item(2).object);
    bench.release_object(driver, item(3).object);
    bench.claim_nothing();
    bench.release_object(driver, item(1).object);
    bench.claim_free_of(1);
    assert_eq!(bench.core.objects().count(), 0);
}

#[test]
fn an_error_ends_the_stream_after_what_was_there() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    bench.submit(driver, yields(1));
    bench.claim_start_of_stream(pool, 0);
    bench.yield_item(pool, 0, 0);
    bench.finish(pool, 1, Outcome::Failed(panicked(1)));
    bench.want(driver, item(0));
    assert_eq!(bench.claim_item(driver, 0), None);
    bench.want(driver, item(1));
    assert_eq!(bench.claim_item(driver, 1), Some(panicked(1).cause));
}

#[test]
fn the_producer_waits_for_its_consumer() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    bench.submit(driver, yields(1));
    bench.claim_start_of_stream(pool, 0);
    bench.yield_item(pool, 0, 0);
    bench.yield_item(pool, 0, 1);
    let asks = LocalEvent::CreditWanted { executor: pool, task: task(1), wanted: 1 };
    bench.handle(asks.clone());
    bench.claim_nothing();
    bench.take(1);
    bench.claim_exactly(LocalAction::Credit { executor: pool, task: task(1), consumed: 1 });
    bench.claim_free_of(0);
    // Asked too late, it is told at once.
    bench.handle(asks);
    bench.claim_exactly(LocalAction::Credit { executor: pool, task: task(1), consumed: 1 });
}

#[test]
fn items_that_were_read_before_they_came_are_taken_when_they_come() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    bench.submit(driver, yields(1));
    bench.claim_start_of_stream(pool, 0);
    bench.yield_item(pool, 0, 0);
    // The consumer found the first two where a try for another owner had left them.
    bench.take(2);
    bench.claim_free_of(0);
    bench.yield_item(pool, 0, 1);
    bench.claim_free_of(1);
    bench.handle(LocalEvent::CreditWanted { executor: pool, task: task(1), wanted: 2 });
    bench.claim_exactly(LocalAction::Credit { executor: pool, task: task(1), consumed: 2 });
    bench.yield_item(pool, 0, 2);
    bench.want(driver, item(2));
    assert_eq!(bench.claim_item(driver, 2), None);
}

#[test]
fn a_stream_that_is_dropped_ends_its_task() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    bench.submit(driver, yields(1));
    bench.claim_start_of_stream(pool, 0);
    bench.yield_item(pool, 0, 0);
    bench.release_object(driver, task(1).stream());
    bench.claim_exactly(LocalAction::Cancel { executor: pool, task: task(1) });
    bench.claim_free_of(0);
    // What it makes until it ends is of no use; it is not held back.
    bench.yield_item(pool, 0, 1);
    bench.claim_free_of(1);
    let wanted = LocalEvent::CreditWanted { executor: pool, task: task(1), wanted: 2 };
    bench.handle(wanted);
    let consumed = u32::MAX;
    bench.claim_exactly(LocalAction::Credit { executor: pool, task: task(1), consumed });
    let error = TaskError { task: task(1), cause: Cause::Cancelled };
    bench.finish(pool, 1, Outcome::Failed(error));
    assert_eq!(bench.core.objects().count(), 0);
}

#[test]
fn a_further_try_goes_on_with_the_first_item_that_is_missing() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    bench.submit(driver, yields(1).cpus(9.0));
    assert_eq!(bench.claim_spilled(), [(task(1), 0)]);
    bench.head_says(FromHead::Placed(vec![(task(1), 0, PEER)]));
    for (index, inline) in [(0, true), (1, false), (2, true)] {
        let (task, attempt, value) = (task(1), 0, value(inline));
        bench.peer_says(PEER, PeerMessage::Yielded { task, attempt, index, value });
    }
    bench.take(1);
    bench.claim_free_of(0);
    bench.want(driver, item(3));
    // The item in that worker's arena is lost with it; the others are here.
    let reason = "its power failed".to_owned();
    bench.head_says(FromHead::WorkerDied { worker: PEER, reason });
    let LocalAction::SendHead(crate::message::ToHead::Spilled(batch)) = bench.claim() else {
        panic!()
    };
    let stream = *batch[0].spec.stream().unwrap();
    assert_eq!(stream, StreamPolicy { window: WINDOW, start: 1, consumed: 1 });
    bench.head_says(FromHead::Placed(vec![(task(1), 1, OTHER)]));
    for index in 1..4 {
        let (task, attempt, value) = (task(1), 1, value(true));
        bench.peer_says(OTHER, PeerMessage::Yielded { task, attempt, index, value });
    }
    // Number 2 was there: the second one of it is dropped without a word.
    assert_eq!(bench.claim_item(driver, 3), None);
    // A try that has yielded more than came is not the last.
    let outcome = Outcome::Streamed(6);
    bench.peer_says(OTHER, PeerMessage::Finished { task: task(1), attempt: 1, outcome });
    assert_eq!(bench.claim_spilled(), [(task(1), 2)]);
    let _ = pool;
}

#[test]
fn an_item_that_was_lost_and_is_not_yielded_again_is_made_by_another_run() {
    let (mut bench, driver, _) = Bench::with_pool(2.0);
    bench.submit(driver, yields(1).cpus(9.0));
    bench.claim_spilled();
    bench.head_says(FromHead::Placed(vec![(task(1), 0, PEER)]));
    for (index, inline) in [(0, true), (1, false)] {
        let (task, attempt, value) = (task(1), 0, value(inline));
        bench.peer_says(PEER, PeerMessage::Yielded { task, attempt, index, value });
    }
    bench.want(driver, item(1));
    let object = item(1).object;
    bench.claim_exactly(LocalAction::Pull { object, size: 8, from: PEER });
    let reason = "its power failed".to_owned();
    bench.head_says(FromHead::WorkerDied { worker: PEER, reason });
    assert_eq!(bench.claim_spilled(), [(task(1), 1)]);
    bench.head_says(FromHead::Placed(vec![(task(1), 1, OTHER)]));
    // That try knows only that two items are here; none of them lies in an arena any longer.
    let outcome = Outcome::Streamed(2);
    bench.peer_says(OTHER, PeerMessage::Finished { task: task(1), attempt: 1, outcome });
    assert_eq!(bench.claim_spilled(), [(task(1), 2)]);
}

#[test]
fn a_task_that_goes_on_is_tried_again_from_an_item_that_is_lost() {
    for is_left in [false, true] {
        let (mut bench, driver, _) = Bench::with_pool(2.0);
        bench.submit(driver, yields(1).cpus(9.0));
        bench.claim_spilled();
        bench.head_says(FromHead::Placed(vec![(task(1), 0, PEER)]));
        let (yielded, value) = (task(1), value(false));
        let made = PeerMessage::Yielded { task: yielded, attempt: 0, index: 0, value };
        bench.peer_says(PEER, made);
        bench.want(driver, item(0));
        let object = item(0).object;
        bench.claim_exactly(LocalAction::Pull { object, size: 8, from: PEER });
        // It may yield for ever, and comes to this one never again.
        bench.handle(LocalEvent::PullFailed { object, from: PEER });
        bench.claim_send(PEER, PeerMessage::Free { object });
        let mode = CancelMode { force: false, children: true };
        let cancel = PeerMessage::Cancel { task: task(1), attempt: 0, mode };
        bench.claim_send(PEER, cancel.clone());
        if is_left {
            bench.release_object(driver, object);
            bench.release_object(driver, task(1).stream());
            bench.claim_send(PEER, cancel);
        }
        let outcome = Outcome::Failed(TaskError { task: task(1), cause: Cause::Cancelled });
        bench.peer_says(PEER, PeerMessage::Finished { task: task(1), attempt: 0, outcome });
        if !is_left {
            assert_eq!(bench.claim_spilled(), [(task(1), 1)]);
        }
    }
}

#[test]
fn a_program_that_comes_again_reads_from_the_first_item() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    bench.submit(driver, yields(1));
    bench.claim_start_of_stream(pool, 0);
    bench.yield_item(pool, 0, 0);
    bench.take(1);
    bench.claim_free_of(0);
    bench.release_object(driver, task(1).stream());
    bench.claim_exactly(LocalAction::Cancel { executor: pool, task: task(1) });
    bench.submit(driver, yields(1));
    bench.claim_exactly(LocalAction::Cancel { executor: pool, task: task(1) });
    bench.want(driver, item(0));
    let error = TaskError { task: task(1), cause: Cause::Cancelled };
    bench.finish(pool, 1, Outcome::Failed(error));
    assert_eq!(bench.claim_start_of_stream(pool, 1), (0, 0));
    bench.yield_item(pool, 1, 0);
    assert_eq!(bench.claim_item(driver, 0), None);
}

#[test]
fn a_program_that_comes_again_is_not_cancelled_with_the_try_before() {
    let (mut bench, driver, _) = Bench::with_pool(2.0);
    bench.submit(driver, yields(1).cpus(9.0));
    bench.claim_spilled();
    bench.head_says(FromHead::Placed(vec![(task(1), 0, PEER)]));
    let mode = CancelMode { force: false, children: true };
    let cancel = PeerMessage::Cancel { task: task(1), attempt: 0, mode };
    bench.release_object(driver, task(1).stream());
    bench.claim_send(PEER, cancel.clone());
    bench.submit(driver, yields(1).cpus(9.0));
    bench.claim_send(PEER, cancel);
    // It would be said again soon, had the try not ended meanwhile.
    bench.peer_says(
        PEER,
        PeerMessage::CancelHeard { task: task(1), attempt: 0, mode, found: false },
    );
    let outcome = Outcome::Failed(TaskError { task: task(1), cause: Cause::Cancelled });
    bench.peer_says(PEER, PeerMessage::Finished { task: task(1), attempt: 0, outcome });
    bench.claim_spilled();
    bench.head_says(FromHead::Placed(vec![(task(1), 1, PEER)]));
    bench.pass_idle_time();
}

#[test]
fn a_program_that_comes_again_is_not_ended_by_what_ended_the_one_before() {
    let (mut bench, driver, _) = Bench::with_pool(2.0);
    bench.submit(driver, yields(1).cpus(9.0));
    bench.claim_spilled();
    bench.head_says(FromHead::Placed(vec![(task(1), 0, PEER)]));
    let mode = CancelMode { force: false, children: true };
    bench.release_object(driver, task(1).stream());
    bench.claim_send(PEER, PeerMessage::Cancel { task: task(1), attempt: 0, mode });
    // It has ended there by itself, and is forgotten, while the word to end it is on its way.
    let outcome = Outcome::Streamed(0);
    let ended = PeerMessage::Finished { task: task(1), attempt: 0, outcome };
    bench.peer_says(PEER, ended.clone());
    bench.submit(driver, yields(1).cpus(9.0));
    assert_eq!(bench.claim_spilled(), [(task(1), 1)]);
    bench.head_says(FromHead::Placed(vec![(task(1), 1, PEER)]));
    let heard = PeerMessage::CancelHeard { task: task(1), attempt: 0, mode, found: false };
    bench.peer_says(PEER, heard);
    bench.peer_says(PEER, ended);
    assert_eq!(bench.core.tasks().count(), 2, "the driver, and the task that came again");
    // Once the word has been heard, nothing can be mistaken.
    let outcome = Outcome::Streamed(0);
    bench.peer_says(PEER, PeerMessage::Finished { task: task(1), attempt: 1, outcome });
    bench.release_object(driver, task(1).stream());
    bench.submit(driver, yields(1).cpus(9.0));
    assert_eq!(bench.claim_spilled(), [(task(1), 0)]);
}

#[test]
fn a_task_that_came_again_does_not_hear_what_was_said_of_the_one_before() {
    let (mut bench, _, pool) = Bench::with_pool(2.0);
    let again = yields(1).assignment(1, PEER);
    bench.head_says(FromHead::Assigned(vec![again]));
    bench.claim_start_of_stream(pool, 1);
    let mode = CancelMode { force: false, children: true };
    bench.peer_says(PEER, PeerMessage::Cancel { task: task(1), attempt: 0, mode });
    let heard = PeerMessage::CancelHeard { task: task(1), attempt: 0, mode, found: true };
    bench.claim_send(PEER, heard);
    bench.claim_nothing();
}

#[test]
fn an_item_that_was_made_here_before_for_another_owner_is_as_good() {
    let (mut bench, driver, pool) = Bench::with_pool(2.0);
    // Of the same task, when its parent ran on another worker.
    bench.head_says(FromHead::Assigned(vec![yields(1).assignment(0, PEER)]));
    bench.claim_start_of_stream(pool, 0);
    let large = |attempt| {
        let (task, value) = (task(1), value(false));
        LocalEvent::Yielded { executor: pool, task, attempt, index: 0, value }
    };
    bench.handle(large(0));
    let (told, index) = (value(false), 0);
    let message = PeerMessage::Yielded { task: task(1), attempt: 0, index, value: told };
    bench.claim_send(PEER, message);
    bench.finish(pool, 1, Outcome::Failed(panicked(1)));
    while bench.pending() > 0 {
        bench.claim();
    }
    bench.submit(driver, yields(1));
    bench.claim_start_of_stream(pool, 0);
    bench.handle(large(0));
    bench.want(driver, item(0));
    assert_eq!(bench.claim_item(driver, 0), None);
}

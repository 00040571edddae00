//! The rings between two real processes.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use rdist::scheduler::id::ExecutorId;
use support::{join, part, start};

const LARGEST: usize = rdist::wire::executor::MAX_FRAME_BYTES;

/// A frame whose bytes depend on its number.
fn frame(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ number) as u8).collect()
}

#[test]
fn frames_go_to_another_process_and_back() {
    if part().is_some() {
        let mut side = join();
        while let Some(frame) = side.recv() {
            side.send(&frame);
        }
        return;
    }
    let name = "frames_go_to_another_process_and_back";
    let (mut child, mut side) = start(name, "echo", ExecutorId(1));
    for number in 0..3_000 {
        let len = if number % 100 == 0 { LARGEST - number } else { number % 500 };
        let sent = frame(number, len);
        side.send(&sent);
        assert!(side.recv().unwrap() == sent, "frame {number} of {len} bytes has changed");
    }
    // Many under way at once.
    for number in 0..2_000 {
        side.send(&frame(number, 100));
    }
    for number in 0..2_000 {
        assert_eq!(side.recv().unwrap(), frame(number, 100));
    }
    drop(side);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_killed_sender_leaves_whole_frames_and_an_end() {
    if part().is_some() {
        let mut side = join();
        for number in 0.. {
            side.send(&frame(number, number % 3_000));
        }
    }
    let name = "a_killed_sender_leaves_whole_frames_and_an_end";
    for round in 1..5 {
        let (mut child, mut side) = start(name, "source", ExecutorId(1));
        let mut received = 0;
        while received < 1_000 * round {
            assert_eq!(side.recv().unwrap(), frame(received, received % 3_000));
            received += 1;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        while let Some(got) = side.recv() {
            assert_eq!(got, frame(received, received % 3_000));
            received += 1;
        }
    }
}

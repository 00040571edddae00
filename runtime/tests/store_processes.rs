//! The store between a worker and executors that are real processes.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::sync::{Arc, Mutex};

use rdist::scheduler::id::{ExecutorId, JobId, ObjectId, TaskId};
use rdist::store::{Arena, Segments, StoreError, Writer};
use rdist::wire::executor::{Block, FromExecutor, SocketMessage, ToExecutor, Value};
use rdist::wire::{decode, encode};
use support::{Side, join, part, send, start};

const WRITER: ExecutorId = ExecutorId(1);
const READER: ExecutorId = ExecutorId(2);
const MIB: u64 = 1 << 20;

fn object(index: u32) -> ObjectId {
    TaskId::driver(JobId(1)).put(index)
}

/// The value with this number.
fn fill(value: &mut [u8], number: u32) {
    for (at, byte) in value.iter_mut().enumerate() {
        *byte = (at as u32 ^ number.wrapping_mul(31)) as u8;
    }
}

fn is_value(value: &[u8], number: u32) -> bool {
    let mut expected = vec![0; value.len()];
    fill(&mut expected, number);
    expected == value
}

/// The executor's part: puts `count` values of `len` bytes.
fn put_values(count: u32, len: u64) {
    let Side { socket, sender, mut receiver, bell, .. } = join();
    let sender = Arc::new(Mutex::new(sender));
    let segments = Arc::new(Segments::new(socket).unwrap());
    let request = (sender.clone(), bell.clone());
    let writer = Writer::new(segments, move |len| {
        let message = encode(&FromExecutor::SegmentWanted { len });
        send(&mut request.0.lock().unwrap(), &request.1, &message);
        Ok(())
    });
    for number in 0..count {
        while let Some(frame) = receiver.try_recv().unwrap() {
            let ToExecutor::Reclaim(blocks) = decode(frame).unwrap() else { panic!() };
            writer.reclaim(blocks);
        }
        let mut draft = writer.create(len).unwrap();
        fill(&mut draft, number);
        let value = Value::Block(draft.seal());
        let (object, contains) = (object(number), Vec::new());
        let put = FromExecutor::Put { object, value, copies: 1, contains };
        send(&mut sender.lock().unwrap(), &bell, &encode(&put));
    }
}

/// The worker's part: answers until the next value is put.
fn next_put(arena: &mut Arena, side: &mut Side) -> Option<Block> {
    loop {
        match decode::<FromExecutor>(&side.recv()?).unwrap() {
            FromExecutor::SegmentWanted { len } => match arena.grant(WRITER, len) {
                Ok(grant) => {
                    let (segment, len) = (grant.segment, grant.len);
                    let message = SocketMessage::Segment { segment, len, writable: true };
                    let fd = std::os::fd::AsFd::as_fd(&grant.fd);
                    side.socket.send(&message, &[fd]).unwrap();
                }
                Err(full) => {
                    let message = SocketMessage::SegmentRefused { reason: full.to_string() };
                    side.socket.send(&message, &[]).unwrap();
                }
            },
            FromExecutor::Put { value: Value::Block(block), .. } => {
                arena.adopt(WRITER, block).unwrap();
                return Some(block);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn values_pass_by_and_their_room_is_used_again() {
    const COUNT: u32 = 300;
    if part().is_some() {
        return put_values(COUNT, MIB + 1);
    }
    let name = "values_pass_by_and_their_room_is_used_again";
    let (mut child, mut side) = start(name, "writer", WRITER);
    // 300 MiB go through 64.
    let mut arena = Arena::new(64 * MIB);
    for number in 0..COUNT {
        let block = next_put(&mut arena, &mut side).unwrap();
        assert!(is_value(&arena.read(block).unwrap(), number), "value {number} is wrong");
        assert_eq!(arena.free(block), Some(WRITER));
        side.send(&encode(&ToExecutor::Reclaim(vec![block])));
    }
    assert!(child.wait().unwrap().success());
    arena.executor_died(WRITER);
    arena.check_invariants();
    assert_eq!(arena.usage().live, 0);
    assert_eq!(arena.usage().warm, arena.usage().committed);
}

#[test]
fn a_killed_writers_values_are_read_by_others_until_they_are_freed() {
    match part().as_deref() {
        Some("writer") => return put_values(u32::MAX, 100_000),
        Some("reader") => return read_values(),
        _ => {}
    }
    let name = "a_killed_writers_values_are_read_by_others_until_they_are_freed";
    let (mut child, mut side) = start(name, "writer", WRITER);
    let mut arena = Arena::new(256 * MIB);
    let mut blocks: Vec<_> = (0..50).map_while(|_| next_put(&mut arena, &mut side)).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    while let Some(block) = next_put(&mut arena, &mut side) {
        blocks.push(block);
    }
    arena.executor_died(WRITER);
    arena.check_invariants();

    let (mut child, mut side) = start(name, "reader", READER);
    let mut sent = Vec::new();
    for (number, &block) in (0..).zip(&blocks) {
        let segment = block.segment;
        if !sent.contains(&segment) {
            let (fd, len) = arena.read_only(segment).unwrap();
            let message = SocketMessage::Segment { segment, len, writable: false };
            side.socket.send(&message, &[std::os::fd::AsFd::as_fd(&fd)]).unwrap();
            sent.push(segment);
        }
        let ready = ToExecutor::Ready { object: object(number), value: Value::Block(block) };
        side.send(&encode(&ready));
    }
    side.send(&encode(&ToExecutor::Shutdown));
    assert!(child.wait().unwrap().success());

    for block in blocks {
        assert_eq!(arena.free(block), None);
    }
    arena.check_invariants();
    assert_eq!(arena.usage().warm, arena.usage().committed);
    assert!(sent.contains(&arena.grant(READER, MIB).unwrap().segment));
}

/// The executor's part: checks every value that it is told of.
fn read_values() {
    let mut side = join();
    let segments = Segments::new(side.socket.clone()).unwrap();
    let mut number = 0;
    loop {
        match decode::<ToExecutor>(&side.recv().unwrap()).unwrap() {
            ToExecutor::Ready { value: Value::Block(block), .. } => {
                assert!(is_value(&segments.read(block).unwrap(), number));
                let beyond = Block { offset: u64::MAX - 63, ..block };
                assert!(matches!(segments.read(beyond), Err(StoreError::BadBlock(_))));
                number += 1;
            }
            ToExecutor::Shutdown => return assert!(number >= 50),
            other => panic!("{other:?}"),
        }
    }
}

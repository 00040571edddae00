use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use rdist_scheduler::id::ExecutorId;

use super::*;
use crate::store::{Arena, LocalSocket};
use crate::wire::executor::SocketMessage;

const ME: ExecutorId = ExecutorId(1);
const MIB: u64 = 1 << 20;

/// The worker's end, and the executor's.
struct Both {
    arena: Mutex<Arena>,
    worker: LocalSocket,
    segments: Arc<Segments>,
}

fn both() -> Both {
    let (worker, executor) = LocalSocket::pair().unwrap();
    let segments = Arc::new(Segments::new(Arc::new(executor)).unwrap());
    Both { arena: Mutex::new(Arena::new(64 * MIB)), worker, segments }
}

impl Both {
    /// Answers a request, as the worker does.
    fn answer(&self, len: u64) {
        let granted = self.arena.lock().unwrap().grant(ME, len);
        let result = match granted {
            Ok(grant) => {
                let (segment, len) = (grant.segment, grant.len);
                let message = SocketMessage::Segment { segment, len, writable: true };
                self.worker.send(&message, &[grant.fd.as_fd()])
            }
            Err(full) => {
                let message = SocketMessage::SegmentRefused { reason: full.to_string() };
                self.worker.send(&message, &[])
            }
        };
        result.unwrap();
    }

    /// Makes a segment of the worker with one block, and sends it to its reader.
    fn publish(&self, byte: u8) -> Block {
        let mut arena = self.arena.lock().unwrap();
        let mut incoming = arena.create(MIB).unwrap();
        incoming.fill(byte);
        arena.seal(incoming)
    }

    fn send_segment(&self, segment: u32) {
        let (fd, len) = self.arena.lock().unwrap().read_only(segment).unwrap();
        let message = SocketMessage::Segment { segment, len, writable: false };
        self.worker.send(&message, &[fd.as_fd()]).unwrap();
    }
}

#[test]
fn a_writer_asks_once_and_fills_what_it_got() {
    let both = Arc::new(both());
    let asked = Arc::new(AtomicU32::new(0));
    let (worker, count) = (both.clone(), asked.clone());
    let writer = Writer::new(both.segments.clone(), move |len| {
        count.fetch_add(1, Ordering::Relaxed);
        worker.answer(len);
        Ok(())
    });
    let mut blocks = Vec::new();
    for number in 0..50_u8 {
        let mut draft = writer.create(10_000).unwrap();
        draft.fill(number);
        blocks.push(draft.seal());
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    for (number, &block) in (0..).zip(&blocks) {
        assert_eq!(&*both.segments.read(block).unwrap(), &[number; 10_000]);
        both.arena.lock().unwrap().adopt(ME, block).unwrap();
    }
    writer.reclaim(blocks.iter().copied().chain(blocks.iter().copied()));
    assert_eq!(writer.taken_bytes(), 0);
    drop(writer.create(10_000).unwrap());
    assert_eq!(writer.taken_bytes(), 0);
    assert_eq!(writer.create(10_000).unwrap().seal(), blocks[0]);
}

#[test]
fn a_refusal_reaches_the_one_who_asked() {
    let both = Arc::new(both());
    let worker = both.clone();
    let writer = Writer::new(both.segments.clone(), move |len| {
        worker.answer(len);
        Ok(())
    });
    let error = writer.create(65 * MIB).unwrap_err();
    assert!(matches!(&error, StoreError::Refused { wanted, .. } if *wanted == 65 * MIB), "{error}");
    writer.create(MIB).unwrap();
}

#[test]
fn a_reclaim_ends_the_wait_for_a_segment() {
    let both = Arc::new(both());
    let (asks, asked) = mpsc::channel();
    let writer = Arc::new(Writer::new(both.segments.clone(), move |len| {
        asks.send(len).unwrap();
        Ok(())
    }));
    both.answer(1);
    both.segments.pump().unwrap();
    let room = both.segments.lock().granted[0].1.len() as u64;
    let first = writer.create(room).unwrap().seal();
    let waiter = {
        let writer = writer.clone();
        thread::spawn(move || writer.create(room).unwrap().seal())
    };
    assert_eq!(asked.recv().unwrap(), room);
    // The answer never comes, the room does.
    writer.reclaim([first]);
    assert_eq!(waiter.join().unwrap(), first);
}

#[test]
fn threads_that_wait_for_different_segments_all_get_theirs() {
    let both = Arc::new(both());
    // Each its own segment.
    let mut blocks = Vec::new();
    let mut fillers = Vec::new();
    for byte in 0..4 {
        let block = both.publish(byte);
        let segment = block.segment;
        blocks.push((byte, block));
        let mut arena = both.arena.lock().unwrap();
        while let Ok(filler) = arena.create(MIB) {
            let is_full = filler.block().segment != segment;
            fillers.push(filler);
            if is_full {
                // The next block shares the segment that has just been opened.
                break;
            }
        }
    }
    let segments: Vec<u32> = blocks.iter().map(|(_, block)| block.segment).collect();
    assert!(segments.windows(2).any(|pair| pair[0] != pair[1]), "{segments:?}");
    let readers: Vec<_> = blocks
        .iter()
        .map(|&(byte, block)| {
            let segments = both.segments.clone();
            thread::spawn(move || segments.read(block).unwrap().iter().all(|&b| b == byte))
        })
        .collect();
    for &segment in segments.iter().rev() {
        both.send_segment(segment);
    }
    assert!(readers.into_iter().all(|reader| reader.join().unwrap()));
}

#[test]
fn the_workers_end_ends_every_wait() {
    let Both { worker, segments, .. } = both();
    let block = Block { segment: 9, offset: 0, len: 64 };
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let segments = segments.clone();
            thread::spawn(move || segments.read(block).map(|_| ()))
        })
        .collect();
    drop(worker);
    for reader in readers {
        assert!(matches!(reader.join().unwrap(), Err(StoreError::Worker(_))));
    }
    let writer = Writer::new(segments, |_| Ok(()));
    assert!(matches!(writer.create(1), Err(StoreError::Worker(_))));
}

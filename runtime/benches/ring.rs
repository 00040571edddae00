//! What the rings and the store can do on this machine, between two processes:
//! `cargo bench -p rdist --bench ring`. One JSON object per line, as `rdist bench --json` prints.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use rdist::ring::Spin;
use rdist::scheduler::id::ExecutorId;
use rdist::store::{Arena, Segments, Writer};
use rdist::wire::executor::SocketMessage;
use support::{Side, join, part, start};

/// Bytes of a small message.
const SMALL: usize = 64;
const ROUND_TRIPS: usize = 200_000;
const SLEEPING_ROUND_TRIPS: usize = 20_000;
const MESSAGES: usize = 5_000_000;
const BATCH: usize = 64;
const BLOCK_BYTES: u64 = 32 << 20;
const COPIES: usize = 40;

fn main() {
    match part().as_deref() {
        Some("echo") => return echo(true),
        Some("sleepy-echo") => return echo(false),
        Some("sink") => return sink(),
        Some("asker") => return ask(),
        _ => {}
    }
    round_trips("ring_round_trip_spinning", "echo", true, ROUND_TRIPS);
    round_trips("ring_round_trip_sleeping", "sleepy-echo", false, SLEEPING_ROUND_TRIPS);
    relay();
    throughput();
    copies();
}

/// Sends every frame back, until the socket ends.
fn echo(is_spinning: bool) {
    let mut side = join();
    side.is_spinning = is_spinning;
    while let Some(frame) = side.recv() {
        side.send(&frame);
    }
}

/// Sends a message for each answer, `ROUND_TRIPS` times, and then a longer one.
fn ask() {
    let mut side = join();
    for _ in 0..ROUND_TRIPS {
        side.send(&[1; SMALL]);
        side.recv().unwrap();
    }
    side.send(&[1; SMALL + 1]);
    side.recv();
}

/// Takes messages; answers the first frame of more than `SMALL` bytes.
fn sink() {
    let mut side = join();
    loop {
        // Without a copy of each frame, as long as there are any.
        while let Some(frame) = side.receiver.try_recv().unwrap() {
            if frame.len() > SMALL {
                return side.send(&[1]);
            }
        }
        let Some(frame) = side.recv() else { return };
        if frame.len() > SMALL {
            return side.send(&frame);
        }
    }
}

fn round_trips(row: &str, part: &str, is_spinning: bool, count: usize) {
    let (mut child, mut side) = start("", part, ExecutorId(1));
    side.is_spinning = is_spinning;
    let once = |side: &mut Side| {
        let start = Instant::now();
        side.send(&[1; SMALL]);
        black_box(side.recv().unwrap());
        start.elapsed().as_nanos() as u64
    };
    for _ in 0..count / 10 {
        once(&mut side);
    }
    let start = Instant::now();
    let mut nanos: Vec<u64> = (0..count).map(|_| once(&mut side)).collect();
    let per_second = count as f64 / start.elapsed().as_secs_f64();
    nanos.sort_unstable();
    let at = |share: f64| nanos[(count as f64 * share) as usize] as f64 / 1e3;
    println!(
        r#"{{"row":"{row}","per_second":{per_second:.0},"p50_us":{:.2},"p99_us":{:.2}}}"#,
        at(0.50),
        at(0.99)
    );
    drop(side);
    child.wait().unwrap();
}

/// Round trips through this process, as from a submitter by the worker to an executor and back:
/// three processes, four hops.
fn relay() {
    let (mut first, mut asker) = start("", "asker", ExecutorId(1));
    let (mut second, mut echo) = start("", "echo", ExecutorId(2));
    let mut spin = Spin::new();
    let start = Instant::now();
    'all: loop {
        let mut is_idle = true;
        if let Some(frame) = asker.receiver.try_recv().unwrap() {
            if frame.len() > SMALL {
                break 'all;
            }
            assert!(echo.sender.try_send(frame).unwrap());
            echo.sender.publish();
            is_idle = false;
        }
        if let Some(frame) = echo.receiver.try_recv().unwrap() {
            assert!(asker.sender.try_send(frame).unwrap());
            asker.sender.publish();
            is_idle = false;
        }
        if is_idle {
            spin.again();
        } else {
            spin.progress();
        }
    }
    let per_second = ROUND_TRIPS as f64 / start.elapsed().as_secs_f64();
    println!(r#"{{"row":"ring_relay_round_trip","per_second":{per_second:.0}}}"#);
    drop((asker, echo));
    first.wait().unwrap();
    second.wait().unwrap();
}

/// Messages in one direction, published in batches.
fn throughput() {
    let (mut child, mut side) = start("", "sink", ExecutorId(1));
    let start = Instant::now();
    for number in 0..MESSAGES {
        while !side.sender.try_send(&[1; SMALL]).unwrap() {
            if side.sender.announce_wait() {
                side.bell.wait(None).unwrap();
            }
            side.sender.awake();
        }
        if number % BATCH == BATCH - 1 {
            side.sender.publish();
        }
    }
    side.send(&[1; SMALL + 1]);
    side.recv().unwrap();
    let per_second = MESSAGES as f64 / start.elapsed().as_secs_f64();
    println!(r#"{{"row":"ring_messages_batched","per_second":{per_second:.0}}}"#);
    drop(side);
    child.wait().unwrap();
}

/// Copies into blocks of the store: fresh pages, then blocks that are used again.
fn copies() {
    let mut arena = Arena::new(1 << 30);
    let (worker, executor) = rdist::store::LocalSocket::pair().unwrap();
    let segments = Arc::new(Segments::new(Arc::new(executor)).unwrap());
    let (asks, asked) = mpsc::channel();
    let writer = Writer::new(segments, move |len| {
        asks.send(len).map_err(|_| std::io::ErrorKind::BrokenPipe.into())
    });
    let source = vec![7_u8; BLOCK_BYTES as usize];
    let answers = std::thread::spawn(move || {
        for len in asked {
            let grant = arena.grant(ExecutorId(1), len).unwrap();
            let (segment, len) = (grant.segment, grant.len);
            let message = SocketMessage::Segment { segment, len, writable: true };
            worker.send(&message, &[std::os::fd::AsFd::as_fd(&grant.fd)]).unwrap();
        }
    });
    let copy = || {
        let mut draft = writer.create(BLOCK_BYTES).unwrap();
        let start = Instant::now();
        draft.copy_from_slice(&source);
        let seconds = start.elapsed().as_secs_f64();
        writer.reclaim([black_box(draft.seal())]);
        BLOCK_BYTES as f64 / seconds / 1e9
    };
    println!(r#"{{"row":"store_copy_fresh","gb_per_second":{:.2}}}"#, copy());
    let mut warm: Vec<f64> = (0..COPIES).map(|_| copy()).collect();
    warm.sort_unstable_by(f64::total_cmp);
    println!(r#"{{"row":"store_copy_warm","gb_per_second":{:.2}}}"#, warm[COPIES / 2]);
    let start = Instant::now();
    for _ in 0..MESSAGES / 10 {
        let draft = writer.create(10_000).unwrap();
        writer.reclaim([black_box(draft.seal())]);
    }
    let per_second = (MESSAGES / 10) as f64 / start.elapsed().as_secs_f64();
    println!(r#"{{"row":"store_create_and_reclaim","per_second":{per_second:.0}}}"#);
    drop(writer);
    answers.join().unwrap();
}

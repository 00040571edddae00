//! Work between workers that checks itself, wave by wave, while somebody damages the network or
//! stops processes. What is not for the driver's own worker needs the resource `spot`.
//!
//! - `waves MARKS STOP BYTES RETRIES`: until the file STOP is there; each task adds a line to the
//!   file MARKS when it runs, and each wave moves a value of BYTES.
//! - `steps MARKS STOP`: the same of what needs no head, tasks of the driver's worker and calls of
//!   an actor elsewhere, and nothing is tried twice.
//! - `long GO RETRIES`: one task, until the file GO is there.
//! - `move MARKS GO BYTES`: one object, once the file GO is there, and beside it tasks as above.

#![allow(clippy::unwrap_used, missing_docs)]

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use rdist::prelude::*;

/// In each wave.
const TASKS: u64 = 40;
const ITEMS: u64 = 20;

struct Counter {
    total: u64,
}

#[rdist::actor(checkpoint)]
impl Counter {
    fn new() -> Self {
        Self { total: 0 }
    }

    fn add(&mut self, by: u64) -> u64 {
        self.total += by;
        self.total
    }
}

impl Checkpoint for Counter {
    type State = u64;

    fn save(&self) -> u64 {
        self.total
    }

    fn restore(total: u64) -> Self {
        Self { total }
    }
}

/// An effect that can be counted.
#[rdist::task]
fn mark(file: String, number: u64) -> u64 {
    let mut file = std::fs::File::options().append(true).create(true).open(file).unwrap();
    // One write: lines of several processes do not mix.
    file.write_all(format!("{number}\n").as_bytes()).unwrap();
    number * number
}

#[rdist::task(stream)]
fn items(from: u64) -> impl Iterator<Item = u64> {
    from..from + ITEMS
}

#[rdist::task]
fn bulk(wave: u64, bytes: u64) -> Vec<u64> {
    (0..bytes / 8).map(|index| index.wrapping_mul(wave | 1)).collect()
}

/// In an object that moves, these bytes say where in it they are.
const CHUNK_BYTES: usize = 4_096;

fn fill(chunk: &mut [u8], number: usize) {
    chunk.fill(number as u8);
    chunk.iter_mut().zip(number.to_le_bytes()).for_each(|(to, from)| *to = from);
}

/// An object that stays where this runs.
#[rdist::task]
fn make(cx: &Context, bytes: u64) -> Result<ObjectRef<Vec<u8>>> {
    let mut writing = cx.create(bytes as usize)?;
    let chunks = writing.chunks_mut(CHUNK_BYTES).enumerate();
    chunks.for_each(|(number, chunk)| fill(chunk, number));
    Ok(writing.seal())
}

/// Says where it runs, and waits until the file is there.
#[rdist::task]
fn long(file: String) -> u64 {
    println!("task-pid {}", std::process::id());
    while !Path::new(&file).exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    7
}

async fn waves(cx: &Driver, marks: &str, stop: &str, bytes: u64, retries: u32) -> Result<()> {
    let counter = Counter::with().resource("spot", 0.1).max_restarts(retries).spawn(cx).await?;
    let mut wave = 0;
    while !Path::new(stop).exists() {
        let first = wave * TASKS;
        let call = counter.add(1).submit();
        let stream = items.with().resource("spot", 0.1).retries(retries).submit(cx, first);
        let value = bulk.with().resource("spot", 0.1).retries(retries).submit(cx, wave, bytes);
        let tasks: Vec<_> = (first..first + TASKS)
            .map(|n| {
                let task = mark.with().retries(retries);
                let task = if n % 2 == 0 { task.resource("spot", 0.1) } else { task };
                task.submit(cx, marks.to_owned(), n)
            })
            .collect();
        for (n, task) in (first..).zip(tasks) {
            assert_eq!(task.await?, n * n, "task {n} of wave {wave}");
        }
        let mut expected = first..first + ITEMS;
        let mut stream = stream;
        while let Some(item) = stream.next().await {
            assert_eq!(Some(item?.await?), expected.next(), "an item of wave {wave}");
        }
        assert_eq!(expected.next(), None, "the stream of wave {wave} is short");
        let value = value.await?;
        assert_eq!(value.len() as u64, bytes / 8);
        assert!((0..).zip(&value).all(|(index, n): (u64, _)| *n == index.wrapping_mul(wave | 1)));
        wave += 1;
        assert_eq!(call.await?, wave, "the counter in wave {wave}");
        println!("wave {wave}");
    }
    println!("right: {} tasks, {wave} calls", wave * TASKS);
    Ok(())
}

async fn steps(cx: &Driver, marks: &str, stop: &str) -> Result<()> {
    let counter = Counter::with().resource("spot", 0.1).max_restarts(0).spawn(cx).await?;
    let mut wave = 0;
    while !Path::new(stop).exists() {
        let first = wave * TASKS;
        let call = counter.add(1).submit();
        let step = |n| mark.with().retries(0).submit(cx, marks.to_owned(), n);
        let tasks: Vec<_> = (first..first + TASKS).map(step).collect();
        for (n, task) in (first..).zip(tasks) {
            assert_eq!(task.await?, n * n, "task {n} of step {wave}");
        }
        wave += 1;
        assert_eq!(call.await?, wave, "the counter in step {wave}");
        println!("wave {wave}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("right: {} tasks, {wave} calls", wave * TASKS);
    Ok(())
}

async fn wait_for(file: &str) {
    while !Path::new(file).exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn move_object(cx: &Driver, marks: &str, go: &str, bytes: u64) -> Result<()> {
    let object = make.with().resource("spot", 0.1).retries(0).submit(cx, bytes).await?;
    println!("made");
    wait_for(go).await;
    let task = |n| {
        let there = mark.with().retries(0).resource("spot", 0.1);
        there.submit(cx, marks.to_owned(), n)
    };
    let tasks: Vec<_> = (0..TASKS).map(task).collect();
    let start = std::time::Instant::now();
    let moved = object.read()?;
    println!("moved {bytes} bytes in {} ms", start.elapsed().as_millis());
    assert_eq!(moved.len() as u64, bytes);
    let mut expected = [0; CHUNK_BYTES];
    for (number, chunk) in moved.chunks(CHUNK_BYTES).enumerate() {
        fill(&mut expected, number);
        assert!(chunk == &expected[..chunk.len()], "chunk {number} is another one");
    }
    for (n, task) in (0..).zip(tasks) {
        assert_eq!(task.await?, n * n, "task {n}");
    }
    println!("right: {TASKS} tasks");
    Ok(())
}

#[rdist::main]
async fn main(cx: Driver) -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    println!("driver-pid {}", std::process::id());
    match words.as_slice() {
        ["waves", marks, stop, bytes, retries] => {
            waves(&cx, marks, stop, bytes.parse().unwrap(), retries.parse().unwrap()).await?;
        }
        ["steps", marks, stop] => steps(&cx, marks, stop).await?,
        ["long", go, retries] => {
            let task = long.with().resource("spot", 0.1).retries(retries.parse().unwrap());
            println!("value {}", task.submit(&cx, (*go).to_owned()).await?);
        }
        ["move", marks, go, bytes] => {
            move_object(&cx, marks, go, bytes.parse().unwrap()).await?;
        }
        other => return Err(Error::Refused(format!("unknown arguments {other:?}"))),
    }
    Ok(())
}

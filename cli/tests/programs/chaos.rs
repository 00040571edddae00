//! Work that checks itself, for as long as it is told, while somebody kills the processes that it
//! runs in: short, slow and nested tasks, large values, a stream, and counters whose state is
//! saved.
//!
//! `chaos SECONDS TASKS COUNTERS`: rounds of so many tasks, and a call of each counter.

#![allow(clippy::unwrap_used, missing_docs)]

use std::time::{Duration, Instant};

use rdist::prelude::*;

/// As often as it takes.
const ALWAYS: u32 = 1_000_000;
/// Numbers in a large value: too many to travel inside of a message.
const LARGE: u64 = 8_000;
/// Items of each round's stream, of which so many are made ahead.
const ITEMS: u64 = 100;
const BUFFER: u32 = 16;

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

#[rdist::task]
fn square(x: u64) -> u64 {
    x * x
}

#[rdist::task]
fn slow_square(x: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(x % 5));
    x * x
}

#[rdist::task]
fn large(from: u64) -> Vec<u64> {
    (from..from + LARGE).collect()
}

#[rdist::task]
fn sum(values: Vec<u64>) -> u64 {
    values.iter().sum()
}

#[rdist::task(stream)]
fn items(from: u64) -> impl Iterator<Item = u64> {
    (from..from + ITEMS).inspect(|_| std::thread::sleep(Duration::from_millis(5)))
}

#[rdist::task]
fn square_of_sum(cx: &Context, x: u64) -> Result<u64> {
    let parts: Vec<_> = (0..3).map(|n| square.with().retries(ALWAYS).submit(cx, x + n)).collect();
    Ok(cx.get_all(&parts)?.iter().sum())
}

/// One task of a round, and what it must return.
fn submit(cx: &Context, x: u64) -> (ObjectRef<u64>, u64) {
    match x % 10 {
        0 => {
            let values = large.with().retries(ALWAYS).submit(cx, x);
            let expected = (x..x + LARGE).sum();
            (sum.with().retries(ALWAYS).submit(cx, values), expected)
        }
        1 => {
            let expected = (0..3).map(|n| (x + n) * (x + n)).sum();
            (square_of_sum.with().retries(ALWAYS).submit(cx, x), expected)
        }
        2..5 => (slow_square.with().retries(ALWAYS).submit(cx, x), x * x),
        _ => (square.with().retries(ALWAYS).submit(cx, x), x * x),
    }
}

#[rdist::main]
async fn main(cx: Driver) -> Result<()> {
    let arguments: Vec<u64> = std::env::args().skip(1).map(|word| word.parse().unwrap()).collect();
    let [seconds, tasks, counters] = arguments[..] else { panic!("chaos SECONDS TASKS COUNTERS") };
    println!("driver-pid {}", std::process::id());
    let mut actors = Vec::new();
    for _ in 0..counters {
        actors.push(Counter::with().max_restarts(ALWAYS).spawn(&cx).await?);
    }
    let started = Instant::now();
    let (mut round, mut done) = (0, 0);
    while round == 0 || started.elapsed() < Duration::from_secs(seconds) {
        round += 1;
        let calls: Vec<_> = actors.iter().map(|actor| actor.add(round).submit()).collect();
        let stream = items.with().retries(ALWAYS).buffer(BUFFER).submit(&cx, round);
        let submitted: Vec<_> = (0..tasks).map(|n| submit(&cx, round * tasks + n)).collect();
        for (n, (object, expected)) in (0..).zip(submitted) {
            let value = object.await?;
            assert_eq!(value, expected, "task {n} of round {round}");
            done += 1;
        }
        let mut stream = stream;
        let mut item = round;
        while let Some(found) = stream.next().await {
            assert_eq!(found?.await?, item, "an item of the stream of round {round}");
            item += 1;
        }
        assert_eq!(item, round + ITEMS, "the stream of round {round} is short");
        let total = round * (round + 1) / 2;
        for (n, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await?, total, "counter {n} in round {round}");
        }
        println!("round {round} is right");
    }
    println!("exact: {done} tasks, {} calls in {round} rounds", round * counters);
    Ok(())
}

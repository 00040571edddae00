//! The program of the end-to-end tests about actors: what it does is its argument.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;

use rdist::prelude::*;

/// Counts calls, also those of its former lives.
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

    /// Adds what another actor answers, which it waits for.
    fn add_total_of(&mut self, other: ActorHandle<Counter>) -> Result<u64> {
        self.total += other.add(0).call().get()?;
        Ok(self.total)
    }

    /// Adds what is in objects that it waits for.
    fn add_inside(&mut self, objects: Vec<ObjectRef<u64>>) -> Result<u64> {
        for object in objects {
            self.total += object.get()?;
        }
        Ok(self.total)
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

/// Calls each counter so often, one call after the other; where it is killed and runs again, its
/// calls are the same ones.
#[rdist::task]
fn adds(counters: Vec<ActorHandle<Counter>>, times: u64) -> Result<u64> {
    let mut calls = 0;
    for _ in 0..times {
        for counter in &counters {
            counter.add(1).call().get()?;
            calls += 1;
        }
    }
    Ok(calls)
}

/// Counters of all kinds, called by the driver and by tasks, until the file is there; then each
/// must have counted each call once.
async fn storm(cx: &Driver, stop: &Path) -> Result<()> {
    let mut counters = Vec::new();
    for n in 0..8 {
        let mut with = Counter::with().max_restarts(u32::MAX);
        if n % 2 == 1 {
            with = with.own_process();
        }
        if n >= 4 {
            with = with.strategy(Placement::SPREAD);
        }
        counters.push(with.spawn(cx).await?);
    }
    println!("driver-pid {}", std::process::id());
    let (per_round, per_task) = (100, 5);
    let mut expected = 0;
    while !stop.exists() {
        let tasks: Vec<_> =
            (0..4).map(|_| adds.with().retries(10_000).submit(cx, &counters, per_task)).collect();
        let calls: Vec<Vec<_>> = counters
            .iter()
            .map(|counter| (0..per_round).map(|_| counter.add(1).submit()).collect())
            .collect();
        for calls in calls {
            let mut last = expected;
            for call in calls {
                let now = call.await?;
                if now <= last {
                    return Err(Error::Refused(format!("after {last} came {now}")));
                }
                last = now;
            }
        }
        for task in tasks {
            task.await?;
        }
        expected += per_round + 4 * per_task;
        for counter in &counters {
            let total = counter.add(0).call().await?;
            if total != expected {
                return Err(Error::Refused(format!("{total} instead of {expected} calls")));
            }
        }
    }
    println!("all exact at {expected}");
    Ok(())
}

#[rdist::task]
fn same(x: u64) -> u64 {
    x
}

/// Calls that wait for each other, and for calls before them of the same actor.
async fn chain(cx: &Driver) -> Result<()> {
    let (a, b) = (Counter::spawn(cx).await?, Counter::spawn(cx).await?);
    for _ in 0..100 {
        a.add(1).send()?;
        b.add_total_of(&a).send()?;
        b.add(a.add(0).submit()).send()?;
    }
    let (sum, total) = (b.add(0).call().await?, a.add(0).call().await?);
    assert!(total == 100 && (5_050 + 100..=5_050 + 10_000).contains(&sum), "{total} {sum}");
    // A method that was always quick waits for the end of a call just before.
    for _ in 0..200 {
        a.add_inside(Vec::new()).send()?;
    }
    for _ in 0..20 {
        let before = a.add(1).submit();
        a.add_inside(vec![same.submit(cx, &before)]).send()?;
    }
    println!("chain {}", a.add(0).call().await?);
    Ok(())
}

#[rdist::main]
async fn main(cx: Driver) -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["storm", stop] => storm(&cx, Path::new(stop)).await,
        ["chain"] => chain(&cx).await,
        other => Err(Error::Refused(format!("unknown arguments {other:?}"))),
    }
}

//! The program of the end-to-end tests about actors: what it does is its argument.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::time::Duration;

use rdist::Spawning;
use rdist::prelude::*;
use rdist::scheduler::outcome::{Cause, TaskError};

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

    fn process(&mut self) -> u32 {
        std::process::id()
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

/// Runs until the file is there.
#[rdist::task]
fn lasts(file: String) {
    while !Path::new(&file).exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Takes one CPU for an actor and another one for a task; then waits for the file.
async fn begin_again(cx: &Driver, go: &Path) -> Result<()> {
    let counter = Counter::with().own_process().cpus(1.0).spawn(cx).await?;
    let task = lasts.with().cpus(1.0).submit(cx, go.to_string_lossy().into_owned());
    println!("driver-pid {} has all", std::process::id());
    task.await?;
    assert_eq!(counter.add(1).call().await?, 1);
    println!("began once, counted once");
    Ok(())
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

/// Says what happens to it in a file.
struct Diary {
    path: String,
    lines: Vec<String>,
}

#[rdist::actor]
impl Diary {
    fn new(path: String) -> Self {
        Self { path, lines: Vec::new() }
    }

    fn note(&mut self, line: String) {
        self.lines.push(line);
    }

    /// Takes longer than any test.
    fn stall(&mut self) {
        std::thread::sleep(Duration::from_secs(600));
    }

    /// Works through others, so that it makes objects and tasks in the name of its caller.
    fn double(&mut self, cx: &Context, x: u64) -> Result<u64> {
        let put = cx.put(&x)?;
        Ok(same.submit(cx, &put).get()? + put.get()?)
    }
}

impl Drop for Diary {
    fn drop(&mut self) {
        let _ = std::fs::write(&self.path, self.lines.join("\n"));
    }
}

fn diary(cx: &Context, path: &str) -> Spawning<Diary> {
    Diary::with().name("diary").get_if_exists().spawn(cx, path.to_owned())
}

/// One who asks for an actor that exists gets it, and an actor that is told to end does what it was
/// told before.
async fn lives(cx: &Driver, path: &str) -> Result<()> {
    let both = [diary(cx, path), diary(cx, path)];
    let [first, second] = both;
    let (first, second) = (first.await?, second.await?);
    assert_eq!(first, second);
    let again = Diary::with().name("diary").spawn(cx, path.to_owned()).await;
    let Err(Error::Task(error)) = again else { panic!("it was made twice") };
    assert!(matches!(error.cause, Cause::NameTaken { by, .. } if by == first.id()), "{error}");
    for n in 0..100 {
        first.note(n.to_string()).send()?;
    }
    second.terminate().await?;
    let written = std::fs::read_to_string(path).unwrap();
    assert_eq!(written.lines().count(), 100, "the calls before were made");
    let Err(Error::Task(error)) = first.note(String::new()).call().await else {
        panic!("it has ended")
    };
    assert!(matches!(error.cause, Cause::ActorDied(_)), "{error}");
    // The name is free again.
    while named_actor::<Diary>("diary").is_ok() {}
    println!("lived");
    Ok(())
}

/// An actor that another job calls, until the file is there.
async fn serve(cx: &Driver, stop: &Path) -> Result<()> {
    let file = stop.with_extension("diary");
    let _served = diary(cx, file.to_str().unwrap()).await?;
    println!("serving");
    while !stop.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

async fn visit() -> Result<()> {
    let diary = named_actor::<Diary>("diary")?;
    for x in 0..10 {
        assert_eq!(diary.double(x).call().await?, 2 * x);
    }
    println!("visited");
    Ok(())
}

/// Calls actors that live where there is a `spot`, until the file is there: however often they
/// move meanwhile, no call fails, and each is counted once and in order. They may not restart, or
/// only so often as they never die.
async fn moves(cx: &Driver, stop: &Path) -> Result<()> {
    println!("here");
    let counter = Counter::with().resource("spot", 0.1).max_restarts(0).spawn(cx).await?;
    let name = stop.with_extension("diary").to_string_lossy().into_owned();
    let diary = Diary::with().resource("spot", 0.1).max_restarts(1).spawn(cx, name).await?;
    let (mut expected, mut places) = (0, Vec::new());
    while !stop.exists() {
        let process = counter.process().submit();
        let calls: Vec<_> = (0..20).map(|_| counter.add(1).submit()).collect();
        let doubled: Vec<_> = (0..20).map(|x| diary.double(x).submit()).collect();
        for call in calls {
            expected += 1;
            assert_eq!(call.await?, expected);
        }
        for (x, call) in (0..).zip(doubled) {
            assert_eq!(call.await?, 2 * x);
        }
        let process = process.await?;
        if places.last() != Some(&process) {
            places.push(process);
            println!("lives in process {process}");
        }
    }
    println!("lived in {} places and lost nothing", places.len());
    Ok(())
}

fn detached(cx: &Context) -> Spawning<Counter> {
    Counter::with().name("ledger").detached().max_restarts(3).get_if_exists().spawn(cx)
}

/// Makes a detached actor, uses it, and ends.
async fn leave(cx: &Driver) -> Result<()> {
    let unnamed = Counter::with().detached().spawn(cx).await;
    assert!(unnamed.unwrap_err().to_string().contains("name"), "how would it be found?");
    let given = cx.put(&String::new())?;
    let bound = Diary::with().name("bound").detached().spawn(cx, &given).await;
    assert!(bound.unwrap_err().to_string().contains("objects"), "what it is made of would go");
    let ledger = detached(cx).await?;
    assert_ne!(ledger.id().0.job(), cx.job_id(), "it is no part of this job");
    println!("left with {}", ledger.add(5).call().await?);
    Ok(())
}

/// Comes back to it from another job, by its name; kills its process.
async fn come_back(cx: &Driver) -> Result<()> {
    let ledger = detached(cx).await?;
    assert_eq!(ledger, named_actor::<Counter>("ledger")?);
    println!("found {}", ledger.add(1).call().await?);
    println!("process {}", ledger.process().call().await?);
    Ok(())
}

/// Ends it for good.
async fn make_an_end() -> Result<()> {
    let ledger = named_actor::<Counter>("ledger")?;
    println!("in the end {}", ledger.add(0).call().await?);
    ledger.kill()?;
    while named_actor::<Counter>("ledger").is_ok() {}
    let Err(Error::Task(error)) = ledger.add(1).call().await else { panic!("it was killed") };
    println!("then {error}");
    Ok(())
}

/// Calls of an actor whose job is stopped meanwhile: one that runs, and one that waits.
async fn outlive() -> Result<()> {
    let diary = named_actor::<Diary>("diary")?;
    let calls = (diary.stall().submit(), diary.double(1).submit());
    println!("calling");
    let (Err(runs), Err(waits)) = (calls.0.await, calls.1.await) else { panic!("they returned") };
    for error in [runs, waits] {
        let Error::Task(TaskError { cause: Cause::ActorDied(death), .. }) = &error else {
            panic!("{error}")
        };
        println!("failed: {death}");
    }
    let Err(error) = diary.double(1).call().await else { panic!("it is gone") };
    println!("and then: {error}");
    Ok(())
}

/// Waits as long as it is told, and counts.
struct Sleeper;

#[rdist::actor]
impl Sleeper {
    fn new() -> Self {
        Self
    }

    fn after(&mut self, milliseconds: u64) -> u64 {
        std::thread::sleep(Duration::from_millis(milliseconds));
        milliseconds
    }
}

async fn pool(cx: &Driver) -> Result<()> {
    let mut pool = ActorPool::new((0..3).map(|_| Sleeper::spawn(cx).handle()));
    let times = [20, 1, 10, 0, 3, 7, 2];
    let in_order: Result<Vec<u64>> = pool.map(times, |actor, time| actor.after(time)).collect();
    assert_eq!(in_order?, times);
    let any: Result<Vec<u64>> =
        pool.map_unordered(times, |actor, time| actor.after(time)).collect();
    let mut any = any?;
    assert_ne!(any[0], times[0], "the first one takes longest");
    any.sort_unstable();
    assert_eq!(any, [0, 1, 2, 3, 7, 10, 20]);

    assert!(pool.has_free() && !pool.has_next());
    pool.submit(|actor| actor.after(1_000_u64));
    pool.submit(|actor| actor.after(0_u64));
    let soon = Duration::from_millis(5);
    assert!(matches!(pool.get_next_within(soon), Some(Err(Error::Timeout(_)))));
    assert_eq!(pool.next_unordered().await.unwrap()?, 0);
    assert_eq!(pool.next().await.unwrap()?, 1_000);
    assert!(pool.next().await.is_none());
    let spare = pool.pop_idle().unwrap();
    pool.push(spare);
    println!("pooled");
    Ok(())
}

/// The GPUs that this process sees.
fn visible() -> String {
    std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_else(|_| "unset".to_owned())
}

struct Seer;

#[rdist::actor]
impl Seer {
    fn new() -> Self {
        Self
    }

    fn sees(&self) -> (String, u32) {
        (visible(), std::process::id())
    }
}

#[rdist::task]
fn sees() -> String {
    visible()
}

/// On a worker with two GPUs.
async fn gpus(cx: &Driver) -> Result<()> {
    let offered: f64 = cx.offers().iter().map(|(_, offer)| offer.gpu.as_f64()).sum();
    let one = || Seer::with().cpus(0.0).gpus(1.0).spawn(cx);
    let (first, second) = (one().await?, one().await?);
    let seen = [first.sees().call().await?, second.sees().call().await?];
    assert_ne!(seen[0].1, seen[1].1, "a process each");
    first.kill()?;
    // Its GPU is free again.
    let third = one().await?;
    let again = third.sees().call().await?.0;
    let light = Seer::spawn(cx).await?.sees().call().await?.0;
    second.kill()?;
    third.kill()?;
    let both = sees.with().gpus(2.0).submit(cx).await?;
    let [(first, _), (second, _)] = seen;
    println!("{offered}: {first}; {second}; {again}; [{light}]; {both}");
    Ok(())
}

#[rdist::main]
async fn main(cx: Driver) -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["storm", stop] => storm(&cx, Path::new(stop)).await,
        ["chain"] => chain(&cx).await,
        ["begin-again", go] => begin_again(&cx, Path::new(go)).await,
        ["lives", path] => lives(&cx, path).await,
        ["serve", stop] => serve(&cx, Path::new(stop)).await,
        ["moves", stop] => moves(&cx, Path::new(stop)).await,
        ["visit"] => visit().await,
        ["outlive"] => outlive().await,
        ["leave"] => leave(&cx).await,
        ["come-back"] => come_back(&cx).await,
        ["make-an-end"] => make_an_end().await,
        ["pool"] => pool(&cx).await,
        ["gpus"] => gpus(&cx).await,
        other => Err(Error::Refused(format!("unknown arguments {other:?}"))),
    }
}

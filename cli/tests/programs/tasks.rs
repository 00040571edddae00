//! The program that the end-to-end tests of tasks submit: one scenario for each argument, which
//! checks everything itself and prints `ok`.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::time::{Duration, Instant};

use rdist::prelude::*;
use rdist::scheduler::outcome::Cause;

#[rdist::main]
async fn main(cx: Driver) -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder = arguments.get(1).cloned().unwrap_or_default();
    match arguments.first().map(String::as_str) {
        Some("retries") => retries(&cx)?,
        Some("timeouts") => timeouts(&cx, &folder)?,
        Some("returns") => returns(&cx)?,
        Some("arguments") => arguments_of_one_task(&cx)?,
        Some("streams") => streams(&cx, &folder).await?,
        Some("streams-elsewhere") => streams_elsewhere(&cx).await?,
        Some("streams-under-fire") => streams_under_fire(&cx).await?,
        Some("cancel") => cancel(&cx, &folder)?,
        other => return Err(Error::Refused(format!("no scenario {other:?}"))),
    }
    println!("ok");
    Ok(())
}

fn cause<T: rdist::Value + std::fmt::Debug>(object: &ObjectRef<T>) -> Cause {
    match object.get() {
        Err(Error::Task(error)) => error.cause,
        other => panic!("{object:?} is {other:?}"),
    }
}

/// Waits for a file that a task makes.
fn wait_for(file: &Path) {
    let start = Instant::now();
    while !file.exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "{} never came", file.display());
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[derive(Debug, thiserror::Error)]
#[error("status {0}")]
struct Status(u32);

#[rdist::task]
fn fetch(cx: &Context, good_from: u32, status: u32) -> Result<u32, Status> {
    if cx.attempt() < good_from { Err(Status(status)) } else { Ok(cx.attempt()) }
}

#[rdist::task]
fn fetch_loosely(cx: &Context, good_from: u32) -> std::result::Result<u32, String> {
    if cx.attempt() < good_from { Err("busy".to_owned()) } else { Ok(cx.attempt()) }
}

#[rdist::task]
fn panics_until(cx: &Context, good_from: u32) -> u32 {
    assert!(cx.attempt() >= good_from, "not yet");
    cx.attempt()
}

#[rdist::task]
fn passes_on(value: u32) -> u32 {
    value
}

/// Busy, not broken.
#[rdist::predicate]
fn is_busy(fault: &Fault<'_>) -> bool {
    fault.downcast_ref::<Status>().is_some_and(|status| status.0 == 503)
}

#[rdist::predicate]
fn says_busy(fault: &Fault<'_>) -> bool {
    !fault.is_panic() && fault.message() == "busy" && fault.downcast_ref::<String>().is_some()
}

#[rdist::predicate]
fn is_confused(_: &Fault<'_>) -> bool {
    panic!("no idea")
}

fn retries(cx: &Context) -> Result<()> {
    let soon = (Duration::from_millis(1), Duration::from_millis(5));
    let again = |n| fetch.with().retry_errors(n, is_busy).backoff(soon.0, soon.1);
    assert_eq!(again(3).submit(cx, 3_u32, 503_u32).get()?, 3);
    let returned = |text: &str| Cause::Returned { message: text.to_owned() };
    assert_eq!(cause(&again(2).submit(cx, 3_u32, 503_u32)), returned("status 503"));
    assert_eq!(cause(&again(3).submit(cx, 3_u32, 404_u32)), returned("status 404"));
    assert_eq!(cause(&fetch.submit(cx, 3_u32, 503_u32)), returned("status 503"));
    let loose = fetch_loosely.with().retry_errors(2, says_busy).backoff(soon.0, soon.1);
    assert_eq!(loose.submit(cx, 2_u32).get()?, 2);
    let any = panics_until.with().retry_errors(9, AnyError).backoff(soon.0, soon.1);
    assert_eq!(any.submit(cx, 4_u32).get()?, 4);
    let confused = panics_until.with().retry_errors(9, is_confused).submit(cx, 1_u32);
    assert!(matches!(cause(&confused), Cause::Panicked { .. }));
    // What another task failed with is not this one's to repeat.
    let broken = fetch.submit(cx, 9_u32, 500_u32);
    let passed = passes_on.with().retry_errors(9, AnyError).submit(cx, &broken);
    assert_eq!(cause(&passed), returned("status 500"));
    // The pauses are kept.
    let start = Instant::now();
    let slow = Duration::from_millis(100);
    let paused = fetch.with().retry_errors(2, AnyError).backoff(slow, slow);
    assert_eq!(paused.submit(cx, 2_u32, 1_u32).get()?, 2);
    assert!(start.elapsed() >= slow, "two pauses of 50 ms at least: {:?}", start.elapsed());
    Ok(())
}

#[rdist::task]
fn runs_until_told(cx: &Context) -> u32 {
    while !cx.is_cancelled() {
        std::thread::sleep(Duration::from_millis(1));
    }
    7
}

/// Heeds nobody, at its first try.
#[rdist::task]
fn is_stuck(cx: &Context, file: String) -> u32 {
    let file = Path::new(&file);
    while cx.attempt() == 0 || !file.exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    cx.attempt()
}

/// Makes a file at each try, then waits for another one.
#[rdist::task]
fn works_beside(cx: &Context, folder: String) -> u32 {
    std::fs::write(Path::new(&folder).join(format!("try-{}", cx.attempt())), "").unwrap();
    while !Path::new(&folder).join("go-on").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    cx.attempt()
}

fn timeouts(cx: &Context, folder: &str) -> Result<()> {
    let limit = Duration::from_millis(150);
    let start = Instant::now();
    let late = runs_until_told.with().timeout(limit).submit(cx);
    assert_eq!(cause(&late), Cause::TimedOut { limit });
    assert!(start.elapsed() >= limit);
    let Err(error) = late.get() else { panic!() };
    assert!(error.to_string().contains("150ms"), "{error}");
    assert_eq!(runs_until_told.with().timeout(limit).cpus(0.0).submit(cx).get().ok(), None);
    // Asked in vain, it is killed with its process; what runs beside it is not to blame.
    let file = |name: &str| Path::new(folder).join(name);
    let beside = works_beside.with().retries(0).submit(cx, folder.to_owned());
    wait_for(&file("try-0"));
    let stuck = is_stuck.with().retries(0).timeout(limit).retry_timeouts(1);
    let stuck = stuck.submit(cx, file("go-on").display().to_string());
    wait_for(&file("try-1"));
    std::fs::write(file("go-on"), "").unwrap();
    assert_eq!(beside.get()?, 1);
    assert_eq!(stuck.get()?, 1);
    Ok(())
}

/// Submits one that waits for the end, and one that never starts.
#[rdist::task]
fn has_children(cx: &Context, folder: String) -> Result<u32> {
    let made = Path::new(&folder).join("grandchild-ended");
    let child = has_a_child.submit(cx, made.display().to_string());
    let queued = leaves_a_trace.with().cpus(2.0).submit(cx, folder.clone());
    child.get()?;
    queued.get()
}

#[rdist::task]
fn has_a_child(cx: &Context, file: String) -> Result<u32> {
    let child = leaves_a_file.submit(cx, file);
    child.get()
}

#[rdist::task]
fn leaves_a_file(cx: &Context, file: String) -> u32 {
    std::fs::write(format!("{file}-not"), "").unwrap();
    while !cx.is_cancelled() {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::fs::write(file, "").unwrap();
    1
}

#[rdist::task]
fn leaves_a_trace(folder: String) -> u32 {
    std::fs::write(Path::new(&folder).join("it-ran"), "").unwrap();
    1
}

/// Cancels what it refers to, from wherever it runs.
#[rdist::task]
fn cancels(cx: &Context, objects: Vec<ObjectRef<u32>>) {
    for object in objects {
        cx.cancel(&object, false);
    }
}

fn cancel(cx: &Context, folder: &str) -> Result<()> {
    let file = |name: &str| Path::new(folder).join(name);
    let parent = has_children.submit(cx, folder.to_owned());
    wait_for(&file("grandchild-ended-not"));
    cx.cancel(&parent, false);
    assert_eq!(cause(&parent), Cause::Cancelled);
    wait_for(&file("grandchild-ended"));
    // Its room is free again, and its queued child never ran.
    assert_eq!(passes_on.with().cpus(2.0).submit(cx, 5_u32).get()?, 5);
    assert!(!file("it-ran").exists());
    // By whoever has the reference, on another worker, too.
    let told = runs_until_told.submit(cx);
    assert!(told.get_within(Duration::from_millis(50)).is_err());
    let elsewhere = cancels.with().resource("second", 1.0);
    elsewhere.submit(cx, vec![told.clone()]).get()?;
    assert_eq!(told.get()?, 7);
    // By force.
    let stuck = is_stuck.submit(cx, String::new());
    assert!(stuck.get_within(Duration::from_millis(50)).is_err());
    cx.cancel(&stuck, true);
    assert_eq!(cause(&stuck), Cause::Cancelled);
    Ok(())
}

#[rdist::task(returns = 2)]
fn divide(a: u64, b: u64) -> Result<(u64, String), String> {
    let quotient = a.checked_div(b).ok_or("by zero")?;
    Ok((quotient, (a - quotient * b).to_string()))
}

#[rdist::task(returns = each)]
fn count_up(n: u64, large: bool) -> Vec<(u64, Vec<u8>)> {
    (0..n).map(|x| (x, if large { vec![x as u8; 2_000] } else { Vec::new() })).collect()
}

#[rdist::task]
fn first_of(part: (u64, Vec<u8>)) -> u64 {
    part.0
}

fn returns(cx: &Context) -> Result<()> {
    let (quotient, rest) = divide.submit(cx, 17_u64, 5_u64);
    assert_eq!((quotient.get()?, rest.get()?), (3, "2".to_owned()));
    let (quotient, rest) = divide.with().cpus(0.5).submit(cx, 17_u64, 0_u64);
    assert_eq!(cause(&quotient), cause(&rest));
    assert_eq!(cause(&rest), Cause::Returned { message: "by zero".to_owned() });
    for large in [false, true] {
        let start = Instant::now();
        let parts = count_up.submit(cx, 3_000, 3_000_u64, large);
        let values = cx.get_all(&parts)?;
        println!("3,000 values, large: {large}: {:?}", start.elapsed());
        assert!(
            values
                .iter()
                .zip(0..)
                .all(|((x, bytes), n)| { *x == n && bytes.len() == if large { 2_000 } else { 0 } })
        );
        // Each of them lives for itself.
        let last = parts.last().unwrap().clone();
        drop(parts);
        assert_eq!(first_of.submit(cx, &last).get()?, 2_999);
    }
    assert!(count_up.submit(cx, 0, 0_u64, false).is_empty());
    for part in count_up.submit(cx, 3, 2_u64, false) {
        let Cause::Refused { reason } = cause(&part) else { panic!() };
        assert!(reason.contains("2 values where its submitter wanted 3"), "{reason}");
    }
    let too_many = count_up.submit(cx, 100_001, 2_u64, false);
    assert!(matches!(cause(&too_many[7]), Cause::Refused { .. }));
    Ok(())
}

#[rdist::task]
fn sum(parts: All<u64>, and: u64) -> u64 {
    parts.iter().sum::<u64>() + and
}

#[rdist::task]
fn total_length(parts: All<Vec<u8>>) -> u64 {
    parts.into_iter().map(|part| part.len() as u64).sum()
}

#[rdist::task]
fn twice(x: u64) -> u64 {
    2 * x
}

fn arguments_of_one_task(cx: &Context) -> Result<()> {
    let parts: Vec<_> = (0..10_000_u64).map(|x| twice.submit(cx, x)).collect();
    let start = Instant::now();
    assert_eq!(sum.submit(cx, &parts, 1_u64).get()?, 99_990_001);
    println!("10,000 objects, some not there yet: {:?}", start.elapsed());
    let start = Instant::now();
    assert_eq!(sum.submit(cx, parts, 1_u64).get()?, 99_990_001);
    println!("10,000 objects that are there: {:?}", start.elapsed());
    let large: Vec<_> = (0..50).map(|x| cx.put(&vec![x as u8; 10_000])).collect::<Result<_>>()?;
    assert_eq!(total_length.submit(cx, large).get()?, 500_000);
    assert_eq!(sum.submit(cx, Vec::new(), 3_u64).get()?, 3);
    let one = cx.put(&1_u64)?;
    let too_many = vec![one; 15_001];
    let Cause::Refused { reason } = cause(&sum.submit(cx, too_many, 1_u64)) else { panic!() };
    assert!(reason.contains("15001 objects"), "{reason}");
    Ok(())
}

#[rdist::task(stream)]
fn numbers(n: u64) -> impl Iterator<Item = u64> {
    0..n
}

/// Notes how far it is.
#[rdist::task(stream)]
fn noted(folder: String, n: u64) -> impl Iterator<Item = u64> {
    (0..n).inspect(move |x| std::fs::write(Path::new(&folder).join(format!("at-{x}")), "").unwrap())
}

#[rdist::task(stream)]
fn breaks_at(n: u32, panics: bool) -> Box<dyn Iterator<Item = Result<u32, Status>>> {
    Box::new((0..).map(move |x| {
        assert!(!panics || x < n, "at {x}");
        if x < n { Ok(x) } else { Err(Status(x)) }
    }))
}

/// Large values, of which each process that makes some notes that in the last byte.
#[rdist::task(stream)]
fn chunks(cx: &Context, n: u64) -> impl Iterator<Item = Vec<u8>> {
    let attempt = cx.attempt() as u8;
    (0..n).map(move |x| {
        std::thread::sleep(Duration::from_millis(2));
        let mut chunk = vec![x as u8; 20_000];
        chunk.push(attempt);
        chunk
    })
}

#[rdist::task(stream)]
fn fails_half_way(cx: &Context, n: u64) -> impl Iterator<Item = Result<(u64, u32), String>> {
    let attempt = cx.attempt();
    (0..n).map(move |x| {
        let breaks = u64::from(attempt + 1) * n / 4;
        if x == breaks && attempt < 3 { Err("not yet".to_owned()) } else { Ok((x, attempt)) }
    })
}

async fn streams(cx: &Context, folder: &str) -> Result<()> {
    // Async, blocking, empty; values as any others.
    let mut stream = numbers.submit(cx, 1_000_u64);
    let mut total = 0;
    while let Some(item) = stream.next().await {
        total += item?.await?;
    }
    assert_eq!(total, 499_500);
    assert!(stream.next().await.is_none(), "it has ended");
    let all: Vec<_> = numbers.submit(cx, 500_u64).into_iter().collect::<Result<_>>()?;
    assert_eq!(cx.get_all(&all)?, (0..500).collect::<Vec<_>>());
    assert_eq!(twice.submit(cx, &all[7]).get()?, 14, "an item outlives its stream");
    assert_eq!(numbers.submit(cx, 0_u64).into_iter().count(), 0);
    // The producer waits for its consumer.
    let file = |x: u64| Path::new(folder).join(format!("at-{x}"));
    let mut slow = noted.with().buffer(3).submit(cx, folder.to_owned(), 10_u64);
    wait_for(&file(3));
    // Its CPU is free meanwhile: the cluster has one.
    assert_eq!(twice.submit(cx, 1_u64).get()?, 2);
    assert!(!file(4).exists(), "three are there, and the fourth waits");
    for x in 0..2 {
        assert_eq!(slow.next().await.unwrap()?.get()?, x);
    }
    wait_for(&file(5));
    assert!(!file(6).exists(), "two were taken, and two more came");
    // Dropped, it ends the task.
    drop(slow);
    assert_eq!(twice.submit(cx, 2_u64).get()?, 4);
    let until = Instant::now() + Duration::from_millis(100);
    while Instant::now() < until {
        assert!(!file(6).exists(), "nobody takes what it makes");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Errors and panics come after what was there before.
    for panics in [false, true] {
        let mut items = breaks_at.submit(cx, 3_u32, panics).into_iter();
        for x in 0..3 {
            assert_eq!(items.next().unwrap()?.get()?, x);
        }
        let Some(Err(Error::Task(error))) = items.next() else { panic!() };
        match error.cause {
            Cause::Returned { message } => assert!(!panics && message == "status 3", "{message}"),
            Cause::Panicked { message } => assert!(panics && message.contains("at 3"), "{message}"),
            other => panic!("{other}"),
        }
        assert!(items.next().is_none());
    }
    // A further try goes on where the one before was.
    let soon = Duration::from_millis(1);
    let retried = fails_half_way.with().retry_errors(3, AnyError).backoff(soon, soon).buffer(5);
    let mut tries = Vec::new();
    for (n, item) in retried.submit(cx, 100_u64).into_iter().enumerate() {
        let (x, attempt) = item?.get()?;
        assert_eq!(x, n as u64);
        tries.push(attempt);
    }
    let wanted: Vec<u32> = (0..100).map(|x| x / 25).collect();
    assert_eq!(tries, wanted, "no item is made twice");
    Ok(())
}

/// The producers run on the other worker.
async fn streams_elsewhere(cx: &Context) -> Result<()> {
    let there = |n| chunks.with().resource("second", 1.0).buffer(n);
    for buffer in [1, 8] {
        let mut stream = there(buffer).submit(cx, 60_u64);
        let mut n = 0_u64;
        while let Some(item) = stream.next().await {
            let chunk = item?.read()?;
            assert!(chunk.len() == 20_001 && chunk[0] == n as u8 && chunk[19_999] == n as u8);
            n += 1;
        }
        assert_eq!(n, 60);
    }
    let small = numbers.with().resource("second", 1.0).submit(cx, 5_000_u64);
    let start = Instant::now();
    let values = small.into_iter().map(|item| item?.get()).collect::<Result<Vec<_>>>()?;
    println!("5,000 small items from another worker: {:?}", start.elapsed());
    assert_eq!(values, (0..5_000).collect::<Vec<_>>());
    let start = Instant::now();
    let near = numbers.submit(cx, 20_000_u64).into_iter().map(|item| item?.get());
    assert_eq!(near.sum::<Result<u64>>()?, 199_990_000);
    println!("20,000 small items from this worker: {:?}", start.elapsed());
    Ok(())
}

#[rdist::task]
fn whose() -> u32 {
    std::process::id()
}

/// The executors of tasks are killed while two streams are read.
async fn streams_under_fire(cx: &Context) -> Result<()> {
    let mut local = chunks.with().retries(1_000).buffer(4).submit(cx, 150_u64);
    let far = chunks.with().retries(1_000).resource("second", 1.0).buffer(4).submit(cx, 150_u64);
    let mut far = far.into_iter();
    let mut last_try = [0, 0];
    for n in 0..150_u64 {
        let near = local.next().await.unwrap()?.get()?;
        let other = far.next().unwrap()?.get()?;
        for (stream, chunk) in [near, other].into_iter().enumerate() {
            assert!(chunk.len() == 20_001 && chunk[..20_000].iter().all(|x| *x == n as u8));
            last_try[stream] = chunk[20_000];
        }
        if n % 25 == 12 {
            for elsewhere in [false, true] {
                let here = whose.with().cpus(0.0);
                let task = if elsewhere { here.resource("second", 0.1) } else { here };
                let pid = task.submit(cx).get()?;
                let pid = rustix_pid(pid);
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            }
        }
    }
    assert!(local.next().await.is_none() && far.next().is_none());
    println!("tries: {last_try:?}");
    assert!(last_try.iter().all(|tries| *tries >= 3), "{last_try:?}: they were killed");
    Ok(())
}

fn rustix_pid(pid: u32) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

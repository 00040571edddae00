//! The program of the end-to-end tests about tasks that are submitted one by one, which go to
//! their executor by a lease: what it does is its argument.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::time::Duration;

use rdist::prelude::*;
use rdist::scheduler::outcome::Cause;

#[rdist::task]
fn double(x: u64) -> u64 {
    2 * x
}

#[rdist::task]
fn range(len: u64) -> Vec<u64> {
    (0..len).collect()
}

/// Submits others, and waits for them.
#[rdist::task]
fn sum_of_doubles(cx: &Context, x: u64) -> Result<u64> {
    let parts: Vec<_> = (0..x).map(|part| double.submit(cx, part)).collect();
    Ok(cx.get_all(&parts)?.iter().sum())
}

#[rdist::task]
fn refuse() -> Result<u64> {
    Err(Error::Refused("on purpose".to_owned()))
}

#[rdist::task]
fn dawdle(cx: &Context) -> Result<u64> {
    while !cx.is_cancelled() {
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(Error::Cancelled)
}

#[rdist::task]
fn wait_for_file(file: String) {
    while !Path::new(&file).exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn short_ones(cx: &Driver, from: u64, count: u64) -> Result<()> {
    for x in from..from + count {
        assert_eq!(double.submit(cx, x).get()?, 2 * x);
    }
    Ok(())
}

fn cause(object: &ObjectRef<u64>) -> Cause {
    match object.get() {
        Err(Error::Task(error)) => error.cause,
        other => panic!("{object:?} is {other:?}"),
    }
}

/// Short tasks, and each time another one that has to leave its lease.
fn all_kinds(cx: &Driver, stop: &Path) -> Result<()> {
    println!("driver-pid {}", std::process::id());
    let mut rounds = 0;
    while !stop.exists() || rounds < 10 {
        rounds += 1;
        short_ones(cx, 100 * rounds, 100)?;
        assert_eq!(range.submit(cx, 10_000).get()?.len(), 10_000);
        short_ones(cx, 0, 20)?;
        let first = double.submit(cx, rounds);
        let second = double.submit(cx, &first);
        assert_eq!(second.get()?, 4 * rounds);
        short_ones(cx, 0, 20)?;
        assert_eq!(sum_of_doubles.submit(cx, 10).get()?, 90);
        short_ones(cx, 0, 20)?;
        assert!(matches!(cause(&refuse.submit(cx)), Cause::Returned { .. }));
        short_ones(cx, 0, 20)?;
        let slow = dawdle.submit(cx);
        cx.cancel(&slow, false);
        assert_eq!(cause(&slow), Cause::Cancelled);
        let many: Vec<_> = (0..500).map(|x| double.submit(cx, x)).collect();
        assert_eq!(cx.get_all(&many)?.iter().sum::<u64>(), 499 * 500);
    }
    println!("{rounds} rounds");
    Ok(())
}

#[rdist::main]
async fn main(cx: Driver) -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let file = arguments.get(1).cloned().unwrap_or_default();
    match arguments.first().map(String::as_str) {
        Some("all") => all_kinds(&cx, Path::new(&file))?,
        Some("long") => {
            short_ones(&cx, 0, 100)?;
            wait_for_file.submit(&cx, file).get()?;
        }
        other => return Err(Error::Refused(format!("no scenario {other:?}"))),
    }
    println!("ok");
    Ok(())
}

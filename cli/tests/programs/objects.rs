//! The program of the end-to-end tests of the object store: more values than memory.

#![allow(clippy::unwrap_used, missing_docs)]

use rdist::prelude::*;

/// A value that tells itself from all others.
fn value(index: u64, bytes: u64) -> Vec<u8> {
    let word = (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut value = word.to_le_bytes().repeat(bytes as usize / 8 + 1);
    value.truncate(bytes as usize);
    value
}

#[rdist::task]
fn make(index: u64, bytes: u64) -> Vec<u8> {
    value(index, bytes)
}

/// Reads its arguments in place and says whether they are what they should be.
#[rdist::task]
fn check(left: View<Vec<u8>>, right: View<Vec<u8>>, index: u64) -> u64 {
    let bytes = left.len() as u64;
    let is_right = left[..] == value(index, bytes) && right[..] == value(index + 1, bytes);
    u64::from(is_right)
}

struct Summer(u64);

#[rdist::actor]
impl Summer {
    fn new() -> Self {
        Self(0)
    }

    /// The calls of one caller come in their order, wherever their arguments are.
    fn add(&mut self, index: u64, bytes: View<Vec<u8>>) -> u64 {
        assert_eq!(self.0, index, "out of order");
        assert_eq!(bytes[..], value(index, bytes.len() as u64));
        self.0 += 1;
        self.0
    }

    /// The same of one without an argument that could be on disk.
    fn count(&mut self, index: u64) -> u64 {
        assert_eq!(self.0, index, "out of order");
        self.0 += 1;
        self.0
    }
}

/// So many calls by the worker come before a question for a way past it.
const BEFORE_A_ROUTE: u64 = 3;

/// A call waits for its argument from disk when the next one of the same caller asks for a way to
/// the actor that would lead past it.
async fn in_turn(cx: &Driver, count: u64, bytes: u64) -> Result<()> {
    for _ in 0..10 {
        let late = cx.put(&value(BEFORE_A_ROUTE, bytes))?;
        let others = (0..count).map(|index| cx.put(&value(index, bytes)));
        let others = others.collect::<Result<Vec<_>>>()?;
        let summer = Summer::spawn(cx).await?;
        for index in 0..BEFORE_A_ROUTE {
            summer.count(index).call().await?;
        }
        summer.add(BEFORE_A_ROUTE, &late).send()?;
        let after = BEFORE_A_ROUTE + 1..BEFORE_A_ROUTE + 20;
        let calls: Vec<_> = after.clone().map(|index| summer.count(index).submit()).collect();
        assert_eq!(cx.get_all(&calls)?.last(), Some(&after.end));
        drop(others);
    }
    println!("all in turn");
    Ok(())
}

fn same(what: &str, index: u64, bytes: u64, found: &[u8]) {
    assert!(found == value(index, bytes), "{what} {index} is wrong");
}

/// Puts and makes `count` values of `bytes` each, then reads all of them in several ways.
async fn many(cx: &Driver, count: u64, bytes: u64) -> Result<()> {
    let half = count / 2;
    let mut all: Vec<ObjectRef<Vec<u8>>> = Vec::new();
    for index in 0..half {
        all.push(cx.put(&value(index, bytes))?);
    }
    all.extend((half..count).map(|index| make.submit(cx, index, bytes)));
    cx.wait(all.clone(), all.len(), None)?;
    println!("all made");
    for (index, object) in (0..).zip(&all) {
        same("get", index, bytes, &object.get()?);
    }
    // A view stays where it is while all others come and go.
    let first = all[0].read()?;
    let checks: Vec<_> = (0..count - 1)
        .map(|at| check.submit(cx, &all[at as usize], &all[at as usize + 1], at))
        .collect();
    let right: u64 = cx.get_all(&checks)?.iter().sum();
    assert_eq!(right, count - 1, "arguments are wrong");
    let summer = Summer::spawn(cx).await?;
    let calls: Vec<_> =
        (0..).zip(&all).map(|(index, object)| summer.add(index, object).submit()).collect();
    assert_eq!(calls.last().unwrap().get()?, count);
    same("view", 0, bytes, &first);
    println!("all right: {right}");
    Ok(())
}

/// Takes so much memory, in pieces, and keeps it for a moment.
#[rdist::task]
fn eat(mebibytes: u64) -> u64 {
    let mut eaten = Vec::new();
    for piece in 0..mebibytes {
        eaten.push(vec![piece as u8 | 1; 1 << 20]);
        std::thread::sleep(std::time::Duration::from_micros(200));
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    eaten.len() as u64
}

/// A value that is written where it lies, in shared memory.
#[rdist::task]
fn write_in_place(cx: &Context, bytes: u64) -> Result<ObjectRef<Vec<u8>>> {
    let mut writing = cx.create(bytes as usize)?;
    writing.fill(7);
    Ok(writing.seal())
}

/// The process that it runs in.
#[rdist::task]
fn process() -> u32 {
    std::process::id()
}

struct Eater;

#[rdist::actor]
impl Eater {
    fn new() -> Self {
        Self
    }

    fn eat(&mut self, mebibytes: u64) -> u64 {
        let eaten: Vec<Vec<u8>> = (0..mebibytes).map(|_| vec![1; 1 << 20]).collect();
        std::thread::sleep(std::time::Duration::from_millis(400));
        eaten.len() as u64
    }
}

/// Whether a value is what it should be.
#[rdist::task]
fn holds(found: View<Vec<u8>>, index: u64) -> bool {
    found[..] == value(index, found.len() as u64)
}

/// One value to a task on each of the workers that have `spot0`, `spot1`, ...
async fn broadcast(cx: &Driver, workers: u64, bytes: u64) -> Result<()> {
    let warm = cx.put(&value(1, 10_000))?;
    let object = cx.put(&value(2, bytes))?;
    let to_all = |object: &ObjectRef<Vec<u8>>, index| -> Vec<_> {
        let submit =
            |at| holds.with().resource(&format!("spot{at}"), 1.0).submit(cx, object, index);
        (0..workers).map(submit).collect()
    };
    // Once with a small one, so that programs and processes are there.
    assert!(cx.get_all(&to_all(&warm, 1))?.iter().all(|right| *right));
    let start = std::time::Instant::now();
    assert!(cx.get_all(&to_all(&object, 2))?.iter().all(|right| *right));
    let seconds = start.elapsed().as_secs_f64();
    let gigabytes = (bytes * workers) as f64 / 1e9;
    println!("{bytes} bytes to {workers} workers: {seconds:.3} s, {:.2} GB/s", gigabytes / seconds);
    Ok(())
}

/// The next generation of a value.
#[rdist::task]
fn next(former: View<Vec<u8>>, index: u64) -> Vec<u8> {
    assert_eq!(former[..], value(index - 1, former.len() as u64));
    value(index, former.len() as u64)
}

/// How long a value is: says that it exists, and moves nothing.
#[rdist::task]
fn length(of: View<Vec<u8>>) -> u64 {
    of.len() as u64
}

/// A value whose makers, and theirs, have to run again.
async fn generations(cx: &Driver, file: &str) -> Result<()> {
    const BYTES: u64 = 1_000_000;
    println!("here");
    let first = make.with().resource("spot", 1.0).submit(cx, 0, BYTES);
    let second = next.with().resource("spot", 1.0).submit(cx, &first, 1);
    let third = next.with().resource("spot", 1.0).submit(cx, &second, 2);
    let made = length.with().resource("spot", 1.0).submit(cx, &third);
    assert_eq!(made.await?, BYTES);
    drop((first, second));
    println!("made");
    wait_for(file);
    same("generation", 2, BYTES, &third.get()?);
    println!("made again");
    Ok(())
}

/// Makes a value, and leaves a line in a file each time.
#[rdist::task]
fn noted(log: String, index: u64, bytes: u64) -> Vec<u8> {
    let mut log = std::fs::OpenOptions::new().append(true).create(true).open(log).unwrap();
    std::io::Write::write_all(&mut log, format!("{index}\n").as_bytes()).unwrap();
    value(index, bytes)
}

/// Values that lie on a worker which leaves before they are read.
async fn evacuated(cx: &Driver, file: &str) -> Result<()> {
    const BYTES: u64 = 1_000_000;
    println!("here");
    let log = format!("{file}.log");
    let on_spot = |index| noted.with().resource("spot", 1.0).submit(cx, log.clone(), index, BYTES);
    let made: Vec<_> = (0..5).map(on_spot).collect();
    for object in &made {
        // Read where it lies, so that no copy comes here.
        assert_eq!(length.with().resource("spot", 1.0).submit(cx, object).await?, BYTES);
    }
    println!("made");
    wait_for(file);
    for (index, object) in (0..).zip(&made) {
        same("evacuated", index, BYTES, &object.get()?);
    }
    let runs = std::fs::read_to_string(&log).unwrap().lines().count();
    println!("{} values by {runs} runs", made.len());
    Ok(())
}

/// Puts values where it runs, each in two copies.
#[rdist::task]
fn put_replicated(cx: &Context, sizes: Vec<u64>) -> Result<Vec<ObjectRef<Vec<u8>>>> {
    (0..).zip(sizes).map(|(index, bytes)| cx.put_replicated(&value(index, bytes), 2)).collect()
}

/// Values whose owner is gone before they are read.
async fn replicated(cx: &Driver, file: &str) -> Result<()> {
    const SIZES: [u64; 8] = [3, 100, 1_000, 300_000, 300_000, 300_000, 300_000, 300_000];
    println!("here");
    let made = put_replicated.with().retries(0).resource("spot", 1.0).submit(cx, SIZES.to_vec());
    let all = made.await?;
    println!("made");
    wait_for(file);
    for ((index, object), bytes) in (0..).zip(&all).zip(SIZES) {
        same("replicated", index, bytes, &object.get()?);
    }
    println!("all outlive their owner");
    Ok(())
}

/// Puts values where it runs, and leaves a line in a file each time.
#[rdist::task]
fn put_noted(cx: &Context, log: String, bytes: u64) -> Result<Vec<ObjectRef<Vec<u8>>>> {
    let mut log = std::fs::OpenOptions::new().append(true).create(true).open(log).unwrap();
    std::io::Write::write_all(&mut log, b"put\n").unwrap();
    (0..3).map(|index| cx.put(&value(index, bytes))).collect()
}

/// Values that a task put on a worker which dies before they are read, here and by tasks.
async fn put_again(cx: &Driver, file: &str) -> Result<()> {
    const BYTES: u64 = 300_000;
    println!("here");
    let log = format!("{file}.log");
    let all = put_noted.with().resource("spot", 1.0).submit(cx, log.clone(), BYTES).await?;
    println!("made");
    wait_for(file);
    let right = holds.with().resource("spot", 1.0).submit(cx, &all[0], 0);
    let both = check.with().resource("spot", 1.0).submit(cx, &all[1], &all[2], 1);
    assert!(right.await?);
    assert_eq!(both.await?, 1);
    for (index, object) in (0..).zip(&all) {
        same("put", index, BYTES, &object.get()?);
    }
    let runs = std::fs::read_to_string(&log).unwrap().lines().count();
    println!("all are right after {runs} runs");
    Ok(())
}

fn wait_for(file: &str) {
    while !std::path::Path::new(file).exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Keeps references in its state.
struct Keeper(Vec<ObjectRef<Vec<u8>>>);

#[rdist::actor]
impl Keeper {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn keep(&mut self, more: Vec<ObjectRef<Vec<u8>>>) {
        self.0.extend(more);
    }

    fn read(&self, at: u64) -> Result<Vec<u8>> {
        self.0[at as usize].get()
    }

    fn forget(&mut self) {
        self.0.clear();
    }
}

/// References inside values and inside an actor keep what they refer to, and let go of it.
async fn borrowed(cx: &Driver, file: &str) -> Result<()> {
    const BYTES: u64 = 1_000_000;
    println!("here");
    let keeper = Keeper::with().own_process().resource("spot", 1.0).spawn(cx).await?;
    let kept = cx.put(&value(1, BYTES))?;
    keeper.keep(vec![kept.clone()]).call().await?;
    let inside = cx.put(&value(2, BYTES))?;
    let around = cx.put(&vec![cx.put(&vec![inside.clone()])?])?;
    drop((kept, inside));
    for index in 0..100 {
        same("churn", index, BYTES, &cx.put(&value(index, BYTES))?.get()?);
    }
    same("kept", 1, BYTES, &keeper.read(0).call().await?);
    same("inside", 2, BYTES, &around.get()?[0].get()?[0].get()?);
    keeper.forget().call().await?;
    drop(around);
    // Word of what was dropped goes with the next message.
    process.submit(cx).await?;
    println!("let go");
    wait_for(file);
    Ok(())
}

/// Who takes more than it asked for ends alone.
async fn eaters(cx: &Driver) -> Result<()> {
    let before = process.submit(cx).await?;
    let modest = eat.with().cpus(0.5).memory(200 << 20).retries(0).submit(cx, 20);
    let greedy = eat.with().cpus(0.5).memory(100 << 20).oom_retries(0).submit(cx, 400);
    let error = greedy.await.unwrap_err();
    println!("greedy: {error}");
    assert_eq!(modest.await?, 20);
    let eater = Eater::with().own_process().memory(100 << 20).spawn(cx).await?;
    assert_eq!(eater.eat(10).call().await?, 10);
    let error = eater.eat(400).call().await.unwrap_err();
    println!("eater: {error}");
    // Shared memory is not the task's own.
    let large = write_in_place.with().memory(60 << 20).submit(cx, 100 << 20).await?;
    println!("made {}", large.read()?.len());
    assert_eq!(process.submit(cx).await?, before, "the pool's process has died too");
    println!("the others live");
    Ok(())
}

#[rdist::main]
async fn main(cx: Driver) -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| -> u64 { text.parse().unwrap() };
    match words.as_slice() {
        ["in-turn", count, bytes] => in_turn(&cx, number(count), number(bytes)).await?,
        ["many", count, bytes] => many(&cx, number(count), number(bytes)).await?,
        ["fill", count, bytes] => {
            let mut kept = Vec::new();
            for index in 0..number(count) {
                match cx.put(&value(index, number(bytes))) {
                    Ok(object) => kept.push(object),
                    Err(error) => {
                        println!("after {index}: {error}");
                        break;
                    }
                }
            }
            for (index, object) in (0..).zip(&kept) {
                same("get", index, number(bytes), &object.get()?);
            }
            println!("{} are right", kept.len());
        }
        ["generations", file] => generations(&cx, file).await?,
        ["evacuated", file] => evacuated(&cx, file).await?,
        ["put-again", file] => put_again(&cx, file).await?,
        ["replicated", file] => replicated(&cx, file).await?,
        ["borrowed", file] => borrowed(&cx, file).await?,
        ["broadcast", workers, bytes] => broadcast(&cx, number(workers), number(bytes)).await?,
        ["eaters"] => eaters(&cx).await?,
        // Waits until the file is there before it reads what it made.
        ["damaged", count, bytes, file] => {
            let (count, bytes) = (number(count), number(bytes));
            let all: Vec<_> = (0..count).map(|index| make.submit(&cx, index, bytes)).collect();
            cx.wait(all.clone(), all.len(), None)?;
            println!("made");
            wait_for(file);
            let checks: Vec<_> = (0..count - 1)
                .map(|at| check.submit(&cx, &all[at as usize], &all[at as usize + 1], at))
                .collect();
            let right: u64 = cx.get_all(&checks)?.iter().sum();
            for (index, object) in (0..).zip(&all) {
                same("get", index, bytes, &object.get()?);
            }
            println!("all right: {right}");
        }
        other => return Err(Error::Refused(format!("unknown arguments {other:?}"))),
    }
    Ok(())
}

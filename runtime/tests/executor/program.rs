//! The program that the tests run: its tasks, its actors, and one driver for each scenario.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rdist::__private::{Failure, drive};
use rdist::prelude::*;
use rdist::scheduler::outcome::{Cause, TaskError};

use crate::concurrency;

pub(crate) const SCENARIO: &str = "RDIST_TEST_SCENARIO";

pub(crate) fn main_of_scenario(cx: Driver) -> std::result::Result<(), Failure> {
    match std::env::var(SCENARIO).unwrap_or_default().as_str() {
        "tasks" => tasks(&cx)?,
        "errors" => errors(&cx),
        "large" => large(&cx)?,
        "nested_references" => nested_references(&cx)?,
        "covered_references" => covered_references(&cx)?,
        "actors" => drive(&cx, actors(&cx))??,
        "threaded" => concurrency::threaded(&cx)?,
        "futures" => drive(&cx, concurrency::futures(&cx))??,
        "nested_tasks" => assert_eq!(fib.submit(&cx, 9_u32).get()?, 34),
        "async_driver" => drive(&cx, async_driver(&cx))??,
        "cancel" => cancel(&cx),
        "wait" => wait(&cx)?,
        "threads" => threads(&cx),
        "burst" => burst(&cx)?,
        "waves" => concurrency::waves(&cx)?,
        "events" => cx.emit(&serde_json::json!({ "epoch": 1, "loss": 0.5 })),
        "fails" => return Err(Failure::Returned("x".parse::<u8>().unwrap_err().to_string())),
        other => panic!("no scenario {other:?}"),
    }
    Ok(())
}

#[rdist::value]
#[derive(Debug, Clone, PartialEq)]
struct Point {
    x: f64,
    name: String,
}

#[rdist::task]
fn square(x: u64) -> u64 {
    x * x
}

/// Adds.
#[rdist::task]
fn add(a: u64, b: u64) -> u64 {
    a + b
}

#[rdist::task]
fn shift(mut point: Point, (dx, suffix): (f64, String)) -> Point {
    point.x += dx;
    point.name.push_str(&suffix);
    point
}

#[rdist::task]
async fn later(x: u64) -> u64 {
    std::future::ready(x + 1).await
}

#[rdist::task]
fn nothing() {}

fn tasks(cx: &Context) -> Result<()> {
    assert_eq!(square.submit(cx, 7).get()?, 49);
    let parts: Vec<_> = (0..100).map(|x| square.submit(cx, x)).collect();
    let mut sum = cx.put(&0_u64)?;
    for part in &parts {
        sum = add.submit(cx, sum, part);
    }
    assert_eq!(sum.get()?, (0..100).map(|x| x * x).sum::<u64>());
    let point = Point { x: 1.5, name: "p".to_owned() };
    let moved = shift.with().cpus(0.5).priority(3).submit(cx, &point, (1.0, "q".to_owned()));
    assert_eq!(moved.get()?, Point { x: 2.5, name: "pq".to_owned() });
    let chained = shift.submit(cx, &moved, (1.0, String::new()));
    assert_eq!(chained.read()?.name, "pq");
    assert_eq!(later.submit(cx, square.submit(cx, 3)).get()?, 10);
    nothing.submit(cx).get()?;
    assert_eq!(square.run_here(3), 9);
    assert_eq!(cx.get_all(&parts)?, (0..100).map(|x| x * x).collect::<Vec<u64>>());
    let ids: Vec<_> = parts.iter().map(ObjectRef::id).collect();
    assert!(ids.windows(2).all(|pair| pair[0] != pair[1]));
    Ok(())
}

#[derive(Debug, thiserror::Error)]
#[error("no such number")]
struct NoSuchNumber(#[source] std::num::ParseIntError);

#[rdist::task]
fn parse(text: String) -> std::result::Result<u32, NoSuchNumber> {
    text.parse().map_err(NoSuchNumber)
}

#[rdist::task]
fn parse_loosely(text: String) -> anyhow::Result<u32> {
    anyhow::Context::context(text.parse(), "while reading it")
}

#[rdist::task]
fn panics(number: u32) -> u32 {
    assert!(number != 13, "{number} is unlucky");
    number
}

#[rdist::task]
fn passes_on(cx: &Context) -> Result<u32> {
    panics.submit(cx, 13_u32).get()
}

pub(crate) fn failure_of<T: rdist::Value + std::fmt::Debug>(object: &ObjectRef<T>) -> TaskError {
    match object.get() {
        Err(Error::Task(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn errors(cx: &Context) {
    assert_eq!(parse.submit(cx, "12").get().unwrap(), 12);
    let bad = parse.submit(cx, "x");
    let wanted = "no such number: invalid digit found in string".to_owned();
    assert_eq!(failure_of(&bad).cause, Cause::Returned { message: wanted });
    let wanted = "while reading it: invalid digit found in string".to_owned();
    let loose = parse_loosely.submit(cx, "x");
    assert_eq!(failure_of(&loose).cause, Cause::Returned { message: wanted });

    let unlucky = panics.submit(cx, 13_u32);
    let Cause::Panicked { message } = failure_of(&unlucky).cause else { panic!() };
    assert!(message.starts_with("13 is unlucky\nat "), "{message}");
    assert!(message.contains("program.rs:") && message.contains("panics_task"), "{message}");
    // Whoever depends on it gets its error, and so does whoever passes it on.
    assert_eq!(failure_of(&panics.submit(cx, &unlucky)).task, unlucky.id().task);
    let passed = passes_on.submit(cx);
    let error = failure_of(&passed);
    assert_ne!(error.task, passed.id().task);
    assert!(matches!(error.cause, Cause::Panicked { .. }), "{error}");
    // The process goes on.
    assert_eq!(panics.submit(cx, 12_u32).get().unwrap(), 12);
}

#[rdist::task]
fn ramp(n: u32) -> Vec<f32> {
    (0..n).map(|x| x as f32).collect()
}

#[rdist::task]
fn total_of(data: View<Vec<f32>>) -> f64 {
    data.iter().map(|x| f64::from(x.to_native())).sum()
}

#[rdist::task]
fn address(data: View<Vec<u8>>) -> (u64, u64) {
    (data.as_ptr() as u64 % 64, data.iter().map(|x| u64::from(*x)).sum())
}

const LARGE: u32 = 1 << 18;

fn large(cx: &Context) -> Result<()> {
    let wanted: f64 = (0..LARGE).map(f64::from).sum();
    // Far more bytes than the arena has: space comes back.
    for _ in 0..200 {
        let made = ramp.submit(cx, LARGE);
        let total = total_of.submit(cx, &made);
        assert_eq!(total.get()?, wanted);
        let here = made.read()?;
        assert_eq!((here.len(), here[77].to_native()), (LARGE as usize, 77.0));
    }
    let put = cx.put(&vec![2.0_f32; 10_000])?;
    assert_eq!(total_of.submit(cx, &put).get()?, 20_000.0);
    assert_eq!(total_of.submit(cx, vec![1.0; 5_000]).get()?, 5_000.0);

    for len in [0, 1, 100, 10_001] {
        let mut writing = cx.create(len)?;
        writing.fill(3);
        let object = writing.seal();
        assert_eq!(object.get()?, vec![3; len]);
        let (misaligned, total) = address.submit(cx, &object).get()?;
        assert_eq!(total, 3 * len as u64);
        assert!(len < 10_000 || misaligned == 0);
    }
    // A view outlives its reference.
    let view = ramp.submit(cx, 5_000_u32).read()?;
    assert_eq!(view.to_owned_value()?, ramp.run_here(5_000));
    Ok(())
}

#[rdist::value]
#[derive(Debug)]
struct Tree {
    label: String,
    leaves: Vec<ObjectRef<u64>>,
}

#[rdist::task]
fn grow(cx: &Context, n: u64) -> Result<Tree> {
    let leaves = (0..n).map(|x| square.submit(cx, x)).collect();
    Ok(Tree { label: format!("{n} leaves"), leaves })
}

#[rdist::task]
fn harvest(cx: &Context, tree: Tree) -> Result<u64> {
    Ok(cx.get_all(&tree.leaves)?.iter().sum())
}

#[rdist::task]
fn first_leaf(tree: View<Tree>) -> Result<u64> {
    tree.leaves[0].to_ref()?.get()
}

#[rdist::task]
fn same(object: ObjectRef<u64>) -> ObjectRef<u64> {
    object
}

fn nested_references(cx: &Context) -> Result<()> {
    let tree = grow.submit(cx, 10);
    assert_eq!(harvest.submit(cx, &tree).get()?, 285);
    assert_eq!(first_leaf.submit(cx, &tree).get()?, 0);
    let here = tree.get()?;
    assert_eq!(here.label, "10 leaves");
    drop(tree);
    assert_eq!(here.leaves[9].get()?, 81);
    let one = here.leaves[3].clone();
    drop(here);
    // A reference as a value: it is passed on, not what it stands for.
    let twice = same.submit(cx, cx.put(&one)?).get()?;
    assert_eq!(twice, one);
    assert_eq!(twice.get()?, 9);
    // Inside an argument, and nowhere else.
    let tree = Tree { label: String::new(), leaves: vec![square.submit(cx, 5)] };
    assert_eq!(harvest.submit(cx, tree).get()?, 25);
    Ok(())
}

/// Leaves in the tree that is read again and again.
pub(crate) const LEAVES: u64 = 500;

fn covered_references(cx: &Context) -> Result<()> {
    let tree = grow.submit(cx, LEAVES);
    for _ in 0..20 {
        assert_eq!(tree.get()?.leaves.len(), LEAVES as usize);
    }
    // Those that are used, passed on, put, and kept beyond the tree.
    let mut leaves = tree.get()?.leaves;
    assert_eq!(leaves[7].get()?, 49);
    assert_eq!(add.submit(cx, &leaves[2], &leaves[3]).get()?, 13);
    let put = cx.put(&leaves[4])?;
    let again = tree.get()?.leaves;
    assert_eq!(again[7], leaves[7]);
    drop(again);
    let kept = leaves.split_off(LEAVES as usize - 2);
    drop((leaves, tree));
    assert_eq!(put.get()?.get()?, 16);
    let last = LEAVES - 1;
    assert_eq!(cx.get_all(&kept)?, [(last - 1) * (last - 1), last * last]);
    // The same from several threads at once, each of which lets go of the tree when it likes.
    let tree = grow.submit(cx, 50);
    std::thread::scope(|scope| {
        for leaf in 0..8_u64 {
            let (tree, cx) = (tree.clone(), cx.clone());
            scope.spawn(move || {
                let mut leaves = tree.get().unwrap().leaves;
                drop(tree);
                let leaf_ref = leaves.swap_remove(leaf as usize);
                drop(leaves);
                assert_eq!(square.submit(&cx, &leaf_ref).get().unwrap(), leaf.pow(4));
            });
        }
    });
    Ok(())
}

struct Counter {
    total: u64,
    kept: Option<View<Vec<f32>>>,
    peer: Option<ActorHandle<Self>>,
}

#[rdist::actor]
impl Counter {
    fn new(start: u64) -> std::result::Result<Self, String> {
        if start > 1_000 {
            return Err("starts too high".to_owned());
        }
        Ok(Self { total: start, kept: None, peer: None })
    }

    /// Adds, and returns the total.
    fn add(&mut self, by: u64) -> u64 {
        self.total += by;
        self.total
    }

    fn fail(&self, why: String) -> Result<u64, String> {
        Err(why)
    }

    fn burst(&mut self) {
        panic!("at {}", self.total);
    }

    fn keep(&mut self, data: View<Vec<f32>>) {
        self.kept = Some(data);
    }

    fn kept(&self) -> f64 {
        self.kept.iter().flat_map(|data| data.iter()).map(|x| f64::from(x.to_native())).sum()
    }

    fn forget(&mut self) {
        self.kept = None;
    }

    fn meet(&mut self, peer: ActorHandle<Self>) {
        self.peer = Some(peer);
    }

    fn add_to_peer(&self, by: u64) -> Result<u64> {
        self.peer.as_ref().expect("met").add(by).call().get()
    }
}

async fn actors(cx: &Context) -> Result<()> {
    let counter = Counter::spawn(cx, 5).await?;
    for x in 0..200 {
        counter.add(square.submit(cx, x)).send()?;
    }
    let total = 5 + (0..200).map(|x| x * x).sum::<u64>();
    assert_eq!(counter.add(0).call().await?, total);
    assert_eq!(square.submit(cx, counter.add(0).submit()).await?, total * total);

    let Err(Error::Task(error)) = counter.fail("no".to_owned()).call().await else { panic!() };
    assert_eq!(error.cause, Cause::Returned { message: "no".to_owned() });
    let Err(Error::Task(error)) = counter.burst().call().await else { panic!() };
    let Cause::Panicked { message } = error.cause else { panic!() };
    assert!(message.starts_with(&format!("at {total}\nat ")), "{message}");
    assert_eq!(counter.add(1).call().await?, total + 1, "it lives on");

    let data = ramp.submit(cx, 100_000_u32);
    counter.keep(&data).call().await?;
    drop(data);
    assert_eq!(counter.kept().call().await?, (0..100_000).map(f64::from).sum::<f64>());
    counter.forget().send()?;

    let named = Counter::with().own_process().max_restarts(1).name("second").spawn(cx, 7).await?;
    assert_eq!(named_actor::<Counter>("second")?, named);
    assert!(matches!(named_actor::<Counter>("third"), Err(Error::NoSuchActor(_))));
    counter.meet(&named).call().await?;
    assert_eq!(counter.add_to_peer(3).call().await?, 10);
    named.kill()?;

    let Err(Error::Task(error)) = Counter::spawn(cx, 2_000).await else { panic!() };
    assert_eq!(error.cause, Cause::Returned { message: "starts too high".to_owned() });
    Ok(())
}

#[rdist::task]
fn fib(cx: &Context, n: u32) -> Result<u64> {
    if n < 2 {
        std::thread::sleep(Duration::from_millis(1));
        return Ok(u64::from(n));
    }
    let (a, b) = (fib.submit(cx, n - 1), fib.submit(cx, n - 2));
    Ok(a.get()? + b.get()?)
}

async fn async_driver(cx: &Context) -> Result<()> {
    let mut last = 0;
    for x in 0..1_000 {
        last = add.submit(cx, last, x).await?;
    }
    assert_eq!(last, 499_500);
    let timer = tokio::time::sleep(Duration::from_millis(5));
    let (_, squared) = tokio::join!(timer, square.submit(cx, 4).into_future());
    assert_eq!(squared?, 16);
    // On the runtime's own thread the driver is the current task, too.
    let elsewhere = tokio::spawn(async { square.submit(&Context::current()?, 5).await });
    assert_eq!(elsewhere.await.unwrap()?, 25);
    Ok(())
}

#[rdist::task]
fn waits_for_the_end(cx: &Context) -> u32 {
    while !cx.is_cancelled() {
        std::thread::yield_now();
    }
    7
}

#[rdist::task]
fn never(cx: &Context) -> Result<u32> {
    let child = waits_for_the_end.submit(cx);
    child.get().inspect_err(|_| cx.cancel(&child, false))
}

fn cancel(cx: &Context) {
    let waiting = waits_for_the_end.submit(cx);
    let depends = panics.submit(cx, &waiting);
    assert!(waiting.get_within(Duration::from_millis(20)).is_err());
    cx.cancel(&depends, false);
    assert_eq!(failure_of(&depends).cause, Cause::Cancelled);
    cx.cancel(&waiting, false);
    assert_eq!(waiting.get().unwrap(), 7, "a task may finish what it has");
    let blocked = never.submit(cx);
    assert!(blocked.get_within(Duration::from_millis(20)).is_err());
    cx.cancel(&blocked, false);
    assert_eq!(failure_of(&blocked).cause, Cause::Cancelled);
}

fn wait(cx: &Context) -> Result<()> {
    let slow = waits_for_the_end.submit(cx);
    let quick: Vec<_> = (1..4_u32).map(|x| panics.submit(cx, x)).collect();
    let mut all = vec![slow.clone()];
    all.extend(quick);
    let (ready, rest) = cx.wait(all.clone(), 3, None)?;
    assert_eq!((ready.len(), rest.len()), (3, 1));
    assert_eq!(rest[0], slow);
    let limit = Some(Duration::from_millis(10));
    let (ready, rest) = cx.wait(all.clone(), 4, limit)?;
    assert_eq!((ready.len(), rest.len()), (3, 1));
    let (ready, rest) = cx.wait(all.clone(), 1, limit)?;
    assert_eq!((ready.len(), rest.len()), (1, 3));
    assert!(matches!(slow.get_within(Duration::from_millis(1)), Err(Error::Timeout(_))));
    cx.cancel(&slow, false);
    assert_eq!(cx.wait(all, 9, None)?.0.len(), 4);
    Ok(())
}

fn threads(cx: &Context) {
    let done = AtomicU32::new(0);
    let shared = square.submit(cx, 11);
    std::thread::scope(|scope| {
        for thread in 0..6_u64 {
            let (done, shared) = (&done, &shared);
            scope.spawn(move || {
                for x in 0..300 {
                    let sum = add.submit(cx, shared, x * thread);
                    assert_eq!(sum.get().unwrap(), 121 + x * thread);
                    let copy = cx.put(&vec![x; 3]).unwrap();
                    assert_eq!(copy.get().unwrap(), [x; 3]);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(done.into_inner(), 1_800);
}

#[rdist::task]
fn length(text: String) -> u64 {
    text.len() as u64
}

fn burst(cx: &Context) -> Result<()> {
    let text = "x".repeat(3_000);
    let all: Vec<_> = (0..3_000).map(|_| length.submit(cx, &text)).collect();
    assert_eq!(cx.get_all(&all)?.iter().sum::<u64>(), 9_000_000);
    Ok(())
}

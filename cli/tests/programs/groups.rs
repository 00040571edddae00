//! Placement by groups and by labels, and jobs beside each other, for the end-to-end tests: where
//! things run is told by their worker's process.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::time::Duration;

use rdist::label;
use rdist::prelude::*;

/// The worker daemon that runs this.
fn host() -> u32 {
    std::os::unix::process::parent_id()
}

#[rdist::task]
fn place() -> u32 {
    host()
}

#[rdist::task]
fn place_in(group: PlacementGroup) -> Result<u32> {
    place.with().placement_group(&group, 1).submit(&Context::current()?).get()
}

/// Runs until the file is there; how many of its kind run at a time is for others to count.
#[rdist::task]
fn holds(file: String) -> u32 {
    println!("running {}", std::process::id());
    while !Path::new(&file).exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    host()
}

#[rdist::task]
fn sleeps(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

struct Place;

#[rdist::actor]
impl Place {
    fn new() -> Self {
        Self
    }

    fn host(&self) -> u32 {
        host()
    }
}

/// Two bundles on two workers; tasks and actors go where their bundle is.
fn apart(cx: &Context) -> Result<()> {
    let bundles = [Bundle::cpus(1.0), Bundle::cpus(1.0)];
    let group = cx.placement_group(bundles, GroupStrategy::StrictSpread);
    let early = place.with().placement_group(&group, 0).submit(cx);
    group.ready().get()?;
    let first = early.get()?;
    let second = place.with().placement_group(&group, 1).submit(cx).get()?;
    assert_ne!(first, second, "bundles that lie apart");
    assert_eq!(place_in.with().cpus(0.0).submit(cx, group.clone()).get()?, second);
    let actor = Place::with().cpus(0.5).placement_group(&group, 1).spawn(cx).get()?;
    assert_eq!(actor.host().call().get()?, second);
    let any = |_| place.with().cpus(0.5).any_bundle(&group).submit(cx);
    let hosts = cx.get_all(&(0..20).map(any).collect::<Vec<_>>())?;
    assert!(hosts.contains(&first) && hosts.contains(&second), "any bundle: {hosts:?}");

    let none = place.with().placement_group(&group, 2).submit(cx).get().unwrap_err().to_string();
    assert!(none.contains("has bundles 0 to 1, not 2"), "{none}");
    let large = place.with().cpus(2.0).any_bundle(&group).submit(cx).get().unwrap_err();
    assert!(large.to_string().contains("needs 2 CPU"), "{large}");
    group.remove()?;
    assert!(actor.host().call().get().is_err(), "an actor ends with its group");
    let late = place.with().placement_group(&group, 1).submit(cx).get().unwrap_err().to_string();
    assert!(late.contains("was removed"), "{late}");
    println!("apart {first} {second}");
    Ok(())
}

/// What a group holds, nothing else can have; when it is back, others can.
fn exclusive(cx: &Context) -> Result<()> {
    let whole = cx.placement_group([Bundle::cpus(4.0)], GroupStrategy::Pack);
    assert!(!whole.wait(Duration::from_millis(100))?, "no worker has four CPUs");
    whole.remove()?;
    let removed = whole.ready().get().unwrap_err().to_string();
    assert!(removed.contains("was removed"), "{removed}");

    let bundles = || (0..4).map(|_| Bundle::cpus(1.0));
    let all = cx.placement_group(bundles(), GroupStrategy::Pack);
    all.ready().get()?;
    let outside = place.submit(cx);
    let another = cx.placement_group(bundles(), GroupStrategy::Spread);
    assert!(outside.get_within(Duration::from_millis(200)).is_err(), "every CPU is reserved");
    assert!(!another.wait(Duration::ZERO)?);
    place.with().placement_group(&all, 3).submit(cx).get()?;
    all.remove()?;
    another.ready().get()?;
    another.remove()?;
    outside.get()?;
    let empty = cx.placement_group([], GroupStrategy::Pack).ready().get().unwrap_err().to_string();
    assert!(empty.contains("1 to"), "{empty}");
    println!("exclusive");
    Ok(())
}

/// Tasks and actors go where labels say; what is preferred gives way.
fn labels(cx: &Context) -> Result<()> {
    let at = |placement: Placement| place.with().strategy(placement).submit(cx);
    let a = at(Placement::labels([label("zone").is("a")])).get()?;
    let b = at(Placement::labels([label("zone").is_not("a"), label("disk").exists()])).get()?;
    assert_ne!(a, b);
    let neither = [label("zone").none_of(["b", "c"]), label("disk").is_absent()];
    assert_eq!(at(Placement::labels(neither)).get()?, a);
    let rather = |zone: &str| Placement::labels([]).preferring([label("zone").is(zone)]);
    assert_eq!(cx.get_all(&[at(rather("a")), at(rather("b"))])?, [a, b]);
    assert!([a, b].contains(&at(rather("z")).get()?), "a preference that nobody meets");
    let actor = Place::with().strategy(Placement::labels([label("disk").one_of(["ssd", "nvme"])]));
    assert_eq!(actor.spawn(cx).get()?.host().call().get()?, b);
    let many: Vec<_> = (0..8).map(|_| at(Placement::labels([label("zone").is("b")]))).collect();
    assert_eq!(cx.get_all(&many)?, [b; 8]);
    println!("labels {a} {b} 0");
    at(Placement::labels([label("zone").is("nowhere")])).get().map(drop)
}

/// A group that outlives a worker: says where its bundles are, now and once the file is there.
async fn moved(cx: &Context, file: &str) -> Result<()> {
    let bundles = [Bundle::cpus(1.0), Bundle::cpus(1.0)];
    let group = cx.named_placement_group("pair", bundles, GroupStrategy::StrictSpread).await?;
    let actor = Place::with().max_restarts(1).placement_group(&group, 0);
    let actor = actor.cpus(0.5).spawn(cx).await?;
    let at = |n| place.with().cpus(0.5).placement_group(&group, n).submit(cx);
    println!("placed {} {} {}", at(0).await?, at(1).await?, host());
    while !Path::new(file).exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let (first, second) = (at(0).await?, at(1).await?);
    // A call of an actor that is lost meanwhile fails; it is another one's turn to retry calls.
    let lives = loop {
        match actor.host().call().await {
            Ok(host) => break host,
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    println!("then {first} {second} {lives}");
    group.remove()
}

#[rdist::main]
async fn main(cx: Driver) -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["apart"] => apart(&cx),
        ["exclusive"] => exclusive(&cx),
        ["labels"] => labels(&cx),
        ["sleep", tasks, millis] => {
            let millis: u64 = millis.parse().unwrap();
            let tasks = 0..tasks.parse::<u64>().unwrap();
            let tasks: Vec<_> = tasks.map(|_| sleeps.submit(&cx, millis)).collect();
            tasks[0].get()?;
            println!("begun");
            cx.get_all(&tasks).map(drop)
        }
        ["moved", file] => moved(&cx, file).await,
        ["holds", file] => {
            let group = cx.placement_group([Bundle::cpus(1.0)], GroupStrategy::Pack).await?;
            let run = |_| holds.with().placement_group(&group, 0).submit(&cx, (*file).to_owned());
            cx.get_all(&(0..2).map(run).collect::<Vec<_>>()).map(drop)
        }
        other => Err(Error::Refused(format!("unknown arguments {other:?}"))),
    }
}

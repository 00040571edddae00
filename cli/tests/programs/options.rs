//! What the options of tasks and actors change, for the end-to-end tests: one scenario for each
//! argument, which checks everything itself and prints `ok`.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rdist::WorkerId;
use rdist::prelude::*;
use rdist::scheduler::outcome::Cause;

#[rdist::main]
async fn main(cx: Driver) -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder = arguments.get(1).cloned().unwrap_or_default();
    match arguments.first().map(String::as_str) {
        Some("places") => places(&cx, &folder)?,
        Some("bundles") => bundles(&cx, &folder, &arguments[2..])?,
        Some("order") => order(&cx, &folder)?,
        Some("memory") => memory(&cx)?,
        Some("concurrency") => concurrency(&cx, &folder).await?,
        other => return Err(Error::Refused(format!("no scenario {other:?}"))),
    }
    println!("ok");
    Ok(())
}

fn wait_for(file: &Path) {
    while !file.exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Files that release what waits for them, one by one.
struct Gates<'a> {
    folder: &'a str,
    next: u32,
}

impl Gates<'_> {
    fn shut(&mut self) -> String {
        self.next += 1;
        Path::new(self.folder).join(format!("gate-{}", self.next)).display().to_string()
    }
}

fn open(gate: &str) {
    std::fs::write(gate, "").unwrap();
}

/// Says where it runs.
#[rdist::task]
fn place(cx: &Context) -> WorkerId {
    cx.worker_id()
}

/// Says where it runs, once the file is there.
#[rdist::task]
fn stays(cx: &Context, gate: String) -> WorkerId {
    wait_for(Path::new(&gate));
    cx.worker_id()
}

/// The same, and leaves a file when it begins.
#[rdist::task]
fn occupies(cx: &Context, begun: String, gate: String) -> WorkerId {
    open(&begun);
    wait_for(Path::new(&gate));
    cx.worker_id()
}

#[rdist::task]
fn large() -> Vec<u8> {
    vec![7; 4_000_000]
}

#[rdist::task]
fn place_of_reader(cx: &Context, value: View<Vec<u8>>) -> WorkerId {
    assert_eq!(value.len(), 4_000_000);
    cx.worker_id()
}

/// Three workers with two CPUs each.
fn places(cx: &Context, folder: &str) -> Result<()> {
    let mut gates = Gates { folder, next: 0 };
    let here = cx.worker_id();
    let gate = gates.shut();
    let spread = stays.with().strategy(Placement::SPREAD);
    let spread: Vec<_> = (0..3).map(|_| spread.clone().submit(cx, gate.clone())).collect();
    open(&gate);
    let all: BTreeSet<WorkerId> = cx.get_all(&spread)?.into_iter().collect();
    assert_eq!(all.len(), 3, "spread over {all:?}");
    let other = |n: usize| *all.iter().filter(|worker| **worker != here).nth(n).unwrap();

    assert_eq!(cx.get_all(&[place.submit(cx), place.submit(cx)])?, [here; 2], "it packs");
    for worker in &all {
        let near = place.with().strategy(Placement::near(*worker)).submit(cx);
        assert_eq!(near.get()?, *worker);
    }
    let nowhere = place.with().strategy(Placement::near(WorkerId(999))).submit(cx);
    assert!(all.contains(&nowhere.get()?), "a preference gives way");

    // Where there is no room here, it goes where its argument is.
    for n in [0, 1] {
        let value = large.with().strategy(Placement::on(other(n))).submit(cx);
        cx.wait(vec![value.clone()], 1, None)?;
        let gate = gates.shut();
        let begun: Vec<String> = (0..2).map(|_| gates.shut()).collect();
        let fill = |begun: &String| occupies.submit(cx, begun.clone(), gate.clone());
        let full: Vec<_> = begun.iter().map(fill).collect();
        begun.iter().for_each(|file| wait_for(Path::new(file)));
        assert_eq!(place_of_reader.submit(cx, &value).get()?, other(n));
        open(&gate);
        assert_eq!(cx.get_all(&full)?, [here; 2]);
    }
    Ok(())
}

/// So many bundles of so many CPUs are on so many workers; none: they do not fit.
fn bundles(cx: &Context, strategy: &str, numbers: &[String]) -> Result<()> {
    let strategy = match strategy {
        "pack" => GroupStrategy::Pack,
        "spread" => GroupStrategy::Spread,
        "strict-pack" => GroupStrategy::StrictPack,
        _ => GroupStrategy::StrictSpread,
    };
    let [count, cpus, workers] = numbers else { panic!("{numbers:?}") };
    let count: u32 = count.parse().unwrap();
    let all = (0..count).map(|_| Bundle::cpus(cpus.parse().unwrap()));
    let group = cx.placement_group(all, strategy);
    let workers: usize = workers.parse().unwrap();
    if workers == 0 {
        assert!(!group.wait(Duration::from_millis(200))?, "there is no room like that");
        return group.remove();
    }
    group.ready().get()?;
    let at = |n| place.with().placement_group(&group, n).submit(cx);
    let places = cx.get_all(&(0..count).map(at).collect::<Vec<_>>())?;
    let found: BTreeSet<WorkerId> = places.into_iter().collect();
    assert_eq!(found.len(), workers, "they are on {found:?}");
    group.remove()
}

#[rdist::task]
fn writes_down(file: String, word: String) {
    use std::io::Write as _;
    let mut file = std::fs::File::options().append(true).create(true).open(file).unwrap();
    file.write_all(format!("{word} ").as_bytes()).unwrap();
}

/// Waits for a child that leaves a file behind.
#[rdist::task]
fn parent(cx: &Context, gate: String, left: String) -> Result<()> {
    child.submit(cx, gate, left).get()
}

#[rdist::task]
fn child(gate: String, left: String) {
    std::fs::write(format!("{left}-begun"), "").unwrap();
    wait_for(Path::new(&gate));
    std::fs::write(left, "").unwrap();
}

/// One worker with one CPU.
fn order(cx: &Context, folder: &str) -> Result<()> {
    let mut gates = Gates { folder, next: 0 };
    let (gate, file) = (gates.shut(), gates.shut());
    let first = stays.submit(cx, gate.clone());
    let write = |priority: i32, word: &str| {
        let task = writes_down.with().priority(priority);
        task.submit(cx, file.clone(), word.to_owned())
    };
    let written = [
        write(0, "usual"),
        write(-5, "late"),
        write(7, "urgent"),
        write(0, "usual-too"),
        write(7, "urgent-too"),
    ];
    open(&gate);
    first.get()?;
    cx.get_all(&written)?;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "urgent urgent-too usual usual-too late ");
    // Cancelled alone, it leaves its child running.
    let (gate, left) = (gates.shut(), gates.shut());
    let waiting = parent.submit(cx, gate.clone(), left.clone());
    wait_for(Path::new(&format!("{left}-begun")));
    cx.cancel_alone(&waiting, false);
    let Err(Error::Task(error)) = waiting.get() else { panic!("{waiting:?} was cancelled") };
    assert_eq!(error.cause, Cause::Cancelled);
    open(&gate);
    wait_for(Path::new(&left));
    Ok(())
}

/// Takes more than it asked for, at its first tries.
#[rdist::task]
fn greedy(cx: &Context, good_from: u32) -> u32 {
    if cx.attempt() < good_from {
        let mut eaten = Vec::new();
        for piece in 0..400_u64 {
            eaten.push(vec![piece as u8 | 1; 1 << 20]);
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(Duration::from_secs(10));
        drop(eaten);
    }
    cx.attempt()
}

/// Deaths for want of memory are counted apart.
fn memory(cx: &Context) -> Result<()> {
    let task = greedy.with().memory(100 << 20).retries(0).oom_retries(2);
    assert_eq!(task.clone().submit(cx, 2_u32).get()?, 2);
    let task = greedy.with().memory(100 << 20).retries(9).oom_retries(0);
    let Err(Error::Task(error)) = task.submit(cx, 1_u32).get() else { panic!("it was killed") };
    assert!(error.to_string().contains("memory"), "{error}");
    Ok(())
}

/// Up to four calls at a time, and one of the group `desk` beside them.
#[derive(Default)]
struct Office {
    inside: AtomicU32,
    most: AtomicU32,
}

#[rdist::actor(max_concurrency = 4, concurrency_groups(desk = 1))]
impl Office {
    fn new() -> Self {
        Self::default()
    }

    fn visit(&self, gate: String) {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        wait_for(Path::new(&gate));
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }

    #[concurrency_group(desk)]
    fn inside(&self) -> u32 {
        self.inside.load(Ordering::SeqCst)
    }

    #[concurrency_group(desk)]
    fn most(&self) -> u32 {
        self.most.load(Ordering::SeqCst)
    }

    #[concurrency_group(desk)]
    fn process(&self) -> u32 {
        std::process::id()
    }
}

/// Its calls end when enough of them are in flight.
#[derive(Default)]
struct Meeting {
    here: AtomicU32,
}

#[rdist::actor]
impl Meeting {
    fn new() -> Self {
        Self::default()
    }

    async fn attend(&self, wanted: u32) -> u32 {
        self.here.fetch_add(1, Ordering::SeqCst);
        while self.here.load(Ordering::SeqCst) < wanted {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        wanted
    }
}

#[derive(Default)]
struct Ordered(Vec<u32>);

#[rdist::actor]
impl Ordered {
    fn new() -> Self {
        Self::default()
    }

    fn note(&mut self, n: u32) -> Vec<u32> {
        self.0.push(n);
        self.0.clone()
    }
}

#[derive(Default)]
struct Loose(Vec<u32>);

#[rdist::actor(allow_out_of_order)]
impl Loose {
    fn new() -> Self {
        Self::default()
    }

    fn note(&mut self, n: u32) -> Vec<u32> {
        self.0.push(n);
        self.0.clone()
    }
}

#[rdist::task]
fn one_later(gate: String) -> u32 {
    wait_for(Path::new(&gate));
    1
}

/// Actors here and on another worker, which has `second`.
async fn concurrency(cx: &Context, folder: &str) -> Result<()> {
    let mut gates = Gates { folder, next: 0 };
    for second in [0.0, 0.1] {
        let gate = gates.shut();
        let office = Office::with().resource("second", second).spawn(cx).await?;
        let visits: Vec<_> = (0..9).map(|_| office.visit(gate.clone()).submit()).collect();
        while office.inside().call().await? < 4 {}
        open(&gate);
        cx.get_all(&visits)?;
        assert_eq!(office.most().call().await?, 4);

        let meeting = Meeting::with().resource("second", second).spawn(cx).await?;
        let attended: Vec<_> = (0..200).map(|_| meeting.attend(200).submit()).collect();
        assert_eq!(cx.get_all(&attended)?, [200; 200]);

        let gate = gates.shut();
        let late = one_later.submit(cx, gate.clone());
        let ordered = Ordered::with().resource("second", second).spawn(cx).await?;
        let loose = Loose::with().resource("second", second).spawn(cx).await?;
        let kept = [ordered.note(&late).submit(), ordered.note(2).submit()];
        let free = [loose.note(&late).submit(), loose.note(2).submit()];
        assert_eq!(free[1].get()?, [2], "it does not wait for the call before");
        assert!(kept[1].get_within(Duration::from_millis(50)).is_err(), "it does");
        open(&gate);
        assert_eq!((kept[0].get()?, kept[1].get()?), (vec![1], vec![1, 2]));
        assert_eq!(free[0].get()?, [2, 1]);

        // Four calls are lost with its process, and made again in the next one.
        let gate = gates.shut();
        let office = Office::with().resource("second", second).max_restarts(1);
        let office = office.max_task_retries(1).own_process().spawn(cx).await?;
        let visits: Vec<_> = (0..4).map(|_| office.visit(gate.clone()).submit()).collect();
        while office.inside().call().await? < 4 {}
        let process = office.process().call().await?;
        let pid = rustix::process::Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        while office.inside().call().await? < 4 {}
        assert_ne!(office.process().call().await?, process);
        open(&gate);
        cx.get_all(&visits)?;
        assert_eq!(office.most().call().await?, 4);
    }
    Ok(())
}

//! Actors whose calls run beside each other, and threads of a process that do.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use rdist::prelude::*;
use rdist::scheduler::outcome::Cause;
use tokio::sync::{Semaphore, oneshot};

use crate::program::failure_of;

/// Counts what is inside at a time.
#[derive(Default)]
struct Crowd {
    inside: AtomicU32,
    most: AtomicU32,
}

impl Crowd {
    fn enter(&self) {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
    }

    fn leave(&self) {
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Threaded {
    crowd: Crowd,
    disk: Crowd,
    three: Barrier,
    alone: u64,
}

#[rdist::actor(max_concurrency = 3, concurrency_groups(disk = 2))]
impl Threaded {
    fn new() -> Self {
        let (crowd, disk) = (Crowd::default(), Crowd::default());
        Self { crowd, disk, three: Barrier::new(3), alone: 0 }
    }

    /// Ends only when three calls are inside at the same time.
    fn meet(&self) {
        self.crowd.enter();
        self.three.wait();
        self.crowd.leave();
    }

    #[concurrency_group(disk)]
    fn write(&self, by: u64) -> u64 {
        self.disk.enter();
        std::thread::sleep(Duration::from_millis(2));
        self.disk.leave();
        by
    }

    /// Runs when nothing else does.
    fn change(&mut self) -> u64 {
        assert_eq!(*self.crowd.inside.get_mut() + *self.disk.inside.get_mut(), 0);
        self.alone += 1;
        self.alone
    }

    fn most(&self) -> (u32, u32) {
        (self.crowd.most.load(Ordering::SeqCst), self.disk.most.load(Ordering::SeqCst))
    }
}

pub(crate) fn threaded(cx: &Context) -> Result<()> {
    let actor = Threaded::spawn(cx).get()?;
    let mut all = Vec::new();
    for round in 1..=10_u64 {
        let meetings: Vec<_> = (0..9).map(|_| actor.meet().submit()).collect();
        let writes: Vec<_> = (0..4_u64).map(|x| actor.write(x).submit()).collect();
        assert_eq!(actor.change().call().get()?, round);
        assert_eq!(cx.get_all(&writes)?, [0, 1, 2, 3]);
        all.extend(meetings);
    }
    cx.get_all(&all)?;
    assert_eq!(actor.most().call().get()?, (3, 2), "as many as allowed, and no more");

    let ends = Threaded::spawn(cx).get()?;
    let writes: Vec<_> = (0..20_u64).map(|x| ends.write(x).submit()).collect();
    ends.terminate().get()?;
    assert_eq!(cx.get_all(&writes)?.len(), 20, "what was called before has ended, in each group");

    let five = Threaded::with().max_concurrency(5).spawn(cx).get()?;
    let meetings: Vec<_> = (0..15).map(|_| five.meet().submit()).collect();
    cx.get_all(&meetings)?;
    let (most, _) = five.most().call().get()?;
    assert!((3..=5).contains(&most), "{most}");
    Ok(())
}

/// Async, and of one call at a time in the group `single`.
struct Gate {
    pass: Semaphore,
    crowd: Crowd,
    order: Mutex<Vec<u64>>,
    first: Mutex<Option<oneshot::Sender<()>>>,
}

#[rdist::actor(max_concurrency = 6000, concurrency_groups(single = 1))]
impl Gate {
    fn new() -> Self {
        Self {
            pass: Semaphore::new(0),
            crowd: Crowd::default(),
            order: Mutex::default(),
            first: Mutex::default(),
        }
    }

    async fn enter(&self, x: u64) -> u64 {
        self.crowd.enter();
        self.pass.acquire().await.unwrap().forget();
        self.crowd.leave();
        x
    }

    async fn open(&self, count: u64) {
        self.pass.add_permits(usize::try_from(count).unwrap());
    }

    async fn inside(&self) -> u32 {
        self.crowd.inside.load(Ordering::SeqCst)
    }

    /// Threads of the process.
    async fn threads(&self) -> u64 {
        std::fs::read_dir("/proc/self/task").unwrap().count() as u64
    }

    #[concurrency_group(single)]
    async fn one_by_one(&self, x: u64) {
        tokio::time::sleep(Duration::from_millis(x % 3)).await;
        self.order.lock().unwrap().push(x);
    }

    async fn order(&self) -> Vec<u64> {
        self.order.lock().unwrap().clone()
    }

    /// Waits for a call of another actor, itself an async one.
    async fn ask(&self, other: ActorHandle<Gate>, x: u64) -> Result<u64> {
        Ok(other.enter(x).call().await? + 1)
    }

    async fn burst(&self) {
        tokio::task::yield_now().await;
        panic!("after a pause");
    }

    async fn fail(&self) -> Result<u64, String> {
        tokio::task::yield_now().await;
        Err("after a pause".to_owned())
    }

    /// Never ends by itself; whoever waits for `is_dropped` hears that it was dropped.
    async fn hang(&self) {
        let (sender, receiver) = oneshot::channel();
        *self.first.lock().unwrap() = Some(sender);
        let dropped = OnDrop(&self.pass);
        let _ = receiver.await;
        drop(dropped);
    }

    async fn hangs(&self) -> bool {
        self.first.lock().unwrap().is_some()
    }

    async fn free_permits(&self) -> u64 {
        self.pass.available_permits() as u64
    }

    fn reset(&mut self) -> u64 {
        let crowd = std::mem::take(&mut self.crowd);
        crowd.inside.into_inner().into()
    }
}

struct OnDrop<'a>(&'a Semaphore);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

const MANY: u64 = 5_000;

pub(crate) async fn futures(cx: &Context) -> Result<()> {
    let gate = Gate::spawn(cx).await?;
    let inside: Vec<_> = (0..MANY).map(|x| gate.enter(x).submit()).collect();
    while u64::from(gate.inside().call().await?) < MANY {}
    let threads = gate.threads().call().await?;
    assert!(threads < 40, "{threads} threads for {MANY} calls in flight");
    gate.open(MANY).call().await?;
    assert_eq!(cx.get_all(&inside)?.iter().sum::<u64>(), MANY * (MANY - 1) / 2);
    assert_eq!(gate.reset().call().await?, 0, "for itself, after all of them");

    let numbers: Vec<u64> = (0..40).collect();
    let calls: Vec<_> = numbers.iter().map(|x| gate.one_by_one(*x).submit()).collect();
    cx.get_all(&calls)?;
    assert_eq!(gate.order().call().await?, numbers, "a group of one keeps the order");

    let other = Gate::spawn(cx).await?;
    let asked: Vec<_> = (0..100_u64).map(|x| gate.ask(&other, x).submit()).collect();
    other.open(100_u64).call().await?;
    assert_eq!(cx.get_all(&asked)?.iter().sum::<u64>(), 100 * 101 / 2);

    let burst = gate.burst().submit();
    let Cause::Panicked { message } = failure_of(&burst).cause else { panic!() };
    assert!(message.starts_with("after a pause\nat "), "{message}");
    let returned = Cause::Returned { message: "after a pause".to_owned() };
    assert_eq!(failure_of(&gate.fail().submit()).cause, returned);

    let hangs = gate.hang().submit();
    while !gate.hangs().call().await? {}
    cx.cancel(&hangs, false);
    assert_eq!(failure_of(&hangs).cause, Cause::Cancelled);
    assert_eq!(gate.free_permits().call().await?, 1, "what it held is dropped");
    other.hang().send()?;
    other.kill()?;
    Ok(())
}

/// Waits for another one, as code does that knows nothing of rdist.
#[rdist::task]
fn meets() {
    static BOTH: Barrier = Barrier::new(2);
    BOTH.wait();
}

fn pause(micros: u64) {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_micros(micros) {
        std::hint::spin_loop();
    }
}

/// The thread that listened runs a task that ends only when the next one has been heard of: another
/// thread has to listen by then, whichever way all of them fell asleep.
pub(crate) fn waves(cx: &Context) -> Result<()> {
    for wave in 0..300_u64 {
        let wanted = 2 * (1 + wave % 3);
        let all: Vec<_> = (0..wanted)
            .map(|task| {
                pause((wave * 31 + task * 17) % 90);
                meets.submit(cx)
            })
            .collect();
        cx.get_all(&all)?;
        pause(wave * 13 % 300);
    }
    Ok(())
}

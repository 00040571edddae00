//! Actors that hold CPUs and wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdist::prelude::*;

/// Whoever waits for it waits for long enough to say so.
#[rdist::task]
fn dawdles(x: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(30));
    x
}

#[derive(Default)]
struct Holder {
    computes: AtomicBool,
    is_done: AtomicBool,
}

#[rdist::actor(max_concurrency = 2)]
impl Holder {
    fn new() -> Self {
        Self::default()
    }

    fn waits(&self, cx: &Context, x: u64) -> Result<u64> {
        dawdles.submit(cx, x).get()
    }

    async fn awaits(&self, x: u64) -> Result<u64> {
        dawdles.submit(&Context::current()?, x).await
    }

    /// Until the next one is done.
    fn computes(&self) {
        self.computes.store(true, Ordering::SeqCst);
        while !self.is_done.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
    }

    /// While the one before computes.
    fn waits_beside(&self, cx: &Context, x: u64) -> Result<u64> {
        while !self.computes.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        let result = dawdles.submit(cx, x).get();
        self.is_done.store(true, Ordering::SeqCst);
        result
    }
}

fn holder(cx: &Context, cpus: f64) -> Result<ActorHandle<Holder>> {
    Holder::with().cpus(cpus).spawn(cx).get()
}

/// At some time both calls of an actor wait.
pub(crate) fn all_wait(cx: &Context) -> Result<()> {
    let holder = holder(cx, 1.0)?;
    let waits = [holder.waits(1_u64).submit(), holder.waits(2_u64).submit()];
    assert_eq!(cx.get_all(&waits)?, [1, 2]);
    let waits = [holder.awaits(3_u64).submit(), holder.waits(4_u64).submit()];
    assert_eq!(cx.get_all(&waits)?, [3, 4]);
    holder.terminate().get()
}

/// One call waits, and another one needs the CPUs; and the same of an actor without any.
pub(crate) fn some_wait(cx: &Context) -> Result<()> {
    let busy = holder(cx, 1.0)?;
    let computes = busy.computes().submit();
    assert_eq!(busy.waits_beside(1_u64).call().get()?, 1);
    computes.get()?;
    let light = holder(cx, 0.0)?;
    assert_eq!(light.waits(2_u64).call().get()?, 2);
    assert_eq!(light.awaits(3_u64).call().get()?, 3);
    Ok(())
}

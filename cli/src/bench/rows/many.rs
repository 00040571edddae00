//! Many of something at once; the rows of Ray's scalability tests.

use rdist::prelude::*;

use super::super::measure::measure;
use super::super::memory::Watch;
use super::super::program::{Holder, how_many, numbers, small_value};
use super::super::row::{self, Unit};
use super::Bench;

const MILLION: u32 = 1_000_000;

impl<'a> Bench<'a> {
    pub(super) fn many(&self) -> Result<()> {
        let cx = self.cx;
        self.row("10,000 arguments to one task", 1.0, || {
            let values =
                (0..10_000).map(|x| cx.put(&x)).collect::<Result<Vec<ObjectRef<u64>>>>()?;
            Ok(Box::new(move || how_many.submit(cx, &values).get().map(drop)))
        })?;
        self.row("3,000 returns of one task", 1.0, || {
            Ok(Box::new(|| cx.get_all(&numbers.submit(cx, 3_000, 3_000)).map(drop)))
        })?;
        self.row("get of 10,000 objects", 1.0, || {
            Ok(Box::new(|| {
                let put = (0..10_000_u64).map(|x| cx.put(&x)).collect::<Result<Vec<_>>>()?;
                // Of another process: what this one has put it need not fetch.
                let values = numbers.submit(cx, 10_000, 10_000);
                cx.get_all(&values)?;
                cx.get_all(&put).map(drop)
            }))
        })?;
        self.million()
    }

    /// With the memory that driver, worker and executors take together at most.
    fn million(&self) -> Result<()> {
        let (cx, name) = (self.cx, "1,000,000 queued tasks on one worker");
        if !self.wants(name) {
            return Ok(());
        }
        let cpus = self.plan.cpus as f64;
        let watch = Watch::start();
        let measured = measure(self.plan.pace, f64::from(MILLION), || {
            let holder = Holder::with().own_process().cpus(cpus).spawn(cx).get()?;
            let queued: Vec<_> = (0..MILLION).map(|_| small_value.submit(cx)).collect();
            holder.kill()?;
            cx.get_all(&queued).map(drop)
        })?;
        let mut event = row::event(name, Unit::Count, &measured);
        row::add_memory(&mut event, &watch.stop());
        cx.emit(&event);
        Ok(())
    }
}

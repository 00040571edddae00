//! The rows, in Ray's order and by Ray's names.

use std::time::Duration;

use rdist::prelude::*;

use super::limits::Limit;
use super::measure::{Pace, measure};
use super::program::{
    Caller, Holder, Server, call_each, how_many, numbers, object_containing_refs, put_large,
    put_small, small_value,
};
use super::row::{self, Unit};
use super::transfer;

/// What to measure, and how thoroughly.
pub(super) struct Plan {
    /// How long each row is measured.
    pub pace: Pace,
    /// Part of a row's name; empty: all rows.
    pub filter: String,
    /// CPUs of the cluster.
    pub cpus: usize,
}

impl Plan {
    /// As the driver's arguments.
    pub(super) fn to_arguments(&self) -> Vec<String> {
        let pace = if matches!(self.pace, Pace::Quick) { "quick" } else { "thorough" };
        vec![pace.to_owned(), self.cpus.to_string(), self.filter.clone()]
    }

    /// From the driver's arguments.
    pub(super) fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Self {
        let pace = match arguments.next().as_deref() {
            Some("quick") => Pace::Quick,
            _ => Pace::Thorough,
        };
        let cpus = arguments.next().and_then(|cpus| cpus.parse().ok()).unwrap_or(1);
        Self { pace, cpus, filter: arguments.next().unwrap_or_default() }
    }
}

/// Rows that something of the machine bounds, beside those of [`transfer`].
const BOUNDED: [&str; 4] = [
    "single client put gigabytes",
    "multi client put gigabytes",
    "single client tasks sync",
    "1:1 actor calls sync",
];

/// Whether a row that `filter` lets through is to be compared with `limit`.
pub(super) fn need(limit: Limit, filter: &str) -> bool {
    let bounded = BOUNDED.iter().map(|row| (*row).to_owned()).chain(transfer::rows());
    bounded.filter(|row| row.contains(filter)).any(|row| Limit::of(&row) == Some(limit))
}

/// Measures every row, and tells the submitter of each.
pub(super) fn run(cx: &Driver, plan: &Plan) -> Result<()> {
    // So that no row pays for the start of the executor.
    small_value.submit(cx).get()?;
    let bench = Bench { cx, plan };
    bench.objects()?;
    bench.tasks()?;
    bench.actors()?;
    bench.groups()?;
    bench.many()?;
    transfer::run(cx, plan)
}

struct Bench<'a> {
    cx: &'a Driver,
    plan: &'a Plan,
}

/// One run of a row's body.
type Body<'a> = Box<dyn FnMut() -> Result<()> + 'a>;

/// 800 MB, as Ray's array of 64-bit integers.
const LARGE_VALUES: usize = 100 << 20;
const GIGABYTES: f64 = (LARGE_VALUES * 8) as f64 / 1e9;

impl<'a> Bench<'a> {
    fn objects(&self) -> Result<()> {
        let cx = self.cx;
        self.row("single client get calls", 1.0, || {
            let value = cx.put(&0_u64)?;
            Ok(Box::new(move || value.get().map(drop)))
        })?;
        self.row("single client put calls", 1.0, || Ok(Box::new(|| cx.put(&0_u64).map(drop))))?;
        self.row("multi client put calls", 1_000.0, || {
            Ok(Box::new(|| self.all((0..10).map(|_| put_small.submit(cx, 100)))))
        })?;
        self.row("single client put gigabytes", GIGABYTES, || {
            // Written, so that it is not all one page of zeros.
            let values = vec![1_i64; LARGE_VALUES];
            Ok(Box::new(move || cx.put(&values).map(drop)))
        })?;
        self.row("single client tasks and get batch", 1.0, || Ok(self.thousand_tasks()))?;
        self.row("multi client put gigabytes", GIGABYTES * 10.0, || {
            let values = LARGE_VALUES as u64 / 10;
            Ok(Box::new(move || self.all((0..10).map(|_| put_large.submit(cx, 10, values)))))
        })?;
        self.row("single client get object containing 10k refs", 1.0, || {
            let object = object_containing_refs.submit(cx, 10_000);
            Ok(Box::new(move || object.get().map(drop)))
        })?;
        self.row("single client wait 1k refs", 1.0, || {
            Ok(Box::new(|| {
                let mut open: Vec<_> = (0..1_000).map(|_| small_value.submit(cx)).collect();
                while !open.is_empty() {
                    open = cx.wait(open, 1, None)?.1;
                }
                Ok(())
            }))
        })
    }

    fn tasks(&self) -> Result<()> {
        let cx = self.cx;
        self.row("single client tasks sync", 1.0, || {
            Ok(Box::new(|| small_value.submit(cx).get().map(drop)))
        })?;
        self.row("single client tasks async", 1_000.0, || Ok(self.thousand_tasks()))?;
        self.row("multi client tasks async", 40_000.0, || {
            let submitters = self.servers(4)?;
            Ok(Box::new(move || {
                self.all(submitters.0.iter().map(|submitter| submitter.tasks(10_000).submit()))
            }))
        })
    }

    fn actors(&self) -> Result<()> {
        let cx = self.cx;
        let some = (self.plan.cpus / 2).max(1);
        self.row("1:1 actor calls sync", 1.0, || {
            let server = self.servers(1)?;
            Ok(Box::new(move || server.0[0].small_value().submit().get().map(drop)))
        })?;
        self.row("1:1 actor calls async", 1_000.0, || {
            let server = self.servers(1)?;
            Ok(Box::new(move || self.all((0..1_000).map(|_| server.0[0].small_value().submit()))))
        })?;
        self.row("1:n actor calls async", 5_000.0 * some as f64, || {
            let servers = self.servers(some)?;
            let caller = self.caller(&servers)?;
            Ok(Box::new(move || {
                let _servers = &servers;
                caller.0[0].calls(5_000).submit().get()
            }))
        })?;
        self.row("n:n actor calls async", 20_000.0, || {
            let servers = self.servers(some)?;
            Ok(Box::new(move || self.all((0..4).map(|_| call_each.submit(cx, &servers.0, 5_000)))))
        })?;
        self.row("n:n actor calls with arg async", 1_000.0 * some as f64, || {
            let servers = self.servers(some)?;
            let callers: Result<Vec<_>> = (0..some).map(|_| self.caller(&servers)).collect();
            let callers = callers?;
            Ok(Box::new(move || {
                let _servers = &servers;
                let calls =
                    |caller: &Ended<Caller>| caller.0[0].calls_with_argument(1_000).submit();
                self.all(callers.iter().map(calls))
            }))
        })
    }

    fn groups(&self) -> Result<()> {
        let cx = self.cx;
        let bundle = || [Bundle::default().resource("custom", 0.001)];
        self.row("placement group create/removal", 100.0, || {
            Ok(Box::new(move || {
                let create = |_| cx.placement_group(bundle(), GroupStrategy::Pack);
                let groups: Vec<_> = (0..100).map(create).collect();
                for group in &groups {
                    group.wait(Duration::from_secs(30))?;
                }
                groups.iter().try_for_each(PlacementGroup::remove)
            }))
        })
    }

    /// Many of something at once; the rows of Ray's scalability tests.
    fn many(&self) -> Result<()> {
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
        let million = 1_000_000;
        self.row("1,000,000 queued tasks on one worker", f64::from(million), || {
            Ok(Box::new(move || {
                let cpus = self.plan.cpus as f64;
                let holder = Holder::with().own_process().cpus(cpus).spawn(cx).get()?;
                let queued: Vec<_> = (0..million).map(|_| small_value.submit(cx)).collect();
                holder.kill()?;
                cx.get_all(&queued).map(drop)
            }))
        })
    }

    /// Measures a row unless it is filtered out, and tells the submitter.
    fn row(&self, name: &str, per_run: f64, set_up: impl FnOnce() -> Result<Body<'a>>) -> Result<()>
    where
        Self: 'a,
    {
        if !name.contains(&self.plan.filter) {
            return Ok(());
        }
        let body = set_up()?;
        let unit = if name.ends_with("gigabytes") { Unit::Gigabytes } else { Unit::Count };
        self.cx.emit(&row::event(name, unit, &measure(self.plan.pace, per_run, body)?));
        Ok(())
    }

    fn thousand_tasks(&self) -> Body<'a> {
        let (bench, cx) = (Bench { cx: self.cx, plan: self.plan }, self.cx);
        Box::new(move || bench.all((0..1_000).map(|_| small_value.submit(cx))))
    }

    fn all<T: rdist::Value>(&self, objects: impl Iterator<Item = ObjectRef<T>>) -> Result<()> {
        let objects: Vec<_> = objects.collect();
        self.cx.get_all(&objects).map(drop)
    }

    fn servers(&self, count: usize) -> Result<Ended<Server>> {
        let spawn = |_| Server::with().own_process().cpus(0.0).spawn(self.cx).get();
        (0..count).map(spawn).collect::<Result<_>>().map(Ended)
    }

    fn caller(&self, servers: &Ended<Server>) -> Result<Ended<Caller>> {
        let caller = Caller::with().own_process().cpus(0.0).spawn(self.cx, &servers.0).get()?;
        Ok(Ended(vec![caller]))
    }
}

/// Actors that end with the row that they are for.
struct Ended<A: Actor>(Vec<ActorHandle<A>>);

impl<A: Actor> Drop for Ended<A> {
    fn drop(&mut self) {
        for actor in &self.0 {
            // What is gone already needs no end.
            let _ = actor.kill();
        }
    }
}

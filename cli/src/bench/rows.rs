//! The rows, in Ray's order and by Ray's names.

mod actors;
mod many;

use std::time::Duration;

use rdist::prelude::*;

use super::limits::Limit;
use super::measure::{Measured, Pace, measure};
use super::program::{object_containing_refs, put_large, put_small, small_value};
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
const BOUNDED: [&str; 5] = [
    "single client put gigabytes",
    "multi client put gigabytes",
    "single client tasks sync",
    "1:1 actor calls sync",
    "1:1 async-actor calls sync",
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
    bench.async_actors()?;
    bench.groups()?;
    bench.creation()?;
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

    /// Measures a row unless it is filtered out, and tells the submitter.
    fn row(&self, name: &str, per_run: f64, set_up: impl FnOnce() -> Result<Body<'a>>) -> Result<()>
    where
        Self: 'a,
    {
        self.measured(name, || {
            let body = set_up()?;
            measure(self.plan.pace, per_run, body)
        })
    }

    /// A row that is measured in a way of its own.
    fn measured(&self, name: &str, measure: impl FnOnce() -> Result<Measured>) -> Result<()> {
        if !self.wants(name) {
            return Ok(());
        }
        let unit = if name.ends_with("gigabytes") { Unit::Gigabytes } else { Unit::Count };
        self.cx.emit(&row::event(name, unit, &measure()?));
        Ok(())
    }

    fn wants(&self, name: &str) -> bool {
        name.contains(&self.plan.filter)
    }

    fn thousand_tasks(&self) -> Body<'a> {
        let (bench, cx) = (Bench { cx: self.cx, plan: self.plan }, self.cx);
        Box::new(move || bench.all((0..1_000).map(|_| small_value.submit(cx))))
    }

    fn all<T: rdist::Value>(&self, objects: impl Iterator<Item = ObjectRef<T>>) -> Result<()> {
        let objects: Vec<_> = objects.collect();
        self.cx.get_all(&objects).map(drop)
    }
}

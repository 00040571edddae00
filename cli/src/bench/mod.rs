//! `rdist bench`: how fast calls, objects and actors are here, by the names of Ray's rows.
//!
//! It starts a cluster of its own (a head and a worker, as a user would), submits this binary to
//! it as a job, and shows what the job measures.
//!
//! ```text
//! rdist bench ── starts ──► head, worker ── start ──► driver: rows ──► actors, tasks
//!      ▲                                                 │
//!      └────────────── bench_row events ─────────────────┘
//! ```

mod aim;
mod cluster;
mod limits;
mod measure;
mod memory;
mod network;
mod peer;
mod process;
mod program;
mod round_trip;
mod row;
mod rows;
mod scale;
mod transfer;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::arguments::{Bench, BenchCommand};
use crate::units::show_number;
use cluster::Cluster;
use limits::Limit;
use measure::Pace;
use peer::Peer;
use rows::Plan;

pub(crate) use scale::{SCALE, run_job as measure_scale};

/// The job: measures every row.
pub(crate) fn measure_rows(
    cx: &rdist::Driver,
    arguments: impl Iterator<Item = String>,
) -> rdist::Result<()> {
    rows::run(cx, &Plan::from_arguments(arguments))
}

/// Measures, and prints a table or a JSON object for each row.
pub(crate) fn run(bench: &Bench, json: bool) -> anyhow::Result<ExitCode> {
    if let Some(BenchCommand::Scale(scale)) = &bench.command {
        return scale::run(scale, json);
    }
    let pace = if bench.quick { Pace::Quick } else { Pace::Thorough };
    let peer = read_peer(bench.against.as_deref())?;
    let mut report = Report { peer, json, limits: Vec::new() };
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    report.heading();
    for limit in Limit::ALL {
        if limit.name().contains(&bench.filter) || rows::need(limit, &bench.filter) {
            let measured = limit.measure(pace)?;
            report.limits.push((limit, measured.rate));
            report.row(&row::event(limit.name(), limit.unit(), &measured));
        }
    }
    let plan = Plan { pace, filter: bench.filter.clone(), cpus };
    let cluster = Cluster::start(cpus)?;
    let mut rows = 0;
    let outcome = cluster.run_job("bench", plan.to_arguments(), |row| {
        report.row(&row);
        rows += 1;
    });
    cluster.stop()?;
    outcome?;
    if rows == 0 && !plan.filter.is_empty() {
        bail!("no row's name holds {:?}; `rdist bench --quick` shows all", plan.filter)
    }
    Ok(ExitCode::SUCCESS)
}

fn read_peer(path: Option<&Path>) -> anyhow::Result<Peer> {
    let Some(path) = path else { return Ok(Peer::default()) };
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
    let peer = Peer::parse(&text?);
    if peer.is_empty() {
        bail!(
            "{} has no line `NAME per second RATE +- DEVIATION`; give it the output of \
             `ray microbenchmark`",
            path.display()
        );
    }
    Ok(peer)
}

/// Where rows go.
struct Report {
    peer: Peer,
    json: bool,
    /// What the machine did in this run.
    limits: Vec<(Limit, f64)>,
}

impl Report {
    fn heading(&self) {
        if !self.json {
            let ratio = if self.peer.is_empty() { "" } else { "    x peer" };
            println!(
                "{:<52}{:>14}{:>28}{:>10}{:>10}{:>10}{:>10}{ratio}",
                "row", "per second", "lowest .. highest", "p50 us", "p99 us", "of limit", "of aim"
            );
        }
    }

    /// Shows a row, with what the machine and a peer do beside it.
    fn row(&self, event: &Value) {
        let name = event["row"].as_str().unwrap_or_default();
        let rate = row::rate(event);
        let limit = Limit::of(name)
            .and_then(|limit| self.limits.iter().find(|(measured, _)| *measured == limit));
        let limit = limit.map(|(_, rate)| *rate).zip(rate);
        let aim = aim::of(name).zip(rate);
        let ratio = self.peer.rate(name).zip(rate).map(|(peer, own)| own / peer);
        if self.json {
            let mut event = event.clone();
            if let Some((limit, rate)) = limit {
                event["limit"] = json!(limit);
                event["limit_ratio"] = json!(rate / limit);
            }
            if let Some((aim, rate)) = aim {
                event["aim"] = json!(aim);
                event["aim_ratio"] = json!(rate / aim);
            }
            if let Some(ratio) = ratio {
                event["times_peer"] = json!(ratio);
            }
            println!("{event}");
            return;
        }
        let show = |number: Option<f64>| number.map_or_else(String::new, show_number);
        let field = |field: &str| show(event[field].as_f64());
        let spread = format!("{} .. {}", field("lowest"), field("highest"));
        let share = |of: Option<(f64, f64)>| {
            of.map(|(whole, rate)| format!("{:.0} %", 100.0 * rate / whole)).unwrap_or_default()
        };
        let ratio = ratio.map(|ratio| format!("{:>10}", show_number(ratio))).unwrap_or_default();
        println!(
            "{name:<52}{:>14}{spread:>28}{:>10}{:>10}{:>10}{:>10}{ratio}",
            show(rate),
            field("p50_us"),
            field("p99_us"),
            share(limit),
            share(aim),
        );
        if let Some(memory) = row::show_memory(event) {
            println!("  {memory}");
        }
    }
}

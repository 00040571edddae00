//! `rdist bench scale`: what a cluster costs as it grows. The head's processor time and memory per
//! worker, per 1,000 tasks that it places and per actor, by clusters of real processes on this
//! machine; and far past what one machine holds by the head's core alone.
//!
//! ```text
//! job        the driver: gives the head tasks and actors, and looks at what the head does
//! simulated  the head's core in a process of its own, without links
//! table      what people read: a table for each kind, and slopes
//! plot       the same as an SVG
//! ```

mod job;
mod plot;
mod simulated;
mod table;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rdist::transport::HeadFile;
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::process::{Activity, pss_bytes, wait_until_idle};
use crate::arguments::Scale;
pub(crate) use job::{SCALE, run as run_job};

/// Measures, and prints a JSON object for each size, or tables.
pub(super) fn run(scale: &Scale, json: bool) -> anyhow::Result<ExitCode> {
    if let Some(workers) = scale.simulate {
        println!("{}", simulated::measure(workers, scale.quick));
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = Vec::new();
    for &workers in &scale.simulated {
        rows.push(simulated_row(workers, scale.quick)?);
    }
    for &workers in &scale.workers {
        if !json {
            eprintln!("a cluster of {workers} workers ...");
        }
        rows.push(real_row(workers, scale.quick)?);
    }
    if json {
        rows.iter().for_each(|row| println!("{row}"));
    } else {
        table::print(&rows);
    }
    if let Some(file) = &scale.plot {
        write_plot(file, &rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write_plot(file: &Path, rows: &[Value]) -> anyhow::Result<()> {
    std::fs::write(file, plot::draw(&table::panels(rows)))
        .with_context(|| format!("writing {}", file.display()))?;
    eprintln!("plotted into {}", file.display());
    Ok(())
}

/// In a process of its own, whose memory nothing else has used before.
fn simulated_row(workers: u64, quick: bool) -> anyhow::Result<Value> {
    let program = std::env::current_exe().context("finding this program's own file")?;
    let mut command = Command::new(program);
    command.args(["bench", "scale", "--simulate", &workers.to_string()]);
    command.args(quick.then_some("--quick"));
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    if !output.status.success() {
        bail!("the simulation: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// A cluster of its own with that many workers, each a process: idle, then with a job.
fn real_row(workers: u64, quick: bool) -> anyhow::Result<Value> {
    let cluster = Cluster::start_head()?;
    let mut pids = Vec::new();
    for _ in 0..workers {
        // Small stores: what is measured here is not what lies in them.
        let said = cluster.command(&[
            "worker",
            "join",
            "--cpus=1",
            "--store-memory=64MiB",
            "--listen=127.0.0.1:0",
            "--json",
        ])?;
        let ready: Value = serde_json::from_str(said.trim()).context("what the worker said")?;
        pids.push(ready["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()));
    }
    let pids: Vec<_> = pids.into_iter().flatten().collect();
    let head = HeadFile::read(&cluster.home)?.pid;
    wait_until_idle(head);
    let mut row = idle(head, &pids, if quick { 2 } else { 10 });
    let pace = if quick { "quick" } else { "thorough" };
    let arguments = vec![SCALE.to_owned(), head.to_string(), workers.to_string(), pace.to_owned()];
    let mut figures = Value::Null;
    let outcome = cluster.run_job("bench scale", arguments, |event| figures = event);
    cluster.stop()?;
    outcome?;
    for (name, figure) in figures.as_object().into_iter().flatten() {
        row[name] = figure.clone();
    }
    Ok(row)
}

/// What head and workers do for so many seconds in which nobody asks them for anything.
fn idle(head: u32, workers: &[u32], seconds: u64) -> Value {
    let before: Vec<_> = workers.iter().map(|pid| Activity::of(*pid)).collect();
    let head_before = Activity::of(head);
    std::thread::sleep(Duration::from_secs(seconds));
    let done = Activity::of(head).since(head_before);
    let each = workers.iter().zip(before).map(|(pid, before)| Activity::of(*pid).since(before));
    let all = each.fold(Activity::default(), |sum, one| Activity {
        cpu: sum.cpu + one.cpu,
        sleeps: sum.sleeps + one.sleeps,
    });
    let (seconds, count) = (seconds as f64, workers.len().max(1) as f64);
    let bytes: u64 = workers.iter().filter_map(|pid| pss_bytes(*pid)).sum();
    json!({
        "event": "bench_scale", "kind": "processes", "workers": workers.len(),
        "head_bytes": pss_bytes(head),
        "head_idle_cpu_percent": 100.0 * done.cpu.as_secs_f64() / seconds,
        "head_idle_wakeups_per_second": done.sleeps as f64 / seconds,
        "worker_bytes": bytes as f64 / count,
        "worker_idle_cpu_percent": 100.0 * all.cpu.as_secs_f64() / seconds / count,
        "worker_idle_wakeups_per_second": all.sleeps as f64 / seconds / count,
    })
}

//! The driver that gives the head of a cluster work, and looks at what that costs it.

use std::time::Instant;

use rdist::prelude::*;
use serde_json::json;

use super::super::process::{Activity, pss_bytes, wait_until_idle};
use super::super::program::{Server, small_value};

/// The first argument of this job.
pub(crate) const SCALE: &str = "scale";

/// Tells in one event what the head's process took: of the tasks that it placed on workers that
/// had been warmed up, of tasks that wait in it, and of actors that it placed.
pub(crate) fn run(cx: &Driver, mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let mut number = || arguments.next().and_then(|text| text.parse::<u32>().ok());
    let (Some(head), Some(workers)) = (number(), number()) else {
        return Err(Error::Refused("this job is started by `rdist bench scale`".to_owned()));
    };
    // Enough of what lies in memory that what the head has given back before does not hide it.
    let [tasks, waiting, actors] = match arguments.next().as_deref() {
        Some("quick") => [2_000, 20_000, 2_000],
        _ => [20_000, 50_000, 40_000],
    };
    // So that each worker has its executor, and all connections are there.
    run_tasks(cx, workers * 8)?;
    wait_until_idle(head);
    // In this order: what one gives back would hide what the next one takes, were that not more.
    let (actor_cpu, actor_bytes) = actor_costs(cx, head, actors)?;
    let waiting = waiting_bytes(cx, head, waiting)?;

    let (before, start) = (Activity::of(head), Instant::now());
    run_tasks(cx, tasks)?;
    let taken = start.elapsed();
    wait_until_idle(head);
    let cpu = Activity::of(head).since(before).cpu;
    cx.emit(&json!({
        "tasks_per_second": f64::from(tasks) / taken.as_secs_f64(),
        "head_cpu_ms_per_1000_tasks": 1e6 * cpu.as_secs_f64() / f64::from(tasks),
        "head_bytes_per_1000_waiting_tasks": 1_000.0 * waiting,
        "head_cpu_us_per_actor": 1e6 * actor_cpu,
        "head_bytes_per_actor": actor_bytes,
    }));
    Ok(())
}

/// Tasks that the head places where there is the most room, ten at a time on a CPU.
fn run_tasks(cx: &Driver, count: u32) -> Result<()> {
    let spread = || small_value.with().cpus(0.1).strategy(Placement::SPREAD).submit(cx);
    let results: Vec<_> = (0..count).map(|_| spread()).collect();
    cx.get_all(&results).map(drop)
}

/// Bytes that the head takes for a task that no worker can run yet. Of the second half: the first
/// one takes what was given back before.
fn waiting_bytes(cx: &Driver, head: u32, count: u32) -> Result<f64> {
    let wait = || -> Result<Vec<_>> {
        let wait = || small_value.with().resource("nowhere", 1.0).submit(cx);
        let waiting: Vec<_> = (0..count).map(|_| wait()).collect();
        // The head hears of this one after those.
        run_tasks(cx, 1)?;
        wait_until_idle(head);
        Ok(waiting)
    };
    let first = wait()?;
    let before = bytes(head);
    let second = wait()?;
    let taken = bytes(head) - before;
    for task in first.iter().chain(&second) {
        cx.cancel(task, false);
    }
    run_tasks(cx, 1)?;
    wait_until_idle(head);
    Ok(taken / f64::from(count))
}

/// Seconds of a processor, and bytes, that the head takes for an actor; bytes of the second half.
fn actor_costs(cx: &Driver, head: u32, count: u32) -> Result<(f64, f64)> {
    let make = || -> Result<Vec<_>> {
        let spawn = || Server::with().cpus(0.0).strategy(Placement::SPREAD).spawn(cx);
        let spawning: Vec<_> = (0..count / 2).map(|_| spawn()).collect();
        spawning.into_iter().map(rdist::Spawning::get).collect()
    };
    let before = Activity::of(head);
    let first = make()?;
    wait_until_idle(head);
    let half = bytes(head);
    let second = make()?;
    wait_until_idle(head);
    let cpu = Activity::of(head).since(before).cpu.as_secs_f64();
    let taken = bytes(head) - half;
    for actor in first.iter().chain(&second) {
        actor.kill()?;
    }
    Ok((cpu / f64::from(count), taken / f64::from(count / 2)))
}

fn bytes(pid: u32) -> f64 {
    pss_bytes(pid).unwrap_or_default() as f64
}

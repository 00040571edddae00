//! Objects from one worker to another: the second worker joins when the first of these rows is
//! measured, and both are told to behave as if each were a machine of its own.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rdist::prelude::*;

use super::measure::measure_parts;
use super::row::{self, Unit};
use super::rows::Plan;

/// What only the second worker has.
const ELSEWHERE: &str = "elsewhere";

/// Sizes of the objects in MB.
const SIZES: [u64; 3] = [1, 100, 500];

/// Makes an object where this runs, and says only which.
#[rdist::task]
fn make(cx: &Context, bytes: u64) -> Result<ObjectRef<Vec<u8>>> {
    let mut writing = cx.create(bytes as usize)?;
    writing.fill(1);
    Ok(writing.seal())
}

fn name(size: u64) -> String {
    format!("object of {size} MB from one worker to another")
}

/// The names of these rows.
pub(super) fn rows() -> impl Iterator<Item = String> {
    SIZES.into_iter().map(name)
}

/// Measures the rows that the plan wants.
pub(super) fn run(cx: &Driver, plan: &Plan) -> Result<()> {
    let wanted = SIZES.map(|size| (name(size), size));
    let wanted: Vec<_> =
        wanted.into_iter().filter(|(name, _)| name.contains(&plan.filter)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    join_second_worker()?;
    for (name, size) in wanted {
        let bytes = size * 1_000_000;
        let measured = measure_parts(plan.pace, bytes as f64 / 1e9, || fetch(cx, bytes))?;
        cx.emit(&row::event(&name, Unit::Gigabytes, &measured));
    }
    Ok(())
}

/// How long it takes until an object of the other worker can be read here.
fn fetch(cx: &Driver, bytes: u64) -> Result<Duration> {
    let object = make.with().cpus(0.0).resource(ELSEWHERE, 1.0).submit(cx, bytes).get()?;
    let start = Instant::now();
    let view = object.read()?;
    let taken = start.elapsed();
    assert_eq!(view.len() as u64, bytes);
    Ok(taken)
}

fn join_second_worker() -> Result<()> {
    let failed = |what: String| Error::Refused(format!("the second worker cannot join: {what}"));
    let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let mut command = Command::new(program);
    let resource = format!("{ELSEWHERE}=1");
    command
        .args(["worker", "join", "--cpus", "1", "--resource", &resource])
        .args(["--store-memory", "3GB", "--listen", "127.0.0.1:0"])
        // It is no executor of the first.
        .env_remove("RDIST_EXECUTOR_FD")
        .env("RDIST_SAME_HOST", "off")
        .stdin(Stdio::null());
    let output = command.output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

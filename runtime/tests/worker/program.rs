//! What the worker runs: a driver that asks for a detached actor, and waits until a file is there.

use std::path::Path;
use std::time::Duration;

use rdist::__private::{Failure, drive};
use rdist::prelude::*;
use rdist::scheduler::outcome::{Cause, TaskError};

/// The variable that names the file.
pub(crate) const GO: &str = "RDIST_TEST_GO";
/// What begins the lines that the driver prints.
pub(crate) const SAYS: &str = "the driver: ";

struct Lasting;

#[rdist::actor]
impl Lasting {
    fn new() -> Self {
        Self
    }
}

pub(crate) fn main_of_job(cx: Driver) -> std::result::Result<(), Failure> {
    println!("{SAYS}begins");
    let spawned =
        drive(&cx, async { Lasting::with().name("lasting").detached().spawn(&cx).await })?;
    match spawned.map(drop) {
        Err(Error::Task(TaskError { cause: Cause::Refused { reason }, .. })) => {
            println!("{SAYS}{reason}");
        }
        other => panic!("{other:?}"),
    }
    let go = std::env::var(GO).unwrap();
    while !Path::new(&go).exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

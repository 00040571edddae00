//! How `main` finds out what this process is for.
//!
//! ```text
//! RDIST_EXECUTOR_FD is set   a worker started this process: run what it sends
//! a head runs here           a person started it: submit this very file as a job, and watch
//! else                       the same, to a head and a worker inside this process
//! ```

use std::process::ExitCode;
use std::sync::Arc;

use tokio::sync::Notify;

use super::process::Process;
use super::run::{DRIVER_BODY, DriverBody};
use crate::api::context::Context;
use crate::api::error::Failure;

/// What `#[rdist::main]` expands to.
pub fn launch(driver: DriverBody) -> ExitCode {
    match std::env::var(super::EXECUTOR_FD) {
        Ok(descriptor) => execute(&descriptor, driver),
        Err(_) => super::submission::submit_this_program(),
    }
}

/// Works for a worker until it ends.
pub fn execute(descriptor: &str, driver: DriverBody) -> ExitCode {
    let _ = DRIVER_BODY.set(driver);
    // Safety: no other thread runs yet that could read the environment; a child process of user
    // code must not take the descriptor for its own.
    unsafe { std::env::remove_var(super::EXECUTOR_FD) };
    match Process::connect(descriptor) {
        Ok(process) => super::slots::serve(process, true),
        Err(error) => super::abandon(&error.to_string()),
    }
    ExitCode::SUCCESS
}

/// Runs the driver's future on this thread, which reads the process's messages while it waits;
/// timers and sockets of tokio run on a thread beside it.
pub(crate) fn drive<F: Future>(cx: &Context, future: F) -> Result<F::Output, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        Failure::Refused(format!("the driver's async runtime cannot start: {error}"))
    })?;
    let handle = runtime.handle().clone();
    let stop = Arc::new(Notify::new());
    let stopped = stop.clone();
    let thread = std::thread::Builder::new().name("driver-io".to_owned());
    let beside = thread.spawn(move || runtime.block_on(stopped.notified()));
    let beside = beside.map_err(|error| {
        Failure::Refused(format!("the driver's second thread cannot start: {error}"))
    })?;
    let result = {
        let _entered = handle.enter();
        cx.block_on(future)
    };
    stop.notify_one();
    // A task of the runtime that panicked has said so itself.
    let _ = beside.join();
    Ok(result?)
}

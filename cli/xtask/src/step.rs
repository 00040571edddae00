//! Running one program as a step: said before it runs, timed, explained when it fails.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::interrupt;
use crate::libtorch::Libtorch;

/// Cargo for what needs no libtorch.
pub(crate) fn plain_cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::repository());
    command
}

/// Cargo with the libtorch that `libtorch::ensure` found.
pub(crate) fn cargo(libtorch: &Libtorch) -> Command {
    let mut command = plain_cargo();
    command.envs(libtorch.environment());
    command
}

/// Says what runs, runs it, and fails when it fails or when a signal asks to stop.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let shown = shown(command);
    eprintln!("+ {shown}");
    let started = Instant::now();
    let child = command.spawn().with_context(|| format!("cannot run `{shown}`"))?;
    let status = wait(child).with_context(|| format!("while `{shown}` ran"))?;
    if !status.success() {
        bail!("`{shown}` ended with {status} after {:.0} s", started.elapsed().as_secs_f64());
    }
    Ok(())
}

/// Waits for `child`. When a signal asks this process to stop, passes it on and gives the child
/// some seconds before it is killed.
pub(crate) fn wait(mut child: Child) -> anyhow::Result<std::process::ExitStatus> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let mut asked: Option<Instant> = None;
    loop {
        if let Some(status) = child.try_wait()? {
            if interrupt::requested() {
                bail!("interrupted");
            }
            return Ok(status);
        }
        match asked {
            None if interrupt::requested() => {
                interrupt::terminate(child.id());
                asked = Some(Instant::now());
            }
            Some(since) if since.elapsed() > PATIENCE => child.kill()?,
            _ => {}
        }
        interrupt::pause(Duration::from_millis(20));
    }
}

/// A command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    std::iter::once(program)
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

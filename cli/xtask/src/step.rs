//! Running one program as a step: said before it runs, timed, explained when it fails.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::interrupt;
use crate::libtorch::Libtorch;

/// Cargo with the libtorch that `libtorch::ensure` found.
pub(crate) fn cargo(libtorch: &Libtorch) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(crate::repository());
    command.envs(libtorch_environment(libtorch));
    command
}

/// What a build needs in its environment to find libtorch, and a program to load it.
///
/// A PyTorch that the user chose with `LIBTORCH_USE_PYTORCH` stays chosen.
pub(crate) fn libtorch_environment(libtorch: &Libtorch) -> Vec<(&'static str, String)> {
    let library = libtorch.prefix.join("lib");
    let mut path = library.display().to_string();
    if let Ok(earlier) = std::env::var("LD_LIBRARY_PATH") {
        // `cargo run` has put its own folders in front, for this program only.
        let target = crate::target_folder();
        let others = earlier.split(':').filter(|entry| {
            let own = Path::new(entry).starts_with(&target) || entry.contains("/rustlib/");
            !entry.is_empty() && *entry != path && !own
        });
        path = [path.as_str()].into_iter().chain(others).collect::<Vec<_>>().join(":");
    }
    let mut environment = vec![("LD_LIBRARY_PATH", path)];
    if std::env::var_os("LIBTORCH_USE_PYTORCH").is_none() {
        environment.push(("LIBTORCH", libtorch.prefix.display().to_string()));
    }
    environment
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

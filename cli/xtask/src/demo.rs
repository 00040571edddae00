//! `cargo xtask demo`: MNIST from a bare checkout to an accuracy, with nothing left behind.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::cluster::{self, Cluster};
use crate::{interrupt, libtorch, step};

/// How to run the demo.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Folder with `mnist/` and its four IDX files, plain or gzip. Without it: RDIST_DATA, then
    /// the usual places, then a download, then digits drawn by the program.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// How many workers, with one CPU each.
    #[arg(long, value_name = "N", default_value_t = 2)]
    workers: usize,
}

/// Builds, starts a cluster, trains, and stops what it started: also on Ctrl-C and on failure.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    interrupt::catch()?;
    let libtorch = libtorch::ensure().context("the demo trains with libtorch")?;
    eprintln!("libtorch: {} ({})", libtorch.prefix.display(), libtorch.source);
    let packages = ["build", "--release", "-p", "rdist-cli", "-p", "rdist-workloads"];
    step::run(step::cargo(&libtorch).args(packages))?;

    let built = crate::target_folder().join("release");
    let rdist = built.join("rdist");
    cluster::require(&rdist)?;
    cluster::require(&built.join("rdist-workloads"))?;

    let mut environment = Vec::new();
    if let Some(data) = &options.data {
        let data = data.canonicalize().with_context(|| {
            format!("--data {}: no such folder; it should hold mnist/", data.display())
        })?;
        environment.push(("RDIST_DATA", data.display().to_string()));
    }
    let cluster = Cluster::start(&rdist, options.workers, environment)?;
    step::run(&mut cluster.command(&["submit", "workloads/mnist.toml"]))?;
    Ok(ExitCode::SUCCESS)
}

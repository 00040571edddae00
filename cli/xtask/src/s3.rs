//! `cargo xtask s3`: a store to try `mnist_s3.toml` with.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Context as _;

use crate::step;

/// What to serve.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Folder with the four MNIST files, plain or gzip, or with `mnist/` that has them.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

/// Builds the server, and becomes it: signals reach it as they are, and nothing is left over.
///
/// The server is a program of its own, so that who only runs the tests of one part need not build
/// it.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.current_dir(crate::repository()).args(["build", "-p", "rdist-s3-server"]);
    step::run(&mut build)?;
    let server = crate::target_folder().join("debug/rdist-s3-server");
    let error = Command::new(&server).arg("--data").arg(&options.data).exec();
    Err(error).with_context(|| format!("cannot run {}", server.display()))
}

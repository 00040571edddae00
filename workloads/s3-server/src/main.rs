//! Serves MNIST by S3 until it is stopped; `cargo xtask s3` builds and runs it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use rdist_s3_server::{Server, upload};
use tokio::signal::unix::{SignalKind, signal};

/// An S3 server on a free port of this machine, with MNIST in its bucket `datasets`.
#[derive(Parser)]
#[command(after_help = "Example:\n  rdist-s3-server --data ~/data")]
struct Options {
    /// Folder with the four MNIST files, plain or gzip, or with `mnist/` that has them.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before anything is made that is to be removed.
    let signals = {
        let _inside = runtime.enter();
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal)
    };
    let [mut interrupt, mut terminate, mut hangup] = signals.map(|each| each.ok());
    let folder = tempfile::Builder::new()
        .prefix("rdist-s3-")
        .tempdir()
        .context("cannot make a folder for the objects")?;
    let server = Server::start(folder.path())?;
    let path = upload(&server, &options.data)?;
    // All at once: who waits for the first line has the others.
    let mut lines: String = server
        .environment()
        .iter()
        .map(|(name, value)| format!("export {name}={value}\n"))
        .collect();
    lines += &format!("# {path} has MNIST, s3://models takes models; Ctrl-C ends the server\n");
    let mut out = std::io::stdout();
    out.write_all(lines.as_bytes())?;
    out.flush()?;
    runtime.block_on(async {
        let any = async |signal: &mut Option<tokio::signal::unix::Signal>| match signal {
            Some(signal) => signal.recv().await,
            None => std::future::pending().await,
        };
        tokio::select! {
            _ = any(&mut interrupt) => {}
            _ = any(&mut terminate) => {}
            _ = any(&mut hangup) => {}
        }
    });
    Ok(())
}

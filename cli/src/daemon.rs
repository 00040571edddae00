//! Daemons in the background: this program again, in a session of its own, with a log file.
//!
//! ```text
//! rdist head start              rdist head start --foreground --report-ready
//!   makes the log, spawns  ──►    setsid; starts the head
//!   reads one line         ◄──    {"ready":{...}} or {"failed":"..."} on standard output
//!   prints it, returns            standard output becomes the log; runs until SIGTERM
//! ```
//! The line travels on standard output, a pipe: no other descriptor has to survive an exec. When
//! the parent is gone before the line is written, the daemon ends: nobody learned of it.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use rdist::config::Home;
use serde::{Deserialize, Serialize};

use crate::arguments::Daemon;

/// Lines of a log that are shown when a start fails.
const TAIL_LINES: usize = 12;
/// A log that is longer than this is put aside at the next start.
const LOG_BYTES: u64 = 16 << 20;

/// The line that a daemon reports with.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Report {
    /// It runs; what it has to say about itself.
    Ready(serde_json::Value),
    /// It does not, and why.
    Failed(String),
}

/// A daemon to start in the background.
pub(crate) struct Start<'a> {
    /// For people: `head`, `worker`.
    pub name: &'a str,
    /// Where its log lies.
    pub home: &'a Home,
    /// The command and its options, without `--foreground`.
    pub arguments: Vec<String>,
    /// What it reads from standard input.
    pub input: Option<String>,
    /// Name of the log without `.log`; `None`: by process id.
    pub log: Option<&'a str>,
}

/// A daemon that runs.
#[derive(Debug)]
pub(crate) struct Started {
    /// What it said of itself.
    pub ready: serde_json::Value,
    /// Its log.
    pub log: PathBuf,
}

/// Starts a daemon and waits until it says how that went.
pub(crate) fn start_in_background(start: Start<'_>) -> anyhow::Result<Started> {
    let home = prepare_home(start.home)?;
    let logs = home.join("logs");
    make_private_folder(&logs)?;
    let unnamed = format!("{}-starting-{}", start.name, std::process::id());
    let mut log = logs.join(format!("{}.log", start.log.unwrap_or(&unnamed)));
    set_long_log_aside(&log);
    let file = append(&log)?;

    let program = std::env::current_exe().context("cannot find the path of this program")?;
    let mut child = Command::new(&program)
        .args(&start.arguments)
        .args(["--foreground", "--report-ready"])
        .env("RDIST_HOME", &home)
        .env_remove("RDIST_TOKEN")
        .current_dir(&home)
        .stdin(if start.input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::from(file))
        .spawn()
        .with_context(|| format!("cannot run {} in the background", program.display()))?;
    if start.log.is_none() {
        let named = logs.join(format!("{}-{}.log", start.name, child.id()));
        if fs::rename(&log, &named).is_ok() {
            log = named;
        }
    }
    if let (Some(mut pipe), Some(input)) = (child.stdin.take(), &start.input) {
        // A daemon that ended before it read says why below.
        let _ = pipe.write_all(input.as_bytes());
    }
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut line).context("cannot read what it reports")?;
    }
    match serde_json::from_str::<Report>(&line) {
        Ok(Report::Ready(ready)) => Ok(Started { ready, log }),
        Ok(Report::Failed(reason)) => {
            let _ = child.wait();
            if start.log.is_none() {
                // It says no more than the reason; what has no name yet leaves nothing behind.
                let _ = fs::remove_file(&log);
            }
            bail!("{reason}")
        }
        Err(_) => {
            let status = child.wait().context("cannot learn how it ended")?;
            let tail = tail(&log, TAIL_LINES);
            let name = start.name;
            bail!("the {name} ended during its start ({status}); {}:\n{tail}", log.display())
        }
    }
}

/// The state folder, made if need be, as an absolute path: a daemon has a working directory of
/// its own.
fn prepare_home(home: &Home) -> anyhow::Result<PathBuf> {
    make_private_folder(home.path())?;
    let path = home.path().canonicalize();
    path.with_context(|| format!("cannot use {} as the state folder", home.path().display()))
}

fn make_private_folder(folder: &Path) -> anyhow::Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.with_context(|| {
        let folder = folder.display();
        format!("cannot make the folder {folder}; RDIST_HOME names one that can be written to")
    })
}

fn append(log: &Path) -> anyhow::Result<File> {
    let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(log);
    opened.with_context(|| format!("cannot write the log {}", log.display()))
}

fn set_long_log_aside(log: &Path) {
    if fs::metadata(log).is_ok_and(|metadata| metadata.len() > LOG_BYTES) {
        // If that fails, the log goes on growing, which is no reason not to start.
        let _ = fs::rename(log, log.with_extension("log.1"));
    }
}

/// The last lines of a file; nothing when it cannot be read.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    const MOST_BYTES: u64 = 16 << 10;
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(MOST_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(MOST_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let text = String::from_utf8_lossy(&read().unwrap_or_default()).into_owned();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// A daemon in this process.
pub(crate) struct Serving {
    /// What it says of itself.
    pub ready: serde_json::Value,
    /// Asks it to end.
    pub stop: Arc<dyn Fn() + Send + Sync>,
    /// Waits until it has ended.
    pub wait: Box<dyn FnOnce() -> anyhow::Result<()>>,
}

/// The daemon's side: starts it, says how that went, and serves until it ends by itself, on
/// SIGTERM or on SIGINT. `describe` says for people what `ready` says for scripts.
pub(crate) fn serve(
    options: &Daemon,
    json: bool,
    describe: fn(&serde_json::Value) -> String,
    start: impl FnOnce() -> anyhow::Result<Serving>,
) -> anyhow::Result<()> {
    if options.report_ready {
        rustix::process::setsid().context("cannot leave the session of the terminal")?;
    }
    log_to_stderr();
    let serving = start().inspect_err(|error| {
        if options.report_ready {
            // When nobody reads it, the log has it.
            let _ = report(&Report::Failed(format!("{error:#}")));
        }
    })?;
    // Before anybody learns that it runs, and may want to end it.
    stop_on_signals(Arc::clone(&serving.stop))?;
    let told = if options.report_ready {
        report(&Report::Ready(serving.ready))
            .and_then(|()| Ok(rustix::stdio::dup2_stdout(std::io::stderr())?))
            .context("whoever started this daemon is gone")
    } else {
        let text = if json { serving.ready.to_string() } else { describe(&serving.ready) };
        writeln!(std::io::stdout(), "{text}").context("cannot say that the daemon is ready")
    };
    if told.is_err() {
        (serving.stop)();
    }
    (serving.wait)()?;
    told
}

/// Calls `stop` when a signal asks this process to end.
pub(crate) fn stop_on_signals(stop: Arc<dyn Fn() + Send + Sync>) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let guard = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    drop(guard);
    let wait_for_signal = move || {
        let name = runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        });
        tracing::info!("{name}: ending");
        stop();
    };
    std::thread::Builder::new().name("rdist-signals".to_owned()).spawn(wait_for_signal)?;
    Ok(())
}

/// Logs go to standard error, in the background the log file; RDIST_LOG says how much.
fn log_to_stderr() {
    use tracing_subscriber::EnvFilter;

    let filter = EnvFilter::try_from_env("RDIST_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // A program that embeds this one's parts may have set up its own.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal)
        .try_init();
}

fn report(report: &Report) -> std::io::Result<()> {
    let mut line = serde_json::to_string(report)?;
    line.push('\n');
    let mut output = std::io::stdout().lock();
    output.write_all(line.as_bytes())?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("a.log");
        assert_eq!(tail(&log, 3), "");
        let text: String = (0..5_000).map(|n| format!("line {n}\n")).collect();
        fs::write(&log, text).unwrap();
        assert_eq!(tail(&log, 2), "line 4998\nline 4999");
    }

    #[test]
    fn a_long_log_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("head.log");
        File::create(&log).unwrap().set_len(LOG_BYTES + 1).unwrap();
        set_long_log_aside(&log);
        assert!(!log.exists() && folder.path().join("head.log.1").exists());
    }
}

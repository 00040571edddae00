//! Starts executor processes, reads their output, and reports how they end.
//!
//! Runs on the network thread, which outlives every executor: the kernel kills an executor when
//! the thread that started it ends (`PR_SET_PDEATHSIG`), so that a worker killed with -9 leaves no
//! process behind. What an executor is for, and when it starts and ends, is the core's decision.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdist_scheduler::id::{ExecutorId, JobId, WorkerId};
use rdist_scheduler::outcome::Death;

use super::limits::{Lease, Limit, Limits};
use super::output::{OutputReader, Tail};
use super::process;
use super::spares::Spares;
use crate::wire::cluster::{JobInfo, Output};

/// How long output may go on to arrive after its process has ended: a grandchild may hold the
/// pipe open for ever.
const OUTPUT_GRACE: Duration = Duration::from_millis(200);

/// How often an executor's process is looked at, and how often in turn it may be found stopped:
/// whoever waits for it learns within five seconds that it is lost.
const STOPPED_EVERY: Duration = Duration::from_secs(1);
const STOPPED_LOOKS: u32 = 3;

/// How a program says that it was refused memory: Rust's words.
const ALLOCATION_FAILED: &str = "memory allocation of";

/// An executor to start.
#[derive(Debug)]
pub(super) struct Launch {
    pub executor: ExecutorId,
    pub worker: WorkerId,
    pub job: JobId,
    /// The executor's end of the socket.
    pub socket: OwnedFd,
    /// What it may use; numeric libraries get a thread for each CPU.
    pub limit: Limit,
    /// The GPUs that it may see, as `CUDA_VISIBLE_DEVICES` has them; empty: none.
    pub gpus: String,
    /// For people: `driver`, `pool`, `task`, `actor`.
    pub source: &'static str,
}

impl Launch {
    /// Whether it runs the job's main function.
    pub(super) fn is_driver(&self) -> bool {
        self.source == "driver"
    }
}

/// What an executor finds on this machine.
#[derive(Debug)]
pub(super) struct Prepared {
    /// What to run.
    pub program: PathBuf,
    /// The folder that came with the job, where its processes start.
    pub working: Option<PathBuf>,
    /// The files that came for the driver.
    pub driver_files: Option<PathBuf>,
    /// Where its tasks may make folders of their own.
    pub scratch: PathBuf,
}

/// Processes that run, by executor. Shared with whoever kills them.
pub(super) type Processes = Arc<Mutex<HashMap<ExecutorId, u32>>>;

/// What executors of this worker share.
#[derive(Debug)]
pub(super) struct Host {
    pub processes: Processes,
    pub limits: Limits,
    pub spares: Spares,
}

/// Starts `launch` from the file `program`, forwards its output and says when there is no more, and
/// returns how it ended, and what has limited it, if it has started.
pub(super) async fn run(
    launch: Launch,
    info: &JobInfo,
    prepared: &Prepared,
    host: &Host,
    (output, silent): (impl Fn(Output) + Clone + 'static, impl FnOnce() + 'static),
) -> (Death, Option<Lease>) {
    let (executor, job) = (launch.executor, launch.job);
    let reader = OutputReader::new(job, launch.worker, launch.source, output);
    let processes = &host.processes;
    let (mut child, lease, pipes) = match process::spawn(&launch, info, prepared, host) {
        Ok(started) => started,
        Err(error) => {
            let reason = format!("{}: {error}", prepared.program.display());
            return (Death::NotStarted { reason }, None);
        }
    };
    // Its end of the socket is its own.
    drop(launch);
    let pid = child.id();
    if let Ok(mut processes) = processes.lock() {
        processes.insert(executor, pid);
    }
    let tail = Tail::default();
    let output = reader.clone().forward(pipes.output, false, None);
    let error = reader.forward(pipes.error, true, Some(tail.clone()));
    let reading = tokio::task::spawn_local(async move {
        tokio::join!(output, error);
        silent();
    });
    let (status, mut verdict) = tokio::select! {
        status = child.wait() => (status, None),
        reason = lease.watch(pid) => {
            kill(processes, executor);
            (child.wait().await, Some(Death::OutOfMemory { reason }))
        }
        seconds = stopped(pid) => {
            kill(processes, executor);
            (child.wait().await, Some(Death::Stopped { seconds }))
        }
    };
    if let Ok(mut processes) = processes.lock() {
        processes.remove(&executor);
    }
    if !status.as_ref().is_ok_and(ExitStatus::success) {
        // An error is a panic there, which was printed.
        let _ = tokio::task::spawn_blocking(move || end_session(pid)).await;
    }
    let abort = reading.abort_handle();
    if tokio::time::timeout(OUTPUT_GRACE, reading).await.is_err() {
        abort.abort();
    }
    let death = death(status, tail.text());
    if let Death::Killed { signal: libc::SIGKILL, .. } = &death {
        verdict =
            verdict.or_else(|| lease.kernel_verdict().map(|reason| Death::OutOfMemory { reason }));
    }
    if let Death::Killed { signal: libc::SIGABRT, stderr } = &death
        && lease.data_limit().is_some()
        && stderr.contains(ALLOCATION_FAILED)
    {
        verdict = Some(Death::OutOfMemory { reason: stderr.trim().to_owned() });
    }
    (verdict.unwrap_or(death), Some(lease))
}

/// Ends when the process has been stopped for [`STOPPED_LOOKS`] looks in turn; says how long. One
/// that a debugger holds does not count. Looks are counted, not time, so that a worker that was
/// stopped itself blames nobody for it.
async fn stopped(pid: u32) -> u64 {
    let mut looks = 0;
    loop {
        tokio::time::sleep(STOPPED_EVERY).await;
        looks = if is_stopped(pid) { looks + 1 } else { 0 };
        if looks == STOPPED_LOOKS {
            return STOPPED_EVERY.as_secs() * u64::from(looks);
        }
    }
}

fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name stands in parentheses and may hold anything; then comes the state.
    let state = stat.iter().rposition(|byte| *byte == b')').and_then(|end| stat.get(end + 2));
    state == Some(&b'T')
}

fn death(status: std::io::Result<ExitStatus>, stderr: String) -> Death {
    match status {
        Ok(status) => match (status.signal(), status.code()) {
            (Some(signal), _) => Death::Killed { signal, stderr },
            (None, code) => Death::Exited { status: code.unwrap_or(-1), stderr },
        },
        Err(error) => Death::NotStarted { reason: format!("its end cannot be awaited: {error}") },
    }
}

/// Ends what an executor that was killed has left behind: the processes of its session. Their
/// session's number is not given to another process while one of them lives.
fn end_session(session: u32) {
    let Ok(entries) = std::fs::read_dir("/proc") else { return };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for pid in pids {
        // SAFETY: two system calls without memory. What has ended meanwhile is in no session.
        unsafe {
            if libc::getsid(pid) == session.cast_signed() {
                libc::kill(pid, libc::SIGKILL);
            }
        }
    }
}

/// Ends all executors, with all that they started.
pub(super) fn end_all(processes: &Processes) {
    let Ok(processes) = processes.lock() else { return };
    processes.values().for_each(|session| end_session(*session));
}

/// Ends an executor's whole process group.
pub(super) fn kill(processes: &Processes, executor: ExecutorId) {
    let Ok(processes) = processes.lock() else { return };
    if let Some(group) =
        processes.get(&executor).and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()))
    {
        // It may have ended by itself meanwhile; its entry is removed only after it was reaped,
        // so the number still names it.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

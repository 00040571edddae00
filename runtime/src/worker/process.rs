//! An executor's process: what it is started with, and its end.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe::Receiver;

use super::launch::{Host, Launch, Prepared};
use super::limits::Lease;
use crate::executor::inherited::socket_text;
use crate::executor::{DRIVER_FILES, EXECUTOR_FD, SCRATCH};
use crate::machine::VISIBLE_GPUS;
use crate::spawn::{Leads, Start, Started, start};
use crate::wire::cluster::JobInfo;

/// A process that runs; it is killed when this is dropped before its end was seen.
#[derive(Debug)]
pub(super) struct Child {
    pid: Pid,
    /// Readable once it has ended.
    pidfd: AsyncFd<OwnedFd>,
    has_ended: bool,
}

/// What it prints.
#[derive(Debug)]
pub(super) struct Pipes {
    pub output: Receiver,
    pub error: Receiver,
}

/// Starts an executor, or lets a spare process begin as it. The calling thread is its parent: when
/// that ends, so does the process.
pub(super) fn spawn(
    launch: &Launch,
    job: &JobInfo,
    prepared: &Prepared,
    host: &Host,
) -> io::Result<(Child, Lease, Pipes)> {
    let program = c_string(prepared.program.as_os_str())?;
    let arguments = job.arguments.iter().map(|argument| c_string(OsStr::new(argument)));
    let arguments: Vec<CString> =
        [Ok(program.clone())].into_iter().chain(arguments).collect::<Result<_, _>>()?;
    let environment = environment(launch, job, prepared)?;
    let folder = match &prepared.working {
        Some(folder) => Some(folder.as_path()),
        None => Some(Path::new(&job.working_directory)).filter(|folder| folder.is_dir()),
    };
    let folder = folder.map(|folder| c_string(folder.as_os_str())).transpose()?;
    let nothing = nothing()?;
    let (output, their_output) = io::pipe()?;
    let (error, their_error) = io::pipe()?;
    let order = Start {
        program: &program,
        arguments: &arguments,
        environment: &environment.iter().map(CString::as_c_str).collect::<Vec<_>>(),
        folder: folder.as_deref(),
        streams: [nothing.as_fd(), their_output.as_fd(), their_error.as_fd()],
        leads: Leads::Session,
        inherited: Some(launch.socket.as_fd()),
        doors: &[],
        data_limit: None,
    };
    let (child, lease) = match host.spares.begin(&order, (&host.limits, launch.limit)) {
        Some(begun) => begun,
        None => {
            let lease = host.limits.lease(&launch.executor.to_string(), launch.limit);
            let (doors, data_limit) = (lease.doors(), lease.data_limit());
            (Child::new(start(&Start { doors: &doors, data_limit, ..order })?)?, lease)
        }
    };
    let receiver = |pipe: io::PipeReader| Receiver::from_owned_fd(pipe.into());
    Ok((child, lease, Pipes { output: receiver(output)?, error: receiver(error)? }))
}

/// What a process reads that is given nothing.
pub(super) fn nothing() -> io::Result<File> {
    File::open("/dev/null")
}

/// This process's variables, with those of the job and of the executor on top.
fn environment(launch: &Launch, job: &JobInfo, prepared: &Prepared) -> io::Result<Vec<CString>> {
    let threads = (launch.limit.cpus.ceil() as u32).max(1);
    let mut all: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    let mut set = |name: &str, value: &OsStr| all.insert(name.into(), value.to_owned());
    set("OMP_NUM_THREADS", threads.to_string().as_ref());
    // Two spinning OpenMP threads on a busy 2-core machine ran 34 times slower.
    set("OMP_WAIT_POLICY", "PASSIVE".as_ref());
    // Who asked for no GPU takes none that others hold, unless the job says so itself.
    set(VISIBLE_GPUS, launch.gpus.as_ref());
    for (name, value) in &job.environment {
        set(name, value.as_ref());
    }
    if !launch.gpus.is_empty() {
        set(VISIBLE_GPUS, launch.gpus.as_ref());
    }
    set(SCRATCH, prepared.scratch.as_os_str());
    set(EXECUTOR_FD, socket_text(launch.socket.as_fd()).as_ref());
    if let Some(folder) = &prepared.driver_files {
        set(DRIVER_FILES, folder.as_os_str());
    }
    c_strings(all)
}

/// This process's variables, with the number of an executor's end of a socket.
pub(super) fn spare_environment(socket: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut all: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    all.insert(EXECUTOR_FD.into(), socket_text(socket).into());
    c_strings(all)
}

fn c_strings(variables: BTreeMap<OsString, OsString>) -> io::Result<Vec<CString>> {
    let text = |(mut name, value): (OsString, OsString)| {
        name.push("=");
        name.push(value);
        c_string(&name)
    };
    variables.into_iter().map(text).collect()
}

pub(super) fn c_string(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| {
        let what = format!("{text:?} holds a zero byte, which no argument and no variable may");
        io::Error::new(io::ErrorKind::InvalidInput, what)
    })
}

impl Child {
    pub(super) fn new(started: Started) -> io::Result<Self> {
        let Started { pid, pidfd } = started;
        let pid =
            Pid::from_raw(pid).ok_or_else(|| io::Error::other("a process without a number"))?;
        // Safety: an owned descriptor is valid for as long as it lives, and stays where it is.
        match unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) } {
            Ok(pidfd) => Ok(Self { pid, pidfd, has_ended: false }),
            Err(error) => {
                end(pid);
                Err(error.into())
            }
        }
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// Waits for its end. Dropping the future changes nothing.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let _ready = self.pidfd.readable().await?;
        self.has_ended = true;
        let status = rustix::io::retry_on_intr(|| waitpid(Some(self.pid), WaitOptions::empty()))?;
        let (_, status) = status.ok_or_else(|| io::Error::other("it has no status"))?;
        Ok(ExitStatus::from_raw(status.as_raw()))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.has_ended {
            end(self.pid);
        }
    }
}

/// Kills a child of ours that was not reaped yet.
fn end(pid: Pid) {
    // It may have ended by itself, and what ends slowly is reaped by whoever comes after us.
    let _ = kill_process(pid, Signal::KILL);
    let _ = waitpid(Some(pid), WaitOptions::NOHANG);
}

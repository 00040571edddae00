//! How a process that was started ahead of need begins as an executor: see `worker::spares`.
//!
//! All of this happens before the process has a second thread.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::sync::Arc;

use super::process::ConnectError;
use crate::store::LocalSocket;
use crate::store::local_socket::Received;
use crate::wire::executor::SocketMessage;

/// The first message for an executor, and the socket that it came over: in a spare process, the one
/// that it is given with what makes it an executor.
pub(super) fn first_message(fd: OwnedFd) -> Result<(Arc<LocalSocket>, Received), ConnectError> {
    let socket = Arc::new(LocalSocket::from_fd(fd));
    let (message, fds) = socket.recv()?;
    let SocketMessage::Begin { environment, folder, data_limit } = message else {
        return Ok((socket, (message, fds)));
    };
    let given = begin(environment, folder, data_limit, fds).map_err(ConnectError::NotBegun)?;
    let socket = Arc::new(LocalSocket::from_fd(given));
    let received = socket.recv()?;
    Ok((socket, received))
}

/// Takes on variables, folder, output and limits. Gives the socket with the executor's welcome.
fn begin(
    environment: Vec<Vec<u8>>,
    folder: Option<Vec<u8>>,
    data_limit: Option<u64>,
    fds: Vec<OwnedFd>,
) -> io::Result<OwnedFd> {
    let Ok([socket, output, error]) = <[OwnedFd; 3]>::try_from(fds) else {
        return Err(io::Error::other("it came without its descriptors"));
    };
    if let Some(bytes) = data_limit {
        let limit = rustix::process::Rlimit { current: Some(bytes), maximum: Some(bytes) };
        rustix::process::setrlimit(rustix::process::Resource::Data, limit)?;
    }
    rustix::stdio::dup2_stdout(output)?;
    rustix::stdio::dup2_stderr(error)?;
    if let Some(folder) = folder {
        std::env::set_current_dir(OsString::from_vec(folder))?;
    }
    take_on(&environment);
    Ok(socket)
}

fn take_on(environment: &[Vec<u8>]) {
    let before: Vec<OsString> = std::env::vars_os().map(|(name, _)| name).collect();
    let now = environment.iter().filter_map(|text| {
        // A name may begin with the sign, as the system's own do on some machines.
        let middle = 1 + text.get(1..)?.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (&text[..middle], &text[middle + 1..]);
        Some((OsStr::from_bytes(name), OsStr::from_bytes(value)))
    });
    // Safety: no other thread runs yet that could read the environment.
    unsafe {
        before.iter().for_each(|name| std::env::remove_var(name));
        now.filter(|(name, _)| *name != super::EXECUTOR_FD)
            .for_each(|(name, value)| std::env::set_var(name, value));
    }
}

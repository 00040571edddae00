//! What a worker gives to a process that it starts: a socket, over which comes the rest.
//!
//! ```text
//! executor   RDIST_EXECUTOR_FD   the socket with `Welcome`
//! spare      RDIST_EXECUTOR_FD   a socket; when a job wants the process, over it comes `Begin`
//!                                with variables, folder and output, and the socket with `Welcome`
//! ```
//! All of this happens before the process has a second thread. `worker::spares` has the other side.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::sync::Arc;

use dashmap::DashMap;

use super::registry::RegistryError;
use crate::ring::RingError;
use crate::store::local_socket::Received;
use crate::store::{LocalSocket, SocketError};
use crate::wire::PROTOCOL_VERSION;
use crate::wire::executor::SocketMessage;

/// A connection that cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error(
        "RDIST_EXECUTOR_FD is `{0}`, and names no inherited socket; it is set by `rdist worker` \
         for the processes that it starts, and is not for people to set"
    )]
    Descriptor(String),
    #[error(
        "this program speaks version {PROTOCOL_VERSION} of rdist's protocol, and its worker \
         version {0}: build the program with the rdist that the cluster runs"
    )]
    OtherVersion(String),
    #[error("no welcome from the worker: {0}")]
    Socket(#[from] SocketError),
    #[error("the worker's first message was not its welcome but {0}")]
    NotWelcome(String),
    #[error("a process that was started ahead of need cannot begin: {0}")]
    NotBegun(io::Error),
    #[error("the worker's rings: {0}")]
    Ring(#[from] RingError),
    #[error("no descriptor is left: {0}")]
    Descriptors(#[from] io::Error),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("this process is connected to a worker already")]
    Twice,
}

/// The value of [`EXECUTOR_FD`](super::EXECUTOR_FD) for a process that inherits `socket`.
pub fn socket_text(socket: BorrowedFd<'_>) -> String {
    format!("{PROTOCOL_VERSION}:{}", socket.as_raw_fd())
}

/// The socket that such a value names; a child process of user code will not have it.
pub(super) fn socket(text: &str) -> Result<OwnedFd, ConnectError> {
    let wrong = || ConnectError::Descriptor(text.to_owned());
    let (version, number) = text.split_once(':').ok_or_else(wrong)?;
    if version != PROTOCOL_VERSION.to_string() {
        return Err(ConnectError::OtherVersion(version.to_owned()));
    }
    let number: i32 = number.parse().map_err(|_| wrong())?;
    // Safety: `fcntl` on any number is harmless; below, the number is known to be open, and
    // nobody else in this process knows of it: the worker opened it for this purpose alone.
    if number <= 2 || unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(wrong());
    }
    // Safety: see above.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The first message for an executor, and the socket that it came over: in a spare process, the one
/// that it is given with what makes it an executor.
pub(super) fn first_message(fd: OwnedFd) -> Result<(Arc<LocalSocket>, Received), ConnectError> {
    let socket = Arc::new(LocalSocket::from_fd(fd));
    // The first of these maps counts the CPUs, by a dozen files: a spare has the time for it now.
    drop(DashMap::<(), ()>::new());
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

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_socket_is_named_with_the_protocol_that_is_spoken_over_it() {
        let (ours, theirs) = LocalSocket::pair().unwrap();
        let text = socket_text(theirs.as_fd());
        std::mem::forget(theirs);
        drop(LocalSocket::from_fd(socket(&text).unwrap()));
        assert!(matches!(ours.recv(), Err(SocketError::Closed)));

        let refused = |text: &str| socket(text).unwrap_err().to_string();
        for text in ["17", "", &format!("{PROTOCOL_VERSION}:"), &format!("{PROTOCOL_VERSION}:2")] {
            assert!(refused(text).contains("names no inherited socket"), "{}", refused(text));
        }
        assert!(refused("0:17").contains("its worker version 0: build the program"));
    }
}

//! The Unix socket between a worker and one executor: whole messages, with descriptors.
//!
//! Order and boundaries are the kernel's (`SOCK_SEQPACKET`). An end of file is the other side's
//! death, or its wish to end. Descriptors that arrive are closed on exec.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};

use crate::wire::executor::SocketMessage;
use crate::wire::{self, Malformed};

/// Largest message.
pub const MAX_MESSAGE_BYTES: usize = 16 << 10;
/// Most descriptors with one message.
pub const MAX_DESCRIPTORS: usize = 4;

/// A socket that no longer works.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The peer has closed its end, or died.
    #[error("the peer closed the local socket")]
    Closed,
    /// No valid message.
    #[error("over the local socket came a {0}")]
    Malformed(#[from] Malformed),
    /// Cut short: longer than any valid message, or with more descriptors.
    #[error("over the local socket came a message that is too long or has too many descriptors")]
    TooLong,
    /// The kernel refused.
    #[error("the local socket failed: {0}")]
    Io(#[from] Errno),
}

/// A message and the descriptors that came with it.
pub type Received = (SocketMessage, Vec<OwnedFd>);

/// One end of the socket.
#[derive(Debug)]
pub struct LocalSocket {
    fd: OwnedFd,
}

impl LocalSocket {
    /// Both ends; each is closed on exec.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn pair() -> Result<(Self, Self), SocketError> {
        let flags = SocketFlags::CLOEXEC;
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self { fd: a }, Self { fd: b }))
    }

    /// An end that was inherited.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// The descriptor itself, for the process to inherit.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Sends a message; waits while the socket is full.
    ///
    /// # Errors
    /// [`SocketError::Closed`] when the peer is gone.
    pub fn send(&self, message: &SocketMessage, fds: &[BorrowedFd<'_>]) -> Result<(), SocketError> {
        self.send_with(message, fds, SendFlags::empty()).map(|_| ())
    }

    /// Sends a message; `Ok(false)` when the socket is full.
    ///
    /// # Errors
    /// [`SocketError::Closed`] when the peer is gone.
    pub fn try_send(
        &self,
        message: &SocketMessage,
        fds: &[BorrowedFd<'_>],
    ) -> Result<bool, SocketError> {
        self.send_with(message, fds, SendFlags::DONTWAIT)
    }

    /// Waits for a message.
    ///
    /// # Errors
    /// [`SocketError`]; all are final.
    pub fn recv(&self) -> Result<Received, SocketError> {
        loop {
            if let Some(received) = self.recv_with(RecvFlags::empty())? {
                return Ok(received);
            }
        }
    }

    /// A message that has arrived.
    ///
    /// # Errors
    /// [`SocketError`]; all are final.
    pub fn try_recv(&self) -> Result<Option<Received>, SocketError> {
        self.recv_with(RecvFlags::DONTWAIT)
    }

    fn send_with(
        &self,
        message: &SocketMessage,
        fds: &[BorrowedFd<'_>],
        flags: SendFlags,
    ) -> Result<bool, SocketError> {
        let bytes = wire::encode(message);
        if bytes.len() > MAX_MESSAGE_BYTES || fds.len() > MAX_DESCRIPTORS {
            return Err(SocketError::TooLong);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(SocketError::TooLong);
        }
        let flags = flags | SendFlags::NOSIGNAL;
        loop {
            match sendmsg(&self.fd, &[IoSlice::new(&bytes)], &mut control, flags) {
                Ok(_) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => {
                    return Err(SocketError::Closed);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// `None`: nothing there.
    fn recv_with(&self, flags: RecvFlags) -> Result<Option<Received>, SocketError> {
        let mut bytes = [0_u8; MAX_MESSAGE_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        let message = loop {
            let mut buffers = [IoSliceMut::new(&mut bytes)];
            match recvmsg(&self.fd, &mut buffers, &mut control, flags) {
                Ok(message) => break message,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::CONNRESET) => return Err(SocketError::Closed),
                Err(error) => return Err(error.into()),
            }
        };
        let mut fds = Vec::new();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = part {
                fds.extend(rights);
            }
        }
        if message.bytes == 0 {
            return Err(SocketError::Closed);
        }
        if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(SocketError::TooLong);
        }
        Ok(Some((wire::decode(&bytes[..message.bytes])?, fds)))
    }
}

impl AsFd for LocalSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};

    use super::*;

    #[test]
    fn messages_keep_their_bounds_and_their_descriptors() {
        let (a, b) = LocalSocket::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"through").unwrap();
        file.rewind().unwrap();
        let first = SocketMessage::Segment { segment: 3, len: 64, writable: true };
        let second = SocketMessage::SegmentRefused { reason: "full".to_owned() };
        a.send(&first, &[file.as_fd()]).unwrap();
        assert!(a.try_send(&second, &[]).unwrap());

        let (message, mut fds) = b.recv().unwrap();
        assert_eq!(message, first);
        assert_eq!(fds.len(), 1);
        let mut text = String::new();
        File::from(fds.remove(0)).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        assert_eq!(b.try_recv().unwrap().unwrap().0, second);
        assert!(b.try_recv().unwrap().is_none());
    }

    #[test]
    fn a_full_socket_does_not_block_and_an_end_is_noticed() {
        let (a, b) = LocalSocket::pair().unwrap();
        let message = SocketMessage::SegmentRefused { reason: "x".repeat(8_000) };
        let sent = (0..100_000).take_while(|_| a.try_send(&message, &[]).unwrap()).count();
        assert!(sent > 0 && sent < 100_000);
        for _ in 0..sent {
            b.recv().unwrap();
        }
        drop(a);
        assert!(matches!(b.recv(), Err(SocketError::Closed)));
        assert!(matches!(b.send(&message, &[]), Err(SocketError::Closed)));
    }

    #[test]
    fn garbage_is_refused() {
        let (a, b) = LocalSocket::pair().unwrap();
        rustix::net::send(&a.fd, &[0xff; 100], SendFlags::empty()).unwrap();
        assert!(matches!(b.recv(), Err(SocketError::Malformed(_))));
        rustix::net::send(&a.fd, &[0; MAX_MESSAGE_BYTES + 1], SendFlags::empty()).unwrap();
        assert!(matches!(b.recv(), Err(SocketError::TooLong)));
    }
}

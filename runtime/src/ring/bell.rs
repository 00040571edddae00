//! What a sleeping side waits for: an eventfd.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

/// A counter that can be waited for. Rings are remembered: a ring before the wait ends it at
/// once. One bell serves all rings of a process, and anything else that it waits for.
#[derive(Debug)]
pub struct Bell {
    eventfd: OwnedFd,
}

impl Bell {
    /// A new bell.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn new() -> io::Result<Self> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { eventfd })
    }

    /// A bell that came from another process.
    pub fn from_fd(eventfd: OwnedFd) -> Self {
        Self { eventfd }
    }

    /// Ends the present wait, or the next one.
    pub fn ring(&self) {
        loop {
            match rustix::io::write(&self.eventfd, &1_u64.to_ne_bytes()) {
                Err(Errno::INTR) => {}
                // A full counter rings as well; a descriptor that is no bell cannot be helped.
                _ => return,
            }
        }
    }

    /// Forgets the rings so far; whether there were any. Do so after a wait in `poll`, and before
    /// looking at what the ring was about.
    pub fn drain(&self) -> bool {
        let mut count = [0_u8; 8];
        loop {
            match rustix::io::read(&self.eventfd, &mut count) {
                Err(Errno::INTR) => {}
                result => return result.is_ok(),
            }
        }
    }

    /// Waits for a ring and forgets it; false after `timeout` without one.
    ///
    /// # Errors
    /// Those of `poll`.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let mut fds = [PollFd::new(&self.eventfd, PollFlags::IN)];
            match poll(&mut fds, left.map(timespec).as_ref()) {
                Ok(0) => return Ok(false),
                // Another thread may have taken the ring.
                Ok(_) if self.drain() => return Ok(true),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

/// For `poll`.
fn timespec(duration: Duration) -> Timespec {
    let tv_sec = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    Timespec { tv_sec, tv_nsec: i64::from(duration.subsec_nanos()) }
}

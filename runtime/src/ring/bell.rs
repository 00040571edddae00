//! What a sleeping side waits for: an eventfd.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::thread::sched_getcpu;

/// A counter that can be waited for. Rings are remembered: a ring before the wait ends it at
/// once. One bell serves all rings of a process, and anything else that it waits for.
///
/// A ring adds 1 to the lower half of the counter, and to the upper half the number of the core
/// that it comes from, so that a single one says where that was.
#[derive(Debug)]
pub struct Bell {
    eventfd: OwnedFd,
}

/// Where rings came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rung {
    /// One ring, from the core on which the present thread runs. Whoever rang is likely to wait
    /// for that core.
    FromHere,
    /// Another one, or several.
    Elsewhere,
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
        let ring = one_ring().to_ne_bytes();
        loop {
            match rustix::io::write(&self.eventfd, &ring) {
                Err(Errno::INTR) => {}
                // A full counter rings as well; a descriptor that is no bell cannot be helped.
                _ => return,
            }
        }
    }

    /// Forgets the rings so far; `None`: there were none. Do so after a wait in `poll`, and before
    /// looking at what the ring was about.
    pub fn drain(&self) -> Option<Rung> {
        let mut rings = [0_u8; 8];
        loop {
            match rustix::io::read(&self.eventfd, &mut rings) {
                Ok(_) if u64::from_ne_bytes(rings) == one_ring() => return Some(Rung::FromHere),
                Ok(_) => return Some(Rung::Elsewhere),
                Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        }
    }

    /// Waits for a ring and forgets it; `None` after `timeout` without one.
    ///
    /// # Errors
    /// Those of `poll`.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<Option<Rung>> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let mut fds = [PollFd::new(&self.eventfd, PollFlags::IN)];
            match poll(&mut fds, left.map(timespec).as_ref()) {
                Ok(0) => return Ok(None),
                Ok(_) => {
                    // Another thread may have taken the ring.
                    if let Some(rung) = self.drain() {
                        return Ok(Some(rung));
                    }
                }
                Err(Errno::INTR) => {}
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

/// What one ring from the present thread's core adds.
fn one_ring() -> u64 {
    (sched_getcpu() as u64) << 32 | 1
}

/// For `poll`.
fn timespec(duration: Duration) -> Timespec {
    let tv_sec = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    Timespec { tv_sec, tv_nsec: i64::from(duration.subsec_nanos()) }
}

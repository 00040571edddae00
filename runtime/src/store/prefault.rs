//! Gets pages before anyone waits for them.
//!
//! The first touch of a fresh page costs the kernel more than ten copies of it. A thread of lowest
//! priority allocates the pages of new segments, piece by piece, while their first writer is
//! still busy with other things. Running late costs nothing: a page that is there already is
//! passed over.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::thread;

use rustix::fs::{FallocateFlags, fallocate};

/// Bytes that are allocated in one call; between calls the thread can be preempted.
const STEP_BYTES: u64 = 1 << 20;
/// `nice` of the thread.
const LOWEST_PRIORITY: i32 = 19;

/// The thread; ends when this is dropped.
#[derive(Debug)]
pub(super) struct Prefault {
    wanted: mpsc::Sender<(OwnedFd, u64)>,
}

impl Prefault {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Self> {
        let (wanted, receiver) = mpsc::channel::<(OwnedFd, u64)>();
        thread::Builder::new().name("rdist-prefault".to_owned()).spawn(move || {
            let this_thread = rustix::thread::gettid();
            // Without it the pages come all the same.
            let _ = rustix::process::setpriority_process(Some(this_thread), LOWEST_PRIORITY);
            for (fd, len) in receiver {
                allocate(&fd, len);
            }
        })?;
        Ok(Self { wanted })
    }

    /// Allocates a memory file's pages soon.
    pub(super) fn want(&self, fd: OwnedFd, len: u64) {
        // A thread that has ended leaves the pages to their first touch.
        let _ = self.wanted.send((fd, len));
    }
}

/// Allocates all pages; stops where memory runs out.
fn allocate(fd: &OwnedFd, len: u64) {
    let mut offset = 0;
    while offset < len {
        let step = STEP_BYTES.min(len - offset);
        if fallocate(fd, FallocateFlags::empty(), offset, step).is_err() {
            return;
        }
        offset += step;
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::fstat;

    use super::super::memory::create_memory_file;
    use super::*;

    #[test]
    fn pages_are_there_afterwards() {
        let len = 3 << 20;
        let fd = create_memory_file("test", len).unwrap();
        assert_eq!(fstat(&fd).unwrap().st_blocks, 0);
        allocate(&fd, len);
        assert_eq!(fstat(&fd).unwrap().st_blocks as u64 * 512, len);
    }
}

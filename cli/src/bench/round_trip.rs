//! A round trip between two processes through shared memory, and nothing else: no call is faster.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use rdist::ring::Spin;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use rustix::process::{Pid, WaitOptions, waitpid};

use super::measure::{Measured, Pace, measure};

/// A page that two processes share: each writes into its own line of the caches.
#[repr(C, align(128))]
struct Line(AtomicU64);

/// What one side says to make the other one end.
const END: u64 = u64::MAX;

/// A process that answers each number with the same one, as quickly as the rings' way of waiting
/// allows: what a call of another process takes at least.
pub(super) struct Peer {
    lines: &'static [Line; 2],
    child: Pid,
}

impl Peer {
    pub(super) fn start() -> anyhow::Result<Self> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // Safety: a new mapping, at an address that the kernel chooses.
        let page = unsafe {
            mmap_anonymous(std::ptr::null_mut(), size_of::<[Line; 2]>(), protection, flags)
        };
        let page = page.context("mapping a page that two processes share")?;
        // Safety: the mapping is large enough, aligned to a page, zero (a valid number), and is
        // unmapped by `drop` alone, after the last use.
        let lines = unsafe { &*page.cast::<[Line; 2]>() };
        // Safety: this process has one thread, so the child may go on as it likes; it calls
        // nothing that needs more than its own stack and the shared page.
        match unsafe { libc::fork() } {
            0 => {
                // Safety: asks for this child's end with its parent's; touches no memory.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
                answer(lines);
                // Safety: ends the child without the destructors of its parent.
                unsafe { libc::_exit(0) }
            }
            child => {
                let error = std::io::Error::last_os_error();
                let child = Pid::from_raw(child).filter(|_| child > 0);
                Ok(Self { lines, child: child.ok_or(error).context("starting a process")? })
            }
        }
    }

    pub(super) fn round_trips(&self, pace: Pace) -> Measured {
        let [to, from] = self.lines;
        let (mut spin, mut number) = (Spin::new(), 0);
        let Ok(measured) = measure(pace, 1.0, || {
            number += 1;
            to.0.store(number, Ordering::Release);
            wait(&mut spin, || from.0.load(Ordering::Acquire) == number);
            Ok::<(), std::convert::Infallible>(())
        });
        measured
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.lines[0].0.store(END, Ordering::Release);
        // It ends by itself; there is nobody to tell if it cannot be waited for.
        let _ = waitpid(Some(self.child), WaitOptions::empty());
        let page = std::ptr::from_ref(self.lines).cast_mut().cast();
        // Safety: mapped by `start`, and used by nobody any longer.
        let _ = unsafe { munmap(page, size_of::<[Line; 2]>()) };
    }
}

/// The other process.
fn answer([from, to]: &[Line; 2]) {
    let (mut spin, mut last) = (Spin::new(), 0);
    while last != END {
        let mut number = last;
        wait(&mut spin, || {
            number = from.0.load(Ordering::Acquire);
            number != last
        });
        to.0.store(number, Ordering::Release);
        last = number;
    }
}

fn wait(spin: &mut Spin, mut is_over: impl FnMut() -> bool) {
    while !is_over() {
        // Where the rings would sleep, this waits on: the limit is that of two awake processes.
        let _ = spin.again();
    }
    spin.progress();
}

//! Which task prints what. The tasks of a process share its standard output and standard error,
//! and several run at a time; so whenever another task prints, the stream is marked first, and
//! the worker, which reads it, knows of each line whose it is.
//!
//! Marks are made where all printing ends up: this module defines `write` of the C library for
//! the whole program, in front of the library's own. `print!` and the streams of C++ libraries
//! come through here; a child process that inherits the streams does not, and its lines count as
//! those of whoever printed last.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rdist_scheduler::id::TaskId;

use crate::wire::executor::{MARK_BYTES, mark_output};

thread_local! {
    /// The task whose code this thread runs.
    static WRITER: Cell<Option<TaskId>> = const { Cell::new(None) };
}

/// Whether anybody reads marks: this process is an executor.
static IS_MARKED: AtomicBool = AtomicBool::new(false);

/// Who printed last, on standard output and on standard error.
static LAST: [Mutex<Option<TaskId>>; 2] = [Mutex::new(None), Mutex::new(None)];

/// From now on, what tasks print is marked.
pub(super) fn start_marks() {
    IS_MARKED.store(true, Ordering::Relaxed);
}

/// Says whose code this thread runs from now on; gives what was said before.
pub(crate) fn set_writer(task: Option<TaskId>) -> Option<TaskId> {
    WRITER.replace(task)
}

/// The C library's `write`.
///
/// # Safety
/// `bytes` points to `len` bytes that can be read, or the kernel says `EFAULT`.
#[unsafe(no_mangle)]
unsafe extern "C" fn write(descriptor: c_int, bytes: *const c_void, len: usize) -> isize {
    let stream = match descriptor {
        1 | 2 if IS_MARKED.load(Ordering::Relaxed) => &LAST[descriptor as usize - 1],
        // Safety: the caller's promise is that of the system call.
        _ => return unsafe { system_write(descriptor, bytes, len) },
    };
    // A thread at its end belongs to no task any more.
    let writer = WRITER.try_with(Cell::get).ok().flatten();
    let mut last = stream.lock().unwrap_or_else(PoisonError::into_inner);
    if *last != writer {
        *last = writer;
        let mark = mark_output(writer);
        let mut sent = 0;
        while sent < MARK_BYTES {
            let rest = &mark[sent..];
            // Safety: `rest` is a slice of ours.
            let count = unsafe { system_write(descriptor, rest.as_ptr().cast(), rest.len()) };
            match usize::try_from(count) {
                Ok(count) => sent += count,
                // Interrupted; any other error meets the caller's own bytes, too.
                Err(_) if std::io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) => {}
                Err(_) => break,
            }
        }
    }
    // Safety: the caller's promise is that of the system call.
    unsafe { system_write(descriptor, bytes, len) }
}

/// # Safety
/// As for `write`.
unsafe fn system_write(descriptor: c_int, bytes: *const c_void, len: usize) -> isize {
    // Safety: the kernel checks all three arguments.
    unsafe { libc::syscall(libc::SYS_write, descriptor, bytes, len) as isize }
}

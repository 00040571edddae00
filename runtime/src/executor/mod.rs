//! The process side: the user's program, started by a worker, running tasks and actors.
//!
//! ```text
//! process     the connection: rings, socket, store; what arrives goes to objects and slots
//! inbound     all rings that are read here: the worker's, and those of other executors
//! wait        waiting threads read the rings, in turns
//! direct      calls of actors, and short tasks, past the worker
//! outbox      sending, from any thread
//! objects     what this process refers to
//! slots       threads that run work, made on demand
//! turns       short tasks that wait here for the end of others
//! run         one task: arguments, call, result, panics
//! running     what its context and its cancellation share
//! mailbox     one actor: its state and its calls, in order
//! concurrent  one actor whose calls run beside each other
//! call_task   a call that waits without a thread
//! saving      one actor that saves its state, and tells the ends of calls with it
//! yielding    what a task that yields has to know of its consumer
//! registry    the program's functions
//! launch      how `main` finds out what this process is for
//! inherited   what the worker gives to a process that it starts, at once or later
//! submission  a program that a person started: it submits itself
//! ```
//! One process has one connection for its whole life ([`Process::current`]); the end of the worker
//! is the end of the process. The executor trusts its worker and nobody else talks to it.

pub(crate) mod call_task;
pub(crate) mod concurrent;
pub(crate) mod cover;
pub(crate) mod detached;
pub(crate) mod direct;
pub(crate) mod inbound;
pub(crate) mod inherited;
mod known;
pub(crate) mod launch;
pub(crate) mod mailbox;
pub(crate) mod objects;
pub(crate) mod outbox;
pub(crate) mod output;
pub(crate) mod panic;
pub(crate) mod process;
mod questions;
pub(crate) mod registry;
pub(crate) mod run;
pub(crate) mod running;
pub(crate) mod saving;
mod seats;
pub(crate) mod settled;
pub(crate) mod slots;
pub(crate) mod submission;
pub(crate) mod turns;
pub(crate) mod wait;
pub(crate) mod yielding;

/// Environment variable with the version of the protocol, a colon, and the number of the inherited
/// socket: `2:17`.
pub const EXECUTOR_FD: &str = "RDIST_EXECUTOR_FD";

/// Environment variable with a folder of the job's own on its worker, where tasks may make folders;
/// it is removed when the job has ended.
pub const SCRATCH: &str = "RDIST_SCRATCH";

/// Environment variable of a driver with the folder of the files that came for it alone.
pub const DRIVER_FILES: &str = "RDIST_DRIVER_FILES";

/// Exit status of an executor that cannot go on.
pub const ABANDONED_STATUS: i32 = 70;

/// The connection to the worker is of no use any longer: nobody is left to tell.
pub(crate) fn abandon(reason: &str) -> ! {
    eprintln!("rdist: this process ends: {reason}");
    leave(ABANDONED_STATUS)
}

/// Ends the process with its output written, without running destructors under other threads.
pub(crate) fn leave(status: i32) -> ! {
    use std::io::Write;
    // There is nobody to tell if the pipe is closed.
    let _ = std::io::stdout().flush();
    let _ = std::io::stderr().flush();
    // Safety: `fflush(NULL)` flushes all C streams (libraries in C++ print through them) and
    // `_exit` ends the process; neither touches memory of Rust. The output is let go first: who
    // reads it need not wait until the system has taken the memory back. Its numbers stay taken,
    // so that nothing that other threads open or print meanwhile gets mixed up.
    unsafe {
        libc::fflush(std::ptr::null_mut());
        libc::dup2(libc::STDIN_FILENO, libc::STDOUT_FILENO);
        libc::dup2(libc::STDIN_FILENO, libc::STDERR_FILENO);
        libc::_exit(status)
    }
}

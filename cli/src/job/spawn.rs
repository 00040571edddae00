//! Starts a program without copying this process: `clone` with `CLONE_VM | CLONE_VFORK`, as glibc's
//! `posix_spawn` does, with two things that it cannot do. The child dies with the thread that
//! started it, so that no command outlives a worker that was killed; and its end can be waited for
//! together with its output, through a pidfd.
//!
//! # Safety
//! The child runs on a stack of its own in this process's memory while the calling thread is
//! suspended, until it executes the program or ends. In between it makes system calls only: no
//! allocation, no lock, no panic. All memory that it reads was prepared before by the caller, who
//! holds it until the child is gone from here; the one thing that it writes is `Shared::error`.
//! Signals are blocked from before the `clone` until just before the `execve`, so that no handler
//! of this process runs in the child.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// Bytes of the child's stack; it calls a dozen functions, none of which calls back.
const STACK_BYTES: usize = 64 << 10;

/// What is to be started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start<'a> {
    /// The file.
    pub program: &'a CStr,
    /// Its arguments, its own name first.
    pub arguments: &'a [CString],
    /// `NAME=VALUE` each.
    pub environment: &'a [&'a CStr],
    /// Where.
    pub folder: Option<&'a CStr>,
    /// Standard input, output and error; none of them 0, 1 or 2.
    pub streams: [BorrowedFd<'a>; 3],
}

/// A program that was started; in a process group of its own, whose number is `pid`.
#[derive(Debug)]
pub(super) struct Started {
    pub pid: libc::pid_t,
    /// Readable once it has ended.
    pub pidfd: OwnedFd,
}

/// What the child reads.
struct Shared {
    program: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
    folder: *const c_char,
    streams: [RawFd; 3],
    mask: libc::sigset_t,
    /// Why it could not start.
    error: c_int,
}

/// Starts it; an error where the folder cannot be entered, or the program not be executed.
pub(super) fn start(start: &Start<'_>) -> io::Result<Started> {
    let pointers = |texts: &mut dyn Iterator<Item = &CStr>| -> Vec<*const c_char> {
        texts.map(CStr::as_ptr).chain([ptr::null()]).collect()
    };
    let arguments = pointers(&mut start.arguments.iter().map(CString::as_c_str));
    let environment = pointers(&mut start.environment.iter().copied());
    let mut stack = Vec::<u8>::with_capacity(STACK_BYTES);
    // Safety: the end of the allocation, aligned down to 16 as the ABI wants it.
    let top = unsafe { stack.as_mut_ptr().add(STACK_BYTES) };
    let top = top.wrapping_sub(top.addr() % 16);
    // Safety: a mask is plain numbers.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    let mut shared = Shared {
        program: start.program.as_ptr(),
        arguments: arguments.as_ptr(),
        environment: environment.as_ptr(),
        folder: start.folder.map_or(ptr::null(), CStr::as_ptr),
        streams: start.streams.map(|stream| stream.as_raw_fd()),
        mask: all,
        error: 0,
    };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    let mut pidfd: c_int = -1;
    // Safety: see the module's text; the pointers stay valid, as `CLONE_VFORK` returns only when
    // the child has executed its program or ended. The mask is put back on all ways.
    let pid = unsafe {
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut shared.mask);
        let argument: *mut c_void = (&raw mut shared).cast();
        let pid = libc::clone(child, top.cast(), flags, argument, &raw mut pidfd);
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const shared.mask, ptr::null_mut());
        if pid == -1 {
            return Err(error);
        }
        pid
    };
    // Safety: the kernel has just opened it for us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    // The child wrote it through its pointer.
    // Safety: a plain number of a live variable; the child has ended or executed its program.
    let error = unsafe { (&raw const shared.error).read_volatile() };
    if error != 0 {
        // Safety: waits for our own child, which has ended.
        unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
        return Err(io::Error::from_raw_os_error(error));
    }
    Ok(Started { pid, pidfd })
}

/// The child, up to its new program.
extern "C" fn child(argument: *mut c_void) -> c_int {
    let shared = argument.cast::<Shared>();
    // Safety: `shared` lives in the suspended caller; all calls are system calls on its memory.
    unsafe {
        let failed = prepare(shared) || {
            libc::execve((*shared).program, (*shared).arguments, (*shared).environment);
            true
        };
        if failed {
            (*shared).error = *libc::__errno_location();
        }
        libc::_exit(127)
    }
}

/// Whether something failed.
///
/// # Safety
/// Called in the child, with the caller's `shared`.
unsafe fn prepare(shared: *mut Shared) -> bool {
    // Safety: as above.
    unsafe {
        // Rust ignores it, and ignored signals stay so over `execve`.
        if libc::signal(libc::SIGPIPE, libc::SIG_DFL) == libc::SIG_ERR
            || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == -1
            || libc::setpgid(0, 0) == -1
        {
            return true;
        }
        let mut target = 0;
        while target < 3 {
            if libc::dup2((*shared).streams[target as usize], target) == -1 {
                return true;
            }
            target += 1;
        }
        if !(*shared).folder.is_null() && libc::chdir((*shared).folder) == -1 {
            return true;
        }
        libc::sigprocmask(libc::SIG_SETMASK, &raw const (*shared).mask, ptr::null_mut()) == -1
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read as _;
    use std::os::fd::AsFd as _;

    use super::*;

    fn c(text: &str) -> CString {
        CString::new(text).unwrap()
    }

    fn output(words: &[&str], folder: Option<&str>) -> io::Result<String> {
        let arguments: Vec<CString> = words.iter().map(|word| c(word)).collect();
        let folder = folder.map(c);
        let null = File::open("/dev/null").unwrap();
        let (mut ours, theirs) = io::pipe().unwrap();
        let started = start(&Start {
            program: &arguments[0],
            arguments: &arguments,
            environment: &[c"A=1"],
            folder: folder.as_deref(),
            streams: [null.as_fd(), theirs.as_fd(), theirs.as_fd()],
        })?;
        drop(theirs);
        let mut text = String::new();
        ours.read_to_string(&mut text).unwrap();
        // Safety: waits for our own child.
        assert_eq!(unsafe { libc::waitpid(started.pid, ptr::null_mut(), 0) }, started.pid);
        Ok(text)
    }

    #[test]
    fn a_program_has_its_arguments_its_variables_and_its_folder() {
        let script = "echo $A $1; pwd; cat; ps -o pgid= -p $$ | tr -d ' '; echo $$";
        let text = output(&["/bin/sh", "-c", script, "sh", "two words"], Some("/usr")).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["1 two words", "/usr"]);
        assert_eq!(lines[2], lines[3], "it leads its process group");
    }

    #[test]
    fn a_pipe_that_closes_ends_what_writes_into_it() {
        // With SIGPIPE ignored, `yes` would complain instead.
        let text = output(&["/bin/sh", "-c", "yes | head -1"], None).unwrap();
        assert_eq!(text, "y\n");
    }

    #[test]
    fn what_cannot_start_says_why() {
        let kind = |words: &[&str], folder| output(words, folder).unwrap_err().kind();
        assert_eq!(kind(&["/nowhere/at/all"], None), io::ErrorKind::NotFound);
        assert_eq!(kind(&["/etc/passwd"], None), io::ErrorKind::PermissionDenied);
        assert_eq!(kind(&["/bin/true"], Some("/nowhere")), io::ErrorKind::NotFound);
    }

    /// Many threads at a time, as executors have them.
    #[test]
    fn threads_start_programs_beside_each_other() {
        std::thread::scope(|scope| {
            for thread in 0..8 {
                scope.spawn(move || {
                    for round in 0..20 {
                        let word = format!("{thread}-{round}");
                        let text = output(&["/bin/echo", &word], None).unwrap();
                        assert_eq!(text, format!("{word}\n"));
                    }
                });
            }
        });
    }
}

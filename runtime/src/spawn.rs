//! Starts a program without copying this process: `clone` with `CLONE_VM | CLONE_VFORK`, as glibc's
//! `posix_spawn` does, with what that cannot do: the child dies with the thread that started it, so
//! that nothing outlives a worker that was killed; its end can be waited for together with its
//! output, through a pidfd; and it comes under its limits before it runs.
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
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// Bytes of the child's stack; it calls a dozen functions, none of which calls back.
const STACK_BYTES: usize = 64 << 10;

/// What is to be started.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
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
    /// What the process leads.
    pub leads: Leads,
    /// Another descriptor that it inherits, under the same number.
    pub inherited: Option<BorrowedFd<'a>>,
    /// Files into which it writes `0`, to come into control groups.
    pub doors: &'a [OwnedFd],
    /// Bytes of data that it may have (`RLIMIT_DATA`).
    pub data_limit: Option<u64>,
}

/// What a program that was started leads; the number is its process id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leads {
    /// A process group.
    Group,
    /// A session: its processes are found whatever groups they make.
    Session,
}

/// A program that was started.
#[derive(Debug)]
pub struct Started {
    /// Its process id.
    pub pid: libc::pid_t,
    /// Readable once it has ended.
    pub pidfd: OwnedFd,
}

/// What the child reads.
struct Shared<'a> {
    start: &'a Start<'a>,
    arguments: *const *const c_char,
    environment: *const *const c_char,
    /// This process.
    parent: libc::pid_t,
    mask: libc::sigset_t,
    /// Why it could not start.
    error: c_int,
}

/// Starts it.
///
/// # Errors
/// The system's, where the folder cannot be entered, a limit not be set, or the program not be
/// executed.
pub fn start(start: &Start<'_>) -> io::Result<Started> {
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
        start,
        arguments: arguments.as_ptr(),
        environment: environment.as_ptr(),
        parent: std::process::id().cast_signed(),
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
    let shared = argument.cast::<Shared<'_>>();
    // Safety: `shared` lives in the suspended caller; all calls are system calls on its memory.
    unsafe {
        let failed = prepare(&*shared) || {
            let program = (*shared).start.program.as_ptr();
            libc::execve(program, (*shared).arguments, (*shared).environment);
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
unsafe fn prepare(shared: &Shared<'_>) -> bool {
    let start = shared.start;
    let failed = |result: c_int| result == -1;
    // Safety: as above; system calls on numbers, and on memory that `shared` refers to.
    unsafe {
        let lead = match start.leads {
            Leads::Group => libc::setpgid(0, 0),
            Leads::Session => libc::setsid(),
        };
        // Rust ignores SIGPIPE, and ignored signals stay so over `execve`.
        if failed(lead)
            || libc::signal(libc::SIGPIPE, libc::SIG_DFL) == libc::SIG_ERR
            || failed(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))
            // It may have been killed before that call.
            || libc::getppid() != shared.parent
        {
            return true;
        }
        for (target, stream) in (0..).zip(&start.streams) {
            if failed(libc::dup2(stream.as_raw_fd(), target)) {
                return true;
            }
        }
        if let Some(inherited) = &start.inherited
            && failed(libc::fcntl(inherited.as_raw_fd(), libc::F_SETFD, 0))
        {
            return true;
        }
        for door in start.doors {
            if libc::write(door.as_raw_fd(), b"0".as_ptr().cast(), 1) != 1 {
                return true;
            }
        }
        if let Some(bytes) = start.data_limit {
            let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
            if failed(libc::setrlimit(libc::RLIMIT_DATA, &raw const limit)) {
                return true;
            }
        }
        if let Some(folder) = start.folder
            && failed(libc::chdir(folder.as_ptr()))
        {
            return true;
        }
        failed(libc::sigprocmask(libc::SIG_SETMASK, &raw const shared.mask, ptr::null_mut()))
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
            leads: Leads::Group,
            inherited: None,
            doors: &[],
            data_limit: None,
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

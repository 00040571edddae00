//! One command on this machine: started, watched, ended in time, with its output and what it used.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rdist::spawn::{Leads, Start, Started, start};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::report::{Ended, Usage};
use crate::plan::Invocation;

/// Between the signal that asks a command to end and the one that makes it.
const GRACE: Duration = Duration::from_secs(5);
/// How often a cancelled task is noticed.
const CANCEL_PERIOD: Duration = Duration::from_millis(200);
/// Largest piece of output that is read at once.
const PIECE_BYTES: usize = 64 << 10;
/// Longest line that is held back to be printed whole.
const MAX_LINE_BYTES: usize = 32 << 10;
/// Bytes of the end of standard error that are kept for the report.
const TAIL_BYTES: usize = 2 << 10;

/// What to run, and within which bounds.
pub(super) struct Order<'a> {
    pub command: &'a Invocation,
    /// Variables on top of this process's.
    pub environment: Vec<(String, String)>,
    pub folder: Option<&'a Path>,
    pub time_limit: Option<Duration>,
}

/// How it went.
pub(super) struct Outcome {
    pub ended: Ended,
    pub usage: Usage,
    /// The last of its standard error.
    pub tail: String,
}

/// Runs a command to its end. What it prints is printed here, line by line. What it leaves running
/// in its process group is ended with it.
pub(super) fn run(order: &Order<'_>, is_cancelled: impl Fn() -> bool) -> Outcome {
    let began = Instant::now();
    match Running::start(order) {
        Ok(mut running) => {
            let cut = running.watch(began, order.time_limit, &is_cancelled);
            let (status, mut usage) = running.reap();
            usage.wall = began.elapsed();
            let ended = match (cut, status) {
                (Some(cut), _) => cut,
                (None, Ok(status)) => status,
                (None, Err(error)) => Ended::NotStarted(format!("its end is lost: {error}")),
            };
            Outcome { ended, usage, tail: running.error.tail() }
        }
        Err(error) => {
            let usage = Usage { wall: began.elapsed(), ..Usage::default() };
            Outcome { ended: Ended::NotStarted(error), usage, tail: String::new() }
        }
    }
}

struct Running {
    started: Started,
    output: Stream,
    error: Stream,
}

impl Running {
    fn start(order: &Order<'_>) -> Result<Self, String> {
        let environment = Environment::with(&order.environment)?;
        let path = environment.path(order.folder);
        let (program, arguments) = resolve(order.command, &path)?;
        let folder = order.folder.map(|folder| c_string(folder.as_os_str())).transpose()?;
        let failed = |error: io::Error| format!("no descriptors for its output: {error}");
        let (output, their_output) = io::pipe().map_err(failed)?;
        let (error, their_error) = io::pipe().map_err(failed)?;
        let started = start(&Start {
            program: &program,
            arguments: &arguments,
            environment: &environment.all(),
            folder: folder.as_deref(),
            streams: [null()?.as_fd(), their_output.as_fd(), their_error.as_fd()],
            leads: Leads::Group,
            inherited: None,
            doors: &[],
            data_limit: None,
        });
        let started = started.map_err(|error| {
            let program = program.to_string_lossy();
            let folder = order.folder.map(|path| format!(" in {}", path.display()));
            format!("cannot run {program}{}: {error}", folder.unwrap_or_default())
        })?;
        let (output, error) = (Stream::new(output, false), Stream::new(error, true));
        Ok(Self { started, output, error })
    }

    /// Until it has ended. `Some`: it was ended from here, for that reason.
    fn watch(
        &mut self,
        began: Instant,
        limit: Option<Duration>,
        is_cancelled: &impl Fn() -> bool,
    ) -> Option<Ended> {
        let mut deadline = limit.and_then(|limit| began.checked_add(limit));
        let (mut cut, mut was_asked) = (None, false);
        loop {
            let now = Instant::now();
            if cut.is_none() && is_cancelled() {
                (cut, deadline) = (Some(Ended::Cancelled), Some(now));
            }
            if deadline.is_some_and(|at| at <= now) {
                self.signal(if was_asked { libc::SIGKILL } else { libc::SIGTERM });
                cut.get_or_insert(Ended::TimedOut);
                (was_asked, deadline) = (true, now.checked_add(GRACE));
            }
            let until = deadline.map_or(CANCEL_PERIOD, |at| at.saturating_duration_since(now));
            if self.turn(until.min(CANCEL_PERIOD)) {
                return cut;
            }
        }
    }

    /// Waits for output, the end, or the time. Whether it has ended.
    fn turn(&mut self, timeout: Duration) -> bool {
        let time = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        let mut fds = vec![PollFd::new(&self.started.pidfd, PollFlags::IN)];
        let open: Vec<bool> = [&self.output, &self.error]
            .map(|stream| {
                stream.pipe.as_ref().map(|pipe| fds.push(PollFd::new(pipe, PollFlags::IN)))
            })
            .iter()
            .map(Option::is_some)
            .collect();
        // An interrupted poll finds nothing.
        let _ = poll(&mut fds, Some(&time));
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let ended = ready.next() == Some(true);
        let ready: Vec<bool> =
            open.iter().map(|open| *open && ready.next() == Some(true)).collect();
        drop(fds);
        if ready[0] {
            self.output.read();
        }
        if ready[1] {
            self.error.read();
        }
        ended
    }

    /// To the whole process group. Its number is its own until it is reaped.
    fn signal(&self, signal: i32) {
        // Safety: a system call without memory.
        unsafe { libc::kill(-self.started.pid, signal) };
    }

    /// Ends what is left of its group, takes what is left of its output, and asks what it used.
    fn reap(&mut self) -> (io::Result<Ended>, Usage) {
        self.signal(libc::SIGKILL);
        let mut status = 0;
        // Safety: plain numbers.
        let mut used: libc::rusage = unsafe { std::mem::zeroed() };
        // Safety: waits for our own child, which has ended; both pointers are to live variables.
        let pid = unsafe { libc::wait4(self.started.pid, &raw mut status, 0, &raw mut used) };
        let error = io::Error::last_os_error();
        self.output.finish();
        self.error.finish();
        let time = |time: libc::timeval| {
            Duration::from_secs(time.tv_sec.try_into().unwrap_or(0))
                + Duration::from_micros(time.tv_usec.try_into().unwrap_or(0))
        };
        let usage = Usage {
            wall: Duration::ZERO,
            user: time(used.ru_utime),
            system: time(used.ru_stime),
            // In KiB here.
            max_rss: u64::try_from(used.ru_maxrss).unwrap_or(0) << 10,
        };
        let ended = match status {
            _ if pid == -1 => Err(error),
            status if libc::WIFSIGNALED(status) => Ok(Ended::Signal(libc::WTERMSIG(status))),
            status => Ok(Ended::Exit(libc::WEXITSTATUS(status))),
        };
        (ended, usage)
    }
}

/// One of its streams, on the way to ours in whole lines.
struct Stream {
    /// `None`: it has ended.
    pipe: Option<io::PipeReader>,
    is_error: bool,
    line: Vec<u8>,
    tail: Vec<u8>,
}

impl Stream {
    fn new(pipe: io::PipeReader, is_error: bool) -> Self {
        Self { pipe: Some(pipe), is_error, line: Vec::new(), tail: Vec::new() }
    }

    /// Reads once; something is there, or the end.
    fn read(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        let mut piece = [0; PIECE_BYTES];
        match pipe.read(&mut piece) {
            Ok(0) | Err(_) => self.pipe = None,
            Ok(count) => self.take(&piece[..count]),
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        if self.is_error {
            self.tail.extend_from_slice(bytes);
            let surplus = self.tail.len().saturating_sub(TAIL_BYTES);
            self.tail.drain(..surplus);
        }
        self.line.extend_from_slice(bytes);
        let whole = match self.line.iter().rposition(|byte| *byte == b'\n') {
            Some(last) => last + 1,
            None if self.line.len() > MAX_LINE_BYTES => self.line.len(),
            None => return,
        };
        self.print(whole);
    }

    /// There is nobody to tell if the worker reads no longer.
    fn print(&mut self, len: usize) {
        let bytes = &self.line[..len];
        let _ = match self.is_error {
            true => io::stderr().lock().write_all(bytes),
            false => io::stdout().lock().write_all(bytes),
        };
        self.line.drain(..len);
    }

    /// Takes what is there. Processes that were not ended may hold the pipe open: nobody waits for
    /// them.
    fn finish(&mut self) {
        while let Some(pipe) = &self.pipe {
            let mut fds = [PollFd::new(pipe, PollFlags::IN)];
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            let is_ready = poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0);
            if !is_ready {
                break;
            }
            self.read();
        }
        if !self.line.is_empty() {
            self.line.push(b'\n');
            self.print(self.line.len());
        }
    }

    fn tail(&self) -> String {
        String::from_utf8_lossy(&self.tail).trim_end().to_owned()
    }
}

/// This process's variables with others on top.
struct Environment {
    own: Vec<CString>,
    names: Vec<Vec<u8>>,
}

/// This process's variables, by name.
fn inherited() -> &'static HashMap<Vec<u8>, CString> {
    static INHERITED: OnceLock<HashMap<Vec<u8>, CString>> = OnceLock::new();
    INHERITED.get_or_init(|| {
        std::env::vars_os()
            .filter(|(name, _)| name != rdist::SCRATCH)
            .filter_map(|(name, value)| {
                let name = name.into_vec();
                let whole = [&name, &b"="[..], value.as_bytes()].concat();
                Some((name, CString::new(whole).ok()?))
            })
            .collect()
    })
}

impl Environment {
    fn with(own: &[(String, String)]) -> Result<Self, String> {
        let text = |(name, value): &(String, String)| {
            CString::new(format!("{name}={value}"))
                .map_err(|_| format!("the variable {name} holds a zero byte"))
        };
        let names = own.iter().map(|(name, _)| name.clone().into_bytes()).collect();
        Ok(Self { own: own.iter().map(text).collect::<Result<_, _>>()?, names })
    }

    fn all(&self) -> Vec<&CStr> {
        let inherited = inherited().iter().filter(|(name, _)| !self.names.contains(name));
        let own = self.own.iter().map(CString::as_c_str);
        inherited.map(|(_, text)| text.as_c_str()).chain(own).collect()
    }

    /// The folders of programs.
    fn path(&self, folder: Option<&Path>) -> Vec<PathBuf> {
        let own = self.own.iter().rev().map(|text| text.as_bytes());
        let own = own.filter_map(|text| text.strip_prefix(b"PATH=")).next();
        let path = own.or_else(|| inherited().get(&b"PATH"[..])?.as_bytes().get(5..));
        let path = path.unwrap_or(b"/usr/local/bin:/usr/bin:/bin");
        let here = folder.unwrap_or(Path::new(""));
        std::env::split_paths(OsStr::from_bytes(path)).map(|entry| here.join(entry)).collect()
    }
}

/// The file to execute, and its arguments. A line that means nothing more to a shell than its words
/// is executed without one.
fn resolve(command: &Invocation, path: &[PathBuf]) -> Result<(CString, Vec<CString>), String> {
    let words: Vec<&str> = match command {
        Invocation::Words(words) => words.iter().map(String::as_str).collect(),
        Invocation::Line(line) if super::is_plain(line) => line.split_whitespace().collect(),
        Invocation::Line(_) => Vec::new(),
    };
    let program = words.first().and_then(|word| find(word, path));
    match (command, program) {
        (_, Some(program)) => {
            let arguments = words.iter().map(|word| c_string(OsStr::new(word)));
            Ok((c_string(program.as_os_str())?, arguments.collect::<Result<_, _>>()?))
        }
        // Perhaps something that the shell itself does; else it says what is wrong.
        (Invocation::Line(line), None) => {
            let arguments = ["sh", "-c", line].map(|word| c_string(OsStr::new(word)));
            let arguments: Result<_, _> = arguments.into_iter().collect();
            Ok((c"/bin/sh".to_owned(), arguments?))
        }
        (Invocation::Words(_), None) => {
            let program = words.first().copied().unwrap_or_default();
            Err(format!("there is no program `{program}` on this worker's PATH"))
        }
    }
}

/// The file that a name stands for. One with a `/` is taken as it is.
fn find(name: &str, path: &[PathBuf]) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name));
    }
    let executable = |path: &PathBuf| {
        rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file()
    };
    path.iter().map(|folder| folder.join(name)).find(executable)
}

fn c_string(text: &OsStr) -> Result<CString, String> {
    CString::new(text.as_bytes()).map_err(|_| format!("{text:?} holds a zero byte"))
}

/// An empty standard input.
fn null() -> Result<&'static File, String> {
    static NULL: OnceLock<File> = OnceLock::new();
    if let Some(file) = NULL.get() {
        return Ok(file);
    }
    let file = File::open("/dev/null").map_err(|error| format!("/dev/null: {error}"))?;
    Ok(NULL.get_or_init(|| file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_line(line: &str, limit: Option<Duration>) -> Outcome {
        let command = Invocation::Line(line.to_owned());
        let environment = vec![("GIVEN".to_owned(), "1".to_owned())];
        let folder = Some(Path::new("/"));
        run(&Order { command: &command, environment, folder, time_limit: limit }, || false)
    }

    #[test]
    fn an_end_is_a_status_or_a_signal() {
        assert_eq!(run_line("true", None).ended, Ended::Exit(0));
        assert_eq!(run_line("exit 3", None).ended, Ended::Exit(3), "the shell's own");
        assert_eq!(run_line("kill -9 $$", None).ended, Ended::Signal(9));
        assert_eq!(run_line("test $GIVEN = 1 && test $PWD = /", None).ended, Ended::Exit(0));
        let missing = run_line("no-such-program", None);
        assert_eq!(missing.ended, Ended::Exit(127));
        assert!(missing.tail.contains("not found"), "{}", missing.tail);
        let command = Invocation::Words(vec!["no-such-program".to_owned()]);
        let order =
            Order { command: &command, environment: Vec::new(), folder: None, time_limit: None };
        let Ended::NotStarted(reason) = run(&order, || false).ended else { panic!("it started") };
        assert!(reason.contains("no-such-program"), "{reason}");
    }

    #[test]
    fn what_it_used_is_told() {
        let busy = run_line("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done", None);
        assert!(busy.usage.user > Duration::from_millis(5), "{:?}", busy.usage);
        assert!(busy.usage.wall >= busy.usage.user / 2, "{:?}", busy.usage);
        assert!(busy.usage.max_rss > 100_000, "{:?}", busy.usage);
    }

    #[test]
    fn a_limit_ends_the_command_and_what_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let alive = folder.path().join("alive");
        let line = format!("(sleep 60; touch {}) & sleep 60", alive.display());
        let began = Instant::now();
        let outcome = run_line(&line, Some(Duration::from_millis(50)));
        assert_eq!(outcome.ended, Ended::TimedOut);
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        // Deaf to the first signal, it goes by the second.
        let deaf =
            run_line("trap '' TERM; sleep 60 & wait; sleep 60", Some(Duration::from_millis(50)));
        assert_eq!(deaf.ended, Ended::TimedOut);
        assert!(deaf.usage.wall >= GRACE, "{:?}", deaf.usage);
    }

    #[test]
    fn what_it_leaves_behind_is_ended_and_does_not_hold_the_output() {
        let began = Instant::now();
        let outcome = run_line("sleep 60 & echo started >&2", None);
        assert_eq!((outcome.ended, outcome.tail.as_str()), (Ended::Exit(0), "started"));
        assert!(began.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_cancelled_command_ends() {
        let command = Invocation::Line("sleep 60".to_owned());
        let order =
            Order { command: &command, environment: Vec::new(), folder: None, time_limit: None };
        assert_eq!(run(&order, || true).ended, Ended::Cancelled);
    }

    #[test]
    fn the_tail_keeps_the_end_of_long_output() {
        let outcome = run_line("seq 1 5000 >&2; printf 'the end' >&2", None);
        assert!(outcome.tail.len() <= TAIL_BYTES && outcome.tail.ends_with("5000\nthe end"));
    }
}

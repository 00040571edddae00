//! A cluster of real processes for one test: in a state folder of its own, on free ports, and
//! with nothing left when the test is over, however it ends.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};
use serde_json::Value;
use tempfile::TempDir;

/// Nothing in these tests takes longer, not even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A state folder and all processes that use it. Dropping it kills them.
pub(crate) struct Cluster {
    home: TempDir,
    environment: Vec<(String, String)>,
    /// Whose network its commands see; `None`: that of this process.
    namespace: Option<String>,
}

impl Cluster {
    /// No process yet.
    pub(crate) fn new() -> Self {
        let home = tempfile::Builder::new().prefix("rdist-test-").tempdir().unwrap();
        Self { home, environment: Vec::new(), namespace: None }
    }

    /// The head, and all commands that do not say otherwise, run in this network namespace.
    pub(crate) fn settle(&mut self, namespace: String) {
        self.namespace = Some(namespace);
    }

    /// All processes that are started from now on have this variable.
    pub(crate) fn set_variable(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// A head, and workers with so many CPUs each.
    pub(crate) fn with_workers(cpus: &[u32]) -> Self {
        let cluster = Self::new();
        cluster.start_head();
        for cpus in cpus {
            cluster.join(&["--cpus", &cpus.to_string()]);
        }
        cluster
    }

    /// The state folder.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// `rdist` with these arguments, not started yet.
    pub(crate) fn rdist(&self, arguments: &[&str]) -> Command {
        self.rdist_in(self.namespace.as_deref(), arguments)
    }

    /// The same in that network namespace.
    pub(crate) fn rdist_in(&self, namespace: Option<&str>, arguments: &[&str]) -> Command {
        let rdist = env!("CARGO_BIN_EXE_rdist");
        let mut command = Command::new(if namespace.is_some() { "ip" } else { rdist });
        if let Some(namespace) = namespace {
            // It becomes what it starts: the process has the id that the command is given.
            command.args(["netns", "exec", namespace, rdist]);
        }
        command.args(arguments).env("RDIST_HOME", self.home()).stdin(Stdio::null());
        for name in ["RDIST_HEAD", "RDIST_TOKEN", "RDIST_DATA", "NO_COLOR"] {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs `rdist` to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Finished {
        Running::start(self.rdist(arguments)).finish()
    }

    /// Runs a scenario of one of these tests' programs, which gets a folder of its own.
    pub(crate) fn passes(&self, program: &str, scenario: &str) {
        let folder = tempfile::tempdir().unwrap();
        self.says_ok(program, &[scenario, folder.path().to_str().unwrap()]);
    }

    /// Runs one of these tests' programs, and fails the test unless its last word is `ok`.
    pub(crate) fn says_ok(&self, program: &str, arguments: &[&str]) {
        let program = example(program);
        let submit = ["submit", program.to_str().unwrap(), "--"];
        let finished = self.run(&[&submit[..], arguments].concat());
        finished.assert_success();
        assert_eq!(finished.stdout.last().map(String::as_str), Some("ok"), "{finished}");
    }

    /// Starts `rdist` and leaves it running.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        Running::start(self.rdist(arguments))
    }

    /// Starts a head on a free port of this machine; returns what it says of itself.
    pub(crate) fn start_head(&self) -> Value {
        self.start_head_with(&[])
    }

    /// The same, with further options.
    pub(crate) fn start_head_with(&self, options: &[&str]) -> Value {
        let mut start = vec!["--json", "head", "start"];
        if !options.contains(&"--listen") {
            start.extend(["--listen", "127.0.0.1:0"]);
        }
        start.extend(options);
        let finished = self.run(&start);
        finished.assert_success();
        finished.json_line("head_ready")
    }

    /// Joins a worker; returns what it says of itself.
    pub(crate) fn join(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["--json", "worker", "join", "--store-memory", "256MiB"];
        all.extend(["--listen", "127.0.0.1:0"]);
        all.extend(arguments);
        let finished = self.run(&all);
        finished.assert_success();
        finished.json_line("worker_ready")
    }

    /// Processes of this cluster, with their command lines.
    pub(crate) fn processes(&self) -> BTreeMap<i32, String> {
        let mut wanted = b"RDIST_HOME=".to_vec();
        wanted.extend_from_slice(self.home().as_os_str().as_encoded_bytes());
        let mut processes = BTreeMap::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // Of a process that has ended there is nothing to read.
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            if environment.split(|byte| *byte == 0).any(|variable| variable == wanted) {
                let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                processes.insert(pid, line.trim_end().to_owned());
            }
        }
        processes
    }

    /// The executors of a worker daemon: the processes that it has started.
    pub(crate) fn executors(&self, daemon: i32) -> Vec<i32> {
        self.processes().into_keys().filter(|pid| parent(*pid) == Some(daemon)).collect()
    }

    /// Waits until a task of that function is listed; returns its id.
    pub(crate) fn listed_task(&self, function: &str) -> String {
        wait_until("the task is listed", || {
            let tasks = self.run(&["list", "tasks", "--json"]).json_lines();
            let found = tasks.iter().find(|task| task.to_string().contains(function));
            found.map(|task| text(task, "task").to_owned()).ok_or_else(|| format!("{tasks:?}"))
        })
    }

    /// Waits until no process of this cluster is left.
    pub(crate) fn assert_all_gone(&self) {
        wait_until("all processes of the cluster are gone", || {
            let left = self.processes();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
        });
        let shared = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
        let left: Vec<_> = shared
            .map(|entry| entry.file_name())
            .filter(|name| name.to_string_lossy().contains("rdist"))
            .collect();
        assert!(left.is_empty(), "left in /dev/shm: {left:?}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let processes = self.processes();
            if processes.is_empty() {
                return;
            }
            processes.keys().for_each(|pid| kill(*pid));
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Cluster {
    /// The ends of the daemons' logs, for whoever has to understand a failed test.
    fn show_logs(&self) {
        let Ok(entries) = fs::read_dir(self.home().join("logs")) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(30)..].join("\n");
            eprintln!("--- {}\n{tail}", path.display());
        }
    }
}

/// Kills a process of the cluster, as the kernel would for want of memory, and waits for its end:
/// only then has it let go of its files, locks and ports.
pub(crate) fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    // It may be gone already.
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    let _ = rustix::process::pidfd_send_signal(&handle, rustix::process::Signal::KILL);
    let patience = Timespec::try_from(PATIENCE).unwrap();
    let ended = poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&patience));
    assert!(ended.is_ok_and(|count| count == 1), "process {pid:?} does not end");
}

/// Who has started a process; `None` where it is gone.
pub(crate) fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses, and may hold spaces; then come the state and the parent.
    stat.rsplit(')').next()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Sends a signal to a process that we started.
pub(crate) fn signal(child: &Running, signal: rustix::process::Signal) {
    rustix::process::kill_process(child.pid(), signal).unwrap();
}

/// Waits for a condition that says what is missing.
pub(crate) fn wait_until<T>(what: &str, mut condition: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match condition() {
            Ok(value) => return value,
            Err(missing) if Instant::now() > deadline => {
                panic!("waited {PATIENCE:?} in vain until {what}: {missing}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// A program built beside `rdist`: an example of the library, or one of these tests' own.
pub(crate) fn example(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_rdist")).with_file_name("examples").join(name);
    assert!(path.is_file(), "{} is not built; run `cargo xtask test`", path.display());
    path
}

/// The program of these tests, as an argument of `rdist submit`.
pub(crate) fn faults() -> String {
    example("faults").to_str().unwrap().to_owned()
}

/// A number that a JSON object has.
pub(crate) fn number(value: &Value, name: &str) -> i32 {
    let number = value[name].as_i64().unwrap_or_else(|| panic!("no number {name} in {value}"));
    i32::try_from(number).unwrap()
}

/// Text that a JSON object has.
pub(crate) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no text {name} in {value}"))
}

/// What a process has printed so far.
#[derive(Default)]
struct Output {
    stdout: Mutex<Vec<String>>,
    stderr: Mutex<Vec<String>>,
    grown: Condvar,
}

/// A process that runs.
pub(crate) struct Running {
    child: Child,
    output: Arc<Output>,
    readers: Vec<std::thread::JoinHandle<()>>,
    shown: String,
}

impl Running {
    /// Starts a program of any kind; what uses the state folder ends with the cluster.
    pub(crate) fn start(mut command: Command) -> Self {
        let shown = format!("{command:?}");
        let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{shown}: {error}"));
        let output = Arc::<Output>::default();
        let stdout = child.stdout.take().unwrap();
        let stderr = child.stderr.take().unwrap();
        let readers =
            vec![read(&output, stdout, |o| &o.stdout), read(&output, stderr, |o| &o.stderr)];
        Self { child, output, readers, shown }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap()
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for a line of standard output that `choose` wants.
    pub(crate) fn wait_for<T>(&self, what: &str, mut choose: impl FnMut(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.output.stdout.lock().unwrap();
        loop {
            if let Some(found) = lines.iter().find_map(|line| choose(line)) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let stderr = self.output.stderr.lock().unwrap().join("\n");
                panic!("{}: no line with {what} in {lines:#?}\nstderr:\n{stderr}", self.shown);
            }
            lines = self.output.grown.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// What it has printed on standard output so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.output.stdout.lock().unwrap().clone()
    }

    /// What it has printed on standard error so far.
    pub(crate) fn errors(&self) -> String {
        self.output.stderr.lock().unwrap().join("\n")
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Finished {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                self.child.kill().unwrap();
                let stdout = self.output.stdout.lock().unwrap().join("\n");
                let stderr = self.output.stderr.lock().unwrap().join("\n");
                panic!("{} runs on\nstdout:\n{stdout}\nstderr:\n{stderr}", self.shown);
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        let taken = |lines: &Mutex<Vec<String>>| std::mem::take(&mut *lines.lock().unwrap());
        let shown = std::mem::take(&mut self.shown);
        let (stdout, stderr) = (taken(&self.output.stdout), taken(&self.output.stderr));
        Finished { status, stdout, stderr: stderr.join("\n"), shown }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(
    output: &Arc<Output>,
    pipe: impl Read + Send + 'static,
    lines: fn(&Output) -> &Mutex<Vec<String>>,
) -> std::thread::JoinHandle<()> {
    let output = Arc::clone(output);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            let Ok(line) = line else { return };
            lines(&output).lock().unwrap().push(line);
            output.grown.notify_all();
        }
    })
}

/// A process that has ended.
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<String>,
    pub(crate) stderr: String,
    shown: String,
}

impl Finished {
    /// Fails the test, with all that was printed, when it failed.
    pub(crate) fn assert_success(&self) {
        assert!(self.status.success(), "{self}");
    }

    /// Fails the test when it succeeded, or says nothing like `reason`.
    pub(crate) fn assert_failure(&self, reason: &str) {
        assert!(!self.status.success(), "it should have failed: {self}");
        let all = format!("{}\n{}", self.stdout.join("\n"), self.stderr);
        assert!(all.contains(reason), "no {reason:?} in: {self}");
        assert!(!self.stderr.contains("panicked at cli/"), "rdist itself panicked: {self}");
    }

    /// The last JSON line with this `event`.
    pub(crate) fn json_line(&self, event: &str) -> Value {
        let parsed = self.stdout.iter().rev().filter_map(|line| {
            serde_json::from_str::<Value>(line).ok().filter(|value| value["event"] == event)
        });
        let found = parsed.into_iter().next();
        found.unwrap_or_else(|| panic!("no event {event} in {self}"))
    }

    /// All lines of standard output as JSON.
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        let parse = |line: &String| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}: {self}"))
        };
        self.stdout.iter().map(parse).collect()
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stdout = self.stdout.join("\n");
        write!(f, "{}: {}\nstdout:\n{stdout}\nstderr:\n{}", self.shown, self.status, self.stderr)
    }
}

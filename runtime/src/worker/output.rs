//! An executor's standard output and standard error, cut into lines that say whose they are.
//!
//! The executor marks each change of the task that prints (`executor/output.rs`). What it writes
//! is input like any other: a mark that is none is text.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use rdist_scheduler::id::{JobId, TaskId, WorkerId};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::wire::cluster::Output;
use crate::wire::executor::{MARK, MARK_BYTES, read_mark};

/// Lines of standard error that are kept to say why a process died.
const STDERR_LINES: usize = 20;
/// Largest piece of output that travels at once.
const OUTPUT_BYTES: usize = 32 << 10;

/// The last lines of standard error.
#[derive(Debug, Clone, Default)]
pub(super) struct Tail(Rc<RefCell<VecDeque<String>>>);

impl Tail {
    fn push(&self, text: &str) {
        let mut lines = self.0.borrow_mut();
        lines.extend(text.lines().map(str::to_owned));
        let surplus = lines.len().saturating_sub(STDERR_LINES);
        lines.drain(..surplus);
    }

    /// All of them.
    pub(super) fn text(&self) -> String {
        Vec::from_iter(self.0.borrow().iter().cloned()).join("\n")
    }
}

/// Reads a process's streams and hands on whole lines.
#[derive(Clone)]
pub(super) struct OutputReader<F> {
    job: JobId,
    worker: WorkerId,
    source: &'static str,
    output: F,
}

impl<F: Fn(Output)> OutputReader<F> {
    pub(super) fn new(job: JobId, worker: WorkerId, source: &'static str, output: F) -> Self {
        Self { job, worker, source, output }
    }

    /// Until the stream ends.
    pub(super) async fn forward(
        self,
        mut pipe: impl AsyncRead + Unpin,
        stderr: bool,
        tail: Option<Tail>,
    ) {
        let mut lines = Lines::default();
        loop {
            // An error is the end, too.
            let read = pipe.read_buf(&mut lines.pending).await.unwrap_or(0);
            while let Some((task, text)) = lines.next(read == 0) {
                if let Some(tail) = &tail {
                    tail.push(&text);
                }
                let (job, worker, source) = (self.job, self.worker, self.source.to_owned());
                (self.output)(Output { job, worker, task, source, stderr, text });
            }
            if read == 0 {
                return;
            }
        }
    }
}

/// Bytes that become lines.
#[derive(Debug)]
struct Lines {
    pending: Vec<u8>,
    /// Whose the next bytes are.
    task: Option<TaskId>,
}

impl Default for Lines {
    fn default() -> Self {
        Self { pending: Vec::with_capacity(OUTPUT_BYTES), task: None }
    }
}

impl Lines {
    /// The next whole lines of one task. A line ends where another task goes on, when it is very
    /// long, and at the end of the stream.
    fn next(&mut self, is_end: bool) -> Option<(Option<TaskId>, String)> {
        loop {
            let (text, mark) = self.split(is_end)?;
            let has_room = self.pending.len() < OUTPUT_BYTES;
            let whole = match self.pending[..text].iter().rposition(|byte| *byte == b'\n') {
                _ if mark.is_some() || is_end || !has_room => text,
                Some(last) => last + 1,
                None => return None,
            };
            let task = self.task;
            let mut line = String::from_utf8_lossy(&self.pending[..whole]).into_owned();
            match mark {
                Some(next) => {
                    self.task = next;
                    self.pending.drain(..text + MARK_BYTES);
                }
                None => drop(self.pending.drain(..whole)),
            }
            if !line.is_empty() {
                if !line.ends_with('\n') {
                    line.push('\n');
                }
                return Some((task, line));
            }
        }
    }

    /// How many bytes are text, and the mark behind them. `None`: more has to come.
    fn split(&self, is_end: bool) -> Option<(usize, Option<Option<TaskId>>)> {
        if self.pending.is_empty() {
            return None;
        }
        let mut from = 0;
        while let Some(at) = self.pending[from..].iter().position(|byte| *byte == MARK) {
            let at = from + at;
            match self.pending[at..].first_chunk::<MARK_BYTES>() {
                Some(mark) => match read_mark(mark) {
                    Ok(task) => return Some((at, Some(task))),
                    Err(_) => from = at + 1,
                },
                None if is_end => break,
                // Perhaps the beginning of one; text before it may go.
                None => return (at > 0).then_some((at, None)),
            }
        }
        Some((self.pending.len(), None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::executor::mark_output;

    fn task(index: u64) -> TaskId {
        TaskId::driver(JobId(1)).child(index)
    }

    /// Feeds the stream in pieces; lines with whose they are, joined per task.
    fn read(stream: &[u8], piece: usize) -> Vec<(Option<TaskId>, String)> {
        let mut lines = Lines::default();
        let mut found: Vec<(Option<TaskId>, String)> = Vec::new();
        let mut take = |lines: &mut Lines, is_end| {
            while let Some((task, text)) = lines.next(is_end) {
                assert!(text.ends_with('\n'));
                match found.last_mut() {
                    Some((last, before)) if *last == task => before.push_str(&text),
                    _ => found.push((task, text)),
                }
            }
        };
        for piece in stream.chunks(piece) {
            lines.pending.extend(piece);
            take(&mut lines, false);
        }
        take(&mut lines, true);
        found
    }

    #[test]
    fn lines_are_told_apart_by_marks_however_they_arrive() {
        let mut stream = b"start\n".to_vec();
        for (writer, text) in [
            (Some(task(1)), "one\nand "),
            (Some(task(2)), "two\n"),
            (None, "nobody\n"),
            (Some(task(1)), "the end"),
        ] {
            stream.extend(mark_output(writer));
            stream.extend(text.as_bytes());
        }
        let expected = [
            (None, "start\n"),
            (Some(task(1)), "one\nand \n"),
            (Some(task(2)), "two\n"),
            (None, "nobody\n"),
            (Some(task(1)), "the end\n"),
        ];
        let expected = expected.map(|(task, text)| (task, text.to_owned()));
        for piece in 1..stream.len() {
            assert_eq!(read(&stream, piece), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_no_mark_is_text() {
        let text = "a\u{1e}b\n\u{1e}0123456789abcdef0123456789abcdeX\n\u{1e}";
        for piece in 1..text.len() {
            let found = read(text.as_bytes(), piece);
            let joined: String = found.iter().map(|(_, text)| text.as_str()).collect();
            assert_eq!(joined, format!("{text}\n"), "in pieces of {piece}");
            assert!(found.iter().all(|(task, _)| task.is_none()));
        }
    }
}

//! What the driver of a plan tells of its steps, several at a time.
//!
//! ```text
//! {"event": "tasks_submitted", "names": {"task-..": "work[3]", ..}}
//! {"event": "tasks_finished", "tasks": [{"name": .., "status": .., ..}, ..], "progress": ..}
//! ```
//! One of the first kind, without names, comes before any task is submitted: so whoever reads knows
//! to wait for the names of tasks that have printed something already. The last of the second kind
//! has the `metrics` of the whole.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rdist::prelude::*;
use rdist::scheduler::id::{TaskId, WorkerId};
use serde_json::{Map, Value, json};

use crate::job::report::Report;
use crate::plan::Step;

/// How long an end may wait for others to be told with it.
const PERIOD: Duration = Duration::from_millis(100);
/// Most steps in one event.
const STEPS_PER_EVENT: usize = 512;
/// How many failed steps the job's error names.
const NAMED: usize = 5;

/// See the module's text.
pub(super) struct Events {
    cx: Context,
    shared: Arc<Shared>,
    names: Map<String, Value>,
    /// Runs from the first end of a step that is not the last.
    teller: Option<JoinHandle<()>>,
}

struct Shared {
    totals: Mutex<Totals>,
    ended: Condvar,
}

#[derive(Default)]
struct Totals {
    all: usize,
    succeeded: usize,
    retried: usize,
    failed: Vec<String>,
    failures: usize,
    skipped: usize,
    user: Duration,
    system: Duration,
    max_rss: u64,
    /// Not told yet.
    rows: Vec<Value>,
    is_over: bool,
}

/// `names` by task.
fn tasks_submitted(names: Map<String, Value>) -> Value {
    json!({"event": "tasks_submitted", "names": names})
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Events {
    /// For so many steps.
    pub(super) fn new(cx: &Driver, all: usize) -> Self {
        cx.emit(&tasks_submitted(Map::new()));
        let totals = Mutex::new(Totals { all, ..Totals::default() });
        let shared = Arc::new(Shared { totals, ended: Condvar::new() });
        Self { cx: Context::clone(cx), shared, names: Map::new(), teller: None }
    }

    /// A task was submitted for a step.
    pub(super) fn submitted(&mut self, name: &str, task: TaskId) {
        self.names.insert(task.to_string(), name.into());
        if self.names.len() >= STEPS_PER_EVENT {
            self.tell_submitted();
        }
    }

    /// Tells which tasks were submitted.
    pub(super) fn tell_submitted(&mut self) {
        if !self.names.is_empty() {
            let names = std::mem::take(&mut self.names);
            self.cx.emit(&tasks_submitted(names));
        }
    }

    /// A command has ended; `again`: it is tried again.
    pub(super) fn ended(
        &mut self,
        step: &Step,
        task: Option<TaskId>,
        attempt: u32,
        report: &Report,
        again: bool,
    ) {
        let (ended, usage) = (&report.ended, report.usage());
        let status = match (ended.is_success(), again) {
            (true, _) => "succeeded",
            (false, true) => "retried",
            (false, false) => "failed",
        };
        let mut row = json!({
            "name": step.name, "status": status, "exit_status": ended.status(),
            "signal": ended.signal(), "attempt": attempt, "seconds": usage.wall.as_secs_f64(),
            "user_seconds": usage.user.as_secs_f64(),
            "system_seconds": usage.system.as_secs_f64(), "max_rss_bytes": usage.max_rss,
            "task": task.map(|task| task.to_string()),
            "worker": (report.worker != 0).then(|| WorkerId(report.worker).to_string()),
        });
        if !ended.is_success() {
            row["reason"] = ended.text().into();
            row["command"] = step.command.text().into();
            row["stderr"] = report.tail.as_str().into();
        }
        let mut totals = self.shared.lock();
        totals.user += usage.user;
        totals.system += usage.system;
        totals.max_rss = totals.max_rss.max(usage.max_rss);
        match status {
            "succeeded" => totals.succeeded += 1,
            "retried" => totals.retried += 1,
            _ => {
                totals.failures += 1;
                if totals.failed.len() < NAMED {
                    totals.failed.push(format!("{} ({})", step.name, ended.text()));
                }
            }
        }
        totals.rows.push(row);
        let is_last = totals.succeeded + totals.failures + totals.skipped == totals.all;
        drop(totals);
        self.shared.ended.notify_one();
        if self.teller.is_none() && !is_last {
            let (cx, shared) = (self.cx.clone(), self.shared.clone());
            let teller = std::thread::Builder::new().name("teller".to_owned());
            // Without the thread, all is told in the end.
            self.teller = teller.spawn(move || tell_now_and_then(&cx, &shared)).ok();
        }
    }

    /// A step never runs, because of another one.
    pub(super) fn skipped(&mut self, step: &Step, cause: &str) {
        let reason = format!("not run, because `{cause}` failed");
        let row = json!({"name": step.name, "status": "skipped", "reason": reason});
        let mut totals = self.shared.lock();
        totals.skipped += 1;
        totals.rows.push(row);
    }

    /// Tells the rest.
    pub(super) fn end(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.ended.notify_one();
        if let Some(teller) = self.teller.take() {
            // It panics only by a bug, which it has said.
            let _ = teller.join();
        }
        let mut totals = self.shared.lock();
        tell(&self.cx, &mut totals, true);
    }

    /// What went wrong, in a few words.
    pub(super) fn failure(&self) -> Option<String> {
        let totals = self.shared.lock();
        if totals.failures == 0 {
            return None;
        }
        let more = match totals.failures - totals.failed.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let skipped = match totals.skipped {
            0 => String::new(),
            skipped => format!("; {skipped} were not run, as they come after these"),
        };
        let (failures, all, failed) = (totals.failures, totals.all, totals.failed.join(", "));
        Some(format!("{failures} of {all} tasks failed: {failed}{more}{skipped}"))
    }
}

/// Tells what has ended, until all has.
fn tell_now_and_then(cx: &Context, shared: &Shared) {
    let mut totals = shared.lock();
    while !totals.is_over {
        if totals.rows.is_empty() {
            totals = shared.ended.wait(totals).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        let since = shared.ended.wait_timeout_while(totals, PERIOD, |totals| {
            !totals.is_over && totals.rows.len() < STEPS_PER_EVENT
        });
        totals = since.unwrap_or_else(PoisonError::into_inner).0;
        if !totals.is_over {
            tell(cx, &mut totals, false);
        }
    }
}

fn tell(cx: &Context, totals: &mut Totals, is_over: bool) {
    let mut rows = std::mem::take(&mut totals.rows);
    let done = totals.succeeded + totals.failures + totals.skipped;
    while !rows.is_empty() || is_over {
        let rest = rows.split_off(rows.len().min(STEPS_PER_EVENT));
        let mut event = json!({
            "event": "tasks_finished", "tasks": rows,
            "progress": {"what": "tasks", "done": done, "total": totals.all},
        });
        rows = rest;
        let is_last = is_over && rows.is_empty();
        if is_last {
            event["metrics"] = json!({
                "tasks": totals.all, "tasks_succeeded": totals.succeeded,
                "tasks_failed": totals.failures, "tasks_skipped": totals.skipped,
                "tasks_retried": totals.retried, "user_seconds": totals.user.as_secs_f64(),
                "system_seconds": totals.system.as_secs_f64(), "max_rss_bytes": totals.max_rss,
            });
        }
        cx.emit(&event);
        if is_last {
            return;
        }
    }
}

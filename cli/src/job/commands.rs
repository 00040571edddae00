//! The driver of a plan.
//!
//! ```text
//! Waiting --1--> Running --2--> Succeeded
//!    ^  |         |   |            |
//!    |  5         3   4            6
//!    |  v         |   v            |
//!    | Skipped    |  Failed        |
//!    +------------+----------------+
//! ```
//! 1 all that it comes after has succeeded; 2 its command ended well; 3 it did not, and may be
//! tried again, or an input was lost and is made again first; 4 it may not; 5 what it comes after
//! failed or was skipped; 6 an output is lost that somebody needs.

mod events;

use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rdist::prelude::*;
use rdist::scheduler::id::TaskId;
use rdist::scheduler::outcome::Cause;

use super::report::{Ended, Report};
use super::task::{self, Order};
use crate::plan::{INPUTS_FOLDER, InputSource, Invocation, PLAN_FILE, Plan, Step};
use events::Events;

/// How often lost inputs of a step are made again.
const RECOVERIES: u32 = 3;

type File = (ObjectRef<Vec<u8>>, bool);

/// Runs the plan that came with the job. An error when a step failed.
pub(super) fn run(cx: &Driver) -> Result<()> {
    let folder = std::env::var_os(rdist::DRIVER_FILES).map(PathBuf::from);
    let folder = folder.ok_or_else(|| wrong("no files came with this job"))?;
    let path = folder.join(PLAN_FILE);
    let bytes = std::fs::read(&path);
    let bytes = bytes.map_err(|error| wrong(&format!("{}: {error}", path.display())))?;
    let plan: Plan = serde_json::from_slice(&bytes)
        .map_err(|error| wrong(&format!("the plan cannot be read: {error}")))?;
    let mut run = Run::new(cx, plan, folder.join(INPUTS_FOLDER));
    cx.block_on(run.run())??;
    run.events.end();
    match run.events.failure() {
        None => Ok(()),
        Some(failure) => Err(Error::Refused(failure)),
    }
}

fn wrong(what: &str) -> Error {
    Error::Refused(what.to_owned())
}

/// Where a step stands.
#[derive(Debug)]
enum State {
    Waiting { missing: usize },
    Running(TaskId),
    Succeeded(Vec<File>),
    Failed,
    Skipped,
}

struct Run<'a> {
    cx: &'a Driver,
    plan: Plan,
    inputs_folder: PathBuf,
    /// The client's files, taken into the store when the first step needs them.
    files: Vec<Option<File>>,
    states: Vec<State>,
    /// Who waits for each step.
    waiters: Vec<Vec<usize>>,
    /// How often each was tried, and how often its inputs were made again.
    tries: Vec<(u32, u32)>,
    ready: Vec<usize>,
    events: Events,
}

impl<'a> Run<'a> {
    fn new(cx: &'a Driver, plan: Plan, inputs_folder: PathBuf) -> Self {
        let mut waiters = vec![Vec::new(); plan.steps.len()];
        for (at, step) in plan.steps.iter().enumerate() {
            step.after.iter().for_each(|before| waiters[*before].push(at));
        }
        let waiting = |step: &Step| State::Waiting { missing: step.after.len() };
        let first = |at: &usize| plan.steps[*at].after.is_empty();
        Self {
            cx,
            inputs_folder,
            files: vec![None; plan.files.len()],
            states: plan.steps.iter().map(waiting).collect(),
            waiters,
            tries: vec![(0, 0); plan.steps.len()],
            // Taken from its end.
            ready: (0..plan.steps.len()).rev().filter(first).collect(),
            events: Events::new(cx, plan.steps.len()),
            plan,
        }
    }

    /// Until no step runs or can start.
    async fn run(&mut self) -> Result<()> {
        let mut running = FuturesUnordered::new();
        loop {
            while let Some(at) = self.ready.pop() {
                match self.submit(at) {
                    Ok(object) => {
                        self.states[at] = State::Running(object.id().task);
                        self.events.submitted(&self.plan.steps[at].name, object.id().task);
                        running.push(settled(at, object));
                    }
                    Err(error) => self.ended(at, Report::lost(error.to_string())),
                }
            }
            self.events.tell_submitted();
            match running.next().await {
                Some((at, Ok(report))) => self.ended(at, report),
                Some((at, Err(error))) => self.broken(at, &error),
                None => return Ok(()),
            }
        }
    }

    fn submit(&mut self, at: usize) -> Result<ObjectRef<Report>> {
        let mut inputs = Vec::new();
        for input in self.plan.steps[at].inputs.clone() {
            let (object, executable) = match input.source {
                InputSource::File(file) => self.client_file(file)?,
                InputSource::Output { step, output } => match &self.states[step] {
                    State::Succeeded(outputs) if output < outputs.len() => outputs[output].clone(),
                    other => return Err(wrong(&format!("`{}` is {other:?}", input.path))),
                },
            };
            inputs.push((input.path, object, executable));
        }
        let step = &self.plan.steps[at];
        let (words, is_line) = match &step.command {
            Invocation::Words(words) => (words.clone(), false),
            Invocation::Line(line) => (vec![line.clone()], true),
        };
        let limits = &step.limits;
        let order = Order {
            name: step.name.clone(),
            index: step.element.as_ref().map(|(_, index)| *index),
            attempt: self.tries[at].0,
            words,
            is_line,
            folder: step.folder.clone(),
            environment: step.environment.clone(),
            cpus: limits.cpus,
            time_limit: limits.time_limit,
            inputs,
            outputs: step.outputs.clone(),
        };
        let mut with = task::command
            .with()
            .cpus(limits.cpus)
            .gpus(limits.gpus)
            .memory(limits.memory)
            .priority(limits.priority);
        for (name, amount) in &limits.resources {
            with = with.resource(name, *amount);
        }
        Ok(with.submit(self.cx, order))
    }

    fn client_file(&mut self, at: usize) -> Result<File> {
        if let Some(file) = &self.files[at] {
            return Ok(file.clone());
        }
        let path = self.inputs_folder.join(at.to_string());
        let file = task::read(self.cx, &path)?;
        let file = file.ok_or_else(|| wrong(&format!("{} is missing", path.display())))?;
        self.files[at] = Some(file.clone());
        Ok(file)
    }

    /// A command has ended, well or not.
    fn ended(&mut self, at: usize, report: Report) {
        let step = &self.plan.steps[at];
        let task = match &self.states[at] {
            State::Running(task) => Some(*task),
            _ => None,
        };
        let attempt = self.tries[at].0;
        if report.ended.is_success() {
            let mut report = report;
            if let Some(results) = &self.plan.results
                && let Err(error) = save(results, step, &report.outputs)
            {
                report.ended = Ended::Lost(error.to_string());
                self.events.ended(step, task, attempt, &report, false);
                return self.fail(at);
            }
            self.events.ended(step, task, attempt, &report, false);
            self.states[at] = State::Succeeded(report.outputs);
            for waiter in std::mem::take(&mut self.waiters[at]) {
                self.one_less(waiter);
            }
            return;
        }
        let again = attempt < step.limits.retries;
        self.events.ended(step, task, attempt, &report, again);
        if again {
            self.tries[at].0 += 1;
            self.states[at] = State::Waiting { missing: 0 };
            self.ready.push(at);
        } else {
            self.fail(at);
        }
    }

    fn one_less(&mut self, at: usize) {
        if let State::Waiting { missing } = &mut self.states[at] {
            *missing = missing.saturating_sub(1);
            if *missing == 0 {
                self.ready.push(at);
            }
        }
    }

    /// A task failed under its command. Where an input was lost with its worker, the steps that
    /// make the inputs run again first.
    fn broken(&mut self, at: usize, error: &Error) {
        let is_lost = matches!(
            error,
            Error::Task(error) if matches!(error.cause, Cause::ObjectLost | Cause::OwnerDied)
        );
        let mut producers: Vec<usize> = self.plan.steps[at]
            .inputs
            .iter()
            .filter_map(|input| match input.source {
                InputSource::Output { step, .. } => Some(step),
                InputSource::File(_) => None,
            })
            .collect();
        producers.sort_unstable();
        producers.dedup();
        if !is_lost || producers.is_empty() || self.tries[at].1 >= RECOVERIES {
            return self.ended(at, Report::lost(error.to_string()));
        }
        self.tries[at].1 += 1;
        self.states[at] = State::Waiting { missing: producers.len() };
        for producer in producers {
            self.waiters[producer].push(at);
            if matches!(self.states[producer], State::Succeeded(_)) {
                self.states[producer] = State::Waiting { missing: 0 };
                self.ready.push(producer);
            }
        }
    }

    /// A step has failed for good: what comes after it never runs.
    fn fail(&mut self, at: usize) {
        self.states[at] = State::Failed;
        let cause = self.plan.steps[at].name.clone();
        let mut open = std::mem::take(&mut self.waiters[at]);
        while let Some(waiter) = open.pop() {
            if matches!(self.states[waiter], State::Waiting { .. }) {
                self.states[waiter] = State::Skipped;
                self.events.skipped(&self.plan.steps[waiter], &cause);
                open.append(&mut self.waiters[waiter]);
            }
        }
    }
}

async fn settled(at: usize, object: ObjectRef<Report>) -> (usize, Result<Report>) {
    (at, object.await)
}

/// Writes the outputs of a step below the folder of results.
fn save(results: &Path, step: &Step, outputs: &[File]) -> Result<()> {
    let folder = match &step.element {
        Some((name, index)) => results.join(name).join(index.to_string()),
        None => results.join(&step.name),
    };
    for (path, (object, executable)) in step.outputs.iter().zip(outputs) {
        let path = folder.join(path);
        task::write(&path, object.read()?.as_slice(), *executable).map_err(|error| {
            wrong(&format!("cannot write the result {}: {error}", path.display()))
        })?;
    }
    Ok(())
}

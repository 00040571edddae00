//! The executor that runs what other processes of its job give it by a lease (`lessee`): for each
//! of them a *lane* of tasks, one after the other.
//!
//! The worker knows of the lease, and of no task in it. A task that ends with a small value answers
//! its caller, and that was all. One that submits, waits, fails, makes anything else, or still runs
//! when the worker wants the lease back leaves it: the worker is told the task, as one that runs
//! here, and hears of it from then on as of others. The lease is over with that; what has not
//! started goes back.
//!
//! **LA-1** A task is `current` in its lane from its start until it has answered or left. A lane
//! has a thread, or is in the queue for one, exactly while `is_served`; a thread whose task has
//! left has lost the lane.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use dashmap::mapref::entry::Entry;
use rdist_scheduler::id::{ExecutorId, TaskId};
use rdist_scheduler::local::LeaseEnd;
use rdist_scheduler::spec::TaskSpec;

use super::Reply;
use crate::executor::process::{Encoded, Process};
use crate::executor::registry::Body;
use crate::executor::run::{self, Job, wrong_kind};
use crate::executor::running::Running;
use crate::executor::slots::Work;
use crate::wire::executor::{FromExecutor, Value};

/// Tasks that a thread runs before other work gets its turn.
const TASKS_PER_TURN: usize = 64;

/// What one process has given by its leases.
#[derive(Debug)]
pub(in crate::executor) struct Lane {
    caller: ExecutorId,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The last lease that was heard of, and the last one that is over.
    lease: u64,
    over: u64,
    /// How the worker wants the lease back.
    end: Option<LeaseEnd>,
    waiting: VecDeque<Leased>,
    current: Option<Leased>,
    is_served: bool,
}

#[derive(Debug, Clone)]
struct Leased {
    job: Arc<Job>,
    reply: Reply,
}

impl Lane {
    pub(in crate::executor) fn new(caller: ExecutorId) -> Arc<Self> {
        Arc::new(Self { caller, state: Mutex::default() })
    }

    /// Takes a task. Runs no user code.
    pub(in crate::executor) fn arrived(
        self: &Arc<Self>,
        process: &'static Process,
        lease: u64,
        spec: TaskSpec,
        reply: Reply,
    ) {
        let mut state = self.lock();
        if lease > state.lease {
            (state.lease, state.end) = (lease, None);
        }
        let is_closed = lease < state.lease || state.end >= Some(LeaseEnd::Closed);
        if lease <= state.over || is_closed {
            drop(state);
            return reply.not_started();
        }
        let running = Arc::new(Running::leased(process, &spec, self));
        let is_here = match process.running.entry(spec.id) {
            Entry::Occupied(_) => true,
            Entry::Vacant(slot) => {
                slot.insert(running.clone());
                false
            }
        };
        if is_here {
            // The worker knows the one that is here, and so is to know of this one too. The caller
            // takes the lease for over.
            state.give_back(process, self.caller);
            drop(state);
            return reply.not_started();
        }
        let job = Arc::new(Job { spec, dependencies: Vec::new(), running, reply: None });
        state.waiting.push_back(Leased { job, reply });
        if !std::mem::replace(&mut state.is_served, true) {
            process.slots.push(Work::Lane(self.clone()));
        }
    }

    /// The worker wants the lease back.
    pub(in crate::executor) fn end(&self, process: &Process, lease: u64, how: LeaseEnd) {
        let mut state = self.lock();
        if lease <= state.over {
            return;
        }
        (state.lease, state.end) = (lease, state.end.max(Some(how)));
        let is_dry = state.current.is_none() && state.waiting.is_empty();
        if is_dry || how == LeaseEnd::AtOnce {
            state.give_back(process, self.caller);
        }
    }

    /// A task does something of which the worker has to hear: it leaves its lease, unless it has.
    pub(in crate::executor) fn leave(&self, process: &Process, task: TaskId) {
        let mut state = self.lock();
        if state.current.as_ref().is_some_and(|current| current.job.spec.id == task) {
            state.give_back(process, self.caller);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The lease is over: what runs leaves it, and the rest goes back.
    fn give_back(&mut self, process: &Process, caller: ExecutorId) {
        self.over = self.lease;
        self.end = None;
        let running = self.current.take().map(|current| {
            self.is_served = false;
            current.job.spec.clone()
        });
        process.outbox.send(&FromExecutor::LeaseOver { caller, number: self.over, running });
        for Leased { job, reply } in self.waiting.drain(..) {
            process.forget(&job);
            reply.not_started();
        }
    }
}

/// Runs tasks for a turn.
pub(in crate::executor) fn serve(process: &'static Process, lane: &Arc<Lane>) {
    let mut has_looked = false;
    for _ in 0..TASKS_PER_TURN {
        let next = {
            let mut state = lane.lock();
            match state.waiting.pop_front() {
                Some(leased) => {
                    state.current = Some(leased.clone());
                    leased
                }
                None if !std::mem::replace(&mut has_looked, true) => {
                    // More may have come.
                    drop(state);
                    process.pump();
                    continue;
                }
                None => {
                    state.is_served = false;
                    if state.end.is_some() {
                        state.give_back(process, lane.caller);
                    }
                    return;
                }
            }
        };
        has_looked = false;
        if !run(process, lane, &next) {
            return;
        }
    }
    process.slots.push(Work::Lane(lane.clone()));
}

/// Runs a task; false: it has left its lease, and the lane is another thread's.
fn run(process: &'static Process, lane: &Lane, Leased { job, reply }: &Leased) -> bool {
    let started = Instant::now();
    let result = run::execute(process, job, |body, arguments, cx| match body {
        Some(Body::Task(body)) => body(arguments, cx),
        _ => Err(wrong_kind("a plain task")),
    });
    let result = match result {
        Ok(Encoded { value: Value::Inline(bytes), contains, more })
            if contains.is_empty() && more.is_empty() =>
        {
            let is_it = |current: &mut Leased| Arc::ptr_eq(&current.job, job);
            let is_leased = lane.lock().current.take_if(is_it).is_some();
            if is_leased {
                process.forget(job);
                reply.ran(bytes, started.elapsed());
                return true;
            }
            Ok(Encoded { value: Value::Inline(bytes), contains, more })
        }
        result => result,
    };
    lane.leave(process, job.spec.id);
    run::finish_call(process, job, result);
    false
}

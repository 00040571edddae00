//! What is shared by a task's context, those that wait for its sake, and its cancellation.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::Wake;
use std::time::Instant;

use rdist_scheduler::id::{ObjectId, TaskId};
use rdist_scheduler::local::LEASED_ATTEMPT;
use rdist_scheduler::resource::Resources;
use rdist_scheduler::spec::{TaskKind, TaskSpec};

use super::call_task::CallTask;
use super::direct::Lane;
use super::mailbox::Mailbox;
use super::process::Process;
use super::run::Job;
use super::wait::{Parker, Why};
use super::yielding::Yielding;
use crate::api::error::Error;
use crate::wire::executor::FromExecutor;

/// What a task's context and its cancellation share.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) process: &'static Process,
    pub(crate) id: TaskId,
    /// What the ids of its children and puts derive from.
    root: TaskId,
    pub(crate) attempt: u32,
    pub(crate) request: Resources,
    /// How many values it returns.
    pub(crate) returns: u32,
    /// Whether errors may be worth another try, and by which predicate.
    pub(crate) error_predicate: Option<u64>,
    /// Whether it lets go of its CPUs while it waits. Actors keep theirs.
    blocks: bool,
    /// Whether its end, or its wait, is the turn of another task.
    takes_turns: bool,
    waits: Mutex<Waits>,
    /// How it yields, if it does.
    pub(crate) stream: Option<Yielding>,
    children: AtomicU64,
    puts: AtomicU32,
    is_cancelled: AtomicBool,
    /// Threads that wait for this task's sake.
    sleepers: Mutex<Vec<Arc<Parker>>>,
    /// The rest of a call that waits without a thread.
    pub(super) call_task: OnceLock<Weak<CallTask>>,
    /// The actor that it is a call of, if that saves its state.
    pub(super) saves: OnceLock<Arc<Mailbox>>,
    /// The lane that it came by, if that was a lease.
    lane: Option<Arc<Lane>>,
}

/// What the worker was told of a task's waiting.
#[derive(Debug, Default)]
struct Waits {
    /// Threads that are blocked for the task's sake.
    blocked: u32,
    has_ended: bool,
}

impl Running {
    pub(super) fn new(process: &'static Process, spec: &TaskSpec, attempt: u32) -> Self {
        let frees_cpus = matches!(spec.kind, TaskKind::Plain | TaskKind::Driver);
        Self {
            process,
            id: spec.id,
            root: spec.id.root(attempt),
            attempt,
            request: spec.request.clone(),
            returns: spec.returns,
            error_predicate: spec
                .policy
                .as_ref()
                .and_then(|policy| (policy.error_retries > 0).then_some(policy.error_predicate)),
            blocks: frees_cpus && !spec.request.is_none(),
            takes_turns: spec.takes_turns(),
            waits: Mutex::default(),
            stream: spec.stream().map(Yielding::new),
            children: AtomicU64::new(0),
            puts: AtomicU32::new(0),
            is_cancelled: AtomicBool::new(false),
            sleepers: Mutex::default(),
            call_task: OnceLock::new(),
            saves: OnceLock::new(),
            lane: None,
        }
    }

    /// The first try of a task in a lane. It takes no turns, and if the worker hears of it, it is
    /// as of one that came so.
    pub(super) fn leased(process: &'static Process, spec: &TaskSpec, lane: &Arc<Lane>) -> Self {
        let running = Self::new(process, spec, 0);
        Self { takes_turns: false, lane: Some(lane.clone()), ..running }
    }

    /// The worker has to know it from now on: it waits, or is to have children.
    pub(crate) fn leave_lease(&self) {
        if let Some(lane) = &self.lane {
            lane.leave(self.process, self.id);
        }
    }

    /// Which try the worker knows it as.
    pub(super) fn told_as(&self) -> u32 {
        if self.lane.is_some() { LEASED_ATTEMPT } else { self.attempt }
    }

    /// The id of the next task that it submits.
    pub(crate) fn next_child(&self) -> TaskId {
        self.root.child(self.children.fetch_add(1, Ordering::Relaxed))
    }

    /// The id of the next object that it puts, in so many copies.
    pub(crate) fn next_put(&self, copies: u32) -> ObjectId {
        let index = self.puts.fetch_add(1, Ordering::Relaxed);
        if copies > 1 { self.root.put_replicated(index) } else { self.root.put(index) }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
    }

    pub(super) fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::SeqCst);
        self.wake();
    }

    pub(super) fn wake(&self) {
        let sleepers = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
        sleepers.iter().for_each(|parker| parker.notify());
        drop(sleepers);
        if let Some(task) = self.call_task.get().and_then(Weak::upgrade) {
            task.wake();
        }
    }

    /// Waits on a thread of this task. `Ok(false)`: the deadline passed.
    pub(crate) fn wait(
        &self,
        deadline: Option<Instant>,
        mut is_over: impl FnMut() -> bool,
    ) -> Result<bool, Error> {
        let parker = Parker::current();
        let sleepers = || self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
        sleepers().push(parker.clone());
        let mut is_blocked = false;
        let mut is_answered = false;
        let in_time = self.process.wait(
            Why::Answer,
            deadline,
            || {
                is_answered = is_over();
                is_answered || self.is_cancelled.load(Ordering::SeqCst)
            },
            || {
                if let Some(mailbox) = self.saves.get() {
                    // What it waits for may wait for calls before this one.
                    mailbox.flush(self.process);
                }
                if self.blocks {
                    is_blocked = true;
                    self.blocked();
                }
            },
        );
        if is_blocked {
            self.unblocked();
        }
        let mut sleepers = sleepers();
        if let Some(at) = sleepers.iter().position(|other| Arc::ptr_eq(other, &parker)) {
            sleepers.swap_remove(at);
        }
        if in_time && !is_answered { Err(Error::Cancelled) } else { Ok(in_time) }
    }
}

impl Running {
    /// The first thread that waits lets go of the task's CPUs.
    fn blocked(&self) {
        let mut waits = self.lock_waits();
        waits.blocked += 1;
        if waits.blocked > 1 || waits.has_ended {
            return;
        }
        self.leave_lease();
        let message = FromExecutor::Blocked(self.id, self.told_as());
        if self.takes_turns {
            self.process.turn_of_blocked(&message);
        } else {
            self.process.outbox.send(&message);
        }
    }

    /// The last one takes them back.
    fn unblocked(&self) {
        let mut waits = self.lock_waits();
        waits.blocked -= 1;
        if waits.blocked == 0 && !waits.has_ended {
            let attempt = self.told_as();
            self.process.outbox.send(&FromExecutor::Unblocked(self.id, attempt));
        }
    }

    /// Tells the worker of the task's end; the task that is next on this thread.
    pub(super) fn ended(&self, message: &FromExecutor) -> Option<Box<Job>> {
        let mut waits = self.lock_waits();
        waits.has_ended = true;
        if self.takes_turns && waits.blocked == 0 {
            drop(waits);
            return self.process.turn_of_ended(message);
        }
        self.process.outbox.send(message);
        None
    }

    fn lock_waits(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Leases: a process of a job has one CPU of this worker for itself, and gives short tasks to the
//! job's pooled executor through a ring that only the two share, without passing through here.
//!
//! - A process that submits one task after the other asks for a lease. It is granted where a CPU is
//!   free and nothing waits for one; it has one lease at a time.
//! - The executor (the *host*) runs what comes by the lease one after the other, on that CPU. This
//!   core hears of none of it: what succeeds with a small value is between the two processes.
//! - Everything else makes a task of it as others are: a leased task that submits others, waits,
//!   fails, returns what fits into no ring, or still runs when the lease is taken back, *leaves*
//!   the lease. It takes the CPU over, and the lease is over: the host says so, and is the only one
//!   to do it. What had not started goes back to the caller, who submits it here.
//! - A leased task whose object is passed on is *promised*, as a call is (`direct`): a task that
//!   holds nothing, since the lease does, and whose answer its caller passes on.
//! - A lease is taken back when it is old, and when somebody waits for its CPU: first when the host
//!   has nothing to do by it, then from new tasks, then from what runs ([`LeaseEnd`]). So nothing
//!   runs for long of which this core does not know.
//! - With the host, what it ran is lost, and the caller, who hears of that, says of what. With the
//!   caller, its lease is taken back, and what it had promised begins again.
//!
//! Invariants: LE-1 a lease holds one CPU; host and job are those of the caller's pool. LE-2 a task
//! is promised by a lease exactly while it holds nothing.
#![allow(missing_docs, reason = "rkyv derives archived fields without docs")]

use core::time::Duration;
use std::sync::Arc;

use rkyv::{Archive, Deserialize, Serialize};

use super::{LocalAction, LocalCore, Step};
use crate::group::Slot;
use crate::hash::FastMap;
use crate::id::{ExecutorId, JobId};
use crate::outcome::{Cause, Death, Outcome, TaskError};
use crate::resource::Resources;
use crate::spec::{TaskKind, TaskSpec};
use crate::task::{TaskEntry, TaskKey, TaskState};
use crate::time::Timestamp;

/// How long a lease lasts, and then waits for a moment without work.
const TERM: Duration = Duration::from_millis(100);
/// How long it takes from one of the firmer ways of taking it back to the next.
const PATIENCE: Duration = Duration::from_millis(10);

/// Which try an executor counts a leased task as, whatever came before.
pub const LEASED_ATTEMPT: u32 = u32::MAX;

/// How a lease is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub enum LeaseEnd {
    /// As soon as the host has nothing to do by it.
    WhenDry,
    /// The same, and new tasks are not taken.
    Closed,
    /// Now: what runs leaves it.
    AtOnce,
}

/// One CPU, for the short tasks of one process.
#[derive(Debug)]
struct Lease {
    number: u64,
    caller: ExecutorId,
    host: ExecutorId,
    job: JobId,
    /// How the host was asked to give it back.
    asked: Option<LeaseEnd>,
    /// When it is asked, or asked more firmly.
    due: Timestamp,
}

/// All of them: a few.
#[derive(Debug, Default)]
pub(super) struct Leases {
    all: Vec<Lease>,
    last: u64,
    /// The host of each process that has, or had, a lease.
    hosts: FastMap<ExecutorId, ExecutorId>,
    /// Tasks that would fit if leases were over.
    deferred: Vec<(TaskKey, u64)>,
}

impl Leases {
    pub(super) fn due(&self) -> Option<Timestamp> {
        let waits = |lease: &&Lease| lease.asked != Some(LeaseEnd::AtOnce);
        self.all.iter().filter(waits).map(|lease| lease.due).min()
    }

    /// How many a job has.
    pub(super) fn of_job(&self, job: JobId) -> usize {
        self.all.iter().filter(|lease| lease.job == job).count()
    }

    /// Whether the process has one, or runs what comes by one.
    pub(super) fn uses(&self, executor: ExecutorId) -> bool {
        self.all.iter().any(|lease| lease.caller == executor || lease.host == executor)
    }

    /// What all of them hold.
    pub(super) fn held(&self) -> Resources {
        let mut held = Resources::NONE;
        self.all.iter().for_each(|_| held.add(&one_cpu()));
        held
    }
}

/// A task that `caller` has promised by a lease.
fn is_promised_task(entry: &TaskEntry, caller: ExecutorId) -> bool {
    entry.is_promised() && entry.submitter == caller && !entry.is_call()
}

fn one_cpu() -> Resources {
    Resources::cpus(1.0)
}

impl LocalCore {
    /// A process asks for a lease.
    pub(super) fn lease_wanted(&mut self, caller: ExecutorId) {
        let granted = self.lease_host(caller).map(|(host, job)| {
            self.leases.last += 1;
            let (number, due) = (self.leases.last, self.now + TERM);
            self.leases.all.push(Lease { number, caller, host, job, asked: None, due });
            self.leases.hosts.insert(caller, host);
            self.take_from(Slot::NONE, job, &one_cpu());
            self.ledger.pass(&one_cpu());
            self.head.load_changed = true;
            (host, number)
        });
        self.act(LocalAction::Lease { caller, granted });
    }

    /// Where a process may have a lease now.
    fn lease_host(&self, caller: ExecutorId) -> Option<(ExecutorId, JobId)> {
        let job = self.executors.get(&caller).filter(|process| process.is_up())?.job;
        let host = self.pools.get(&job).copied().filter(|host| *host != caller)?;
        let is_free = self.queue.len() == 0 && self.ledger.fits(&one_cpu());
        let may = !self.draining && !self.quotas.counts(job, &one_cpu());
        let has_none = self.leases.all.iter().all(|lease| lease.caller != caller);
        (self.listens(host) && is_free && may && has_none).then_some((host, job))
    }

    /// Asks hosts for leases, in this way at least.
    fn end_leases(&mut self, how: LeaseEnd, is_meant: impl Fn(&JobId, &ExecutorId) -> bool) {
        let due = self.now + if how == LeaseEnd::WhenDry { TERM } else { PATIENCE };
        let mut ends = Vec::new();
        for lease in &mut self.leases.all {
            if lease.asked < Some(how) && is_meant(&lease.job, &lease.caller) {
                (lease.asked, lease.due) = (Some(how), due);
                let Lease { host: executor, caller, number, .. } = *lease;
                ends.push(LocalAction::EndLease { executor, caller, number, how });
            }
        }
        ends.into_iter().for_each(|end| self.act(end));
    }

    /// Leases whose time is over.
    pub(super) fn expire_leases(&mut self) {
        let now = self.now;
        let mut due: Vec<(ExecutorId, LeaseEnd)> = Vec::new();
        for lease in self.leases.all.iter().filter(|lease| lease.due <= now) {
            match lease.asked {
                None => due.push((lease.caller, LeaseEnd::WhenDry)),
                Some(LeaseEnd::WhenDry) => due.push((lease.caller, LeaseEnd::Closed)),
                Some(LeaseEnd::Closed) => due.push((lease.caller, LeaseEnd::AtOnce)),
                Some(LeaseEnd::AtOnce) => {}
            }
        }
        for (who, how) in due {
            self.end_leases(how, |_, caller| *caller == who);
        }
    }

    /// Something waits in the queue that does not fit. A job's own tasks do not take its lease from
    /// work.
    pub(super) fn recall_leases(&mut self) {
        if self.leases.all.is_empty() || self.queue.len() == 0 {
            return;
        }
        let held_up: Vec<JobId> = self.leases.all.iter().map(|lease| lease.job).collect();
        let others_wait = held_up.into_iter().any(|job| self.queue.has_others(job));
        let how = if others_wait { LeaseEnd::Closed } else { LeaseEnd::WhenDry };
        self.end_leases(how, |_, _| true);
    }

    /// A task that is spilled where it does not fit waits for leases instead, if it would fit
    /// without them. True: it does.
    pub(super) fn waits_for_leases(&mut self, key: TaskKey) -> bool {
        if self.leases.all.is_empty() {
            return false;
        }
        let mut free = self.ledger.available.clone();
        free.add(&self.leases.held());
        if !free.covers(&self.tasks[key].spec.request) {
            return false;
        }
        let stamp = self.tasks[key].stamp;
        self.leases.deferred.push((key, stamp));
        self.end_leases(LeaseEnd::AtOnce, |_, _| true);
        true
    }

    /// A host gives a lease back; `running` leaves it.
    pub(super) fn lease_over(
        &mut self,
        host: ExecutorId,
        caller: ExecutorId,
        number: u64,
        running: Option<Arc<TaskSpec>>,
    ) {
        let is_it = |lease: &Lease| lease.number == number && lease.host == host;
        let Some(at) = self.leases.all.iter().position(is_it) else { return };
        let lease = self.leases.all.swap_remove(at);
        let left = running.is_some_and(|spec| self.leaves_lease(&lease, spec));
        if !left {
            self.free_lease(lease.job);
        }
        if !self.executors.contains_key(&caller) {
            self.begin_promised_again(caller, host);
        }
        self.leases_changed();
    }

    fn free_lease(&mut self, job: JobId) {
        self.ledger.unpass(&one_cpu());
        self.give_to(Slot::NONE, job, &one_cpu());
    }

    fn leases_changed(&mut self) {
        let deferred = core::mem::take(&mut self.leases.deferred);
        self.steps.extend(deferred.into_iter().map(|(key, stamp)| Step::Resolved(key, stamp)));
    }

    /// A leased task goes on as others do, on the CPU of its lease. False: it is none that can.
    fn leaves_lease(&mut self, lease: &Lease, spec: Arc<TaskSpec>) -> bool {
        let (caller, host) = (lease.caller, lease.host);
        if !spec.takes_turns() || spec.id.job() != lease.job || !self.executors.contains_key(&host)
        {
            return false;
        }
        self.hold_made(caller, spec.id.object(0));
        match self.tasks.find(spec.id, self.me) {
            Some(key) if is_promised_task(&self.tasks[key], caller) => {
                self.tasks[key].extra().promised = false;
                return true;
            }
            // The caller's next life has submitted it before this one's end was heard of.
            Some(_) => return false,
            None => {}
        }
        if self.results_exist(&spec) {
            return false;
        }
        let key = self.insert_task(spec, self.me, 0, caller);
        self.tasks[key].extra().leased = true;
        self.list_leased(key, host);
        true
    }

    fn list_leased(&mut self, key: TaskKey, host: ExecutorId) {
        self.list_running(key, host);
        if let TaskState::Running { attempt, .. } = &mut self.tasks[key].state {
            *attempt = LEASED_ATTEMPT;
        }
    }

    /// A process passes on the object of a leased task; `lost`: it was lost with its host.
    pub(super) fn promised_task(
        &mut self,
        by: ExecutorId,
        spec: Arc<TaskSpec>,
        lost: Option<Death>,
    ) {
        let host = self.leases.hosts.get(&by).copied();
        match host.filter(|host| lost.is_none() && self.executors.contains_key(host)) {
            Some(host) if spec.takes_turns() => {
                let key = self.insert_task(spec, self.me, 0, by);
                let extra = self.tasks[key].extra();
                (extra.leased, extra.promised) = (true, true);
                self.list_leased(key, host);
            }
            // Without a word on how: the caller has yet to hear of the end of its host.
            _ => {
                let task = spec.id;
                let key = self.insert_new(spec, by);
                let cause = Cause::ExecutorDied(lost.unwrap_or(Death::WorkerLost));
                self.conclude(key, Outcome::Failed(TaskError { task, cause }));
            }
        }
    }

    /// A promised task was lost with its host, which had died before the promise came: so it counts
    /// as one that runs in the next host.
    pub(super) fn lost_before(&mut self, key: TaskKey, by: ExecutorId, death: &Death) {
        if is_promised_task(&self.tasks[key], by) {
            self.stop_running(key);
            self.died_with(key, death);
        }
    }

    /// A promised task comes back from its host, which has not started it.
    pub(super) fn comes_back(&mut self, key: TaskKey, by: ExecutorId) {
        if is_promised_task(&self.tasks[key], by) {
            self.begin_promised(key);
        }
    }

    fn begin_promised(&mut self, key: TaskKey) {
        self.stop_running(key);
        let entry = &mut self.tasks[key];
        let extra = entry.extra();
        (extra.leased, extra.promised) = (false, false);
        if entry.cancelled {
            let task = entry.spec.id;
            self.conclude(key, Outcome::Failed(TaskError { task, cause: Cause::Cancelled }));
        } else {
            self.begin(key);
        }
    }

    /// Nobody will say what became of the tasks that a process had promised.
    fn begin_promised_again(&mut self, caller: ExecutorId, host: ExecutorId) {
        let Some(process) = self.executors.get(&host) else { return };
        let promised = |key: &TaskKey| is_promised_task(&self.tasks[*key], caller);
        let mut keys: Vec<TaskKey> = process.running.iter().copied().filter(promised).collect();
        keys.sort_unstable_by_key(|key| self.tasks[*key].order);
        keys.into_iter().for_each(|key| self.begin_promised(key));
    }

    /// A process that had leases is gone.
    pub(super) fn lessee_died(&mut self, caller: ExecutorId) {
        let Some(host) = self.leases.hosts.remove(&caller) else { return };
        if self.leases.all.iter().any(|lease| lease.caller == caller) {
            // Its host says first what it runs.
            self.end_leases(LeaseEnd::AtOnce, |_, of| *of == caller);
        } else {
            self.begin_promised_again(caller, host);
        }
    }

    /// A process that may have been a host is gone.
    pub(super) fn host_died(&mut self, host: ExecutorId) {
        let over: Vec<Lease> = self.leases.all.extract_if(.., |l| l.host == host).collect();
        over.into_iter().for_each(|lease| self.free_lease(lease.job));
        self.leases_changed();
    }

    /// A job's leases end with it.
    pub(super) fn forget_leases(&mut self, job: JobId) {
        let over: Vec<Lease> = self.leases.all.extract_if(.., |l| l.job == job).collect();
        over.into_iter().for_each(|lease| self.free_lease(lease.job));
        self.leases_changed();
    }

    pub(super) fn close_leases(&mut self) {
        self.end_leases(LeaseEnd::Closed, |_, _| true);
    }

    pub(super) fn check_leases(&self) {
        for lease in &self.leases.all {
            let host = &self.executors[&lease.host];
            assert_eq!(host.job, lease.job, "LE-1: {} is of the job's pool", lease.host);
            let caller = self.executors.get(&lease.caller);
            let ends = lease.asked == Some(LeaseEnd::AtOnce);
            assert!(
                caller.map_or(ends, |caller| caller.job == lease.job),
                "LE-1: {} has its lease while it lives",
                lease.caller
            );
        }
        for (_, entry) in self.tasks.iter().filter(|(_, e)| e.is_promised() && !e.is_call()) {
            let runs = matches!(entry.state, TaskState::Running { .. });
            let is_plain = matches!(entry.spec.kind, TaskKind::Plain);
            assert!(runs && is_plain && entry.is_leased(), "LE-2: {:?}", entry.spec.id);
        }
    }
}

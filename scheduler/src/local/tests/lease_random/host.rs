//! The executor that runs the driver's tasks, as the worker knows and by its leases.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::{BY_HOST, CPUS, Model, Order, Reply};
use crate::id::TaskId;
use crate::local::tests::bench::{inline, killed};
use crate::local::{LEASED_ATTEMPT, LeaseEnd, LocalEvent};
use crate::outcome::{Cause, Outcome, TaskError};
use crate::spec::TaskSpec;

#[derive(Debug, Default)]
pub(super) struct Host {
    pub(super) up: bool,
    /// Tasks that run as the worker knows: their attempts, and whether they wait.
    running: BTreeMap<TaskId, (u32, bool)>,
    current: Option<Arc<TaskSpec>>,
    waiting: VecDeque<Arc<TaskSpec>>,
    lease: u64,
    over: u64,
    end: Option<LeaseEnd>,
    cancelled: Vec<TaskId>,
}

impl Host {
    pub(super) fn started() -> Self {
        Self { up: true, ..Self::default() }
    }
}

impl Model {
    pub(super) fn host_hears(&mut self) {
        if !self.at.up {
            return;
        }
        if self.chance(2) {
            let Some((number, spec)) = self.calls.pop_front() else { return };
            let at = &mut self.at;
            if number > at.lease {
                (at.lease, at.end) = (number, None);
            }
            let is_closed = number < at.lease || at.end >= Some(LeaseEnd::Closed);
            if number <= at.over || is_closed {
                self.replies.push_back(Reply::NotStarted(spec.id));
            } else {
                at.waiting.push_back(spec);
            }
            return;
        }
        match self.orders.pop_front() {
            None => {}
            Some(Order::Run(spec, attempt)) => {
                self.at.running.insert(spec.id, (attempt, false));
                self.check_cpus();
            }
            Some(Order::Cancel(task)) => self.at.cancelled.push(task),
            Some(Order::EndLease(number, how)) if number > self.at.over => {
                self.at.lease = number;
                self.at.end = self.at.end.max(Some(how));
                self.give_back_if(how == LeaseEnd::AtOnce);
            }
            Some(Order::EndLease(..)) => {}
        }
    }

    pub(super) fn give_back_if(&mut self, now: bool) {
        let at = &mut self.at;
        let is_dry = at.current.is_none() && at.waiting.is_empty();
        let is_time = now || (is_dry && at.end.is_some());
        if !is_time {
            return;
        }
        (at.over, at.end) = (at.lease, None);
        let running = at.current.take();
        if let Some(spec) = &running {
            at.running.insert(spec.id, (LEASED_ATTEMPT, false));
        }
        self.replies.extend(at.waiting.drain(..).map(|spec| Reply::NotStarted(spec.id)));
        let (executor, caller, number) = (self.host, self.driver, at.over);
        self.say(BY_HOST, LocalEvent::LeaseOver { executor, caller, number, running });
    }

    /// What runs, but for what waits.
    fn check_cpus(&self) {
        let running = self.at.running.values().filter(|(_, waits)| !waits).count();
        let leased = usize::from(self.at.current.is_some());
        // What goes on after it waited may have to wait for its CPU.
        assert!(running + leased <= CPUS + 2, "{:?}", self.at);
    }

    pub(super) fn host_acts(&mut self) {
        if !self.at.up {
            return;
        }
        if self.at.current.is_none() {
            self.at.current = self.at.waiting.pop_front();
        }
        if self.chance(2)
            && let Some(spec) = self.at.current.clone()
        {
            let is_cancelled = self.at.cancelled.contains(&spec.id);
            match self.below(6) {
                0 => {
                    self.give_back_if(true);
                    self.wait(spec.id);
                }
                _ if is_cancelled => {
                    self.give_back_if(true);
                    self.finish(spec.id);
                }
                _ => {
                    self.at.current = None;
                    self.replies.push_back(Reply::Ran(spec.id));
                    self.give_back_if(false);
                }
            }
            return;
        }
        let tasks: Vec<TaskId> = self.at.running.keys().copied().collect();
        if tasks.is_empty() {
            return;
        }
        let task = tasks[self.below(tasks.len() as u64) as usize];
        let executor = self.host;
        let (attempt, waits) = self.at.running[&task];
        if waits {
            self.at.running.insert(task, (attempt, false));
            self.say(BY_HOST, LocalEvent::Unblocked { executor, task, attempt });
        } else if self.chance(4) {
            self.wait(task);
        } else {
            self.finish(task);
        }
    }

    fn wait(&mut self, task: TaskId) {
        let executor = self.host;
        let Some((attempt, waits)) = self.at.running.get_mut(&task) else { return };
        *waits = true;
        let attempt = *attempt;
        self.say(BY_HOST, LocalEvent::Blocked { executor, task, attempt });
    }

    fn finish(&mut self, task: TaskId) {
        let (executor, cause) = (self.host, Cause::Cancelled);
        let Some((attempt, _)) = self.at.running.remove(&task) else { return };
        let outcome = match self.at.cancelled.contains(&task) {
            true => Outcome::Failed(TaskError { task, cause }),
            false => inline(),
        };
        self.say(BY_HOST, LocalEvent::Finished { executor, task, attempt, outcome });
    }

    pub(super) fn host_dies(&mut self) {
        if !self.at.up || !self.chance(150) {
            return;
        }
        self.at = Host::default();
        self.orders.clear();
        self.calls.clear();
        // What it had said counts.
        while let Some(event) = self.to_core[BY_HOST].pop_front() {
            self.core_hears(event);
        }
        let (executor, death) = (self.host, killed());
        self.core_hears(LocalEvent::ExecutorDied { executor, death });
    }
}

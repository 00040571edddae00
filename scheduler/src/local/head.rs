//! What goes to the head and comes from it: work to be placed elsewhere, load, names.
//!
//! Messages of one kind that come up together go as one: spilled tasks and ended ones are batched
//! until the runtime has taken every other action. Without a head they wait. A head that lost what
//! it knew is told again what is spilled and not known to be placed, which names are claimed, who
//! is looked up, and which drivers have ended.
//!
//! A head tells its members who is lost. A worker that joins later can still come by references to
//! objects of that one, so the head is asked about every worker when it is met.

use core::cmp::Reverse;
use std::collections::BTreeMap;

use super::assigned::Unstarted;
use super::{LocalAction, LocalCore, dispatch};
use crate::hash::IdMap;
use crate::id::{ActorId, ExecutorId, JobId, TaskId, WorkerId};
use crate::message::{FromHead, Held, HeldTask, Load, ToHead};
use crate::outcome::{Cause, Outcome, TaskError};
use crate::resource::Resources;
use crate::spec::{Assignment, TaskKind};
use crate::task::{Ready, SpillReason, TaskKey, TaskState};
use crate::time::Timestamp;

/// What is kept for the head.
#[derive(Debug, Default)]
pub(super) struct HeadLink {
    /// Whether it answers.
    pub(super) present: bool,
    /// Tasks to be spilled, with their stamps.
    spills: Vec<(TaskKey, u64)>,
    /// Workers that it has not been asked about.
    pub(super) met: Vec<WorkerId>,
    /// Assigned tasks that have ended.
    pub(super) ended: Vec<(TaskId, u32)>,
    /// Own tasks that were taken back from the head, and may have been placed all the same: with
    /// the last try, and the worker where that has ended, or was told to, if any. Kept for as
    /// long as the job, so that what is still said about such a try is never taken for news of
    /// another one.
    unspilled: IdMap<TaskId, (u32, Option<WorkerId>)>,
    /// Drivers that have ended here, until the head ends their job.
    pub(super) drivers: BTreeMap<JobId, (u32, Outcome)>,
    /// Questions without an answer.
    questions: BTreeMap<u64, Question>,
    last_question: u64,
    /// The load may differ from what was sent.
    pub(super) load_changed: bool,
    /// Assignments that came since the head was fresh.
    assignments: u64,
    pub(super) unstarted: Unstarted,
    next_load: Timestamp,
    last_load: Option<Load>,
}

/// Something that an executor wants to know of the head.
#[derive(Debug)]
struct Question {
    by: ExecutorId,
    /// The executor's own number for it.
    request: u64,
    /// The name that is looked up; `None`: what all workers offer.
    name: Option<String>,
}

impl Question {
    fn message(&self, request: u64) -> ToHead {
        match self.name.clone() {
            Some(name) => ToHead::ActorLookup { request, name },
            None => ToHead::OffersWanted { request },
        }
    }
}

impl HeadLink {
    /// When a load report is due.
    pub(super) fn load_due(&self) -> Option<Timestamp> {
        let changed = self.load_changed.then_some(self.next_load);
        changed.into_iter().chain(self.unstarted.due()).min().filter(|_| self.present)
    }

    /// The next report does not wait for its time.
    pub(super) fn report_now(&mut self, now: Timestamp) {
        self.next_load = now;
        self.load_changed = true;
    }

    pub(super) fn forget_job(&mut self, job: JobId) {
        self.unspilled.retain(|task, _| task.job() != job);
        self.drivers.remove(&job);
    }

    pub(super) fn forget_executor(&mut self, executor: ExecutorId) {
        self.questions.retain(|_, question| question.by != executor);
    }
}

impl LocalCore {
    /// An own task is for the head to place.
    pub(super) fn spill(&mut self, key: TaskKey, reason: SpillReason) {
        let stamp = self.tasks.restamp(key);
        self.tasks[key].state = TaskState::Spilled { reason, told: false, waits: None };
        self.head.spills.push((key, stamp));
    }

    /// An own task is wanted back from the head.
    pub(super) fn unspill(&mut self, task: TaskId, attempt: u32, ended_at: Option<WorkerId>) {
        self.head.unspilled.insert(task, (attempt, ended_at));
        self.send_head(ToHead::Unspill { task });
    }

    /// The number of the first try of an own task that comes, or comes again.
    pub(super) fn first_try(&self, task: TaskId) -> u32 {
        let unspilled = self.head.unspilled.get(&task).map(|(last, _)| *last);
        unspilled.max(self.unanswered.newest(task)).map_or(0, |last| last + 1)
    }

    /// Says something to the head, after what was batched before.
    pub(super) fn send_head(&mut self, message: ToHead) {
        self.flush_head();
        self.act(LocalAction::SendHead(message));
    }

    /// Turns the batches into messages.
    pub(super) fn flush_head(&mut self) {
        if self.head.present && !self.head.met.is_empty() {
            let met = core::mem::take(&mut self.head.met);
            self.act(LocalAction::SendHead(ToHead::Met(met)));
        }
        if self.head.present && !self.head.spills.is_empty() {
            let mut batch = Vec::with_capacity(self.head.spills.len());
            for (key, stamp) in core::mem::take(&mut self.head.spills) {
                if self.tasks.current(key, stamp).is_none() {
                    continue;
                }
                let entry = &mut self.tasks[key];
                if let TaskState::Spilled { told, .. } = &mut entry.state {
                    *told = true;
                    let (spec, attempt) = ((*entry.spec).clone(), entry.attempt);
                    let near = self.near(&spec);
                    batch.push(Assignment { near, ..Assignment::new(spec, attempt, self.me) });
                }
            }
            if !batch.is_empty() {
                self.act(LocalAction::SendHead(ToHead::Spilled(batch)));
            }
        }
        if !self.head.ended.is_empty() {
            let ended = core::mem::take(&mut self.head.ended);
            // The head now counts as free what these asked for; a task that was blocked when the
            // last report went out had given that back before. A report sets it right.
            self.head.last_load = None;
            self.head.load_changed = true;
            self.act(LocalAction::SendHead(ToHead::Ended(ended)));
        }
    }

    pub(super) fn head_says(&mut self, message: FromHead) {
        match message {
            FromHead::Assigned(assignments) => {
                for assignment in assignments {
                    self.head.assignments += 1;
                    let (task, owner) = (assignment.spec.id, assignment.owner);
                    self.head.unstarted.insert(task, owner, self.now);
                    self.assigned(assignment);
                }
                self.head.load_changed = true;
            }
            FromHead::Placed(placed) => {
                for (task, attempt, worker) in placed {
                    self.placed(task, attempt, worker);
                }
            }
            FromHead::Waiting { task, reason } => {
                if let Some(key) = self.tasks.find(task, self.me)
                    && let TaskState::Spilled { waits, .. } = &mut self.tasks[key].state
                {
                    *waits = Some(reason.into());
                }
            }
            FromHead::SpillRequested { request, count } => {
                let tasks = &self.tasks;
                let me = self.me;
                let is_current = |ready: Ready| tasks.current(ready.key, ready.stamp).is_some();
                let is_movable = |ready: Ready| dispatch::is_movable(&tasks[ready.key], me);
                let taken = self.queue.newest(&request, count, is_current, is_movable);
                for ready in taken {
                    self.leave_queue(ready.key);
                    self.spill(ready.key, SpillReason::Requested);
                }
            }
            FromHead::WorkerLeft { worker } => self.worker_left(worker),
            FromHead::WorkerDied { worker, reason } => self.worker_died(worker, &reason),
            FromHead::JobEnded { job } => self.job_ended(job),
            FromHead::ActorNameResult { name, actor, taken_by } => {
                self.name_answered(&name, actor, taken_by);
            }
            FromHead::GroupPlaced { group, round, workers } => {
                self.group_placed(group, round, &workers);
            }
            FromHead::Members(members) => self.members_are(members),
            FromHead::GroupWaiting { group, reason } => self.group_waits(group, reason),
            FromHead::ActorFound { request, actor } => {
                if let Some((executor, request)) = self.asked(request) {
                    self.act(LocalAction::ActorFound { executor, request, actor });
                }
            }
            FromHead::Offers { request, offers } => {
                if let Some((executor, request)) = self.asked(request) {
                    self.act(LocalAction::Offers { executor, request, offers });
                }
            }
        }
    }

    fn placed(&mut self, task: TaskId, attempt: u32, worker: WorkerId) {
        let Some(key) = self.tasks.find(task, self.me) else {
            if let Some(&(of, ended_at)) = self.head.unspilled.get(&task)
                && of == attempt
                && worker != self.me
                && ended_at != Some(worker)
            {
                self.cancel_stray(task, attempt, worker);
            }
            return;
        };
        let entry = &mut self.tasks[key];
        let is_spilled = matches!(entry.state, TaskState::Spilled { .. });
        if !is_spilled || entry.attempt != attempt || entry.owner != self.me {
            return;
        }
        entry.state = TaskState::Placed { worker };
        self.tasks.restamp(key);
        if worker != self.me {
            self.peer(worker).placed.insert(task);
        }
    }

    /// A head is there. One that lost what it knew is told again.
    pub(super) fn head_found(&mut self, fresh: bool) {
        self.head.present = true;
        self.head.load_changed = true;
        self.head.last_load = None;
        // At once, so that the head knows where what is told again ends.
        self.head.next_load = self.now;
        if !fresh {
            return;
        }
        self.head.assignments = 0;
        self.head.met = self.peers.keys().copied().collect();
        self.head.met.sort_unstable();
        self.head.spills.clear();
        self.head.unstarted.untold();
        self.report_all_blocked();
        self.spill_again();
        self.ask_for_groups_again();
        if self.replicas.is_subscribed() {
            self.send_head(ToHead::MembersWanted);
        }
        let mut names: Vec<(ActorId, String)> = self
            .actors
            .iter()
            .filter_map(|(actor, entry)| {
                let name = entry.supervised.as_ref()?.name.clone()?;
                Some((*actor, name))
            })
            .collect();
        names.sort_unstable();
        for (actor, name) in names {
            self.send_head(ToHead::ActorNamed { name, actor, owner: self.me });
        }
        let questions = self.head.questions.iter();
        let questions: Vec<ToHead> = questions.map(|(number, q)| q.message(*number)).collect();
        questions.into_iter().for_each(|question| self.send_head(question));
        for (job, (attempt, outcome)) in self.head.drivers.clone() {
            self.send_head(ToHead::DriverFinished { job, attempt, outcome });
        }
    }

    /// Spills once more what is in the head's hands or went through them: the assignment may have
    /// been lost with the head. The new one asks every worker what it has before it places again.
    fn spill_again(&mut self) {
        let mut again: Vec<(u64, TaskKey, SpillReason)> = Vec::new();
        for (key, entry) in self.tasks.iter() {
            match entry.state {
                TaskState::Spilled { reason, .. } => again.push((entry.order, key, reason)),
                // The head has nothing to do with what went into a group.
                TaskState::Placed { .. } if super::submit::is_grouped(&entry.spec) => {}
                TaskState::Placed { .. } => again.push((entry.order, key, SpillReason::HeadLost)),
                _ => {}
            }
        }
        again.sort_unstable_by_key(|(order, key, _)| (*order, *key));
        for (_, key, reason) in again {
            let id = self.tasks[key].spec.id;
            if let TaskState::Placed { worker } = self.tasks[key].state {
                self.peer(worker).placed.remove(&id);
                if self.tasks[key].cancelled {
                    // Its end is still to be told, by whoever runs it.
                    let attempt = self.tasks[key].attempt;
                    self.head.unspilled.insert(id, (attempt, Some(worker)));
                    self.fail(key, TaskError { task: id, cause: Cause::Cancelled });
                    continue;
                }
            }
            self.spill(key, reason);
        }
    }

    /// Asks the head who has a name, or what all workers offer.
    pub(super) fn ask(&mut self, by: ExecutorId, request: u64, name: Option<String>) {
        if !self.listens(by) {
            return;
        }
        self.head.last_question += 1;
        let (number, question) = (self.head.last_question, Question { by, request, name });
        self.send_head(question.message(number));
        self.head.questions.insert(number, question);
    }

    /// Who asked the question that is answered, if it still wants to know, and by which number.
    fn asked(&mut self, number: u64) -> Option<(ExecutorId, u64)> {
        let Question { by, request, .. } = self.head.questions.remove(&number)?;
        self.listens(by).then_some((by, request))
    }

    /// Nothing new starts here: what is queued and may run elsewhere goes to the head.
    pub(super) fn drain(&mut self) {
        if core::mem::replace(&mut self.draining, true) {
            return; // each head tells it again that does not know that it was told
        }
        let mut queued: Vec<(u64, TaskKey)> = self
            .tasks
            .iter()
            .filter(|(_, entry)| {
                matches!(entry.state, TaskState::Ready { .. })
                    && entry.owner == self.me
                    && !entry.assigned
                    && self.reason_to_spill(&entry.spec).is_some()
            })
            .map(|(key, entry)| (entry.order, key))
            .collect();
        queued.sort_unstable();
        for (_, key) in queued {
            self.leave_queue(key);
            self.spill(key, SpillReason::Draining);
        }
        self.drain_groups();
        self.close_leases();
        self.begin_moves();
        self.say_leaving();
    }

    /// Reports the load, if it changed and the last report is old enough.
    pub(super) fn report_load(&mut self) {
        self.head.load_changed |= self.head.unstarted.is_due(self.now);
        if !self.head.load_changed || !self.head.present || self.now < self.head.next_load {
            return;
        }
        self.head.load_changed = false;
        let backlog = self.queue.backlog(Load::SHAPES);
        let available = self.available_to_head();
        let load = Load { available, assignments: self.head.assignments, backlog };
        if self.head.last_load.as_ref() != Some(&load) {
            self.head.next_load = self.now + self.config.load_interval;
            self.head.last_load = Some(load.clone());
            self.send_head(ToHead::Load(load));
        }
    }

    /// What a head has to know of this worker when they meet.
    pub fn held(&self) -> Held {
        let of_tasks =
            self.tasks.iter().filter(|(_, entry)| entry.assigned).map(|(_, entry)| HeldTask {
                task: entry.spec.id,
                attempt: entry.attempt,
                owner: entry.owner,
                request: entry.spec.request.clone(),
                driver: matches!(entry.spec.kind, TaskKind::Driver),
            });
        let of_actors =
            self.hosted.iter().filter(|(_, hosted)| hosted.assigned).map(|(actor, hosted)| {
                HeldTask {
                    task: actor.0,
                    attempt: hosted.life,
                    owner: hosted.owner,
                    request: hosted.spec.request.clone(),
                    driver: false,
                }
            });
        // Ended, but no head has said yet that it knows.
        let of_drivers = self.head.drivers.iter().map(|(job, (attempt, _))| HeldTask {
            task: TaskId::driver(*job),
            attempt: *attempt,
            owner: WorkerId::HEAD,
            request: Resources::NONE,
            driver: true,
        });
        let of_bundles =
            self.bundles.iter().filter(|(_, bundle)| bundle.assigned).map(|(_, bundle)| HeldTask {
                task: bundle.group.bundle(bundle.number),
                attempt: bundle.round,
                owner: bundle.owner,
                request: bundle.ledger.total.clone(),
                driver: false,
            });
        let held = of_tasks.chain(of_actors).chain(of_drivers).chain(of_bundles);
        let mut assigned: Vec<HeldTask> = held.collect();
        // Of two owners, or of two tries, it is there twice. The newest try of a driver counts.
        assigned.sort_unstable_by_key(|held| (held.task, held.owner, Reverse(held.attempt)));
        assigned.dedup_by_key(|held| (held.task, held.owner, held.attempt));
        let mut names: Vec<(String, ActorId)> = self
            .actors
            .iter()
            .filter(|(actor, _)| {
                !self
                    .tasks
                    .by_id(actor.0)
                    .is_some_and(|entry| matches!(entry.state, TaskState::Naming))
            })
            .filter_map(|(actor, entry)| Some((entry.supervised.as_ref()?.name.clone()?, *actor)))
            .collect();
        names.sort_unstable();
        let mut jobs: Vec<JobId> = self.executors.values().map(|process| process.job).collect();
        jobs.extend(self.tasks.iter().map(|(_, entry)| entry.spec.id.job()));
        jobs.extend(self.objects.keys().map(|object| object.task.job()));
        jobs.extend(self.actors.keys().map(|actor| actor.0.job()));
        jobs.extend(self.hosted.keys().map(|actor| actor.0.job()));
        jobs.extend(self.groups.keys().map(|(group, _)| group.0.job()));
        jobs.extend(self.bundles.iter().map(|(_, bundle)| bundle.group.0.job()));
        jobs.sort_unstable();
        jobs.dedup();
        Held { assigned, names, jobs, draining: self.draining }
    }
}

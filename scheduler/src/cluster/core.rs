//! The core's state, and which part of it takes which event.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::groups::Gangs;
use super::jobs::Job;
use super::member::{Ledger, Member};
use super::queue::{Class, Key, Queue, ShapeId};
use super::recovery::Recovery;
use super::sharing::Sharing;
use super::{ClusterAction, ClusterEvent};
use crate::id::{ActorId, GroupId, JobId, TaskId, WorkerId};
use crate::message::{FromHead, ToHead};
use crate::placement::{Field, Reason};
use crate::quota::Quotas;
use crate::resource::Resources;
use crate::share::Shares;
use crate::spec::Assignment;
use crate::time::Timestamp;

/// What an operator, or a test, may set.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// How long a restarted head waits for workers that were members.
    pub recovery_grace: Duration,
    /// Least time between two rounds of asking backlogged workers for tasks.
    pub share_interval: Duration,
    /// How long a worker that was asked to spill has before the head asks again.
    pub spill_patience: Duration,
    /// Decides between workers that are equally good.
    pub seed: u64,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            recovery_grace: Duration::from_secs(3),
            share_interval: Duration::from_millis(5),
            spill_patience: Duration::from_millis(100),
            seed: 0,
        }
    }
}

/// The head's core.
#[derive(Debug)]
pub struct ClusterCore {
    pub(super) config: ClusterConfig,
    pub(super) now: Timestamp,
    pub(super) members: BTreeMap<WorkerId, Member>,
    pub(super) field: Field,
    /// Workers that are gone; their ids never come back.
    pub(super) lost: BTreeMap<WorkerId, String>,
    pub(super) queue: Queue,
    /// What the head has given to each job.
    pub(super) shares: Shares,
    pub(super) quotas: Quotas,
    /// Jobs with a quota that hold less than before.
    pub(super) relieved: BTreeSet<JobId>,
    /// Placement groups that wait.
    pub(super) gangs: Gangs,
    pub(super) ledger: Ledger,
    /// Tasks that run anew, each waiting for the end of its former run.
    pub(super) anew: BTreeMap<Key, Assignment>,
    pub(super) jobs: BTreeMap<JobId, Job>,
    pub(super) names: BTreeMap<String, (ActorId, WorkerId)>,
    pub(super) recovery: Option<Recovery>,
    pub(super) sharing: Sharing,
    /// Why tasks of some kinds wait, until membership changes.
    pub(super) reasons: BTreeMap<(Resources, Class), Reason>,
    /// Workers that have more room than before.
    pub(super) roomier: BTreeSet<WorkerId>,
    /// Shapes with new tasks.
    pub(super) fresh: BTreeSet<ShapeId>,
    /// New tasks, whose owners hear why they wait if they still do in the end.
    pub(super) untold: Vec<Key>,
    /// The same of groups.
    pub(super) untold_groups: Vec<(GroupId, WorkerId)>,
    outbox: Outbox,
}

impl ClusterCore {
    /// A head that knows nobody.
    pub fn new(config: ClusterConfig) -> Self {
        Self {
            field: Field::new(config.seed),
            config,
            now: Timestamp::default(),
            members: BTreeMap::new(),
            lost: BTreeMap::new(),
            queue: Queue::default(),
            shares: Shares::default(),
            quotas: Quotas::default(),
            relieved: BTreeSet::new(),
            gangs: Gangs::default(),
            ledger: Ledger::default(),
            anew: BTreeMap::new(),
            jobs: BTreeMap::new(),
            names: BTreeMap::new(),
            recovery: None,
            sharing: Sharing::default(),
            reasons: BTreeMap::new(),
            roomier: BTreeSet::new(),
            fresh: BTreeSet::new(),
            untold: Vec::new(),
            untold_groups: Vec::new(),
            outbox: Outbox::default(),
        }
    }

    /// Whether a message of a member is to be handed to [`Self::handle`]: by the number that its
    /// sender gave it, it has not been taken before (see [`crate::message`]). It counts as taken.
    pub fn is_news(&mut self, from: WorkerId, number: u64) -> bool {
        self.members.get_mut(&from).is_some_and(|member| member.taken.is_news(number))
    }

    /// Takes an event; what is to be done about it then waits in [`Self::poll_action`].
    pub fn handle(&mut self, now: Timestamp, event: ClusterEvent) {
        self.now = self.now.max(now);
        match event {
            ClusterEvent::WorkerJoined { worker, total, labels, held } => {
                self.worker_joined(worker, total, labels, held);
            }
            ClusterEvent::WorkerLost { worker, reason } => self.worker_lost(worker, &reason),
            ClusterEvent::WorkerLeft { worker } => {
                if self.members.contains_key(&worker) {
                    self.broadcast(&FromHead::WorkerLeft { worker }, None);
                }
            }
            ClusterEvent::WorkerDraining { worker } => self.worker_draining(worker),
            ClusterEvent::FromWorker { from, message } => {
                // The last words of a lost worker count for nothing: all was decided without it.
                if self.members.contains_key(&from) {
                    self.worker_said(from, message);
                }
            }
            ClusterEvent::JobSubmitted { job, driver } => self.job_submitted(job, driver),
            ClusterEvent::JobWeighed { job, weight } => self.shares.set_weight(job, weight),
            ClusterEvent::JobLimited { job, quota } => self.quotas.set(job, quota),
            ClusterEvent::JobStopRequested { job } => self.job_stopped(job),
            ClusterEvent::Restored { jobs, workers, names } => self.restored(jobs, workers, names),
        }
        self.settle();
        self.share();
        self.outbox.flush();
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        self.recovery_timeout();
        self.settle();
        self.share();
        self.outbox.flush();
    }

    /// The next thing to do, in order.
    pub fn poll_action(&mut self) -> Option<ClusterAction> {
        self.outbox.actions.pop_front()
    }

    /// When [`Self::handle_timeout`] is to be called at the latest.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let recovery = self.recovery.as_ref().map(|recovery| recovery.deadline);
        [recovery, self.sharing.due()].into_iter().flatten().min()
    }

    fn worker_said(&mut self, from: WorkerId, message: ToHead) {
        match message {
            ToHead::Load(load) => self.load_reported(from, load),
            ToHead::Spilled(assignments) => {
                for assignment in assignments {
                    self.spilled(from, assignment);
                }
            }
            ToHead::Ended(ended) => {
                for (task, attempt) in ended {
                    self.ended(from, task, attempt);
                }
            }
            ToHead::Blocked { task, attempt, blocked } => {
                self.blocked(from, task, attempt, blocked);
            }
            ToHead::DriverFinished { job, attempt, outcome } => {
                self.driver_finished(from, job, attempt, outcome);
            }
            ToHead::Met(workers) => self.met(from, workers),
            ToHead::Unspill { task } => self.unspilled(from, task),
            ToHead::ActorNamed { name, actor, owner } => self.named(from, name, actor, owner),
            ToHead::ActorUnnamed { name, actor } => self.unnamed(&name, actor),
            ToHead::GroupWanted(request) => self.group_wanted(from, request),
            ToHead::GroupUnwanted(group) => self.gangs.remove(&(group, from)),
            ToHead::ActorLookup { request, name } => self.looked_up(from, request, &name),
            ToHead::MembersWanted => self.members_wanted(from),
            ToHead::OffersWanted { request } => {
                let offers = self.offers();
                self.send(from, FromHead::Offers { request, offers });
            }
        }
    }

    pub(super) fn act(&mut self, action: ClusterAction) {
        self.outbox.actions.push_back(action);
    }

    pub(super) fn send(&mut self, to: WorkerId, message: FromHead) {
        self.act(ClusterAction::Send { to, message });
    }

    /// Tells all members but one.
    pub(super) fn broadcast(&mut self, message: &FromHead, but: Option<WorkerId>) {
        for worker in self.members.keys().filter(|worker| Some(**worker) != but) {
            let action = ClusterAction::Send { to: *worker, message: message.clone() };
            self.outbox.actions.push_back(action);
        }
    }

    /// An assignment, sent with others to the same worker after everything else.
    pub(super) fn send_assigned(&mut self, to: WorkerId, assignment: Assignment) {
        self.outbox.assigned.entry(to).or_default().push(assignment);
    }

    /// Where a task went, sent with others to the same owner.
    pub(super) fn send_placed(&mut self, to: WorkerId, placed: (TaskId, u32, WorkerId)) {
        self.outbox.placed.entry(to).or_default().push(placed);
    }
}

/// Actions, and what is still being collected into batches.
#[derive(Debug, Default)]
struct Outbox {
    actions: VecDeque<ClusterAction>,
    assigned: BTreeMap<WorkerId, Vec<Assignment>>,
    placed: BTreeMap<WorkerId, Vec<(TaskId, u32, WorkerId)>>,
}

impl Outbox {
    /// Most tasks in one message: a message stays small beside what a link carries.
    const BATCH_TASKS: usize = 1_000;

    fn flush(&mut self) {
        for (to, mut all) in core::mem::take(&mut self.assigned) {
            while !all.is_empty() {
                let rest = all.split_off(all.len().min(Self::BATCH_TASKS));
                let message = FromHead::Assigned(core::mem::replace(&mut all, rest));
                self.actions.push_back(ClusterAction::Send { to, message });
            }
        }
        for (to, all) in core::mem::take(&mut self.placed) {
            for batch in all.chunks(Self::BATCH_TASKS) {
                let message = FromHead::Placed(batch.to_vec());
                self.actions.push_back(ClusterAction::Send { to, message });
            }
        }
    }
}

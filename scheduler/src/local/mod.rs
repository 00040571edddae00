//! The worker's core: the tasks, actors and objects of one machine.
//!
//! [`LocalCore`] is told what happened ([`LocalEvent`]) and says what is to be done
//! ([`LocalAction`]), in order. It does no input or output and reads no clock. It decides what runs
//! here and when, what goes to the head to be placed elsewhere, which values are fetched, and when
//! a value is forgotten. It leaves to others: values' bytes (the runtime's table and arena), where
//! spilled work goes (the head's core), running calls of one actor one after the other (the
//! executor; `Run`s of one actor come in the order of its calls), and links between processes
//! (ordered and free of loss as long as both live, see [`crate::message`]).
//!
//! | file | what happens there |
//! |---|---|
//! | `submit` | a task comes, from a program here or from the head; its dependencies |
//! | `dispatch` | resources are given out, tasks start, block and go on |
//! | `ahead` | short tasks wait in their executor for their turn |
//! | `outcome` | a task ends: results, failures |
//! | `retry` | time limits, and what follows a try that failed |
//! | `stream` | tasks yield values, and their consumers take them |
//! | `cancel` | tasks are cancelled, and their children |
//! | `executors` | processes start, die, stop |
//! | `objects` | references and values, as their owner |
//! | `borrow` | references to other workers' objects, and messages that have to wait for them |
//! | `broadcast` | who gets a copy from whom |
//! | `recover` | lost copies, lost workers, lineage |
//! | `groups`, `group_tasks` | placement groups: leading them, and using them |
//! | `bundles` | bundles of placement groups that are reserved here |
//! | `direct` | calls that do not pass through here |
//! | `lease` | short tasks that do not either |
//! | `actors`, `calls` | supervision and calls; `host`: actors that live here |
//! | `checkpoint` | actors that save their state, whose calls count once |
//! | `head` | spilling, load, names, a head that comes and goes |
//! | `limits` | jobs with a quota |
//! | `remake` | values of dead owners are made again |
//! | `replicas` | values that are kept in several copies |
//! | `lodgers` | values that lie here for several owners |
//! | `evacuation` | workers that leave: values are copied, actors moved |
//! | `job` | the end of a job |
//! | `slack` | memory after a burst |
//! | `views`, `explain`, `invariants` | what people and tests read |

mod action;
mod actors;
mod ahead;
mod assigned;
mod borrow;
mod broadcast;
mod bundles;
mod calls;
mod cancel;
mod checkpoint;
mod direct;
mod dispatch;
mod evacuation;
mod event;
mod executors;
mod explain;
mod group_tasks;
mod groups;
mod head;
mod history;
mod holders;
mod host;
mod invariants;
mod job;
mod lease;
mod limits;
mod lodgers;
mod objects;
mod outcome;
mod peers;
mod recover;
mod remake;
mod replicas;
mod retry;
mod slack;
mod stream;
mod submit;
mod views;

#[cfg(test)]
mod tests;

use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::actor::{ActorEntry, Hosted};
use crate::group::{Bundles, GroupEntry, GroupKey};
use crate::hash::{DenseIdMap, FastMap, FastSet, IdMap, IdSet};
use crate::id::{ActorId, ExecutorId, GroupId, JobId, ObjectId, TaskId, WorkerId};
use crate::message::{PeerMessage, Taken};
use crate::object::{Lineage, ObjectEntry};
use crate::outcome::TaskError;
use crate::quota::Quotas;
use crate::resource::{Gpus, Ledger, Resources};
use crate::share::Shares;
use crate::spec::Assignment;
use crate::task::{ReadyQueue, TaskKey, TaskTable};
use crate::time::Timestamp;

pub(crate) use checkpoint::Unkept;

pub use action::{ExecutorRole, LocalAction};
pub use event::LocalEvent;
pub use holders::Holder;
pub use lease::{LEASED_ATTEMPT, LeaseEnd};
pub use views::{ActorView, BundleView, GroupView, ObjectView, TaskView};

use ahead::Paces;
use cancel::Unanswered;
use checkpoint::Checkpoints;
use evacuation::Moves;
use executors::Executor;
use head::HeadLink;
use history::History;
use lease::Leases;
use lodgers::Lodgers;
use peers::{Outbox, Peer};
use remake::Makers;
use replicas::Replicas;
use retry::Timers;
use stream::Stream;

/// What a [`LocalCore`] has to know of its worker.
#[derive(Debug, Clone)]
pub struct LocalConfig {
    /// This worker.
    pub worker: WorkerId,
    /// All that it has.
    pub total: Resources,
    /// Its labels, `key=value`.
    pub labels: Vec<(String, String)>,
    /// Shortest time between two load reports.
    pub load_interval: Duration,
    /// How long an executor that was asked to end may take, or a task that has run for as long as
    /// it may, before the process is killed.
    pub stop_grace: Duration,
    /// How often an executor is started that dies before it is connected.
    pub start_tries: u32,
    /// How long a round of placing a group may take, before what it has reserved is given back.
    pub group_patience: Duration,
    /// Runs of a function that are shorter than that, on the average, from start to word of the
    /// end, are given to executors ahead of their turn. A round trip between them costs some 0.1 ms
    /// where the other side sleeps.
    pub short_runs: Duration,
    /// Most ended tasks that are remembered so that they can run again.
    pub lineage_records: usize,
}

impl LocalConfig {
    /// The usual limits, for a worker that has `total`.
    pub fn new(worker: WorkerId, total: Resources) -> Self {
        Self {
            worker,
            total,
            labels: Vec::new(),
            load_interval: Duration::from_millis(10),
            stop_grace: Duration::from_secs(5),
            start_tries: 3,
            group_patience: Duration::from_secs(2),
            short_runs: Duration::from_millis(3),
            lineage_records: 1 << 20,
        }
    }
}

/// The worker's core. See the module's text.
#[derive(Debug)]
pub struct LocalCore {
    config: LocalConfig,
    me: WorkerId,
    now: Timestamp,
    actions: VecDeque<LocalAction>,
    /// What follows from what happened, and is not done yet: no chain of consequences recurses.
    steps: VecDeque<Step>,
    tasks: TaskTable,
    queue: ReadyQueue,
    paces: Paces,
    ledger: Ledger,
    /// Which GPUs are whose.
    gpus: Gpus,
    /// What each job holds here.
    shares: Shares,
    quotas: Quotas,
    objects: DenseIdMap<ObjectId, ObjectEntry>,
    /// Own tasks that may run on one other worker alone, by that worker.
    pinned: FastMap<WorkerId, IdSet<TaskId>>,
    /// Objects of this worker that another one owned before, which still counts this worker.
    adopted: IdMap<ObjectId, WorkerId>,
    /// Workers that get an object of this one at this moment, and from whom.
    readings: IdMap<ObjectId, Vec<broadcast::Reading>>,
    lineage: Lineage,
    makers: Makers,
    replicas: Replicas,
    lodgers: Lodgers,
    /// Streams of own tasks.
    streams: IdMap<TaskId, Stream>,
    /// Newer tries of other owners' tasks that wait here for the end of an older one.
    superseding: FastMap<(TaskId, WorkerId), Assignment>,
    unanswered: Unanswered,
    executors: FastMap<ExecutorId, Executor>,
    leases: Leases,
    pools: FastMap<JobId, ExecutorId>,
    /// Executors for one task at a time that have none.
    idle: FastMap<JobId, Vec<ExecutorId>>,
    /// Executors that were asked to end, by the time when they are killed.
    stopping: VecDeque<(Timestamp, ExecutorId)>,
    /// Ends of tasks' time limits and pauses.
    timers: Timers,
    /// For people; no decision looks at it.
    history: History,
    last_executor: u32,
    actors: IdMap<ActorId, ActorEntry>,
    hosted: IdMap<ActorId, Hosted>,
    groups: FastMap<GroupKey, GroupEntry>,
    bundles: Bundles,
    /// Rounds of placing groups, counted over all of them.
    last_round: u32,
    /// Rounds by the time when they have taken too long.
    group_deadlines: VecDeque<(Timestamp, GroupId, u32)>,
    checkpoints: Checkpoints,
    peers: FastMap<WorkerId, Peer>,
    dead: FastSet<WorkerId>,
    /// What others, and the head, have said.
    taken: FastMap<WorkerId, Taken>,
    /// Living workers that are about to leave.
    leaving: FastSet<WorkerId>,
    moves: Moves,
    outbox: Outbox,
    head: HeadLink,
    draining: bool,
    /// Something changed that may let a queued task start.
    dispatch_due: bool,
}

/// A consequence that is still to be drawn.
#[derive(Debug)]
enum Step {
    /// The task cannot run: a dependency failed.
    Fail(TaskKey, u64, Arc<TaskError>),
    /// The task misses nothing any longer.
    Resolved(TaskKey, u64),
    /// One holder less.
    LetGo(ObjectId),
    /// A value has to be made again, if that can be.
    Recover(ObjectId),
    /// A value whose owner is dead is needed.
    LookFor(ObjectId),
    /// A call that need not keep its place in order has its arguments.
    Joins(TaskKey, u64),
    /// A newer try may begin: the older one has ended.
    Supersede(TaskId, WorkerId),
    /// Calls of that submitter may go on.
    Lane(ActorId, ExecutorId),
    /// Calls from that worker may go on.
    Mailbox(ActorId, WorkerId),
    /// The task may go into its group.
    Grouped(TaskKey, u64),
}

impl LocalCore {
    /// A worker without tasks.
    pub fn new(config: LocalConfig) -> Self {
        Self {
            me: config.worker,
            now: Timestamp::default(),
            actions: VecDeque::new(),
            steps: VecDeque::new(),
            tasks: TaskTable::default(),
            queue: ReadyQueue::default(),
            paces: Paces::default(),
            ledger: Ledger::new(config.total.clone()),
            gpus: Gpus::new(config.total.gpu),
            shares: Shares::default(),
            quotas: Quotas::default(),
            objects: DenseIdMap::default(),
            pinned: FastMap::default(),
            adopted: IdMap::default(),
            readings: IdMap::default(),
            lineage: Lineage::new(config.lineage_records),
            makers: Makers::default(),
            replicas: Replicas::default(),
            lodgers: Lodgers::default(),
            streams: IdMap::default(),
            superseding: FastMap::default(),
            unanswered: Unanswered::default(),
            executors: FastMap::default(),
            leases: Leases::default(),
            pools: FastMap::default(),
            idle: FastMap::default(),
            stopping: VecDeque::new(),
            timers: Timers::default(),
            history: History::default(),
            last_executor: 0,
            actors: IdMap::default(),
            hosted: IdMap::default(),
            groups: FastMap::default(),
            bundles: Bundles::default(),
            last_round: 0,
            group_deadlines: VecDeque::new(),
            checkpoints: Checkpoints::default(),
            peers: FastMap::default(),
            dead: FastSet::default(),
            taken: FastMap::default(),
            leaving: FastSet::default(),
            moves: Moves::default(),
            outbox: Outbox::default(),
            head: HeadLink::default(),
            draining: false,
            dispatch_due: false,
            config,
        }
    }

    /// Tells the core what happened.
    pub fn handle(&mut self, now: Timestamp, event: LocalEvent) {
        self.now = now;
        match event {
            LocalEvent::Submitted { by, spec } => self.submitted(by, spec),
            LocalEvent::Finished { executor, task, attempt, outcome } => {
                self.finished(executor, task, attempt, outcome);
            }
            LocalEvent::Saved { executor, actor, state, calls } => {
                self.saved(executor, actor, state, calls);
            }
            LocalEvent::Yielded { executor, task, attempt, index, value } => {
                self.yielded(executor, (task, attempt), index, value);
            }
            LocalEvent::CreditWanted { executor, task, wanted } => {
                self.credit_wanted(executor, task, wanted);
            }
            LocalEvent::Consumed { task, owner, count } => self.consumed(task, owner, count),
            LocalEvent::RouteWanted { by, actor } => self.route_wanted(by, actor),
            LocalEvent::Promised { by, spec, lost } => self.promised(by, spec, lost),
            LocalEvent::Answered { by, task, outcome } => self.answered(by, task, outcome),
            LocalEvent::Made { executor, caller, object, value } => {
                self.made(executor, caller, object, value);
            }
            LocalEvent::LeaseWanted { by } => self.lease_wanted(by),
            LocalEvent::LeaseOver { executor, caller, number, running } => {
                self.lease_over(executor, caller, number, running);
            }
            LocalEvent::PutFailed { by, object, error } => self.put_failed(by, object, error),
            LocalEvent::Wanted { by, reference } => self.wanted(by, reference),
            LocalEvent::Retained { by, reference } => self.retained(by, reference),
            LocalEvent::Released { by, object } => self.released(by, object),
            LocalEvent::Put { by, object, size, inline, copies, contains } => {
                self.put(by, object, (size, inline), copies, contains);
            }
            LocalEvent::Blocked { executor, task, attempt } => {
                self.blocked(executor, (task, attempt));
            }
            LocalEvent::Unblocked { executor, task, attempt } => {
                self.unblocked(executor, (task, attempt));
            }
            LocalEvent::Recalled { executor } => self.recalled(executor),
            LocalEvent::ExecutorStarted { executor } => self.executor_started(executor),
            LocalEvent::ExecutorDied { executor, death } => self.executor_died(executor, death),
            LocalEvent::CancelRequested { task, owner, mode } => {
                self.cancel_requested(task, owner, mode);
            }
            LocalEvent::ActorKillRequested { actor, owner } => self.kill_requested(actor, owner),
            LocalEvent::GroupRemoveRequested { group, owner } => self.remove_group(group, owner),
            LocalEvent::ActorLookup { by, request, name } => self.ask(by, request, Some(name)),
            LocalEvent::OffersWanted { by, request } => self.ask(by, request, None),
            LocalEvent::Pulled { object, size } => self.pulled(object, size),
            LocalEvent::PullFailed { object, from } => self.pull_failed(object, from),
            LocalEvent::CopyUnreadable { object } => self.copy_unreadable(object),
            LocalEvent::NotStarted { executor, task, attempt } => {
                self.not_started(executor, task, attempt);
            }
            LocalEvent::FromPeer { from, message } => self.peer_says(from, message),
            LocalEvent::FromHead(message) => self.head_says(message),
            LocalEvent::HeadFound { fresh } => self.head_found(fresh),
            LocalEvent::HeadLost => self.head.present = false,
            LocalEvent::Drain => self.drain(),
            LocalEvent::JobEnded { job } => self.job_ended(job),
            LocalEvent::JobWeighed { job, weight } => self.shares.set_weight(job, weight),
            LocalEvent::JobLimited { job, quota } => self.quotas.set(job, quota),
            LocalEvent::PoolExpected { job } => self.pool_expected(job),
        }
        self.settle();
        self.report_load();
    }

    /// Tells the core that the time of [`LocalCore::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.now = now;
        while let Some(&(deadline, executor)) = self.stopping.front()
            && deadline <= now
        {
            self.stopping.pop_front();
            if self.executors.contains_key(&executor) {
                self.act(LocalAction::StopExecutor { executor, force: true });
            }
        }
        self.strike_timers();
        self.cancel_strays();
        self.expire_groups();
        self.expire_leases();
        self.take_turns_moving();
        self.settle();
        self.recall_stalled();
        self.report_load();
    }

    /// What is to be done next; first in, first out.
    pub fn poll_action(&mut self) -> Option<LocalAction> {
        if self.actions.is_empty() {
            self.flush_head();
        }
        self.actions.pop_front()
    }

    /// When [`LocalCore::handle_timeout`] is to be called, if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let stop = self.stopping.front().map(|&(deadline, _)| deadline);
        let group = self.group_deadlines.front().map(|&(deadline, ..)| deadline);
        let timers = [self.timers.due(), self.paces.due(), self.leases.due(), self.moves.due()];
        let more = [self.head.load_due(), self.unanswered.due()];
        [stop, group].into_iter().chain(more).chain(timers).flatten().min()
    }

    /// Whether the head has said that this worker is lost: what it still says counts for nothing.
    pub fn has_lost(&self, worker: WorkerId) -> bool {
        self.dead.contains(&worker)
    }

    /// Whether nothing is owned, queued or running here; of a worker that leaves, also whether
    /// nobody counts on a copy that it has.
    pub fn is_idle(&self) -> bool {
        self.tasks.is_empty()
            && self.hosted.is_empty()
            && self.actors.values().all(|actor| actor.supervised.is_none())
            && self.bundles.is_empty()
            && self.groups.values().all(|group| group.led.is_none())
            && !self.objects.values().any(ObjectEntry::is_owned)
            && !(self.draining && self.keeps_copies())
    }

    fn act(&mut self, action: LocalAction) {
        self.actions.push_back(action);
    }

    /// Draws every consequence, then gives out what is free.
    fn settle(&mut self) {
        loop {
            while let Some(step) = self.steps.pop_front() {
                match step {
                    Step::Fail(key, stamp, error) => {
                        if self.tasks.current(key, stamp).is_some() {
                            self.fail(key, TaskError::clone(&error));
                        }
                    }
                    Step::Resolved(key, stamp) => {
                        if self.tasks.current(key, stamp).is_some() {
                            self.resolved(key);
                        }
                    }
                    Step::LetGo(object) => self.let_go(object),
                    Step::Recover(object) => self.recover(object),
                    Step::LookFor(object) => self.look_for(object),
                    Step::Joins(key, stamp) => self.joins(key, stamp),
                    Step::Supersede(task, owner) => {
                        if let Some(assignment) = self.superseding.remove(&(task, owner)) {
                            self.assigned(assignment);
                        }
                    }
                    Step::Lane(actor, submitter) => self.advance_lane(actor, submitter),
                    Step::Mailbox(actor, caller) => self.advance_mailbox(actor, caller),
                    Step::Grouped(key, stamp) => {
                        if self.tasks.current(key, stamp).is_some() {
                            self.enter_group(key);
                        }
                    }
                }
            }
            if core::mem::take(&mut self.dispatch_due) {
                self.dispatch();
            } else if !(self.draining && self.moves_actors()) {
                return;
            }
        }
    }

    /// Says something to a worker, unless that is known to be dead.
    fn send(&mut self, to: WorkerId, message: PeerMessage) {
        debug_assert!(to != self.me, "a worker does not write to itself: {message:?}");
        if !self.is_dead(to) {
            self.act(LocalAction::Send { to, message });
        }
    }

    /// The head is no worker: nobody borrows from it or lends to it.
    fn is_dead(&self, worker: WorkerId) -> bool {
        worker == WorkerId::HEAD || (!self.dead.is_empty() && self.dead.contains(&worker))
    }
}

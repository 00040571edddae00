//! What must hold, whatever the cores think: checked from what goes in and out of them.

mod names;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use rdist_scheduler::hash::{FastMap, FastSet};
use rdist_scheduler::id::{ActorId, ExecutorId, GroupId, JobId, TaskId, WorkerId};
use rdist_scheduler::outcome::{Cause, TaskError};
use rdist_scheduler::resource::{Amount, Resources};
use rdist_scheduler::spec::TaskSpec;

pub use names::Names;

/// What went wrong so far, and so what may be lost for good.
#[derive(Debug, Default, Clone, Copy)]
pub struct Harm {
    pub executors_died: bool,
    pub workers_died: bool,
    pub heads_died: bool,
    /// Workers that leave send their bundles away, and the actors in them with fresh state.
    pub drained: bool,
    /// A worker stalled, or lost a connection: it may not hear the last words of one that leaves.
    pub unheard: bool,
    /// Values were damaged on disk.
    pub damaged: bool,
}

impl Harm {
    /// Fails on an error that nothing explains.
    pub fn excuse(self, error: &TaskError) {
        let excused = match &error.cause {
            // Ours: a program that read a failed value.
            Cause::Returned { .. } => {
                self.executors_died || self.workers_died || self.drained || self.damaged
            }
            // An actor's memory is gone with its process; retries of calls are its user's choice.
            Cause::ActorDied(_) => self.executors_died || self.workers_died || self.drained,
            // It names a worker that has left, and may run nowhere else.
            Cause::WorkerDied { reason } if reason.starts_with("it may only run on") => {
                self.workers_died || self.drained
            }
            Cause::WorkerDied { .. } => self.workers_died || (self.drained && self.unheard),
            Cause::OwnerDied => self.workers_died,
            Cause::ObjectLost => self.workers_died || self.damaged,
            Cause::Cancelled | Cause::TimedOut { .. } => self.workers_died,
            Cause::NameTaken { .. }
            | Cause::EndOfStream
            | Cause::ExecutorDied(_)
            | Cause::Panicked { .. }
            | Cause::Refused { .. } => false,
        };
        assert!(excused, "nothing explains this error: {error} ({self:?})");
    }
}

/// What a worker's tasks hold, by what its core was told and said.
#[derive(Debug, Default)]
pub struct Usage {
    pub total: Resources,
    charges: BTreeMap<(ExecutorId, TaskId), Charge>,
    /// For each group here, and for what is in none.
    used: BTreeMap<Pool, Resources>,
    /// Tasks that wait in executors for their turn.
    ahead: BTreeMap<ExecutorId, VecDeque<Arc<TaskSpec>>>,
    /// The bundles of each group as something in it started last.
    bundles: BTreeMap<Pool, BTreeSet<(u32, u32)>>,
    /// Leased CPUs: the host of each, and whose job's it is.
    leases: BTreeMap<u64, (ExecutorId, Option<JobId>)>,
    /// Tries that were said to be blocked, running or not.
    said_blocked: BTreeSet<(TaskId, u32)>,
}

/// A placement group that pays; `None`: the worker does.
pub type Pool = Option<(GroupId, WorkerId)>;

#[derive(Debug)]
struct Charge {
    request: Resources,
    pool: Pool,
    /// Its end is a turn of its executor.
    turns: bool,
    /// It holds its request until it is dropped, not until its creation has ended.
    actor: bool,
    blocked: bool,
    /// It was blocked and went on: it may overlap with what was started meanwhile.
    overlaps: bool,
    /// It waited so long to start that its job had its CPUs back.
    late: bool,
}

impl Usage {
    pub fn new(total: Resources) -> Self {
        Self { total, ..Self::default() }
    }

    /// The bundles that pay for what starts next. When one has been returned, what runs in it goes
    /// on, on what the worker has.
    pub fn pays_from(&mut self, pool: Pool, bundles: BTreeSet<(u32, u32)>) {
        let before = self.bundles.insert(pool, bundles.clone());
        if before.is_some_and(|before| !before.is_subset(&bundles)) {
            let in_pool = self.charges.values_mut().filter(|charge| charge.pool == pool);
            in_pool.for_each(|charge| charge.overlaps = true);
        }
    }

    /// A task starts: it must fit, but for what unblocked tasks took back.
    pub fn start(
        &mut self,
        (total, pool): (&Resources, Pool),
        who: (ExecutorId, TaskId),
        spec: &TaskSpec,
        actor: bool,
    ) {
        self.start_over((total, pool), who, spec, actor, false);
    }

    fn start_over(
        &mut self,
        (total, pool): (&Resources, Pool),
        who: (ExecutorId, TaskId),
        spec: &TaskSpec,
        actor: bool,
        overlaps: bool,
    ) {
        let blocked = false;
        let (request, turns) = (spec.request.clone(), spec.takes_turns());
        let used = self.used.entry(pool).or_default();
        used.add(&request);
        let charge = Charge { request, pool, turns, actor, blocked, overlaps, late: false };
        assert!(self.charges.insert(who, charge).is_none(), "{who:?} runs twice at a time");
        self.check_room((total, pool), &who);
    }

    fn check_room(&self, (total, pool): (&Resources, Pool), who: &dyn core::fmt::Debug) {
        let mut most = total.clone();
        let in_pool = self.charges.values().filter(|charge| charge.pool == pool);
        let overlap = in_pool.filter(|charge| charge.overlaps && !charge.blocked);
        most.cpu += overlap.map(|charge| charge.request.cpu).sum::<Amount>();
        let used = &self.used[&pool];
        assert!(most.covers(used), "oversubscribed: {used} of {total} by {who:?} in {pool:?}");
    }

    /// A task is given ahead of its turn.
    pub fn queue(&mut self, executor: ExecutorId, spec: &Arc<TaskSpec>) {
        self.ahead.entry(executor).or_default().push_back(Arc::clone(spec));
    }

    /// What has not started in the executor will not.
    pub fn recalled(&mut self, executor: ExecutorId) {
        self.ahead.remove(&executor);
    }

    /// The next one takes over the CPU, and what there is too little of.
    fn turn(&mut self, executor: ExecutorId, overlaps: bool) {
        if let Some(spec) = self.ahead.get_mut(&executor).and_then(VecDeque::pop_front) {
            let total = self.total.clone();
            self.start_over((&total, None), (executor, spec.id), &spec, false, overlaps);
        }
    }

    pub fn is_actor(&self, who: (ExecutorId, TaskId)) -> bool {
        self.charges.get(&who).is_some_and(|charge| charge.actor)
    }

    /// The head is told that a task waits: one that runs, or one that is late to start.
    pub fn said_blocked(&mut self, task: TaskId, attempt: u32) {
        self.said_blocked.insert((task, attempt));
    }

    /// A try that starts may have been late.
    pub fn started(&mut self, who: (ExecutorId, TaskId), attempt: u32) {
        if let Some(charge) = self.charges.get_mut(&who) {
            charge.late = self.said_blocked.contains(&(who.1, attempt));
        }
    }

    pub fn block(&mut self, who: (ExecutorId, TaskId), blocked: bool) {
        let Some(charge) = self.charges.get_mut(&who) else { return };
        if charge.blocked == blocked {
            return;
        }
        charge.blocked = blocked;
        let used = self.used.entry(charge.pool).or_default();
        match blocked {
            true => {
                used.cpu -= charge.request.cpu;
                if charge.turns {
                    let overlaps = charge.overlaps;
                    self.turn(who.0, overlaps);
                }
            }
            false => {
                charge.overlaps = true;
                used.cpu += charge.request.cpu;
            }
        }
    }

    pub fn end(&mut self, who: (ExecutorId, TaskId)) {
        let was_blocked = self.charges.get(&who).is_some_and(|charge| charge.blocked);
        self.block(who, false);
        if let Some(charge) = self.charges.remove(&who) {
            let used = self.used.entry(charge.pool).or_default();
            used.subtract(&charge.request);
            if used.is_none() {
                self.used.remove(&charge.pool);
            }
            if charge.turns && !was_blocked {
                self.turn(who.0, charge.overlaps);
            }
        }
    }

    /// A process has a CPU of the worker for what it gives to a host.
    pub fn lease(&mut self, total: &Resources, number: u64, host: ExecutorId, job: Option<JobId>) {
        self.used.entry(None).or_default().add(&Resources::cpus(1.0));
        self.leases.insert(number, (host, job));
        self.check_room((total, None), &(host, number));
    }

    /// True: it was not over before.
    pub fn lease_over(&mut self, number: u64) -> bool {
        let is_it = self.leases.remove(&number).is_some();
        if is_it {
            let used = self.used.entry(None).or_default();
            used.subtract(&Resources::cpus(1.0));
            if used.is_none() {
                self.used.remove(&None);
            }
        }
        is_it
    }

    /// What ran by a lease goes on, on its CPU.
    pub fn leaves_lease(&mut self, number: u64, who: (ExecutorId, TaskId), spec: &TaskSpec) {
        if self.lease_over(number) {
            let request = spec.request.clone();
            self.used.entry(None).or_default().add(&request);
            let charge = Charge {
                request,
                pool: None,
                turns: false,
                actor: false,
                blocked: false,
                overlaps: false,
                late: false,
            };
            assert!(self.charges.insert(who, charge).is_none(), "{who:?} runs twice at a time");
        }
    }

    pub fn end_executor(&mut self, executor: ExecutorId) {
        self.ahead.remove(&executor);
        let of_host = self.leases.iter().filter(|(_, (host, _))| *host == executor);
        let leases: Vec<u64> = of_host.map(|(number, _)| *number).collect();
        for number in leases {
            self.lease_over(number);
        }
        let keys: Vec<_> = self.charges.keys().filter(|(at, _)| *at == executor).copied().collect();
        for key in keys {
            self.end(key);
        }
    }

    /// CPUs that the job holds outside of groups, but for tasks that were ever blocked, or late to
    /// start: those took back what was given to others.
    pub fn of_job(&self, job: JobId) -> Amount {
        let of_job = self.charges.iter().filter(|((_, task), _)| task.job() == job);
        let counts = |charge: &&Charge| !charge.blocked && !charge.overlaps && !charge.late;
        let charges = of_job.map(|(_, charge)| charge).filter(|charge| charge.pool.is_none());
        let leased = self.leases.values().filter(|(_, of)| *of == Some(job)).count() as u64;
        charges.filter(counts).map(|charge| charge.request.cpu).sum::<Amount>()
            + Amount::whole(leased)
    }

    pub fn check_nothing(&self, worker: WorkerId) {
        assert!(self.charges.is_empty(), "{worker} still runs {:?}", self.charges);
        assert!(self.leases.is_empty(), "{worker} still leases {:?}", self.leases);
    }
}

/// Each count of an actor's life belongs to one call, and calls of a caller start in order.
#[derive(Debug, Default)]
pub struct ActorLog {
    /// By actor, its supervisor, and life and count.
    counts: FastMap<(ActorId, WorkerId, u64), TaskId>,
    last: FastMap<(ActorId, usize, WorkerId, ExecutorId, u64), u64>,
    /// Calls that ran, by try and by the run that called: a caller that runs again calls again.
    ran: FastSet<(TaskId, u32, u64)>,
    pub calls: u64,
}

impl ActorLog {
    /// A call starts, of a group of the actor's.
    pub fn started(
        &mut self,
        (actor, group): (ActorId, usize),
        life: u64,
        caller: (u64, u64),
        number: u64,
    ) {
        let caller = (WorkerId(caller.0), ExecutorId(caller.1 as u32));
        let last = self.last.entry((actor, group, caller.0, caller.1, life)).or_default();
        assert!(*last < number, "calls of {actor} by {caller:?} start out of order");
        *last = number;
    }

    pub fn counted(
        &mut self,
        actor: (ActorId, WorkerId),
        value: u64,
        (call, attempt, caller): (TaskId, u32, u64),
    ) {
        let (actor, owner) = actor;
        let before = self.counts.insert((actor, owner, value), call);
        assert!(before.is_none_or(|other| other == call), "{actor} counted {value:x} twice");
        assert!(self.ran.insert((call, attempt, caller)), "{call:?} attempt {attempt} ran twice");
        self.calls += 1;
    }
}

/// Calls of actors that save their state: each takes effect once, so that the results that their
/// callers see, counts, are as many as the calls.
#[derive(Debug, Default)]
pub struct ExactCalls {
    /// By call: the actor and its supervisor.
    calls: FastMap<TaskId, (ActorId, WorkerId)>,
    /// By whom: a caller that runs again calls again.
    callers: FastSet<(TaskId, u64)>,
    made: FastMap<(ActorId, WorkerId), u64>,
    seen: FastMap<(ActorId, WorkerId, u64), TaskId>,
    pub results: u64,
}

impl ExactCalls {
    pub fn submitted(&mut self, (call, run): (TaskId, u64), actor: (ActorId, WorkerId)) {
        self.calls.insert(call, actor);
        if self.callers.insert((call, run)) {
            *self.made.entry(actor).or_default() += 1;
        }
    }

    pub fn contains(&self, call: TaskId) -> bool {
        self.calls.contains_key(&call)
    }

    /// A caller reads the result of a task, which may be such a call.
    pub fn observed(&mut self, call: TaskId, count: u64) {
        let Some(&(actor, owner)) = self.calls.get(&call) else { return };
        let made = self.made[&(actor, owner)];
        assert!(count <= made, "{actor} counted {count} of {made} calls: one of them twice");
        let other = *self.seen.entry((actor, owner, count)).or_insert(call);
        assert_eq!(other, call, "{actor} forgot a call, and counted {count} again");
        self.results += 1;
    }
}

//! A core whose every action has to be claimed, and builders for what it is told.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::id::{ActorId, ExecutorId, JobId, ObjectId, TaskId, WorkerId};
use crate::local::{ExecutorRole, LocalAction, LocalConfig, LocalCore, LocalEvent};
use crate::message::{CancelMode, FromHead, PeerMessage, ToHead};
use crate::outcome::{Cause, Death, Outcome, Returned, TaskError};
use crate::resource::Resources;
use crate::spec::{
    ActorOptions, Assignment, CallRules, Policy, Reference, Strategy, TaskKind, TaskSpec,
};
use crate::time::Timestamp;

pub(super) const ME: WorkerId = WorkerId(1);
pub(super) const PEER: WorkerId = WorkerId(2);
pub(super) const OTHER: WorkerId = WorkerId(3);
pub(super) const JOB: JobId = JobId(1);

/// `TaskBuilder::new(7).cpus(2.0).after(&[object]).build()`
#[derive(Clone)]
pub(super) struct TaskBuilder {
    spec: TaskSpec,
}

impl TaskBuilder {
    pub(super) fn new(index: u64) -> Self {
        let parent = TaskId::driver(JOB);
        let (id, request) = (parent.child(index), Resources::cpus(1.0));
        Self { spec: TaskSpec { function: 1, request, ..TaskSpec::plain(id, parent) } }
    }

    pub(super) fn driver() -> Self {
        let mut task = Self::new(0).cpus(0.0);
        task.spec.id = TaskId::driver(JOB);
        task.spec.kind = TaskKind::Driver;
        task
    }

    pub(super) fn call(index: u64, actor: ActorId, actor_owner: WorkerId) -> Self {
        let mut task = Self::new(index).cpus(0.0);
        task.spec.kind = TaskKind::ActorCall { actor, actor_owner, rules: CallRules::default() };
        task
    }

    /// A call of an actor that allows calls out of order.
    pub(super) fn out_of_order(mut self) -> Self {
        if let TaskKind::ActorCall { rules, .. } = &mut self.spec.kind {
            rules.out_of_order = true;
        }
        self
    }

    pub(super) fn actor(mut self, options: ActorOptions) -> Self {
        self.spec.kind = TaskKind::ActorCreate(Box::new(options));
        self
    }

    pub(super) fn cpus(mut self, cpus: f64) -> Self {
        self.spec.request = Resources::cpus(cpus);
        self
    }

    pub(super) fn gpus(mut self, gpus: u64) -> Self {
        self.spec.request.gpu = crate::resource::Amount::whole(gpus);
        self
    }

    pub(super) fn after(mut self, references: &[Reference]) -> Self {
        self.spec.dependencies.extend_from_slice(references);
        self
    }

    pub(super) fn retries(mut self, retries: u32) -> Self {
        self.spec.max_retries = retries;
        self
    }

    pub(super) fn priority(mut self, priority: i32) -> Self {
        self.spec.priority = priority;
        self
    }

    pub(super) fn policy(mut self, policy: Policy) -> Self {
        self.spec.policy = Some(Box::new(policy));
        self
    }

    pub(super) fn returns(mut self, returns: u32) -> Self {
        self.spec.returns = returns;
        self
    }

    pub(super) fn child_of(mut self, parent: TaskId, index: u64) -> Self {
        (self.spec.id, self.spec.parent) = (parent.child(index), parent);
        self
    }

    pub(super) fn strategy(mut self, strategy: Strategy) -> Self {
        self.spec.strategy = strategy;
        self
    }

    pub(super) fn build(self) -> Arc<TaskSpec> {
        Arc::new(self.spec)
    }

    pub(super) fn assignment(self, attempt: u32, owner: WorkerId) -> Assignment {
        Assignment::new(self.spec, attempt, owner)
    }
}

pub(super) fn task(index: u64) -> TaskId {
    TaskId::driver(JOB).child(index)
}

pub(super) fn object(index: u64) -> ObjectId {
    task(index).object(0)
}

pub(super) fn mine(index: u64) -> Reference {
    Reference { object: object(index), owner: ME }
}

pub(super) fn of_peer(index: u64) -> Reference {
    Reference { object: object(index), owner: PEER }
}

pub(super) fn of_other(index: u64) -> Reference {
    Reference { object: object(index), owner: OTHER }
}

pub(super) fn inline() -> Outcome {
    Outcome::Returned(vec![Returned { size: 8, inline: true, contains: Vec::new() }])
}

pub(super) fn in_arena(contains: &[Reference]) -> Outcome {
    Outcome::Returned(vec![Returned { size: 1 << 20, inline: false, contains: contains.to_vec() }])
}

pub(super) fn asked(force: bool) -> CancelMode {
    CancelMode { force, children: true }
}

pub(super) fn panicked(index: u64) -> TaskError {
    TaskError { task: task(index), cause: Cause::Panicked { message: "boom".to_owned() } }
}

pub(super) fn killed() -> Death {
    Death::Killed { signal: 9, stderr: String::new() }
}

/// A core under test. Every action that it takes has to be claimed before the next event, in
/// order; invariants are checked after every event.
pub(super) struct Bench {
    pub(super) core: LocalCore,
    pub(super) now: Timestamp,
    /// Whom the head was asked about.
    pub(super) met: Vec<WorkerId>,
    actions: VecDeque<LocalAction>,
}

impl Bench {
    /// A worker without a head.
    fn new(total: Resources) -> Self {
        let core = LocalCore::new(LocalConfig::new(ME, total));
        Self { core, now: Timestamp(1), met: Vec::new(), actions: VecDeque::new() }
    }

    /// A worker with a head, and a driver that runs in `executor-1`.
    pub(super) fn with_driver(cpus: f64) -> (Self, ExecutorId) {
        Self::with_driver_and(Resources::cpus(cpus))
    }

    /// As above, on a worker that has `total`.
    pub(super) fn with_driver_and(total: Resources) -> (Self, ExecutorId) {
        let mut bench = Self::new(total);
        bench.handle(LocalEvent::HeadFound { fresh: true });
        bench.claim_load();
        let driver = TaskBuilder::driver().assignment(0, WorkerId::HEAD);
        bench.handle(LocalEvent::FromHead(FromHead::Assigned(vec![driver])));
        let executor = bench.claim_start(ExecutorRole::Driver);
        bench.handle(LocalEvent::ExecutorStarted { executor });
        assert_eq!(bench.claim_run(executor), (TaskId::driver(JOB), 0));
        (bench, executor)
    }

    /// As above, and a pool that is up.
    pub(super) fn with_pool(cpus: f64) -> (Self, ExecutorId, ExecutorId) {
        let (mut bench, driver) = Self::with_driver(cpus);
        bench.submit(driver, TaskBuilder::new(1_000_000));
        let pool = bench.claim_start(ExecutorRole::Pool);
        bench.handle(LocalEvent::ExecutorStarted { executor: pool });
        bench.claim_run(pool);
        // Not so short that others would be given ahead.
        bench.now = bench.now + core::time::Duration::from_millis(5);
        bench.finish(pool, 1_000_000, inline());
        bench.release(driver, 1_000_000);
        bench.claim_free(1_000_000);
        (bench, driver, pool)
    }

    pub(super) fn handle(&mut self, event: LocalEvent) {
        assert!(self.actions.is_empty(), "unclaimed before {event:?}: {:?}", self.actions);
        self.now.0 += 1;
        self.core.handle(self.now, event);
        self.take_actions();
    }

    fn take_actions(&mut self) {
        self.core.check_invariants();
        while let Some(action) = self.core.poll_action() {
            match action {
                LocalAction::SendHead(ToHead::Met(workers)) => self.met.extend(workers),
                action => self.actions.push_back(action),
            }
        }
    }

    pub(super) fn submit(&mut self, by: ExecutorId, task: TaskBuilder) {
        self.handle(LocalEvent::Submitted { by, spec: task.build() });
    }

    pub(super) fn finish(&mut self, executor: ExecutorId, index: u64, outcome: Outcome) {
        self.finish_attempt(executor, index, 0, outcome);
    }

    pub(super) fn finish_attempt(
        &mut self,
        executor: ExecutorId,
        index: u64,
        attempt: u32,
        outcome: Outcome,
    ) {
        self.handle(LocalEvent::Finished { executor, task: task(index), attempt, outcome });
    }

    pub(super) fn cancel(&mut self, index: u64, force: bool) {
        let (task, mode) = (task(index), asked(force));
        self.handle(LocalEvent::CancelRequested { task, owner: ME, mode });
    }

    /// Lets time pass until the core does more than report its load.
    pub(super) fn pass_time(&mut self) {
        assert!(self.actions.is_empty(), "unclaimed: {:?}", self.actions);
        while self.actions.is_empty() {
            assert!(self.pass_some_time(), "something is due");
        }
    }

    /// Lets time pass until nothing is due: the core only reports its load.
    pub(super) fn pass_idle_time(&mut self) {
        while self.pass_some_time() {
            self.claim_nothing();
        }
    }

    /// Until something is due, if anything is.
    pub(super) fn pass_some_time(&mut self) -> bool {
        let Some(due) = self.core.poll_timeout() else { return false };
        self.now = due;
        self.core.handle_timeout(due);
        self.take_actions();
        self.actions.retain(|action| !matches!(action, LocalAction::SendHead(ToHead::Load(_))));
        true
    }

    pub(super) fn want(&mut self, by: ExecutorId, reference: Reference) {
        self.handle(LocalEvent::Wanted { by, reference });
    }

    pub(super) fn release(&mut self, by: ExecutorId, index: u64) {
        self.handle(LocalEvent::Released { by, object: object(index) });
    }

    pub(super) fn peer_says(&mut self, from: WorkerId, message: PeerMessage) {
        self.handle(LocalEvent::FromPeer { from, message });
    }

    pub(super) fn head_says(&mut self, message: FromHead) {
        self.handle(LocalEvent::FromHead(message));
    }

    pub(super) fn pending(&self) -> usize {
        self.actions.len()
    }

    #[track_caller]
    pub(super) fn claim(&mut self) -> LocalAction {
        self.actions.pop_front().expect("an action")
    }

    #[track_caller]
    pub(super) fn claim_exactly(&mut self, expected: LocalAction) {
        assert_eq!(self.claim(), expected);
    }

    #[track_caller]
    pub(super) fn claim_start(&mut self, wanted: ExecutorRole) -> ExecutorId {
        match self.claim() {
            LocalAction::StartExecutor { executor, role, .. } if role == wanted => executor,
            other => panic!("not the start of a {wanted:?}: {other:?}"),
        }
    }

    #[track_caller]
    pub(super) fn claim_run(&mut self, at: ExecutorId) -> (TaskId, u32) {
        match self.claim() {
            LocalAction::Run { executor, spec, attempt } if executor == at => (spec.id, attempt),
            other => panic!("no run in {at}: {other:?}"),
        }
    }

    #[track_caller]
    pub(super) fn claim_delivery(&mut self, to: ExecutorId, index: u64) -> Option<Arc<TaskError>> {
        match self.claim() {
            LocalAction::Deliver { executor, object: what, error }
                if executor == to && what == object(index) =>
            {
                error
            }
            other => panic!("no delivery of {index} to {to}: {other:?}"),
        }
    }

    #[track_caller]
    pub(super) fn claim_free(&mut self, index: u64) {
        self.claim_exactly(LocalAction::Free { object: object(index) });
    }

    #[track_caller]
    pub(super) fn claim_send(&mut self, to: WorkerId, message: PeerMessage) {
        self.claim_exactly(LocalAction::Send { to, message });
    }

    #[track_caller]
    pub(super) fn claim_head(&mut self) -> ToHead {
        match self.claim() {
            LocalAction::SendHead(message) => message,
            other => panic!("not for the head: {other:?}"),
        }
    }

    #[track_caller]
    pub(super) fn claim_load(&mut self) {
        assert!(matches!(self.claim_head(), ToHead::Load(_)));
    }

    #[track_caller]
    pub(super) fn claim_spilled(&mut self) -> Vec<(TaskId, u32)> {
        match self.claim_head() {
            ToHead::Spilled(batch) => {
                batch.into_iter().map(|assigned| (assigned.spec.id, assigned.attempt)).collect()
            }
            other => panic!("not spilled: {other:?}"),
        }
    }

    #[track_caller]
    pub(super) fn claim_nothing(&self) {
        assert!(self.actions.is_empty(), "unclaimed: {:?}", self.actions);
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.claim_nothing();
        }
    }
}

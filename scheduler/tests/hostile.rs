//! A worker's core is told anything: by executors that lie, by peers that say things twice, late or
//! without sense. It must go on: nobody's words are a reason to panic, for other jobs live there.
//!
//! Ids are drawn from small pools, so that words meet what there is. What a core with such
//! neighbours computes is of no interest here; the simulation looks at that. `SIM_SEED=7` replays
//! a failure, `SIM_SEEDS=1000` tries that many.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use rdist_scheduler::checkpoint::{Applied, EndedCall};
use rdist_scheduler::id::{ActorId, ExecutorId, GroupId, JobId, ObjectId, TaskId, WorkerId};
use rdist_scheduler::local::{LocalAction, LocalConfig, LocalCore, LocalEvent};
use rdist_scheduler::message::{ActorPlace, CancelMode, FromHead, PeerMessage, Place};
use rdist_scheduler::outcome::{Cause, Death, Outcome, Returned, TaskError};
use rdist_scheduler::resource::{Amount, Resources};
use rdist_scheduler::spec::{
    ActorOptions, Assignment, CallRules, GroupOptions, GroupStrategy, InGroup, Policy, Reference,
    Strategy, StreamPolicy, TaskKind, TaskSpec,
};
use rdist_scheduler::time::Timestamp;

const ME: WorkerId = WorkerId(1);
const JOB: JobId = JobId(1);
const EVENTS: usize = 3_000;

struct Liar {
    state: u64,
    executors: Vec<ExecutorId>,
    runs: Vec<(ExecutorId, TaskId, u32)>,
}

impl Liar {
    /// A step of SplitMix64.
    fn below(&mut self, limit: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.state;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ word >> 31) % limit
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn task(&mut self) -> TaskId {
        if !self.runs.is_empty() && self.one_in(2) {
            let at = self.below(self.runs.len() as u64) as usize;
            return self.runs[at].1;
        }
        let parent = TaskId::driver(JOB);
        match self.below(4) {
            0 => parent.child(self.below(3)).child(self.below(3)),
            _ => parent.child(self.below(8)),
        }
    }

    fn object(&mut self) -> ObjectId {
        let task = self.task();
        match self.below(7) {
            0 => task.put(self.below(3) as u32),
            6 => task.put_replicated(self.below(3) as u32),
            1 => task.stream(),
            _ => task.object(self.below(3) as u32),
        }
    }

    fn worker(&mut self) -> WorkerId {
        [ME, WorkerId(2), WorkerId(3), WorkerId::HEAD][self.below(4) as usize]
    }

    fn peer(&mut self) -> WorkerId {
        WorkerId(2 + self.below(2))
    }

    fn executor(&mut self) -> ExecutorId {
        if self.executors.is_empty() || self.one_in(20) {
            return ExecutorId(self.below(4) as u32);
        }
        let at = self.below(self.executors.len() as u64) as usize;
        self.executors[at]
    }

    fn reference(&mut self) -> Reference {
        Reference { object: self.object(), owner: self.worker() }
    }

    fn references(&mut self) -> Vec<Reference> {
        (0..self.below(3)).map(|_| self.reference()).collect()
    }

    fn actor(&mut self) -> ActorId {
        ActorId(self.task())
    }

    fn attempt(&mut self) -> u32 {
        [0, 0, 0, 1, 2, u32::MAX][self.below(6) as usize]
    }

    fn mode(&mut self) -> CancelMode {
        CancelMode { force: self.one_in(2), children: self.one_in(2) }
    }

    fn error(&mut self) -> TaskError {
        let cause = match self.below(5) {
            0 => Cause::Cancelled,
            1 => Cause::ObjectLost,
            2 => Cause::WorkerDied { reason: "said so".to_owned() },
            3 => Cause::ExecutorDied(Death::Ended),
            _ => Cause::Panicked { message: "no".to_owned() },
        };
        TaskError { task: self.task(), cause }
    }

    fn returned(&mut self) -> Returned {
        Returned { size: self.below(9_000), inline: self.one_in(2), contains: self.references() }
    }

    fn outcome(&mut self) -> Outcome {
        match self.below(6) {
            0 => Outcome::Failed(self.error()),
            1 => Outcome::Retryable(self.error()),
            2 => Outcome::Streamed(self.below(4) as u32),
            _ => Outcome::Returned((0..self.below(3)).map(|_| self.returned()).collect()),
        }
    }

    fn applied(&mut self) -> Applied {
        let value = self.one_in(2).then(|| vec![1]);
        Applied { call: self.task(), outcome: self.outcome(), value }
    }

    fn request(&mut self) -> Resources {
        let mut request = Resources::cpus([0.0, 0.5, 1.0, 1.0, 64.0][self.below(5) as usize]);
        if self.one_in(8) {
            request.set("spot", Amount::whole(1));
        }
        request
    }

    fn group(&mut self) -> GroupId {
        GroupId(self.task())
    }

    fn kind(&mut self) -> TaskKind {
        match self.below(8) {
            0 => TaskKind::ActorCreate(Box::new(ActorOptions {
                max_restarts: self.below(3) as u32,
                own_process: self.one_in(2),
                max_concurrency: self.below(3) as u32,
                name: self.one_in(3).then(|| "name".to_owned()),
                checkpoint: self.one_in(2),
            })),
            1 | 2 => TaskKind::ActorCall {
                actor: self.actor(),
                actor_owner: self.worker(),
                rules: CallRules { out_of_order: self.one_in(2), exactly_once: self.one_in(2) },
            },
            3 => TaskKind::GroupCreate(Box::new(GroupOptions {
                bundles: (0..self.below(3)).map(|_| self.request()).collect(),
                strategy: GroupStrategy::Pack,
                name: None,
            })),
            _ => TaskKind::Plain,
        }
    }

    fn spec(&mut self) -> TaskSpec {
        let stream = self.one_in(5).then(|| StreamPolicy::new(self.below(3) as u32));
        let timeout = self.one_in(6).then(|| Duration::from_millis(self.below(9)));
        let policy = Policy { stream, timeout, ..Policy::DEFAULT };
        let strategy = match self.below(8) {
            0 => Strategy::Spread,
            1 => Strategy::Affinity { worker: self.worker(), soft: self.one_in(2) },
            2 => {
                let bundle = self.one_in(2).then(|| self.below(3) as u32);
                let (group, owner) = (self.group(), self.worker());
                Strategy::Group(Box::new(InGroup { group, owner, bundle }))
            }
            _ => Strategy::Default,
        };
        TaskSpec {
            id: self.task(),
            parent: self.task(),
            kind: self.kind(),
            function: 7,
            request: self.request(),
            dependencies: self.references(),
            borrowed: self.references(),
            returns: self.below(3) as u32,
            max_retries: self.below(3) as u32,
            strategy,
            priority: self.below(3) as i32 - 1,
            policy: self.one_in(3).then(|| Box::new(policy)),
            body: Vec::new(),
        }
    }

    /// What an executor may say, as the daemon lets it through: of its own job only.
    fn executor_says(&mut self) -> LocalEvent {
        let by = self.executor();
        let (executor, task, attempt) = (by, self.task(), self.attempt());
        match self.below(20) {
            0..4 => LocalEvent::Submitted { by, spec: Arc::new(self.spec()) },
            4 | 5 => LocalEvent::Finished { executor, task, attempt, outcome: self.outcome() },
            6 => match self.runs.pop() {
                Some((executor, task, attempt)) => {
                    LocalEvent::Finished { executor, task, attempt, outcome: self.outcome() }
                }
                None => LocalEvent::Recalled { executor },
            },
            7 => {
                let ended = |liar: &mut Self| EndedCall {
                    attempt: liar.attempt(),
                    applied: liar.applied(),
                };
                let calls = (0..self.below(3)).map(|_| ended(self)).collect();
                LocalEvent::Saved { executor, actor: self.actor(), state: vec![1], calls }
            }
            8 => {
                let (index, value) = (self.below(4) as u32, self.returned());
                LocalEvent::Yielded { executor, task, attempt, index, value }
            }
            9 => LocalEvent::CreditWanted { executor, task, wanted: self.attempt() },
            10 => LocalEvent::Consumed { task, owner: self.worker(), count: self.attempt() },
            11 => {
                let (object, contains) = (self.object(), self.references());
                let (inline, copies) = (self.one_in(2), self.below(4) as u32);
                LocalEvent::Put { by, object, size: 9, inline, copies, contains }
            }
            12 => LocalEvent::Wanted { by, reference: self.reference() },
            13 => LocalEvent::Retained { by, reference: self.reference() },
            14 => LocalEvent::Released { by, object: self.object() },
            15 => LocalEvent::Blocked { executor, task, attempt: self.attempt() },
            16 => LocalEvent::Unblocked { executor, task, attempt: self.attempt() },
            17 => match self.below(4) {
                0 => LocalEvent::Recalled { executor },
                1 => LocalEvent::ExecutorStarted { executor },
                2 => LocalEvent::OffersWanted { by, request: self.below(3) },
                _ => LocalEvent::ActorLookup { by, request: self.below(3), name: "name".into() },
            },
            18 => LocalEvent::CancelRequested { task, owner: self.worker(), mode: self.mode() },
            _ => match self.below(2) {
                0 => {
                    let (actor, owner) = (self.actor(), self.worker());
                    LocalEvent::ActorKillRequested { actor, owner }
                }
                _ => {
                    let (group, owner) = (self.group(), self.worker());
                    LocalEvent::GroupRemoveRequested { group, owner }
                }
            },
        }
    }

    fn peer_message(&mut self) -> PeerMessage {
        let (task, attempt, object, actor) =
            (self.task(), self.attempt(), self.object(), self.actor());
        let life = attempt;
        match self.below(30) {
            0 | 1 => PeerMessage::Finished { task, attempt, outcome: self.outcome() },
            2 => {
                let (index, value) = (self.below(4) as u32, self.returned());
                PeerMessage::Yielded { task, attempt, index, value }
            }
            3 => PeerMessage::CreditWanted { task, attempt, wanted: self.attempt() },
            4 => PeerMessage::Credit { task, consumed: self.attempt() },
            5 => PeerMessage::Consumed { task, count: self.attempt() },
            6 => PeerMessage::Settled { task, attempt },
            7 => {
                let owner = self.peer();
                PeerMessage::call(Assignment::new(self.spec(), attempt, owner))
            }
            8 => PeerMessage::Locate { object, fetches: self.one_in(2) },
            9 => {
                let place = match self.below(3) {
                    0 => Place::Inline,
                    1 => Place::Failed(self.error()),
                    _ => {
                        let copies = (0..self.below(3)).map(|_| self.worker()).collect();
                        Place::At { size: 9, copies }
                    }
                };
                PeerMessage::Located { object, place }
            }
            10 => PeerMessage::Retain { object },
            11 => PeerMessage::Retained { object },
            12 => PeerMessage::Release { object },
            13 => PeerMessage::CopyMade { object },
            14 => PeerMessage::CopyLost { object, at: self.worker() },
            15 => PeerMessage::Free { object },
            16 => PeerMessage::ActorLocate { actor },
            17 => {
                let place = match self.below(3) {
                    0 => ActorPlace::Pending,
                    1 => ActorPlace::Dead(self.error()),
                    _ => ActorPlace::At { worker: self.worker(), life },
                };
                PeerMessage::ActorLocated { actor, place }
            }
            18 => PeerMessage::ActorLost { actor, life, death: Death::Ended },
            19 => {
                let calls = (0..self.below(3)).map(|_| self.applied()).collect();
                let number = self.below(4);
                PeerMessage::ActorSaved { actor, life, number, state: vec![2], calls }
            }
            20 => PeerMessage::SavedKept { actor, life, number: self.below(4) },
            21 => PeerMessage::ActorStateWanted { actor, life },
            22 => {
                let calls = (0..self.below(3)).map(|_| self.applied()).collect();
                PeerMessage::ActorStateSent { actor, life, state: Some(vec![3]), calls }
            }
            23 => {
                let calls = (0..self.below(3)).map(|_| self.task()).collect();
                PeerMessage::CallsSettled { actor, calls }
            }
            24 => PeerMessage::ActorKill { actor },
            25 => {
                let copies = (0..self.below(3)).map(|_| self.worker()).collect();
                PeerMessage::Replicate { object, size: 9, copies }
            }
            26 => PeerMessage::NotKept { object },
            27 => PeerMessage::OwnerWanted { object },
            28 => PeerMessage::OwnerIs { object, owner: Some(self.worker()) },
            _ => PeerMessage::Cancel { task, attempt, mode: self.mode() },
        }
    }

    fn head_says(&mut self) -> FromHead {
        match self.below(4) {
            0 => {
                let (owner, attempt) = (self.worker(), self.attempt());
                FromHead::Assigned(vec![Assignment::new(self.spec(), attempt, owner)])
            }
            1 => FromHead::Placed(vec![(self.task(), self.attempt(), self.worker())]),
            2 => FromHead::SpillRequested { request: self.request(), count: 2 },
            _ => {
                let (name, actor) = ("name".to_owned(), self.actor());
                let taken_by = self.one_in(2).then(|| self.actor());
                FromHead::ActorNameResult { name, actor, taken_by }
            }
        }
    }

    /// Does what the core wants as an honest daemon does.
    fn carry_out(&mut self, core: &mut LocalCore, now: Timestamp) {
        while let Some(action) = core.poll_action() {
            match action {
                LocalAction::StartExecutor { executor, .. } => {
                    self.executors.push(executor);
                    core.handle(now, LocalEvent::ExecutorStarted { executor });
                }
                LocalAction::StopExecutor { executor, .. } => self.ends(core, now, executor),
                LocalAction::Run { executor, spec, attempt }
                | LocalAction::RunAhead { executor, spec, attempt, .. } => {
                    self.runs.push((executor, spec.id, attempt));
                }
                LocalAction::Pull { object, size, from } => {
                    core.handle(
                        now,
                        match self.one_in(3) {
                            true => LocalEvent::PullFailed { object, from },
                            false => LocalEvent::Pulled { object, size },
                        },
                    );
                }
                _ => {}
            }
        }
    }

    fn ends(&mut self, core: &mut LocalCore, now: Timestamp, executor: ExecutorId) {
        if self.executors.contains(&executor) {
            self.executors.retain(|other| *other != executor);
            self.runs.retain(|(at, ..)| *at != executor);
            let death = Death::Killed { signal: 9, stderr: String::new() };
            core.handle(now, LocalEvent::ExecutorDied { executor, death });
        }
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

fn run(count: u64, peers_lie: bool) {
    let seeds = match setting("SIM_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=setting("SIM_SEEDS").unwrap_or(count),
    };
    for seed in seeds {
        println!("SIM_SEED={seed}");
        let mut liar = Liar { state: seed, executors: Vec::new(), runs: Vec::new() };
        let mut core = LocalCore::new(LocalConfig::new(ME, Resources::cpus(3.0)));
        let mut now = Timestamp(0);
        core.handle(now, LocalEvent::HeadFound { fresh: true });
        for _ in 0..EVENTS {
            now = Timestamp(now.0 + liar.below(1_000_000));
            if core.poll_timeout().is_some_and(|due| due <= now) {
                core.handle_timeout(now);
            }
            let event = match liar.below(if peers_lie { 12 } else { 8 }) {
                0 => LocalEvent::FromHead(FromHead::Assigned(vec![driver()])),
                1 if liar.one_in(8) => {
                    let executor = liar.executor();
                    liar.ends(&mut core, now, executor);
                    continue;
                }
                1..8 => liar.executor_says(),
                8 => LocalEvent::FromHead(liar.head_says()),
                _ => LocalEvent::FromPeer { from: liar.peer(), message: liar.peer_message() },
            };
            if setting("SIM_SEED").is_some() {
                println!("{event:?}");
            }
            let again = liar.one_in(4).then(|| event.clone());
            core.handle(now, event);
            liar.carry_out(&mut core, now);
            if let Some(again) = again {
                core.handle(now, again);
                liar.carry_out(&mut core, now);
            }
        }
        let died = |worker| FromHead::WorkerDied { worker, reason: "gone".to_owned() };
        core.handle(now, LocalEvent::FromHead(died(WorkerId(2))));
        liar.carry_out(&mut core, now);
        core.handle(now, LocalEvent::FromHead(FromHead::JobEnded { job: JOB }));
        liar.carry_out(&mut core, now);
    }
}

/// What an honest head sends.
fn driver() -> Assignment {
    let id = TaskId::driver(JOB);
    let (kind, max_retries) = (TaskKind::Driver, 3);
    let spec = TaskSpec { kind, function: 1, max_retries, ..TaskSpec::plain(id, id) };
    Assignment::new(spec, 0, WorkerId::HEAD)
}

#[test]
fn executors_that_lie_stop_nobody() {
    run(30, false);
}

#[test]
fn peers_that_lie_stop_nobody() {
    run(30, true);
}

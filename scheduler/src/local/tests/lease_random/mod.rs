//! One core, a driver that gives its tasks now by a lease and now not, passes some on and cancels
//! others, and a host whose tasks end, block, fail and die with it; over ordered links that take
//! their time. One seed replays a failure: `SIM_SEED=7 cargo test -p rdist-scheduler leases`.
//!
//! Checked from outside: no more runs at a time than there are CPUs; every task has an end, and the
//! one that it should; and then nothing is left in the core.

mod host;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::bench::{JOB, ME, TaskBuilder, asked, inline, killed, mine, task};
use super::random::seeds;
use crate::id::{ExecutorId, TaskId, WorkerId};
use crate::local::{ExecutorRole, LeaseEnd, LocalAction, LocalConfig, LocalCore, LocalEvent};
use crate::message::FromHead;
use crate::outcome::{Cause, TaskError};
use crate::resource::Resources;
use crate::spec::TaskSpec;
use crate::time::Timestamp;

use host::Host;

const CPUS: usize = 2;
const TASKS: u64 = 60;

/// What goes from the host to the driver.
#[derive(Debug)]
enum Reply {
    Ran(TaskId),
    NotStarted(TaskId),
}

/// What the core wants the driver to hear.
#[derive(Debug)]
enum News {
    Lease(Option<u64>),
    Made(TaskId),
    End(TaskId, Option<Arc<TaskError>>),
    HostEnded,
}

/// What the core wants the host to hear.
#[derive(Debug)]
enum Order {
    Run(Arc<TaskSpec>, u32),
    Cancel(TaskId),
    EndLease(u64, LeaseEnd),
}

struct Model {
    seed: u64,
    core: LocalCore,
    now: Timestamp,
    driver: ExecutorId,
    host: ExecutorId,
    at: Host,
    orders: VecDeque<Order>,
    calls: VecDeque<(u64, Arc<TaskSpec>)>,
    replies: VecDeque<Reply>,
    news: VecDeque<News>,
    to_core: [VecDeque<LocalEvent>; 2],
    /// Of the driver: its lease, whether it has asked, and its open leased tasks in order; those
    /// that it has promised are marked.
    lease: Option<u64>,
    asked: bool,
    open: Vec<(Arc<TaskSpec>, bool)>,
    made: u64,
    ends: BTreeMap<TaskId, Option<Arc<TaskError>>>,
    may_fail: Vec<TaskId>,
    /// Leased tasks that ran as such, left, came back, and were lost.
    seen: [u64; 4],
}

/// Which way an event takes to the core.
const BY_DRIVER: usize = 0;
const BY_HOST: usize = 1;

impl Model {
    fn new(seed: u64) -> Self {
        let known = LocalConfig::new(ME, Resources::cpus(CPUS as f64));
        let short_runs = core::time::Duration::from_micros(200); // none here is
        let core = LocalCore::new(LocalConfig { short_runs, ..known });
        let mut model = Self {
            seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            core,
            now: Timestamp(1),
            driver: ExecutorId(0),
            host: ExecutorId(0),
            at: Host::default(),
            orders: VecDeque::new(),
            calls: VecDeque::new(),
            replies: VecDeque::new(),
            news: VecDeque::new(),
            to_core: Default::default(),
            lease: None,
            asked: false,
            open: Vec::new(),
            made: 0,
            ends: BTreeMap::new(),
            may_fail: Vec::new(),
            seen: [0; 4],
        };
        let driver = TaskBuilder::driver().assignment(0, WorkerId::HEAD);
        model.tell(LocalEvent::FromHead(FromHead::Assigned(vec![driver])));
        model.tell(LocalEvent::ExecutorStarted { executor: model.driver });
        model
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.seed;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ x >> 31) % bound
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    fn tell(&mut self, event: LocalEvent) {
        if std::env::var_os("SIM_TRACE").is_some() {
            println!("<- {event:?}");
        }
        self.core.handle(self.now, event);
        self.act();
    }

    fn act(&mut self) {
        self.core.check_invariants();
        while let Some(action) = self.core.poll_action() {
            if std::env::var_os("SIM_TRACE").is_some() {
                println!("    -> {action:?}");
            }
            self.action(action);
        }
    }

    fn action(&mut self, action: LocalAction) {
        match action {
            LocalAction::StartExecutor { executor, role, .. } => match role {
                ExecutorRole::Driver => self.driver = executor,
                _ => {
                    (self.host, self.at) = (executor, Host::started());
                    self.say(BY_HOST, LocalEvent::ExecutorStarted { executor });
                }
            },
            LocalAction::Run { executor, .. } if executor == self.driver => {}
            LocalAction::Run { executor, spec, attempt } => {
                assert_eq!(executor, self.host);
                self.orders.push_back(Order::Run(spec, attempt));
            }
            LocalAction::Cancel { task, .. } => self.orders.push_back(Order::Cancel(task)),
            LocalAction::EndLease { executor, caller, number, how } => {
                assert_eq!((executor, caller), (self.host, self.driver));
                self.orders.push_back(Order::EndLease(number, how));
            }
            LocalAction::Lease { caller, granted } => {
                assert_eq!(caller, self.driver);
                assert!(granted.is_none_or(|(host, _)| host == self.host));
                self.news.push_back(News::Lease(granted.map(|(_, number)| number)));
            }
            LocalAction::Deliver { executor, object, error } => {
                assert_eq!(executor, self.driver);
                self.news.push_back(News::End(object.task, error));
            }
            LocalAction::Free { .. } | LocalAction::SendHead(_) => {}
            other => panic!("nothing here needs {other:?}"),
        }
    }

    fn step(&mut self) {
        self.now.0 += 200_000;
        match self.below(12) {
            0 | 1 => self.driver_acts(),
            2 | 3 => self.driver_hears(),
            4 | 5 => self.host_hears(),
            6 | 7 => self.host_acts(),
            8 => self.host_dies(),
            way => {
                let from = (way % 2) as usize;
                if let Some(event) = self.to_core[from].pop_front() {
                    self.core_hears(event);
                } else if self.core.poll_timeout().is_some_and(|due| due <= self.now) {
                    self.core.handle_timeout(self.now);
                    self.act();
                }
            }
        }
    }

    /// As the worker's runtime does, which says of a task that has left its lease that it has.
    fn core_hears(&mut self, event: LocalEvent) {
        let left = match &event {
            LocalEvent::LeaseOver { running: Some(spec), .. } => Some(spec.id),
            _ => None,
        };
        let died = matches!(event, LocalEvent::ExecutorDied { .. });
        self.tell(event);
        self.news.extend(left.map(News::Made));
        if died {
            self.news.push_back(News::HostEnded);
        }
    }

    fn say(&mut self, by: usize, event: LocalEvent) {
        self.to_core[by].push_back(event);
    }

    fn submit(&mut self, spec: Arc<TaskSpec>) {
        let (by, reference) =
            (self.driver, crate::spec::Reference { object: spec.id.object(0), owner: ME });
        self.say(BY_DRIVER, LocalEvent::Submitted { by, spec });
        self.say(BY_DRIVER, LocalEvent::Wanted { by, reference });
    }

    fn driver_acts(&mut self) {
        // So few at a time that a CPU is free now and then, for a lease.
        let most = 1 + self.below(8);
        if self.made == TASKS || self.made - self.ends.len() as u64 >= most {
            return;
        }
        if self.lease.is_none() && !self.asked && self.chance(2) {
            self.asked = true;
            return self.say(BY_DRIVER, LocalEvent::LeaseWanted { by: self.driver });
        }
        match self.below(4) {
            0 if !self.open.is_empty() => {
                let at = self.below(self.open.len() as u64) as usize;
                self.promise(at);
                if self.chance(2) {
                    let id = self.open[at].0.id;
                    self.may_fail.push(id);
                    let mode = asked(false);
                    let event = LocalEvent::CancelRequested { task: id, owner: ME, mode };
                    self.say(BY_DRIVER, event);
                }
            }
            _ => {
                self.made += 1;
                let spec = TaskBuilder::new(self.made).retries(1_000).build();
                let lease = self.lease;
                match lease.filter(|_| !self.chance(4)) {
                    Some(number) => {
                        self.open.push((spec.clone(), false));
                        self.calls.push_back((number, spec));
                    }
                    None => self.submit(spec),
                }
            }
        }
    }

    fn promise(&mut self, at: usize) {
        let (spec, promised) = &mut self.open[at];
        if !std::mem::replace(promised, true) {
            let (by, spec) = (self.driver, spec.clone());
            self.say(BY_DRIVER, LocalEvent::Promised { by, spec, lost: None });
        }
    }

    fn take_open(&mut self, task: TaskId) -> Option<(Arc<TaskSpec>, bool)> {
        let at = self.open.iter().position(|(spec, _)| spec.id == task)?;
        Some(self.open.remove(at))
    }

    fn want(&mut self, task: TaskId) {
        let reference = crate::spec::Reference { object: task.object(0), owner: ME };
        self.say(BY_DRIVER, LocalEvent::Wanted { by: self.driver, reference });
    }

    fn driver_hears(&mut self) {
        if self.chance(2)
            && let Some(reply) = self.replies.pop_front()
        {
            return self.replied(reply);
        }
        match self.news.pop_front() {
            None => {}
            Some(News::Lease(granted)) => (self.lease, self.asked) = (granted, false),
            Some(News::Made(task)) if self.take_open(task).is_some() => {
                self.seen[1] += 1;
                self.lease = None;
                self.want(task);
            }
            Some(News::Made(_)) => {}
            Some(News::End(task, error)) => self.ended(task, error),
            Some(News::HostEnded) => {
                while let Some(reply) = self.replies.pop_front() {
                    self.replied(reply);
                }
                self.lease = None;
                for (place, (spec, promised)) in
                    std::mem::take(&mut self.open).into_iter().enumerate()
                {
                    let id = spec.id;
                    self.seen[3] += 1;
                    if promised {
                        self.want(id);
                    } else if place == 0 {
                        let (by, lost) = (self.driver, Some(killed()));
                        self.say(BY_DRIVER, LocalEvent::Promised { by, spec, lost });
                        self.want(id);
                    } else {
                        self.submit(spec);
                    }
                }
            }
        }
    }

    fn replied(&mut self, reply: Reply) {
        match reply {
            Reply::Ran(task) => {
                let Some((_, promised)) = self.take_open(task) else { return };
                self.seen[0] += 1;
                if promised {
                    let (by, outcome) = (self.driver, inline());
                    self.say(BY_DRIVER, LocalEvent::Answered { by, task, outcome });
                    self.want(task);
                } else {
                    self.ends.insert(task, None);
                }
            }
            Reply::NotStarted(task) => {
                if let Some((spec, _)) = self.take_open(task) {
                    self.seen[2] += 1;
                    self.lease = None;
                    self.submit(spec);
                }
            }
        }
    }

    fn ended(&mut self, task: TaskId, error: Option<Arc<TaskError>>) {
        if let Some(error) = &error {
            assert_eq!(error.cause, Cause::Cancelled, "{task}");
            assert!(self.may_fail.contains(&task), "{task} was not cancelled");
        }
        self.ends.insert(task, error);
        let object = task.object(0);
        self.say(BY_DRIVER, LocalEvent::Released { by: self.driver, object });
    }

    fn is_over(&self) -> bool {
        self.made == TASKS && self.ends.len() as u64 == TASKS
    }

    fn run(mut self) -> [u64; 4] {
        for _ in 0..200_000 {
            if self.is_over() {
                break;
            }
            self.step();
        }
        let open: Vec<u64> =
            (1..=self.made).filter(|index| !self.ends.contains_key(&task(*index))).collect();
        assert!(self.is_over(), "no end of {open:?}: {:?}", self.at);
        for _ in 0..5_000 {
            self.step();
        }
        let mut left = self.core.tasks().filter(|view| view.task != TaskId::driver(JOB));
        assert_eq!(left.next().map(|view| view.task), None);
        let is_kept =
            |index: &u64| self.core.objects().any(|view| view.object == mine(*index).object);
        assert_eq!((1..=TASKS).find(is_kept), None, "objects are left");
        drop(left);
        self.seen
    }
}

#[test]
fn leases_lose_nothing_and_leak_nothing() {
    let (seeds, mut seen) = (seeds(150), [0; 4]);
    for seed in &seeds {
        println!("SIM_SEED={seed}");
        let run = Model::new(*seed).run();
        seen = core::array::from_fn(|what| seen[what] + run[what]);
    }
    assert!(seeds.len() == 1 || seen.iter().all(|seen| *seen > 100), "hardly tried: {seen:?}");
}

//! One actor whose calls run beside each other: up to the limit of each group of methods, and by
//! the language's own rule: methods with `&self` together, one with `&mut self` alone.
//!
//! ```text
//!  deliver ──► group: waiting ──1──► in flight ──2──► ended
//! ```
//! 1. in the order of arrival in its group, when the group has room; one that wants the actor for
//!    itself (`alone`) starts when nothing is in flight, and until then nothing else starts; what
//!    ends the actor (`last`) starts when all that came before it has ended, in every group;
//! 2. its thread returns, or the future of an async call is ready.
//!
//! **CO-1** Where a call could start, the mailbox is in the queue of work (`is_queued`), or a
//! thread serves it that will look again. So whoever makes room or adds a call looks once, and a
//! thread that starts a call which keeps it calls another one first.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdist_scheduler::hash::IdMap;
use rdist_scheduler::id::{ActorId, TaskId};
use smallvec::SmallVec;

use super::call_task::{self, Begun, CallTask};
use super::mailbox::{CALLS_PER_TURN, Mailbox};
use super::process::Process;
use super::registry::{Body, Class, MethodBody, SharedState, State, TERMINATE};
use super::run::{self, Job, wrong_kind};
use super::slots::Work;

/// Calls and state of a concurrent actor.
#[derive(Debug)]
pub(super) struct Concurrent {
    calls: Mutex<Calls>,
    /// The user's value; `None` before it is made and after it is dropped.
    state: Mutex<Option<SharedState>>,
}

#[derive(Debug)]
struct Calls {
    /// The first one is of methods without a group.
    groups: SmallVec<[Group; 1]>,
    in_flight: u32,
    /// The call in flight wants no other beside it.
    alone: bool,
    /// Ends the actor.
    last: Option<Box<Job>>,
    /// What came after that one.
    too_late: Vec<Job>,
    /// The mailbox is in the queue for a thread.
    is_queued: bool,
    is_ended: bool,
    /// Async calls that wait.
    futures: IdMap<TaskId, Arc<CallTask>>,
}

#[derive(Debug)]
struct Group {
    waiting: VecDeque<Waiting>,
    in_flight: u32,
    limit: u32,
}

/// A call, and how it is to run.
#[derive(Debug)]
struct Waiting {
    job: Box<Job>,
    how: How,
    group: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Alone,
    OnThread,
    AsFuture,
}

impl Concurrent {
    pub(super) fn new(class: &Class, limit: u32) -> Self {
        let limit = if limit == 0 { class.limit } else { limit };
        let limits = std::iter::once(limit).chain(class.groups.iter().map(|(_, limit)| *limit));
        let group = |limit| Group { waiting: VecDeque::new(), in_flight: 0, limit };
        let calls = Calls {
            groups: limits.map(group).collect(),
            in_flight: 0,
            alone: false,
            last: None,
            too_late: Vec::new(),
            is_queued: false,
            is_ended: false,
            futures: IdMap::default(),
        };
        Self { calls: Mutex::new(calls), state: Mutex::default() }
    }

    /// Adds a call; whether the mailbox is to be queued for a thread.
    pub(super) fn deliver(&self, process: &'static Process, job: Box<Job>) -> bool {
        let (how, group) = match process.registry.get(job.spec.function).map(|f| f.body) {
            Some(Body::Method(method)) => match method.body {
                MethodBody::Exclusive(_) => (How::Alone, method.group),
                MethodBody::Shared(_) => (How::OnThread, method.group),
                MethodBody::Async(_) => (How::AsFuture, method.group),
            },
            // The constructor; and what cannot be run, and will say so.
            _ => (How::Alone, 0),
        };
        let mut calls = self.lock_calls();
        if calls.is_ended {
            drop(calls);
            run::cut_off(process, &job);
            return false;
        }
        if calls.last.is_some() {
            calls.too_late.push(*job);
            return false;
        }
        if job.spec.function == TERMINATE {
            calls.last = Some(job);
            return calls.wants_thread();
        }
        // Another build of the program may have had more groups.
        let group = group.min(calls.groups.len() - 1);
        calls.groups[group].waiting.push_back(Waiting { job, how, group });
        calls.wants_thread()
    }

    /// Starts calls for a turn; whether the mailbox is to be queued again.
    pub(super) fn serve(&self, process: &'static Process, mailbox: &Arc<Mailbox>) -> bool {
        self.lock_calls().is_queued = false;
        for _ in 0..CALLS_PER_TURN {
            let (call, help) = {
                let mut calls = self.lock_calls();
                let Some(call) = calls.start() else { return false };
                let help = call.how == How::OnThread && calls.wants_thread();
                (call, help)
            };
            if help {
                process.slots.push(Work::Actor(mailbox.clone()));
                process.slots.call_threads(process);
            }
            self.run(process, mailbox, call);
        }
        self.lock_calls().wants_thread()
    }

    fn run(&self, process: &'static Process, mailbox: &Arc<Mailbox>, call: Waiting) {
        let Waiting { job, how, group } = call;
        match how {
            How::Alone => self.run_alone(process, mailbox, &job),
            How::OnThread => self.run_on_thread(process, mailbox, &job),
            How::AsFuture => return self.run_as_future(process, mailbox, job, group),
        }
        self.lock_calls().ended(group);
    }

    fn run_alone(&self, process: &'static Process, mailbox: &Mailbox, job: &Job) {
        if job.spec.function == TERMINATE {
            return mailbox.terminate(process, job);
        }
        let mut state = self.lock_state();
        run::run(process, job, |body, arguments, cx| match (body, state.as_mut()) {
            (Some(Body::Actor(class)), None) => match (class.make)(arguments, cx)? {
                State::Shared(actor) => {
                    *state = Some(actor);
                    Ok(process.encode(&())?)
                }
                State::Exclusive(_) => Err(wrong_kind("an actor with calls beside each other")),
            },
            (Some(Body::Method(method)), Some(state)) => {
                // Every call in flight has a count of its own, and there is none.
                match (method.body, Arc::get_mut(state)) {
                    (MethodBody::Exclusive(body), Some(state)) => body(state, arguments, cx),
                    _ => Err(wrong_kind("a method that has the actor for itself")),
                }
            }
            (Some(Body::Method(_)), None) => Err(mailbox.no_state()),
            (Some(Body::Actor(_)), Some(_)) => Err(mailbox.is_there_already()),
            (Some(Body::Task(_) | Body::Predicate(_)) | None, _) => {
                Err(wrong_kind("a method of an actor"))
            }
        });
        if state.is_none() && ActorId(job.spec.id) == mailbox.id {
            drop(state);
            process.actors.remove(&mailbox.id);
        }
    }

    fn run_on_thread(&self, process: &'static Process, mailbox: &Mailbox, job: &Job) {
        let state = self.lock_state().clone();
        run::run(process, job, |body, arguments, cx| match (body, &state) {
            (Some(Body::Method(method)), Some(state)) => match method.body {
                MethodBody::Shared(body) => body(&**state, arguments, cx),
                _ => Err(wrong_kind("a method beside others")),
            },
            _ => Err(mailbox.no_state()),
        });
    }

    fn run_as_future(
        &self,
        process: &'static Process,
        mailbox: &Arc<Mailbox>,
        job: Box<Job>,
        group: usize,
    ) {
        let state = self.lock_state().clone();
        let begun = run::execute(process, &job, |body, arguments, cx| match (body, state) {
            (Some(Body::Method(method)), Some(state)) => match method.body {
                MethodBody::Async(body) => call_task::begin(body(state, arguments, cx)?),
                _ => Err(wrong_kind("an async method")),
            },
            _ => Err(mailbox.no_state()),
        });
        let result = match begun {
            Ok(Begun::Waits(future)) => {
                let task = CallTask::new(process, mailbox.clone(), job, group, future);
                // Before the next poll: who ends the actor must find it.
                let mut calls = self.lock_calls();
                let is_ended = calls.is_ended;
                if !is_ended {
                    calls.futures.insert(task.id(), task.clone());
                }
                drop(calls);
                if is_ended {
                    task.cut_off();
                }
                return task.poll(process);
            }
            Ok(Begun::Ready(encoded)) => Ok(encoded),
            Err(ended) => Err(ended),
        };
        run::finish_call(process, &job, result);
        self.lock_calls().ended(group);
    }

    /// The future of a call is ready; whether the mailbox is to be queued for a thread.
    pub(super) fn future_ended(&self, task: TaskId, group: usize) -> bool {
        let mut calls = self.lock_calls();
        calls.futures.remove(&task);
        calls.ended(group);
        calls.wants_thread()
    }

    /// Cuts off calls that wait, and drops the state after those that run.
    pub(super) fn end(&self, process: &'static Process) {
        let (futures, waiting, too_late) = {
            let mut calls = self.lock_calls();
            calls.is_ended = true;
            let take = |group: &mut Group| std::mem::take(&mut group.waiting);
            let waiting: Vec<_> = calls.groups.iter_mut().flat_map(take).collect();
            let last = calls.last.take().map(|job| *job).into_iter();
            let too_late: Vec<_> = last.chain(std::mem::take(&mut calls.too_late)).collect();
            (std::mem::take(&mut calls.futures), waiting, too_late)
        };
        futures.into_values().for_each(|call| call.cut_off());
        waiting.iter().for_each(|call| run::cut_off(process, &call.job));
        too_late.iter().for_each(|job| run::cut_off(process, job));
        drop(self.lock_state().take());
    }

    fn lock_calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_state(&self) -> MutexGuard<'_, Option<SharedState>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Calls {
    /// The group whose first call may start now.
    fn open_group(&self) -> Option<usize> {
        if self.alone {
            return None;
        }
        let mut open = None;
        for (at, group) in self.groups.iter().enumerate() {
            let Some(first) = group.waiting.front().filter(|_| group.in_flight < group.limit)
            else {
                continue;
            };
            if first.how == How::Alone {
                return (self.in_flight == 0).then_some(at);
            }
            open = open.or(Some(at));
        }
        open
    }

    /// Takes the call that is to start next.
    fn start(&mut self) -> Option<Waiting> {
        let (group, call) = match self.open_group() {
            Some(group) => (group, self.groups[group].waiting.pop_front()?),
            None if self.may_end() => {
                let job = self.last.take()?;
                (0, Waiting { job, how: How::Alone, group: 0 })
            }
            None => return None,
        };
        self.groups[group].in_flight += 1;
        self.in_flight += 1;
        self.alone = call.how == How::Alone;
        Some(call)
    }

    /// Whether the call that ends the actor may start, if there is one.
    fn may_end(&self) -> bool {
        self.last.is_some()
            && self.in_flight == 0
            && self.groups.iter().all(|group| group.waiting.is_empty())
    }

    fn ended(&mut self, group: usize) {
        self.groups[group].in_flight -= 1;
        self.in_flight -= 1;
        self.alone = false;
    }

    /// Whether a call could start and no thread is on its way for it; then it counts as queued.
    fn wants_thread(&mut self) -> bool {
        let could_start = self.open_group().is_some() || self.may_end();
        could_start && !std::mem::replace(&mut self.is_queued, true)
    }
}

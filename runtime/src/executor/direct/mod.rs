//! Calls that go to an actor's process through rings of its own, and not by the worker; and short
//! tasks that go to the job's pooled executor in the same way ([`lessee`], [`host`]).
//!
//! The worker is asked for a *route* to an actor that this process has called a few times
//! (`rdist_scheduler::local`, `direct`). While there is one, plain calls go through the ring to the
//! actor's process, and their results come back the same way.
//!
//! - **What goes directly:** calls of actors that run them in order and save no state, with
//!   arguments inline and without references. All else goes by the worker, and so does a result
//!   that is large or has references inside.
//! - **Order:** calls of one process to one actor keep their order. A route is granted where all
//!   calls before are with the actor's process, which reads direct calls only after them (the
//!   *fence*). A call by the worker waits until the callee has taken the direct ones before it.
//!   And a task ends only when the calls that it made have been taken, so that whoever hears of
//!   its end and then calls the same actor comes after it.
//! - **Objects:** the worker knows nothing of the result of a direct call. Where its reference
//!   leaves this process (`Process::pass_on`), the worker is told: the value if it is there, else a
//!   *promise*, after which the call is a task like others, to be cancelled or tried again.
//! - **Ends:** the worker tells the end of an actor's life. Calls without an answer are lost then:
//!   they fail, or go to the worker as lost ones where they may be tried again. A caller that ends
//!   leaves its calls in the ring, and the callee reads them to the end.
//! - **Sleep:** replies wake a process that sleeps only where somebody waits for them; a process
//!   that only makes calls reads replies as it goes. A task that comes back wakes it in any case.
//!
//! **DI-1** Of each call there is an entry in [`link::Open`] until its end is known, and its state
//! changes under that lock; routes are locked first, and nothing is read under either lock. Once
//! a route is left under it, no call is added.

mod host;
mod lessee;
mod link;
mod reply;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use rdist_scheduler::hash::BuildIdHasher;
use rdist_scheduler::id::{ActorId, ExecutorId, ObjectId};
use rdist_scheduler::outcome::{Cause, Death, Outcome, Returned, TaskError};
use rdist_scheduler::spec::{CallRules, Reference, Strategy, TaskKind, TaskSpec};

use crate::api::value;
use crate::executor::objects::{Entry, Held};
use crate::executor::outbox::{Draft, Outbox};
use crate::executor::process::Process;
use crate::executor::settled::Settled;
use crate::executor::wait::{Parker, Why};
use crate::wire::direct::{DirectCall, DirectReply};
use crate::wire::executor::{FromExecutor, Value};
pub(in crate::executor) use host::{Lane, serve};
use lessee::Lessee;
pub(in crate::executor) use link::Link;
use link::{Call, Via};
pub(in crate::executor) use reply::{Reply, accept};

/// Calls by the worker before a route is asked for; after a refusal twice as many, and so on.
const FIRST_ASK: u32 = 4;
const LAST_ASK: u32 = 1 << 12;
/// Results that do not go through a ring, before calls go by the worker for good.
const MAX_UNFIT: u32 = 8;
/// Calls between two looks at what has been answered.
const CALLS_PER_LOOK: u64 = 32;
/// Calls that may wait for room in a ring.
const MAX_BEHIND: usize = 256;

/// All direct calls that this process makes.
#[derive(Debug, Default)]
pub(crate) struct Direct {
    routes: DashMap<ActorId, Arc<Route>, BuildIdHasher>,
    links: Mutex<HashMap<ExecutorId, Arc<Link>>>,
    /// Calls without an answer.
    open: AtomicUsize,
    lessee: Lessee,
}

/// The way to one actor.
#[derive(Debug)]
struct Route {
    actor: ActorId,
    /// Where calls go while they go directly; set before `is_direct`, and forgotten after it.
    direct: RwLock<Option<Arc<Link>>>,
    /// Changes to false under the lock of the link's calls.
    is_direct: AtomicBool,
    inner: Mutex<Way>,
}

#[derive(Debug)]
struct Way {
    state: State,
    /// Calls by the worker since the last question, and how many there are to be.
    calls: u32,
    ask_at: u32,
    /// Questions so far: who waits for an answer may find the next one asked.
    asked: u64,
    /// Results that came another way.
    unfit: u32,
    /// Where direct calls went, if there were any in this life of the actor.
    link: Option<Arc<Link>>,
}

#[derive(Debug)]
enum State {
    ByWorker,
    /// The worker is asked; these threads wait for its answer.
    Asked(Vec<Arc<Parker>>),
    Direct,
    /// To `ByWorker`, when the callee has taken what was sent.
    Leaving,
}

impl Process {
    /// Calls an actor, by the way that there is.
    pub(crate) fn call_actor(&'static self, mut spec: TaskSpec) -> Held {
        let TaskKind::ActorCall { actor, rules, .. } = spec.kind else { return self.submit(spec) };
        if rules != CallRules::default() {
            return self.submit(spec);
        }
        let fits = goes_directly(&spec);
        let route = self.direct.route(actor);
        loop {
            if fits && let Some(link) = route.direct() {
                match link.call(self, &route, spec) {
                    Ok((held, number)) => {
                        self.keep_up(&link, number);
                        return held;
                    }
                    Err(back) => spec = back,
                }
            }
            let mut way = route.lock();
            let at = &mut *way;
            match &mut at.state {
                State::ByWorker if !fits || at.calls < at.ask_at => {
                    at.calls = at.calls.saturating_add(1);
                    let held = self.submit_now(spec);
                    drop(way);
                    self.wait_until_behind(MAX_BEHIND);
                    return held;
                }
                State::ByWorker => {
                    at.state = State::Asked(Vec::new());
                    at.asked += 1;
                    self.outbox.send(&FromExecutor::RouteWanted(actor));
                }
                State::Asked(waiting) => {
                    waiting.push(Parker::current());
                    let asked = at.asked;
                    drop(way);
                    let is_answered = || {
                        let way = route.lock();
                        way.asked != asked || !matches!(way.state, State::Asked(_))
                    };
                    self.wait(Why::Answer, None, is_answered, || {});
                }
                // Since a moment ago.
                State::Direct if fits => {}
                State::Direct => {
                    at.state = State::Leaving;
                    route.leave();
                }
                State::Leaving => {
                    let Some(link) = at.link.clone() else { return self.submit(spec) };
                    drop(way);
                    self.wait_until_taken(&link);
                    let mut way = route.lock();
                    if matches!(way.state, State::Leaving) {
                        (way.state, way.calls) = (State::ByWorker, 0);
                    }
                }
            }
        }
    }

    /// Reads replies now and then, and lets the callee catch up.
    fn keep_up(&'static self, link: &Link, number: u64) {
        if number.is_multiple_of(CALLS_PER_LOOK) && self.direct.open.load(Ordering::Relaxed) > 64 {
            self.pump();
        }
        while link.outbox.behind() > MAX_BEHIND && !link.has_ended() {
            let soon = Instant::now() + Duration::from_millis(1);
            let is_over = || link.outbox.behind() <= MAX_BEHIND || link.has_ended();
            self.wait(Why::Answer, Some(soon), is_over, || {});
        }
    }

    /// Waits until the callee has taken all calls.
    fn wait_until_taken(&'static self, link: &Link) {
        let mut mark = None;
        let mut is_over = || link.outbox.is_taken(&mut mark) || link.has_ended();
        while !is_over() {
            let soon = Instant::now() + Duration::from_millis(1);
            self.wait(Why::Answer, Some(soon), &mut is_over, || {});
        }
    }

    /// User code has ended: what it called comes before what others call who hear of its end.
    #[inline]
    pub(in crate::executor) fn calls_are_taken(&'static self) {
        if self.direct.open.load(Ordering::Relaxed) > 0 {
            let links: Vec<_> = self.direct.lock_links().values().cloned().collect();
            links.iter().for_each(|link| self.wait_until_taken(link));
        }
    }

    /// The worker's answer to a question for a route.
    pub(in crate::executor) fn route_answered(
        &self,
        actor: ActorId,
        link: Option<(Arc<Link>, u64)>,
    ) {
        let route = self.direct.route(actor);
        let mut way = route.lock();
        let State::Asked(waiting) = &mut way.state else { return };
        let waiting = std::mem::take(waiting);
        way.calls = 0;
        match link {
            Some((link, fence)) => {
                link.outbox.transmit(Draft::new(&DirectCall::After(fence)));
                route.enter(link.clone());
                way.link = Some(link);
                (way.state, way.ask_at) = (State::Direct, FIRST_ASK);
            }
            None => {
                way.state = State::ByWorker;
                way.ask_at = way.ask_at.saturating_mul(2).min(LAST_ASK);
            }
        }
        drop(way);
        waiting.iter().for_each(|parker| parker.notify());
    }

    /// A life of the actor has ended; all replies before are read.
    pub(in crate::executor) fn route_ended(&self, actor: ActorId, death: &Death) {
        let Some(route) = self.direct.routes.get(&actor).map(|route| route.clone()) else { return };
        let mut way = route.lock();
        let Some(link) = way.link.take() else { return };
        route.leave();
        if !matches!(way.state, State::Asked(_)) {
            way.state = State::ByWorker;
            way.calls = 0;
        }
        // Under the route's lock: calls that follow go by the worker, after these.
        let lost = link.take_all(&self.direct, |call| call.via.is_route(&route));
        let failed: Vec<_> = lost.into_iter().filter_map(|call| self.lost(call, death)).collect();
        drop(way);
        failed.iter().for_each(|entry| self.objects.wake(entry));
    }

    /// What has to be woken: a call that is not tried again.
    fn lost(&self, call: Call, death: &Death) -> Option<Arc<Entry>> {
        let Call { entry, spec, is_promised, .. } = call;
        let reference = entry.reference;
        let lost = Some(death.clone());
        if is_promised {
            // Which may have come to the worker after the news of the end.
            self.outbox.send(&FromExecutor::Promised { spec, lost });
            self.outbox.send(&FromExecutor::Wanted(reference));
        } else if spec.max_retries > 0 {
            self.objects.adopt(&entry, || {
                self.outbox.send(&FromExecutor::Promised { spec, lost });
            });
            self.objects.adopted(&entry, &self.outbox);
        } else {
            let error = TaskError { task: spec.id, cause: Cause::ActorDied(death.clone()) };
            entry.set(Settled::failed(error));
            return Some(entry);
        }
        None
    }

    /// A reply came.
    pub(in crate::executor) fn replied(&self, link: &Link, token: u64, reply: DirectReply) {
        let Some((open, call)) = link.take(token) else { return };
        self.direct.ended(&call);
        let result = match reply {
            DirectReply::Value(bytes) => Ok(bytes),
            DirectReply::Failed(error) => Err(error),
            DirectReply::Ran { value, nanos } => {
                self.ran(&call, Duration::from_nanos(nanos));
                Ok(value)
            }
            DirectReply::NotStarted => {
                drop(open);
                return self.not_started(call);
            }
        };
        if call.is_promised {
            let (outcome, values) = match &result {
                Ok(bytes) => {
                    let (size, inline) = (bytes.len() as u64, true);
                    let returned = Returned { size, inline, contains: Vec::new() };
                    let values = vec![Value::Inline(bytes.clone())];
                    (Outcome::Returned(vec![returned]), values)
                }
                Err(error) => (Outcome::Failed(error.clone()), Vec::new()),
            };
            self.outbox.send(&FromExecutor::Answered { task: call.spec.id, outcome, values });
        }
        call.entry.set(match result {
            Ok(bytes) => {
                call.entry.has_no_references();
                Settled::Inline(value::aligned(bytes))
            }
            Err(error) => Settled::failed(error),
        });
        drop(open);
        self.objects.wake(&call.entry);
        self.objects.retire_unused(&call.entry, &self.outbox);
    }

    /// The result of a direct call is with the worker, which counts this process as its holder.
    pub(in crate::executor) fn made(&self, object: ObjectId) {
        let links: Vec<_> = self.direct.lock_links().values().cloned().collect();
        let is_it = |call: &Call| call.entry.reference.object == object;
        let Some(call) =
            links.iter().find_map(|link| link.take_all(&self.direct, is_it).into_iter().next())
        else {
            // It was lost with its actor before, and failed: the hold is taken and given back.
            let owner = self.worker;
            return drop(self.objects.made(Reference { object, owner }));
        };
        if call.is_promised {
            self.outbox.send(&FromExecutor::Wanted(call.entry.reference));
        } else {
            self.objects.adopt(&call.entry, || {});
            self.objects.adopted(&call.entry, &self.outbox);
        }
        let Via::Route(route) = &call.via else { return self.left_lease(&call) };
        let mut way = route.lock();
        way.unfit += 1;
        if way.unfit >= MAX_UNFIT && matches!(way.state, State::Direct) {
            (way.state, way.ask_at) = (State::Leaving, u32::MAX);
            route.leave();
        }
    }

    /// A reference leaves this process: the worker must know the object.
    #[inline]
    pub(crate) fn pass_on(&self, held: &Held) {
        if held.is_own() {
            self.tell_own(held);
        }
    }

    #[cold]
    fn tell_own(&self, held: &Held) {
        let object = held.reference.object;
        let promise = |link: &Arc<Link>, token| {
            let mut open = link.lock();
            let Some(call) = open.get(token).filter(|_| held.is_own()) else { return };
            call.is_promised = true;
            let spec = call.spec.clone();
            self.objects.adopt(held, || {
                held.is_promised();
                self.outbox.send(&FromExecutor::Promised { spec, lost: None });
            });
            drop(open);
            self.want_reply(link);
        };
        if let Some((link, token)) = held.call() {
            promise(link, *token);
        }
        if !held.is_own() {
            return;
        }
        match held.bytes() {
            Some(Ok(bytes)) => self.objects.adopt(held, || {
                let (value, contains) = (Value::Inline(bytes.to_vec()), Vec::new());
                self.outbox.send(&FromExecutor::Put { object, value, copies: 1, contains });
            }),
            Some(Err(error)) => self.objects.adopt(held, || {
                self.outbox.send(&FromExecutor::PutFailed { object, error });
            }),
            // Its answer comes by the worker, which knows it.
            None => {}
        }
    }

    /// Somebody waits for an object; where a reply brings it, that is to wake this process.
    pub(in crate::executor) fn want_reply_for(&self, entry: &Entry) {
        if let Some((link, _)) = entry.call()
            && !entry.is_settled()
        {
            self.want_reply(link);
        }
    }

    /// Somebody waits for a reply.
    fn want_reply(&self, link: &Link) {
        if !link.is_wanted.swap(true, Ordering::SeqCst) {
            self.nobody_sleeps_through();
        }
    }

    /// The link to an executor, made where it is not there.
    pub(in crate::executor) fn link_to(&self, peer: ExecutorId) -> Option<Arc<Link>> {
        self.direct.lock_links().get(&peer).cloned()
    }

    pub(in crate::executor) fn add_link(&self, peer: ExecutorId, outbox: Outbox) -> Arc<Link> {
        let link = Arc::new(Link::new(outbox));
        self.direct.lock_links().insert(peer, link.clone());
        link
    }

    /// The other executor has ended; its replies are read, and its actors' routes have ended.
    pub(in crate::executor) fn remove_link(&self, peer: ExecutorId, death: &Death) {
        let link = self.direct.lock_links().remove(&peer);
        if let Some(link) = link {
            link.end();
            self.host_ended(&link, death);
        }
    }
}

impl Direct {
    fn route(&self, actor: ActorId) -> Arc<Route> {
        if let Some(route) = self.routes.get(&actor) {
            return route.clone();
        }
        let way = Way {
            state: State::ByWorker,
            calls: 0,
            ask_at: FIRST_ASK,
            asked: 0,
            unfit: 0,
            link: None,
        };
        let route = || Route {
            actor,
            direct: RwLock::default(),
            is_direct: AtomicBool::new(false),
            inner: Mutex::new(way),
        };
        self.routes.entry(actor).or_insert_with(|| Arc::new(route())).clone()
    }

    /// A call has its end.
    fn ended(&self, call: &Call) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        if let Via::Lease(_) = call.via {
            self.lessee.ended();
        }
    }

    fn lock_links(&self) -> MutexGuard<'_, HashMap<ExecutorId, Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Route {
    /// Where calls go directly, if they do.
    fn direct(&self) -> Option<Arc<Link>> {
        self.direct.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn enter(&self, link: Arc<Link>) {
        self.is_direct.store(true, Ordering::SeqCst);
        *self.direct.write().unwrap_or_else(PoisonError::into_inner) = Some(link);
    }

    /// From now on no call is made directly.
    fn leave(&self) {
        let link = self.direct.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(link) = link {
            let _open = link.lock();
            self.is_direct.store(false, Ordering::SeqCst);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Way> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a call needs nothing that only the worker can do.
fn goes_directly(spec: &TaskSpec) -> bool {
    spec.dependencies.is_empty()
        && spec.borrowed.is_empty()
        && spec.returns == 1
        && spec.policy.is_none()
        && spec.strategy == Strategy::Default
        && spec.function < crate::executor::detached::WATCH
}

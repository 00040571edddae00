//! The calling end of the rings to one executor, and the calls that have no answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rdist_scheduler::spec::{Reference, TaskKind, TaskSpec};

use super::{Direct, Route};
use crate::executor::objects::{Entry, Held};
use crate::executor::outbox::{Draft, Outbox, lock_soon};
use crate::executor::process::Process;
use crate::wire::direct::DirectCall;

/// The rings to one executor.
#[derive(Debug)]
pub(in crate::executor) struct Link {
    pub(in crate::executor) outbox: Outbox,
    open: Mutex<Open>,
    /// Somebody waits for a reply.
    pub(super) is_wanted: AtomicBool,
    has_ended: AtomicBool,
}

/// Calls without an answer. A token is a place, and how often the place has been used.
#[derive(Debug, Default)]
pub(super) struct Open {
    places: Vec<(u32, Option<Call>)>,
    free: Vec<u32>,
    made: u64,
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) entry: Arc<Entry>,
    pub(super) via: Via,
    pub(super) spec: TaskSpec,
    /// In the order of the calls.
    number: u64,
    pub(super) is_promised: bool,
}

/// What lets a call go directly.
#[derive(Debug)]
pub(super) enum Via {
    Route(Arc<Route>),
    /// Its number.
    Lease(u64),
}

impl Via {
    pub(super) fn is_route(&self, route: &Arc<Route>) -> bool {
        matches!(self, Self::Route(own) if Arc::ptr_eq(own, route))
    }
}

impl Link {
    pub(super) fn new(outbox: Outbox) -> Self {
        Self {
            outbox,
            open: Mutex::default(),
            is_wanted: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
        }
    }

    /// The other executor is gone.
    pub(super) fn end(&self) {
        // Under the lock, after which no task is added.
        let _open = self.lock();
        self.has_ended.store(true, Ordering::SeqCst);
    }

    /// Sends a call; the reference to its value, and how many calls there were before. Given back:
    /// the route has ended meanwhile.
    #[expect(clippy::result_large_err, reason = "the error is the argument, and rare")]
    pub(super) fn call(
        self: &Arc<Self>,
        process: &Process,
        route: &Arc<Route>,
        mut spec: TaskSpec,
    ) -> Result<(Held, u64), TaskSpec> {
        let TaskKind::ActorCall { actor, actor_owner, .. } = spec.kind else {
            unreachable!("{:?} is called", route.actor)
        };
        let message = DirectCall::Call {
            id: spec.id,
            parent: spec.parent,
            actor: (actor, actor_owner),
            function: spec.function,
            body: std::mem::take(&mut spec.body),
        };
        let draft = Draft::new(&message);
        if let DirectCall::Call { body, .. } = message {
            spec.body = body;
        }
        let open = self.lock();
        if !route.is_direct.load(Ordering::SeqCst) {
            return Err(spec);
        }
        Ok(self.add(open, process, Via::Route(route.clone()), spec, draft))
    }

    /// Sends a task, by that lease. Given back: the host has ended meanwhile.
    #[expect(clippy::result_large_err, reason = "the error is the argument, and rare")]
    pub(super) fn run(
        self: &Arc<Self>,
        process: &Process,
        lease: u64,
        mut spec: TaskSpec,
    ) -> Result<(Held, u64), TaskSpec> {
        let message = DirectCall::Run {
            id: spec.id,
            parent: spec.parent,
            lease,
            function: spec.function,
            max_retries: spec.max_retries,
            body: std::mem::take(&mut spec.body),
        };
        let draft = Draft::new(&message);
        if let DirectCall::Run { body, .. } = message {
            spec.body = body;
        }
        let open = self.lock();
        if self.has_ended() {
            return Err(spec);
        }
        Ok(self.add(open, process, Via::Lease(lease), spec, draft))
    }

    fn add(
        self: &Arc<Self>,
        mut open: MutexGuard<'_, Open>,
        process: &Process,
        via: Via,
        spec: TaskSpec,
        draft: Draft,
    ) -> (Held, u64) {
        let reference = Reference { object: spec.id.object(0), owner: process.worker };
        let mut held = Held::own(reference);
        let (token, number) = open.place();
        let entry = held.made_by(self.clone(), token);
        open.put(token, Call { entry, via, spec, number, is_promised: false });
        drop(open);
        process.direct.open.fetch_add(1, Ordering::Relaxed);
        self.outbox.transmit(draft.of(token));
        (held, number)
    }

    /// Takes the calls that are meant, in order.
    pub(super) fn take_all(&self, direct: &Direct, is_meant: impl Fn(&Call) -> bool) -> Vec<Call> {
        let mut open = self.lock();
        let tokens = (0..).zip(&open.places).filter_map(|(place, (used, call))| {
            let token = token(place, *used);
            call.as_ref().filter(|call| is_meant(call)).map(|_| token)
        });
        let tokens: Vec<u64> = tokens.collect();
        let mut calls: Vec<Call> =
            tokens.into_iter().filter_map(|token| open.take(token)).collect();
        calls.sort_unstable_by_key(|call| call.number);
        calls.iter().for_each(|call| direct.ended(call));
        calls
    }

    /// Takes the call that a reply is for. With the last one nobody waits any longer.
    pub(super) fn take<'a>(&'a self, token: u64) -> Option<(MutexGuard<'a, Open>, Call)> {
        let mut open = self.lock();
        let call = open.take(token)?;
        if open.free.len() == open.places.len() {
            self.is_wanted.store(false, Ordering::SeqCst);
        }
        Some((open, call))
    }

    /// Whether a reply is to wake this process.
    pub(in crate::executor) fn is_awaited(&self) -> bool {
        self.is_wanted.load(Ordering::SeqCst)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::SeqCst)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Open> {
        lock_soon(&self.open)
    }
}

impl Open {
    /// A place for a call, and the call's number.
    fn place(&mut self) -> (u64, u64) {
        self.made += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            (self.places.len() - 1) as u32
        });
        (token(place, self.places[place as usize].0), self.made)
    }

    fn put(&mut self, token: u64, call: Call) {
        self.places[token as u32 as usize].1 = Some(call);
    }

    pub(super) fn get(&mut self, token: u64) -> Option<&mut Call> {
        let (used, call) = self.places.get_mut(token as u32 as usize)?;
        call.as_mut().filter(|_| *used == (token >> 32) as u32)
    }

    /// `None`: its end is known already, or the token is none of ours.
    pub(super) fn take(&mut self, token: u64) -> Option<Call> {
        self.get(token)?;
        let (used, call) = &mut self.places[token as u32 as usize];
        *used = used.wrapping_add(1);
        self.free.push(token as u32);
        call.take()
    }
}

fn token(place: u32, used: u32) -> u64 {
    u64::from(used) << 32 | u64::from(place)
}

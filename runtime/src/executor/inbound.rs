//! All rings that this process reads, under one lock: whoever waits reads them all.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rdist_scheduler::id::{ActorId, ExecutorId};
use rdist_scheduler::outcome::Death;
use rdist_scheduler::resource::Resources;
use rdist_scheduler::spec::{CallRules, TaskKind, TaskSpec};

use super::direct::{self, Lane, Link, Reply};
use super::outbox::Outbox;
use super::process::Process;
use rkyv::api::high::{HighDeserializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Error;
use rkyv::{Archive, Deserialize};

use crate::ring::{Bell, Corrupt, Receiver, RingPair};
use crate::wire::direct::{DirectCall, DirectReply, split};
use crate::wire::executor::{MAX_BODY_BYTES, MAX_INLINE_BYTES, ToExecutor};
use crate::wire::{self, Malformed};

/// Most frames read from one executor before the others have their turn.
const FRAMES_PER_TURN: usize = 256;

/// The rings' receiving ends.
#[derive(Debug)]
pub(super) struct Inbound {
    worker: Receiver,
    callers: Vec<Caller>,
    callees: Vec<Callee>,
    /// The last fence that the worker has set.
    fence: u64,
}

/// An executor that calls actors in this one.
#[derive(Debug)]
struct Caller {
    executor: ExecutorId,
    receiver: Receiver,
    replies: Arc<Outbox>,
    /// Its next call comes after that fence.
    after: u64,
    /// What it gives by leases.
    lane: Arc<Lane>,
}

/// An executor in which this one calls actors.
#[derive(Debug)]
struct Callee {
    executor: ExecutorId,
    receiver: Receiver,
    link: Arc<Link>,
}

impl Inbound {
    pub(super) fn new(worker: Receiver) -> Self {
        Self { worker, callers: Vec::new(), callees: Vec::new(), fence: 0 }
    }

    /// Announces a sleep on all rings; false: frames are there, do not sleep.
    pub(super) fn announce_sleep(&mut self) -> bool {
        let mut is_empty = self.worker.announce_sleep();
        for caller in &mut self.callers {
            is_empty = is_empty && caller.receiver.announce_sleep();
            is_empty = is_empty && caller.replies.announce_wait();
        }
        for callee in &mut self.callees {
            is_empty = is_empty && callee.link.outbox.announce_wait();
            if is_empty && callee.link.is_awaited() {
                is_empty = callee.receiver.announce_sleep();
            }
        }
        is_empty
    }

    /// Takes the announcements back.
    pub(super) fn awake(&mut self) {
        self.worker.awake();
        self.callers.iter_mut().for_each(|caller| caller.receiver.awake());
        self.callees.iter_mut().for_each(|callee| callee.receiver.awake());
    }
}

impl Process {
    /// Handles all frames that have arrived; whether there was any, or a backlog shrank.
    pub(super) fn read_all(&'static self, inbound: &mut Inbound) -> bool {
        let mut moved = self.read_worker(inbound);
        for at in 0..inbound.callers.len() {
            moved |= self.read_caller(inbound, at);
        }
        // A fence that a call has to wait for was set before the call was sent.
        while inbound.callers.iter().any(|caller| caller.after > inbound.fence)
            && self.read_worker(inbound)
        {
            moved = true;
            for at in 0..inbound.callers.len() {
                self.read_caller(inbound, at);
            }
        }
        for at in 0..inbound.callees.len() {
            moved |= self.read_callee(inbound, at);
        }
        moved
    }

    fn read_worker(&'static self, inbound: &mut Inbound) -> bool {
        let mut moved = false;
        loop {
            let message = match inbound.worker.try_recv() {
                Ok(Some(frame)) => wire::decode::<ToExecutor>(frame),
                Ok(None) => return moved,
                Err(corrupt) => super::abandon(&corrupt.to_string()),
            };
            match message {
                Ok(message) => self.worker_says(inbound, message),
                Err(malformed) => super::abandon(&format!("from the worker came a {malformed}")),
            }
            moved = true;
        }
    }

    fn worker_says(&'static self, inbound: &mut Inbound, message: ToExecutor) {
        match message {
            ToExecutor::Fence { number, caller } => {
                self.attach_caller(inbound, caller);
                inbound.fence = number;
            }
            ToExecutor::Route { actor, granted } => self.route(inbound, actor, granted),
            ToExecutor::RouteEnded { actor, death } => {
                self.read_callees(inbound);
                self.route_ended(actor, &death);
            }
            ToExecutor::Made(object) => self.made(object),
            ToExecutor::LinkEnded { peer, death } => self.link_ended(inbound, peer, &death),
            ToExecutor::Lease { granted } => {
                let granted = granted
                    .map(|(host, fence, number)| (self.callee(inbound, host), fence, number));
                self.lease_answered(granted);
            }
            ToExecutor::EndLease { caller, number, how } => {
                let at = inbound.callers.iter().find(|other| other.executor == caller);
                if let Some(caller) = at {
                    caller.lane.end(self, number, how);
                }
            }
            // What it names may have come directly, and before.
            ToExecutor::Cancel(task) if !self.running.contains_key(&task) => {
                (0..inbound.callers.len()).for_each(|at| self.read_written(inbound, at));
                self.handle(message);
            }
            message => self.handle(message),
        }
    }

    fn attach_caller(&'static self, inbound: &mut Inbound, executor: ExecutorId) {
        if inbound.callers.iter().any(|caller| caller.executor == executor) {
            return;
        }
        let (sender, receiver) = self.attach(executor, false);
        let replies = Arc::new(Outbox::new(sender));
        inbound.callers.push(Caller {
            executor,
            receiver,
            replies,
            after: 0,
            lane: Lane::new(executor),
        });
    }

    /// The link to an executor, made where it is not there.
    fn callee(&'static self, inbound: &mut Inbound, executor: ExecutorId) -> Arc<Link> {
        self.link_to(executor).unwrap_or_else(|| {
            let (sender, receiver) = self.attach(executor, true);
            let link = self.add_link(executor, Outbox::new(sender));
            inbound.callees.push(Callee { executor, receiver, link: link.clone() });
            link
        })
    }

    fn route(
        &'static self,
        inbound: &mut Inbound,
        actor: ActorId,
        granted: Option<(ExecutorId, u64)>,
    ) {
        let link = granted.map(|(executor, fence)| (self.callee(inbound, executor), fence));
        self.route_answered(actor, link);
    }

    /// The rings that the worker has made for this process and another one.
    fn attach(&self, peer: ExecutorId, is_caller: bool) -> (crate::ring::Sender, Receiver) {
        let link = self.segments.take_link(peer, is_caller).map_err(|error| error.to_string());
        let attached = link.and_then(|(ring_bytes, fds)| {
            let Ok([memory, bell]) = <[OwnedFd; 2]>::try_from(fds) else {
                return Err("they came without their descriptors".to_owned());
            };
            let rings = RingPair::attach_between(memory, ring_bytes, is_caller);
            let rings = rings.map_err(|error| error.to_string())?;
            Ok(rings.split(Arc::new(Bell::from_fd(bell))))
        });
        match attached {
            Ok(ends) => ends,
            Err(reason) => super::abandon(&format!("no rings with {peer}: {reason}")),
        }
    }

    /// Reads calls, as far as the fence allows.
    fn read_caller(&'static self, inbound: &mut Inbound, at: usize) -> bool {
        let Inbound { callers, fence, .. } = inbound;
        let Caller { executor, receiver, replies, after, lane } = &mut callers[at];
        let mut moved = replies.behind() > 0 && replies.flush();
        for _ in 0..FRAMES_PER_TURN {
            if *after > *fence {
                break;
            }
            match unwrap::<DirectCall>(receiver.try_recv()) {
                Some((_, DirectCall::After(number))) => *after = number,
                Some((token, call)) => {
                    let outbox = replies.clone();
                    self.called(lane, call, Reply { caller: *executor, token, outbox });
                }
                None => break,
            }
            moved = true;
        }
        moved
    }

    /// Reads the calls that are there now, and no end of those that come meanwhile.
    fn read_written(&'static self, inbound: &mut Inbound, at: usize) {
        // A ring with noise in it says so to whoever reads it.
        let written = inbound.callers[at].receiver.written().unwrap_or(u64::MAX);
        while !inbound.callers[at].receiver.has_read(written) && self.read_caller(inbound, at) {}
    }

    fn called(&'static self, lane: &Arc<Lane>, call: DirectCall, reply: Reply) {
        let (id, parent, (actor, owner), function, body) = match call {
            DirectCall::After(_) => return,
            DirectCall::Call { id, parent, actor, function, body } => {
                (id, parent, actor, function, body)
            }
            DirectCall::Run { id, parent, lease, function, max_retries, body } => {
                if body.len() > MAX_BODY_BYTES || id.job() != parent.job() {
                    super::abandon(&format!("{} sent an impossible task", reply.caller));
                }
                let request = Resources::cpus(1.0);
                let plain = TaskSpec::plain(id, parent);
                let spec = TaskSpec { function, request, max_retries, body, ..plain };
                return lane.arrived(self, lease, spec, reply);
            }
        };
        if body.len() > MAX_BODY_BYTES || id.job() != actor.0.job() {
            super::abandon(&format!("{} sent an impossible call of {actor}", reply.caller));
        }
        let rules = CallRules::default();
        let kind = TaskKind::ActorCall { actor, actor_owner: owner, rules };
        let spec = TaskSpec { kind, function, body, ..TaskSpec::plain(id, parent) };
        direct::accept(self, actor, spec, reply);
    }

    /// Reads replies.
    fn read_callee(&'static self, inbound: &mut Inbound, at: usize) -> bool {
        let Callee { receiver, link, .. } = &mut inbound.callees[at];
        let mut moved = link.outbox.behind() > 0 && link.outbox.flush();
        while let Some((token, reply)) = unwrap::<DirectReply>(receiver.try_recv()) {
            if matches!(&reply, DirectReply::Value(bytes) | DirectReply::Ran { value: bytes, .. }
                if bytes.len() > MAX_INLINE_BYTES)
            {
                super::abandon("an executor replied with more bytes than fit into a reply");
            }
            self.replied(link, token, reply);
            moved = true;
        }
        moved
    }

    fn read_callees(&'static self, inbound: &mut Inbound) {
        for at in 0..inbound.callees.len() {
            self.read_callee(inbound, at);
        }
    }

    /// The executor has ended: what it has sent counts.
    fn link_ended(&'static self, inbound: &mut Inbound, executor: ExecutorId, death: &Death) {
        if let Some(at) = inbound.callees.iter().position(|other| other.executor == executor) {
            self.read_callee(inbound, at);
            inbound.callees.swap_remove(at);
            self.remove_link(executor, death);
        }
        if let Some(at) = inbound.callers.iter().position(|other| other.executor == executor) {
            while self.read_caller(inbound, at) {}
            inbound.callers.swap_remove(at);
        }
    }
}

/// A frame of another executor. One that writes nonsense is of this process's job, and what was
/// called cannot be told any longer.
fn unwrap<T>(frame: Result<Option<&[u8]>, Corrupt>) -> Option<(u64, T)>
where
    T: Archive,
    T::Archived:
        for<'a> CheckBytes<HighValidator<'a, Error>> + Deserialize<T, HighDeserializer<Error>>,
{
    let decode = |frame| -> Result<(u64, T), Malformed> {
        let (token, message) = split(frame)?;
        Ok((token, wire::decode(message)?))
    };
    match frame.map(|frame| frame.map(decode)) {
        Ok(None) => None,
        Ok(Some(Ok(message))) => Some(message),
        Ok(Some(Err(malformed))) => {
            super::abandon(&format!("from another executor of the job came a {malformed}"))
        }
        Err(corrupt) => super::abandon(&format!("from another executor of the job: {corrupt}")),
    }
}

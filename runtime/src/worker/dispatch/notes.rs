//! What the network thread says: ends of processes, the head, other workers, pulls.

use rdist_scheduler::id::{ExecutorId, ObjectId, WorkerId};
use rdist_scheduler::local::LocalEvent;
use rdist_scheduler::message::{FromHead, PeerMessage, Place};
use rdist_scheduler::outcome::Death;

use super::{Dispatch, End};
use crate::store::{Incoming, Stored};
use crate::wire::cluster::{HeadToWorker, PeerFrame, Registration, WorkerToHead};
use crate::wire::encode;
use crate::wire::executor::{MAX_INLINE_BYTES, ToExecutor};
use crate::worker::inbox::{Note, Served};
use crate::worker::network::Command;

impl Dispatch {
    pub(super) fn note(&mut self, note: Note) {
        match note {
            Note::ExecutorEnded { executor, death } => self.executor_ended(executor, death),
            Note::DriverSilent(executor) => self.farewell(executor),
            Note::HeadFound { fresh: true, meeting } => self.register(meeting),
            Note::HeadFound { fresh: false, .. } => {
                self.tell(LocalEvent::HeadFound { fresh: false })
            }
            Note::HeadLost => self.tell(LocalEvent::HeadLost),
            Note::FromHead(message) => self.head_said(*message),
            Note::FromPeer { from, frame } => self.peer_said(from, *frame),
            Note::Pulled { object, from, block, complete } => {
                self.pulled(object, from, block, complete);
            }
            Note::ObjectWanted { object, reply } => self.serve(object, reply),
            Note::Spilled { object, result } => self.room.written(object, result),
            Note::Restored { object, block, result } => self.restored(object, block, result),
            Note::Stop { drain: false } => self.end = End::Ended,
            Note::Stop { drain: true } => self.drain(),
        }
    }

    /// Its messages that are still in the ring count: they are read before the core hears of the
    /// death.
    fn executor_ended(&mut self, id: ExecutorId, seen: Death) {
        while self.read_frame(id) {}
        self.act();
        if let Some(mut executor) = self.executors.remove(&id) {
            let death = executor.death(seen);
            self.tell(LocalEvent::ExecutorDied { executor: id, death: death.clone() });
            self.act();
            self.end_links(id, &death);
            self.end_reader(id);
            self.arena.executor_died(id);
        }
        self.launches.detaching.retain(|_, (by, _)| *by != id);
        self.farewell(id);
    }

    /// All that the driver printed is on its way to the head: the end of its job may follow.
    fn farewell(&mut self, driver: ExecutorId) {
        if let Some(farewell) = self.launches.farewells.remove(&driver) {
            self.tell_head(farewell);
        }
    }

    fn register(&mut self, meeting: u64) {
        let listens = || self.network.address().to_string();
        let registration = Registration {
            worker: self.worker,
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            pid: std::process::id(),
            address: self.config.advertise.clone().unwrap_or_else(listens),
            total: self.config.resources.clone(),
            labels: self.config.labels.clone(),
            store_bytes: self.config.store_bytes,
            held: self.core.held(),
        };
        let frame = encode(&WorkerToHead::Register(registration)).into_vec();
        self.network.command(Command::Register { meeting, frame });
    }

    fn head_said(&mut self, message: HeadToWorker) {
        match message {
            HeadToWorker::Registered { epoch } => {
                let fresh = self.head_epoch.replace(epoch) != Some(epoch);
                self.reported.forget();
                self.tell(LocalEvent::HeadFound { fresh });
                if fresh {
                    for (_, spec) in self.launches.detaching.values() {
                        self.network.to_head(&WorkerToHead::Detach { spec: spec.clone() });
                    }
                }
                if let Some(waiting) = self.registered.take() {
                    // Whoever started this worker may have stopped waiting.
                    let _ = waiting.send(());
                }
            }
            HeadToWorker::Core { number, message } => {
                if !self.core.is_news(WorkerId::HEAD, number) {
                    return tracing::debug!(number, "the head said something twice");
                }
                if let FromHead::WorkerDied { worker, .. } = &message {
                    self.network.command(Command::PeerGone(*worker));
                }
                if let FromHead::JobEnded { job } = &message {
                    self.jobs.remove(job);
                    self.network.command(Command::JobEnded(*job));
                    self.functions.retain(|(of, _), _| of != job);
                }
                self.tell(LocalEvent::FromHead(message));
            }
            HeadToWorker::Member { worker, address } => {
                self.network.command(Command::Member { worker, address });
            }
            HeadToWorker::Job(info) => {
                if info.weight != 1 {
                    let (job, weight) = (info.job, info.weight);
                    self.tell(LocalEvent::JobWeighed { job, weight });
                }
                if !info.quota.is_none() {
                    let (job, quota) = (info.job, info.quota.clone());
                    self.tell(LocalEvent::JobLimited { job, quota });
                }
                let info = std::sync::Arc::new(info);
                let job = info.job;
                self.jobs.insert(job, info.clone());
                for launch in self.launches.take(job) {
                    self.launch(launch, info.clone());
                }
            }
            HeadToWorker::Detached { task, answer } => {
                if let Some((executor, _)) = self.launches.detaching.remove(&task) {
                    self.send(executor, &ToExecutor::Detached { task, answer });
                }
            }
            HeadToWorker::Query { request, query } => {
                let here = |object| self.here(object);
                let (core, functions) = (&self.core, &self.functions);
                let json =
                    crate::worker::query::answer(self.worker, core, functions, &query, &here);
                self.network.to_head(&WorkerToHead::Answer { request, json });
            }
            HeadToWorker::Drain => self.drain(),
            HeadToWorker::Shutdown => self.end = End::Ended,
            HeadToWorker::GivenUp => self.end = self.end.given_up(),
        }
    }

    fn drain(&mut self) {
        if self.end == End::Running {
            self.end = End::Draining;
            self.tell(LocalEvent::Drain);
        }
    }

    pub(super) fn leave(&mut self) {
        self.network.command(Command::Leave);
        self.end = End::Ended;
    }

    /// Values that the message does not announce are not taken, nor what a lost worker still says:
    /// one that was stopped for a while does not know yet that its work was done elsewhere.
    fn peer_said(&mut self, from: WorkerId, frame: PeerFrame) {
        if self.core.has_lost(from) {
            return tracing::debug!(%from, "late words of a lost worker are dropped");
        }
        if !self.core.is_news(from, frame.number) {
            return tracing::debug!(%from, number = frame.number, "said twice");
        }
        for (object, bytes) in frame.values {
            let announced = match &frame.message {
                PeerMessage::Finished { task, .. } => *task == object.task,
                PeerMessage::Yielded { task, index, value, .. } => {
                    value.inline && *index == object.index() && *task == object.task
                }
                PeerMessage::Located { object: located, place } => {
                    *located == object && *place == Place::Inline
                }
                _ => false,
            };
            if announced && bytes.len() <= MAX_INLINE_BYTES {
                self.keep(object, Stored::Inline(bytes.into()));
            } else {
                tracing::warn!(%from, %object, "a value that no message announced is dropped");
            }
        }
        self.tell(LocalEvent::FromPeer { from, message: frame.message });
    }

    fn pulled(&mut self, object: ObjectId, from: WorkerId, block: Incoming, complete: bool) {
        let block = self.arena.seal(block);
        if complete {
            self.keep(object, Stored::Block(block));
            self.tell(LocalEvent::Pulled { object, size: block.len });
        } else {
            self.free_block(Stored::Block(block));
            self.tell(LocalEvent::PullFailed { object, from });
        }
    }

    /// A value for the network thread to send; the view keeps its block until it is sent.
    pub(super) fn served(&mut self, object: ObjectId) -> Option<Served> {
        match self.table.get(object)? {
            Stored::Inline(bytes) => Some(Served::Inline(bytes.clone())),
            Stored::Block(block) => {
                let view = self.arena.read(*block).ok()?;
                // Without a place the bytes are sent.
                Some(Served::Arena { view, place: self.arena.place(*block).ok() })
            }
            Stored::Spilled { .. } => None,
        }
    }
}

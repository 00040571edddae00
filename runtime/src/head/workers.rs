//! The head's side of workers: who may join, registration, what they say, and their loss.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use rdist_scheduler::cluster::ClusterEvent;
use rdist_scheduler::id::{JobId, WorkerId};
use rdist_scheduler::message::FromHead;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::daemon::{Daemon, Outgoing, now_ms};
use super::record::{Standing, WorkerRecord};
use super::updates::Origin;
use crate::transfer;
use crate::transport::link::LinkEvent;
use crate::transport::quic::close;
use crate::transport::{Connection, Peer, Token, TokenRecord, TokenTerms};
use crate::wire;
use crate::wire::cluster::{
    HeadToWorker, Registration, Said, StreamRequest, WorkerToHead, WorkerUsage,
};
use crate::wire::join::{JoinRefusal, JoinRequest, Role};

/// A worker that has registered.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) registration: Registration,
    /// Where others reach it.
    pub(super) address: String,
    /// Where its packets came from when that was found out.
    remote: Option<IpAddr>,
    pub(super) usage: WorkerUsage,
    /// Jobs that it knows.
    pub(super) told: HashSet<JobId>,
}

impl Daemon {
    pub(super) fn join(
        &mut self,
        request: &JoinRequest,
        renews: Option<WorkerId>,
        reply: oneshot::Sender<Result<Peer, JoinRefusal>>,
    ) {
        match self.admit(request, renews) {
            Ok(peer) => self.outbox.push(Outgoing::Joined { reply, peer }),
            Err(refusal) => {
                tracing::info!(%refusal, "somebody was not let in");
                // The joiner may be gone.
                let _ = reply.send(Err(refusal));
            }
        }
    }

    fn admit(
        &mut self,
        request: &JoinRequest,
        renews: Option<WorkerId>,
    ) -> Result<Peer, JoinRefusal> {
        match (request.token, renews) {
            (Some((id, secret)), _) => {
                let mut record = self.books.tokens().get(&id).cloned().ok_or(JoinRefusal::Wrong)?;
                record.redeem(&secret, request.role, now_ms() / 1_000)?;
                if record.uses_left.is_some() {
                    self.books.put_token(record);
                }
            }
            (None, Some(worker)) if request.role == Role::Worker => {
                let standing = self.books.workers().get(&worker).map(|record| record.standing);
                if matches!(standing, None | Some(Standing::Removed)) {
                    return Err(JoinRefusal::Removed);
                }
                if request.stays {
                    // One that was given up has to come back as somebody else.
                    return match standing {
                        Some(Standing::Gone) => Err(JoinRefusal::Removed),
                        _ => Ok(Peer::Worker(worker)),
                    };
                }
            }
            (None, _) => {
                let reason = "it shows neither a token nor a worker's certificate".to_owned();
                return Err(JoinRefusal::Malformed(reason));
            }
        }
        let mut worker = WorkerId::HEAD;
        if request.role == Role::Worker {
            worker = WorkerId(self.books.count("worker"));
            let standing = Standing::Admitted;
            self.books.put_worker(WorkerRecord { worker, standing, joined_at: now_ms() });
        }
        Ok(Peer::of_role(request.role, worker))
    }

    /// A new token, in the books.
    pub(super) fn make_token(&mut self, terms: TokenTerms) -> Result<Token, getrandom::Error> {
        let cluster = self.authority.fingerprint();
        let (record, token) = TokenRecord::create(cluster, terms, now_ms() / 1_000)?;
        self.books.put_token(record);
        Ok(token)
    }

    pub(super) fn link_event(&mut self, worker: WorkerId, event: LinkEvent) {
        match event {
            LinkEvent::Connected { fresh, connection, .. } => {
                self.connected(worker, fresh, connection);
            }
            LinkEvent::Frame(frame) => match wire::decode::<WorkerToHead>(&frame) {
                Ok(message) => self.worker_message(worker, message),
                Err(error) => {
                    tracing::warn!(%worker, %error, "a worker broke the protocol");
                    self.worker_gone(worker, "it broke the protocol", Standing::Gone);
                }
            },
            LinkEvent::Disconnected { reason, silent } => {
                if !self.sessions.contains_key(&worker) {
                    return;
                }
                tracing::info!(%worker, reason, "the connection to a worker broke");
                // A head that did not run has heard nobody; who lives calls again.
                if silent && !self.stalls.is_recent(Instant::now()) {
                    let reason = format!("it was silent for {:?}", self.dead_after);
                    return self.worker_gone(worker, &reason, Standing::Gone);
                }
                self.missing.insert(worker, Instant::now() + self.dead_after);
            }
            LinkEvent::Unreachable(_) | LinkEvent::Forgotten | LinkEvent::Closed { .. } => {}
        }
    }

    fn connected(&mut self, worker: WorkerId, fresh: bool, connection: Connection) {
        let standing = self.books.workers().get(&worker).map(|record| record.standing);
        if !standing.is_some_and(Standing::is_welcome) {
            // One that nobody has removed may come back as somebody else.
            let (message, what) = match standing {
                Some(Standing::Gone) => (HeadToWorker::GivenUp, "that was given up"),
                Some(Standing::Removed) => (HeadToWorker::Shutdown, "that somebody has removed"),
                _ => (HeadToWorker::Shutdown, "that nobody has let in"),
            };
            tracing::info!(%worker, "a worker {what} came back");
            self.outbox.push(Outgoing::Worker { to: worker, message });
            self.outbox.push(Outgoing::Forget(worker));
            return;
        }
        if fresh && self.sessions.contains_key(&worker) {
            // It lost what was told to it, so that the two views no longer agree.
            self.worker_gone(worker, "it lost its memory of the head", Standing::Gone);
            return;
        }
        if self.sessions.contains_key(&worker) {
            self.missing.remove(&worker);
        }
        self.connections.insert(worker, connection.clone());
        tokio::spawn(serve_blobs(connection, self.blobs.clone()));
    }

    fn worker_message(&mut self, worker: WorkerId, message: WorkerToHead) {
        if let WorkerToHead::Register(registration) = message {
            return self.register(worker, registration);
        }
        if !self.sessions.contains_key(&worker) {
            // Last words of a worker that was given up, or logs from before its registration.
            if let WorkerToHead::Said { number, said: said @ Said::Output(_) } = message {
                self.told_by(Origin { worker, number }, said);
            }
            return;
        }
        match message {
            WorkerToHead::Register(_) => {}
            WorkerToHead::Core { number, message } => {
                if self.core.is_news(worker, number) {
                    self.tell(ClusterEvent::FromWorker { from: worker, message });
                }
            }
            WorkerToHead::JobWanted(job) => self.send_job(worker, job),
            WorkerToHead::Said { number, said } => self.told_by(Origin { worker, number }, said),
            WorkerToHead::Detach { spec } => self.detach(worker, spec),
            WorkerToHead::Answer { request, json } => self.query_answered(worker, request, &json),
            WorkerToHead::Usage(usage) => {
                if let Some(session) = self.sessions.get_mut(&worker) {
                    session.usage = usage;
                }
            }
            WorkerToHead::Leaving { told } => {
                if told {
                    self.tell(ClusterEvent::WorkerLeft { worker });
                }
                self.worker_gone(worker, "it left", Standing::Gone);
            }
        }
    }

    fn register(&mut self, worker: WorkerId, mut registration: Registration) {
        let known = self.books.workers().get(&worker).cloned();
        let Some(record) =
            known.filter(|record| registration.worker == worker && record.standing.is_welcome())
        else {
            tracing::warn!(%worker, "a worker registered that may not");
            return self.worker_gone(worker, "it registered as somebody else", Standing::Gone);
        };
        let is_draining = record.standing == Standing::Draining;
        if record.standing == Standing::Admitted {
            self.books.put_worker(WorkerRecord { standing: Standing::Member, ..record });
        }
        self.missing.remove(&worker);
        let remote = self.remote(worker);
        let address = reachable(&registration.address, remote);
        tracing::info!(%worker, host = registration.host, address, "a worker registered");
        let to = worker;
        let epoch = self.epoch;
        self.outbox.push(Outgoing::Worker { to, message: HeadToWorker::Registered { epoch } });
        if is_draining && !registration.held.draining {
            // The head that was asked for that ended before the worker heard of it.
            registration.held.draining = true;
            self.outbox.push(Outgoing::Worker { to, message: HeadToWorker::Drain });
        }
        for (other, session) in &self.sessions {
            if *other == worker {
                continue;
            }
            let there = HeadToWorker::Member { worker: *other, address: session.address.clone() };
            let here = HeadToWorker::Member { worker, address: address.clone() };
            self.outbox.push(Outgoing::Worker { to: worker, message: there });
            self.outbox.push(Outgoing::Worker { to: *other, message: here });
        }
        let event = ClusterEvent::WorkerJoined {
            worker,
            total: registration.total.clone(),
            labels: registration.labels.clone(),
            held: registration.held.clone(),
        };
        let (usage, told) = (WorkerUsage::default(), HashSet::new());
        self.sessions.insert(worker, Session { registration, address, remote, usage, told });
        self.tell(event);
    }

    fn remote(&self, worker: WorkerId) -> Option<IpAddr> {
        self.connections.get(&worker).map(|connection| connection.remote_address().ip())
    }

    /// A worker whose packets come from elsewhere, as its connection has migrated or is another
    /// one, is reached there from now on.
    pub(super) fn notice_moves(&mut self) {
        let moved = self.sessions.iter().filter_map(|(worker, session)| {
            let remote = self.remote(*worker).filter(|remote| session.remote != Some(*remote))?;
            Some((*worker, remote))
        });
        for (worker, remote) in Vec::from_iter(moved) {
            let Some(session) = self.sessions.get_mut(&worker) else { continue };
            session.remote = Some(remote);
            let address = reachable(&session.registration.address, Some(remote));
            if address == session.address {
                continue;
            }
            tracing::info!(%worker, address, "a worker has moved");
            session.address.clone_from(&address);
            for to in self.sessions.keys().copied().filter(|other| *other != worker) {
                let message = HeadToWorker::Member { worker, address: address.clone() };
                self.outbox.push(Outgoing::Worker { to, message });
            }
        }
    }

    /// A worker is gone for good, whatever the reason: its id never comes back.
    pub(super) fn worker_gone(&mut self, worker: WorkerId, reason: &str, standing: Standing) {
        tracing::info!(%worker, reason, "a worker is gone");
        self.missing.remove(&worker);
        self.sessions.remove(&worker);
        self.connections.remove(&worker);
        // Removed stays removed, whatever its last words were.
        if let Some(record) = self.books.workers().get(&worker)
            && record.standing != Standing::Removed
        {
            let record = WorkerRecord { standing, ..record.clone() };
            self.books.put_worker(record);
        }
        self.outbox.push(Outgoing::Worker { to: worker, message: HeadToWorker::Shutdown });
        self.outbox.push(Outgoing::Forget(worker));
        self.query_lost(worker);
        self.tell(ClusterEvent::WorkerLost { worker, reason: reason.to_owned() });
    }

    /// A message of the core; the jobs that it speaks of are told first.
    pub(super) fn core_message(&mut self, to: WorkerId, message: FromHead) {
        if let FromHead::Assigned(assignments) = &message {
            let jobs: HashSet<JobId> = assignments.iter().map(|one| one.spec.id.job()).collect();
            for job in jobs {
                if self.told(to).is_some_and(|told| !told.contains(&job)) {
                    self.send_job(to, job);
                }
            }
        }
        self.said += 1;
        let message = HeadToWorker::Core { number: self.said, message };
        self.outbox.push(Outgoing::Worker { to, message });
    }

    fn send_job(&mut self, to: WorkerId, job: JobId) {
        let Some(record) = self.books.jobs().get(&job) else { return };
        let message = HeadToWorker::Job(record.info.clone());
        if let Some(told) = self.told(to) {
            told.insert(job);
        }
        self.outbox.push(Outgoing::Worker { to, message });
    }
}

/// Where others reach a worker that listens on all its addresses: where its packets come from.
fn reachable(address: &str, remote: Option<IpAddr>) -> String {
    match (address.parse::<SocketAddr>(), remote) {
        (Ok(listen), Some(remote)) if listen.ip().is_unspecified() => {
            SocketAddr::new(remote, listen.port()).to_string()
        }
        _ => address.to_owned(),
    }
}

/// Answers a worker's requests for blobs, as long as the connection lives.
async fn serve_blobs(connection: Connection, blobs: super::blobs::Blobs) {
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        let blobs = blobs.clone();
        let peer = connection.peer();
        let connection = connection.clone();
        tokio::spawn(async move {
            let served = match transfer::read_request(&mut receive).await {
                Ok(StreamRequest::Blob(hash)) if blobs.has(&hash) => {
                    transfer::serve_file(&mut send, &blobs.path(&hash)).await
                }
                Ok(_) => transfer::serve_nothing(&mut send).await,
                Err(error) => {
                    tracing::warn!(%peer, %error, "a worker asked for nothing sensible");
                    return connection.close(close::VIOLATION, "no request");
                }
            };
            if let Err(error) = served {
                tracing::debug!(%peer, %error, "a blob was not fetched whole");
            }
        });
    }
}

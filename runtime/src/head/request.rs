//! The head's side of clients: their streams, who may ask what, and the answers.

use std::sync::Arc;

use rdist_scheduler::cluster::ClusterEvent;
use rdist_scheduler::id::{JobId, WorkerId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::blobs::Blobs;
use super::daemon::{Answer, Daemon, Ending, Input, Outgoing};
use super::record::{Standing, WorkerRecord};
use crate::transport::quic::close;
use crate::transport::{Connection, Peer, TokenTerms, frame};
use crate::wire::PROTOCOL_VERSION;
use crate::wire::client::{
    ClientRefusal, ClientReply, ClientRequest, ClusterStatus, MAX_REQUEST_BYTES, TokenStatus,
    WorkerStatus,
};
use crate::wire::cluster::HeadToWorker;

/// What every client's stream needs.
#[derive(Clone)]
pub(super) struct Clients {
    pub(super) inputs: mpsc::UnboundedSender<Input>,
    pub(super) blobs: Blobs,
    /// One permit for each request under way.
    pub(super) requests: Arc<Semaphore>,
}

impl Clients {
    /// Serves a client for as long as its connection lives.
    pub(super) async fn serve(self, connection: Connection) {
        while let Ok((send, receive)) = connection.accept_bi().await {
            let (connection, shared) = (connection.clone(), self.clone());
            tokio::spawn(async move {
                let Ok(permit) = shared.requests.clone().acquire_owned().await else { return };
                let stream = ClientStream { connection, send, receive, shared };
                stream.serve(permit).await;
            });
        }
    }
}

struct ClientStream {
    connection: Connection,
    send: quinn::SendStream,
    receive: quinn::RecvStream,
    shared: Clients,
}

impl ClientStream {
    async fn serve(mut self, permit: OwnedSemaphorePermit) {
        let request = match frame::read(&mut self.receive, MAX_REQUEST_BYTES).await {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(frame::ReadError::Broken(_)) => return,
            Err(error) => {
                let refusal = ClientRefusal::Malformed(error.to_string());
                self.reply(&ClientReply::Refused(refusal)).await;
                return self.connection.close(close::VIOLATION, "no request");
            }
        };
        match self.answer(request).await {
            Answer::Reply(reply) => self.reply(&reply).await,
            Answer::Watch(watcher) => {
                if frame::write(&mut self.send, &ClientReply::Watching).await.is_err() {
                    return;
                }
                // Watching may last for ever, and ends when the head does.
                drop(permit);
                if let Err(error) = watcher.run(&mut self.send).await {
                    tracing::debug!(%error, "a watcher ended early");
                    // The client sees a broken stream instead of a whole one.
                    let _ = self.send.reset(close::VIOLATION.into());
                    return;
                }
                let _ = self.send.finish();
            }
        }
    }

    async fn answer(&mut self, request: ClientRequest) -> Answer {
        let refused = |refusal| Answer::Reply(ClientReply::Refused(refusal));
        if self.connection.peer() != Peer::Client && request.changes() {
            return refused(ClientRefusal::ReadOnly);
        }
        if let ClientRequest::Upload(blobs) = request {
            return match self.shared.blobs.receive(&mut self.receive, &blobs).await {
                Ok(()) => Answer::Reply(ClientReply::Done),
                Err(refusal) => refused(refusal),
            };
        }
        let (reply, answer) = oneshot::channel();
        if self.shared.inputs.send(Input::Request { request, reply }).is_err() {
            return refused(ClientRefusal::Ending);
        }
        answer.await.unwrap_or_else(|_| refused(ClientRefusal::Ending))
    }

    /// The client may be gone.
    async fn reply(&mut self, reply: &ClientReply) {
        if frame::write(&mut self.send, reply).await.is_ok() {
            let _ = self.send.finish();
            // Until it has arrived: the connection may be closed right after.
            let _ = self.send.stopped().await;
        }
    }
}

impl Daemon {
    pub(super) fn request(&mut self, request: ClientRequest, reply: oneshot::Sender<Answer>) {
        let answer = match request {
            ClientRequest::List { what, limit } => return self.list(what, limit, reply),
            ClientRequest::Explain(id) => return self.explain(id, reply),
            ClientRequest::Watch { job, from_start } => match self.watch(job, from_start) {
                Ok(watcher) => Answer::Watch(watcher),
                Err(refusal) => Answer::Reply(ClientReply::Refused(refusal)),
            },
            other => Answer::Reply(self.answer(other)),
        };
        self.outbox.push(Outgoing::Answer { reply, answer });
    }

    fn answer(&mut self, request: ClientRequest) -> ClientReply {
        match request {
            ClientRequest::Lacking(blobs) => ClientReply::Lacking(self.blobs.lacking(&blobs)),
            ClientRequest::Submit(submission) => self.submit(submission),
            ClientRequest::Jobs => {
                ClientReply::Jobs(self.books.jobs().values().map(|job| job.status()).collect())
            }
            ClientRequest::Status => ClientReply::Status(self.status()),
            ClientRequest::StopJob(job) => self.stop_job(job),
            ClientRequest::DrainWorker(worker) => self.drain(worker),
            ClientRequest::RemoveWorker(worker) => self.remove(worker),
            ClientRequest::Shutdown { workers } => self.shutdown(workers),
            ClientRequest::TokenCreate { role, ttl_seconds, uses } => {
                match self.make_token(TokenTerms { role, ttl_seconds, uses }) {
                    Ok(token) => ClientReply::Token(token.to_string()),
                    Err(error) => {
                        ClientReply::Refused(ClientRefusal::HeadFailed(error.to_string()))
                    }
                }
            }
            ClientRequest::TokenList => ClientReply::Tokens(self.tokens()),
            ClientRequest::TokenRevoke(id) => self.revoke(id),
            // Answered by the client's stream and by `request`.
            ClientRequest::Upload(_)
            | ClientRequest::List { .. }
            | ClientRequest::Explain(_)
            | ClientRequest::Watch { .. } => {
                ClientReply::Refused(ClientRefusal::Malformed("out of place".to_owned()))
            }
        }
    }

    fn status(&self) -> ClusterStatus {
        let active = self.books.jobs().values().filter(|job| !job.state.is_ended()).count();
        ClusterStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL_VERSION,
            address: self.address.clone(),
            pid: std::process::id(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            epoch: self.epoch,
            workers: self.worker_statuses(),
            active_jobs: u32::try_from(active).unwrap_or(u32::MAX),
            jobs: u32::try_from(self.books.jobs().len()).unwrap_or(u32::MAX),
            waiting_tasks: self.core.waiting() as u64,
        }
    }

    pub(super) fn worker_statuses(&self) -> Vec<WorkerStatus> {
        let of = |view: rdist_scheduler::cluster::WorkerView| {
            let session = self.sessions.get(&view.worker)?;
            Some(WorkerStatus {
                worker: view.worker,
                host: session.registration.host.clone(),
                pid: session.registration.pid,
                address: session.address.clone(),
                total: view.total,
                available: view.available,
                labels: view.labels,
                store_bytes: session.registration.store_bytes,
                usage: session.usage.clone(),
                connected: !self.missing.contains_key(&view.worker),
                draining: view.draining,
                placed: view.placed as u64,
                backlog: view.backlog,
            })
        };
        self.core.workers().filter_map(of).collect()
    }

    fn drain(&mut self, worker: WorkerId) -> ClientReply {
        let known = self.books.workers().get(&worker);
        let Some(record) = known.filter(|_| self.sessions.contains_key(&worker)) else {
            return ClientReply::Refused(ClientRefusal::NoWorker(worker));
        };
        // It holds from this answer on, also when this head ends before the worker hears of it.
        self.books.put_worker(WorkerRecord { standing: Standing::Draining, ..record.clone() });
        self.outbox.push(Outgoing::Worker { to: worker, message: HeadToWorker::Drain });
        self.tell(ClusterEvent::WorkerDraining { worker });
        ClientReply::Done
    }

    fn remove(&mut self, worker: WorkerId) -> ClientReply {
        if !self.books.workers().contains_key(&worker) {
            return ClientReply::Refused(ClientRefusal::NoWorker(worker));
        }
        self.worker_gone(worker, "it was removed", Standing::Removed);
        ClientReply::Done
    }

    fn shutdown(&mut self, workers: bool) -> ClientReply {
        if workers {
            let active = self.books.jobs().values().filter(|job| !job.state.is_ended());
            let active: Vec<JobId> = active.map(|job| job.info.job).collect();
            for job in active {
                self.tell(ClusterEvent::JobStopRequested { job });
            }
            let members: Vec<WorkerId> = self.sessions.keys().copied().collect();
            for worker in members {
                self.worker_gone(worker, "the cluster ends", Standing::Gone);
            }
        }
        self.ending = Some(Ending::Clean);
        ClientReply::Done
    }

    fn tokens(&self) -> Vec<TokenStatus> {
        let status = |token: &crate::transport::TokenRecord| TokenStatus {
            id: token.id,
            role: token.role,
            created_at: token.created_at,
            expires_at: token.expires_at,
            uses_left: token.uses_left,
            revoked: token.revoked,
        };
        self.books.tokens().values().map(status).collect()
    }

    fn revoke(&mut self, id: u64) -> ClientReply {
        let Some(mut record) = self.books.tokens().get(&id).cloned() else {
            return ClientReply::Refused(ClientRefusal::NoToken(id));
        };
        record.revoked = true;
        self.books.put_token(record);
        ClientReply::Done
    }
}

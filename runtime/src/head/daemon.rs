//! The head's loop: inputs to the core, the core's actions to the books and to the outbox, one
//! flush, then the outbox.
//!
//! A turn takes everything that waits. Nothing leaves the head before the records that it follows
//! from are durable (**HD-1**): all that is sent goes through [`Daemon::outbox`], which is emptied
//! after the flush. So one flush serves all that a turn brought.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdist_scheduler::cluster::{ClusterAction, ClusterConfig, ClusterCore, ClusterEvent};
use rdist_scheduler::id::{JobId, TaskId, WorkerId};
use rdist_scheduler::time::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::blobs::Blobs;
use super::journal::{Books, JournalError, NameRecord};
use super::query::PendingQuery;
use super::record::Standing;
use super::stalls::Stalls;
use super::updates::{Origin, UpdateFile, Watcher};
use super::workers::Session;
use crate::config::Home;
use crate::transport::link::{Caller, LinkEvent, LinkServer};
use crate::transport::{Authority, Connection, Peer};
use crate::wire;
use crate::wire::client::{ClientRefusal, ClientReply, ClientRequest, JobUpdate};
use crate::wire::cluster::HeadToWorker;
use crate::wire::join::{JoinRefusal, JoinRequest};

/// Most inputs in one turn.
const TURN_INPUTS: usize = 1_024;

/// What comes to the head.
pub(super) enum Input {
    /// Somebody wants a certificate; a worker with one shows it.
    Join {
        request: JoinRequest,
        renews: Option<WorkerId>,
        reply: oneshot::Sender<Result<Peer, JoinRefusal>>,
    },
    /// A worker opened its link.
    Caller(Caller),
    /// Something happened on a worker's link.
    Link(Peer, LinkEvent),
    /// A client asks.
    Request { request: ClientRequest, reply: oneshot::Sender<Answer> },
    /// End in good order.
    End,
    /// Stop as if the power had failed.
    Abort,
}

/// What a client's stream gets.
pub(super) enum Answer {
    /// This.
    Reply(ClientReply),
    /// A job's updates.
    Watch(Watcher),
}

/// What leaves the head after the flush.
pub(super) enum Outgoing {
    Worker { to: WorkerId, message: HeadToWorker },
    Forget(WorkerId),
    Update { job: JobId, update: JobUpdate, origin: Option<Origin> },
    JobEnded(JobId),
    Answer { reply: oneshot::Sender<Answer>, answer: Answer },
    Joined { reply: oneshot::Sender<Result<Peer, JoinRefusal>>, peer: Peer },
}

/// How the head is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// In good order; its files are removed.
    Clean,
    /// As if the power had failed.
    Abort,
}

/// The head's state.
pub(super) struct Daemon {
    pub(super) home: Home,
    pub(super) address: String,
    pub(super) authority: Arc<Authority>,
    pub(super) books: Books,
    pub(super) core: ClusterCore,
    pub(super) links: LinkServer,
    pub(super) sessions: BTreeMap<WorkerId, Session>,
    /// Workers' connections, the last of each.
    pub(super) connections: BTreeMap<WorkerId, Connection>,
    /// When it is time to see whether workers have moved.
    pub(super) next_moves: Instant,
    pub(super) blobs: Blobs,
    pub(super) updates: HashMap<JobId, UpdateFile>,
    pub(super) updates_folder: PathBuf,
    pub(super) queries: BTreeMap<u64, PendingQuery>,
    pub(super) next_query: u64,
    /// Detached actors without a name, by their jobs: who asked, and by which task.
    pub(super) detaching: HashMap<JobId, (WorkerId, TaskId)>,
    pub(super) outbox: Vec<Outgoing>,
    pub(super) ending: Option<Ending>,
    pub(super) dead_after: Duration,
    pub(super) kept_jobs: usize,
    pub(super) epoch: u64,
    /// Number of the core's last message to a worker.
    pub(super) said: u64,
    pub(super) started: Instant,
    pub(super) stalls: Stalls,
    /// Workers without a connection, and when they are lost.
    pub(super) missing: BTreeMap<WorkerId, Instant>,
    pub(super) home_token: Option<u64>,
}

/// A head says fewer than two to the power of this many messages.
const MESSAGE_BITS: u32 = 40;

/// What the daemon is made of.
pub(super) struct Parts {
    pub(super) home: Home,
    pub(super) address: String,
    pub(super) authority: Arc<Authority>,
    pub(super) books: Books,
    pub(super) links: LinkServer,
    pub(super) dead_after: Duration,
    pub(super) kept_jobs: usize,
    pub(super) epoch: u64,
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Daemon {
    pub(super) fn new(parts: Parts) -> Self {
        // Workers of a head that was killed notice that within `dead_after`, then dial again.
        let grace = parts.dead_after * 2 + Duration::from_secs(2);
        let config =
            ClusterConfig { recovery_grace: grace, seed: parts.epoch, ..Default::default() };
        let started = Instant::now();
        let members = parts.books.workers().values().filter(|worker| worker.standing.takes_part());
        let missing = members.map(|worker| (worker.worker, started + grace)).collect();
        Self {
            blobs: Blobs::at(parts.home.blobs()),
            updates_folder: parts.home.head().join("jobs"),
            home: parts.home,
            address: parts.address,
            authority: parts.authority,
            books: parts.books,
            core: ClusterCore::new(config),
            links: parts.links,
            sessions: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_moves: started + parts.dead_after,
            updates: HashMap::new(),
            queries: BTreeMap::new(),
            next_query: 1,
            detaching: HashMap::new(),
            outbox: Vec::new(),
            ending: None,
            dead_after: parts.dead_after,
            kept_jobs: parts.kept_jobs,
            epoch: parts.epoch,
            // Above all that the heads before it have said.
            said: parts.epoch << MESSAGE_BITS,
            started,
            stalls: Stalls::new(started, parts.dead_after),
            missing,
            home_token: None,
        }
    }

    /// Runs until the head ends.
    pub(super) async fn run(
        mut self,
        mut inputs: mpsc::UnboundedReceiver<Input>,
    ) -> Result<Ending, JournalError> {
        self.restore();
        self.forget_old_jobs();
        loop {
            self.finish_turn()?;
            if let Some(ending) = self.ending {
                self.end(ending).await?;
                return Ok(ending);
            }
            let due = self.next_timeout();
            tokio::select! {
                input = inputs.recv() => {
                    self.notice_stall();
                    self.take(input.unwrap_or(Input::End));
                    for _ in 1..TURN_INPUTS {
                        let Ok(input) = inputs.try_recv() else { break };
                        self.take(input);
                    }
                }
                () = async {
                    match due {
                        Some(at) => tokio::time::sleep_until(at).await,
                        None => core::future::pending().await,
                    }
                } => {}
                () = self.stalls.next_look() => {}
            }
            self.notice_stall();
            self.timeouts();
        }
    }

    /// Tells the core what the books know from an earlier life.
    fn restore(&mut self) {
        let active = self.books.jobs().values().filter(|job| !job.state.is_ended());
        let jobs: Vec<_> = active.map(|job| (job.info.job, job.driver(), job.attempt)).collect();
        let active = self.books.jobs().values().filter(|job| !job.state.is_ended());
        let rules = active.map(|job| (job.info.job, job.info.weight, job.info.quota.clone()));
        let rules: Vec<_> = rules.collect();
        let workers: Vec<_> = self.missing.keys().copied().collect();
        let names = self.books.names().iter();
        let names = names.map(|(name, by)| (name.clone(), by.actor, by.owner)).collect();
        if jobs.is_empty() && workers.is_empty() {
            return;
        }
        tracing::info!(jobs = jobs.len(), workers = workers.len(), "going on from an earlier life");
        for (job, weight, quota) in rules {
            self.tell_rules(job, weight, quota);
        }
        self.tell(ClusterEvent::Restored { jobs, workers, names });
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Join { request, renews, reply } => self.join(&request, renews, reply),
            Input::Caller(caller) => {
                self.links.attach(caller);
            }
            Input::Link(Peer::Worker(worker), event) => self.link_event(worker, event),
            Input::Link(peer, _) => tracing::warn!(%peer, "a link that no worker opened"),
            Input::Request { request, reply } => self.request(request, reply),
            Input::End => self.ending = Some(Ending::Clean),
            Input::Abort => self.ending = Some(Ending::Abort),
        }
    }

    /// While this process did not run, nobody could be heard: everybody gets that time on top.
    fn notice_stall(&mut self) {
        if let Some(stall) = self.stalls.look(Instant::now()) {
            tracing::warn!(?stall, "the head did not run for a while; workers are given time");
            self.missing.values_mut().for_each(|at| *at += stall);
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::default() + self.started.elapsed()
    }

    pub(super) fn tell(&mut self, event: ClusterEvent) {
        self.core.handle(self.now(), event);
        self.act();
    }

    fn next_timeout(&self) -> Option<Instant> {
        let core = self.core.poll_timeout().map(|at| self.started + (at - Timestamp::default()));
        let missing = self.missing.values().min().copied();
        let queries = self.queries.values().map(PendingQuery::deadline).min();
        [core, missing, queries].into_iter().flatten().min()
    }

    fn timeouts(&mut self) {
        if self.core.poll_timeout().is_some_and(|at| at <= self.now()) {
            self.core.handle_timeout(self.now());
            self.act();
        }
        let now = Instant::now();
        let lost: Vec<_> =
            self.missing.iter().filter(|(_, at)| **at <= now).map(|(worker, _)| *worker).collect();
        for worker in lost {
            self.worker_gone(worker, "it did not come back in time", Standing::Gone);
        }
        self.expire_queries(now);
        if self.next_moves <= now {
            self.next_moves = now + self.dead_after;
            self.notice_moves();
        }
    }

    /// Does what the core wants: records at once, the rest after the flush.
    fn act(&mut self) {
        while let Some(action) = self.core.poll_action() {
            match action {
                ClusterAction::Send { to, message } => self.core_message(to, message),
                ClusterAction::JobChanged { job, state } => self.job_changed(job, state),
                ClusterAction::NameChanged { name, actor } => {
                    let record = actor.map(|(actor, owner)| NameRecord { actor, owner });
                    self.books.set_name(name, record);
                    if let Some((actor, owner)) = actor {
                        self.detached_named(actor, owner);
                    }
                }
            }
        }
    }

    /// HD-1: records first.
    fn finish_turn(&mut self) -> Result<(), JournalError> {
        if let Err(error) = self.books.flush() {
            self.refuse_all(&error);
            return Err(error);
        }
        for outgoing in core::mem::take(&mut self.outbox) {
            match outgoing {
                Outgoing::Worker { to, message } => self.send_now(to, &message),
                Outgoing::Forget(worker) => self.links.forget(Peer::Worker(worker)),
                Outgoing::Update { job, update, origin } => self.append(job, &update, origin),
                Outgoing::JobEnded(job) => {
                    if let Some(mut file) = self.updates.remove(&job) {
                        file.end();
                    }
                }
                // Who asked may be gone.
                Outgoing::Answer { reply, answer } => drop(reply.send(answer)),
                Outgoing::Joined { reply, peer } => drop(reply.send(Ok(peer))),
            }
        }
        Ok(())
    }

    /// The books cannot be kept: nobody may believe otherwise.
    fn refuse_all(&mut self, error: &JournalError) {
        tracing::error!(%error, "the head ends");
        for outgoing in core::mem::take(&mut self.outbox) {
            match outgoing {
                Outgoing::Answer { reply, .. } => {
                    let refusal = ClientRefusal::HeadFailed(error.to_string());
                    drop(reply.send(Answer::Reply(ClientReply::Refused(refusal))));
                }
                Outgoing::Joined { reply, .. } => {
                    drop(reply.send(Err(JoinRefusal::HeadFailed(error.to_string()))));
                }
                _ => {}
            }
        }
    }

    fn send_now(&self, to: WorkerId, message: &HeadToWorker) {
        let Some(link) = self.links.handle(Peer::Worker(to)) else { return };
        if let Err(error) = link.send(wire::encode(message).into_vec()) {
            tracing::warn!(worker = %to, %error, "a message to a worker was dropped");
        }
    }

    /// Jobs of which a worker has been told.
    pub(super) fn told(&mut self, worker: WorkerId) -> Option<&mut HashSet<JobId>> {
        self.sessions.get_mut(&worker).map(|session| &mut session.told)
    }

    async fn end(&mut self, ending: Ending) -> Result<(), JournalError> {
        if ending == Ending::Abort {
            return Ok(());
        }
        if let Some(token) = self.home_token.take() {
            self.books.drop_token(token);
        }
        self.books.flush()?;
        for file in [self.home.head_file(), self.home.join_token(), self.home.client_identity()] {
            if let Err(error) = std::fs::remove_file(&file) {
                tracing::warn!(file = %file.display(), %error, "cannot be removed");
            }
        }
        for worker in self.sessions.keys() {
            self.links.forget(Peer::Worker(*worker));
        }
        self.links.settle().await;
        Ok(())
    }
}

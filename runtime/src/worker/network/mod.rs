//! The network thread: links to the head and to other workers, streams of bytes, processes.
//!
//! One tokio runtime of one thread. It carries what the dispatch thread says and reports what it
//! hears through the inbox; it knows no task and decides nothing. A link to another worker is
//! one-directional: each side dials the other for its own messages and its own pulls, so that no
//! two of them ever have to agree on who calls.

mod folders;
mod peers;
mod processes;
mod uplink;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rdist_scheduler::id::{JobId, ObjectId, WorkerId};
use tokio::sync::mpsc;

use super::inbox::{Inbox, Note, Served};
use super::launch::{Launch, Processes};
use super::limits::Limits;
use super::{WorkerError, system};
use crate::config::WorkerConfig;
use crate::store::Incoming;
use crate::transfer::{
    Arrivals, reachable, read_request, serve_arrival, serve_bytes, serve_here, serve_nothing,
};
use crate::transport::discover::EnterError;
use crate::transport::link::{LinkEvent, LinkServer, ServerSink, receive_caller};
use crate::transport::{
    Admission, Arrival, Connection, Endpoint, Entrance, Identity, Peer, Target, Tuning, event_loop,
    join,
};
use crate::wire::cluster::{JobInfo, PeerFrame, Said, StreamRequest, WorkerToHead};
use crate::wire::{decode, encode};
use folders::Folders;
use peers::Peers;
use processes::Launcher;
use uplink::Uplink;

/// What the dispatch thread wants done.
#[derive(Debug)]
pub(super) enum Command {
    /// Say something to the head.
    ToHead(Vec<u8>),
    /// Tell the head what a job said.
    Say(Said),
    /// Say who this worker is, to a head that does not know.
    Register { meeting: u64, frame: Vec<u8> },
    /// Say something to another worker.
    ToPeer { to: WorkerId, frame: Vec<u8> },
    /// A worker can be reached there.
    Member { worker: WorkerId, address: String },
    /// A worker is gone for good.
    PeerGone(WorkerId),
    /// Fill the block from that worker's copy.
    Pull { object: ObjectId, from: WorkerId, block: Incoming },
    /// Start a process.
    Launch(Launch, Arc<JobInfo>),
    /// What this worker keeps for the job is of no use any longer.
    JobEnded(JobId),
    /// Tell the head that this worker leaves, when other workers have all that it said to them.
    Leave,
    /// End.
    Stop,
}

/// The dispatch thread's side.
#[derive(Debug, Clone)]
pub(super) struct Network {
    worker: WorkerId,
    address: SocketAddr,
    limits: String,
    commands: mpsc::UnboundedSender<Command>,
}

impl Network {
    /// This worker's id.
    pub(super) fn worker(&self) -> WorkerId {
        self.worker
    }

    /// Where other workers reach it.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How executors' limits are enforced, for people.
    pub(super) fn limits(&self) -> &str {
        &self.limits
    }

    pub(super) fn command(&self, command: Command) {
        // The network thread ends last; when it has ended there is nobody left to tell.
        let _ = self.commands.send(command);
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.command(Command::Stop);
    }

    pub(super) fn to_head(&self, message: &WorkerToHead) {
        self.command(Command::ToHead(encode(message).into_vec()));
    }

    pub(super) fn to_peer(&self, to: WorkerId, frame: &PeerFrame) {
        self.command(Command::ToPeer { to, frame: encode(frame).into_vec() });
    }
}

/// Joins the cluster, by the certificate of the worker that this one follows or else by its token,
/// and starts the thread, which ends with the worker's certificate.
pub(super) fn start(
    config: &WorkerConfig,
    follows: Option<&Identity>,
    inbox: Inbox,
    processes: Processes,
) -> Result<(Network, JoinHandle<Option<Identity>>), WorkerError> {
    let (commands, receiver) = mpsc::unbounded_channel();
    let (started, joined) = std::sync::mpsc::sync_channel(1);
    let (config, follows) = (config.clone(), follows.cloned());
    let sender = commands.clone();
    let thread = std::thread::Builder::new()
        .name("rdist-network".to_owned())
        .spawn(move || {
            let runtime = match event_loop() {
                Ok(runtime) => runtime,
                Err(error) => {
                    // `start` waits for exactly one message.
                    let _ = started.send(Err(system("starting the network thread", error)));
                    return None;
                }
            };
            let local = tokio::task::LocalSet::new();
            runtime.block_on(local.run_until(async move {
                match Shared::join(&config, follows, (inbox, processes, sender)).await {
                    Ok(shared) => {
                        let shared = Rc::new(shared);
                        let who = (shared.worker, shared.address, shared.limits.clone());
                        let _ = started.send(Ok(who));
                        run(shared.clone(), receiver).await;
                        Some(shared.identity.borrow().clone())
                    }
                    Err(error) => {
                        let _ = started.send(Err(error));
                        None
                    }
                }
            }))
        })
        .map_err(|error| system("starting the network thread", error))?;
    let (worker, address, limits) = joined.recv().unwrap_or_else(|_| {
        Err(system("starting the network thread", std::io::Error::other("it panicked")))
    })?;
    Ok((Network { worker, address, limits, commands }, thread))
}

/// What the tasks of the network thread share.
struct Shared {
    worker: WorkerId,
    address: SocketAddr,
    inbox: Inbox,
    endpoint: Endpoint,
    uplink: Uplink,
    peers: RefCell<Peers>,
    callers: RefCell<LinkServer>,
    launcher: Launcher,
    arrivals: Rc<Arrivals>,
    /// How executors' limits are enforced, for people.
    limits: String,
    identity: RefCell<Identity>,
    target: Target,
    rotate_every: Duration,
}

impl Shared {
    async fn join(
        config: &WorkerConfig,
        follows: Option<Identity>,
        (inbox, processes, commands): (Inbox, Processes, mpsc::UnboundedSender<Command>),
    ) -> Result<Self, WorkerError> {
        let entrance = Entrance {
            home: config.home.clone(),
            head: config.head.clone(),
            token: config.token.clone(),
        };
        let (Admission { identity, dead_after }, target) = match follows {
            None => entrance.join(Tuning::default()).await?,
            Some(former) => (renew(&entrance.target(), &former).await?, entrance.target()),
        };
        let worker = identity.worker().ok_or(WorkerError::NoWorkerToken)?;
        let tuning = Tuning { dead_after, ..Tuning::default() };
        let endpoint = Endpoint::bind(config.listen, &identity, tuning)?;
        let address =
            endpoint.local_address().map_err(|error| system("reading the port", error))?;
        let folders = Folders::create(&config.home, worker)
            .map_err(|error| system("making the worker's folder", error))?;
        let uplink = Uplink::dial(&endpoint, target.clone(), inbox.clone());
        let sink = listen_to_peers(inbox.clone());
        let limits = Limits::detect(worker, config.store_bytes);
        let how = limits.describe();
        let processes = (processes, limits);
        let launcher =
            Launcher::new(config.home.blobs(), folders, inbox.clone(), processes, commands);
        Ok(Self {
            worker,
            address,
            inbox,
            endpoint,
            uplink,
            peers: RefCell::new(Peers::default()),
            callers: RefCell::new(LinkServer::new(sink)),
            launcher,
            arrivals: Rc::default(),
            limits: how,
            identity: RefCell::new(identity),
            target,
            rotate_every: config.rotate_every,
        })
    }
}

/// Lets the head make another worker of one that it has given up.
async fn renew(target: &Target, former: &Identity) -> Result<Admission, EnterError> {
    Ok(join::renew(&target.address()?, former, Tuning::default()).await?)
}

/// Hands on what other workers say.
fn listen_to_peers(inbox: Inbox) -> ServerSink {
    Arc::new(move |peer, event| {
        let (Peer::Worker(from), LinkEvent::Frame(bytes)) = (peer, event) else { return };
        match decode::<PeerFrame>(&bytes) {
            Ok(frame) => inbox.tell(Note::FromPeer { from, frame: Box::new(frame) }),
            Err(error) => tracing::warn!(%from, %error, "a worker sent a malformed message"),
        }
    })
}

async fn run(shared: Rc<Shared>, mut commands: mpsc::UnboundedReceiver<Command>) {
    let accepting = tokio::task::spawn_local(accept(shared.clone()));
    let rotating = tokio::task::spawn_local(rotate(shared.clone()));
    while let Some(command) = commands.recv().await {
        match command {
            Command::Stop => break,
            Command::Leave => leave(&shared).await,
            command => carry_out(&shared, command),
        }
    }
    accepting.abort();
    rotating.abort();
    shared.launcher.end();
    shared.uplink.close().await;
    shared.endpoint.close("the worker has ended");
    shared.endpoint.wait_idle().await;
}

async fn leave(shared: &Shared) {
    let peers = shared.peers.take();
    let told = peers.close().await;
    shared.uplink.send(encode(&WorkerToHead::Leaving { told }).into_vec());
}

fn carry_out(shared: &Rc<Shared>, command: Command) {
    match command {
        Command::ToHead(frame) => shared.uplink.send(frame),
        Command::Say(said) => shared.uplink.say(said),
        Command::Register { meeting, frame } => shared.uplink.begin(meeting, frame),
        Command::ToPeer { to, frame } => {
            shared.peers.borrow_mut().send(&shared.endpoint, to, frame)
        }
        Command::Member { worker, address } => {
            if worker != shared.worker {
                shared.peers.borrow_mut().add(&shared.endpoint, worker, address);
            }
        }
        Command::PeerGone(worker) => {
            shared.peers.borrow_mut().remove(worker);
            shared.callers.borrow_mut().forget(Peer::Worker(worker));
        }
        Command::Pull { object, from, block } => {
            let connection = shared.peers.borrow_mut().connection(&shared.endpoint, from);
            let tell = (shared.inbox.clone(), shared.arrivals.clone());
            tokio::task::spawn_local(peers::pull(connection, object, from, block, tell));
        }
        Command::Launch(launch, job) => {
            let shared = shared.clone();
            tokio::task::spawn_local(async move {
                shared.launcher.launch(launch, &job, &shared.uplink).await;
            });
        }
        Command::JobEnded(job) => shared.launcher.job_ended(job),
        Command::Leave | Command::Stop => {}
    }
}

/// Now and then, this worker gets a new certificate and key, and stays who it is.
async fn rotate(shared: Rc<Shared>) {
    loop {
        tokio::time::sleep(shared.rotate_every).await;
        let identity = shared.identity.borrow().clone();
        let renewed = match shared.target.address() {
            Ok(address) => join::rotate(&address, &identity, Tuning::default())
                .await
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let rotated = renewed.and_then(|next| {
            shared.endpoint.rotate(&next.identity).map_err(|error| error.to_string())?;
            shared.identity.replace(next.identity);
            Ok(())
        });
        match rotated {
            Ok(()) => tracing::info!("this worker has a new certificate"),
            // The old one is good for a while; the next try comes.
            Err(error) => tracing::warn!(error, "this worker could not change its certificate"),
        }
    }
}

/// Lets other workers in.
async fn accept(shared: Rc<Shared>) {
    while let Some(incoming) = shared.endpoint.accept().await {
        let shared = shared.clone();
        tokio::task::spawn_local(async move {
            match incoming.establish().await {
                Ok(Arrival::Member(connection)) => serve_peer(&shared, connection).await,
                Ok(Arrival::Joiner { connection, .. }) => {
                    connection.close(0_u32.into(), b"only the head lets anybody join");
                }
                Err(error) => tracing::debug!(%error, "a caller was turned away"),
            }
        });
    }
}

async fn serve_peer(shared: &Rc<Shared>, connection: Connection) {
    if !matches!(connection.peer(), Peer::Worker(_)) {
        return connection.close(0, "a worker talks to workers and to its head alone");
    }
    match receive_caller(connection.clone()).await {
        Ok(caller) => drop(shared.callers.borrow_mut().attach(caller)),
        Err(error) => return tracing::debug!(%error, "a worker opened no link"),
    }
    while let Ok((send, receive)) = connection.accept_bi().await {
        let shared = shared.clone();
        tokio::task::spawn_local(async move {
            if let Err(error) = answer(&shared, send, receive).await {
                tracing::debug!(%error, "a stream of bytes broke");
            }
        });
    }
}

async fn answer(
    shared: &Shared,
    mut send: quinn::SendStream,
    mut receive: quinn::RecvStream,
) -> Result<(), crate::transfer::StreamError> {
    let StreamRequest::Object { object, host, from } = read_request(&mut receive).await? else {
        return serve_nothing(&mut send).await;
    };
    let mut arrival = shared.arrivals.get(object);
    let mut served = None;
    if arrival.is_none() {
        served = sealed(&shared.inbox, object).await;
        if served.is_none() {
            // The asker may have been pointed here because a pull is about to begin.
            arrival = shared.arrivals.wait(object).await;
        }
    }
    if let Some(arrival) = arrival {
        tracing::debug!(%object, "an object is handed on while it comes");
        return serve_arrival(&mut send, &arrival, from).await;
    }
    if served.is_none() {
        served = sealed(&shared.inbox, object).await;
    }
    match served {
        None => serve_nothing(&mut send).await,
        Some(Served::Inline(bytes)) => serve_bytes(&mut send, bytes, from).await,
        // The view keeps the block until the asker has it.
        Some(Served::Arena { view, place }) => match reachable(place, host) {
            Some(place) => serve_here(&mut send, &mut receive, place).await,
            None => serve_bytes(&mut send, view, from).await,
        },
    }
}

/// What the table has.
async fn sealed(inbox: &Inbox, object: ObjectId) -> Option<Served> {
    let (reply, answer) = tokio::sync::oneshot::channel();
    inbox.tell(Note::ObjectWanted { object, reply });
    answer.await.ok().flatten()
}

//! The head: membership, placement, jobs and what must be remembered of them, in one thread.
//!
//! ```text
//! workers ══links══► ┌──────────── daemon ────────────┐ ──► books (sled), flushed once a turn
//! clients ══streams► │ inputs ► ClusterCore ► outbox │ ──► workers, clients
//! joiners ──stream─► └────────────────────────────────┘ ──► head/jobs/JOB.jsonl ──► watchers
//! ```
//! `daemon` is the loop; `workers`, `jobs`, `query` and `request` are what it does for whom;
//! `journal` and `record` what it remembers. Where tasks run is decided by
//! `rdist_scheduler::cluster`.

mod blobs;
mod daemon;
mod detached;
mod jobs;
pub mod journal;
mod query;
pub mod record;
mod request;
mod room;
mod stalls;
mod updates;
mod workers;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::FlockOperation;
use tokio::sync::{Semaphore, mpsc};

use crate::config::{HeadConfig, Home};
use crate::transport::identity::{IdentityError, write_private};
use crate::transport::link::{LinkServer, receive_caller};
use crate::transport::quic::{BindError, Incoming, close};
use crate::transport::{
    Arrival, Authority, Endpoint, HeadFile, Peer, Registrar, Token, TokenTerms, Tuning, event_loop,
};
use crate::wire::PROTOCOL_VERSION;
use crate::wire::join::{JoinRefusal, Role};
use blobs::Blobs;
use daemon::{Daemon, Ending, Input, Parts};
use journal::{Books, JournalError, SledStore};
use request::Clients;

/// A head that ends waits so long for others to hear of it.
const END_GRACE: Duration = Duration::from_secs(2);
/// Most requests of clients that are answered at the same time.
const REQUESTS: u32 = 1_024;

/// Why a head does not start, or why it ended.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// There is one already.
    #[error("a head{} runs already with the state in {}: stop it with `rdist head stop`, or set \
             another RDIST_HOME", at.as_deref().map(|at| format!(" at {at}")).unwrap_or_default(),
            home.display())]
    Running {
        /// The state folder.
        home: PathBuf,
        /// Its address, where that is known.
        at: Option<String>,
    },
    /// The file system refused.
    #[error("cannot prepare {}: {source}", path.display())]
    Folder {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The certificates.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The port.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The durable state.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The system refused.
    #[error("cannot start the head: {0}")]
    System(#[from] io::Error),
    /// Its thread panicked.
    #[error("the head ended by a bug in rdist; its log says more")]
    Bug,
}

/// The head of a cluster.
#[derive(Debug)]
pub struct Head;

impl Head {
    /// Starts a head in a thread of its own; returns when workers can join.
    pub fn start(config: HeadConfig) -> Result<HeadHandle, HeadError> {
        let (inputs, receiver) = mpsc::unbounded_channel();
        let (ready, started) = std::sync::mpsc::channel();
        let sender = inputs.clone();
        let thread =
            std::thread::Builder::new().name("rdist-head".to_owned()).spawn(move || {
                let runtime = event_loop()?;
                runtime.block_on(run(&config, sender, receiver, &ready))
            })?;
        match started.recv() {
            Ok(Started { address, token }) => {
                Ok(HeadHandle { address, token, inputs, thread: Some(thread) })
            }
            Err(_) => match thread.join() {
                Ok(Err(error)) => Err(error),
                _ => Err(HeadError::Bug),
            },
        }
    }
}

/// A head that runs. Dropping it ends the head in good order.
#[derive(Debug)]
pub struct HeadHandle {
    address: String,
    token: Token,
    inputs: mpsc::UnboundedSender<Input>,
    thread: Option<JoinHandle<Result<(), HeadError>>>,
}

/// Ends a head from any thread.
#[derive(Debug, Clone)]
pub struct Stopper(mpsc::UnboundedSender<Input>);

impl Stopper {
    /// Tells it to end; [`HeadHandle::wait`] returns when it has.
    pub fn stop(&self) {
        // It has ended already: fine.
        let _ = self.0.send(Input::End);
    }
}

impl HeadHandle {
    /// Where it listens, `HOST:PORT`, as processes of this machine reach it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The token for workers, as text.
    pub fn join_token(&self) -> String {
        self.token.to_string()
    }

    /// What ends it from another thread, while this one waits.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.inputs.clone())
    }

    /// Tells it to end; [`Self::wait`] returns when it has.
    pub fn shutdown(&self) {
        // It has ended already: fine.
        let _ = self.inputs.send(Input::End);
    }

    /// Waits until it has ended, for whatever reason.
    pub fn wait(mut self) -> Result<(), HeadError> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(HeadError::Bug),
            None => Ok(()),
        }
    }

    /// Ends it as if the power had failed: nothing is written, told or removed any longer.
    pub fn kill(self) -> Result<(), HeadError> {
        let _ = self.inputs.send(Input::Abort);
        self.wait()
    }
}

impl Drop for HeadHandle {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.shutdown();
            let _ = thread.join();
        }
    }
}

struct Started {
    address: String,
    token: Token,
}

async fn run(
    config: &HeadConfig,
    inputs: mpsc::UnboundedSender<Input>,
    receiver: mpsc::UnboundedReceiver<Input>,
    ready: &std::sync::mpsc::Sender<Started>,
) -> Result<(), HeadError> {
    let home = &config.home;
    let _lock = prepare(home)?;
    let authority = Arc::new(Authority::load_or_create(&home.head().join("ca.pem"))?);
    let mut books = Books::open(Box::new(SledStore::open(&home.head().join("state"))?))?;
    let epoch = books.count("epoch");
    let tuning = Tuning { dead_after: config.dead_after, ..Tuning::default() };
    let secret = authority.secret("rdist 2026 head's stateless resets");
    let identity = authority.identity(Peer::Head)?;
    let endpoint = Endpoint::bind_again(config.listen, &identity, tuning, secret)?;
    let listen = endpoint.local_address()?;
    let address = match listen.ip().is_unspecified() {
        true if listen.is_ipv6() => format!("[::1]:{}", listen.port()),
        true => format!("127.0.0.1:{}", listen.port()),
        false => listen.to_string(),
    };
    let sender = inputs.clone();
    let links = LinkServer::new(Arc::new(move |peer, event| {
        // The daemon has ended: nobody cares.
        let _ = sender.send(Input::Link(peer, event));
    }));
    let mut daemon = Daemon::new(Parts {
        home: home.clone(),
        address: address.clone(),
        authority: authority.clone(),
        books,
        links,
        dead_after: config.dead_after,
        kept_jobs: config.kept_jobs,
        epoch,
    });
    let token = publish(&mut daemon, &listen.to_string())?;
    let rotating = rotate(authority.clone(), endpoint.clone(), config.clone());
    let rotating = tokio::spawn(rotating);
    let requests = Arc::new(Semaphore::new(REQUESTS as usize));
    let acceptor = Acceptor {
        inputs,
        registrar: Registrar { authority, dead_after: config.dead_after },
        blobs: Blobs::at(home.blobs()),
        requests: requests.clone(),
    };
    tokio::spawn(accept(endpoint.clone(), Arc::new(acceptor)));
    tracing::info!(address, epoch, "the head is ready");
    // The starter may be gone.
    let _ = ready.send(Started { address, token });
    let ending = daemon.run(receiver).await;
    // Else it would leave a certificate behind after the head has removed it.
    rotating.abort();
    let ending = ending?;
    if ending == Ending::Clean {
        // Answers that are under way arrive first.
        let _ = tokio::time::timeout(END_GRACE, requests.acquire_many(REQUESTS)).await;
        endpoint.close("the head ends");
        let _ = tokio::time::timeout(END_GRACE, endpoint.wait_idle()).await;
    }
    Ok(())
}

/// Now and then, the head and the clients of its user get new certificates and keys.
async fn rotate(authority: Arc<Authority>, endpoint: Endpoint, config: HeadConfig) {
    loop {
        tokio::time::sleep(config.rotate_every).await;
        let rotated = || -> Result<(), HeadError> {
            endpoint.rotate(&authority.identity(Peer::Head)?)?;
            authority.identity(Peer::Client)?.save(&config.home.client_identity())?;
            Ok(())
        };
        match rotated() {
            Ok(()) => tracing::info!("the head has a new certificate"),
            // The old one is good for a while; the next try comes.
            Err(error) => tracing::warn!(%error, "the head could not change its certificate"),
        }
    }
}

/// Makes the folders and takes the lock, which is held until the file is closed.
fn prepare(home: &Home) -> Result<File, HeadError> {
    for folder in [home.path().to_owned(), home.head(), home.head().join("jobs"), home.blobs()] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|source| HeadError::Folder { path: folder, source })?;
    }
    let path = home.head().join("lock");
    let failed = |source| HeadError::Folder { path: path.clone(), source };
    let lock = File::options().create(true).truncate(false).write(true).open(&path);
    let lock = lock.map_err(failed)?;
    let deadline = std::time::Instant::now() + LOCK_PATIENCE;
    loop {
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(lock),
            Err(rustix::io::Errno::WOULDBLOCK) if std::time::Instant::now() < deadline => {
                std::thread::sleep(LOCK_PAUSE);
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let at = HeadFile::read(home).ok().map(|file| file.address);
                return Err(HeadError::Running { home: home.path().to_owned(), at });
            }
            Err(error) => return Err(failed(error.into())),
        }
    }
}

/// A head that was just killed may hold its lock a moment longer, and whoever asks
/// [`is_running`] holds it for an instant.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Whether a head runs with that state folder, told by the lock that it holds.
pub fn is_running(home: &Home) -> bool {
    let Ok(lock) = File::options().write(true).open(home.head().join("lock")) else {
        return false;
    };
    // A lock that was granted is given back when the file is closed.
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared)
        == Err(rustix::io::Errno::WOULDBLOCK)
}

/// Leaves the files by which processes of the same user find the head and get in.
fn publish(daemon: &mut Daemon, listen: &str) -> Result<Token, HeadError> {
    let earlier = daemon.books.number("home-token");
    daemon.books.drop_token(earlier);
    let terms = TokenTerms { role: Role::Worker, ttl_seconds: None, uses: None };
    let random = |error: getrandom::Error| io::Error::other(error.to_string());
    let token = daemon.make_token(terms).map_err(random)?;
    daemon.books.set_number("home-token", token.id);
    daemon.home_token = Some(token.id);
    daemon.books.flush()?;
    write_private(&daemon.home.join_token(), format!("{token}\n").as_bytes())?;
    daemon.authority.identity(Peer::Client)?.save(&daemon.home.client_identity())?;
    let file = HeadFile {
        address: daemon.address.clone(),
        listen: listen.to_owned(),
        pid: std::process::id(),
        protocol: PROTOCOL_VERSION,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    file.write(&daemon.home)?;
    Ok(token)
}

struct Acceptor {
    inputs: mpsc::UnboundedSender<Input>,
    registrar: Registrar,
    blobs: Blobs,
    requests: Arc<Semaphore>,
}

async fn accept(endpoint: Endpoint, acceptor: Arc<Acceptor>) {
    while let Some(incoming) = endpoint.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move { acceptor.receive(incoming).await });
    }
}

impl Acceptor {
    async fn receive(&self, incoming: Incoming) {
        let connection = match incoming.establish().await {
            Ok(Arrival::Member(connection)) => connection,
            Ok(Arrival::Joiner { connection, renews }) => {
                return self.join(connection, renews).await;
            }
            Err(error) => return tracing::info!("a caller was turned away: {error}"),
        };
        match connection.peer() {
            Peer::Worker(_) => match receive_caller(connection).await {
                Ok(caller) => drop(self.inputs.send(Input::Caller(caller))),
                Err(error) => tracing::info!("a worker opened no link: {error}"),
            },
            Peer::Client | Peer::ReadOnly => {
                let clients = Clients {
                    inputs: self.inputs.clone(),
                    blobs: self.blobs.clone(),
                    requests: self.requests.clone(),
                };
                clients.serve(connection).await;
            }
            Peer::Head => connection.close(close::REFUSED, "a head does not dial another"),
        }
    }

    async fn join(&self, connection: quinn::Connection, renews: Option<Peer>) {
        let ask = async |request, renews| {
            let (reply, answer) = tokio::sync::oneshot::channel();
            let ended = || JoinRefusal::HeadFailed("it is ending".to_owned());
            self.inputs.send(Input::Join { request, renews, reply }).map_err(|_| ended())?;
            answer.await.map_err(|_| ended())?
        };
        self.registrar.answer(connection, renews, ask).await;
    }
}

/// The file of a job's updates, for tools on the head's machine.
pub fn updates_path(home: &Home, job: rdist_scheduler::id::JobId) -> PathBuf {
    updates::path_of(Path::new(&home.head().join("jobs")), job)
}

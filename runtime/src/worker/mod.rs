//! The worker daemon: one machine's executors, objects and local scheduling.
//!
//! ```text
//!  executors ══rings══► dispatch thread ──channel──► network thread ══QUIC══► head, other workers
//!            ◄══rings══  core, arena,   ◄──inbox───   links, pulls, child
//!                        object table      + bell     processes and output
//! ```
//! The dispatch thread never waits for the network, and the network thread never touches the core:
//! a call that is served on this machine makes no tokio hop. Bytes of large values go from mapped
//! segment to QUIC stream and back on the network thread; the dispatch thread hands out blocks and
//! views of them. What runs where, and what is kept, is decided by `rdist_scheduler::local`.

mod dispatch;
mod executor;
mod inbox;
mod launch;
mod limits;
mod network;
mod output;
mod process;
mod query;
mod spares;
mod spiller;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rdist_scheduler::id::WorkerId;

use crate::config::WorkerConfig;
use crate::ring::Bell;
use crate::store::{Spill, SpillError};
use crate::transport::discover::EnterError;
use crate::transport::quic::BindError;

/// How long a head that has given a certificate may take to register the worker.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The head refused it, or cannot be reached.
    #[error(transparent)]
    Enter(#[from] EnterError),
    /// Its port cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The token is good for something else.
    #[error("the token is not for workers: make one with `rdist token create --role worker`")]
    NoWorkerToken,
    /// The head gave a certificate, then fell silent.
    #[error(
        "the head does not answer any longer ({REGISTRATION_TIMEOUT:?}): see whether it runs with \
         `rdist status`, then join again"
    )]
    NotRegistered,
    /// There is no folder for values that do not fit into memory.
    #[error("{0}; see `--spill-dir` of `rdist worker join`")]
    Spill(SpillError),
    /// The system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// A worker daemon inside this process.
#[derive(Debug)]
pub struct Worker;

/// A worker that runs. Dropping it lets the worker run on.
#[derive(Debug)]
pub struct WorkerHandle {
    id: WorkerId,
    address: SocketAddr,
    inbox: inbox::Inbox,
    threads: Vec<JoinHandle<()>>,
}

/// Ends a worker from any thread.
#[derive(Debug, Clone)]
pub struct Stopper(inbox::Inbox);

impl Stopper {
    /// Ends it at once; its executors are killed.
    pub fn stop(&self) {
        self.0.tell(inbox::Note::Stop { drain: false });
    }
}

impl Worker {
    /// Joins the cluster and starts both threads. Returns once the head has let the worker in.
    pub fn start(config: WorkerConfig) -> Result<WorkerHandle, WorkerError> {
        raise_descriptor_limit();
        let bell = Bell::new().map_err(|source| system("making an event descriptor", source))?;
        let bell = Arc::new(bell);
        let (inbox, notes) = inbox::Inbox::new(bell.clone());
        let processes = Arc::new(Mutex::new(HashMap::new()));
        let (network, network_thread) = network::start(&config, inbox.clone(), processes.clone())?;
        let (id, address) = (network.worker(), network.address());
        let folder = config.spill_folder();
        let spill = Spill::open(&folder, &id.to_string()).map_err(WorkerError::Spill);
        let spiller = spill.and_then(|spill| {
            let started = spiller::Spiller::start(spill, inbox.clone());
            started.map_err(|source| system("starting the thread for the disk", source))
        });
        let spiller = match spiller {
            Ok(spiller) => spiller,
            Err(error) => {
                network.stop();
                return Err(error);
            }
        };
        let (registered, registration) = std::sync::mpsc::sync_channel(1);
        let dispatch = std::thread::Builder::new()
            .name("rdist-dispatch".to_owned())
            .spawn(move || {
                let notes = (notes, bell);
                let network = (network, processes);
                dispatch::Dispatch::new(id, config, network, notes, spiller, registered).run();
            })
            .map_err(|source| system("starting the dispatch thread", source))?;
        if registration.recv_timeout(REGISTRATION_TIMEOUT).is_err() {
            inbox.tell(inbox::Note::Stop { drain: false });
            return Err(WorkerError::NotRegistered);
        }
        Ok(WorkerHandle { id, address, inbox, threads: vec![dispatch, network_thread] })
    }
}

impl WorkerHandle {
    /// The worker's id.
    pub fn id(&self) -> WorkerId {
        self.id
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What ends it from another thread, while this one waits.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.inbox.clone())
    }

    /// Ends it at once; its executors are killed.
    pub fn shutdown(&self) {
        self.inbox.tell(inbox::Note::Stop { drain: false });
    }

    /// Lets what runs end, takes nothing new, then leaves.
    pub fn drain(&self) {
        self.inbox.tell(inbox::Note::Stop { drain: true });
    }

    /// Waits for its end.
    pub fn wait(self) {
        for thread in self.threads {
            // A panic in a thread was printed by the panic hook; the worker is over either way.
            let _ = thread.join();
        }
    }
}

/// Each executor takes about ten descriptors here, and each segment one: the usual soft limit of
/// 1,024 is reached by a hundred actors. The hard limit is the administrator's.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, ?current, "the limit of open files cannot be raised");
    }
}

fn system(what: &str, source: std::io::Error) -> WorkerError {
    WorkerError::System { what: what.to_owned(), source }
}

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
mod life;
mod limits;
mod network;
mod output;
mod process;
mod query;
mod spares;
mod spiller;

use std::time::Duration;

pub use life::{Stopper, Worker, WorkerHandle};

use crate::store::SpillError;
use crate::transport::discover::EnterError;
use crate::transport::join::JoinError;
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

impl WorkerError {
    /// Whether another try would end in the same way.
    fn is_final(&self) -> bool {
        matches!(self, Self::Enter(EnterError::Join(JoinError::Refused { .. })))
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

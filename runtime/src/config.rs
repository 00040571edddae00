//! Where state lives, and what a daemon is told at its start.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rdist_scheduler::id::WorkerId;
use rdist_scheduler::resource::Resources;

use crate::transport::Tuning;
use crate::transport::identity::ROTATION_PERIOD;

/// The folder that holds all state of one cluster on this machine: `RDIST_HOME`, else
/// `$HOME/.rdist`. Mode 0700.
///
/// ```text
/// head/            the head's own: CA, sled, logs of jobs        (only `head` writes)
/// head.json        address and process id of the head that runs  (only `head` writes)
/// join.token       a token for workers of the same user          (only `head` writes)
/// client.pem       certificate and key of local clients           (only `head` writes)
/// blobs/HASH       programs and files of jobs, by content
/// workers/ID/      each worker's own: folders of jobs
/// spill/ID/        values of a worker that do not fit into memory
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home(PathBuf);

impl Home {
    /// That folder.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    /// From `RDIST_HOME`, else `$HOME/.rdist`.
    pub fn from_environment() -> Self {
        let home = std::env::var_os("RDIST_HOME").map(PathBuf::from);
        let user = || std::env::var_os("HOME").map_or_else(|| "/tmp".into(), PathBuf::from);
        Self(home.unwrap_or_else(|| user().join(".rdist")))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The head's own folder.
    pub fn head(&self) -> PathBuf {
        self.0.join("head")
    }

    /// Address and process id of the head that runs.
    pub fn head_file(&self) -> PathBuf {
        self.0.join("head.json")
    }

    /// The token for workers of the same user.
    pub fn join_token(&self) -> PathBuf {
        self.0.join("join.token")
    }

    /// Certificate and key of local clients.
    pub fn client_identity(&self) -> PathBuf {
        self.0.join("client.pem")
    }

    /// Programs and files of jobs, by content hash.
    pub fn blobs(&self) -> PathBuf {
        self.0.join("blobs")
    }

    /// Folders of values that do not fit into memory.
    pub fn spill(&self) -> PathBuf {
        self.0.join("spill")
    }

    /// Folders of workers.
    pub fn workers(&self) -> PathBuf {
        self.0.join("workers")
    }

    /// A worker's own folder.
    pub fn worker(&self, worker: WorkerId) -> PathBuf {
        self.workers().join(worker.0.to_string())
    }
}

/// How to start a head.
#[derive(Debug, Clone)]
pub struct HeadConfig {
    /// State folder.
    pub home: Home,
    /// UDP address to listen on; port 0 picks a free one.
    pub listen: SocketAddr,
    /// A worker that is silent for so long is lost ([`Tuning::DEAD_AFTER`]). Workers are told when
    /// they join.
    pub dead_after: Duration,
    /// So many jobs are remembered after their end, with all that they said.
    pub kept_jobs: usize,
    /// How often the head takes a new certificate and key.
    pub rotate_every: Duration,
}

impl HeadConfig {
    /// Port that is used when none is named.
    pub const PORT: u16 = 7420;

    /// Ended jobs that are remembered when nothing else is said.
    pub const KEPT_JOBS: usize = 1_000;

    /// Defaults: all addresses, [`Self::PORT`], 3 s, [`Self::KEPT_JOBS`].
    pub fn new(home: Home) -> Self {
        let listen = SocketAddr::from(([0, 0, 0, 0], Self::PORT));
        let rotate_every = ROTATION_PERIOD;
        Self {
            home,
            listen,
            dead_after: Tuning::default().dead_after,
            kept_jobs: Self::KEPT_JOBS,
            rotate_every,
        }
    }
}

/// How to start a worker.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// State folder.
    pub home: Home,
    /// The head, `HOST:PORT`; `None`: the one of `home`.
    pub head: Option<String>,
    /// A token to join with; `None`: the one in `home`.
    pub token: Option<String>,
    /// UDP address for other workers; port 0 picks a free one.
    pub listen: SocketAddr,
    /// `HOST:PORT` by which other workers reach it, where that is not `listen`: behind a NAT, a
    /// forwarded port, a container's network.
    pub advertise: Option<String>,
    /// What it offers.
    pub resources: Resources,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// Bytes of shared memory for objects.
    pub store_bytes: u64,
    /// Where values go that do not fit into memory; `None`: `spill` in `home`.
    pub spill_folder: Option<PathBuf>,
    /// Most bytes of such values; `None`: as many as the disk takes, 0: none.
    pub spill_limit: Option<u64>,
    /// How often it takes a new certificate and key.
    pub rotate_every: Duration,
}

impl WorkerConfig {
    /// How often certificates change when nothing else is said.
    pub const ROTATE_EVERY: Duration = ROTATION_PERIOD;
}

impl WorkerConfig {
    /// Where values go that do not fit into memory: each worker has a folder of its own in it.
    pub fn spill_folder(&self) -> PathBuf {
        self.spill_folder.clone().unwrap_or_else(|| self.home.spill())
    }
}

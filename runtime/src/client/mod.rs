//! The client library: everything that a person or a program wants of a cluster from outside.
//!
//! [`Client`] is one connection to the head; each request is a stream of its own, so that they do
//! not wait for each other. Not here: what is printed (`cli`), and what jobs do (`prelude`).

mod files;
mod stream;
mod upload;

use std::io;
use std::path::{Path, PathBuf};

use rdist_scheduler::id::{JobId, WorkerId};
use rdist_scheduler::resource::Resources;

use crate::config::Home;
use crate::head;
use crate::transport::discover::{DiscoverError, EnterError};
use crate::transport::identity::IdentityError;
use crate::transport::quic::{BindError, close};
use crate::transport::{
    ConnectError, Connection, Endpoint, Entrance, HeadFile, Identity, Peer, Tuning, frame,
};
pub use crate::wire::client::{
    ClientRefusal, ClusterStatus, JobProgress, JobStatus, JobUpdate, Listed, SubmissionId,
    TokenStatus, WorkerStatus,
};
use crate::wire::client::{ClientReply, ClientRequest, MAX_REPLY_BYTES, Submission};
use crate::wire::files::{BlobHash, JobFiles};
pub use crate::wire::join::Role;
pub use files::{Files, FilesError};
pub use stream::{JobStream, WatchError};
use upload::{Blob, Bytes, KnownHashes};

/// A request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No head here.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// A head was here and is gone.
    #[error("the head of {} has ended without cleaning up: start it again with \
             `rdist head start`", home.display())]
    HeadDied {
        /// The state folder.
        home: PathBuf,
    },
    /// No way in.
    #[error(transparent)]
    Enter(#[from] EnterError),
    /// No certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The head cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke under a request.
    #[error("the head at {address} went away: {reason}; what was asked may or may not be done")]
    Broken {
        /// Which head.
        address: String,
        /// What happened.
        reason: String,
    },
    /// The job's files cannot be taken.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The head said no.
    #[error("{0}")]
    Refused(ClientRefusal),
    /// The head said something else.
    #[error(
        "the head at {address} gave an answer to another question; use the same release of \
             rdist on both sides"
    )]
    Answer {
        /// Which head.
        address: String,
    },
    /// The program, or a file of the job, cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A job-to-be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobRequest {
    /// For people.
    pub name: String,
    /// The program's file on this machine.
    pub program: PathBuf,
    /// Its arguments, after the program's name.
    pub arguments: Vec<String>,
    /// Environment variables, added to the workers'.
    pub environment: Vec<(String, String)>,
    /// Where relative paths start, if that folder exists on the worker and there are no `files`.
    pub working_directory: String,
    /// A folder that travels with the job: its processes start in a copy of it, one on each worker.
    pub files: Option<Files>,
    /// Files for the driver alone, in the folder that its variable `RDIST_DRIVER_FILES` names.
    pub driver_files: Option<Files>,
    /// It gets this many times what a job of weight 1 gets, where both want more; 0 counts as 1.
    pub weight: u32,
    /// The most that its tasks, actors and placement groups may hold at a time, over the whole
    /// cluster; what is zero is not limited. What is limited is placed by the head.
    pub quota: Resources,
    /// Its driver submits tasks as soon as it runs: a process for them is started beside it, where
    /// a CPU is free. For programs that start quickly.
    pub eager_pool: bool,
}

/// What a list shows.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
pub struct Rows {
    /// An object for each thing.
    pub rows: Vec<serde_json::Value>,
    /// How many things there are.
    pub total: u64,
}

/// A connection to a head. Needs a tokio runtime with time and I/O.
#[derive(Debug, Clone)]
pub struct Client {
    endpoint: Endpoint,
    connection: Connection,
    address: String,
    /// The file that remembers hashes of programs.
    hashes: Option<PathBuf>,
}

impl Client {
    /// Connects to the head of that state folder, with the certificate that it left there.
    pub async fn connect(home: &Home) -> Result<Self, ClientError> {
        let file = HeadFile::read(home)?;
        if !head::is_running(home) {
            return Err(ClientError::HeadDied { home: home.path().to_owned() });
        }
        let identity = Identity::load(&home.client_identity())?;
        let client = Self::dial(file.address, &identity).await?;
        Ok(Self { hashes: Some(home.path().join("hashes.json")), ..client })
    }

    /// Connects to a head elsewhere: joins with a token, then dials.
    pub async fn connect_with(entrance: &Entrance) -> Result<Self, ClientError> {
        let (admission, target) = entrance.join(Tuning::default()).await?;
        Self::dial(target.address()?, &admission.identity).await
    }

    /// Connects to the head at `address` with an identity.
    pub async fn dial(address: String, identity: &Identity) -> Result<Self, ClientError> {
        let endpoint = Endpoint::dialer(identity, Tuning::default())?;
        let connection = endpoint.connect(&address, Peer::Head).await?;
        Ok(Self { endpoint, connection, address, hashes: None })
    }

    /// Connects to the same address as the same client, after the connection was lost.
    pub async fn dial_again(&self) -> Result<Self, ClientError> {
        let connection = self.endpoint.connect(&self.address, Peer::Head).await?;
        Ok(Self { connection, ..self.clone() })
    }

    /// Where the head is.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Submits a job; it is durable when this returns. Of its program and its files, what the head
    /// lacks is sent.
    pub async fn submit(&self, request: JobRequest) -> Result<JobId, ClientError> {
        self.submit_as(SubmissionId::random(), request).await
    }

    /// Submits a job, perhaps again: after [`ClientError::Broken`], which leaves open whether the
    /// job was taken, the same id over another connection gives the job that there is, or makes it.
    pub async fn submit_as(
        &self,
        id: SubmissionId,
        request: JobRequest,
    ) -> Result<JobId, ClientError> {
        let mut blobs = vec![self.program(&request.program)?];
        let program = blobs[0].hash;
        let mut seal = |files: Option<Files>| -> Result<Option<BlobHash>, ClientError> {
            let Some(files) = files else { return Ok(None) };
            blobs.extend(files.seal()?);
            Ok(blobs.last().map(|manifest| manifest.hash))
        };
        let small_files = request.driver_files.as_ref().and_then(Files::small);
        let driver = request.driver_files.filter(|_| small_files.is_none());
        let files = JobFiles { working: seal(request.files)?, driver: seal(driver)? };
        let submission = Submission {
            id,
            name: request.name,
            program,
            arguments: request.arguments,
            environment: request.environment,
            working_directory: request.working_directory,
            files,
            small_files: small_files.unwrap_or_default(),
            weight: request.weight.max(1),
            quota: request.quota,
            eager_pool: request.eager_pool,
        };
        let request = ClientRequest::Submit(submission);
        // The head has most programs already: to ask first would take a round trip more.
        let mut reply = self.ask(&request).await?;
        if let ClientReply::Refused(ClientRefusal::BlobMissing { .. }) = reply {
            self.send_lacking(blobs).await?;
            reply = self.ask(&request).await?;
        }
        match reply {
            ClientReply::Submitted(job) => Ok(job),
            other => Err(self.unexpected(other)),
        }
    }

    /// Sends a program if the head lacks it; gives its hash.
    pub async fn upload(&self, path: &Path) -> Result<BlobHash, ClientError> {
        let program = self.program(path)?;
        let hash = program.hash;
        self.send_lacking(vec![program]).await?;
        Ok(hash)
    }

    fn program(&self, path: &Path) -> Result<Blob, ClientError> {
        let hashed = match &self.hashes {
            Some(memory) => KnownHashes::hash(memory, path),
            None => upload::hash(path),
        };
        let (hash, len) =
            hashed.map_err(|source| ClientError::File { path: path.to_owned(), source })?;
        Ok(Blob { hash, len, bytes: Bytes::File(path.to_owned()) })
    }

    /// What a job says: from its first word, or from now on.
    pub async fn watch(&self, job: JobId, from_start: bool) -> Result<JobStream, ClientError> {
        let (_, mut receive) = self.open(&ClientRequest::Watch { job, from_start }).await?;
        let reply = frame::read(&mut receive, MAX_REPLY_BYTES)
            .await
            .map_err(|error| self.broken(&error))?
            .ok_or_else(|| self.broken(&"it ended the stream"))?;
        match reply {
            ClientReply::Watching => {
                Ok(JobStream::new(receive, self.connection.clone(), self.address.clone()))
            }
            ClientReply::Refused(refusal) => Err(ClientError::Refused(refusal)),
            other => Err(self.unexpected(other)),
        }
    }

    /// All jobs, by id.
    pub async fn jobs(&self) -> Result<Vec<JobStatus>, ClientError> {
        match self.ask(&ClientRequest::Jobs).await? {
            ClientReply::Jobs(jobs) => Ok(jobs),
            other => Err(self.unexpected(other)),
        }
    }

    /// One job.
    pub async fn job(&self, job: JobId) -> Result<JobStatus, ClientError> {
        let found = self.jobs().await?.into_iter().find(|status| status.job == job);
        found.ok_or(ClientError::Refused(ClientRefusal::NoJob(job)))
    }

    /// The cluster.
    pub async fn status(&self) -> Result<ClusterStatus, ClientError> {
        match self.ask(&ClientRequest::Status).await? {
            ClientReply::Status(status) => Ok(status),
            other => Err(self.unexpected(other)),
        }
    }

    /// Ends a job; ended jobs stay as they are.
    pub async fn stop_job(&self, job: JobId) -> Result<(), ClientError> {
        self.done(ClientRequest::StopJob(job)).await
    }

    /// What there is, up to so many rows.
    pub async fn list(&self, what: Listed, limit: u32) -> Result<Rows, ClientError> {
        let answer = self.json(ClientRequest::List { what, limit }).await?;
        serde_json::from_value(answer)
            .map_err(|_| ClientError::Answer { address: self.address.clone() })
    }

    /// Why a task, an actor, an object or a job is where it is, and what happened to it, by its id
    /// in text: an object with the `head`'s reason and the `workers`' answers.
    pub async fn explain(&self, id: &str) -> Result<serde_json::Value, ClientError> {
        self.json(ClientRequest::Explain(id.to_owned())).await
    }

    /// Lets a worker finish what it has, then leave.
    pub async fn drain_worker(&self, worker: WorkerId) -> Result<(), ClientError> {
        self.done(ClientRequest::DrainWorker(worker)).await
    }

    /// Ends a worker at once and for good.
    pub async fn remove_worker(&self, worker: WorkerId) -> Result<(), ClientError> {
        self.done(ClientRequest::RemoveWorker(worker)).await
    }

    /// Ends the head; with `workers`, the whole cluster and its jobs.
    pub async fn shutdown_head(&self, workers: bool) -> Result<(), ClientError> {
        self.done(ClientRequest::Shutdown { workers }).await
    }

    /// Makes a token; its text is nowhere else.
    pub async fn token_create(
        &self,
        role: Role,
        ttl_seconds: Option<u64>,
        uses: Option<u32>,
    ) -> Result<String, ClientError> {
        match self.ask(&ClientRequest::TokenCreate { role, ttl_seconds, uses }).await? {
            ClientReply::Token(token) => Ok(token),
            other => Err(self.unexpected(other)),
        }
    }

    /// All tokens, without their secrets.
    pub async fn token_list(&self) -> Result<Vec<TokenStatus>, ClientError> {
        match self.ask(&ClientRequest::TokenList).await? {
            ClientReply::Tokens(tokens) => Ok(tokens),
            other => Err(self.unexpected(other)),
        }
    }

    /// Takes a token back.
    pub async fn token_revoke(&self, id: u64) -> Result<(), ClientError> {
        self.done(ClientRequest::TokenRevoke(id)).await
    }

    /// Waits until the head has closed the connection, after [`Self::shutdown_head`].
    pub async fn closed(&self) {
        self.connection.closed().await;
    }

    /// Ends the connection in good order.
    pub async fn close(self) {
        self.connection.close(close::DONE, "done");
        self.endpoint.short_farewell().await;
    }

    async fn done(&self, request: ClientRequest) -> Result<(), ClientError> {
        match self.ask(&request).await? {
            ClientReply::Done => Ok(()),
            other => Err(self.unexpected(other)),
        }
    }

    async fn json(&self, request: ClientRequest) -> Result<serde_json::Value, ClientError> {
        match self.ask(&request).await? {
            ClientReply::Json(text) => serde_json::from_str(&text)
                .map_err(|_| ClientError::Answer { address: self.address.clone() }),
            other => Err(self.unexpected(other)),
        }
    }

    async fn ask(&self, request: &ClientRequest) -> Result<ClientReply, ClientError> {
        let (mut send, receive) = self.open(request).await?;
        // A head that refuses may have stopped reading; its reply says why.
        let _ = send.finish();
        self.reply(receive).await
    }

    async fn open(
        &self,
        request: &ClientRequest,
    ) -> Result<(quinn::SendStream, quinn::RecvStream), ClientError> {
        let (mut send, receive) =
            self.connection.open_bi().await.map_err(|error| self.broken(&error))?;
        frame::write(&mut send, request).await.map_err(|error| self.broken(&error))?;
        Ok((send, receive))
    }

    async fn reply(&self, mut receive: quinn::RecvStream) -> Result<ClientReply, ClientError> {
        frame::read(&mut receive, MAX_REPLY_BYTES)
            .await
            .map_err(|error| self.broken(&error))?
            .ok_or_else(|| self.broken(&"it ended the stream"))
    }

    fn broken(&self, error: &dyn core::fmt::Display) -> ClientError {
        let reason = match self.connection.quinn().close_reason() {
            Some(reason) => reason.to_string(),
            None => error.to_string(),
        };
        ClientError::Broken { address: self.address.clone(), reason }
    }

    fn unexpected(&self, reply: ClientReply) -> ClientError {
        match reply {
            ClientReply::Refused(refusal) => ClientError::Refused(refusal),
            _ => ClientError::Answer { address: self.address.clone() },
        }
    }
}

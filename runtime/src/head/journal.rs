//! What the head remembers over its end: tables of records behind [`Store`], and the typed
//! [`Books`] on top.
//!
//! Records are written into the books as they change; [`Books::flush`] makes all of them durable
//! at once. The daemon flushes once in each turn, before anything that follows from the records
//! leaves the head. A record is one rkyv archive.

use std::collections::BTreeMap;
use std::path::Path;

use rdist_scheduler::id::{ActorId, JobId, WorkerId};
use rkyv::{Archive, Deserialize, Serialize};

use super::record::{AskedBy, JobRecord, WorkerRecord};
use crate::transport::TokenRecord;
use crate::wire;
use crate::wire::client::SubmissionId;

/// Layout of the records; grows with every change of one.
const FORMAT: u64 = 8;

/// A table of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Single numbers by name.
    Numbers,
    /// Jobs by id.
    Jobs,
    /// Tokens by id.
    Tokens,
    /// Workers by id.
    Workers,
    /// Actors by name.
    Names,
}

impl Table {
    fn name(self) -> &'static str {
        match self {
            Self::Numbers => "numbers",
            Self::Jobs => "jobs",
            Self::Tokens => "tokens",
            Self::Workers => "workers",
            Self::Names => "names",
        }
    }
}

/// The head's books cannot be kept.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// The store failed: most often a full disk.
    #[error(
        "the head's state in head/state cannot be {doing}: {reason}; check the disk, then \
             start the head again"
    )]
    Store {
        /// What was tried.
        doing: &'static str,
        /// What the store says.
        reason: String,
    },
    /// Written by another release.
    #[error(
        "the head's state in head/state has format {found}, and this rdist knows format \
             {FORMAT}: start the release that wrote it, or another RDIST_HOME"
    )]
    OtherFormat {
        /// Its format.
        found: u64,
    },
    /// A record that is none.
    #[error(
        "the head's state in head/state has a broken record in {table}: {reason}; restore \
             the folder, or start with another RDIST_HOME"
    )]
    Broken {
        /// Which table.
        table: &'static str,
        /// What is wrong.
        reason: String,
    },
}

/// Rows of a table, as bytes.
pub type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// Tables of bytes on something durable.
pub trait Store: Send {
    /// All rows of a table, by key.
    fn load(&self, table: Table) -> Result<Rows, JournalError>;
    /// Writes a row, or removes it (`None`). Durable after the next [`Self::flush`].
    fn write(&self, table: Table, key: &[u8], value: Option<&[u8]>) -> Result<(), JournalError>;
    /// Returns when all that was written is durable.
    fn flush(&self) -> Result<(), JournalError>;
}

/// [`Store`] on sled.
pub struct SledStore {
    database: sled::Db,
}

impl SledStore {
    /// Opens the folder, or makes it.
    pub fn open(folder: &Path) -> Result<Self, JournalError> {
        let database = sled::Config::new()
            .path(folder)
            .cache_capacity(64 << 20)
            .open()
            .map_err(|error| failed("opened", &error))?;
        Ok(Self { database })
    }

    fn tree(&self, table: Table) -> Result<sled::Tree, JournalError> {
        self.database.open_tree(table.name()).map_err(|error| failed("read", &error))
    }
}

fn failed(doing: &'static str, error: &sled::Error) -> JournalError {
    JournalError::Store { doing, reason: error.to_string() }
}

impl Store for SledStore {
    fn load(&self, table: Table) -> Result<Rows, JournalError> {
        let row = |row: sled::Result<(sled::IVec, sled::IVec)>| {
            row.map(|(key, value)| (key.to_vec(), value.to_vec()))
                .map_err(|error| failed("read", &error))
        };
        self.tree(table)?.iter().map(row).collect()
    }

    fn write(&self, table: Table, key: &[u8], value: Option<&[u8]>) -> Result<(), JournalError> {
        let tree = self.tree(table)?;
        let written = match value {
            Some(value) => tree.insert(key, value),
            None => tree.remove(key),
        };
        written.map(drop).map_err(|error| failed("written", &error))
    }

    fn flush(&self) -> Result<(), JournalError> {
        self.database.flush().map(drop).map_err(|error| failed("made durable", &error))
    }
}

/// Who has a name: the actor and its supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct NameRecord {
    /// The actor.
    pub actor: ActorId,
    /// Its supervisor.
    pub owner: WorkerId,
}

/// The head's records, in memory and in the store.
pub struct Books {
    store: Box<dyn Store>,
    dirty: bool,
    failure: Option<JournalError>,
    numbers: BTreeMap<String, u64>,
    jobs: BTreeMap<JobId, JobRecord>,
    /// The jobs that clients have submitted.
    submitted: BTreeMap<SubmissionId, JobId>,
    tokens: BTreeMap<u64, TokenRecord>,
    workers: BTreeMap<WorkerId, WorkerRecord>,
    names: BTreeMap<String, NameRecord>,
}

impl Books {
    /// Reads everything.
    pub fn open(store: Box<dyn Store>) -> Result<Self, JournalError> {
        let mut numbers = BTreeMap::new();
        for (key, value) in store.load(Table::Numbers)? {
            numbers.insert(text(Table::Numbers, key)?, number(Table::Numbers, &value)?);
        }
        let found = numbers.get("format").copied().unwrap_or(FORMAT);
        if found != FORMAT {
            return Err(JournalError::OtherFormat { found });
        }
        let mut books = Self {
            dirty: false,
            failure: None,
            numbers,
            jobs: BTreeMap::new(),
            submitted: BTreeMap::new(),
            tokens: BTreeMap::new(),
            workers: BTreeMap::new(),
            names: BTreeMap::new(),
            store,
        };
        for (_, value) in books.store.load(Table::Jobs)? {
            let job: JobRecord = wire::decode(&value).map_err(|e| broken(Table::Jobs, &e))?;
            books.remember(job);
        }
        for (_, value) in books.store.load(Table::Tokens)? {
            let token: TokenRecord = wire::decode(&value).map_err(|e| broken(Table::Tokens, &e))?;
            books.tokens.insert(token.id, token);
        }
        for (_, value) in books.store.load(Table::Workers)? {
            let worker: WorkerRecord =
                wire::decode(&value).map_err(|e| broken(Table::Workers, &e))?;
            books.workers.insert(worker.worker, worker);
        }
        for (key, value) in books.store.load(Table::Names)? {
            let name: NameRecord = wire::decode(&value).map_err(|e| broken(Table::Names, &e))?;
            books.names.insert(text(Table::Names, key)?, name);
        }
        books.set_number("format", FORMAT);
        Ok(books)
    }

    /// Makes all that changed durable. An error is for good: what was not written stays unknown.
    pub fn flush(&mut self) -> Result<(), JournalError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        if core::mem::take(&mut self.dirty) {
            self.store.flush().inspect_err(|error| self.failure = Some(error.clone()))?;
        }
        Ok(())
    }

    fn write(&mut self, table: Table, key: &[u8], value: Option<&[u8]>) {
        self.dirty = true;
        if let Err(error) = self.store.write(table, key, value) {
            self.failure.get_or_insert(error);
        }
    }

    /// A number by its name, 0 at first.
    pub fn number(&self, name: &str) -> u64 {
        self.numbers.get(name).copied().unwrap_or(0)
    }

    /// Sets a number.
    pub fn set_number(&mut self, name: &str, value: u64) {
        self.numbers.insert(name.to_owned(), value);
        self.write(Table::Numbers, name.as_bytes(), Some(&value.to_le_bytes()));
    }

    /// Counts a number up and gives its new value.
    pub fn count(&mut self, name: &str) -> u64 {
        let value = self.number(name) + 1;
        self.set_number(name, value);
        value
    }

    /// All jobs by id.
    pub fn jobs(&self) -> &BTreeMap<JobId, JobRecord> {
        &self.jobs
    }

    /// A job, to be changed in memory; [`Self::keep_job`] writes it.
    pub fn job_mut(&mut self, job: JobId) -> Option<&mut JobRecord> {
        self.jobs.get_mut(&job)
    }

    /// The job that was submitted so, unless it was forgotten.
    pub fn submitted(&self, id: SubmissionId) -> Option<JobId> {
        self.submitted.get(&id).copied()
    }

    /// Adds a job.
    pub fn add_job(&mut self, record: JobRecord) {
        let job = record.info.job;
        self.remember(record);
        self.keep_job(job);
    }

    fn remember(&mut self, record: JobRecord) {
        if let AskedBy::Client(id) = record.asked_by {
            self.submitted.insert(id, record.info.job);
        }
        self.jobs.insert(record.info.job, record);
    }

    /// Writes what memory holds of a job.
    pub fn keep_job(&mut self, job: JobId) {
        if let Some(record) = self.jobs.get(&job) {
            let bytes = wire::encode(record);
            self.write(Table::Jobs, &job.0.to_be_bytes(), Some(&bytes));
        }
    }

    /// Removes the ended jobs but for the last `kept` of them; gives those that are gone.
    pub fn forget_jobs(&mut self, kept: usize) -> Vec<JobId> {
        let ended = self.jobs.iter().filter(|(_, job)| job.state.is_ended());
        let ended: Vec<JobId> = ended.map(|(job, _)| *job).collect();
        let gone = ended[..ended.len().saturating_sub(kept)].to_vec();
        for job in &gone {
            let record = self.jobs.remove(job);
            if let Some(AskedBy::Client(id)) = record.map(|record| record.asked_by) {
                self.submitted.remove(&id);
            }
            self.write(Table::Jobs, &job.0.to_be_bytes(), None);
        }
        gone
    }

    /// All tokens by id.
    pub fn tokens(&self) -> &BTreeMap<u64, TokenRecord> {
        &self.tokens
    }

    /// Adds a token, or writes it anew.
    pub fn put_token(&mut self, record: TokenRecord) {
        self.write(Table::Tokens, &record.id.to_be_bytes(), Some(&wire::encode(&record)));
        self.tokens.insert(record.id, record);
    }

    /// Removes a token.
    pub fn drop_token(&mut self, id: u64) {
        if self.tokens.remove(&id).is_some() {
            self.write(Table::Tokens, &id.to_be_bytes(), None);
        }
    }

    /// All workers that ever joined, by id.
    pub fn workers(&self) -> &BTreeMap<WorkerId, WorkerRecord> {
        &self.workers
    }

    /// Adds a worker, or writes it anew.
    pub fn put_worker(&mut self, record: WorkerRecord) {
        self.write(Table::Workers, &record.worker.0.to_be_bytes(), Some(&wire::encode(&record)));
        self.workers.insert(record.worker, record);
    }

    /// All names.
    pub fn names(&self) -> &BTreeMap<String, NameRecord> {
        &self.names
    }

    /// Gives a name to an actor, or frees it.
    pub fn set_name(&mut self, name: String, record: Option<NameRecord>) {
        match record {
            Some(record) => {
                self.write(Table::Names, name.as_bytes(), Some(&wire::encode(&record)));
                self.names.insert(name, record);
            }
            None => {
                self.write(Table::Names, name.as_bytes(), None);
                self.names.remove(&name);
            }
        }
    }
}

fn broken(table: Table, error: &dyn core::fmt::Display) -> JournalError {
    JournalError::Broken { table: table.name(), reason: error.to_string() }
}

fn text(table: Table, bytes: Vec<u8>) -> Result<String, JournalError> {
    String::from_utf8(bytes).map_err(|error| broken(table, &error))
}

fn number(table: Table, bytes: &[u8]) -> Result<u64, JournalError> {
    bytes.try_into().map(u64::from_le_bytes).map_err(|error| broken(table, &error))
}

//! One object, as its owner or a borrower knows it.
//!
//! ```text
//!            owner                                     borrower
//! Absent --1--> Inline | Arena | Failed     Absent --4--> Inline | Arena | Failed
//!   ^              |                          ^             |
//!   +------2-------+--3--> (gone)             +------5------+--6--> (gone)
//! ```
//! 1 the task ended, or the value was put; 2 all copies are lost and the task runs again; 3 nobody
//! refers to it; 4 the owner said where it is; 5 no copy could be read, the owner is asked again;
//! 6 nobody here refers to it: the owner hears `Release`, and says when a copy here is to go.
//!
//! A borrower becomes the owner when the maker of its task runs again here. It starts at `Absent`,
//! whatever it could read before, and its task runs again: only the former owner counted the
//! references inside the old value.
//!
//! Invariants: RF-1 `holders` is the number of executors, borrowing workers, tasks, containing
//! values, actors and lineages that refer to the object. RF-2 an owner's entry has holders.
//! RF-3 a borrower's entry with holders is registered with its owner, if that lives. OB-1 a
//! worker other than this one is among an owned object's copies exactly where its peer entry
//! lists the object.

use std::sync::Arc;

use crate::few::Few;
use crate::id::{ExecutorId, WorkerId};
use crate::outcome::TaskError;
use crate::spec::Reference;
use crate::task::TaskKey;

/// One object. Small, since a worker may know of millions: what few have lies elsewhere.
#[derive(Debug)]
pub(crate) struct ObjectEntry {
    pub(crate) owner: WorkerId,
    pub(crate) value: Value,
    /// How many refer to it (RF-1).
    pub(crate) holders: u32,
    pub(crate) borrow: Borrow,
    /// The owner of a borrowed object was asked where it is, and has not answered.
    pub(crate) asked: bool,
    /// The owner freed its copy here, which is still in use.
    pub(crate) freed: bool,
    /// The worker's table has a value that a task of another owner made: it may be in use, but
    /// the references inside it are not counted here, so that it is not this object's value.
    pub(crate) leftover: bool,
    /// The value is known to have no references inside, so that several owners may share it.
    pub(crate) bare: bool,
    /// The owner of a replicated value counts on the copy here, or on the one that is fetched.
    pub(crate) keeps: bool,
    /// The record of its task counts it (LN-1).
    pub(crate) recorded: bool,
    /// A pull from there is under way.
    pub(crate) pull: Option<Box<WorkerId>>,
    /// That pull was begun for another owner: what it brings is not this owner's value.
    pub(crate) pull_is_stale: bool,
    pub(crate) waiters: Few<Waiter>,
    /// References inside the value, kept alive by it; known to the owner alone.
    pub(crate) contains: Option<Box<Contained>>,
}

const _: () = assert!(size_of::<ObjectEntry>() == 80);

/// References inside a value, of which most have none.
#[derive(Debug)]
pub(crate) struct Contained(pub(crate) Box<[Reference]>);

/// What is known of the value.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// It does not exist, or nobody has said where.
    Absent,
    /// In this worker's table, beside its messages.
    Inline,
    /// In arenas.
    Arena {
        /// Bytes.
        size: u64,
        /// Workers with a sealed copy, this one among them where it has one.
        copies: Few<WorkerId>,
    },
    /// It will never be there.
    Failed(Arc<TaskError>),
}

/// What the owner of a borrowed object knows of this borrower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Borrow {
    /// The object is owned here.
    Owned,
    /// The owner does not count this worker.
    Unregistered,
    /// The owner counts it, or will when `Retain` arrives.
    Registered,
    /// As `Registered`; a `Release` waits in the outbox.
    Releasing,
}

/// Who waits for a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiter {
    /// A task with that stamp.
    Task(TaskKey, u64),
    /// An executor, for a delivery.
    Executor(ExecutorId),
    /// A worker, for the place, of which it may fetch a copy at once.
    Peer { worker: WorkerId, fetches: bool },
}

impl ObjectEntry {
    /// Whether nobody here refers to it, nor has its owner been told that somebody does.
    pub(crate) fn is_unreferenced(&self) -> bool {
        self.holders == 0 && self.borrow == Borrow::Unregistered
    }

    pub(crate) fn new(owner: WorkerId, borrow: Borrow) -> Self {
        Self {
            owner,
            value: Value::Absent,
            holders: 0,
            borrow,
            asked: false,
            freed: false,
            leftover: false,
            bare: false,
            keeps: false,
            recorded: false,
            pull: None,
            pull_is_stale: false,
            waiters: Few::None,
            contains: None,
        }
    }

    /// References inside the value.
    pub(crate) fn contains(&self) -> &[Reference] {
        self.contains.as_ref().map_or(&[], |contained| &contained.0)
    }

    pub(crate) fn is_owned(&self) -> bool {
        self.borrow == Borrow::Owned
    }

    /// Whether it can be read on `here`.
    pub(crate) fn is_readable(&self, here: WorkerId) -> bool {
        match &self.value {
            Value::Inline => true,
            Value::Arena { copies, .. } => copies.contains(&here),
            Value::Absent | Value::Failed(_) => false,
        }
    }

    /// Whether the table of `here` has bytes of it.
    pub(crate) fn is_in_table(&self, here: WorkerId) -> bool {
        self.leftover || self.is_readable(here)
    }

    /// Whether it exists somewhere.
    pub(crate) fn is_available(&self) -> bool {
        matches!(self.value, Value::Inline | Value::Arena { .. })
    }
}

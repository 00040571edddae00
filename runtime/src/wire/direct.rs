//! Between two executors of one job on one worker, through two rings that only they share.
//!
//! ```text
//! caller ──DirectCall ring──► callee      calls of actors that live in the callee; leased tasks
//! caller ◄─DirectReply ring── callee      their results
//! ```
//! ```text
//! frame    token u64 | 0 u64 | archived message
//! ```
//! The token of a call, which its reply repeats, stands in front, so that a message is archived
//! before its call has one.
//!
//! Participants: the caller and the callee; the worker has made the rings, tells both of each
//! route to an actor, and of the other's death. Each side takes the frames of the other for hostile
//! input: one that cannot be read ends the process that reads it, and nothing outside of the job.
#![allow(missing_docs, reason = "rkyv derives archived fields without docs")]

use rdist_scheduler::id::{ActorId, TaskId, WorkerId};
use rdist_scheduler::outcome::TaskError;
use rkyv::with::AsBox;
use rkyv::{Archive, Deserialize, Serialize};

use super::Malformed;

/// Bytes of each ring's data area; memory is taken where it is used.
pub const DIRECT_RING_BYTES: usize = 256 << 10;

/// Bytes of a frame before its message.
pub const HEAD_BYTES: usize = 16;

/// A frame's token and message.
///
/// # Errors
/// For a frame without a head.
pub fn split(frame: &[u8]) -> Result<(u64, &[u8]), Malformed> {
    let head = frame.first_chunk::<8>().filter(|_| frame.len() > HEAD_BYTES);
    let head = head.ok_or_else(|| Malformed("it has no head".to_owned()))?;
    Ok((u64::from_le_bytes(*head), &frame[HEAD_BYTES..]))
}

/// Caller to callee.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum DirectCall {
    /// What follows comes after all that the worker had said before this fence.
    After(u64),
    /// A call.
    Call {
        /// Its id.
        id: TaskId,
        /// The task that makes it.
        parent: TaskId,
        /// The actor, and the worker that supervises it.
        actor: (ActorId, WorkerId),
        /// The method.
        function: u64,
        /// Its arguments.
        body: Vec<u8>,
    },
    /// A plain task that asks for one CPU and nothing else, by a lease.
    Run {
        /// Its id.
        id: TaskId,
        /// The task that submits it.
        parent: TaskId,
        /// The lease's number.
        lease: u64,
        /// The function.
        function: u64,
        /// How often it is run again when its executor is lost.
        max_retries: u32,
        /// Its arguments.
        body: Vec<u8>,
    },
}

/// Callee to caller. There is none for a call whose actor has ended: the worker tells that; nor
/// for one whose value lies in the store or has references inside, which goes by the worker; nor
/// for a task that has left its lease.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum DirectReply {
    /// It returned at most [`MAX_INLINE_BYTES`](super::executor::MAX_INLINE_BYTES).
    Value(Vec<u8>),
    /// It did not.
    Failed(#[rkyv(with = AsBox)] TaskError),
    /// A leased task returned at most [`MAX_INLINE_BYTES`](super::executor::MAX_INLINE_BYTES).
    Ran {
        /// What.
        value: Vec<u8>,
        /// How long it ran.
        nanos: u64,
    },
    /// A leased task comes back: its lease was over before it started.
    NotStarted,
}

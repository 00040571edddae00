//! What is kept for each other worker, and messages to it that have to wait.
//!
//! Some messages let the receiver drop references that this worker has just borrowed from a third
//! one: the outcome of a task, and a release. They wait until every owner that was told `Retain`
//! before has answered; a link is ordered, so that what goes to that owner itself need not wait.

use std::collections::VecDeque;

use smallvec::SmallVec;

use super::LocalCore;
use crate::hash::{FastMap, FastSet, IdMap, IdSet};
use crate::id::{ActorId, ObjectId, TaskId, WorkerId};
use crate::message::PeerMessage;

/// Another worker.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// Objects owned here of which it has a copy (OB-1).
    pub(super) copies: IdSet<ObjectId>,
    /// Objects owned here that it borrows.
    pub(super) borrows: IdSet<ObjectId>,
    /// Objects that it owns and that have an entry here.
    pub(super) borrowed: IdSet<ObjectId>,
    /// Tasks owned here that are there.
    pub(super) placed: IdSet<TaskId>,
    /// Tasks and actors here that it owns.
    pub(super) hosted: IdSet<TaskId>,
    /// Actors that it supervises, or that live there; some of them did once.
    pub(super) actors: IdSet<ActorId>,
    /// References inside results that it has not counted yet, by attempt and in the order in which
    /// the results were sent: a task that its owner forgot and submitted again has several.
    pub(super) settling: FastMap<(TaskId, u32), SmallVec<[Vec<ObjectId>; 1]>>,
    pub(super) retains_sent: u64,
    pub(super) retains_answered: u64,
}

impl LocalCore {
    /// Whether a message of a worker, or of the head, is to be handed to [`Self::handle`], after
    /// its values were stored: by the number that its sender gave it, it has not been taken before
    /// (see [`crate::message`]), and its sender lives. It counts as taken.
    pub fn is_news(&mut self, from: WorkerId, number: u64) -> bool {
        !self.has_lost(from) && self.taken.entry(from).or_default().is_news(number)
    }
}

/// Messages that wait for answers to `Retain`s.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Workers that have `Retain`s to answer.
    pub(super) owing: FastSet<WorkerId>,
    pub(super) waiting: VecDeque<Deferred>,
    /// Inline values that messages carry which are not sent yet: they stay in the table.
    pub(super) carried: IdMap<ObjectId, u32>,
}

impl Outbox {
    /// A message with the value has been sent.
    pub(super) fn carried_once(&mut self, object: ObjectId) {
        if let Some(messages) = self.carried.get_mut(&object) {
            *messages -= 1;
            if *messages == 0 {
                self.carried.remove(&object);
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Deferred {
    pub(super) what: What,
    /// Workers, and how many `Retain`s they must have answered.
    pub(super) until: Answers,
}

pub(super) type Answers = SmallVec<[(WorkerId, u64); 2]>;

#[derive(Debug)]
pub(super) enum What {
    /// To that worker; then the inline values go.
    Message { to: WorkerId, message: PeerMessage, free: SmallVec<[ObjectId; 1]> },
    /// The object is not used here, unless somebody took it up again.
    Release(ObjectId),
}

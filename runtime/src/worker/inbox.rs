//! What the dispatch thread is told by the network thread, and the bell that wakes it.

use std::sync::Arc;
use std::sync::mpsc;

use rdist_scheduler::id::{ExecutorId, ObjectId, WorkerId};
use rdist_scheduler::outcome::Death;
use tokio::sync::oneshot;

use crate::ring::Bell;
use crate::store::{Incoming, SpillError, View};
use crate::wire::cluster::{HeadToWorker, PeerFrame, Place};

/// One thing that happened outside the dispatch thread.
#[derive(Debug)]
pub(super) enum Note {
    /// An executor's process ended, or never started.
    ExecutorEnded { executor: ExecutorId, death: Death },
    /// A driver will print nothing more. Its process may still live.
    DriverSilent(ExecutorId),
    /// The link to the head is up; `fresh`: the head has no memory of this worker's link.
    HeadFound { fresh: bool, meeting: u64 },
    /// The link to the head is down.
    HeadLost,
    /// The head said something.
    FromHead(Box<HeadToWorker>),
    /// Another worker said something.
    FromPeer { from: WorkerId, frame: Box<PeerFrame> },
    /// A pull ended: the block is filled, or it failed.
    Pulled { object: ObjectId, from: WorkerId, block: Incoming, complete: bool },
    /// Another worker fetches an object.
    ObjectWanted { object: ObjectId, reply: oneshot::Sender<Option<Served>> },
    /// A value was written to disk, or not.
    Spilled { object: ObjectId, result: Result<(), SpillError> },
    /// The block was filled from disk, or not.
    Restored { object: ObjectId, block: Incoming, result: Result<(), SpillError> },
    /// End: at once, or after what runs has ended.
    Stop { drain: bool },
}

/// A value as the network thread sends it.
#[derive(Debug)]
pub(super) enum Served {
    /// Small.
    Inline(Box<[u8]>),
    /// In the arena; the view keeps it there.
    Arena { view: View, place: Option<Place> },
}

/// The sending side; any thread's.
#[derive(Debug, Clone)]
pub(super) struct Inbox {
    notes: mpsc::Sender<Note>,
    bell: Arc<Bell>,
}

impl Inbox {
    /// An inbox that rings `bell`, and the receiving side.
    pub(super) fn new(bell: Arc<Bell>) -> (Self, mpsc::Receiver<Note>) {
        let (notes, receiver) = mpsc::channel();
        (Self { notes, bell }, receiver)
    }

    /// Tells the dispatch thread; a no-op once that has ended.
    pub(super) fn tell(&self, note: Note) {
        if self.notes.send(note).is_ok() {
            self.bell.ring();
        }
    }
}

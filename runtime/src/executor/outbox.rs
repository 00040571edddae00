//! What this process says to its worker, from any of its threads.
//!
//! Frames leave in the order of the calls. Most are published at once, since that is one store
//! and, where the worker sleeps, one ring of its bell; messages that nobody waits for (`Released`,
//! `Retained`) wait for the next of the others, for a batch to fill, or for the thread to wait.
//!
//! A full ring never blocks the caller here: frames go to a backlog, in order. Threads with user
//! code on their stack let the backlog shrink before they go on (`Process::send`).

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rkyv::rancor::Error as RkyvError;
use rkyv::util::AlignedVec;

use crate::ring::{SendError, Sender};
use crate::wire::executor::FromExecutor;

/// Lazy frames that may wait for a publish.
const LAZY_FRAMES: usize = 64;
/// Largest buffer that a thread keeps for its next message.
const KEPT_BUFFER_BYTES: usize = 64 << 10;

/// The sending end, shared.
#[derive(Debug)]
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    /// Frames in the backlog, for a look without the lock.
    behind: AtomicUsize,
}

#[derive(Debug)]
struct Queue {
    sender: Sender,
    backlog: VecDeque<AlignedVec>,
    unpublished: usize,
}

thread_local! {
    static BUFFER: Cell<Option<AlignedVec>> = const { Cell::new(None) };
}

impl Outbox {
    pub(crate) fn new(sender: Sender) -> Self {
        let queue = Queue { sender, backlog: VecDeque::new(), unpublished: 0 };
        Self { queue: Mutex::new(queue), behind: AtomicUsize::new(0) }
    }

    /// Sends a message; never blocks.
    pub(crate) fn send(&self, message: &FromExecutor) {
        let is_lazy = matches!(message, FromExecutor::Released(_) | FromExecutor::Retained(_));
        let mut buffer = BUFFER.try_with(Cell::take).ok().flatten().unwrap_or_default();
        buffer.clear();
        let frame = rkyv::api::high::to_bytes_in::<_, RkyvError>(message, buffer)
            .expect("our own messages archive without errors");
        let mut queue = self.lock();
        self.push(&mut queue, &frame);
        queue.unpublished += 1;
        if !is_lazy || queue.unpublished >= LAZY_FRAMES {
            queue.publish();
        }
        drop(queue);
        if frame.capacity() <= KEPT_BUFFER_BYTES {
            // At the end of a thread's life there is nothing to keep it for.
            let _ = BUFFER.try_with(|kept| kept.set(Some(frame)));
        }
    }

    fn push(&self, queue: &mut Queue, frame: &AlignedVec) {
        if !queue.backlog.is_empty() || !try_send(&mut queue.sender, frame) {
            queue.backlog.push_back(frame.clone());
            self.behind.store(queue.backlog.len(), Ordering::Relaxed);
        }
    }

    /// Publishes what is not yet, and sends what the ring has room for; whether anything moved.
    pub(crate) fn flush(&self) -> bool {
        let mut queue = self.lock();
        let before = queue.backlog.len();
        let Queue { sender, backlog, .. } = &mut *queue;
        while let Some(frame) = backlog.front()
            && try_send(sender, frame)
        {
            backlog.pop_front();
        }
        self.behind.store(queue.backlog.len(), Ordering::Relaxed);
        queue.publish();
        queue.backlog.len() != before
    }

    /// Frames that wait for room in the ring.
    pub(crate) fn behind(&self) -> usize {
        self.behind.load(Ordering::Relaxed)
    }

    /// Before a sleep: false means that there is room for the backlog now.
    pub(crate) fn announce_wait(&self) -> bool {
        let mut queue = self.lock();
        queue.backlog.is_empty() || queue.sender.announce_wait()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn publish(&mut self) {
        self.unpublished = 0;
        self.sender.publish();
    }
}

/// False: no room now.
fn try_send(sender: &mut Sender, frame: &[u8]) -> bool {
    match sender.try_send(frame) {
        Ok(sent) => sent,
        Err(SendError::Corrupt(corrupt)) => super::abandon(&corrupt.to_string()),
        // Makers of messages keep to the limits; a frame that breaks one is a fault of this
        // library, and the worker could not tell what is missing.
        Err(error @ SendError::TooLarge { .. }) => super::abandon(&error.to_string()),
    }
}

//! What this process says to its worker, or to another executor, from any of its threads.
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
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use rkyv::Serialize;
use rkyv::api::high::HighSerializer;
use rkyv::rancor::Error as RkyvError;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;

use crate::ring::{SendError, Sender};
use crate::wire::direct::HEAD_BYTES;
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
    /// The peer is to read all of it, whatever it waits for.
    is_urgent: bool,
}

/// When a frame is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Haste {
    /// With the next of the others.
    Lazy,
    /// When the peer reads next; its sleep ends.
    Usual,
    /// The same of a peer that sleeps without having announced that.
    Urgent,
}

thread_local! {
    static BUFFER: Cell<Option<AlignedVec>> = const { Cell::new(None) };
}

impl Outbox {
    pub(crate) fn new(sender: Sender) -> Self {
        let queue = Queue { sender, backlog: VecDeque::new(), unpublished: 0, is_urgent: false };
        Self { queue: Mutex::new(queue), behind: AtomicUsize::new(0) }
    }

    /// Sends a message to the worker; never blocks.
    pub(crate) fn send(&self, message: &FromExecutor) {
        let is_lazy = matches!(message, FromExecutor::Released(_) | FromExecutor::Retained(_));
        let how = if is_lazy { Haste::Lazy } else { Haste::Usual };
        self.write(archive(message, 0), how);
    }

    /// Sends a message to another executor; never blocks.
    pub(super) fn transmit(&self, draft: Draft) {
        self.write(draft.0, Haste::Usual);
    }

    /// As [`transmit`](Self::transmit), and wakes the other executor even where nobody there waits
    /// for a reply.
    pub(super) fn transmit_urgently(&self, draft: Draft) {
        self.write(draft.0, Haste::Urgent);
    }

    fn write(&self, frame: AlignedVec, how: Haste) {
        let mut queue = self.lock();
        self.push(&mut queue, &frame);
        queue.unpublished += 1;
        queue.is_urgent |= how == Haste::Urgent;
        if how != Haste::Lazy || queue.unpublished >= LAZY_FRAMES {
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

    /// Whether the peer has taken all that was sent, and dealt with it. `mark` is for one wait:
    /// what is sent meanwhile does not lengthen it.
    pub(super) fn is_taken(&self, mark: &mut Option<u64>) -> bool {
        let mut queue = self.lock();
        if mark.is_none() && !queue.backlog.is_empty() {
            return false;
        }
        let mark = *mark.get_or_insert(queue.sender.written());
        match queue.sender.is_taken(mark) {
            Ok(is_taken) => is_taken,
            Err(corrupt) => super::abandon(&corrupt.to_string()),
        }
    }

    /// Before a sleep: false means that there is room for the backlog now.
    pub(crate) fn announce_wait(&self) -> bool {
        let mut queue = self.lock();
        queue.backlog.is_empty() || queue.sender.announce_wait()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        lock_soon(&self.queue)
    }
}

/// Offers of the core before a thread sleeps for a lock.
const YIELDS: u32 = 32;

/// A lock that is held for less than a microsecond at a time, and often wanted by several threads:
/// who finds it taken offers its core to whoever holds it. To sleep for it would cost both a system
/// call, and the next one too.
pub(super) fn lock_soon<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    for _ in 0..YIELDS {
        match mutex.try_lock() {
            Ok(guard) => return guard,
            Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => rustix::thread::sched_yield(),
        }
    }
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A message to another executor.
pub(super) struct Draft(AlignedVec);

impl Draft {
    pub(super) fn new<T>(message: &T) -> Self
    where
        T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, RkyvError>>,
    {
        Self(archive(message, HEAD_BYTES))
    }

    /// Of the call with that token.
    pub(super) fn of(mut self, token: u64) -> Self {
        self.0[..8].copy_from_slice(&token.to_le_bytes());
        self
    }
}

/// A message behind so many zeros.
fn archive<T>(message: &T, head: usize) -> AlignedVec
where
    T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, RkyvError>>,
{
    let mut buffer = BUFFER.try_with(Cell::take).ok().flatten().unwrap_or_default();
    buffer.clear();
    buffer.resize(head, 0);
    rkyv::api::high::to_bytes_in::<_, RkyvError>(message, buffer)
        .expect("our own messages archive without errors")
}

impl Queue {
    fn publish(&mut self) {
        self.unpublished = 0;
        self.sender.publish();
        if self.is_urgent {
            self.sender.ring();
            self.is_urgent = !self.backlog.is_empty();
        }
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

//! Segments that arrive over the socket.
//!
//! Nobody listens to the socket all the time: whoever needs a segment that is not there receives
//! messages until it is, one thread at a time, and the others wait for what it finds.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use rdist_scheduler::id::ExecutorId;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::StoreError;
use crate::ring::Bell;
use crate::store::local_socket::{LocalSocket, SocketError};
use crate::store::memory::{Access, Memory, View};
use crate::wire::executor::{Block, SocketMessage};

/// All segments that this executor knows. Shared by its threads.
#[derive(Debug)]
pub struct Segments {
    socket: Arc<LocalSocket>,
    mapped: RwLock<HashMap<u32, Arc<Memory>>>,
    inbox: Mutex<Inbox>,
    changed: Condvar,
    /// Ends the wait of the thread that receives, for a change that did not come by the socket.
    nudge: Bell,
    waiting: AtomicUsize,
}

/// What came over the socket and is for the writer.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// A thread is in `receive`.
    is_receiving: bool,
    /// The socket has ended.
    is_closed: bool,
    pub(super) granted: VecDeque<(u32, Arc<Memory>)>,
    /// The answer to the last request, where it was no.
    pub(super) refused: Option<String>,
    /// Asked, and no answer yet.
    pub(super) is_asked: bool,
    /// Rings with other executors that nobody has taken yet: the message, and its descriptors.
    links: Vec<(SocketMessage, Vec<OwnedFd>)>,
    /// Counts reclaims.
    pub(super) reclaims: u64,
}

impl Segments {
    /// Knows no segment yet; receives them from `socket`, after `Welcome` has been taken from it.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn new(socket: Arc<LocalSocket>) -> std::io::Result<Self> {
        Ok(Self {
            socket,
            mapped: RwLock::default(),
            inbox: Mutex::default(),
            changed: Condvar::new(),
            nudge: Bell::new()?,
            waiting: AtomicUsize::new(0),
        })
    }

    /// A sealed block, in place. Waits for its segment if that has not arrived yet. The view may
    /// be used until the executor says `Released`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn read(&self, block: Block) -> Result<View, StoreError> {
        let memory = match self.memory(block.segment) {
            Some(memory) => memory,
            None => self.wait(|_| self.memory(block.segment))?,
        };
        // Safety: the worker names sealed blocks only, and lets their writer use them again only
        // after this executor has said `Released`, which it does when no view is left.
        let view = unsafe { View::new(memory, block.offset, block.len, None) };
        view.ok_or(StoreError::BadBlock(block))
    }

    /// Rings with another executor: bytes of each, their memory, the other's bell. Waits until they
    /// have arrived.
    ///
    /// # Errors
    /// [`StoreError::Worker`] when the worker is gone.
    pub fn take_link(
        &self,
        other: ExecutorId,
        as_caller: bool,
    ) -> Result<(u64, Vec<OwnedFd>), StoreError> {
        self.wait(|inbox| {
            let is_meant = |(message, _): &(SocketMessage, Vec<OwnedFd>)| {
                matches!(message, SocketMessage::Link { peer, is_caller, .. }
                    if *peer == other && *is_caller == as_caller)
            };
            let at = inbox.links.iter().position(is_meant)?;
            let (message, fds) = inbox.links.remove(at);
            let SocketMessage::Link { ring_bytes, .. } = message else { return None };
            Some((ring_bytes, fds))
        })
    }

    /// Takes in what has arrived, without waiting. For a loop that polls the socket anyway.
    ///
    /// # Errors
    /// [`StoreError::Worker`] when the worker is gone.
    pub fn pump(&self) -> Result<(), StoreError> {
        let mut inbox = self.lock();
        if inbox.is_receiving {
            return Ok(());
        }
        while let Some((message, fds)) = self.socket.try_recv().inspect_err(|_| {
            inbox.is_closed = true;
            self.changed.notify_all();
        })? {
            self.apply(&mut inbox, message, fds)?;
            self.changed.notify_all();
        }
        Ok(())
    }

    /// The mapping of a segment that has arrived.
    fn memory(&self, segment: u32) -> Option<Arc<Memory>> {
        self.mapped.read().unwrap_or_else(PoisonError::into_inner).get(&segment).cloned()
    }

    /// These segments are no longer read or written here.
    pub(super) fn forget(&self, segments: &[u32]) {
        let mut mapped = self.mapped.write().unwrap_or_else(PoisonError::into_inner);
        mapped.retain(|segment, _| !segments.contains(segment));
    }

    /// Wakes a thread in [`Self::wait`] after a change of the inbox.
    pub(super) fn nudge(&self) {
        self.changed.notify_all();
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.nudge.ring();
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Receives messages until `ready` finds what it wants.
    pub(super) fn wait<T>(
        &self,
        mut ready: impl FnMut(&mut Inbox) -> Option<T>,
    ) -> Result<T, StoreError> {
        let mut inbox = self.lock();
        loop {
            if let Some(found) = ready(&mut inbox) {
                return Ok(found);
            }
            if inbox.is_closed {
                return Err(SocketError::Closed.into());
            }
            if inbox.is_receiving {
                inbox = self.changed.wait(inbox).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            inbox.is_receiving = true;
            self.waiting.fetch_add(1, Ordering::SeqCst);
            drop(inbox);
            let received = self.receive();
            inbox = self.lock();
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            inbox.is_receiving = false;
            self.changed.notify_all();
            match received {
                Ok(Some((message, fds))) => self.apply(&mut inbox, message, fds)?,
                Ok(None) => {}
                Err(error) => {
                    inbox.is_closed = true;
                    return Err(error.into());
                }
            }
        }
    }

    /// Waits for a message, or a nudge.
    fn receive(&self) -> Result<Option<(SocketMessage, Vec<OwnedFd>)>, SocketError> {
        let mut fds =
            [PollFd::new(&*self.socket, PollFlags::IN), PollFd::new(&self.nudge, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        self.nudge.drain();
        self.socket.try_recv()
    }

    fn apply(
        &self,
        inbox: &mut Inbox,
        message: SocketMessage,
        mut fds: Vec<OwnedFd>,
    ) -> Result<(), StoreError> {
        match message {
            SocketMessage::Segment { segment, len, writable } => {
                let access = if writable { Access::Write } else { Access::Read };
                inbox.is_asked &= !writable;
                let fd = fds.pop().ok_or(std::io::ErrorKind::InvalidData.into());
                let memory = fd
                    .and_then(|fd| Memory::map(fd, usize::try_from(len).unwrap_or(0), access))
                    .map_err(|source| StoreError::Map { segment, source })?;
                let memory = Arc::new(memory);
                if writable {
                    inbox.granted.push_back((segment, memory.clone()));
                }
                let mut mapped = self.mapped.write().unwrap_or_else(PoisonError::into_inner);
                mapped.insert(segment, memory);
            }
            SocketMessage::SegmentRefused { reason } => {
                inbox.is_asked = false;
                inbox.refused = Some(reason);
            }
            SocketMessage::Link { .. } => inbox.links.push((message, fds)),
            // The first messages, taken long ago; a second one changes nothing.
            SocketMessage::Welcome { .. } | SocketMessage::Begin { .. } => {}
        }
        Ok(())
    }
}

/// The socket, to be polled for reading; then [`Segments::pump`].
impl AsFd for Segments {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

//! The worker's end of one executor: its rings, its bell, its socket, what it may see.

use std::collections::{HashSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rdist_scheduler::id::{ExecutorId, JobId, WorkerId};
use rdist_scheduler::outcome::Death;
use rkyv::util::AlignedVec;

use crate::ring::{Bell, DEFAULT_RING_BYTES, Receiver, RingError, RingPair, Sender};
use crate::store::{Arena, Grant, LocalSocket, SocketError};
use crate::wire::direct::DIRECT_RING_BYTES;
use crate::wire::encode;
use crate::wire::executor::{Block, SocketMessage, ToExecutor, Value};

/// Shared memory or a socket that cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum CreateError {
    #[error(transparent)]
    Ring(#[from] RingError),
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("an event descriptor cannot be made: {0}")]
    Bell(#[from] std::io::Error),
}

/// One executor, from the request to start it until its process has ended.
#[derive(Debug)]
pub(super) struct Executor {
    pub id: ExecutorId,
    pub job: JobId,
    /// Other jobs, of which it has run calls of its actors.
    pub guests: HashSet<JobId>,
    /// Runs the job's main function.
    pub is_driver: bool,
    /// Set when it broke the protocol: its messages are no longer read, and this is its death.
    pub misbehaved: Option<String>,
    /// Set when the core asked for its end.
    pub stopping: bool,
    sender: Sender,
    pub receiver: Receiver,
    /// What wakes it.
    bell: Arc<Bell>,
    socket: LocalSocket,
    /// Segments that it can map.
    announced: HashSet<u32>,
    /// Frames that found the ring full.
    waiting: VecDeque<AlignedVec>,
    unpublished: bool,
}

impl Executor {
    /// Makes rings and socket, with `Welcome` waiting in it, and gives the executor's end of the
    /// socket, for its process to inherit.
    pub(super) fn create(
        (id, job, is_driver): (ExecutorId, JobId, bool),
        worker: WorkerId,
        worker_bell: &Bell,
    ) -> Result<(Self, OwnedFd), CreateError> {
        let (memory, rings) = RingPair::create(DEFAULT_RING_BYTES)?;
        let bell = Arc::new(Bell::new()?);
        let (socket, theirs) = LocalSocket::pair()?;
        let ring_bytes = DEFAULT_RING_BYTES as u64;
        let welcome = SocketMessage::Welcome { executor: id, worker, job, ring_bytes };
        socket.send(&welcome, &[memory.as_fd(), worker_bell.as_fd(), bell.as_fd()])?;
        let (sender, receiver) = rings.split(bell.clone());
        let executor = Self {
            id,
            job,
            guests: HashSet::new(),
            is_driver,
            misbehaved: None,
            stopping: false,
            sender,
            receiver,
            bell,
            socket,
            announced: HashSet::new(),
            waiting: VecDeque::new(),
            unpublished: false,
        };
        Ok((executor, theirs.into_fd()))
    }

    /// Sends `message`, visible after the next [`Self::flush`]. Blocks that it names are announced
    /// first.
    pub(super) fn send(&mut self, message: &ToExecutor, arena: &Arena) {
        match message {
            ToExecutor::Run { dependencies, .. } => {
                for value in dependencies {
                    self.announce(value, arena);
                }
            }
            ToExecutor::Ready { value, .. } => self.announce(value, arena),
            _ => {}
        }
        let frame = encode(message);
        if !self.waiting.is_empty() || !self.try_send(&frame) {
            self.waiting.push_back(frame);
        }
    }

    fn try_send(&mut self, frame: &[u8]) -> bool {
        match self.sender.try_send(frame) {
            Ok(sent) => {
                self.unpublished |= sent;
                sent
            }
            Err(error) => {
                self.misbehaved.get_or_insert(format!("its ring cannot be written: {error}"));
                true
            }
        }
    }

    fn announce(&mut self, value: &Value, arena: &Arena) {
        let Value::Block(Block { segment, .. }) = value else { return };
        if !self.announced.insert(*segment) {
            return;
        }
        let sent = match arena.read_only(*segment) {
            Ok((descriptor, len)) => {
                let message = SocketMessage::Segment { segment: *segment, len, writable: false };
                self.tell(&message, &[descriptor.as_fd()])
            }
            Err(error) => Err(format!("a segment cannot be handed to it: {error}")),
        };
        self.blame(sent);
    }

    /// Gives it a segment to write into, or says why not.
    pub(super) fn grant(&mut self, granted: Result<Grant, String>) {
        let sent = match granted {
            Ok(grant) => {
                self.announced.insert(grant.segment);
                let (segment, len) = (grant.segment, grant.len);
                let message = SocketMessage::Segment { segment, len, writable: true };
                self.tell(&message, &[grant.fd.as_fd()])
            }
            Err(reason) => self.tell(&SocketMessage::SegmentRefused { reason }, &[]),
        };
        self.blame(sent);
    }

    /// Gives it its end of rings with another executor, whose bell is `bell`.
    pub(super) fn link(
        &mut self,
        (peer, bell): (ExecutorId, &Bell),
        is_caller: bool,
        memory: BorrowedFd<'_>,
    ) {
        let ring_bytes = DIRECT_RING_BYTES as u64;
        let message = SocketMessage::Link { peer, is_caller, ring_bytes };
        let sent = self.tell(&message, &[memory, bell.as_fd()]);
        self.blame(sent);
    }

    /// What wakes it.
    pub(super) fn bell(&self) -> Arc<Bell> {
        self.bell.clone()
    }

    /// The worker must not wait for an executor: one that leaves its socket unread until it is
    /// full is broken.
    fn tell(&self, message: &SocketMessage, fds: &[BorrowedFd<'_>]) -> Result<(), String> {
        match self.socket.try_send(message, fds) {
            Ok(true) => Ok(()),
            Ok(false) => Err("it leaves its socket unread".to_owned()),
            // Its process has ended: the end is reported with a better reason.
            Err(SocketError::Closed) => Ok(()),
            Err(error) => Err(format!("its socket cannot be written: {error}")),
        }
    }

    fn blame(&mut self, sent: Result<(), String>) {
        if let Err(reason) = sent {
            self.misbehaved.get_or_insert(reason);
        }
    }

    /// Makes what was sent visible, and wakes the executor if it sleeps.
    pub(super) fn flush(&mut self) {
        while let Some(frame) = self.waiting.pop_front() {
            if !self.try_send(&frame) {
                self.waiting.push_front(frame);
                break;
            }
        }
        if std::mem::take(&mut self.unpublished) {
            self.sender.publish();
        }
    }

    /// Whether frames wait for room in the ring.
    pub(super) fn is_congested(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// How it ended, seen from outside and from inside.
    pub(super) fn death(&mut self, seen: Death) -> Death {
        match self.misbehaved.take() {
            Some(reason) => Death::Misbehaved { reason },
            None if self.stopping => Death::Ended,
            None => seen,
        }
    }
}

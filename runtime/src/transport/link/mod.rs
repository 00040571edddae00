//! A link: frames with one peer, in order and once, over one connection after the other.
//!
//! [`dial`] makes the side that calls and calls again; [`LinkServer`] keeps the sides that are
//! called, one for each peer. Either gives a [`LinkHandle`], usable from any thread, and reports
//! [`LinkEvent`]s to a function of its owner. `state` holds the rules, `shell` the tokio task.
//! Not here: what the frames mean, and when a peer that does not come back is given up.

mod shell;
mod state;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::discover::Target;
use super::identity::Peer;
use super::quic::{ConnectError, Connection, Endpoint};
use crate::wire::cluster::MAX_LINK_FRAME_BYTES;

pub use shell::{Caller, CallerError, receive_caller};
use shell::{Command, Shell, Source};

/// What happens on a link.
#[derive(Debug)]
pub enum LinkEvent {
    /// There is a connection.
    Connected {
        /// The other side remembers nothing: answer with [`LinkHandle::begin`] on a link that was
        /// dialled as [`Opening::Announced`].
        fresh: bool,
        /// For `begin`.
        meeting: u64,
        /// For other streams beside the link.
        connection: Connection,
    },
    /// The other side sent a frame.
    Frame(Vec<u8>),
    /// The connection broke; a dialler tries again at once.
    Disconnected {
        /// For people.
        reason: String,
        /// The other side was silent until its time was up; else it ended the connection.
        silent: bool,
    },
    /// A dialler's try failed; it goes on trying.
    Unreachable(ConnectError),
    /// On a link that was dialled as [`Opening::Plain`]: the other side has lost its memory. The
    /// link is over.
    Forgotten,
    /// The link is over, as its owner wanted.
    Closed {
        /// Whether the other side has acknowledged all that was sent.
        told: bool,
    },
}

/// How a fresh meeting goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// With what was sent already.
    Plain,
    /// With the frame that the owner gives to [`LinkHandle::begin`], then with lasting frames.
    Announced,
}

/// A frame cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Larger than [`MAX_LINK_FRAME_BYTES`].
    #[error("a message of {0} bytes, where at most {MAX_LINK_FRAME_BYTES} are allowed")]
    TooLong(usize),
    /// The link is over.
    #[error("the link is closed")]
    Closed,
}

/// Sends on a link, from any thread.
#[derive(Debug, Clone)]
pub struct LinkHandle {
    commands: mpsc::UnboundedSender<Command>,
}

impl LinkHandle {
    /// Sends a frame; never waits. It is dropped when the other side turns out to have lost its
    /// memory: whoever needs it then sends it again after the fresh meeting.
    pub fn send(&self, frame: Vec<u8>) -> Result<(), SendError> {
        self.push(frame, false)
    }

    /// Sends a frame that is worth telling also to a side that has lost its memory.
    pub fn send_lasting(&self, frame: Vec<u8>) -> Result<(), SendError> {
        self.push(frame, true)
    }

    /// Gives the first frame after a fresh meeting on an announced link. Frames sent before it,
    /// and not lasting, never reach the other side. Ignored when that meeting is over.
    pub fn begin(&self, meeting: u64, frame: Vec<u8>) -> Result<(), SendError> {
        check(&frame)?;
        self.command(Command::Begin { meeting, frame })
    }

    /// Ends the link when what was sent is acknowledged, or cannot be for about a second.
    pub fn close(&self) {
        // Closed already: fine.
        let _ = self.command(Command::Close);
    }

    fn push(&self, frame: Vec<u8>, lasting: bool) -> Result<(), SendError> {
        check(&frame)?;
        self.command(Command::Send { frame, lasting })
    }

    fn command(&self, command: Command) -> Result<(), SendError> {
        self.commands.send(command).map_err(|_| SendError::Closed)
    }
}

fn check(frame: &[u8]) -> Result<(), SendError> {
    match frame.len() {
        len if len > MAX_LINK_FRAME_BYTES => Err(SendError::TooLong(len)),
        _ => Ok(()),
    }
}

/// For fuzzing: takes whatever a peer may write on a link's stream; true when there were records.
pub(crate) fn read_anything(bytes: &[u8]) -> bool {
    let mut link = state::LinkState::new(1, false);
    let (hello, records) = match bytes.split_first_chunk() {
        Some((hello, records)) => (state::Hello::decode(hello), records),
        None => (None, bytes),
    };
    // One that cannot be understood ends the connection; so does a violation.
    if hello.is_some_and(|hello| link.called(hello).is_err()) {
        return false;
    }
    let (mut decoder, mut found) = (state::Decoder::default(), false);
    for piece in records.chunks(1 + bytes.len() % 97) {
        decoder.feed(piece);
        loop {
            match decoder.next().map(|record| record.map(|record| link.handle(record))) {
                Ok(Some(Ok(_))) => found = true,
                Ok(None) => break,
                Ok(Some(Err(_))) | Err(_) => return found,
            }
        }
        let mut answer = Vec::new();
        link.transmit(&mut answer, 1 << 10, true);
    }
    found
}

/// Dials `peer` at `target` and keeps dialling until the handle is closed. Needs to be called
/// inside the endpoint's tokio runtime, where `sink` is called too; it must not block.
pub fn dial(
    endpoint: &Endpoint,
    target: Target,
    peer: Peer,
    opening: Opening,
    sink: impl FnMut(LinkEvent) + Send + 'static,
) -> LinkHandle {
    let (commands, receiver) = mpsc::unbounded_channel();
    let source = Source::Dial { endpoint: endpoint.clone(), target, peer };
    tokio::spawn(Shell::new(source, opening, receiver, Box::new(sink)).run());
    LinkHandle { commands }
}

struct Session {
    attach: mpsc::UnboundedSender<Caller>,
    handle: LinkHandle,
    task: JoinHandle<()>,
}

/// The function that a [`LinkServer`] reports to.
pub type ServerSink = Arc<dyn Fn(Peer, LinkEvent) + Send + Sync>;

/// The links of those who call, by peer.
pub struct LinkServer {
    sessions: HashMap<Peer, Session>,
    /// Links that were closed and may still deliver their last frames.
    closing: Vec<JoinHandle<()>>,
    sink: ServerSink,
}

impl core::fmt::Debug for LinkServer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_set().entries(self.sessions.keys()).finish()
    }
}

impl LinkServer {
    /// No links yet. `sink` is called inside the tokio runtime and must not block.
    pub fn new(sink: ServerSink) -> Self {
        Self { sessions: HashMap::new(), closing: Vec::new(), sink }
    }

    /// A peer has called: its old link goes on over the new connection, or a new one starts.
    pub fn attach(&mut self, caller: Caller) -> LinkHandle {
        let peer = caller.peer();
        if let Some(session) = self.sessions.get(&peer) {
            match session.attach.send(caller) {
                Ok(()) => return session.handle.clone(),
                Err(returned) => return self.start(peer, returned.0),
            }
        }
        self.start(peer, caller)
    }

    fn start(&mut self, peer: Peer, caller: Caller) -> LinkHandle {
        let (commands, receiver) = mpsc::unbounded_channel();
        let (attach, callers) = mpsc::unbounded_channel();
        // The receiver is right here.
        let _ = attach.send(caller);
        let sink = self.sink.clone();
        let report = Box::new(move |event| sink(peer, event));
        let shell = Shell::new(Source::Accept { callers }, Opening::Plain, receiver, report);
        let task = tokio::spawn(shell.run());
        let handle = LinkHandle { commands };
        self.sessions.insert(peer, Session { attach, handle: handle.clone(), task });
        handle
    }

    /// The link of that peer.
    pub fn handle(&self, peer: Peer) -> Option<&LinkHandle> {
        self.sessions.get(&peer).map(|session| &session.handle)
    }

    /// Ends the link of a peer that is given up, and forgets it.
    pub fn forget(&mut self, peer: Peer) {
        if let Some(session) = self.sessions.remove(&peer) {
            session.handle.close();
            self.closing.retain(|task| !task.is_finished());
            self.closing.push(session.task);
        }
    }

    /// Waits until forgotten links have delivered what was sent on them, about a second at most.
    pub async fn settle(&mut self) {
        for task in self.closing.drain(..) {
            // A link that panicked has nothing more to deliver.
            let _ = task.await;
        }
    }
}

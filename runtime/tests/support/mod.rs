//! A second process for a test: the test program itself, running one of its tests as the child's
//! part, with one end of a local socket as standard input.
#![allow(dead_code, reason = "each test program uses its part")]

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rdist::ring::{Bell, DEFAULT_RING_BYTES, Receiver, RingPair, Sender, Spin};
use rdist::scheduler::id::{ExecutorId, JobId, WorkerId};
use rdist::store::LocalSocket;
use rdist::wire::executor::SocketMessage;

/// Set in the child; says which part it plays.
const PART: &str = "RDIST_TEST_PART";
/// Longer than any wait of sound code on a busy machine.
const LOST: Duration = Duration::from_secs(60);

/// The part that this process plays; `None`: it is the parent.
pub(crate) fn part() -> Option<String> {
    std::env::var(PART).ok()
}

/// One side of a connection between worker and executor.
pub(crate) struct Side {
    pub(crate) socket: Arc<LocalSocket>,
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
    pub(crate) bell: Arc<Bell>,
    spin: Spin,
}

impl Side {
    /// Sends a frame, waiting for room.
    pub(crate) fn send(&mut self, frame: &[u8]) {
        send(&mut self.sender, &self.bell, frame);
    }

    /// The next frame, waiting for it; `None` once the peer has closed the socket.
    pub(crate) fn recv(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(frame) = self.receiver.try_recv().unwrap() {
                self.spin.progress();
                return Some(frame.to_vec());
            }
            if !self.spin.again() && self.receiver.announce_sleep() {
                let is_rung = self.bell.wait(Some(Duration::from_millis(100))).unwrap();
                self.receiver.awake();
                if !is_rung && self.receiver.try_recv().unwrap().is_some() {
                    panic!("a wake-up was lost");
                }
                if !is_rung && self.socket.try_recv().is_err() {
                    return None;
                }
            }
        }
    }
}

/// Sends a frame, waiting for room.
pub(crate) fn send(sender: &mut Sender, bell: &Bell, frame: &[u8]) {
    while !sender.try_send(frame).unwrap() {
        if sender.announce_wait() {
            assert!(bell.wait(Some(LOST)).unwrap(), "a wake-up was lost");
        }
        sender.awake();
    }
    sender.publish();
}

/// Starts the child's part `part`, which is in the test `test`; the worker's side.
pub(crate) fn start(test: &str, part: &str, executor: ExecutorId) -> (Child, Side) {
    let (ours, theirs) = LocalSocket::pair().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(PART, part)
        .stdin(Stdio::from(theirs.into_fd()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let (rings, pair) = RingPair::create(DEFAULT_RING_BYTES).unwrap();
    let bell = Arc::new(Bell::new().unwrap());
    let peer = Arc::new(Bell::new().unwrap());
    let welcome = SocketMessage::Welcome {
        executor,
        worker: WorkerId(1),
        job: JobId(1),
        ring_bytes: DEFAULT_RING_BYTES as u64,
    };
    ours.send(&welcome, &[rings.as_fd(), bell.as_fd(), peer.as_fd()]).unwrap();
    let (sender, receiver) = pair.split(peer);
    let side = Side { socket: Arc::new(ours), sender, receiver, bell, spin: Spin::new() };
    (child, side)
}

/// The executor's side, in the child.
pub(crate) fn join() -> Side {
    let socket = LocalSocket::from_fd(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let (message, fds) = socket.recv().unwrap();
    let SocketMessage::Welcome { ring_bytes, .. } = message else { panic!("{message:?}") };
    let [rings, peer, bell]: [OwnedFd; 3] = fds.try_into().unwrap();
    let pair = RingPair::attach(rings, ring_bytes).unwrap();
    let (sender, receiver) = pair.split(Arc::new(Bell::from_fd(peer)));
    let bell = Arc::new(Bell::from_fd(bell));
    Side { socket: Arc::new(socket), sender, receiver, bell, spin: Spin::new() }
}

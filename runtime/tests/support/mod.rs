//! A second process for a test: the test program itself, running one of its tests as the child's
//! part, with one end of a local socket as standard input.
#![allow(dead_code, reason = "each test program uses its part")]

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdist::ring::{Bell, DEFAULT_RING_BYTES, Receiver, RingPair, Sender, Spin};
use rdist::scheduler::id::{ExecutorId, JobId, WorkerId};
use rdist::store::LocalSocket;
use rdist::wire::executor::SocketMessage;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

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
    /// Whether to poll for a while before sleeping.
    pub(crate) is_spinning: bool,
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
            let is_polling = self.is_spinning && self.spin.again();
            if !is_polling && self.receiver.announce_sleep() {
                self.sleep();
                self.receiver.awake();
                if self.is_closed() && self.receiver.announce_sleep() {
                    return None;
                }
            }
        }
    }

    /// Waits for the bell, or the peer's end. A frame that is there without a ring is a lost
    /// wake-up.
    fn sleep(&mut self) {
        let start = Instant::now();
        while self.bell.wait(Some(Duration::from_millis(50))).unwrap().is_none()
            && !self.is_closed()
        {
            let is_lost = start.elapsed() > LOST && !self.receiver.announce_sleep();
            assert!(!is_lost, "a wake-up was lost");
        }
    }

    /// Whether the peer has closed the socket, or died.
    fn is_closed(&self) -> bool {
        let mut fds = [PollFd::new(&*self.socket, PollFlags::empty())];
        poll(&mut fds, Some(&Timespec::default())).unwrap() > 0
    }
}

/// Sends a frame, waiting for room.
pub(crate) fn send(sender: &mut Sender, bell: &Bell, frame: &[u8]) {
    while !sender.try_send(frame).unwrap() {
        if sender.announce_wait() {
            assert!(bell.wait(Some(LOST)).unwrap().is_some(), "a wake-up was lost");
        }
        sender.awake();
    }
    sender.publish();
}

/// Starts the child's part `part`, which is in the test `test`; the worker's side.
pub(crate) fn start(test: &str, part: &str, executor: ExecutorId) -> (Child, Side) {
    let (ours, theirs) = LocalSocket::pair().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        // A bench has no tests, and runs its part by itself.
        .args((!test.is_empty()).then_some(["--exact", test, "--nocapture"]).into_iter().flatten())
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
    let side = Side {
        socket: Arc::new(ours),
        sender,
        receiver,
        bell,
        is_spinning: true,
        spin: Spin::new(),
    };
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
    Side { socket: Arc::new(socket), sender, receiver, bell, is_spinning: true, spin: Spin::new() }
}

//! A network that does damage: UDP datagrams take their way through here and are lost, doubled,
//! delayed and reordered, by seed; or the way is cut, or leads through other ports than before.
//!
//! A *door* is an address that leads to a target, as a forwarded port does: whoever sends to the
//! door is a *flow*, which has a socket of its own towards the target, and answers come back
//! through it. The kernels on which the tests run have no netem.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::dice::Dice;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Larger than every datagram.
const DATAGRAM_BYTES: usize = 65_536;
/// How long the thread sleeps at most: whoever changes something waits for no longer.
const NAP: Duration = Duration::from_millis(20);

/// What happens to datagrams, each on its own. Shares are of 1,000.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Damage {
    pub(crate) lost: usize,
    pub(crate) doubled: usize,
    /// These come later than what was sent after them.
    pub(crate) late: usize,
    /// On the way in each direction.
    pub(crate) delay: Duration,
}

/// An address that leads somewhere.
struct Door {
    front: Arc<UdpSocket>,
    target: Option<SocketAddr>,
    flows: BTreeMap<SocketAddr, Arc<UdpSocket>>,
}

struct State {
    doors: Vec<Door>,
    damage: Damage,
    /// Whose datagrams do not pass, neither from nor to them; or nobody's do.
    cut: BTreeSet<SocketAddr>,
    all_cut: bool,
    dice: Dice,
}

/// The network. Ends with the value.
pub(crate) struct Relay {
    state: Arc<Mutex<State>>,
    passed: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A datagram on its way.
struct Flying {
    door: usize,
    source: SocketAddr,
    inward: bool,
    bytes: Vec<u8>,
}

impl Relay {
    /// A network without damage.
    pub(crate) fn start(seed: u64) -> Self {
        let state = Arc::new(Mutex::new(State {
            doors: Vec::new(),
            damage: Damage::default(),
            cut: BTreeSet::new(),
            all_cut: false,
            dice: Dice(seed),
        }));
        let (passed, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let carrier =
            Carrier { state: state.clone(), passed: passed.clone(), air: BTreeMap::new(), next: 0 };
        let ending = stop.clone();
        let thread = std::thread::spawn(move || carrier.run(&ending));
        Self { state, passed, stop, thread: Some(thread) }
    }

    /// A new address, which leads nowhere yet.
    pub(crate) fn door(&self) -> (usize, SocketAddr) {
        let front = socket(Ipv4Addr::LOCALHOST);
        let address = front.local_addr().unwrap();
        let mut state = self.state.lock().unwrap();
        state.doors.push(Door { front, target: None, flows: BTreeMap::new() });
        (state.doors.len() - 1, address)
    }

    /// The door leads there from now on.
    pub(crate) fn lead(&self, door: usize, target: SocketAddr) {
        self.state.lock().unwrap().doors[door].target = Some(target);
    }

    /// What happens to datagrams from now on.
    pub(crate) fn damage(&self, damage: Damage) {
        self.state.lock().unwrap().damage = damage;
    }

    /// Nothing passes from or to who listens there, until [`Self::heal`].
    pub(crate) fn cut(&self, who: SocketAddr) {
        self.state.lock().unwrap().cut.insert(who);
    }

    /// Nothing passes at all, nor arrives that is on its way, until [`Self::heal`].
    pub(crate) fn cut_all(&self) {
        self.state.lock().unwrap().all_cut = true;
    }

    /// Nobody is cut off any longer.
    pub(crate) fn heal(&self) {
        let mut state = self.state.lock().unwrap();
        state.cut.clear();
        state.all_cut = false;
    }

    /// All who send get other ports, as behind a NAT that has forgotten them: what was on its way
    /// to the old ones is lost.
    pub(crate) fn change_ports(&self) {
        let mut state = self.state.lock().unwrap();
        let flows = state.doors.iter_mut().flat_map(|door| door.flows.values_mut());
        flows.for_each(|flow| *flow = socket(Ipv4Addr::LOCALHOST));
    }

    /// The same, and from another host, as when a network has changed.
    pub(crate) fn change_host(&self, host: Ipv4Addr) {
        let mut state = self.state.lock().unwrap();
        let flows = state.doors.iter_mut().flat_map(|door| door.flows.values_mut());
        flows.for_each(|flow| *flow = socket(host));
    }

    /// Datagrams that have arrived.
    pub(crate) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the relay has panicked");
        }
    }
}

fn socket(host: Ipv4Addr) -> Arc<UdpSocket> {
    let socket = UdpSocket::bind((host, 0)).unwrap();
    socket.set_nonblocking(true).unwrap();
    // What a real network holds in its queues; the system may grant less.
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 4 << 20);
    Arc::new(socket)
}

impl State {
    fn happens(&mut self, share: usize) -> bool {
        share > 0 && self.dice.below(1_000) < share
    }
}

/// The thread that carries datagrams.
struct Carrier {
    state: Arc<Mutex<State>>,
    passed: Arc<AtomicU64>,
    /// By the time of arrival, and a number.
    air: BTreeMap<(Instant, u64), Flying>,
    next: u64,
}

impl Carrier {
    fn run(mut self, stop: &AtomicBool) {
        let mut buffer = vec![0; DATAGRAM_BYTES];
        let shared = self.state.clone();
        while !stop.load(Ordering::Relaxed) {
            self.wait();
            let mut state = shared.lock().unwrap();
            for door in 0..state.doors.len() {
                self.take_in(&mut state, door, &mut buffer);
            }
            self.let_out(&mut state);
        }
    }

    /// Until something comes or is due.
    fn wait(&self) {
        let due = self.air.first_key_value().map(|((at, _), _)| *at);
        let nap = due.map_or(NAP, |at| at.saturating_duration_since(Instant::now()).min(NAP));
        let sockets: Vec<Arc<UdpSocket>> = {
            let state = self.state.lock().unwrap();
            let all = |door: &Door| {
                let all = std::iter::once(&door.front).chain(door.flows.values());
                all.cloned().collect::<Vec<_>>()
            };
            state.doors.iter().flat_map(all).collect()
        };
        let mut polled: Vec<_> =
            sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        let nap = Timespec { tv_sec: 0, tv_nsec: nap.as_nanos().try_into().unwrap() };
        poll(&mut polled, Some(&nap)).unwrap();
    }

    /// Everything that waits at a door, from outside and from its target.
    fn take_in(&mut self, state: &mut State, at: usize, buffer: &mut [u8]) {
        let mut taken = Vec::new();
        let door = &mut state.doors[at];
        while let Ok((len, source)) = door.front.recv_from(buffer) {
            door.flows.entry(source).or_insert_with(|| socket(Ipv4Addr::LOCALHOST));
            taken.push(Flying { door: at, source, inward: true, bytes: buffer[..len].to_vec() });
        }
        for (&source, flow) in &door.flows {
            while let Ok((len, _)) = flow.recv_from(buffer) {
                let bytes = buffer[..len].to_vec();
                taken.push(Flying { door: at, source, inward: false, bytes });
            }
        }
        let target_is_cut = door.target.is_none_or(|target| state.cut.contains(&target));
        for datagram in taken {
            let is_cut = target_is_cut || state.all_cut || state.cut.contains(&datagram.source);
            if !is_cut {
                self.fly(state, datagram);
            }
        }
    }

    fn fly(&mut self, state: &mut State, datagram: Flying) {
        let damage = state.damage;
        if state.happens(damage.lost) {
            return;
        }
        let doubled = state.happens(damage.doubled);
        for _ in 0..1 + u32::from(doubled) {
            let late = damage.delay / 2 + Duration::from_millis(5);
            let late = if state.happens(damage.late) { late } else { Duration::ZERO };
            self.next += 1;
            let at = Instant::now() + damage.delay + late;
            let bytes = datagram.bytes.clone();
            self.air.insert((at, self.next), Flying { bytes, ..datagram });
        }
    }

    /// Everything that has arrived.
    fn let_out(&mut self, state: &mut State) {
        if state.all_cut {
            self.air.clear();
        }
        let now = Instant::now();
        while let Some(first) = self.air.first_entry()
            && first.key().0 <= now
        {
            let Flying { door, source, inward, bytes } = first.remove();
            let door = &state.doors[door];
            let (Some(target), Some(flow)) = (door.target, door.flows.get(&source)) else {
                continue;
            };
            // A full buffer or a port that nobody listens at is one more loss.
            let sent = match inward {
                true => flow.send_to(&bytes, target),
                false => door.front.send_to(&bytes, source),
            };
            self.passed.fetch_add(u64::from(sent.is_ok()), Ordering::Relaxed);
        }
    }
}

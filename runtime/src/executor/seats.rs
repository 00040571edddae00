//! Where threads sleep so that the world outside can wake them.
//!
//! A seat is an epoll of the worker's bell, the socket, and a bell of its own for this process's
//! other threads. The worker's bell is registered exclusively: a ring wakes one sleeping thread
//! and not all, which would push each other from the cores. The kernel asks in the order of
//! registration, so the seat for who waits for an answer comes first: most rings are about one.
//! Nothing but speed depends on that order.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use rustix::event::{Timespec, epoll};

use super::wait::Why;
use crate::ring::{Bell, Rung};
use crate::store::LocalSocket;

/// Seats of threads that wait for an answer. Whatever wakes it is noticed for all others.
const FOR_ANSWERS: u32 = 1;
/// Seats of idle threads: when one of them has got work, another one listens already.
const FOR_WORK: u32 = 2;

/// What became ready, as the epoll's data.
const WORKER_BELL: u64 = 0;
const OWN_BELL: u64 = 1;
const SOCKET: u64 = 2;

/// All seats of a process.
#[derive(Debug)]
pub(super) struct Seats {
    seats: Vec<Seat>,
    /// A bit for each seat in which somebody sits.
    taken: AtomicU32,
}

#[derive(Debug)]
struct Seat {
    epoll: OwnedFd,
    bell: Bell,
}

/// What ended a sleep.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// The worker, or a process with a direct link.
    pub rung: Option<Rung>,
    /// Something came over the socket, or it ended.
    pub socket: bool,
}

impl Seats {
    /// Seats for a process whose bell and socket those are.
    pub(super) fn new(bell: &Bell, socket: &LocalSocket) -> io::Result<Self> {
        let seats = (0..FOR_ANSWERS + FOR_WORK).map(|_| Seat::new(bell, socket));
        Ok(Self { seats: seats.collect::<Result<_, _>>()?, taken: AtomicU32::new(0) })
    }

    /// A free seat for that purpose, to be [left](Self::leave).
    pub(super) fn take(&self, why: Why) -> Option<usize> {
        let mut fit = match why {
            Why::Answer => 0..FOR_ANSWERS,
            Why::Work => FOR_ANSWERS..FOR_ANSWERS + FOR_WORK,
        };
        let take = |seat: &u32| self.taken.fetch_or(1 << seat, Ordering::SeqCst) & 1 << seat == 0;
        fit.find(take).map(|seat| seat as usize)
    }

    pub(super) fn leave(&self, seat: usize) {
        self.taken.fetch_and(!(1 << seat), Ordering::SeqCst);
    }

    /// Whether nobody sits, and so nobody would hear a ring.
    pub(super) fn are_empty(&self) -> bool {
        self.taken.load(Ordering::SeqCst) == 0
    }

    /// Wakes who sits there, or who does so next.
    pub(super) fn call(&self, seat: usize) {
        self.seats[seat].bell.ring();
    }

    /// Sleeps in that seat until the worker's bell rings, the seat is [called](Self::call),
    /// something comes over the socket, the deadline passes, or for no reason.
    pub(super) fn listen(&self, seat: usize, bell: &Bell, deadline: Option<Instant>) -> Heard {
        let seat = &self.seats[seat];
        let timeout = deadline.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            let tv_sec = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
            Timespec { tv_sec, tv_nsec: i64::from(left.subsec_nanos()) }
        });
        let mut events = [MaybeUninit::uninit(); 3];
        let mut heard = Heard::default();
        // An interrupted wait is a wake-up for no reason.
        let Ok((events, _)) = epoll::wait(&seat.epoll, &mut events, timeout.as_ref()) else {
            return heard;
        };
        for event in events {
            match event.data.u64() {
                WORKER_BELL => heard.rung = bell.drain(),
                OWN_BELL => drop(seat.bell.drain()),
                _ => heard.socket = true,
            }
        }
        heard
    }
}

impl Seat {
    fn new(worker_bell: &Bell, socket: &LocalSocket) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let bell = Bell::new()?;
        let only_one = epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE;
        epoll::add(&epoll, worker_bell, epoll::EventData::new_u64(WORKER_BELL), only_one)?;
        let each = epoll::EventFlags::IN;
        epoll::add(&epoll, &bell, epoll::EventData::new_u64(OWN_BELL), each)?;
        epoll::add(&epoll, socket, epoll::EventData::new_u64(SOCKET), each)?;
        Ok(Self { epoll, bell })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn soon() -> Option<Instant> {
        Some(Instant::now() + Duration::from_millis(50))
    }

    #[test]
    fn each_purpose_has_its_seats() {
        let bell = Bell::new().unwrap();
        let (socket, _worker) = LocalSocket::pair().unwrap();
        let seats = Seats::new(&bell, &socket).unwrap();
        assert!(seats.are_empty());
        assert_eq!([0; 2].map(|_| seats.take(Why::Answer)), [Some(0), None]);
        assert_eq!([0; 3].map(|_| seats.take(Why::Work)), [Some(1), Some(2), None]);
        seats.leave(0);
        seats.leave(1);
        assert!(!seats.are_empty());
        assert_eq!(seats.take(Why::Work), Some(1));
    }

    #[test]
    fn a_ring_wakes_one_and_a_call_the_one_that_is_meant() {
        let bell = Bell::new().unwrap();
        let (socket, worker) = LocalSocket::pair().unwrap();
        let seats = Seats::new(&bell, &socket).unwrap();
        seats.call(1);
        assert!(seats.listen(0, &bell, soon()).rung.is_none());
        seats.listen(1, &bell, None);
        let long = Some(Instant::now() + Duration::from_secs(60));
        std::thread::scope(|scope| {
            let sleepers = [0, 1, 2].map(|seat| {
                let (seats, bell) = (&seats, &bell);
                scope.spawn(move || seats.listen(seat, bell, long).rung.is_some())
            });
            bell.ring();
            while !sleepers.iter().any(|sleeper| sleeper.is_finished()) {
                std::thread::yield_now();
            }
            // Who has not been rung for hears of the socket.
            drop(worker);
            let rung = sleepers.map(|sleeper| usize::from(sleeper.join().unwrap()));
            assert_eq!(rung.iter().sum::<usize>(), 1);
        });
        assert!(seats.listen(2, &bell, None).socket);
    }
}

//! Waiting: whoever waits reads the ring. There is no thread that only does I/O.
//!
//! A thread that waits (idle, inside `get`, the driver's `block_on`) first *spins*: it takes the
//! receiver by `try_lock`, handles what came, and looks whether its own wait is over. When spinning
//! has not paid it *sleeps*: where a [seat](Seats) is free there, and is woken by the worker's bell
//! and the socket; all others are parked. A reply in a busy phase thus costs no system call and no
//! hand-over between threads; after a sleep it costs one wake-up.
//!
//! **WA-1** While a thread waits, frames are noticed: some waiting thread is awake, or the sleep is
//! announced to the worker and a thread sits. The last one that stops being awake announces
//! (`Watch::awake`); who leaves a seat or the wait wakes a parked thread when nobody sits any more
//! (`Process::hand_over`). Both do: the thread that is woken may be about to leave.
//! **WA-2** No wake-up is lost: a parker's state changes from `AWAKE` to a sleeping state only by
//! compare-exchange, so a notice that came before prevents the sleep.

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};
use std::thread::Thread;
use std::time::Instant;

use super::process::Process;
use super::seats::Seats;
use crate::ring::{Bell, Rung, Spin};
use crate::store::LocalSocket;

const AWAKE: usize = 0;
const NOTIFIED: usize = 1;
const PARKED: usize = 2;
/// In the first seat; the next ones in those after it.
const SITS: usize = 3;

/// A thread that can be woken, in whichever way it sleeps.
#[derive(Debug)]
pub(crate) struct Parker {
    state: AtomicUsize,
    thread: Thread,
    /// Whether work was promised to this idle thread; changes under the lock of the work queue.
    pub(super) claimed: AtomicBool,
}

impl Parker {
    /// The present thread's.
    pub(crate) fn current() -> Arc<Self> {
        thread_local! {
            static PARKER: Arc<Parker> = Arc::new(Parker {
                state: AtomicUsize::new(AWAKE),
                thread: std::thread::current(),
                claimed: AtomicBool::new(false),
            });
        }
        PARKER.with(Arc::clone)
    }

    /// Ends the thread's sleep, or its next one.
    pub(crate) fn notify(&self) {
        match self.state.swap(NOTIFIED, Ordering::SeqCst) {
            AWAKE | NOTIFIED => {}
            PARKED => self.thread.unpark(),
            sits => {
                // Who sits does so in the process.
                if let Ok(process) = Process::current() {
                    process.watch.seats.call(sits - SITS);
                }
            }
        }
    }

    fn falls_asleep(&self, how: usize) -> bool {
        self.state.compare_exchange(AWAKE, how, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn wakes_up(&self) {
        self.state.store(AWAKE, Ordering::SeqCst);
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.notify();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.notify();
    }
}

/// Who waits in this process, and how.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Threads that wait and do not sleep.
    awake: AtomicUsize,
    /// Threads that hear the bell, or are about to.
    seats: Seats,
    /// Threads that wait for a certain answer and spin for it; idle threads give way to them.
    pub(super) askers: AtomicUsize,
    /// An idle thread spins: one is enough.
    idle_spins: AtomicBool,
    parked: Mutex<Vec<Arc<Parker>>>,
}

/// What a thread waits for, for those who decide how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// For an answer.
    Answer,
    /// For work.
    Work,
}

thread_local! {
    /// This thread is about to wait.
    pub(crate) static WAITS_NEXT: Cell<bool> = const { Cell::new(false) };

    /// One policy for each kind of wait: their lengths have nothing to do with one another.
    static SPIN: RefCell<(Spin, Spin)> = RefCell::new((Spin::new(), Spin::new()));
}

impl Process {
    /// Waits until `is_over`, which whoever makes it true tells this thread's [`Parker`] after.
    /// False: `deadline` passed first. `before_sleep` is called once, before the first sleep.
    pub(crate) fn wait(
        &'static self,
        why: Why,
        deadline: Option<Instant>,
        mut is_over: impl FnMut() -> bool,
        mut before_sleep: impl FnMut(),
    ) -> bool {
        let parker = Parker::current();
        let asks = usize::from(why == Why::Answer);
        self.watch.askers.fetch_add(asks, Ordering::Relaxed);
        let mut spin = SPIN.with_borrow_mut(|(answer, work)| {
            std::mem::take(if why == Why::Answer { answer } else { work })
        });
        self.wakes();
        let (mut slept, mut spins) = (false, false);
        let result = loop {
            parker.wakes_up();
            if is_over() {
                spin.progress();
                break true;
            }
            if self.pump() {
                continue;
            }
            let gives_way = why == Why::Work && {
                spins = spins || !self.watch.idle_spins.swap(true, Ordering::Relaxed);
                !spins || self.watch.askers.load(Ordering::Relaxed) > 0
            };
            if !gives_way && spin.again() {
                continue;
            }
            if std::mem::take(&mut spins) {
                self.watch.idle_spins.store(false, Ordering::Relaxed);
            }
            if deadline.is_some_and(|at| Instant::now() >= at) {
                break false;
            }
            if !std::mem::replace(&mut slept, true) {
                before_sleep();
                continue;
            }
            spin.woken(self.sleep(why, &parker, deadline));
        };
        if spins {
            self.watch.idle_spins.store(false, Ordering::Relaxed);
        }
        while !self.falls_silent() {
            self.pump();
        }
        self.hand_over();
        self.watch.askers.fetch_sub(asks, Ordering::Relaxed);
        SPIN.with_borrow_mut(|(answer, work)| {
            *(if why == Why::Answer { answer } else { work }) = spin;
        });
        result
    }

    /// One sleep; ends for a notice, for frames, and for no reason. How the bell was rung, if it
    /// was that.
    fn sleep(&self, why: Why, parker: &Arc<Parker>, deadline: Option<Instant>) -> Option<Rung> {
        let watch = &self.watch;
        if let Some(seat) = watch.seats.take(why) {
            let mut rung = None;
            if parker.falls_asleep(SITS + seat) {
                if self.falls_silent() {
                    let heard = watch.seats.listen(seat, &self.bell, deadline);
                    if heard.socket {
                        self.read_socket();
                    }
                    rung = heard.rung;
                    self.wakes();
                }
                parker.wakes_up();
            }
            watch.seats.leave(seat);
            self.hand_over();
            return rung;
        }
        watch.lock_parked().push(parker.clone());
        // Whoever leaves the last seat sees this thread in the list, or is seen here.
        if !watch.seats.are_empty() && parker.falls_asleep(PARKED) {
            if self.falls_silent() {
                match deadline {
                    Some(at) => {
                        std::thread::park_timeout(at.saturating_duration_since(Instant::now()));
                    }
                    None => std::thread::park(),
                }
                self.wakes();
            }
            parker.wakes_up();
        }
        watch.lock_parked().retain(|other| !Arc::ptr_eq(other, parker));
        None
    }

    /// Where nobody sits, a parked thread is to do so (WA-1).
    fn hand_over(&self) {
        if self.watch.seats.are_empty()
            && let Some(next) = self.watch.lock_parked().pop()
        {
            next.notify();
        }
    }

    /// One waiting thread more is awake.
    fn wakes(&self) {
        if self.watch.awake.fetch_add(1, Ordering::SeqCst) == 0 {
            self.lock_inbound().awake();
        }
    }

    /// One fewer is. The last one announces; false: frames are there, it must stay awake.
    fn falls_silent(&self) -> bool {
        self.outbox.flush();
        if self.watch.awake.fetch_sub(1, Ordering::SeqCst) != 1 {
            return true;
        }
        let mut inbound = self.lock_inbound();
        if inbound.announce_sleep() && self.outbox.announce_wait() {
            return true;
        }
        inbound.awake();
        drop(inbound);
        self.watch.awake.fetch_add(1, Ordering::SeqCst);
        false
    }

    /// What is read by this process has grown: where all of it sleeps, somebody announces anew.
    pub(super) fn nobody_sleeps_through(&self) {
        if self.watch.awake.load(Ordering::SeqCst) == 0 && !WAITS_NEXT.get() {
            self.bell.ring();
        }
    }
}

impl Watch {
    /// For a process whose bell and socket those are.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub(super) fn new(bell: &Bell, socket: &LocalSocket) -> io::Result<Self> {
        Ok(Self {
            awake: AtomicUsize::new(0),
            seats: Seats::new(bell, socket)?,
            askers: AtomicUsize::new(0),
            idle_spins: AtomicBool::new(false),
            parked: Mutex::default(),
        })
    }

    fn lock_parked(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Parker>>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// This thread as a waker.
pub(crate) fn thread_waker() -> Waker {
    thread_local! {
        static WAKER: Waker = Waker::from(Parker::current());
    }
    WAKER.with(Waker::clone)
}

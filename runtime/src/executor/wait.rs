//! Waiting: whoever waits reads the ring. There is no thread that only does I/O.
//!
//! A thread that waits (idle, inside `get`, the driver's `block_on`) first *spins*: it takes the
//! receiver by `try_lock`, handles what came, and looks whether its own wait is over. When spinning
//! has not paid it *sleeps*: up to [`MAX_POLLERS`] threads in `poll` on the worker's bell, the
//! socket and an eventfd of their own, all others parked. A reply in a busy phase thus costs no
//! system call and no hand-over between threads; after a sleep it costs one wake-up.
//!
//! **WA-1** While a thread waits, frames are noticed: some waiting thread is awake, or the sleep is
//! announced to the worker and a thread is in `poll`. The last one that stops being awake
//! announces (`Watch::awake`); who leaves `poll` or the wait wakes a parked thread when no poller
//! is left (`Process::hand_over`). Both do: the thread that a poller wakes may be about to leave.
//! **WA-2** No wake-up is lost: a parker's state changes from `AWAKE` to a sleeping state only by
//! compare-exchange, so a notice that came before prevents the sleep.

use std::cell::{Cell, RefCell};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Wake, Waker};
use std::thread::Thread;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::process::Process;
use crate::ring::{Bell, Rung, Spin};

/// Threads in `poll` at the same time where one waits for an answer: that one, and an idle one.
/// Of idle ones there is one: each ring wakes all of them.
const MAX_POLLERS: usize = 2;

const AWAKE: u32 = 0;
const NOTIFIED: u32 = 1;
const PARKED: u32 = 2;
const POLLING: u32 = 3;

/// A thread that can be woken, in whichever way it sleeps.
#[derive(Debug)]
pub(crate) struct Parker {
    state: AtomicU32,
    thread: Thread,
    /// Ends this thread's `poll`; made when it polls for the first time.
    bell: OnceLock<Bell>,
    /// Whether work was promised to this idle thread; changes under the lock of the work queue.
    pub(super) claimed: AtomicBool,
}

impl Parker {
    /// The present thread's.
    pub(crate) fn current() -> Arc<Self> {
        thread_local! {
            static PARKER: Arc<Parker> = Arc::new(Parker {
                state: AtomicU32::new(AWAKE),
                thread: std::thread::current(),
                bell: OnceLock::new(),
                claimed: AtomicBool::new(false),
            });
        }
        PARKER.with(Arc::clone)
    }

    /// Ends the thread's sleep, or its next one.
    pub(crate) fn notify(&self) {
        match self.state.swap(NOTIFIED, Ordering::SeqCst) {
            PARKED => self.thread.unpark(),
            POLLING => {
                if let Some(bell) = self.bell.get() {
                    bell.ring();
                }
            }
            _ => {}
        }
    }

    fn falls_asleep(&self, how: u32) -> bool {
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
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Threads that wait and do not sleep.
    awake: AtomicUsize,
    /// Threads in `poll`, or about to be.
    pollers: AtomicUsize,
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
        let most = if why == Why::Work { 1 } else { MAX_POLLERS };
        if watch.pollers.fetch_add(1, Ordering::SeqCst) < most {
            let mut rung = None;
            if parker.falls_asleep(POLLING) {
                if self.falls_silent() {
                    rung = self.poll(parker, deadline);
                    self.wakes();
                }
                parker.wakes_up();
            }
            watch.pollers.fetch_sub(1, Ordering::SeqCst);
            self.hand_over();
            return rung;
        }
        watch.lock_parked().push(parker.clone());
        watch.pollers.fetch_sub(1, Ordering::SeqCst);
        // Whoever leaves as the last poller sees this thread in the list, or is seen here.
        let somebody_polls = watch.pollers.load(Ordering::SeqCst) > 0;
        if somebody_polls && parker.falls_asleep(PARKED) {
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

    /// Where nobody polls, a parked thread is to do so (WA-1).
    fn hand_over(&self) {
        if self.watch.pollers.load(Ordering::SeqCst) == 0
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

    fn poll(&self, parker: &Parker, deadline: Option<Instant>) -> Option<Rung> {
        let own = parker.bell.get_or_init(|| match Bell::new() {
            Ok(bell) => bell,
            Err(error) => super::abandon(&format!("no descriptor for an eventfd: {error}")),
        });
        if parker.state.load(Ordering::SeqCst) == NOTIFIED {
            return None;
        }
        let timeout = deadline.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            let tv_sec = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
            Timespec { tv_sec, tv_nsec: i64::from(left.subsec_nanos()) }
        });
        let socket = self.socket.as_fd();
        let mut fds = [
            PollFd::new(&self.bell, PollFlags::IN),
            PollFd::new(own, PollFlags::IN),
            PollFd::from_borrowed_fd(socket, PollFlags::IN),
        ];
        // An interrupted poll is a wake-up for no reason.
        let _ = poll(&mut fds, timeout.as_ref());
        let [bell, own_bell, socket] = fds.map(|fd| !fd.revents().is_empty());
        let rung = bell.then(|| self.bell.drain()).flatten();
        if own_bell {
            own.drain();
        }
        if socket {
            self.read_socket();
        }
        rung
    }
}

impl Watch {
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

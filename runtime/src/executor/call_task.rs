//! A call that waits without a thread: the future of an async method.
//!
//! ```text
//!  (made) ──1──► POLLED ──2──► IDLE ──3──► QUEUED ──1──► POLLED ──4──► ENDED
//!                  │ ▲
//!                  5 └── WOKEN ──6──► QUEUED
//! ```
//! 1 a slot's thread polls it; 2 it waits for something; 3 what it waits for has come: it is work;
//! 4 it is ready, or cancelled; 5 it is woken while it is polled; 6 it waits its turn once more.
//!
//! Most futures are ready when they are first polled ([`begin`]), and never become one of these.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context as PollContext, Poll, Wake, Waker};

use rdist_scheduler::id::TaskId;

use super::mailbox::Mailbox;
use super::panic::guarded;
use super::process::{Encoded, Process};
use super::registry::CallFuture;
use super::run::{self, Ended, Job};
use super::slots::Work;
use crate::api::context::Context;
use crate::api::error::Failure;

const IDLE: u8 = 0;
const QUEUED: u8 = 1;
const POLLED: u8 = 2;
const WOKEN: u8 = 3;
const ENDED: u8 = 4;

/// An async call in flight.
pub(crate) struct CallTask {
    process: &'static Process,
    mailbox: Arc<Mailbox>,
    job: Box<Job>,
    group: usize,
    /// `None` once it is ready.
    future: Mutex<Option<CallFuture>>,
    state: AtomicU8,
}

impl fmt::Debug for CallTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallTask").field("task", &self.id()).finish_non_exhaustive()
    }
}

/// The future of a call after its first poll.
pub(super) enum Begun {
    Ready(Encoded),
    Waits(CallFuture),
}

/// Polls a future for the first time, in the scope of its call. Nobody is woken by what it waits
/// for before it is polled again.
pub(super) fn begin(mut future: CallFuture) -> Result<Begun, Failure> {
    let _entered = io().map_err(Failure::Refused)?.enter();
    match future.as_mut().poll(&mut PollContext::from_waker(Waker::noop())) {
        Poll::Pending => Ok(Begun::Waits(future)),
        // The state is let go before the next call may have it for itself.
        Poll::Ready(result) => {
            drop(future);
            result.map(Begun::Ready)
        }
    }
}

impl CallTask {
    pub(super) fn new(
        process: &'static Process,
        mailbox: Arc<Mailbox>,
        job: Box<Job>,
        group: usize,
        future: CallFuture,
    ) -> Arc<Self> {
        let (future, state) = (Mutex::new(Some(future)), AtomicU8::new(QUEUED));
        let task = Arc::new(Self { process, mailbox, job, group, future, state });
        // Set once: each try of a call is a job of its own.
        let _ = task.job.running.call_task.set(Arc::downgrade(&task));
        task
    }

    pub(super) fn id(&self) -> TaskId {
        self.job.spec.id
    }

    /// Polls it; at its end says how it ended, and lets the next call start.
    pub(super) fn poll(self: Arc<Self>, process: &'static Process) {
        self.state.store(POLLED, Ordering::SeqCst);
        let Some(result) = self.poll_future() else {
            let waits =
                self.state.compare_exchange(POLLED, IDLE, Ordering::SeqCst, Ordering::SeqCst);
            if waits.is_err() {
                self.state.store(QUEUED, Ordering::SeqCst);
                process.slots.push(Work::Poll(self));
            }
            return;
        };
        self.state.store(ENDED, Ordering::SeqCst);
        process.calls_are_taken();
        run::finish_call(process, &self.job, result);
        if let Some(concurrent) = self.mailbox.concurrent()
            && concurrent.future_ended(self.id(), self.group)
        {
            // This thread looks for work next.
            process.slots.push(Work::Actor(self.mailbox.clone()));
        }
    }

    /// `None`: it waits. The future is gone when there is a result.
    fn poll_future(self: &Arc<Self>) -> Option<Result<Encoded, Ended>> {
        let mut slot = self.future.lock().unwrap_or_else(PoisonError::into_inner);
        let mut future = slot.take()?;
        let waker = Waker::from(self.clone());
        let cx = Context::of(self.job.running.clone());
        let handle = match io() {
            Ok(handle) => handle,
            Err(reason) => return Some(Err(Ended::Failed(Failure::Refused(reason)))),
        };
        let _entered = handle.enter();
        let polled = cx.scope(|| {
            guarded(|| {
                if self.job.running.is_cancelled() {
                    drop(future);
                    return Err(run::cancelled());
                }
                match future.as_mut().poll(&mut PollContext::from_waker(&waker)) {
                    Poll::Pending => Ok(Err(future)),
                    // The state is let go before the next call may have it for itself.
                    Poll::Ready(result) => {
                        drop(future);
                        Ok(Ok(result))
                    }
                }
            })
        });
        match polled {
            Ok(Ok(Err(future))) => {
                *slot = Some(future);
                None
            }
            Ok(Ok(Ok(result))) => Some(result.map_err(Ended::Failed)),
            Ok(Err(ended)) => Some(Err(ended)),
            Err(message) => Some(Err(Ended::Panicked { message, retry: false })),
        }
    }

    /// Its actor has ended: it is polled once more, and dropped.
    pub(super) fn cut_off(&self) {
        self.job.running.cancel();
    }
}

impl Wake for CallTask {
    fn wake(self: Arc<Self>) {
        let mut state = self.state.load(Ordering::SeqCst);
        loop {
            let next = match state {
                IDLE => QUEUED,
                POLLED => WOKEN,
                _ => return,
            };
            match self.state.compare_exchange(state, next, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) if next == QUEUED => break,
                Ok(_) => return,
                Err(other) => state = other,
            }
        }
        let process = self.process;
        process.slots.push(Work::Poll(self));
        process.slots.call_threads(process);
    }
}

/// Timers and sockets for async methods: tokio's, on one thread of its own, started for the first
/// async call.
fn io() -> Result<&'static tokio::runtime::Handle, String> {
    static IO: OnceLock<Result<tokio::runtime::Handle, String>> = OnceLock::new();
    let start = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime
            .map_err(|error| format!("the runtime of async actors cannot start: {error}"))?;
        let handle = runtime.handle().clone();
        let thread = std::thread::Builder::new().name("actor-io".to_owned());
        thread
            .spawn(move || runtime.block_on(std::future::pending::<()>()))
            .map_err(|error| format!("no thread for the timers of async actors: {error}"))?;
        Ok(handle)
    };
    IO.get_or_init(start).as_ref().map_err(Clone::clone)
}

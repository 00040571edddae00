//! Threads that run work. They are made when work arrives and no idle thread is there, so a task
//! that blocks never keeps another from running: how much runs at once is the worker's decision.
//!
//! **SL-1** While the process lives, a thread is idle or promised to become so: whoever takes work
//! makes one if it was the last (`take`). So somebody always waits, and reads the ring.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::call_task::CallTask;
use super::direct::Lane;
use super::mailbox::Mailbox;
use super::process::Process;
use super::run::Job;
use super::wait::{Parker, Why};

/// Idle threads that are kept; more than that end when they become idle.
const KEPT_IDLE_THREADS: usize = 8;

/// Threads that are on their way to work at a time. Each calls the next when it comes, so a burst
/// of short work is done by a few threads, and work that blocks still finds a thread each.
const MAX_CLAIMED_THREADS: usize = 2;

/// Something to run.
#[derive(Debug)]
pub(super) enum Work {
    /// A task.
    Task(Box<Job>),
    /// Calls of an actor.
    Actor(Arc<Mailbox>),
    /// Tasks of another process.
    Lane(Arc<Lane>),
    /// The rest of a call that waited without a thread.
    Poll(Arc<CallTask>),
    /// The end of an actor: its state is dropped.
    EndActor(Arc<Mailbox>),
}

/// Work and idle threads.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    work: VecDeque<Work>,
    /// Threads that wait for work and are not claimed.
    idle: Vec<Arc<Parker>>,
    /// Threads that were woken, or made, for work and have not come yet.
    claimed: usize,
    started: u64,
}

/// What a thread without work does.
enum Next {
    Work(Work),
    Wait,
    End,
}

impl Slots {
    /// Adds work; `call_threads` finds threads for it.
    pub(super) fn push(&self, work: Work) {
        self.lock().work.push_back(work);
    }

    /// Sees to it that every piece of work has a thread on its way.
    pub(crate) fn call_threads(&self, process: &'static Process) {
        let me = Parker::current();
        let mut queue = self.lock();
        // A thread that is itself idle looks for work next.
        let mine = usize::from(queue.idle.iter().any(|other| Arc::ptr_eq(other, &me)));
        call(&mut queue, &me, mine, process);
    }

    fn take(&self, me: &Arc<Parker>, is_new: bool, process: &'static Process) -> Next {
        let mut queue = self.lock();
        let is_called = me.claimed.swap(false, Ordering::Relaxed);
        queue.claimed -= usize::from(is_called);
        let place = queue.idle.iter().position(|other| Arc::ptr_eq(other, me));
        let Some(work) = queue.work.pop_front() else {
            if place.is_none() {
                if is_new && queue.idle.len() >= KEPT_IDLE_THREADS {
                    return Next::End;
                }
                queue.idle.push(me.clone());
            }
            return Next::Wait;
        };
        if let Some(place) = place {
            queue.idle.swap_remove(place);
        }
        if is_called {
            call(&mut queue, me, 0, process);
        }
        if queue.idle.is_empty()
            && queue.claimed < MAX_CLAIMED_THREADS
            && queue.claimed <= queue.work.len()
        {
            queue.claimed += 1;
            start(&mut queue, process);
        }
        Next::Work(work)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes or makes threads for work that has none on its way. `mine`: pieces that `me` takes.
fn call(queue: &mut Queue, me: &Arc<Parker>, mine: usize, process: &'static Process) {
    while queue.work.len() > queue.claimed + mine && queue.claimed < MAX_CLAIMED_THREADS {
        queue.claimed += 1;
        let other = queue.idle.iter().rposition(|other| !Arc::ptr_eq(other, me));
        match other {
            Some(at) => {
                let idle = queue.idle.swap_remove(at);
                idle.claimed.store(true, Ordering::Relaxed);
                idle.notify();
            }
            None => start(queue, process),
        }
    }
}

/// Makes a claimed thread.
fn start(queue: &mut Queue, process: &'static Process) {
    queue.started += 1;
    let thread = std::thread::Builder::new().name(format!("slot-{}", queue.started));
    let body = move || {
        Parker::current().claimed.store(true, Ordering::Relaxed);
        serve(process, false);
    };
    if let Err(error) = thread.spawn(body) {
        super::abandon(&format!("no thread can be made for a task: {error}"));
    }
}

/// Runs work for as long as the process lives; a thread that is not `kept` ends when there are
/// idle ones enough.
pub(crate) fn serve(process: &'static Process, kept: bool) {
    let me = Parker::current();
    loop {
        let mut may_end = !kept;
        let mut next = Next::Wait;
        process.wait(
            Why::Work,
            None,
            || {
                next = process.slots.take(&me, std::mem::take(&mut may_end), process);
                !matches!(next, Next::Wait)
            },
            || {},
        );
        match next {
            Next::Work(work) => super::run::work(process, work),
            Next::End | Next::Wait => return,
        }
    }
}

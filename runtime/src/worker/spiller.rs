//! The thread that writes values to disk and reads them back, so that nobody else waits for the
//! disk. What goes and what comes, and when, is decided by `dispatch::room`.
//!
//! Reads go before writes: somebody waits for them. Orders for one object come one after the
//! other, each after the answer to the one before; removals have no answer.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rdist_scheduler::id::ObjectId;

use super::inbox::{Inbox, Note};
use crate::store::{Incoming, Spill, SpillError, View};

/// What is to be done.
#[derive(Debug)]
enum Order {
    Write { object: ObjectId, view: View },
    Remove(ObjectId),
}

/// The thread's owner. Dropping it ends the thread, and removes all that was written.
#[derive(Debug)]
pub(super) struct Spiller {
    orders: Arc<Orders>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Orders {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    restores: VecDeque<(ObjectId, Incoming)>,
    others: VecDeque<Order>,
    is_over: bool,
}

impl Spiller {
    /// Starts the thread; what it has done is told to `inbox`.
    pub(super) fn start(spill: Spill, inbox: Inbox) -> std::io::Result<Self> {
        let orders = Arc::<Orders>::default();
        let theirs = orders.clone();
        let thread = std::thread::Builder::new()
            .name("rdist-spill".to_owned())
            .spawn(move || work(&theirs, &spill, &inbox))?;
        Ok(Self { orders, thread: Some(thread) })
    }

    /// Writes a value; answered by `Note::Spilled`.
    pub(super) fn write(&self, object: ObjectId, view: View) {
        self.orders.add(|queue| queue.others.push_back(Order::Write { object, view }));
    }

    /// Fills the block with a value; answered by `Note::Restored`.
    pub(super) fn restore(&self, object: ObjectId, block: Incoming) {
        self.orders.add(|queue| queue.restores.push_back((object, block)));
    }

    /// Removes a value.
    pub(super) fn remove(&self, object: ObjectId) {
        self.orders.add(|queue| queue.others.push_back(Order::Remove(object)));
    }
}

impl Drop for Spiller {
    fn drop(&mut self) {
        self.orders.add(|queue| queue.is_over = true);
        if let Some(thread) = self.thread.take() {
            // A panic there was printed by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Orders {
    fn add(&self, change: impl FnOnce(&mut Queue)) {
        change(&mut self.lock());
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn work(orders: &Orders, spill: &Spill, inbox: &Inbox) {
    let mut queue = orders.lock();
    while !queue.is_over {
        if let Some((object, mut block)) = queue.restores.pop_front() {
            drop(queue);
            let result = spill.restore(object, &mut block);
            inbox.tell(Note::Restored { object, block, result });
        } else if let Some(order) = queue.others.pop_front() {
            drop(queue);
            match order {
                Order::Write { object, view } => {
                    let result = spill.write(object, &view);
                    // Its room is free from the answer on.
                    drop(view);
                    inbox.tell(Note::Spilled { object, result });
                }
                Order::Remove(object) => remove(spill, object),
            }
        } else {
            queue = orders.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        queue = orders.lock();
    }
}

fn remove(spill: &Spill, object: ObjectId) {
    if let Err(error) = spill.remove(object) {
        let error: &SpillError = &error;
        tracing::warn!(%object, %error, "a spilled value stays on disk");
    }
}

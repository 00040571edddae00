//! A task that yields, as its own process sees it: where it begins, and how far it may go.

use std::sync::atomic::{AtomicU32, Ordering};

use rdist_scheduler::spec::StreamPolicy;

use super::running::Running;
use crate::api::error::Error;
use crate::wire::executor::FromExecutor;

/// What a task that yields shares with the thread that hears of its consumer.
#[derive(Debug)]
pub(crate) struct Yielding {
    /// The first item that is news to the owner.
    pub(crate) start: u32,
    window: u32,
    consumed: AtomicU32,
    /// Items that it has made, at its end.
    pub(crate) made: AtomicU32,
}

impl Yielding {
    pub(super) fn new(policy: &StreamPolicy) -> Self {
        Self {
            start: policy.start,
            window: policy.window.max(1),
            consumed: AtomicU32::new(policy.consumed),
            made: AtomicU32::new(0),
        }
    }
}

impl Running {
    /// So many of its items are taken.
    pub(super) fn credit(&self, consumed: u32) {
        if let Some(stream) = &self.stream {
            stream.consumed.fetch_max(consumed, Ordering::SeqCst);
            self.wake();
        }
    }

    /// Waits until there is room for one more item after `produced`.
    pub(crate) fn wait_for_room(&self, produced: u32) -> Result<(), Error> {
        let Some(stream) = &self.stream else { return Ok(()) };
        let consumed = || stream.consumed.load(Ordering::SeqCst);
        if produced.saturating_sub(consumed()) < stream.window {
            return if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) };
        }
        // Once it waits, it waits for room for several.
        let wanted = produced - stream.window / 2;
        self.process.send(&FromExecutor::CreditWanted { task: self.id, wanted });
        self.wait(None, || consumed() >= wanted).map(drop)
    }
}

//! Serving an object that is still coming: the pieces go on as they arrive, so that many workers
//! get one object as a tree in which all of them receive at the same time.
//!
//! Who gets it from whom is the decision of the owner's core.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use rdist_scheduler::id::ObjectId;
use tokio::sync::Notify;

use super::StreamError;
use super::serve::{begin_bytes, finish};
use crate::store::{Filled, Incoming};

/// Largest piece that is handed on at once.
const PIECE_BYTES: usize = 256 << 10;
/// How long somebody who was pointed here waits for the pull to begin.
const PATIENCE: Duration = Duration::from_millis(500);

/// All objects that come to this worker at this moment.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    coming: RefCell<HashMap<ObjectId, Rc<Arrival>>>,
    begun: Notify,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Arrival {
    filled: Filled,
    grown: Notify,
    has_failed: Cell<bool>,
}

impl Arrivals {
    /// An object begins to come into `block`.
    pub(crate) fn begin(&self, object: ObjectId, block: &Incoming) -> Rc<Arrival> {
        let arrival = Rc::new(Arrival {
            filled: block.share(),
            grown: Notify::new(),
            has_failed: Cell::new(false),
        });
        self.coming.borrow_mut().insert(object, arrival.clone());
        self.begun.notify_waiters();
        arrival
    }

    /// It has come, or has not.
    pub(crate) fn end(&self, object: ObjectId, complete: bool) {
        if let Some(arrival) = self.coming.borrow_mut().remove(&object) {
            arrival.has_failed.set(!complete);
            arrival.grown.notify_waiters();
        }
    }

    /// An object that comes now.
    pub(crate) fn get(&self, object: ObjectId) -> Option<Rc<Arrival>> {
        self.coming.borrow().get(&object).cloned()
    }

    /// One that comes now or soon.
    pub(crate) async fn wait(&self, object: ObjectId) -> Option<Rc<Arrival>> {
        let found = async {
            loop {
                let begun = self.begun.notified();
                if let Some(arrival) = self.get(object) {
                    return arrival;
                }
                begun.await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.ok()
    }
}

impl Arrival {
    /// More of it is there.
    pub(crate) fn grow(&self) {
        self.grown.notify_waiters();
    }
}

/// Answers with the bytes, as they come, but for those at the beginning that the asker has. Where
/// they cease to come, the stream breaks, and the asker turns to its owner.
pub(crate) async fn serve_arrival(
    stream: &mut quinn::SendStream,
    arrival: &Arrival,
    from: u64,
) -> Result<(), StreamError> {
    let len = arrival.filled.len();
    begin_bytes(stream, len as u64).await?;
    let mut sent = usize::try_from(from).unwrap_or(usize::MAX);
    while sent < len {
        let grown = arrival.grown.notified();
        let end = arrival.filled.filled().min(sent + PIECE_BYTES);
        if end > sent {
            let piece = arrival.filled.copy(sent..end).ok_or(StreamError::Relay)?;
            stream.write_chunk(piece.into()).await?;
            sent = end;
        } else if arrival.has_failed.get() {
            // The asker sees a broken stream, not a short one.
            let _ = stream.reset(1_u32.into());
            return Err(StreamError::Relay);
        } else {
            grown.await;
        }
    }
    finish(stream);
    Ok(())
}

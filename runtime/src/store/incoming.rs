//! A block that the worker itself writes.

use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::memory::{Region, Shared};
use crate::wire::executor::Block;

/// A block to be filled by the worker, from the network or from disk, on any thread. Handed to
/// [`Arena::seal`] when it is complete; dropped otherwise, which gives its room back at the
/// arena's next [`sweep`].
///
/// [`Arena::seal`]: super::Arena::seal
/// [`sweep`]: super::Arena::sweep
#[derive(Debug)]
pub struct Incoming {
    pub(super) block: Block,
    region: Region,
    /// The arena holds a weak pointer to it: that is how it notices the drop.
    pub(super) token: Arc<()>,
    /// Bytes from the start that are there and do not change any more.
    filled: Arc<AtomicUsize>,
}

/// The front part of an [`Incoming`], to be handed on while the rest still comes. Keeps the block
/// from being used for something else, also after it was sealed.
#[derive(Debug)]
pub(crate) struct Filled {
    region: Shared,
    filled: Arc<AtomicUsize>,
    _token: Arc<()>,
}

impl Filled {
    /// Bytes of the whole.
    pub(crate) fn len(&self) -> usize {
        self.region.len()
    }

    /// Bytes that are there.
    pub(crate) fn filled(&self) -> usize {
        self.filled.load(Ordering::Acquire)
    }

    /// A copy of bytes that are there; `None` where some are not.
    pub(crate) fn copy(&self, range: Range<usize>) -> Option<Vec<u8>> {
        if range.end > self.filled() {
            return None;
        }
        // Safety: `Incoming` hands out what lies behind `filled` only, for writing.
        unsafe { self.region.copy(range) }
    }
}

impl Incoming {
    pub(super) fn new(block: Block, region: Region) -> Self {
        Self { block, region, token: Arc::new(()), filled: Arc::default() }
    }

    /// What can be read of it while it is filled by [`Self::rest`] and [`Self::advance`].
    pub(crate) fn share(&self) -> Filled {
        let (region, token) = (self.region.share(), self.token.clone());
        Filled { region, filled: self.filled.clone(), _token: token }
    }

    /// Bytes from the start that are there.
    pub(crate) fn filled(&self) -> usize {
        self.filled.load(Ordering::Relaxed)
    }

    /// The next bytes to be filled, at most `most`; empty when all are.
    pub(crate) fn rest(&mut self, most: usize) -> &mut [u8] {
        let start = self.filled();
        self.region.part(start..self.region.len().min(start.saturating_add(most)))
    }

    /// So many of them are filled, for good.
    pub(crate) fn advance(&mut self, bytes: usize) {
        let filled = self.filled() + bytes;
        self.filled.store(filled.min(self.region.len()), Ordering::Release);
    }

    /// Where it lies.
    pub fn block(&self) -> Block {
        self.block
    }
}

impl Deref for Incoming {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.region
    }
}

impl DerefMut for Incoming {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.region
    }
}

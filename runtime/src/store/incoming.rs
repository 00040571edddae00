//! A block that the worker itself writes.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::memory::Region;
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
}

impl Incoming {
    pub(super) fn new(block: Block, region: Region) -> Self {
        Self { block, region, token: Arc::new(()) }
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

//! What can go wrong with blocks.

use std::io;

use crate::wire::executor::Block;

/// No room for a block now.
#[derive(Debug, thiserror::Error)]
#[error(
    "the object store has no room for {wanted} bytes: {live} of {capacity} bytes hold objects, \
     {granted} are set aside for their writers{}; free objects, wait, or start the worker with \
     more --store-memory",
    system.as_ref().map(|error| format!(" (the system says: {error})")).unwrap_or_default()
)]
pub struct ArenaFull {
    /// Bytes of the block.
    pub wanted: u64,
    /// Bytes of live blocks.
    pub live: u64,
    /// Bytes of segments that have writers.
    pub granted: u64,
    /// Bytes that the arena may have.
    pub capacity: u64,
    /// What the kernel said, where it was the kernel that refused.
    pub system: Option<io::Error>,
}

impl ArenaFull {
    /// Whether room could be had by freeing what is there.
    pub fn is_retryable(&self) -> bool {
        self.wanted <= self.capacity
    }
}

/// An executor named a block that cannot be its own. It is broken or hostile: end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misbehaved {
    /// There is no such segment.
    #[error("named segment {0}, which does not exist")]
    UnknownSegment(u32),
    /// Another one writes it.
    #[error("sealed a block in segment {0}, which it may not write")]
    NotItsOwn(u32),
    /// It was given back with blocks in it.
    #[error("gave back segment {0}, in which there are objects")]
    NotEmpty(u32),
    /// Empty, not aligned or not within the segment.
    #[error("sealed {} bytes at {} in segment {}, which is no valid place",
            .0.len, .0.offset, .0.segment)]
    OutOfPlace(Block),
    /// Part of it is sealed already.
    #[error("sealed {} bytes at {} in segment {}, over a block that is in use",
            .0.len, .0.offset, .0.segment)]
    Overlaps(Block),
}

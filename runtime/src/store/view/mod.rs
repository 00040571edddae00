//! The executor's side of shared memory: segments that it reads, and segments that it writes.

mod segments;
#[cfg(test)]
mod tests;
mod writer;

use std::io;

pub use segments::Segments;
pub use writer::{Draft, Writer};

use super::local_socket::SocketError;
use crate::wire::executor::Block;

/// Shared memory that cannot be read or had.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The worker cannot be reached any longer.
    #[error("the worker is gone: {0}")]
    Worker(#[from] SocketError),
    /// The worker has no room.
    #[error("no room for {wanted} bytes in the object store: {reason}")]
    Refused {
        /// Bytes of the block.
        wanted: u64,
        /// The worker's words.
        reason: String,
    },
    /// A block that does not lie in its segment.
    #[error("{} bytes at {} do not lie in segment {}", .0.len, .0.offset, .0.segment)]
    BadBlock(Block),
    /// The kernel refused.
    #[error("segment {segment} of the object store cannot be mapped: {source}")]
    Map {
        /// Which segment.
        segment: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The request for a segment could not be sent.
    #[error("a segment of the object store cannot be asked for: {0}")]
    Request(io::Error),
}

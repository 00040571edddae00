//! Objects in shared memory: who may write where, what is alive, and who reads it in place.
//!
//! ```text
//!            worker                                     executor
//!   Arena    segments, grants, blocks, views   Writer   allocates in granted segments
//!   Table    object -> value, pins, eviction   Segments maps others' segments, read-only
//!   Spill    values on disk
//! ```
//! The arena is many *segments*, memory files of some megabytes. Each has exactly one writer: an
//! executor, which allocates inside it without asking anyone, or the worker, for values that come
//! from other machines or from disk. Everybody else gets a descriptor that cannot be mapped
//! writable, over the socket, before its first use. A *block* is a range of a segment, aligned to
//! 64 bytes: created, written in place, sealed, read by anyone, freed by the worker, used again.
//!
//! The worker never writes an executor's segment and believes nothing that an executor says about
//! it: a sealed block must lie in a segment of its own, within bounds, over no other block
//! ([`Misbehaved`]). What an executor writes into its own segment after sealing it spoils its own
//! job's values alone.
//!
//! **Life of a segment.** Granted to an executor; when that dies, its live blocks stay until they
//! are freed; then the segment is *warm*: memory whose pages are there, for the next writer. It is
//! not wiped, so an executor may find there what an earlier job wrote: one worker serves people who
//! may read each other's data.

pub mod allocator;
pub mod arena;
mod incoming;
pub mod local_socket;
pub(crate) mod memory;
mod prefault;
mod segment;
pub mod spill;
pub mod table;
pub mod view;

pub use allocator::{BLOCK_ALIGN, SegmentAllocator};
pub use arena::{Arena, ArenaFull, Grant, Misbehaved, Usage};
pub(crate) use incoming::Filled;
pub use incoming::Incoming;
pub use local_socket::{LocalSocket, SocketError};
pub use memory::View;
pub use spill::{Spill, SpillError};
pub use table::{Stored, Table};
pub use view::{Draft, Segments, StoreError, Writer};

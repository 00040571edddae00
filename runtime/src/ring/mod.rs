//! Two rings of bytes between a worker and one of its executors, or between two executors of one
//! job, in memory that both map.
//!
//! ```text
//! memfd   | header | data: ring_bytes | header | data: ring_bytes |
//!           worker to executor          executor to worker
//!
//! header  | tail | head | asleep | starved |          one cache-line pair each
//!           tail     bytes ever published             written by the sender
//!           head     bytes ever given back            written by the receiver
//!           asleep   odd: the receiver sleeps         written by the receiver
//!           starved  odd: the sender waits for room   written by the sender
//!
//! frame   | len u32 | kind u32 | 0 u64 | payload, filled up to a multiple of 16 |
//! ```
//! A frame never wraps: where the rest of the data area is too short, a frame of kind *skip* fills
//! it. So a payload is one slice, 16-byte aligned, and an archive in it can be read in place.
//! Rare large messages go in several frames, all but the last of kind *more*, and are put together
//! in private memory.
//!
//! **Batches.** A sender makes frames visible by [`Sender::publish`], a receiver gives space back
//! when it runs dry; each is one store to a shared line for any number of frames.
//!
//! **Sleep.** Who finds nothing to do spins for a while ([`Spin`]), then announces its sleep in
//! the header, looks once more and waits for its [`Bell`]. The other side rings only for an
//! announced sleep, so busy peers make no system call. `announce.rs` holds that protocol, and the
//! test `ring_model` runs it through every interleaving. Nobody spins where that would keep a peer
//! from its core: `spin.rs`.
//!
//! **Trust.** Each side's own indices are private; the shared ones are only ever written. What the
//! peer writes (its index, lengths, payloads) may be anything and may change at any time: an index
//! or a length out of bounds gives [`Corrupt`], and the worker's receiver copies each frame into
//! private memory before anyone looks at it, and so do executors with each other. An executor
//! trusts its worker and reads in place.
//! Not a goal: keeping an executor from stopping its worker, as processes of one user can always
//! do by signals.

mod announce;
mod bell;
mod crowd;
mod layout;
mod spin;
mod spsc;
mod sync;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

pub use bell::{Bell, Rung};
pub use spin::Spin;
pub use spsc::{Corrupt, Receiver, SendError, Sender};

use crate::store::memory::{Access, Memory, create_memory_file};
use layout::{HEADER_BYTES, Ring};

/// Bytes of each ring's data area where nothing else is asked for: four of the largest frames.
pub const DEFAULT_RING_BYTES: usize = 1 << 20;
/// Smallest data area.
pub const MIN_RING_BYTES: usize = 4 << 10;
/// Largest data area.
pub const MAX_RING_BYTES: usize = 1 << 30;

/// Bytes of the memory file that holds both rings.
pub const fn pair_bytes(ring_bytes: usize) -> usize {
    2 * (HEADER_BYTES + ring_bytes)
}

/// Rings that cannot be made or mapped.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The size is no power of two in the permitted range.
    #[error(
        "a ring of {0} bytes: the size must be a power of two from {MIN_RING_BYTES} \
         to {MAX_RING_BYTES}"
    )]
    Size(u64),
    /// The kernel refused.
    #[error("the rings' shared memory cannot be {what}: {source}")]
    Memory {
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Both rings, mapped, before they are taken apart.
#[derive(Debug)]
pub struct RingPair {
    memory: Arc<Memory>,
    ring_bytes: usize,
    /// Sends into the first ring.
    is_first: bool,
    /// Reads frames where they lie.
    trusts: bool,
}

impl RingPair {
    /// Makes the rings: the worker's side. The descriptor goes to the executor.
    ///
    /// # Errors
    /// [`RingError`], for a bad size or when there is no memory or descriptor left.
    pub fn create(ring_bytes: usize) -> Result<(OwnedFd, Self), RingError> {
        check_size(ring_bytes as u64)?;
        let len = pair_bytes(ring_bytes);
        let fd = create_memory_file("rdist-rings", len as u64)
            .map_err(|source| RingError::Memory { what: "created", source })?;
        let memory = Memory::map(&fd, len, Access::Write)
            .map_err(|source| RingError::Memory { what: "mapped", source })?;
        Ok((fd, Self { memory: Arc::new(memory), ring_bytes, is_first: true, trusts: false }))
    }

    /// Maps the rings of a worker: the executor's side.
    ///
    /// # Errors
    /// [`RingError`], for a bad size or a descriptor that is no such memory.
    pub fn attach(fd: impl AsFd, ring_bytes: u64) -> Result<Self, RingError> {
        Ok(Self { trusts: true, ..Self::attach_between(fd, ring_bytes, false)? })
    }

    /// Memory for rings between two others, neither of which trusts the other.
    ///
    /// # Errors
    /// As for [`Self::create`].
    pub fn memory(ring_bytes: usize) -> Result<OwnedFd, RingError> {
        let len = pair_bytes(check_size(ring_bytes as u64)?);
        create_memory_file("rdist-rings", len as u64)
            .map_err(|source| RingError::Memory { what: "created", source })
    }

    /// Maps such memory; `is_first`: as the side that sends into the first ring.
    ///
    /// # Errors
    /// As for [`Self::attach`].
    pub fn attach_between(
        fd: impl AsFd,
        ring_bytes: u64,
        is_first: bool,
    ) -> Result<Self, RingError> {
        let ring_bytes = check_size(ring_bytes)?;
        let memory = Memory::map(fd, pair_bytes(ring_bytes), Access::Write)
            .map_err(|source| RingError::Memory { what: "mapped", source })?;
        Ok(Self { memory: Arc::new(memory), ring_bytes, is_first, trusts: false })
    }

    /// Takes the pair apart into this side's two ends. `peer` is the bell that the other side
    /// waits for.
    pub fn split(self, peer: Arc<Bell>) -> (Sender, Receiver) {
        let first = Ring::new(self.memory.clone(), 0, self.ring_bytes);
        let second = HEADER_BYTES + self.ring_bytes;
        let second = Ring::new(self.memory, second, self.ring_bytes);
        let (to, from) = if self.is_first { (first, second) } else { (second, first) };
        let receiver = if self.trusts {
            Receiver::in_place(from, peer.clone())
        } else {
            Receiver::copying(from, peer.clone())
        };
        (Sender::new(to, peer), receiver)
    }
}

fn check_size(ring_bytes: u64) -> Result<usize, RingError> {
    let fits = (MIN_RING_BYTES as u64..=MAX_RING_BYTES as u64).contains(&ring_bytes);
    if fits && ring_bytes.is_power_of_two() {
        Ok(ring_bytes as usize)
    } else {
        Err(RingError::Size(ring_bytes))
    }
}

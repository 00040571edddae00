//! The worker's side of shared memory: segments, their writers, and the blocks that live in them.
//!
//! One thread owns the arena. It knows nothing about objects (that is the table's) and decides
//! nothing about eviction; a full arena says so, and the caller frees, spills or waits.
//!
//! ```text
//!            grant                    died, blocks left             last block freed
//!   (new) ───────────► Executor ─────────────────────► Orphaned ───────────────────► Warm
//!                        │   died, empty                                              ▲ │
//!                        └────────────────────────────────────────────────────────────┘ │
//!   (new) ───────────► Worker ◄──────────── create ─────────────────────────────────────┤
//!                      Executor ◄────────── grant ──────────────────────────────────────┤
//!                      (gone) ◄──────────── its memory is needed for a larger one ──────┘
//! ```
//! Invariants, checked by [`Arena::check_invariants`]:
//! - `AR-1`: blocks of one segment do not overlap, are aligned, and lie within it.
//! - `AR-2`: a warm segment has no blocks.
//! - `AR-3`: segments and blocks add up to what is counted, segments within the capacity.
//! - `AR-4`: blocks of the worker's segments, with those not sealed yet, are what is allocated.

mod error;
mod invariants;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Weak};

pub use error::{ArenaFull, Misbehaved};

use super::allocator::{BLOCK_ALIGN, SegmentAllocator, extent};
use super::incoming::Incoming;
use super::memory::{Memory, Region, View, create_memory_file, reopen_read_only, reopen_writable};
use super::prefault::Prefault;
use super::segment::{Live, Segment, Writer};
use crate::wire::cluster::Place;
use crate::wire::executor::Block;
use rdist_scheduler::id::ExecutorId;
use rustix::fs::fstat;

/// Usual size of a segment; larger blocks get larger ones.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// A writer's first segment, so that hundreds of small actors do not fill the arena with air;
/// each further one is twice as large, up to [`SEGMENT_BYTES`].
pub const FIRST_SEGMENT_BYTES: u64 = 8 << 20;
/// Segments' sizes are multiples of this: the size of a huge page.
const SEGMENT_STEP: u64 = 2 << 20;

/// A segment for a writer.
#[derive(Debug)]
pub struct Grant {
    /// Its number.
    pub segment: u32,
    /// Its size.
    pub len: u64,
    /// To be mapped writable, by this writer alone.
    pub fd: OwnedFd,
}

/// What the arena holds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// May have.
    pub capacity: u64,
    /// In segments of any kind.
    pub committed: u64,
    /// In segments without a writer or blocks.
    pub warm: u64,
    /// In live blocks, with what alignment adds.
    pub live: u64,
    /// Live blocks.
    pub blocks: u64,
}

/// See the module's text.
#[derive(Debug)]
pub struct Arena {
    capacity: u64,
    /// Of the capacity, what executors do not get.
    reserve: u64,
    committed: u64,
    /// Bytes and number of live blocks.
    live: u64,
    blocks: u64,
    segments: BTreeMap<u32, Segment>,
    last_number: u32,
    /// Freed while views were out, freed in truth by a later sweep.
    deferred: VecDeque<Block>,
    /// Not sealed yet.
    unsealed: Vec<(Block, Weak<()>)>,
    prefault: Option<Prefault>,
}

impl Arena {
    /// An empty arena.
    pub fn new(capacity_bytes: u64) -> Self {
        Self {
            capacity: capacity_bytes,
            reserve: 0,
            committed: 0,
            live: 0,
            blocks: 0,
            segments: BTreeMap::new(),
            last_number: 0,
            deferred: VecDeque::new(),
            unsealed: Vec::new(),
            prefault: None,
        }
    }

    /// From now on executors leave so much for the worker itself, as far as their blocks fit into
    /// the rest. What they have they keep.
    pub fn set_reserve(&mut self, bytes: u64) {
        self.reserve = bytes.min(self.capacity);
    }

    /// Makes some segments ahead, and gets the pages of these in the background.
    ///
    /// # Errors
    /// When the kernel gives no memory, descriptor or thread.
    pub fn warm_up(&mut self, bytes: u64) -> io::Result<()> {
        let prefault = match &self.prefault {
            Some(prefault) => prefault,
            None => self.prefault.insert(Prefault::start()?),
        };
        let mut wanted = Vec::new();
        let mut left = bytes.min(self.capacity - self.committed);
        let mut len = FIRST_SEGMENT_BYTES;
        while left >= len {
            wanted.push(len);
            left -= len;
            len = (len * 2).min(SEGMENT_BYTES);
        }
        let mut fds = Vec::new();
        for &len in &wanted {
            let fd = create_memory_file("rdist-segment", len)?;
            prefault.want(fd.try_clone()?, len);
            fds.push((fd, len));
        }
        for (fd, len) in fds {
            self.add(fd, len, Writer::Warm);
        }
        Ok(())
    }

    /// Gives an executor a segment that has room for a block of `min_len` bytes.
    ///
    /// # Errors
    /// [`ArenaFull`].
    pub fn grant(&mut self, executor: ExecutorId, min_len: u64) -> Result<Grant, ArenaFull> {
        let is_its_own = |s: &&Segment| matches!(s.writer, Writer::Executor(id) if id == executor);
        let count = self.segments.values().filter(is_its_own).count();
        let segment = self.provide(min_len, count, Writer::Executor(executor))?;
        let Some(entry) = self.segments.get_mut(&segment) else {
            return Err(self.full(min_len, None));
        };
        let len = entry.len;
        match reopen_writable(&entry.fd) {
            Ok(fd) => Ok(Grant { segment, len, fd }),
            Err(error) => {
                entry.writer = Writer::Warm;
                Err(self.full(min_len, Some(error)))
            }
        }
    }

    /// A descriptor of a segment for its readers, and its length.
    ///
    /// # Errors
    /// `NotFound` for a segment that does not exist; the kernel's, when no descriptor is left.
    pub fn read_only(&self, segment: u32) -> io::Result<(OwnedFd, u64)> {
        let entry = self.segments.get(&segment).ok_or(io::ErrorKind::NotFound)?;
        Ok((reopen_read_only(&entry.fd)?, entry.len))
    }

    /// Takes in a block that an executor says it has sealed.
    ///
    /// # Errors
    /// [`Misbehaved`], with nothing changed.
    pub fn adopt(&mut self, executor: ExecutorId, block: Block) -> Result<(), Misbehaved> {
        let segment = self.segments.get_mut(&block.segment);
        let segment = segment.ok_or(Misbehaved::UnknownSegment(block.segment))?;
        if !matches!(segment.writer, Writer::Executor(writer) if writer == executor) {
            return Err(Misbehaved::NotItsOwn(block.segment));
        }
        let size = extent(block.len).filter(|_| block.len > 0);
        let end = size.and_then(|size| block.offset.checked_add(size));
        let Some(end) = end.filter(|&end| end <= segment.len) else {
            return Err(Misbehaved::OutOfPlace(block));
        };
        if !block.offset.is_multiple_of(BLOCK_ALIGN) {
            return Err(Misbehaved::OutOfPlace(block));
        }
        if let Some((&before, live)) = segment.blocks.range(..end).next_back()
            && before + live.extent() > block.offset
        {
            return Err(Misbehaved::Overlaps(block));
        }
        self.live += end - block.offset;
        self.blocks += 1;
        segment.blocks.insert(block.offset, Live::new(block.len));
        Ok(())
    }

    /// Frees a block. `Some`: tell this executor to reclaim it. A block with views out is freed by
    /// a later [`Self::sweep`]. A block that does not exist is ignored.
    pub fn free(&mut self, block: Block) -> Option<ExecutorId> {
        let segment = self.segments.get_mut(&block.segment)?;
        let live = segment.blocks.get_mut(&block.offset).filter(|live| live.len == block.len)?;
        if live.has_views() {
            if !self.deferred.contains(&block) {
                self.deferred.push_back(block);
            }
            return None;
        }
        self.live -= live.extent();
        self.blocks -= 1;
        segment.blocks.remove(&block.offset);
        match &mut segment.writer {
            Writer::Executor(executor) => return Some(*executor),
            Writer::Worker(allocator) => {
                let freed = allocator.free(block.offset, block.len);
                debug_assert_eq!(freed, Ok(()), "AR-4");
            }
            Writer::Orphaned | Writer::Warm => {}
        }
        segment.retire();
        None
    }

    /// Frees what could not be freed before: blocks whose last view is gone, and incoming blocks
    /// that were dropped. What executors must be told to reclaim.
    pub fn sweep(&mut self) -> Vec<(ExecutorId, Block)> {
        let mut reclaims = Vec::new();
        for block in std::mem::take(&mut self.deferred) {
            if let Some(executor) = self.free(block) {
                reclaims.push((executor, block));
            }
        }
        self.unsealed.retain(|(block, token)| {
            if token.strong_count() > 0 {
                return true;
            }
            // Whatever the holder wrote happened before.
            fence(Ordering::Acquire);
            if let Some(segment) = self.segments.get_mut(&block.segment) {
                segment.free_unsealed(*block);
            }
            false
        });
        reclaims
    }

    /// Whether a [`Self::sweep`] could free something, now or later.
    pub fn has_deferred(&self) -> bool {
        !self.deferred.is_empty() || !self.unsealed.is_empty()
    }

    /// An executor is gone. Its live blocks stay, what it had not sealed is free.
    pub fn executor_died(&mut self, executor: ExecutorId) {
        for segment in self.segments.values_mut() {
            if matches!(segment.writer, Writer::Executor(writer) if writer == executor) {
                segment.writer = Writer::Orphaned;
                segment.retire();
            }
        }
    }

    /// A block for the worker itself to write. An empty value has no block: `len` of 0 takes one
    /// byte.
    ///
    /// # Errors
    /// [`ArenaFull`].
    pub fn create(&mut self, len: u64) -> Result<Incoming, ArenaFull> {
        let place = self.segments.iter_mut().find_map(|(&number, segment)| {
            let Writer::Worker(allocator) = &mut segment.writer else { return None };
            Some((number, allocator.alloc(len)?))
        });
        let (number, offset) = match place {
            Some(place) => place,
            None => {
                let of_worker = |s: &&Segment| matches!(s.writer, Writer::Worker(_));
                let count = self.segments.values().filter(of_worker).count();
                let placeholder = Writer::Worker(SegmentAllocator::new(0));
                let number = self.provide(len, count, placeholder)?;
                let allocated = self.segments.get_mut(&number).and_then(|segment| {
                    let mut allocator = SegmentAllocator::new(segment.len);
                    let offset = allocator.alloc(len);
                    segment.writer = Writer::Worker(allocator);
                    offset
                });
                (number, allocated.ok_or_else(|| self.full(len, None))?)
            }
        };
        let block = Block { segment: number, offset, len };
        let memory = self.memory(number);
        let region = memory.and_then(|memory| {
            // Safety: the allocator has just given out the range, and gives it out again only
            // after the `Incoming` is gone (`sweep`), or sealed and freed with no view left.
            unsafe { Region::new(memory, offset, len) }.ok_or(io::ErrorKind::InvalidInput.into())
        });
        match region {
            Ok(region) => {
                let incoming = Incoming::new(block, region);
                self.unsealed.push((block, Arc::downgrade(&incoming.token)));
                Ok(incoming)
            }
            Err(error) => {
                if let Some(segment) = self.segments.get_mut(&number) {
                    segment.free_unsealed(block);
                }
                Err(self.full(len, Some(error)))
            }
        }
    }

    /// Seals an incoming block of this arena: it is immutable from now on, until it is freed.
    pub fn seal(&mut self, incoming: Incoming) -> Block {
        let block = incoming.block;
        let token = Arc::downgrade(&incoming.token);
        self.unsealed.retain(|(_, other)| !Weak::ptr_eq(other, &token));
        if let Some(segment) = self.segments.get_mut(&block.segment) {
            // Whoever hands it on while it came reads it still.
            let live = Live { len: block.len, token: incoming.token };
            self.live += live.extent();
            self.blocks += 1;
            segment.blocks.insert(block.offset, live);
        }
        block
    }

    /// A live block, to be read on any thread. While a view is out, the block is not reused.
    ///
    /// # Errors
    /// `NotFound` for a block that is not alive; the kernel's when it cannot be mapped.
    pub fn read(&mut self, block: Block) -> io::Result<View> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let segment = self.segments.get(&block.segment).ok_or_else(missing)?;
        let live = segment.blocks.get(&block.offset).filter(|live| live.len == block.len);
        let token = live.ok_or_else(missing)?.token.clone();
        let memory = self.memory(block.segment)?;
        // Safety: the block is sealed, and its range is given to a writer again only after the
        // last clone of `token` is gone.
        unsafe { View::new(memory, block.offset, block.len, Some(token)) }.ok_or_else(missing)
    }

    /// Where other processes of this machine find a block, as long as it lives.
    ///
    /// # Errors
    /// `NotFound` for a segment that does not exist; the kernel's.
    pub(crate) fn place(&self, block: Block) -> io::Result<Place> {
        let Segment { fd, .. } =
            self.segments.get(&block.segment).ok_or(io::ErrorKind::NotFound)?;
        let (process, descriptor) = (std::process::id(), fd.as_raw_fd());
        let Block { offset, len, .. } = block;
        Ok(Place { process, descriptor, inode: fstat(fd)?.st_ino, offset, len })
    }

    /// Takes back a segment that its writer no longer writes. Its memory is given back to the
    /// system: what a process could once write is never another's.
    ///
    /// # Errors
    /// [`Misbehaved`], with nothing changed, for a segment of another writer or with blocks.
    pub fn take_back(&mut self, executor: ExecutorId, number: u32) -> Result<(), Misbehaved> {
        let segment = self.segments.get(&number).ok_or(Misbehaved::UnknownSegment(number))?;
        if !matches!(segment.writer, Writer::Executor(writer) if writer == executor) {
            return Err(Misbehaved::NotItsOwn(number));
        }
        if !segment.blocks.is_empty() {
            return Err(Misbehaved::NotEmpty(number));
        }
        if let Some(segment) = self.segments.remove(&number) {
            self.committed -= segment.len;
            segment.give_back_pages();
        }
        Ok(())
    }

    /// Bytes that it may have.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Bytes of live blocks.
    pub fn live_bytes(&self) -> u64 {
        self.live
    }

    /// What it holds.
    pub fn usage(&self) -> Usage {
        let is_warm = |s: &&Segment| matches!(s.writer, Writer::Warm);
        let warm = self.segments.values().filter(is_warm).map(|segment| segment.len).sum();
        let Self { capacity, committed, live, blocks, .. } = *self;
        Usage { capacity, committed, warm, live, blocks }
    }

    /// A segment with room for `min_len`: a warm one, else a new one. `count`: how many the writer
    /// has already.
    fn provide(&mut self, min_len: u64, count: usize, writer: Writer) -> Result<u32, ArenaFull> {
        let too_much = || self.full(min_len, None);
        let needed = extent(min_len).filter(|&len| len <= self.capacity).ok_or_else(too_much)?;
        let is_for_worker = matches!(writer, Writer::Worker(_));
        let most = if is_for_worker { self.capacity } else { self.capacity - self.reserve };
        let most = most.max(needed);
        let usage = self.usage();
        let in_use = usage.committed - usage.warm;
        if in_use + needed > most {
            return Err(self.full(min_len, None));
        }
        let warm = self
            .segments
            .iter_mut()
            .filter(|(_, segment)| matches!(segment.writer, Writer::Warm) && segment.len >= needed);
        if let Some((&number, segment)) = warm.min_by_key(|(_, segment)| segment.len) {
            segment.writer = writer;
            return Ok(number);
        }
        let usual = (FIRST_SEGMENT_BYTES << count.min(16)).min(SEGMENT_BYTES);
        let step = SEGMENT_STEP.min(self.capacity / 8).next_multiple_of(4096).max(4096);
        let least = needed.next_multiple_of(step).min(self.capacity / 4096 * 4096).max(needed);
        // In a small arena a usual segment must leave room for others.
        let wanted = least.max(usual.min((self.capacity / 8).next_multiple_of(step)));
        for len in [wanted, least] {
            if in_use + len > most {
                continue;
            }
            self.drop_warm(len);
            if len <= self.capacity - self.committed {
                return match self.make(len, count > 0) {
                    Ok(fd) => Ok(self.add(fd, len, writer)),
                    Err(error) => Err(self.full(min_len, Some(error))),
                };
            }
        }
        Err(self.full(min_len, None))
    }

    /// A new memory file. Its pages are got ahead of a writer that has filled one already; a first
    /// segment may never be filled.
    fn make(&self, len: u64, is_filled_soon: bool) -> io::Result<OwnedFd> {
        let fd = create_memory_file("rdist-segment", len)?;
        if let (Some(prefault), true) = (&self.prefault, is_filled_soon) {
            prefault.want(fd.try_clone()?, len);
        }
        Ok(fd)
    }

    fn add(&mut self, fd: OwnedFd, len: u64, writer: Writer) -> u32 {
        self.last_number += 1;
        self.committed += len;
        self.segments.insert(self.last_number, Segment::new(fd, len, writer));
        self.last_number
    }

    /// Gives warm segments back to the system until `len` more bytes fit, if they can.
    fn drop_warm(&mut self, len: u64) {
        let usage = self.usage();
        if usage.capacity - (usage.committed - usage.warm) < len {
            return;
        }
        while self.capacity - self.committed < len {
            let is_warm = |s: &Segment| matches!(s.writer, Writer::Warm);
            let warm = self.segments.iter().find(|(_, segment)| is_warm(segment));
            let Some((&number, _)) = warm else { return };
            if let Some(segment) = self.segments.remove(&number) {
                self.committed -= segment.len;
                segment.give_back_pages();
            }
        }
    }

    /// The worker's mapping of a segment.
    fn memory(&mut self, number: u32) -> io::Result<Arc<Memory>> {
        self.segments.get_mut(&number).ok_or(io::ErrorKind::NotFound)?.memory()
    }

    fn full(&self, wanted: u64, system: Option<io::Error>) -> ArenaFull {
        let usage = self.usage();
        let granted = usage.committed - usage.warm;
        ArenaFull { wanted, live: usage.live, granted, capacity: self.capacity, system }
    }
}

#[cfg(test)]
mod tests;

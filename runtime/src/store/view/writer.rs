//! Blocks that this executor writes.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Segments, StoreError};
use crate::store::allocator::SegmentAllocator;
use crate::store::memory::{Memory, Region};
use crate::wire::executor::Block;

/// Sends `SegmentWanted` with so many bytes.
type Request = Box<dyn Fn(u64) -> io::Result<()> + Send + Sync>;

/// The segments that this executor may write. Shared by its threads.
pub struct Writer {
    segments: Arc<Segments>,
    areas: Arc<Mutex<Vec<Area>>>,
    request: Request,
    /// Held by the one thread that may ask for a segment.
    asking: Mutex<()>,
}

/// One segment.
#[derive(Debug)]
struct Area {
    segment: u32,
    memory: Arc<Memory>,
    allocator: SegmentAllocator,
}

impl Writer {
    /// Has no segment yet. `request` sends `SegmentWanted { len }` to the worker; it must not wait
    /// for the answer, which comes over the socket.
    pub fn new(
        segments: Arc<Segments>,
        request: impl Fn(u64) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let request = Box::new(request);
        Self { segments, areas: Arc::default(), request, asking: Mutex::default() }
    }

    /// A block of `len` bytes to write in place. Asks for another segment, and waits, if none has
    /// room. The bytes may be anything; a block of 0 bytes cannot be sealed usefully, as empty
    /// values ride inline.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when the worker has no room.
    pub fn create(&self, len: u64) -> Result<Draft, StoreError> {
        if let Some(draft) = self.try_create(len) {
            return Ok(draft);
        }
        let _asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            // Counted before the attempt, so that a reclaim right after it is noticed.
            let (reclaims, was_asked) = {
                let mut inbox = self.segments.lock();
                (inbox.reclaims, std::mem::replace(&mut inbox.is_asked, true))
            };
            if let Some(draft) = self.try_create(len) {
                if !was_asked {
                    self.segments.lock().is_asked = false;
                }
                return Ok(draft);
            }
            if !was_asked {
                self.segments.lock().refused = None;
                if let Err(error) = (self.request)(len) {
                    self.segments.lock().is_asked = false;
                    return Err(StoreError::Request(error));
                }
            }
            let reason = self.segments.wait(|inbox| {
                let is_over = !inbox.is_asked || inbox.reclaims != reclaims;
                is_over.then(|| inbox.refused.take())
            })?;
            if let Some(draft) = self.try_create(len) {
                self.withdraw();
                return Ok(draft);
            }
            // A refusal of an earlier request, for which room was found elsewhere, is none of this.
            if let (Some(reason), false) = (reason, was_asked) {
                return Err(StoreError::Refused { wanted: len, reason });
            }
        }
    }

    /// Room was found before the worker answered.
    fn withdraw(&self) {
        let was_asked = std::mem::take(&mut self.segments.lock().is_asked);
        if was_asked {
            // The worker is gone, where this fails; whoever waits for it notices.
            let _ = (self.request)(0);
        }
    }

    /// Gives the worker the segments without a block, unless this executor needs room itself.
    pub fn give_up_empty(&self) -> Vec<u32> {
        let mut areas = lock(&self.areas);
        if self.segments.lock().is_asked {
            return Vec::new();
        }
        let empty = areas.extract_if(.., |area| area.allocator.is_empty());
        let empty: Vec<u32> = empty.map(|area| area.segment).collect();
        drop(areas);
        self.segments.forget(&empty);
        empty
    }

    /// A block from the segments that are there: `None` if none has room.
    pub fn try_create(&self, len: u64) -> Option<Draft> {
        let mut areas = lock(&self.areas);
        loop {
            for area in areas.iter_mut() {
                let Some(offset) = area.allocator.alloc(len) else { continue };
                let block = Block { segment: area.segment, offset, len };
                // Safety: the allocator has just given out the range, and gives it out again only
                // when the draft is dropped unsealed, or the worker says that nobody needs it.
                let region = unsafe { Region::new(area.memory.clone(), offset, len) }?;
                return Some(Draft { block, region, areas: Some(self.areas.clone()) });
            }
            let (segment, memory) = self.segments.lock().granted.pop_front()?;
            let allocator = SegmentAllocator::new(memory.len() as u64);
            areas.push(Area { segment, memory, allocator });
        }
    }

    /// The worker says that nobody needs these blocks any longer.
    pub fn reclaim(&self, blocks: impl IntoIterator<Item = Block>) {
        let mut areas = lock(&self.areas);
        for block in blocks {
            free(&mut areas, block);
        }
        drop(areas);
        self.segments.lock().reclaims += 1;
        self.segments.nudge();
    }

    /// Bytes in blocks that are not reclaimed.
    pub fn taken_bytes(&self) -> u64 {
        lock(&self.areas).iter().map(|area| area.allocator.taken_bytes()).sum()
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("areas", &lock(&self.areas)).finish_non_exhaustive()
    }
}

/// A block that is being written. Dropped unsealed, it gives its room back.
pub struct Draft {
    block: Block,
    region: Region,
    /// `None`: sealed.
    areas: Option<Arc<Mutex<Vec<Area>>>>,
}

impl Draft {
    /// Ends the writing. The block is the caller's to announce, by `Put` or `Finished`; it stays
    /// taken until the worker reclaims it.
    pub fn seal(mut self) -> Block {
        self.areas = None;
        self.block
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(areas) = self.areas.take() {
            free(&mut lock(&areas), self.block);
        }
    }
}

impl Deref for Draft {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.region
    }
}

impl DerefMut for Draft {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.region
    }
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Draft").field(&self.block).finish()
    }
}

fn lock(areas: &Mutex<Vec<Area>>) -> MutexGuard<'_, Vec<Area>> {
    areas.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Frees a block; one that is not taken is ignored, as after a repeated reclaim.
fn free(areas: &mut [Area], block: Block) {
    if let Some(area) = areas.iter_mut().find(|area| area.segment == block.segment) {
        let _ = area.allocator.free(block.offset, block.len);
    }
}

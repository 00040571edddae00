//! One segment of the arena: its file, its writer and its live blocks. Whom it is granted to and
//! how much room there is are the matter of `arena`.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rdist_scheduler::id::ExecutorId;
use rustix::fs::{FallocateFlags, fallocate};

use super::allocator::{SegmentAllocator, extent};
use super::memory::{Access, Memory};
use crate::wire::executor::Block;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Segment {
    /// With all rights; the arena alone keeps it.
    pub(super) fd: OwnedFd,
    pub(super) len: u64,
    /// Made at the first use by the worker.
    memory: Option<Arc<Memory>>,
    pub(super) writer: Writer,
    /// Live blocks by offset.
    pub(super) blocks: BTreeMap<u64, Live>,
}

/// Who may write a segment; the arena's text has the transitions.
#[derive(Debug)]
pub(super) enum Writer {
    /// This executor.
    Executor(ExecutorId),
    /// The worker itself.
    Worker(SegmentAllocator),
    /// None any longer; blocks are left.
    Orphaned,
    /// None, and no blocks.
    Warm,
}

/// A live block.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) len: u64,
    /// Views hold clones.
    pub(super) token: Arc<()>,
}

impl Segment {
    /// Without blocks, and not mapped.
    pub(super) fn new(fd: OwnedFd, len: u64, writer: Writer) -> Self {
        Self { fd, len, memory: None, writer, blocks: BTreeMap::new() }
    }

    /// The worker's mapping: writable where the worker is the writer.
    pub(super) fn memory(&mut self) -> io::Result<Arc<Memory>> {
        let is_writer = matches!(self.writer, Writer::Worker(_));
        if let Some(memory) = &self.memory
            && (memory.is_writable() || !is_writer)
        {
            return Ok(memory.clone());
        }
        let access = if is_writer { Access::Write } else { Access::Read };
        let memory = Arc::new(Memory::map(&self.fd, self.len as usize, access)?);
        self.memory = Some(memory.clone());
        Ok(memory)
    }

    /// After a block or a writer has gone: warm, if nothing and nobody is left.
    pub(super) fn retire(&mut self) {
        let is_unused = match &self.writer {
            Writer::Worker(allocator) => allocator.is_empty(),
            Writer::Orphaned => self.blocks.is_empty(),
            Writer::Executor(_) | Writer::Warm => false,
        };
        if is_unused {
            self.writer = Writer::Warm;
        }
    }

    /// Frees what the worker allocated and did not seal.
    pub(super) fn free_unsealed(&mut self, block: Block) {
        if let Writer::Worker(allocator) = &mut self.writer {
            let freed = allocator.free(block.offset, block.len);
            debug_assert_eq!(freed, Ok(()), "AR-4");
        }
        self.retire();
    }

    /// Frees the pages, also where other processes still map the file.
    pub(super) fn give_back_pages(self) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // Where it fails, the pages go with the last mapping.
        let _ = fallocate(&self.fd, flags, 0, self.len);
    }
}

impl Live {
    pub(super) fn new(len: u64) -> Self {
        Self { len, token: Arc::new(()) }
    }

    /// With what alignment adds.
    pub(super) fn extent(&self) -> u64 {
        extent(self.len).unwrap_or(self.len)
    }

    /// If not, whatever the last view read happened before.
    pub(super) fn has_views(&mut self) -> bool {
        Arc::get_mut(&mut self.token).is_none()
    }
}

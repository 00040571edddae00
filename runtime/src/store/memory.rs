//! Memory files and their mappings: the store's only code that maps, unmaps or makes slices.
//!
//! # Safety
//! - A [`Memory`] is mapped from its making to its drop and knows its length. The file behind it
//!   cannot shrink: this module's own are sealed, and a foreign one is refused by
//!   [`Memory::map`] unless it is sealed too. So no access within the length can fault.
//! - Two faces give out slices. [`View`] reads a range that is sealed, which means that nobody
//!   writes it until it is freed; whoever frees it makes sure that no view is left ([`Arena`] for
//!   the worker, `Released` messages for executors). [`Region`] writes a range that its allocator
//!   has given to it alone.
//! - **Between processes** an immutable block is a promise of the process that sealed it. Blocks
//!   are read by the worker, which only copies their bytes onwards, and by executors of the same
//!   job, which trust each other as threads of one program would. No process can write another
//!   one's segments by accident: its descriptors of them are read-only.
//!
//! [`Arena`]: super::arena::Arena

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use rustix::fs::{
    MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate,
    memfd_create, open,
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Makes a memory file of `len` zeros whose size can never change.
pub(crate) fn create_memory_file(name: &str, len: u64) -> io::Result<OwnedFd> {
    let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&fd, len)?;
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}

/// Another descriptor of the same memory file, which can be mapped for reading only.
pub(crate) fn reopen_read_only(fd: impl AsFd) -> io::Result<OwnedFd> {
    reopen(fd, OFlags::RDONLY)
}

/// Another descriptor of the same memory file, with its own flags.
pub(crate) fn reopen_writable(fd: impl AsFd) -> io::Result<OwnedFd> {
    reopen(fd, OFlags::RDWR)
}

fn reopen(fd: impl AsFd, flags: OFlags) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    Ok(open(path, flags | OFlags::CLOEXEC, Mode::empty())?)
}

/// What a mapping is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reading.
    Read,
    /// Reading and writing.
    Write,
}

/// A mapped memory file.
pub(crate) struct Memory {
    start: NonNull<u8>,
    len: usize,
    access: Access,
}

// Safety: a mapping belongs to the process, not to a thread; what may be read or written when is
// the matter of `View`, `Region` and the rings.
unsafe impl Send for Memory {}
// Safety: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Maps the first `len` bytes.
    ///
    /// # Errors
    /// Those of `mmap`; `InvalidInput` for a descriptor that is shorter, or that could shrink.
    pub(crate) fn map(fd: impl AsFd, len: usize, access: Access) -> io::Result<Self> {
        let refused = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        if len == 0 || u64::try_from(fstat(&fd)?.st_size).unwrap_or(0) < len as u64 {
            return refused("the memory file is shorter than announced");
        }
        if !fcntl_get_seals(&fd)?.contains(SealFlags::SHRINK) {
            return refused("the memory file is not sealed against shrinking");
        }
        let protection = match access {
            Access::Read => ProtFlags::READ,
            Access::Write => ProtFlags::READ | ProtFlags::WRITE,
        };
        // Safety: the kernel picks the address, so no existing mapping changes.
        let start = unsafe { mmap(ptr::null_mut(), len, protection, MapFlags::SHARED, fd, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len, access })
    }

    /// The first byte.
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Bytes that are mapped.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether it may be written.
    pub(crate) fn is_writable(&self) -> bool {
        self.access == Access::Write
    }

    /// Whether `offset..offset + len` is mapped; as a start and a length.
    fn range(&self, offset: u64, len: u64) -> Option<(*mut u8, usize)> {
        if offset.checked_add(len)? > self.len as u64 {
            return None;
        }
        // Safety: the offset is within the mapping, or one past its end for an empty range.
        Some((unsafe { self.as_ptr().add(offset as usize) }, len as usize))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // Safety: `map` made exactly this mapping, and all slices of it borrow from this value or
        // from an `Arc` of it. An error (impossible for a valid range) would leak it.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} bytes, {:?})", self.len, self.access)
    }
}

/// A sealed block, read where it lies. Keeps the mapping, and (in the worker) keeps the block
/// from being freed. Cheap to clone and to send.
#[derive(Clone)]
pub struct View {
    memory: Arc<Memory>,
    offset: u64,
    len: u64,
    /// Counts the views of the block for the arena.
    _token: Option<Arc<()>>,
}

impl View {
    /// A view of a range; `None` where it is not within the mapping.
    ///
    /// # Safety
    /// Nobody in this process writes the range until the view and its clones are gone.
    pub(crate) unsafe fn new(
        memory: Arc<Memory>,
        offset: u64,
        len: u64,
        token: Option<Arc<()>>,
    ) -> Option<Self> {
        memory.range(offset, len)?;
        Some(Self { memory, offset, len, _token: token })
    }
}

impl Deref for View {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let Some((start, len)) = self.memory.range(self.offset, self.len) else { return &[] };
        // Safety: the range is mapped as long as `self.memory` lives, and `new`'s caller promised
        // that nobody writes it.
        unsafe { std::slice::from_raw_parts(start, len) }
    }
}

impl AsRef<[u8]> for View {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View({} bytes at {})", self.len, self.offset)
    }
}

/// A range that only its holder writes, until it is sealed.
pub(crate) struct Region {
    memory: Arc<Memory>,
    offset: u64,
    len: u64,
}

impl Region {
    /// A region; `None` where the range is not within the mapping or the mapping is read-only.
    ///
    /// # Safety
    /// Nobody else in this process reads or writes the range while the region lives.
    pub(crate) unsafe fn new(memory: Arc<Memory>, offset: u64, len: u64) -> Option<Self> {
        memory.range(offset, len)?;
        memory.is_writable().then_some(Self { memory, offset, len })
    }
}

impl Region {
    /// Bytes of it.
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// Part of it, to be written while other parts are read by others; empty where it is not
    /// within the region.
    pub(crate) fn part(&mut self, part: Range<usize>) -> &mut [u8] {
        let len = part.end.saturating_sub(part.start) as u64;
        if part.end > self.len() {
            return &mut [];
        }
        let range = self.memory.range(self.offset + part.start as u64, len);
        let Some((start, len)) = range else { return &mut [] };
        // Safety: as in `deref_mut`; no reference to the other parts is made.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    /// The same memory, for copies out of parts that are written no more.
    pub(crate) fn share(&self) -> Shared {
        Shared { memory: self.memory.clone(), offset: self.offset, len: self.len }
    }
}

/// See [`Region::share`].
pub(crate) struct Shared {
    memory: Arc<Memory>,
    offset: u64,
    len: u64,
}

impl Shared {
    /// Bytes of the whole.
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// A copy of a part; `None` where it is not within the region.
    ///
    /// # Safety
    /// Nobody writes this part any more, as long as the region is not given out again.
    pub(crate) unsafe fn copy(&self, part: Range<usize>) -> Option<Vec<u8>> {
        let len = part.end.checked_sub(part.start)? as u64;
        if part.end > self.len() {
            return None;
        }
        let (start, len) = self.memory.range(self.offset + part.start as u64, len)?;
        // Safety: the range is mapped, and the caller promises that nobody writes it.
        Some(unsafe { std::slice::from_raw_parts(start, len) }.to_vec())
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({} bytes at {})", self.len, self.offset)
    }
}

impl Deref for Region {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let Some((start, len)) = self.memory.range(self.offset, self.len) else { return &[] };
        // Safety: the range is mapped as long as `self.memory` lives, and ours alone.
        unsafe { std::slice::from_raw_parts(start, len) }
    }
}

impl DerefMut for Region {
    fn deref_mut(&mut self) -> &mut [u8] {
        let Some((start, len)) = self.memory.range(self.offset, self.len) else {
            return &mut [];
        };
        // Safety: as above, `new` checked that the mapping is writable, and `self` is borrowed
        // exclusively.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Region({} bytes at {})", self.len, self.offset)
    }
}

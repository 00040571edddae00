//! Where a ring's parts lie in shared memory, and the only code that touches them.
//!
//! # Safety
//! - `Ring` holds its mapping and was checked against its length once, so the header and the
//!   data area stay mapped as long as it lives; sealed memory cannot shrink under it.
//! - The header consists of atomics only, so any bytes that the peer writes are valid.
//! - The data area is touched through raw pointers at offsets that are reduced modulo the
//!   capacity and checked against its end here, whatever the callers computed. A racing write of a
//!   misbehaving peer can change what a copy holds, never where it goes.
//! - A reference into the data area exists only between [`Ring::frame_in_place`] and the next
//!   call on its receiver, on the executor's side, which trusts the worker to leave unreleased
//!   bytes alone.

use std::ptr;
use std::sync::Arc;

use rkyv::util::AlignedVec;

use super::sync::AtomicU64;
use crate::store::memory::Memory;

/// Bytes before a ring's data area: one page, so that the data starts on a page.
pub(super) const HEADER_BYTES: usize = 4096;
/// Frames start at multiples of this, and so do their payloads.
pub(super) const FRAME_ALIGN: usize = 16;
/// Bytes before a payload.
pub(super) const FRAME_HEADER_BYTES: usize = 16;

/// Two cache lines, as the prefetcher fetches them in pairs.
#[repr(C, align(128))]
pub(super) struct Line<T>(pub(super) T);

/// The shared words of one ring; see the drawing in the module `ring`.
#[repr(C)]
pub(super) struct Header {
    pub(super) tail: Line<AtomicU64>,
    pub(super) head: Line<AtomicU64>,
    pub(super) asleep: Line<AtomicU64>,
    pub(super) starved: Line<AtomicU64>,
}

const _: () = assert!(size_of::<Header>() == 512);
const _: () = assert!(size_of::<Header>() <= HEADER_BYTES);
const _: () = assert!(HEADER_BYTES.is_multiple_of(align_of::<Header>()));
const _: () = assert!(FRAME_HEADER_BYTES.is_multiple_of(FRAME_ALIGN));

/// One ring in a mapping.
#[derive(Debug)]
pub(super) struct Ring {
    memory: Arc<Memory>,
    /// Of the header, in the mapping.
    offset: usize,
    /// Of the data area; a power of two.
    capacity: usize,
}

impl Ring {
    /// The ring whose header is at `offset`.
    ///
    /// # Panics
    /// When the mapping is too short or not writable: a mistake of the caller.
    pub(super) fn new(memory: Arc<Memory>, offset: usize, capacity: usize) -> Self {
        assert!(memory.is_writable() && capacity.is_power_of_two());
        assert!(offset.is_multiple_of(HEADER_BYTES));
        assert!(offset + HEADER_BYTES + capacity <= memory.len());
        Self { memory, offset, capacity }
    }

    /// Bytes of the data area.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The shared words.
    pub(super) fn header(&self) -> &Header {
        // Safety: `new` checked that the header lies in the mapping, which is page-aligned and so
        // is `offset`; atomics have no invalid bytes, and `self` keeps the mapping.
        unsafe { &*self.memory.as_ptr().add(self.offset).cast::<Header>() }
    }

    /// From an index to its place in the data area.
    pub(super) fn place(&self, index: u64) -> usize {
        (index & (self.capacity as u64 - 1)) as usize
    }

    /// Writes a frame's header and payload.
    pub(super) fn write_frame(&self, index: u64, kind: u32, payload: &[u8]) {
        self.write_frame_header(index, kind, payload.len() as u32);
        let at = self.data(index, FRAME_HEADER_BYTES, payload.len());
        // Safety: `data` checked that so many bytes lie in the data area, and `payload` is private
        // memory of this process, so the two do not overlap.
        unsafe { ptr::copy_nonoverlapping(payload.as_ptr(), at, payload.len()) };
    }

    /// Writes a frame's header alone.
    pub(super) fn write_frame_header(&self, index: u64, kind: u32, len: u32) {
        let at = self.data(index, 0, FRAME_HEADER_BYTES).cast::<u64>();
        let word = u64::from(len) | u64::from(kind) << 32;
        // Safety: `data` checked the 16 bytes; frames are 16-byte aligned, as `data` asserts.
        unsafe {
            at.write_volatile(word);
            at.add(1).write_volatile(0);
        }
    }

    /// Reads a frame's kind and length, once.
    pub(super) fn frame_header(&self, index: u64) -> (u32, usize) {
        let at = self.data(index, 0, FRAME_HEADER_BYTES).cast::<u64>();
        // Safety: as in `write_frame_header`. Volatile, so that the value that was checked is the
        // value that is used, whatever the peer does meanwhile.
        let word = unsafe { at.read_volatile() };
        ((word >> 32) as u32, word as u32 as usize)
    }

    /// Adds a frame's payload to private memory.
    pub(super) fn copy_frame(&self, index: u64, len: usize, into: &mut AlignedVec<16>) {
        let at = self.data(index, FRAME_HEADER_BYTES, len);
        let before = into.len();
        into.reserve(len);
        // Safety: `data` checked the source, `reserve` made room for the target, which is private.
        // A peer that writes meanwhile changes the bytes that are copied, and any bytes are valid.
        unsafe {
            ptr::copy_nonoverlapping(at, into.as_mut_ptr().add(before), len);
            into.set_len(before + len);
        }
    }

    /// A frame's payload where it lies.
    ///
    /// # Safety
    /// The peer writes the bytes again only after `head` has been moved past the frame.
    pub(super) unsafe fn frame_in_place(&self, index: u64, len: usize) -> &[u8] {
        let at = self.data(index, FRAME_HEADER_BYTES, len);
        // Safety: `data` checked the range; the caller promises that nobody writes it.
        unsafe { std::slice::from_raw_parts(at, len) }
    }

    /// The address of `len` bytes of the data area, `skip` bytes behind an index.
    fn data(&self, index: u64, skip: usize, len: usize) -> *mut u8 {
        let place = self.place(index);
        assert!(place.is_multiple_of(FRAME_ALIGN) && place + skip + len <= self.capacity);
        // Safety: `new` checked the data area against the mapping, the line above the range
        // against the data area.
        unsafe { self.memory.as_ptr().add(self.offset + HEADER_BYTES + place + skip) }
    }
}

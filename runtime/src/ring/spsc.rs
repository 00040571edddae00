//! The two ends of a ring.

use std::sync::Arc;

use rkyv::util::AlignedVec;

use super::announce::{Mover, Waiter};
use super::bell::Bell;
use super::layout::{FRAME_ALIGN, FRAME_HEADER_BYTES, Ring};
use super::sync::Ordering;
use crate::wire::executor::{MAX_FRAME_BYTES, MAX_PIECED_FRAME_BYTES};

/// Kind of a frame with a message; letters, so that zeroed memory is no frame.
const KIND_MESSAGE: u32 = u32::from_le_bytes(*b"mesg");
/// Kind of a frame with a piece of a message, of which more follows.
const KIND_PIECE: u32 = u32::from_le_bytes(*b"more");
/// Kind of a frame that fills the rest of the data area.
const KIND_SKIP: u32 = u32::from_le_bytes(*b"skip");

/// What a receiver that copies has room for from the start, and keeps after a frame in pieces.
const KEPT_BYTES: usize = 4 << 10;

/// The peer wrote nonsense into the ring. Final: the ring is of no use any longer, and neither is
/// the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer wrote an impossible {what} ({value}) into the shared ring; end the peer")]
pub struct Corrupt {
    /// Which word.
    pub what: &'static str,
    /// What stood there.
    pub value: u64,
}

/// A frame that cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Larger than any frame may be.
    #[error("a frame of {len} bytes; the largest has {max}: put large values into the store")]
    TooLarge {
        /// Its size.
        len: usize,
        /// The largest.
        max: usize,
    },
    /// The ring is damaged.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

/// The sending end.
#[derive(Debug)]
pub struct Sender {
    ring: Ring,
    peer: Arc<Bell>,
    /// Bytes ever written; private.
    tail: u64,
    /// Bytes ever published; what the shared `tail` holds.
    published: u64,
    /// The shared `head` as last read.
    head_seen: u64,
    /// Bytes that have been written of a frame that goes in pieces.
    begun: usize,
    /// Of `tail`.
    mover: Mover,
    /// For `head`.
    waiter: Waiter,
}

impl Sender {
    pub(super) fn new(ring: Ring, peer: Arc<Bell>) -> Self {
        let (mover, waiter) = Default::default();
        Self { ring, peer, tail: 0, published: 0, head_seen: 0, begun: 0, mover, waiter }
    }

    /// Writes a frame behind the others; the peer sees it after [`Self::publish`]. `Ok(false)`:
    /// there is no room now (what was written before is published, so that the peer can make
    /// some), and the next call must be with the same frame, of which a part may be sent already.
    ///
    /// # Errors
    /// [`SendError::TooLarge`] leaves the ring as it was. [`SendError::Corrupt`] is final.
    pub fn try_send(&mut self, frame: &[u8]) -> Result<bool, SendError> {
        if frame.len() > MAX_PIECED_FRAME_BYTES {
            return Err(SendError::TooLarge { len: frame.len(), max: MAX_PIECED_FRAME_BYTES });
        }
        let max = self.max_frame_bytes();
        while frame.len() - self.begun > max {
            if !self.write(KIND_PIECE, &frame[self.begun..self.begun + max])? {
                return Ok(false);
            }
            self.begun += max;
        }
        let sent = self.write(KIND_MESSAGE, &frame[self.begun..])?;
        if sent {
            self.begun = 0;
        }
        Ok(sent)
    }

    /// Writes a frame in one piece; false: no room.
    fn write(&mut self, kind: u32, payload: &[u8]) -> Result<bool, Corrupt> {
        let need = occupied(payload.len());
        let rest = self.ring.capacity() - self.ring.place(self.tail);
        let skip = if need <= rest { 0 } else { rest };
        if skip + need > self.free() {
            self.refresh()?;
            if skip + need > self.free() {
                self.publish();
                return Ok(false);
            }
        }
        if skip != 0 {
            self.ring.write_frame_header(self.tail, KIND_SKIP, 0);
            self.tail += skip as u64;
        }
        self.ring.write_frame(self.tail, kind, payload);
        self.tail += need as u64;
        Ok(true)
    }

    /// Makes what was written visible, and wakes the peer if it sleeps.
    pub fn publish(&mut self) {
        if self.published == self.tail {
            return;
        }
        self.published = self.tail;
        let header = self.ring.header();
        if self.mover.advance(&header.tail.0, self.tail, &header.asleep.0) {
            self.peer.ring();
        }
    }

    /// Rings the peer's bell, whether or not it has announced a sleep.
    pub fn ring(&self) {
        self.peer.ring();
    }

    /// After `try_send` said that there is no room: announces that this side sleeps until there
    /// is more. True: wait for the own bell, then call [`Self::awake`]. False: there is room
    /// already.
    pub fn announce_wait(&mut self) -> bool {
        self.publish();
        let header = self.ring.header();
        self.waiter.announce(&header.head.0, self.head_seen, &header.starved.0)
    }

    /// Takes the announcement back.
    pub fn awake(&mut self) {
        self.waiter.withdraw(&self.ring.header().starved.0);
    }

    /// Whether the peer has taken all that was written.
    ///
    /// # Errors
    /// [`Corrupt`] is final.
    pub fn is_empty(&mut self) -> Result<bool, Corrupt> {
        self.refresh()?;
        Ok(self.head_seen == self.tail)
    }

    /// Bytes ever written, for [`Self::is_taken`].
    pub fn written(&self) -> u64 {
        self.tail
    }

    /// Whether the peer has taken what had been written when there were so many bytes.
    ///
    /// # Errors
    /// [`Corrupt`] is final.
    pub fn is_taken(&mut self, written: u64) -> Result<bool, Corrupt> {
        self.refresh()?;
        Ok(self.head_seen >= written)
    }

    /// Free bytes of the data area; a frame needs its size rounded up to 16, and 16 more.
    ///
    /// # Errors
    /// [`Corrupt`] is final.
    pub fn free_bytes(&mut self) -> Result<usize, Corrupt> {
        self.refresh()?;
        Ok(self.free())
    }

    /// The largest frame that goes through this ring in one piece: [`MAX_FRAME_BYTES`], less in a
    /// small ring.
    pub fn max_frame_bytes(&self) -> usize {
        max_frame_bytes(self.ring.capacity())
    }

    fn free(&self) -> usize {
        self.ring.capacity() - (self.tail - self.head_seen) as usize
    }

    /// Reads how far the peer is; its word is taken only where it is possible.
    fn refresh(&mut self) -> Result<(), Corrupt> {
        let head = self.ring.header().head.0.load(Ordering::Acquire);
        if head < self.head_seen || head > self.published || !is_aligned(head) {
            return Err(Corrupt { what: "head", value: head });
        }
        self.head_seen = head;
        Ok(())
    }
}

/// The receiving end.
#[derive(Debug)]
pub struct Receiver {
    ring: Ring,
    peer: Arc<Bell>,
    /// Bytes ever given back; what the shared `head` holds.
    released: u64,
    /// Bytes ever taken; private.
    next: u64,
    /// The shared `tail` as last read.
    tail_seen: u64,
    /// Whether frames are copied before they are handed out: the peer is not trusted.
    copies: bool,
    /// The copy of the last frame, or the pieces of one that is not whole yet.
    copy: AlignedVec<16>,
    /// Whether `copy` holds pieces.
    is_partial: bool,
    corrupt: Option<Corrupt>,
    /// Of `head`.
    mover: Mover,
    /// For `tail`.
    waiter: Waiter,
}

impl Receiver {
    /// For a peer that is not trusted: frames are copied before they are handed out.
    pub(super) fn copying(ring: Ring, peer: Arc<Bell>) -> Self {
        // With room from the start: a vector without any has no aligned address for empty frames.
        let copy = AlignedVec::with_capacity(KEPT_BYTES);
        Self { copies: true, copy, ..Self::in_place(ring, peer) }
    }

    /// For a peer that is trusted not to write what is not released.
    pub(super) fn in_place(ring: Ring, peer: Arc<Bell>) -> Self {
        let (released, next, tail_seen) = (0, 0, 0);
        let (copies, copy, is_partial, corrupt) = (false, AlignedVec::new(), false, None);
        let (mover, waiter) = Default::default();
        Self {
            ring,
            peer,
            released,
            next,
            tail_seen,
            copies,
            copy,
            is_partial,
            corrupt,
            mover,
            waiter,
        }
    }

    /// The next frame, 16-byte aligned, valid until the next call. Space is given back when the
    /// ring runs dry and whenever a quarter of it has been read; [`Self::release`] does it earlier.
    ///
    /// # Errors
    /// [`Corrupt`] is final: every later call gives it again.
    pub fn try_recv(&mut self) -> Result<Option<&[u8]>, Corrupt> {
        if let Some(corrupt) = self.corrupt {
            return Err(corrupt);
        }
        let found = self.next_message().inspect_err(|corrupt| self.corrupt = Some(*corrupt))?;
        let Some(message) = found else { return Ok(None) };
        match message {
            Message::Copied => Ok(Some(&self.copy)),
            Message::InPlace(index, len) => {
                // Safety: only the executor's side reads in place; its worker writes released
                // bytes only, and `released` moves past the frame in a later call on `&mut self`.
                let payload = unsafe { self.ring.frame_in_place(index, len) };
                Ok(Some(payload))
            }
        }
    }

    /// How far the other side has written at this moment, for [`Self::has_read`].
    ///
    /// # Errors
    /// As [`Self::try_recv`].
    pub fn written(&mut self) -> Result<u64, Corrupt> {
        match self.corrupt {
            Some(corrupt) => Err(corrupt),
            None => self.refresh().inspect_err(|corrupt| self.corrupt = Some(*corrupt)),
        }?;
        Ok(self.tail_seen)
    }

    /// Whether everything up to there was received.
    pub fn has_read(&self, written: u64) -> bool {
        self.next >= written
    }

    /// Takes pieces until a message is whole; `None`: more has to come.
    fn next_message(&mut self) -> Result<Option<Message>, Corrupt> {
        while let Some(Frame { kind, index, len }) = self.advance()? {
            if kind == KIND_MESSAGE && !self.is_partial && !self.copies {
                return Ok(Some(Message::InPlace(index, len)));
            }
            if !self.is_partial {
                if self.copy.capacity() > MAX_FRAME_BYTES {
                    self.copy = AlignedVec::with_capacity(KEPT_BYTES);
                }
                self.copy.clear();
            }
            if self.copy.len() + len > MAX_PIECED_FRAME_BYTES {
                let value = (self.copy.len() + len) as u64;
                return Err(Corrupt { what: "length of a frame in pieces", value });
            }
            self.ring.copy_frame(index, len, &mut self.copy);
            self.is_partial = kind == KIND_PIECE;
            if !self.is_partial {
                return Ok(Some(Message::Copied));
            }
        }
        Ok(None)
    }

    /// Gives back the space of all frames that were received.
    pub fn release(&mut self) {
        if self.released == self.next {
            return;
        }
        self.released = self.next;
        let header = self.ring.header();
        if self.mover.advance(&header.head.0, self.next, &header.starved.0) {
            self.peer.ring();
        }
    }

    /// Announces that this side goes to sleep until a frame comes. True: wait for the own bell,
    /// then call [`Self::awake`]. False: frames are there, do not sleep.
    pub fn announce_sleep(&mut self) -> bool {
        self.release();
        if self.next != self.tail_seen || self.corrupt.is_some() {
            return false;
        }
        let header = self.ring.header();
        self.waiter.announce(&header.tail.0, self.tail_seen, &header.asleep.0)
    }

    /// Takes the announcement back.
    pub fn awake(&mut self) {
        self.waiter.withdraw(&self.ring.header().asleep.0);
    }

    /// Steps over the next frame; its index and length are checked.
    fn advance(&mut self) -> Result<Option<Frame>, Corrupt> {
        if (self.next - self.released) as usize >= self.ring.capacity() / 4 {
            self.release();
        }
        if self.next == self.tail_seen {
            self.refresh()?;
            if self.next == self.tail_seen {
                self.release();
                return Ok(None);
            }
        }
        let (mut kind, mut len) = self.ring.frame_header(self.next);
        if kind == KIND_SKIP {
            let rest = (self.ring.capacity() - self.ring.place(self.next)) as u64;
            // An honest sender publishes a skip together with the frame behind it.
            if self.tail_seen - self.next <= rest {
                return Err(Corrupt { what: "skip", value: rest });
            }
            self.next += rest;
            (kind, len) = self.ring.frame_header(self.next);
        }
        if kind != KIND_MESSAGE && kind != KIND_PIECE {
            return Err(Corrupt { what: "kind of frame", value: u64::from(kind) });
        }
        let rest = (self.ring.capacity() - self.ring.place(self.next)) as u64;
        let limit = rest.min(self.tail_seen - self.next);
        let is_long = len > max_frame_bytes(self.ring.capacity());
        if is_long || occupied(len) as u64 > limit {
            return Err(Corrupt { what: "length of a frame", value: len as u64 });
        }
        let index = self.next;
        self.next += occupied(len) as u64;
        Ok(Some(Frame { kind, index, len }))
    }

    /// Reads how far the peer is; its word is taken only where it is possible.
    fn refresh(&mut self) -> Result<(), Corrupt> {
        let tail = self.ring.header().tail.0.load(Ordering::Acquire);
        let is_possible = tail >= self.tail_seen
            && tail - self.released <= self.ring.capacity() as u64
            && is_aligned(tail);
        if !is_possible {
            return Err(Corrupt { what: "tail", value: tail });
        }
        self.tail_seen = tail;
        Ok(())
    }
}

/// A frame of a message, or of a piece of one.
struct Frame {
    kind: u32,
    index: u64,
    len: usize,
}

/// Where a whole message is.
enum Message {
    /// In `copy`.
    Copied,
    /// In the ring: index and length.
    InPlace(u64, usize),
}

/// Bytes that a frame takes in the data area.
fn occupied(len: usize) -> usize {
    FRAME_HEADER_BYTES + len.next_multiple_of(FRAME_ALIGN)
}

/// Whether an index is one where frames start.
fn is_aligned(index: u64) -> bool {
    index.is_multiple_of(FRAME_ALIGN as u64)
}

/// A frame and the skip before it, which is shorter, must fit into an empty ring.
fn max_frame_bytes(capacity: usize) -> usize {
    MAX_FRAME_BYTES.min(capacity / 2 - FRAME_HEADER_BYTES)
}

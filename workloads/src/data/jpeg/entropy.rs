//! The bits of a scan: Huffman codes, and the coefficients that they stand for.
//!
//! Half of what a decoder does is here, one code after the other, so a code's way from the bits
//! that it begins with to the bits that follow it is kept short: one look into a table tells how
//! long code and value are together, and nothing on that way branches on what the code says. The
//! ends of blocks and runs of zeros are codes like all others, with values of zero bits.

use super::transform::Block;

/// Codes of as many bits are found by one look.
const LOOK: u32 = 10;
/// The longest code of the format.
const LONGEST: usize = 16;
/// What the end of a block adds to the place in it; whatever is between this and the 64 places
/// that there are, is damaged.
const END: usize = 96;
/// Zeros after a scan's bytes, for reads of eight bytes that begin in it.
const PADDING: usize = 16;

/// One kind of code that a file defines. An entry holds, from its lowest byte on, the bits of code
/// and value together, those of the value, and how many places to go on before it is stored.
pub(super) struct Table {
    /// What it was made from: counts of codes by length, and what they stand for.
    source: Vec<u8>,
    look: [u32; 1 << LOOK],
    /// By length: the first 16 bits that no code of the length or a shorter one begins.
    limits: [u32; LONGEST + 1],
    /// By length: from a code to the place of its entry.
    offsets: [u32; LONGEST + 1],
    /// Without the code's own bits.
    entries: [u32; 256],
}

impl Table {
    /// None of a file.
    pub(super) fn new() -> Self {
        let (limits, offsets) = ([0; LONGEST + 1], [0; LONGEST + 1]);
        Self { source: Vec::new(), look: [0; 1 << LOOK], limits, offsets, entries: [0; 256] }
    }

    /// Becomes what `source` says, which most often it is already: encoders have tables that they
    /// use for all files.
    pub(super) fn define(&mut self, source: &[u8], first: bool) -> Option<()> {
        if self.source == source {
            return Some(());
        }
        *self = Self::new();
        let (counts, symbols) = source.split_at_checked(LONGEST)?;
        let (mut code, mut index) = (0, 0);
        for length in 1..=LONGEST {
            let count = usize::from(counts[length - 1]);
            self.offsets[length] = (index as u32).wrapping_sub(code);
            for symbol in symbols.get(index..index + count)? {
                let entry = if first { first_entry(*symbol) } else { entry(*symbol) }?;
                *self.entries.get_mut(index)? = entry;
                self.fill(code, length as u32, entry)?;
                (code, index) = (code + 1, index + 1);
            }
            self.limits[length] = code << (LONGEST - length);
            code <<= 1;
        }
        self.source = source.to_vec();
        Some(())
    }

    /// Enters a code of `length` bits wherever the bits begin with it. No code is all ones.
    fn fill(&mut self, code: u32, length: u32, entry: u32) -> Option<()> {
        if (code + 1) >> length != 0 {
            return None;
        }
        if length <= LOOK {
            let rest = LOOK - length;
            self.look[(code as usize) << rest..][..1 << rest].fill(entry + length);
        }
        Some(())
    }

    #[inline(always)]
    fn entry(&self, buffer: u64) -> Option<u32> {
        match self.look[(buffer >> (64 - LOOK)) as usize] {
            0 => self.long(buffer),
            entry => Some(entry),
        }
    }

    #[cold]
    fn long(&self, buffer: u64) -> Option<u32> {
        let bits = (buffer >> 48) as u32;
        let length = (LOOK as usize + 1..=LONGEST).find(|length| bits < self.limits[*length])?;
        let index = (bits >> (LONGEST - length)).wrapping_add(self.offsets[length]);
        Some(self.entries.get(index as usize)? + length as u32)
    }
}

/// A block's first value; it has up to 11 bits.
fn first_entry(symbol: u8) -> Option<u32> {
    (symbol <= 11).then(|| u32::from(symbol) * 0x101)
}

/// All other values; they have up to 10 bits.
fn entry(symbol: u8) -> Option<u32> {
    let (skipped, bits) = (u32::from(symbol >> 4), u32::from(symbol & 15));
    let skipped = if bits == 0 && skipped != 15 { END as u32 } else { skipped };
    (bits <= 10).then_some((skipped << 16) + bits * 0x101)
}

/// What bits say of the place of a value and what to multiply it with; more places than a block
/// has, so that none needs to be checked.
#[derive(Clone, Copy, Default)]
pub(super) struct Step {
    pub(super) place: u8,
    pub(super) factor: u16,
}

/// The steps of all places, in the order of a file.
pub(super) type Steps = [Step; 256];

/// Reads a scan's bits.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    buffer: u64,
    held: u32,
}

impl<'a> Bits<'a> {
    /// Of bytes that end with [`PADDING`].
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, buffer: 0, held: 0 }
    }

    /// Holds at least 56 bits then.
    #[inline(always)]
    fn refill(&mut self) -> Option<()> {
        let bytes = self.bytes.get(self.at..self.at + 8)?;
        self.buffer |= u64::from_be_bytes(bytes.try_into().ok()?) >> self.held;
        self.at += ((63 - self.held) >> 3) as usize;
        self.held |= 56;
        Some(())
    }

    /// Takes a code and its value, and tells it with the places to go on.
    #[inline(always)]
    fn take(&mut self, table: &Table) -> Option<(i32, usize)> {
        let entry = table.entry(self.buffer)?;
        let (total, bits) = (entry & 0xff, entry >> 8 & 0xff);
        let mask = (1_u32 << bits) - 1;
        let value = self.buffer.rotate_left(total) as u32 & mask;
        // The lower half of what has so many bits are the negative ones.
        let negative = if value > mask >> 1 { 0 } else { mask };
        self.buffer <<= total;
        self.held -= total;
        Some((value as i32 - negative as i32, (entry >> 16) as usize))
    }

    /// Reads a block, multiplied, and tells whether there is more than its first value.
    #[inline(always)]
    pub(super) fn block(
        &mut self,
        tables: (&Table, &Table),
        steps: &Steps,
        last: &mut i32,
        block: &mut Block,
    ) -> Option<bool> {
        self.refill()?;
        *last = last.wrapping_add(self.take(tables.0)?.0);
        block[0] = last.wrapping_mul(i32::from(steps[0].factor));
        let mut at = 1;
        while at < 64 {
            // Enough for two codes of 16 bits with values of 10.
            self.refill()?;
            for _ in 0..2 {
                let (value, skipped) = self.take(tables.1)?;
                at += skipped;
                let step = steps[at & 0xff];
                block[usize::from(step.place & 0x7f)] = value.wrapping_mul(i32::from(step.factor));
                at += 1;
                if at >= 64 {
                    break;
                }
            }
        }
        (at == 64 || at > END).then_some(at != END + 2)
    }

    /// Whether no more was read than there is.
    pub(super) fn within(&self) -> bool {
        self.at * 8 <= (self.bytes.len() - PADDING) * 8 + self.held as usize
    }
}

/// Copies a scan's bytes from the start of `bytes` to `clean`, without the zeros that follow bytes
/// of 255 in it, up to a marker; and tells the marker and what is left behind it.
pub(super) fn clean<'a>(mut bytes: &'a [u8], clean: &mut Vec<u8>) -> Option<(u8, &'a [u8])> {
    clean.clear();
    loop {
        let end = memchr::memchr(0xff, bytes)?;
        clean.extend_from_slice(&bytes[..end]);
        let marker = *bytes.get(end + 1)?;
        bytes = &bytes[end + 2..];
        if marker != 0 {
            clean.extend_from_slice(&[0; PADDING]);
            return Some((marker, bytes));
        }
        clean.push(0xff);
    }
}

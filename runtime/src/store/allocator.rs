//! Which bytes of one segment are taken.
//!
//! ```text
//! | taken | hole | taken | hole |            cold              |
//! 0                             warm_end                       len
//! ```
//! Bytes below `warm_end` have been used before, so their pages are there; the first touch of a
//! fresh page costs more than ten times a warm copy. So a request takes the smallest hole that
//! fits, the lowest of equals, and only then cold bytes. Holes never touch each other. Every
//! operation is O(log n). The allocator knows numbers only; it touches no memory.

use std::collections::{BTreeMap, BTreeSet};

/// Blocks start at multiples of this: a cache line, and enough for every tensor kernel.
pub const BLOCK_ALIGN: u64 = 64;

/// A block that is not taken, or not as it was described.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no block of {len} bytes was taken at {offset}")]
pub struct NotTaken {
    /// Where.
    pub offset: u64,
    /// How long.
    pub len: u64,
}

/// The allocator of one segment.
#[derive(Debug, Clone)]
pub struct SegmentAllocator {
    len: u64,
    warm_end: u64,
    taken: BTreeMap<u64, u64>,
    /// By offset.
    holes: BTreeMap<u64, u64>,
    /// The same, as (length, offset).
    by_len: BTreeSet<(u64, u64)>,
    taken_bytes: u64,
}

/// What a block of `len` bytes takes; `None` above 2^63.
pub(crate) fn extent(len: u64) -> Option<u64> {
    (len <= 1 << 63).then(|| len.max(1).next_multiple_of(BLOCK_ALIGN))
}

impl SegmentAllocator {
    /// For an empty segment.
    pub fn new(len: u64) -> Self {
        Self {
            len: len / BLOCK_ALIGN * BLOCK_ALIGN,
            warm_end: 0,
            taken: BTreeMap::new(),
            holes: BTreeMap::new(),
            by_len: BTreeSet::new(),
            taken_bytes: 0,
        }
    }

    /// Takes room for `len` bytes; its offset. `None`: no piece is long enough.
    pub fn alloc(&mut self, len: u64) -> Option<u64> {
        let need = extent(len)?;
        let offset = match self.by_len.range((need, 0)..).next().copied() {
            Some((hole, offset)) => {
                self.remove_hole(offset, hole);
                if hole > need {
                    self.insert_hole(offset + need, hole - need);
                }
                offset
            }
            None => self.take_cold(need)?,
        };
        self.taken.insert(offset, need);
        self.taken_bytes += need;
        Some(offset)
    }

    /// Gives a block back.
    ///
    /// # Errors
    /// [`NotTaken`], with nothing changed, where no block of this size starts there.
    pub fn free(&mut self, offset: u64, len: u64) -> Result<(), NotTaken> {
        let refused = NotTaken { offset, len };
        let size = extent(len).ok_or(refused)?;
        if self.taken.get(&offset) != Some(&size) {
            return Err(refused);
        }
        self.taken.remove(&offset);
        self.taken_bytes -= size;
        let (mut start, mut hole) = (offset, size);
        if let Some((&before, &before_len)) = self.holes.range(..offset).next_back()
            && before + before_len == offset
        {
            self.remove_hole(before, before_len);
            (start, hole) = (before, before_len + hole);
        }
        if let Some(&after_len) = self.holes.get(&(offset + size)) {
            self.remove_hole(offset + size, after_len);
            hole += after_len;
        }
        self.insert_hole(start, hole);
        Ok(())
    }

    /// Bytes taken, with what alignment adds.
    pub fn taken_bytes(&self) -> u64 {
        self.taken_bytes
    }

    /// Bytes that have ever been taken: those whose pages are there.
    pub fn warm_bytes(&self) -> u64 {
        self.warm_end
    }

    /// Whether nothing is taken.
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// The largest block that could be had.
    pub fn largest_free(&self) -> u64 {
        let hole = self.by_len.last().map_or(0, |&(len, _)| len);
        hole.max(self.len - self.cold_start())
    }

    /// Takes cold bytes, and the hole right before them if there is one.
    fn take_cold(&mut self, need: u64) -> Option<u64> {
        let start = self.cold_start();
        if need > self.len - start {
            return None;
        }
        if start < self.warm_end {
            self.remove_hole(start, self.warm_end - start);
        }
        self.warm_end = start + need;
        Some(start)
    }

    /// Where the free bytes at the end begin, warm ones included.
    fn cold_start(&self) -> u64 {
        match self.holes.last_key_value() {
            Some((&offset, &len)) if offset + len == self.warm_end => offset,
            _ => self.warm_end,
        }
    }

    fn insert_hole(&mut self, offset: u64, len: u64) {
        self.holes.insert(offset, len);
        self.by_len.insert((len, offset));
    }

    fn remove_hole(&mut self, offset: u64, len: u64) {
        self.holes.remove(&offset);
        self.by_len.remove(&(len, offset));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEN: u64 = 64 * 64;

    /// The same segment as one flag for each 64 bytes.
    struct Model(Vec<bool>);

    impl Model {
        fn set(&mut self, offset: u64, len: u64, value: bool) {
            let first = (offset / BLOCK_ALIGN) as usize;
            let count = extent(len).unwrap() / BLOCK_ALIGN;
            for cell in &mut self.0[first..first + count as usize] {
                assert_ne!(*cell, value, "cell is {value} already");
                *cell = value;
            }
        }

        fn longest_free(&self) -> u64 {
            let runs = self.0.split(|&is_taken| is_taken).map(<[bool]>::len);
            runs.max().unwrap_or(0) as u64 * BLOCK_ALIGN
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Alloc(u64),
        Free(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..900_u64).prop_map(Step::Alloc),
            2 => any::<prop::sample::Index>().prop_map(Step::Free),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_a_bitmap(steps in prop::collection::vec(step(), 1..300)) {
            let mut allocator = SegmentAllocator::new(LEN);
            let mut model = Model(vec![false; (LEN / BLOCK_ALIGN) as usize]);
            let mut live = Vec::new();
            let mut highest = 0;
            for step in steps {
                match step {
                    Step::Alloc(len) => match allocator.alloc(len) {
                        Some(offset) => {
                            prop_assert_eq!(offset % BLOCK_ALIGN, 0);
                            model.set(offset, len, true);
                            highest = highest.max(offset + extent(len).unwrap());
                            live.push((offset, len));
                        }
                        None => prop_assert!(model.longest_free() < extent(len).unwrap()),
                    },
                    Step::Free(index) if !live.is_empty() => {
                        let (offset, len) = live.swap_remove(index.index(live.len()));
                        prop_assert_eq!(allocator.free(offset, len), Ok(()));
                        prop_assert!(allocator.free(offset, len).is_err());
                        model.set(offset, len, false);
                    }
                    Step::Free(_) => {}
                }
                prop_assert_eq!(allocator.largest_free(), model.longest_free());
                prop_assert_eq!(allocator.warm_bytes(), highest);
                let taken = model.0.iter().filter(|&&taken| taken).count() as u64 * BLOCK_ALIGN;
                prop_assert_eq!(allocator.taken_bytes(), taken);
            }
        }
    }

    #[test]
    fn warm_holes_come_first() {
        let mut allocator = SegmentAllocator::new(LEN);
        let first = allocator.alloc(100).unwrap();
        allocator.alloc(64).unwrap();
        allocator.free(first, 100).unwrap();
        assert_eq!(allocator.alloc(128), Some(first));
        assert_eq!(allocator.warm_bytes(), 192);
    }

    #[test]
    fn what_cannot_fit_is_refused() {
        let mut allocator = SegmentAllocator::new(LEN);
        assert_eq!(allocator.alloc(LEN + 1), None);
        assert_eq!(allocator.alloc(u64::MAX), None);
        assert!(allocator.free(0, u64::MAX).is_err());
        assert_eq!(allocator.alloc(LEN), Some(0));
        assert_eq!(allocator.alloc(1), None);
    }
}

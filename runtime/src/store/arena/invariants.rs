//! Cross-checks of the arena's books, for tests.

use super::Arena;
use crate::store::allocator::BLOCK_ALIGN;
use crate::store::segment::{Live, Writer};

impl Arena {
    /// Panics with the name of the invariant that does not hold.
    pub fn check_invariants(&self) {
        for segment in self.segments.values() {
            let mut end = 0;
            for (&offset, live) in &segment.blocks {
                assert!(offset >= end && offset.is_multiple_of(BLOCK_ALIGN), "AR-1");
                end = offset + live.extent();
            }
            assert!(end <= segment.len, "AR-1");
            match &segment.writer {
                Writer::Warm => assert!(segment.blocks.is_empty(), "AR-2"),
                Writer::Worker(allocator) => {
                    let sealed: u64 = segment.blocks.values().map(Live::extent).sum();
                    assert!(sealed <= allocator.taken_bytes(), "AR-4");
                    let is_all = sealed == allocator.taken_bytes();
                    assert!(is_all || !self.unsealed.is_empty(), "AR-4");
                }
                Writer::Executor(_) | Writer::Orphaned => {}
            }
        }
        let total: u64 = self.segments.values().map(|segment| segment.len).sum();
        assert!(total == self.committed && total <= self.capacity, "AR-3");
        let all = || self.segments.values().flat_map(|segment| segment.blocks.values());
        assert_eq!(self.live, all().map(Live::extent).sum::<u64>(), "AR-3");
        assert_eq!(self.blocks, all().count() as u64, "AR-3");
    }
}

//! Blocks of images that wait for a stage.

use std::collections::VecDeque;

use super::work::Block;

/// See the module.
#[derive(Debug)]
pub(super) struct Queue<O> {
    /// In their order.
    pub(super) blocks: VecDeque<Block<O>>,
    /// In all of them.
    pub(super) images: usize,
}

impl<O> Default for Queue<O> {
    fn default() -> Self {
        Self { blocks: VecDeque::new(), images: 0 }
    }
}

impl<O: Clone> Queue<O> {
    pub(super) fn push(&mut self, block: Block<O>, in_front: bool) {
        self.images += block.rows.len();
        if in_front {
            self.blocks.push_front(block);
        } else {
            self.blocks.push_back(block);
        }
    }

    /// At most `count` images of the first block (at least one).
    pub(super) fn pop_some(&mut self, count: usize) -> Option<Block<O>> {
        let mut block = self.blocks.pop_front()?;
        if block.rows.len() > count {
            self.blocks.push_front(block.split_off(count));
        }
        self.images -= block.rows.len();
        Some(block)
    }
}

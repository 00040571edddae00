//! Maps with a fixed, fast hash: iteration order depends on the history alone, so that a seed
//! replays exactly. Identifiers are already well mixed; the hash only has to fold their words.
//!
//! Not for keys that a stranger may choose freely: it is no defence against chosen collisions.

use core::hash::{BuildHasherDefault, Hasher};
use std::collections::{HashMap, HashSet};

pub use crate::dense::DenseIdMap;

/// A map with the fixed hash.
pub type FastMap<K, V> = HashMap<K, V, BuildHasherDefault<FastHasher>>;
/// A set with the fixed hash.
pub type FastSet<K> = HashSet<K, BuildHasherDefault<FastHasher>>;

/// Polynomial hash over 64-bit words, as in `rustc-hash` 2.
#[derive(Debug, Clone, Copy, Default)]
pub struct FastHasher {
    state: u64,
}

impl FastHasher {
    const FACTOR: u64 = 0xf135_7aea_2e62_a9c5;

    #[inline]
    fn word(&mut self, word: u64) {
        self.state = self.state.wrapping_add(word).wrapping_mul(Self::FACTOR);
    }
}

impl Hasher for FastHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }

    #[inline]
    fn write_u8(&mut self, x: u8) {
        self.word(u64::from(x));
    }

    #[inline]
    fn write_u32(&mut self, x: u32) {
        self.word(u64::from(x));
    }

    #[inline]
    fn write_u64(&mut self, x: u64) {
        self.word(x);
    }

    #[inline]
    fn write_i64(&mut self, x: i64) {
        self.word(x as u64);
    }

    #[inline]
    fn write_usize(&mut self, x: usize) {
        self.word(x as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        // The product's high bits are the good ones; tables index by the low ones.
        self.state.rotate_left(26)
    }
}

/// A map by ids, in which those of a family lie near each other.
pub type IdMap<K, V> = HashMap<K, V, BuildIdHasher>;
/// A set of ids, in which those of a family lie near each other.
pub type IdSet<K> = HashSet<K, BuildIdHasher>;
/// For other kinds of maps by ids.
pub type BuildIdHasher = BuildHasherDefault<IdHasher>;

/// For ids of tasks, objects and actors, which a family numbers one by one ([`crate::id`]): ids
/// that follow each other are in the same block of a table, and blocks are scattered. What belongs
/// together is looked at together, so that of a table which the caches do not hold, a few lines
/// are loaded for a block and not for each id. With one run of all ids instead of blocks, whatever
/// falls into a run would have to be looked for beyond its end.
#[derive(Debug, Clone, Copy, Default)]
pub struct IdHasher {
    state: u64,
}

/// A block of a table: as many as a probe looks at.
const BLOCK: u64 = 16;

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    #[inline]
    fn write_u32(&mut self, x: u32) {
        self.write_u64(u64::from(x));
    }

    #[inline]
    fn write_u64(&mut self, x: u64) {
        self.state = self.state.wrapping_mul(FastHasher::FACTOR).wrapping_add(x);
    }

    #[inline]
    fn finish(&self) -> u64 {
        // By these bits tables tell the ids of a block from each other.
        const TAG: u64 = 0x7f << 57;
        let mix = |word: u64| word.wrapping_mul(FastHasher::FACTOR).rotate_left(26);
        let place = mix(self.state / BLOCK).wrapping_mul(BLOCK) | (self.state % BLOCK);
        place & !TAG | self.state.wrapping_mul(FastHasher::FACTOR) & TAG
    }
}

#[cfg(test)]
mod tests {
    use core::hash::BuildHasher;

    use super::*;
    use crate::id::{JobId, ObjectId, TaskId};

    fn hash_of(id: impl core::hash::Hash) -> u64 {
        BuildIdHasher::default().hash_one(id)
    }

    #[test]
    fn a_family_lies_in_blocks_that_are_scattered() {
        const BUCKETS: u64 = 1 << 14;
        let family = |of: TaskId| (0..BUCKETS / 2).map(move |index| of.child(index).object(0));
        let driver = TaskId::driver(JobId(3));
        for ids in [family(driver), family(driver.child(5))] {
            let places: Vec<_> = ids.map(|id: ObjectId| hash_of(id) % BUCKETS).collect();
            let near = places.windows(2).filter(|pair| pair[0] / BLOCK == pair[1] / BLOCK).count();
            assert!(near * 10 >= places.len() * 9, "{near} of {}", places.len());
            let mut in_part = [0_u64; 16];
            for place in &places {
                in_part[(place * 16 / BUCKETS) as usize] += 1;
            }
            let even = BUCKETS / 32;
            assert!(in_part.iter().all(|&n| n > even / 2 && n < even * 2), "{in_part:?}");
        }
    }

    #[test]
    fn further_values_of_a_task_are_not_mistaken_for_others() {
        let driver = TaskId::driver(JobId(3));
        let mut hashes = std::collections::BTreeSet::new();
        for index in 0..100 {
            let task = driver.child(index);
            let objects = (0..50).flat_map(|index| [task.object(index), task.put(index)]);
            hashes.extend(objects.map(hash_of));
        }
        assert!(hashes.len() > 9_990, "{}", hashes.len());
    }
}

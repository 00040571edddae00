//! Maps with a fixed, fast hash: iteration order depends on the history alone, so that a seed
//! replays exactly. Identifiers are already well mixed; the hash only has to fold their words.
//!
//! Not for keys that a stranger may choose freely: it is no defence against chosen collisions.

use core::hash::{BuildHasherDefault, Hasher};
use std::collections::{HashMap, HashSet};

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

//! Data sets: where they are found, how they are read and how they are split over replicas.

pub mod idx;
pub mod mnist;
pub mod random;
pub mod shard;
pub mod synthetic;

use rkyv::{Archive, Deserialize, Serialize};

/// Grey images of one size, with a label each.
///
/// `pixels` holds `len x rows x columns` bytes, 0 black to 255 white.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[allow(missing_docs, reason = "rkyv copies fields without their docs")]
pub struct ImageSet {
    /// Height of an image in pixels.
    pub rows: u32,
    /// Width of an image in pixels.
    pub columns: u32,
    /// Image after image, row after row.
    pub pixels: Vec<u8>,
    /// The class of each image.
    pub labels: Vec<u8>,
}

impl ImageSet {
    /// How many images there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The pixels of one image.
    pub fn image(&self, index: usize) -> &[u8] {
        let size = (self.rows * self.columns) as usize;
        &self.pixels[index * size..(index + 1) * size]
    }

    /// Its first images; at least one of a set that has any.
    pub fn portion(mut self, portion: f64) -> Self {
        let kept = ((self.len() as f64 * portion).round() as usize).clamp(1, self.len().max(1));
        self.labels.truncate(kept);
        self.pixels.truncate(kept * (self.rows * self.columns) as usize);
        self
    }
}

//! Data sets: where they are found, how they are read, and how they are split over replicas.
//!
//! ```text
//! idx, mnist, synthetic     images that are pixels in their files
//! folders, herbarium        tables of picture files, split by table; picture: decoding one
//! jpeg                      most of those, by a decoder of their own
//! stored                    both, as chunks in the object store that all replicas read in place
//! shard                     who trains on what      augment   what training sees of an image
//! ```

pub mod augment;
pub mod find;
pub mod folders;
pub mod herbarium;
pub mod idx;
mod jpeg;
pub mod mnist;
pub mod picture;
pub mod random;
pub mod shard;
pub mod stored;
pub mod synthetic;
pub mod table;

use picture::{Decoder, Picture, PictureError};
use rkyv::{Archive, Deserialize, Serialize};

/// What all images of a set have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[allow(missing_docs, reason = "rkyv copies fields without their docs")]
pub struct Shape {
    /// Height in pixels.
    pub rows: u32,
    /// Width in pixels.
    pub columns: u32,
    /// 1 (grey) or 3 (red, green, blue).
    pub channels: u32,
}

impl Shape {
    /// Bytes of an image.
    pub fn len(&self) -> usize {
        self.rows as usize * self.columns as usize * self.channels as usize
    }

    /// Whether an image has no pixels.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let colours = if self.channels == 1 { "grey" } else { "colour" };
        write!(f, "{}x{} {colours}", self.rows, self.columns)
    }
}

/// Images with a label each, wherever they lie.
pub trait Images: Send + Sync {
    /// Their size.
    fn shape(&self) -> Shape;

    /// How many there are.
    fn count(&self) -> usize;

    /// The pixels of one image: row after row, a pixel's channels together; 0 black to 255.
    ///
    /// # Panics
    /// When there is no such image.
    fn image(&self, index: usize) -> &[u8];

    /// Its class.
    ///
    /// # Panics
    /// When there is no such image.
    fn label(&self, index: usize) -> u32;
}

/// Images of one size in one piece of memory, with a label each.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[allow(missing_docs, reason = "rkyv copies fields without their docs")]
pub struct ImageSet {
    /// Of every image.
    pub shape: Shape,
    /// Image after image, row after row; a pixel's channels lie together.
    pub pixels: Vec<u8>,
    /// The class of each image.
    pub labels: Vec<u32>,
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

    /// The images as they become in another shape: stretched, and grey ones in three colours.
    ///
    /// # Errors
    /// As [`Decoder::resize_into`].
    pub fn resized(self, shape: Shape) -> Result<Self, PictureError> {
        if self.shape == shape {
            return Ok(self);
        }
        let (own, mut decoder) = (self.shape, Decoder::new(shape));
        let mut pixels = vec![0; self.len() * shape.len()];
        for (index, target) in pixels.chunks_exact_mut(shape.len().max(1)).enumerate() {
            let image = self.image(index).to_vec();
            let picture = Picture {
                width: own.columns,
                height: own.rows,
                channels: shape.channels,
                pixels: picture::convert(image, own.channels as usize, shape.channels as usize),
            };
            decoder.resize_into(&picture, target)?;
        }
        Ok(Self { shape, pixels, labels: self.labels })
    }

    /// The images with these indices, in their order.
    pub fn select(&self, indices: &[u32]) -> Self {
        let mut pixels = Vec::with_capacity(indices.len() * self.shape.len());
        for index in indices {
            pixels.extend_from_slice(self.image(*index as usize));
        }
        let labels = indices.iter().map(|index| self.labels[*index as usize]).collect();
        Self { shape: self.shape, pixels, labels }
    }
}

impl Images for ImageSet {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn count(&self) -> usize {
        self.labels.len()
    }

    fn image(&self, index: usize) -> &[u8] {
        let size = self.shape.len();
        &self.pixels[index * size..(index + 1) * size]
    }

    fn label(&self, index: usize) -> u32 {
        self.labels[index]
    }
}

impl Images for ArchivedImageSet {
    fn shape(&self) -> Shape {
        let ArchivedShape { rows, columns, channels } = &self.shape;
        Shape {
            rows: rows.to_native(),
            columns: columns.to_native(),
            channels: channels.to_native(),
        }
    }

    fn count(&self) -> usize {
        self.labels.len()
    }

    fn image(&self, index: usize) -> &[u8] {
        let size = self.shape().len();
        &self.pixels[index * size..(index + 1) * size]
    }

    fn label(&self, index: usize) -> u32 {
        self.labels[index].to_native()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grey_images_become_larger_ones_in_three_colours() {
        let own = Shape { rows: 2, columns: 3, channels: 1 };
        let pixels = [[40; 6], [200; 6]].concat();
        let set = ImageSet { shape: own, pixels, labels: vec![1, 0] };
        let shape = Shape { rows: 5, columns: 4, channels: 3 };
        let made = set.clone().resized(shape).unwrap();
        assert_eq!((made.shape, &made.labels), (shape, &set.labels));
        assert!(made.image(0).iter().all(|value| *value == 40));
        assert!(made.image(1).iter().all(|value| *value == 200));
        assert_eq!(made.pixels.len(), 2 * shape.len());
        assert_eq!(set.clone().resized(own).unwrap(), set);
    }
}

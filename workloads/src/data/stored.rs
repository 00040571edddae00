//! Data sets in the object store: chunks that whoever needs them reads in place. Pictures are
//! decoded and resized once, by tasks beside each other, before replicas take the CPUs; then all
//! replicas of a machine see the same memory.

use std::fs;

use rdist::prelude::*;

use super::picture::Decoder;
use super::table::{Sample, Skipped};
use super::{ImageSet, Images, Shape};

/// Stands for the label of an image that has none.
pub const NO_LABEL: u32 = u32::MAX;
/// Most bytes of pixels in one chunk; an object may have 2 GiB.
const CHUNK_BYTES: usize = 256 << 20;
/// Most files in one chunk, and most bytes of files.
const CHUNK_FILES: (usize, usize) = (512, 32 << 20);
/// Files of a small set that are worth a task of their own.
const FEW_FILES: usize = 32;
/// Chunks of files that are under way at a time: bounds the memory for what is not decoded yet.
const UNDER_WAY: usize = 16;

/// A part of a data set, as it lies in the store.
#[rdist::value]
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "rkyv copies fields without their docs")]
pub struct Chunk {
    pub images: ImageSet,
    /// Which row of the data set's table each image is of.
    pub rows: Vec<u32>,
    /// Rows whose pictures could not be used, and why.
    pub failed: Vec<(u32, String)>,
}

/// A data set in the store: what replicas are handed.
#[rdist::value]
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "rkyv copies fields without their docs")]
pub struct Dataset {
    pub shape: Shape,
    pub chunks: Vec<ObjectRef<Chunk>>,
}

impl Dataset {
    /// Puts images into the store.
    ///
    /// # Errors
    /// Those of [`Context::put`].
    pub fn put(cx: &Context, set: &ImageSet) -> Result<Self> {
        let (mut chunks, mut from) = (Vec::new(), 0);
        let most = (CHUNK_BYTES / set.shape.len().max(1)).max(1);
        while from < set.len() {
            let to = set.len().min(from + most);
            let size = set.shape.len();
            let images = ImageSet {
                shape: set.shape,
                pixels: set.pixels[from * size..to * size].to_vec(),
                labels: set.labels[from..to].to_vec(),
            };
            let rows = (from as u32..to as u32).collect();
            chunks.push(cx.put(&Chunk { images, rows, failed: Vec::new() })?);
            from = to;
        }
        Ok(Self { shape: set.shape, chunks })
    }

    /// Reads and decodes the pictures of a table into the store.
    ///
    /// # Errors
    /// The cluster's; pictures that cannot be used are noted in the chunks.
    pub fn decode(cx: &Context, samples: &[Sample], shape: Shape) -> Result<Self> {
        let most = files_of_a_task(samples.len());
        let (mut chunks, mut row) = (Vec::<ObjectRef<Chunk>>::new(), 0);
        while row < samples.len() {
            if let Some(index) = chunks.len().checked_sub(UNDER_WAY) {
                // In order, so that it is known which one is to end next.
                chunks[index].read()?;
            }
            let files = Files::read(samples, &mut row, shape, most);
            chunks.push(decode.submit(cx, &files));
        }
        for chunk in &chunks {
            chunk.read()?;
        }
        Ok(Self { shape, chunks })
    }

    /// Makes its images readable in this process, in place.
    ///
    /// # Errors
    /// A chunk is lost, and could not be made again.
    pub fn open(&self) -> Result<Stored> {
        let (mut chunks, mut ends) = (Vec::with_capacity(self.chunks.len()), Vec::new());
        let mut end = 0;
        for chunk in &self.chunks {
            let view = chunk.read()?;
            end += view.images.count();
            ends.push(end);
            chunks.push(view);
        }
        Ok(Stored { shape: self.shape, chunks, ends })
    }
}

/// A data set whose chunks are mapped into this process.
pub struct Stored {
    shape: Shape,
    chunks: Vec<View<Chunk>>,
    /// Index past the last image of each chunk.
    ends: Vec<usize>,
}

impl Stored {
    /// All labels, in order.
    pub fn labels(&self) -> Vec<u32> {
        (0..self.count()).map(|index| self.label(index)).collect()
    }

    /// Which row of the table each image is of.
    pub fn rows(&self) -> Vec<u32> {
        let rows = self.chunks.iter().flat_map(|chunk| chunk.rows.iter());
        rows.map(|row| row.to_native()).collect()
    }

    /// Pictures of `samples` that could not be used.
    pub fn skipped(&self, samples: &[Sample]) -> Vec<Skipped> {
        let failed = self.chunks.iter().flat_map(|chunk| chunk.failed.iter());
        failed
            .map(|failure| {
                let sample = samples.get(failure.0.to_native() as usize);
                let file = sample.map(|sample| sample.file.to_string_lossy().into_owned());
                Skipped { file: file.unwrap_or_default(), reason: failure.1.as_str().to_owned() }
            })
            .collect()
    }

    fn place(&self, index: usize) -> (&super::ArchivedImageSet, usize) {
        let chunk = self.ends.partition_point(|end| *end <= index);
        let before = chunk.checked_sub(1).map_or(0, |before| self.ends[before]);
        (&self.chunks[chunk].images, index - before)
    }
}

impl Images for Stored {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn count(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    fn image(&self, index: usize) -> &[u8] {
        let (images, index) = self.place(index);
        images.image(index)
    }

    fn label(&self, index: usize) -> u32 {
        let (images, index) = self.place(index);
        images.label(index)
    }
}

/// How many tasks at least decode a table of so many pictures; large files make it more.
pub fn decoding_tasks(pictures: usize) -> usize {
    pictures.div_ceil(files_of_a_task(pictures))
}

fn files_of_a_task(pictures: usize) -> usize {
    pictures.div_ceil(UNDER_WAY).clamp(FEW_FILES, CHUNK_FILES.0)
}

/// Files on their way to a decoder.
#[rdist::value]
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "rkyv copies fields without their docs")]
struct Files {
    shape: Shape,
    /// Row of the table, label, content; or why there is none.
    files: Vec<(u32, u32, Result<Vec<u8>, String>)>,
}

impl Files {
    /// Reads from `row` on, until a chunk is full. The driver reads: workers on other machines
    /// need not see its disk.
    fn read(samples: &[Sample], row: &mut usize, shape: Shape, most: usize) -> Self {
        let (mut files, mut bytes) = (Vec::new(), 0);
        while *row < samples.len() && files.len() < most && bytes < CHUNK_FILES.1 {
            let sample = &samples[*row];
            let content = fs::read(&sample.file).map_err(|error| error.to_string());
            bytes += content.as_ref().map_or(0, Vec::len);
            files.push((*row as u32, sample.label.unwrap_or(NO_LABEL), content));
            *row += 1;
        }
        Self { shape, files }
    }
}

/// Decodes and resizes; what cannot be used is left out and noted.
#[rdist::task]
fn decode(files: View<Files>) -> Chunk {
    let ArchivedFiles { shape, files } = &*files;
    let shape = Shape {
        rows: shape.rows.to_native(),
        columns: shape.columns.to_native(),
        channels: shape.channels.to_native(),
    };
    let size = shape.len();
    let mut decoder = Decoder::new(shape);
    let mut images = ImageSet {
        shape,
        pixels: Vec::with_capacity(files.len() * size),
        labels: Vec::with_capacity(files.len()),
    };
    let (mut rows, mut failed) = (Vec::with_capacity(files.len()), Vec::new());
    for file in files.iter() {
        let row = file.0.to_native();
        let decoded = match &file.2 {
            rkyv::result::ArchivedResult::Err(reason) => Err(reason.as_str().to_owned()),
            rkyv::result::ArchivedResult::Ok(bytes) => {
                let start = images.pixels.len();
                images.pixels.resize(start + size, 0);
                let decoded = decoder.decode_into(bytes, &mut images.pixels[start..]);
                decoded.map_err(|error| {
                    images.pixels.truncate(start);
                    error.to_string()
                })
            }
        };
        match decoded {
            Ok(()) => {
                rows.push(row);
                images.labels.push(file.1.to_native());
            }
            Err(reason) => failed.push((row, reason)),
        }
    }
    Chunk { images, rows, failed }
}

//! The images that a job tests with at its end: files, which the pipeline decodes when their turn
//! comes, or pixels in the object store.

use std::fs;

use crate::data::Images;
use crate::data::picture::Decoder;
use crate::data::stored::{Dataset, NO_LABEL, Stored};
use crate::data::table::Sample;
use crate::data::{Shape, table};
use crate::pipeline::Source;

/// See the module. Images are called by their row.
pub struct TestSet {
    shape: Shape,
    images: TestImages,
}

enum TestImages {
    Files(Vec<Sample>),
    Pixels(Dataset, Stored),
}

impl TestSet {
    /// Pictures that are to be made `shape`.
    pub fn of_files(samples: Vec<Sample>, shape: Shape) -> Self {
        Self { shape, images: TestImages::Files(samples) }
    }

    /// Images that are pixels.
    ///
    /// # Errors
    /// They are lost.
    pub fn of_pixels(dataset: Dataset) -> rdist::Result<Self> {
        let stored = dataset.open()?;
        Ok(Self { shape: dataset.shape, images: TestImages::Pixels(dataset, stored) })
    }

    /// Of all of them.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match &self.images {
            TestImages::Files(samples) => samples.len(),
            TestImages::Pixels(_, stored) => stored.count(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their classes; [`NO_LABEL`] where nobody says.
    pub fn labels(&self) -> Vec<u32> {
        match &self.images {
            TestImages::Files(samples) => {
                samples.iter().map(|sample| sample.label.unwrap_or(NO_LABEL)).collect()
            }
            TestImages::Pixels(_, stored) => stored.labels(),
        }
    }

    /// The table of the files; `None`: they are none.
    pub fn samples(&self) -> Option<&[Sample]> {
        match &self.images {
            TestImages::Files(samples) => Some(samples),
            TestImages::Pixels(..) => None,
        }
    }

    /// One image's pixels, for people; `None` where it is of no use.
    pub fn pixels(&self, row: u32) -> Option<Vec<u8>> {
        match &self.images {
            TestImages::Files(samples) => {
                let bytes = fs::read(&samples.get(row as usize)?.file).ok()?;
                let mut pixels = vec![0; self.shape.len()];
                Decoder::new(self.shape).decode_into(&bytes, &mut pixels).ok()?;
                Some(pixels)
            }
            TestImages::Pixels(_, stored) => {
                ((row as usize) < stored.count()).then(|| stored.image(row as usize).to_vec())
            }
        }
    }

    /// All of them in the object store; pictures are decoded for it.
    ///
    /// # Errors
    /// The cluster's.
    pub fn dataset(&self, cx: &rdist::Context) -> rdist::Result<Dataset> {
        match &self.images {
            TestImages::Files(samples) => Dataset::decode(cx, samples, self.shape),
            TestImages::Pixels(dataset, _) => Ok(dataset.clone()),
        }
    }

    /// Where the pipeline takes them from.
    pub fn source(&self) -> Source<'_> {
        match &self.images {
            TestImages::Files(samples) => Source::Files(samples),
            TestImages::Pixels(dataset, _) => Source::Images(dataset),
        }
    }

    /// The images at `rows` that are of no use, as tables name them.
    pub fn skipped(&self, failed: &[(u32, String)]) -> Vec<table::Skipped> {
        let name = |row: u32| {
            let sample = self.samples().and_then(|samples| samples.get(row as usize));
            sample.map_or_else(|| row.to_string(), |s| s.file.to_string_lossy().into_owned())
        };
        let skipped = failed.iter();
        skipped
            .map(|(row, reason)| table::Skipped { file: name(*row), reason: reason.clone() })
            .collect()
    }
}

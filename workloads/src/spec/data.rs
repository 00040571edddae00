//! `[data]` and `[augment]`: what a job learns from, and what it sees of it.

use std::path::PathBuf;

use super::SpecError;
use super::document::Section;
use crate::data::Shape;
use crate::data::augment::{Augment, Flip, Normal};
use crate::s3::Address;

/// `data.set`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataSet {
    /// Handwritten digits.
    Mnist,
    /// Drawn digits.
    Synthetic,
    /// Pictures in folders by class.
    Folders,
    /// Pictures with Herbarium 2021's metadata.
    Herbarium,
}

impl DataSet {
    const ALL: [(&'static str, Self); 4] = [
        ("mnist", Self::Mnist),
        ("synthetic", Self::Synthetic),
        ("folders", Self::Folders),
        ("herbarium", Self::Herbarium),
    ];

    /// Whether its images are picture files, to be decoded to a size of the job's choice.
    pub fn is_pictures(self) -> bool {
        matches!(self, Self::Folders | Self::Herbarium)
    }
}

/// `[data]`
#[derive(Debug, Clone, PartialEq)]
pub struct DataSpec {
    /// `set`
    pub set: DataSet,
    /// `path`: the folder with the files, or `s3://bucket/prefix`; `None`: the places where they usually are.
    pub path: Option<PathBuf>,
    /// `download`: whether mirrors may be asked.
    pub download: bool,
    /// `size` and `colour`: what pictures are made to.
    pub shape: Shape,
    /// The same of digits, which are else as they come.
    pub digits: Digits,
    /// `validation`, `test`: shares taken out of what there is to train on.
    pub shares: Shares,
    /// `portion`, `limit`, `debug`: how much of it all to use.
    pub amount: Amount,
    /// `normalise`
    pub normal: Normal,
    /// `[augment]`
    pub augment: Augment,
    /// `class_weights`: whether rare classes count more.
    pub balanced: bool,
    /// `split_seed`
    pub split_seed: u64,
}

/// What digits are made to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digits {
    /// Pixels of a side; `None`: as many as they come with.
    pub side: Option<u32>,
    /// Whether each pixel is given three colours, all alike.
    pub colour: bool,
}

impl Digits {
    /// What digits of `shape` become.
    pub fn of(&self, shape: Shape) -> Shape {
        Shape {
            rows: self.side.unwrap_or(shape.rows),
            columns: self.side.unwrap_or(shape.columns),
            channels: if self.colour { 3 } else { shape.channels },
        }
    }
}

impl DataSpec {
    /// Pixels of a side, as far as the job says.
    pub fn side(&self) -> Option<u32> {
        if self.set.is_pictures() { Some(self.shape.rows) } else { self.digits.side }
    }

    /// Has images made as a model takes them.
    pub fn suit(&mut self, shape: Shape) {
        self.shape = shape;
        let side = (shape.rows == shape.columns).then_some(shape.rows);
        self.digits = Digits { side, colour: shape.channels == 3 };
    }
}

/// Shares that are taken out of the training images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shares {
    /// To choose by while training.
    pub validation: f64,
    /// To test with at the end, where the set has no test part of its own.
    pub test: f64,
}

/// How much of a data set is used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Amount {
    /// Share of the training images.
    pub portion: f64,
    /// At most so many images in each part.
    pub limit: Option<u64>,
}

/// Images in each part of a debug sample.
const DEBUG_IMAGES: u64 = 96;

impl Amount {
    /// How many of `count` training images are used.
    pub fn of(&self, count: usize) -> usize {
        let share = ((count as f64 * self.portion).round() as usize).clamp(1, count.max(1));
        self.limit.map_or(share, |limit| share.min(limit as usize))
    }
}

pub(super) fn read(mut section: Section<'_>, augment: Section<'_>) -> Result<DataSpec, SpecError> {
    let share = |n: f64| (0.0..1.0).contains(&n);
    let set = section.choice("set", &DataSet::ALL, DataSet::Mnist, SET)?;
    let path = section.named("path", PATH_DEFAULT, PATH, "a folder, or s3://BUCKET/PREFIX")?;
    match path.as_deref().and_then(Address::of) {
        Some(Err(_)) => return Err(section.unfit("path", "s3://BUCKET/PREFIX, or a folder")),
        Some(Ok(_)) if set != DataSet::Mnist => {
            let expected = "a folder; in S3 there may only be data.set \"mnist\"";
            return Err(section.unfit("path", expected));
        }
        _ => {}
    }
    let download = section.flag("download", true, DOWNLOAD)?;
    let side = section.integer("size", 1..=4_096, 64, SIZE)? as u32;
    let colour = section.flag("colour", true, COLOUR)?;
    let shape = Shape { rows: side, columns: side, channels: if colour { 3 } else { 1 } };
    let digits = Digits {
        side: section.is_given("size").then_some(side),
        colour: section.is_given("colour") && colour,
    };
    let shares = Shares {
        validation: section.number("validation", "from 0, below 1", share, 0.0, VALIDATION)?,
        test: section.number("test", "from 0, below 1", share, 0.0, TEST)?,
    };
    if shares.test > 0.0 && !set.is_pictures() {
        return Err(section.unfit("test", "nothing: digits have test images of their own"));
    }
    if shares.validation + shares.test >= 1.0 {
        return Err(section.unfit("test", "less than 1 together with data.validation"));
    }
    let portion = |n: f64| n > 0.0 && n <= 1.0;
    let portion = section.number("portion", "above 0, up to 1", portion, 1.0, PORTION)?;
    let limit = section.integer_or("limit", "none", 1..=u64::MAX, None, LIMIT)?;
    let debug = section.flag("debug", false, DEBUG)?;
    let limit = if debug { Some(limit.unwrap_or(u64::MAX).min(DEBUG_IMAGES)) } else { limit };
    let normals =
        [("none", Normal::PLAIN), ("centred", Normal::CENTRED), ("imagenet", Normal::IMAGENET)];
    let normal = if set.is_pictures() { Normal::CENTRED } else { Normal::PLAIN };
    let normal = section
        .choice_or("normalise", &normals, "\"centred\" for pictures, else \"none\"", NORMALISE)?
        .unwrap_or(normal);
    let weights = [("none", false), ("balanced", true)];
    let balanced = section.choice("class_weights", &weights, false, CLASS_WEIGHTS)?;
    let split_seed = section.integer("split_seed", 0..=u64::MAX, 1, SPLIT_SEED)?;
    section.finish()?;
    let (amount, augment) = (Amount { portion, limit }, read_augment(augment)?);
    Ok(DataSpec {
        set,
        path,
        download,
        shape,
        digits,
        shares,
        amount,
        normal,
        augment,
        balanced,
        split_seed,
    })
}

const SET: &str = "What to learn from: handwritten digits, drawn digits, pictures (JPEG, PNG) in \
    folders by class, or pictures with Herbarium 2021's `metadata.json`.";
const PATH: &str = "The folder with the files: as it is, else below `RDIST_DATA` (or `--data`), \
    else below `../shared/data`. MNIST may be in S3, `s3://bucket/prefix`: each file is all \
    objects that begin with its name, there or below `train/` and `test/`.";
const PATH_DEFAULT: &str = "`mnist` or `herbarium`; a set of folders has none";
const DOWNLOAD: &str = "Whether MNIST may be downloaded where it is not found.";
const SIZE: &str = "Pictures are stretched to so many pixels in height and width; digits too where \
    it is given, and else stay as they are.";
const COLOUR: &str = "Whether pictures keep their colours. Digits are grey; where `true` is given, \
    they are grey in three colours, which torchvision's weights want.";
const VALIDATION: &str = "Share of each class that is kept out of training, to watch and choose \
    by. Without, rounds are judged by the test images.";
const TEST: &str = "Share of each class that is kept to test with at the end, where the set has \
    no test part of its own.";
const PORTION: &str = "How much of the training images to use.";
const LIMIT: &str = "At most so many images in each part, of every class its share.";
const DEBUG: &str = "A small sample of each part (96 images), to try a job out.";
const NORMALISE: &str = "Pixels are 0 to 1; `centred` makes them -2 to 2, `imagenet` what \
    torchvision's pretrained models want.";
const CLASS_WEIGHTS: &str = "`balanced`: an image's loss counts by how rare its class is.";
const SPLIT_SEED: &str = "Seed of splits and samples: the same for runs that are to be compared.";

fn read_augment(mut section: Section<'_>) -> Result<Augment, SpecError> {
    let upto = |most: f64| move |n: f64| (0.0..=most).contains(&n);
    let augment = Augment {
        flip: section.choice("flip", &Flip::ALL, Flip::None, FLIP)?,
        rotate: section.number("rotate", "from 0 to 180", upto(180.0), 0.0, ROTATE)?,
        zoom: section.number("zoom", "from 0 to 0.9", upto(0.9), 0.0, ZOOM)?,
        shift: section.number("shift", "from 0 to 1", upto(1.0), 0.0, SHIFT)?,
        brightness: section.number("brightness", "from 0 to 1", upto(1.0), 0.0, BRIGHTNESS)?,
        contrast: section.number("contrast", "from 0 to 1", upto(1.0), 0.0, CONTRAST)?,
    };
    section.finish()?;
    Ok(augment)
}

const FLIP: &str = "Mirrors training images at random: left and right, `both` ways, or with \
    quarter turns too (`turns`).";
const ROTATE: &str = "Turns them by up to so many degrees.";
const ZOOM: &str = "Makes them larger or smaller by up to this share.";
const SHIFT: &str = "Moves them by up to this share of a side.";
const BRIGHTNESS: &str = "Makes them brighter or darker by up to this share of white.";
const CONTRAST: &str = "Multiplies their contrast by 1 plus or minus up to this.";

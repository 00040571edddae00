//! What a model sees of an image: pixels as numbers, normalised, and in training changed a little
//! each time, so that it does not learn the pictures by heart. What is drawn depends on the seed,
//! the epoch and the image alone, not on who shows it or in which batch.

use rkyv::{Archive, Deserialize, Serialize};

use super::Shape;
use super::random::Random;

/// How pixels become numbers: `(pixel / 255 - mean) / deviation`, by channel.
#[derive(Debug, Clone, Copy, PartialEq, Archive, Serialize, Deserialize)]
#[allow(missing_docs, reason = "rkyv copies fields without their docs")]
pub struct Normal {
    pub mean: [f32; 3],
    pub deviation: [f32; 3],
}

impl Normal {
    /// 0 to 1.
    pub const PLAIN: Self = Self { mean: [0.0; 3], deviation: [1.0; 3] };
    /// What torchvision's pretrained models want.
    pub const IMAGENET: Self =
        Self { mean: [0.485, 0.456, 0.406], deviation: [0.229, 0.224, 0.225] };
    /// -2 to 2, for models that were never trained on anything else.
    pub const CENTRED: Self = Self { mean: [0.5; 3], deviation: [0.25; 3] };
}

/// Which images come out mirrored or turned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[allow(missing_docs, reason = "rkyv copies variants without their docs")]
pub enum Flip {
    /// None.
    None,
    /// Left and right.
    Horizontal,
    /// Left and right, top and bottom.
    Both,
    /// Those, and quarter turns: all eight ways to lay a square picture.
    Turns,
}

impl Flip {
    /// Every one, by the name that the TOML uses.
    pub const ALL: [(&'static str, Self); 4] = [
        ("none", Self::None),
        ("horizontal", Self::Horizontal),
        ("both", Self::Both),
        ("turns", Self::Turns),
    ];
}

/// How much training changes images.
#[derive(Debug, Clone, Copy, PartialEq, Archive, Serialize, Deserialize)]
#[allow(missing_docs, reason = "rkyv copies fields without their docs")]
pub struct Augment {
    pub flip: Flip,
    /// Up to so many degrees to either side.
    pub rotate: f64,
    /// Larger or smaller by up to this share.
    pub zoom: f64,
    /// Moved by up to this share of a side.
    pub shift: f64,
    /// Brighter or darker by up to this share of white.
    pub brightness: f64,
    /// Contrast times 1 plus or minus up to this.
    pub contrast: f64,
}

impl Augment {
    /// No change.
    pub const NONE: Self = Self {
        flip: Flip::None,
        rotate: 0.0,
        zoom: 0.0,
        shift: 0.0,
        brightness: 0.0,
        contrast: 0.0,
    };

    /// Whether anything is changed at all.
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// Draws what becomes of an image.
    pub fn draw(&self, shape: Shape, random: &mut Random) -> Change {
        let mut coin = || random.bits() >> 63 == 1;
        let (horizontal, vertical, transposed) = match self.flip {
            Flip::None => (false, false, false),
            Flip::Horizontal => (coin(), false, false),
            Flip::Both => (coin(), coin(), false),
            Flip::Turns => (coin(), coin(), coin() && shape.rows == shape.columns),
        };
        let mut within = |width: f64| random.between(-width, width);
        let affine = self.rotate > 0.0 || self.zoom > 0.0 || self.shift > 0.0;
        let affine = affine.then(|| {
            let (sine, cosine) = within(self.rotate).to_radians().sin_cos();
            // Of the source, so that the picture grows where this shrinks.
            let scale = 1.0 / (1.0 + within(self.zoom));
            let moved = [within(self.shift), within(self.shift)];
            Affine {
                along: [(cosine * scale) as f32, (sine * scale) as f32],
                moved: [
                    (moved[0] * f64::from(shape.columns)) as f32,
                    (moved[1] * f64::from(shape.rows)) as f32,
                ],
            }
        });
        let contrast = (1.0 + within(self.contrast)) as f32;
        let brightness = within(self.brightness) as f32;
        Change { horizontal, vertical, transposed, affine, contrast, brightness }
    }
}

/// A rotation and scaling about the middle, then a move; from the target to the source.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Affine {
    along: [f32; 2],
    moved: [f32; 2],
}

/// What becomes of one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    horizontal: bool,
    vertical: bool,
    transposed: bool,
    affine: Option<Affine>,
    contrast: f32,
    brightness: f32,
}

impl Change {
    /// The image as it is.
    pub const NONE: Self = Self {
        horizontal: false,
        vertical: false,
        transposed: false,
        affine: None,
        contrast: 1.0,
        brightness: 0.0,
    };
}

/// Writes an image as numbers, changed and normalised; `target` has as many values as the image.
///
/// # Panics
/// When `image` or `target` has another length than `shape`.
pub fn show(image: &[u8], shape: Shape, normal: &Normal, change: &Change, target: &mut [f32]) {
    assert!(image.len() == shape.len() && target.len() == shape.len(), "not an image of {shape}");
    let channels = shape.channels as usize;
    // All that happens to a value is one multiplication and one addition by channel.
    let (mut factor, mut offset) = ([0.0_f32; 3], [0.0_f32; 3]);
    for channel in 0..channels.min(3) {
        let (mean, deviation) = (normal.mean[channel], normal.deviation[channel]);
        let shift = 0.5 - 0.5 * change.contrast + change.brightness;
        factor[channel] = change.contrast / (255.0 * deviation);
        offset[channel] = (shift - mean) / deviation;
    }
    let upright = !change.horizontal && !change.vertical && !change.transposed;
    match (&change.affine, upright, channels) {
        (None, true, 1) => {
            for (value, pixel) in target.iter_mut().zip(image) {
                *value = f32::from(*pixel) * factor[0] + offset[0];
            }
        }
        (None, true, _) => {
            for (values, pixel) in target.chunks_exact_mut(channels).zip(image.chunks(channels)) {
                for channel in 0..channels {
                    values[channel] = f32::from(pixel[channel]) * factor[channel] + offset[channel];
                }
            }
        }
        (None, false, _) => flipped(image, shape, change, |at, channel, pixel| {
            target[at] = f32::from(pixel) * factor[channel] + offset[channel];
        }),
        (Some(affine), _, _) => warped(image, shape, change, affine, |at, channel, pixel| {
            target[at] = pixel * factor[channel] + offset[channel];
        }),
    }
}

/// Where a pixel of the flipped image comes from.
fn source(change: &Change, shape: Shape, x: usize, y: usize) -> (usize, usize) {
    let (mut x, mut y) = if change.transposed { (y, x) } else { (x, y) };
    if change.horizontal {
        x = shape.columns as usize - 1 - x;
    }
    if change.vertical {
        y = shape.rows as usize - 1 - y;
    }
    (x, y)
}

fn flipped(image: &[u8], shape: Shape, change: &Change, mut put: impl FnMut(usize, usize, u8)) {
    let (columns, channels) = (shape.columns as usize, shape.channels as usize);
    for y in 0..shape.rows as usize {
        for x in 0..columns {
            let (from_x, from_y) = source(change, shape, x, y);
            let (from, to) = ((from_y * columns + from_x) * channels, (y * columns + x) * channels);
            for channel in 0..channels {
                put(to + channel, channel, image[from + channel]);
            }
        }
    }
}

/// Bilinear; what would lie outside continues the edge.
fn warped(
    image: &[u8],
    shape: Shape,
    change: &Change,
    affine: &Affine,
    mut put: impl FnMut(usize, usize, f32),
) {
    let (columns, rows) = (shape.columns as usize, shape.rows as usize);
    let channels = shape.channels as usize;
    let (last_x, last_y) = ((columns - 1) as f32, (rows - 1) as f32);
    let middle = [last_x / 2.0, last_y / 2.0];
    let [cosine, sine] = affine.along;
    for y in 0..rows {
        for x in 0..columns {
            let (flip_x, flip_y) = source(change, shape, x, y);
            let (dx, dy) = (flip_x as f32 - middle[0], flip_y as f32 - middle[1]);
            let at_x = middle[0] + cosine * dx - sine * dy + affine.moved[0];
            let at_y = middle[1] + sine * dx + cosine * dy + affine.moved[1];
            let (at_x, at_y) = (at_x.clamp(0.0, last_x), at_y.clamp(0.0, last_y));
            let (left, top) = (at_x as usize, at_y as usize);
            let (right, bottom) = ((left + 1).min(columns - 1), (top + 1).min(rows - 1));
            let (part_x, part_y) = (at_x - left as f32, at_y - top as f32);
            let pixel = |x: usize, y: usize| (y * columns + x) * channels;
            let corners =
                [pixel(left, top), pixel(right, top), pixel(left, bottom), pixel(right, bottom)];
            let to = pixel(x, y);
            for channel in 0..channels {
                let [a, b, c, d] = corners.map(|corner| f32::from(image[corner + channel]));
                let (upper, lower) = (a + (b - a) * part_x, c + (d - c) * part_x);
                put(to + channel, channel, upper + (lower - upper) * part_y);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHAPE: Shape = Shape { rows: 4, columns: 4, channels: 3 };

    fn image() -> Vec<u8> {
        (0..SHAPE.len() as u8).map(|n| n * 5).collect()
    }

    fn shown(change: &Change, normal: &Normal) -> Vec<f32> {
        let mut target = vec![f32::NAN; SHAPE.len()];
        show(&image(), SHAPE, normal, change, &mut target);
        target
    }

    fn near(a: &[f32], b: &[f32]) {
        let pairs = a.iter().zip(b);
        assert!(pairs.clone().all(|(a, b)| (a - b).abs() < 1e-5), "{a:?}\n{b:?}");
    }

    #[test]
    fn normalises_by_channel() {
        let plain: Vec<f32> = image().iter().map(|pixel| f32::from(*pixel) / 255.0).collect();
        near(&shown(&Change::NONE, &Normal::PLAIN), &plain);
        let normal = Normal::IMAGENET;
        let expected: Vec<f32> = plain
            .iter()
            .enumerate()
            .map(|(at, value)| (value - normal.mean[at % 3]) / normal.deviation[at % 3])
            .collect();
        near(&shown(&Change::NONE, &normal), &expected);
    }

    #[test]
    fn flips_are_exact_also_by_the_way_of_a_warp() {
        let plain = shown(&Change::NONE, &Normal::PLAIN);
        let still = Affine { along: [1.0, 0.0], moved: [0.0, 0.0] };
        for bits in 0..8 {
            let change = Change {
                horizontal: bits & 1 == 1,
                vertical: bits & 2 == 2,
                transposed: bits & 4 == 4,
                ..Change::NONE
            };
            let flipped = shown(&change, &Normal::PLAIN);
            near(&flipped, &shown(&Change { affine: Some(still), ..change }, &Normal::PLAIN));
            let expected = |x: usize, y: usize| {
                let (x, y) = if change.transposed { (y, x) } else { (x, y) };
                let x = if change.horizontal { 3 - x } else { x };
                let y = if change.vertical { 3 - y } else { y };
                plain[(y * 4 + x) * 3]
            };
            for (x, y) in [(0, 0), (1, 0), (2, 3)] {
                assert!((flipped[(y * 4 + x) * 3] - expected(x, y)).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn a_quarter_turn_by_warp_is_one_by_flips() {
        let turn = Affine { along: [0.0, 1.0], moved: [0.0, 0.0] };
        let warped = shown(&Change { affine: Some(turn), ..Change::NONE }, &Normal::PLAIN);
        let turned = Change { transposed: true, horizontal: true, ..Change::NONE };
        near(&warped, &shown(&turned, &Normal::PLAIN));
    }

    #[test]
    fn light_changes_about_grey() {
        let change = Change { contrast: 2.0, brightness: 0.1, ..Change::NONE };
        let plain = shown(&Change::NONE, &Normal::PLAIN);
        let expected: Vec<f32> = plain.iter().map(|value| (value - 0.5) * 2.0 + 0.6).collect();
        near(&shown(&change, &Normal::PLAIN), &expected);
    }

    proptest! {
        #[test]
        fn the_same_keys_draw_the_same_and_nothing_leaves_the_range(seed: u64, rotate in 0.0..180.0,
            zoom in 0.0..0.9, shift in 0.0..1.0)
        {
            let augment =
                Augment { flip: Flip::Turns, rotate, zoom, shift, ..Augment::NONE };
            let draw = || augment.draw(SHAPE, &mut Random::new(&[seed]));
            prop_assert_eq!(draw(), draw());
            let shown = shown(&draw(), &Normal::PLAIN);
            prop_assert!(shown.iter().all(|value| (0.0..=1.0).contains(value)));
        }
    }
}

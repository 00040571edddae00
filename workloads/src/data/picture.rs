//! Pictures in files, JPEG and PNG, as pixels of one size: read, decoded, resized. What the data
//! sets, the prediction pipeline and its profile have in common; nothing here knows of objects or
//! tensors.
//!
//! A decoder of several gigapixels a second would be of no use where each picture also allocates
//! and computes its tables anew, so a [`Decoder`] keeps what can be used again from one picture to
//! the next. Most JPEGs have a decoder of their own (`jpeg`), all others have a general one. Files
//! are input: sizes are limited before memory is taken for them.

use std::io::Cursor;

use fast_image_resize as resize;
use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x3};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::Shape;
use super::jpeg::Baseline;

/// Pictures of more pixels on a side are refused, whatever their header promises.
pub const MAX_SIDE: u32 = 16_384;
/// Memory that one PNG may take.
const MAX_PNG_BYTES: usize = 1 << 30;

/// Why a file is no picture that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PictureError {
    /// Neither of the two formats.
    #[error("it is neither JPEG nor PNG")]
    Format,
    /// A decoder gave up.
    #[error("its {format} data is damaged: {reason}")]
    Damaged {
        /// Which decoder.
        format: &'static str,
        /// What it says.
        reason: String,
    },
    /// Larger than [`MAX_SIDE`], or empty.
    #[error("it has {width}x{height} pixels, a side may have 1 to {MAX_SIDE}")]
    Size {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
    },
}

/// Pixels as they stand in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// 1 (grey) or 3 (red, green, blue).
    pub channels: u32,
    /// Row after row; a pixel's channels lie together.
    pub pixels: Vec<u8>,
}

/// Decodes a JPEG or PNG file's bytes to 1 or 3 `channels`. Alpha is dropped; grey becomes colour
/// and colour becomes grey (Rec. 601 luma) where the other is asked for. Each time by the decoder
/// for all of its format; a [`Decoder`] has a faster one too.
///
/// # Errors
/// [`PictureError`]; anything may be in `bytes`.
pub fn decode(bytes: &[u8], channels: u32) -> Result<Picture, PictureError> {
    match bytes {
        [0xff, 0xd8, 0xff, ..] => decode_jpeg(bytes, channels),
        [0x89, b'P', b'N', b'G', ..] => decode_png(bytes, channels),
        _ => Err(PictureError::Format),
    }
}

fn checked(width: u32, height: u32) -> Result<(), PictureError> {
    let fits = (1..=MAX_SIDE).contains(&width) && (1..=MAX_SIDE).contains(&height);
    fits.then_some(()).ok_or(PictureError::Size { width, height })
}

pub(super) fn decode_jpeg(bytes: &[u8], channels: u32) -> Result<Picture, PictureError> {
    let damaged = |error: zune_jpeg::errors::DecodeErrors| PictureError::Damaged {
        format: "JPEG",
        reason: error.to_string(),
    };
    let colours = if channels == 1 { ColorSpace::Luma } else { ColorSpace::RGB };
    let options = DecoderOptions::default()
        .set_max_width(MAX_SIDE as usize)
        .set_max_height(MAX_SIDE as usize)
        .set_strict_mode(true)
        .jpeg_set_out_colorspace(colours);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    let pixels = decoder.decode().map_err(damaged)?;
    let (width, height) =
        decoder.info().map_or((0, 0), |info| (u32::from(info.width), u32::from(info.height)));
    checked(width, height)?;
    let found = pixels.len() as u64 / (u64::from(width) * u64::from(height));
    let pixels = convert(pixels, found as usize, channels as usize);
    Ok(Picture { width, height, channels, pixels })
}

fn decode_png(bytes: &[u8], channels: u32) -> Result<Picture, PictureError> {
    let damaged = |error: png::DecodingError| PictureError::Damaged {
        format: "PNG",
        reason: error.to_string(),
    };
    let limits = png::Limits { bytes: MAX_PNG_BYTES };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), limits);
    // Palettes, 1 to 4 and 16 bits: all as 8 bits a channel.
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(damaged)?;
    let (width, height) = (reader.info().width, reader.info().height);
    checked(width, height)?;
    let size = reader.output_buffer_size().ok_or(PictureError::Size { width, height })?;
    let mut pixels = vec![0; size];
    let frame = reader.next_frame(&mut pixels).map_err(damaged)?;
    pixels.truncate(frame.buffer_size());
    let found = frame.color_type.samples();
    Ok(Picture { width, height, channels, pixels: convert(pixels, found, channels as usize) })
}

/// From `found` channels (grey, grey and alpha, colour, colour and alpha) to 1 or 3.
pub(super) fn convert(pixels: Vec<u8>, found: usize, wanted: usize) -> Vec<u8> {
    let luma = |red: u8, green: u8, blue: u8| {
        ((u32::from(red) * 19_595 + u32::from(green) * 38_470 + u32::from(blue) * 7_471 + 0x8000)
            >> 16) as u8
    };
    match (found, wanted) {
        (found, wanted) if found == wanted => pixels,
        (1 | 2, 1) => pixels.chunks_exact(found).map(|pixel| pixel[0]).collect(),
        (1 | 2, _) => pixels.chunks_exact(found).flat_map(|pixel| [pixel[0]; 3]).collect(),
        (_, 1) => pixels.chunks_exact(found).map(|p| luma(p[0], p[1], p[2])).collect(),
        (_, _) => pixels.chunks_exact(found).flat_map(|p| [p[0], p[1], p[2]]).collect(),
    }
}

/// Files to pixels of one size.
pub struct Decoder {
    shape: Shape,
    baseline: Baseline,
    resizer: resize::Resizer,
    options: resize::ResizeOptions,
}

impl Decoder {
    /// For pictures of `shape`. Sides are stretched to it; smaller pictures are made larger.
    pub fn new(shape: Shape) -> Self {
        // As Pillow's BILINEAR: a triangle as wide as the reduction, so that nothing is skipped.
        let algorithm = resize::ResizeAlg::Convolution(resize::FilterType::Bilinear);
        let options = resize::ResizeOptions::new().resize_alg(algorithm).use_alpha(false);
        Self { shape, baseline: Baseline::new(), resizer: resize::Resizer::new(), options }
    }

    /// Decodes a file's `bytes`, and writes `shape.len()` bytes to `target`.
    ///
    /// # Errors
    /// [`PictureError`]; `target` may then hold anything.
    ///
    /// # Panics
    /// When `target` has another length.
    pub fn decode_into(&mut self, bytes: &[u8], target: &mut [u8]) -> Result<(), PictureError> {
        let picture = self.decode(bytes)?;
        self.resize_into(&picture, target)
    }

    /// Decodes a file's `bytes` to as many channels as the shape has, in the size of the file.
    ///
    /// # Errors
    /// [`PictureError`]; anything may be in `bytes`.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<Picture, PictureError> {
        let channels = self.shape.channels;
        match self.baseline.decode(bytes, channels) {
            Some(picture) => Ok(picture),
            None => decode(bytes, channels),
        }
    }

    /// Resizes a picture of as many channels as the shape has.
    ///
    /// # Errors
    /// [`PictureError::Size`], for a picture whose fields do not fit together.
    ///
    /// # Panics
    /// When `target` has another length than the shape.
    pub fn resize_into(
        &mut self,
        picture: &Picture,
        target: &mut [u8],
    ) -> Result<(), PictureError> {
        let Shape { rows, columns, channels } = self.shape;
        assert_eq!(target.len(), self.shape.len(), "the target has another size than the shape");
        if (picture.width, picture.height) == (columns, rows) {
            target.copy_from_slice(&picture.pixels);
            return Ok(());
        }
        // By type: the resizer's own choice among its thirteen kinds of pixels would be compiled
        // into this crate, and be larger than all the rest of it.
        match channels {
            1 => self.resize_typed::<U8>(picture, target),
            _ => self.resize_typed::<U8x3>(picture, target),
        }
    }

    fn resize_typed<P: resize::PixelTrait>(
        &mut self,
        picture: &Picture,
        target: &mut [u8],
    ) -> Result<(), PictureError> {
        let (width, height) = (picture.width, picture.height);
        let wrong = || PictureError::Size { width, height };
        let from =
            TypedImageRef::<P>::from_buffer(width, height, &picture.pixels).map_err(|_| wrong())?;
        let mut to = TypedImage::<P>::from_buffer(self.shape.columns, self.shape.rows, target)
            .map_err(|_| wrong())?;
        self.resizer.resize_typed(&from, &mut to, &self.options).map_err(|_| wrong())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A PNG of a gradient, for tests that need a file.
    pub(crate) fn png_of(width: u32, height: u32, pixel: impl Fn(u32, u32) -> [u8; 3]) -> Vec<u8> {
        let pixels: Vec<u8> = (0..height)
            .flat_map(|y| (0..width).map(move |x| (x, y)))
            .flat_map(|(x, y)| pixel(x, y))
            .collect();
        encode_png(width, height, png::ColorType::Rgb, &pixels)
    }

    fn encode_png(width: u32, height: u32, colours: png::ColorType, pixels: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(colours);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.write_header().unwrap().write_image_data(pixels).unwrap();
        bytes
    }

    const GREY: Shape = Shape { rows: 8, columns: 8, channels: 1 };
    const COLOUR: Shape = Shape { rows: 8, columns: 8, channels: 3 };

    fn resized(shape: Shape, bytes: &[u8]) -> Result<Vec<u8>, PictureError> {
        let mut target = vec![0; shape.len()];
        Decoder::new(shape).decode_into(bytes, &mut target).map(|()| target)
    }

    #[test]
    fn a_picture_of_the_right_size_is_untouched() {
        let bytes = png_of(8, 8, |x, y| [x as u8 * 30, y as u8 * 30, 7]);
        let pixels = resized(COLOUR, &bytes).unwrap();
        assert_eq!(pixels[..6], [0, 0, 7, 30, 0, 7]);
        assert_eq!(pixels[8 * 3..8 * 3 + 3], [0, 30, 7]);
    }

    #[test]
    fn smaller_and_larger_ones_keep_their_mean() {
        for side in [3, 5, 50, 131] {
            let bytes = png_of(side, side * 2, |x, _| [(x * 255 / (side - 1)) as u8, 40, 200]);
            let pixels = resized(COLOUR, &bytes).unwrap();
            let mean = |channel: usize| {
                let values = pixels.iter().skip(channel).step_by(3);
                values.map(|value| f64::from(*value)).sum::<f64>() / 64.0
            };
            assert!((mean(0) - 127.5).abs() < 2.0, "{side}: {}", mean(0));
            assert_eq!((mean(1), mean(2)), (40.0, 200.0));
        }
    }

    #[test]
    fn channels_become_those_that_are_asked_for() {
        let colour = png_of(8, 8, |_, _| [255, 0, 0]);
        assert!(resized(GREY, &colour).unwrap().iter().all(|pixel| *pixel == 76));
        let grey = encode_png(8, 8, png::ColorType::Grayscale, &[9; 64]);
        assert_eq!(resized(COLOUR, &grey).unwrap(), [9; 192]);
        let alpha = encode_png(8, 8, png::ColorType::GrayscaleAlpha, &[9, 128].repeat(64));
        assert_eq!(resized(GREY, &alpha).unwrap(), [9; 64]);
        let alpha = encode_png(8, 8, png::ColorType::Rgba, &[1, 2, 3, 128].repeat(64));
        assert_eq!(resized(COLOUR, &alpha).unwrap(), [1, 2, 3].repeat(64));
    }

    /// A JPEG of 16x16 pixels: left half black, right half white. Written by Pillow, quality 90.
    const JPEG: &[u8] = include_bytes!("halves.jpg");

    #[test]
    fn jpeg_is_read_in_grey_and_colour() {
        for shape in [GREY, COLOUR] {
            let pixels = resized(shape, JPEG).unwrap();
            let row = 8 * shape.channels as usize;
            assert!(pixels.chunks(row).all(|row| row[0] < 16 && row[row.len() - 1] > 239));
        }
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        assert_eq!(resized(GREY, b"hello"), Err(PictureError::Format));
        assert_eq!(resized(GREY, b""), Err(PictureError::Format));
        let png = png_of(8, 8, |x, y| [x as u8, y as u8, 1]);
        for bytes in [&png[..], JPEG] {
            for len in [4, 20, bytes.len() / 2] {
                let error = resized(GREY, &bytes[..len]).unwrap_err();
                assert!(matches!(error, PictureError::Damaged { .. }), "{len}: {error}");
            }
        }
        let mut huge = png;
        // The width in the header; its checksum does not fit any more, so that is told first.
        huge[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(resized(GREY, &huge).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            kind in 0..2,
            flips in proptest::collection::vec((0..2_000_usize, 0..=255_u8), 1..8),
        ) {
            let png = png_of(20, 20, |x, y| [x as u8 * 9, y as u8 * 9, 1]);
            let mut bytes = if kind == 0 { png } else { JPEG.to_vec() };
            for (at, value) in flips {
                let len = bytes.len();
                bytes[2 + at % (len - 2)] = value;
            }
            let _ = resized(COLOUR, &bytes);
        }
    }
}

//! The JPEGs that most files are, where time goes when a model sees thousands a second: baseline,
//! 8 bits, all components in one scan, grey or luma and two colours, those in full or half the
//! width and height. All others, and all that is damaged in any way, are left to the general
//! decoder, which also knows what to say of them. A picture's bytes are those that libjpeg makes
//! of it.

mod colour;
mod entropy;
#[cfg(test)]
mod tests;
mod transform;

use self::colour::{Plane, Rows};
use self::entropy::{Bits, Step, Steps, Table, clean};
use super::picture::{MAX_SIDE, Picture};

/// Larger ones are left to the general decoder, which keeps a few of their rows at a time.
const MOST_PIXELS: usize = 1 << 24;
/// Where the coefficients of a block belong, in the order of a file.
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// What headers say of a picture.
#[derive(Default)]
struct Frame {
    width: usize,
    height: usize,
    /// The identity of each component, and which factors are its.
    components: Vec<(u8, usize)>,
    /// Samples of luma for one of a colour, across and down.
    ratio: (usize, usize),
    /// Parts between two restarts, 0 where there are none.
    interval: usize,
    /// Which tables were defined, bit by bit.
    tables: u8,
    /// Which factors were.
    factors: u8,
}

/// Decodes one picture after the other, and keeps what can be used again.
pub(super) struct Baseline {
    /// Those of first values, then those of all others.
    tables: Vec<Table>,
    factors: [Steps; 4],
    planes: [Plane; 3],
    colours: [Rows; 2],
    clean: Vec<u8>,
}

impl Baseline {
    pub(super) fn new() -> Self {
        Self {
            tables: (0..8).map(|_| Table::new()).collect(),
            factors: [[Step::default(); 256]; 4],
            planes: Default::default(),
            colours: Default::default(),
            clean: Vec::new(),
        }
    }

    /// A file's picture in 1 or 3 `channels`; none where the file is not of the kind, or damaged.
    pub(super) fn decode(&mut self, bytes: &[u8], channels: u32) -> Option<Picture> {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2") {
            // SAFETY: The processor has what the function is compiled for.
            return unsafe { self.decode_wide(bytes, channels) };
        }
        self.decode_here(bytes, channels)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi2")]
    fn decode_wide(&mut self, bytes: &[u8], channels: u32) -> Option<Picture> {
        self.decode_here(bytes, channels)
    }

    #[inline(always)]
    fn decode_here(&mut self, bytes: &[u8], channels: u32) -> Option<Picture> {
        let (frame, scan, bytes) = self.headers(bytes.get(2..)?)?;
        self.scan(&frame, scan, bytes)?;
        Some(self.picture(&frame, channels))
    }

    /// Reads all up to the first scan; tells its header and what is behind it.
    fn headers<'a>(&mut self, mut bytes: &'a [u8]) -> Option<(Frame, &'a [u8], &'a [u8])> {
        let mut frame = Frame::default();
        loop {
            let ([0xff, marker, high, low], rest) = bytes.split_first_chunk()? else { return None };
            let length = usize::from(u16::from_be_bytes([*high, *low])).checked_sub(2)?;
            let (segment, rest) = rest.split_at_checked(length)?;
            bytes = rest;
            match marker {
                0xc0 if frame.components.is_empty() => frame.read(segment)?,
                0xc4 => self.define_tables(segment, &mut frame.tables)?,
                0xdb => self.define_factors(segment, &mut frame.factors)?,
                0xdd => frame.interval = usize::from(u16::from_be_bytes(segment.try_into().ok()?)),
                0xda => return Some((frame, segment, rest)),
                // Adobe's, where components may be something else.
                0xee => return None,
                0xe0..=0xef | 0xfe => {}
                _ => return None,
            }
        }
    }

    fn define_tables(&mut self, mut segment: &[u8], defined: &mut u8) -> Option<()> {
        while let Some((kind, rest)) = segment.split_first() {
            let (class, index) = (kind >> 4, kind & 15);
            if class > 1 || index > 3 {
                return None;
            }
            let symbols: usize = rest.get(..16)?.iter().map(|count| usize::from(*count)).sum();
            let (source, rest) = rest.split_at_checked(16 + symbols)?;
            let index = class * 4 + index;
            self.tables[usize::from(index)].define(source, class == 0)?;
            *defined |= 1 << index;
            segment = rest;
        }
        Some(())
    }

    fn define_factors(&mut self, mut segment: &[u8], defined: &mut u8) -> Option<()> {
        while let Some((index, rest)) = segment.split_first() {
            // With 16 bits they are none of a picture of 8.
            if *index > 3 {
                return None;
            }
            let (factors, rest) = rest.split_first_chunk::<64>()?;
            let steps = &mut self.factors[usize::from(*index)];
            *steps = [Step { place: 64, factor: 0 }; 256];
            for ((step, place), factor) in steps.iter_mut().zip(ZIGZAG).zip(factors) {
                *step = Step { place, factor: u16::from(*factor) };
            }
            *defined |= 1 << index;
            segment = rest;
        }
        Some(())
    }

    /// Fills the planes.
    #[inline(always)]
    fn scan(&mut self, frame: &Frame, header: &[u8], mut bytes: &[u8]) -> Option<()> {
        let tables = frame.tables_of(header)?;
        let (across, down) = frame.ratio;
        let parts = (frame.width.div_ceil(across * 8), frame.height.div_ceil(down * 8));
        for (index, plane) in self.planes.iter_mut().enumerate() {
            let (across, down) = if index == 0 { (across, down) } else { (1, 1) };
            plane.fit((parts.0 * across * 8, parts.1 * down * 8));
            plane.width = (frame.width * across).div_ceil(frame.ratio.0);
            plane.height = (frame.height * down).div_ceil(frame.ratio.1);
        }
        let (mut marker, rest) = clean(bytes, &mut self.clean)?;
        bytes = rest;
        let mut restarts = 0;
        let mut bits = Bits::new(&self.clean);
        let (mut last, mut values) = ([0; 3], [0; 128]);
        for part in 0..parts.0 * parts.1 {
            if part > 0 && part.is_multiple_of(frame.interval) {
                if !bits.within() || marker != 0xd0 + restarts {
                    return None;
                }
                restarts = (restarts + 1) % 8;
                (marker, bytes) = clean(bytes, &mut self.clean)?;
                (bits, last) = (Bits::new(&self.clean), [0; 3]);
            }
            for (index, (first, others)) in tables.iter().enumerate() {
                let plane = &mut self.planes[index];
                let steps = &self.factors[frame.components[index].1];
                let tables = (&self.tables[*first], &self.tables[*others]);
                let (across, down) = if index == 0 { (across, down) } else { (1, 1) };
                let (x, y) = (part % parts.0 * across, part / parts.0 * down);
                for block in 0..across * down {
                    let (x, y) = (x + block % across, y + block / across);
                    values[..64].fill(0);
                    let more = bits.block(tables, steps, &mut last[index], &mut values)?;
                    let target = &mut plane.samples[y * 8 * plane.stride + x * 8..];
                    if more {
                        transform::samples(&values, target, plane.stride);
                    } else {
                        transform::even(values[0], target, plane.stride);
                    }
                }
            }
        }
        (bits.within() && marker == 0xd9).then_some(())
    }

    #[inline(always)]
    fn picture(&mut self, frame: &Frame, channels: u32) -> Picture {
        let Frame { width, height, .. } = *frame;
        let mut pixels = vec![0; width * height * channels as usize];
        let [luma, blue, red] = &self.planes;
        let [blues, reds] = &mut self.colours;
        for (y, target) in pixels.chunks_exact_mut(width * channels as usize).enumerate() {
            let luma = luma.row(y);
            if channels == 1 {
                target.copy_from_slice(luma);
            } else if frame.components.len() == 1 {
                for (pixel, luma) in target.as_chunks_mut::<3>().0.iter_mut().zip(luma) {
                    *pixel = [*luma; 3];
                }
            } else {
                let blue = blues.of(blue, frame.ratio, y);
                let red = reds.of(red, frame.ratio, y);
                colour::pixels(luma, blue, red, target);
            }
        }
        Picture { width: width as u32, height: height as u32, channels, pixels }
    }
}

impl Frame {
    fn read(&mut self, segment: &[u8]) -> Option<()> {
        let ([8, h0, h1, w0, w1, count], rest) = segment.split_first_chunk()? else { return None };
        let (height, width) = (u16::from_be_bytes([*h0, *h1]), u16::from_be_bytes([*w0, *w1]));
        let fits = 1..=MAX_SIDE;
        if !fits.contains(&u32::from(width)) || !fits.contains(&u32::from(height)) {
            return None;
        }
        (self.width, self.height) = (usize::from(width), usize::from(height));
        let (components, _) = rest.as_chunks::<3>();
        let ratios: Vec<u8> = components.iter().map(|component| component[1]).collect();
        self.ratio = match (&ratios[..], rest.len()) {
            ([_], 3) | ([0x11, 0x11, 0x11], 9) => (1, 1),
            // Narrower ones have no neighbours to interpolate with.
            ([0x21, 0x11, 0x11], 9) if width > 4 => (2, 1),
            ([0x22, 0x11, 0x11], 9) if width > 4 => (2, 2),
            _ => return None,
        };
        self.components = components.iter().map(|each| (each[0], usize::from(each[2]))).collect();
        // Of three, those that JFIF says; there are files with others that mean other colours.
        let named = ratios.len() == 1 || components.iter().map(|each| each[0]).eq(1..=3);
        let small = self.width * self.height <= MOST_PIXELS;
        (usize::from(*count) == ratios.len() && named && small).then_some(())
    }

    /// The tables of each component, by a scan's header.
    fn tables_of(&self, header: &[u8]) -> Option<Vec<(usize, usize)>> {
        let (count, rest) = header.split_first()?;
        let (named, [0, 63, 0]) = rest.split_last_chunk::<3>()? else { return None };
        let fits = usize::from(*count) == self.components.len() && count * 2 == named.len() as u8;
        let named = named.as_chunks::<2>().0.iter().zip(&self.components);
        let tables = named.map(|([id, tables], (own, factors))| {
            let (first, others) = (tables >> 4, 4 + (tables & 15));
            let defined = |bits: u8, bit: usize| bit < 8 && bits >> bit & 1 == 1;
            let known = id == own
                && first < 4
                && defined(self.tables, usize::from(first))
                && defined(self.tables, usize::from(others))
                && defined(self.factors, *factors);
            known.then_some((usize::from(first), usize::from(others)))
        });
        tables.collect::<Option<Vec<_>>>().filter(|_| fits && !self.components.is_empty())
    }
}

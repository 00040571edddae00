//! From planes of samples to pixels: colours that have fewer samples than there are pixels are
//! interpolated, a quarter from the farther sample each way, and luma and two colours become red,
//! green and blue, with every bit as libjpeg has them.

/// Pixels of a row that are computed together.
const CHUNK: usize = 64;

/// Samples of one component: whole blocks, row after row.
#[derive(Default)]
pub(super) struct Plane {
    pub(super) samples: Vec<u8>,
    pub(super) stride: usize,
    /// Of the samples that the picture has.
    pub(super) width: usize,
    pub(super) height: usize,
}

impl Plane {
    /// Makes it so many samples wide and high; they are what they were.
    pub(super) fn fit(&mut self, (width, height): (usize, usize)) {
        self.stride = width;
        self.samples.resize(width * height, 0);
    }

    #[inline(always)]
    pub(super) fn row(&self, y: usize) -> &[u8] {
        &self.samples[y * self.stride..][..self.width]
    }
}

/// Rows of a colour in the size of the picture.
#[derive(Default)]
pub(super) struct Rows {
    sums: Vec<i16>,
    row: Vec<u8>,
}

impl Rows {
    /// Row `y` of a picture that has `across` times as many columns as the plane, and `down` times
    /// as many rows: once or twice. Of twice as many there have to be two samples at least.
    #[inline(always)]
    pub(super) fn of<'a>(
        &'a mut self,
        plane: &'a Plane,
        (across, down): (usize, usize),
        y: usize,
    ) -> &'a [u8] {
        if across == 1 {
            return plane.row(y);
        }
        self.row.resize(plane.width * 2, 0);
        self.sums.resize(plane.width, 0);
        let near = plane.row(y / down);
        if down == 1 {
            for (sum, near) in self.sums.iter_mut().zip(near) {
                *sum = i16::from(*near);
            }
            widen::<2>(&self.sums, &mut self.row, (1, 2));
        } else {
            let far = if y.is_multiple_of(2) { (y / 2).saturating_sub(1) } else { y / 2 + 1 };
            let far = plane.row(far.min(plane.height - 1));
            for ((sum, near), far) in self.sums.iter_mut().zip(near).zip(far) {
                *sum = i16::from(*near) * 3 + i16::from(*far);
            }
            widen::<4>(&self.sums, &mut self.row, (8, 7));
        }
        &self.row
    }
}

/// Two for one; `SHIFT` makes samples of sums, with the roundings of the left and the right one.
#[inline(always)]
fn widen<const SHIFT: usize>(sums: &[i16], row: &mut [u8], (left, right): (i16, i16)) {
    let Some(last) = sums.len().checked_sub(1) else { return };
    for (sums, pixels) in sums.windows(3).zip(row[2..].as_chunks_mut::<2>().0) {
        pixels[0] = ((sums[1] * 3 + sums[0] + left) >> SHIFT) as u8;
        pixels[1] = ((sums[1] * 3 + sums[2] + right) >> SHIFT) as u8;
    }
    row[0] = ((sums[0] * 4 + left) >> SHIFT) as u8;
    row[1] = ((sums[0] * 3 + sums[1] + right) >> SHIFT) as u8;
    row[last * 2] = ((sums[last] * 3 + sums[last - 1] + left) >> SHIFT) as u8;
    row[last * 2 + 1] = ((sums[last] * 4 + right) >> SHIFT) as u8;
}

/// Red, green and blue of a row. With 16 bits each, of which the upper half of a product is one
/// instruction: whole parts of the factors are added. Each colour by itself at first, as what is
/// written to every third byte is computed byte by byte.
#[inline(always)]
pub(super) fn pixels(luma: &[u8], blue: &[u8], red: &[u8], target: &mut [u8]) {
    let upper = |a: i16, b: i16| ((i32::from(a) * i32::from(b)) >> 16) as i16;
    let byte = |value: i16| value.clamp(0, 255) as u8;
    let colours = luma.chunks(CHUNK).zip(blue.chunks(CHUNK)).zip(red.chunks(CHUNK));
    for (((luma, blue), red), target) in colours.zip(target.chunks_mut(CHUNK * 3)) {
        let [mut reds, mut greens, mut blues] = [[0; CHUNK]; 3];
        let values = luma.iter().zip(blue).zip(red);
        let bytes = reds.iter_mut().zip(&mut greens).zip(&mut blues);
        for (((luma, blue), red), ((red_byte, green_byte), blue_byte)) in values.zip(bytes) {
            let luma = i16::from(*luma);
            let (blue, red) = (i16::from(*blue) - 128, i16::from(*red) - 128);
            let green = i32::from(blue) * -22_554 + i32::from(red) * 18_734 + (1 << 15);
            *red_byte = byte(luma + red + ((upper(red * 2, 26_345) + 1) >> 1));
            *green_byte = byte(luma - red + (green >> 16) as i16);
            *blue_byte = byte(luma + blue * 2 + ((upper(blue * 2, -14_942) + 1) >> 1));
        }
        let bytes = reds.iter().zip(&greens).zip(&blues);
        for (pixel, ((red, green), blue)) in target.as_chunks_mut::<3>().0.iter_mut().zip(bytes) {
            *pixel = [*red, *green, *blue];
        }
    }
}

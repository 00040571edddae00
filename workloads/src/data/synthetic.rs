//! A drawn digit set in MNIST's shape, for machines that can get no MNIST: strokes of each digit,
//! slanted, stretched, shifted and thickened by a seed. Easier than handwriting; figures measured
//! on it say nothing about MNIST.

use super::random::Random;
use super::{ImageSet, Shape};

const SIZE: usize = 28;

/// Strokes of the digits as polylines in a unit square, y downwards.
const STROKES: [&[&[(f64, f64)]]; 10] = [
    &[&[(0.5, 0.0), (0.15, 0.2), (0.1, 0.7), (0.5, 1.0), (0.85, 0.75), (0.85, 0.2), (0.5, 0.0)]],
    &[&[(0.25, 0.25), (0.55, 0.0), (0.5, 1.0)]],
    &[&[(0.1, 0.25), (0.45, 0.0), (0.85, 0.25), (0.1, 1.0), (0.9, 1.0)]],
    &[&[(0.1, 0.1), (0.7, 0.05), (0.4, 0.45), (0.85, 0.7), (0.5, 1.0), (0.1, 0.9)]],
    &[&[(0.3, 0.0), (0.1, 0.55), (0.9, 0.55)], &[(0.7, 0.2), (0.65, 1.0)]],
    &[&[(0.85, 0.0), (0.2, 0.0), (0.15, 0.45), (0.8, 0.55), (0.7, 0.95), (0.1, 0.95)]],
    &[&[(0.7, 0.0), (0.2, 0.5), (0.2, 0.9), (0.6, 1.0), (0.8, 0.7), (0.25, 0.6)]],
    &[&[(0.1, 0.05), (0.9, 0.0), (0.4, 1.0)]],
    &[
        &[(0.5, 0.45), (0.2, 0.2), (0.5, 0.0), (0.8, 0.2), (0.5, 0.45)],
        &[(0.5, 0.45), (0.15, 0.75), (0.5, 1.0), (0.85, 0.75), (0.5, 0.45)],
    ],
    &[&[(0.8, 0.25), (0.4, 0.45), (0.2, 0.2), (0.5, 0.0), (0.8, 0.25), (0.65, 1.0)]],
];

/// `len` images; the same for the same seed.
pub fn draw(len: usize, seed: u64) -> ImageSet {
    let mut set = ImageSet {
        shape: Shape { rows: SIZE as u32, columns: SIZE as u32, channels: 1 },
        pixels: Vec::with_capacity(len * SIZE * SIZE),
        labels: Vec::with_capacity(len),
    };
    for index in 0..len {
        let mut random = Random::new(&[seed, index as u64]);
        let digit = random.below(10) as u8;
        set.labels.push(digit.into());
        set.pixels.extend_from_slice(&digit_image(digit, &mut random));
    }
    set
}

fn digit_image(digit: u8, random: &mut Random) -> [u8; SIZE * SIZE] {
    let (width, height) = (random.between(10.0, 17.0), random.between(15.0, 20.0));
    let slant = random.between(-0.35, 0.35);
    let (left, top) = (
        (SIZE as f64 - width) / 2.0 + random.between(-2.5, 2.5),
        (SIZE as f64 - height) / 2.0 + random.between(-2.5, 2.5),
    );
    let pen = random.between(0.9, 1.9);
    let mut segments = Vec::new();
    for stroke in STROKES[usize::from(digit)] {
        let points: Vec<(f64, f64)> = stroke
            .iter()
            .map(|(x, y)| {
                let x = x + random.between(-0.07, 0.07) + slant * (0.5 - y);
                let y = y + random.between(-0.05, 0.05);
                (left + x * width, top + y * height)
            })
            .collect();
        segments.extend(points.windows(2).map(|pair| (pair[0], pair[1])));
    }
    let mut image = [0; SIZE * SIZE];
    for (index, pixel) in image.iter_mut().enumerate() {
        let at = ((index % SIZE) as f64 + 0.5, (index / SIZE) as f64 + 0.5);
        let nearest = segments
            .iter()
            .map(|(from, to)| distance(at, *from, *to))
            .fold(f64::INFINITY, f64::min);
        let ink = (pen + 0.5 - nearest).clamp(0.0, 1.0) * 255.0;
        let noise = random.between(-12.0, 12.0);
        *pixel = if ink > 0.0 { (ink + noise).clamp(0.0, 255.0) as u8 } else { 0 };
    }
    image
}

/// From a point to a segment.
fn distance(at: (f64, f64), from: (f64, f64), to: (f64, f64)) -> f64 {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let length = dx * dx + dy * dy;
    let along = ((at.0 - from.0) * dx + (at.1 - from.1) * dy) / length.max(1e-9);
    let along = along.clamp(0.0, 1.0);
    (at.0 - from.0 - along * dx).hypot(at.1 - from.1 - along * dy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Images;

    #[test]
    fn repeats_by_seed_and_shows_all_digits() {
        let set = draw(300, 1);
        assert_eq!(set, draw(300, 1));
        assert_ne!(set.pixels, draw(300, 2).pixels);
        assert!((0..10).all(|digit| set.labels.contains(&digit)));
        // A digit is neither a blank nor a blot.
        for index in 0..set.len() {
            let ink = set.image(index).iter().filter(|pixel| **pixel > 127).count();
            assert!((20..350).contains(&ink), "{index}: {ink}");
        }
    }

    #[test]
    fn digits_can_be_told_apart() {
        // Nearest mean image: far from what a model does, far above chance.
        let (train, test) = (draw(2_000, 1), draw(500, 2));
        let mut means = vec![[0.0_f64; SIZE * SIZE]; 10];
        for index in 0..train.len() {
            let digit = train.labels[index] as usize;
            let count = train.labels.iter().filter(|label| **label as usize == digit).count();
            for (mean, pixel) in means[digit].iter_mut().zip(train.image(index)) {
                *mean += f64::from(*pixel) / count as f64;
            }
        }
        let far = |mean: &[f64], image: &[u8]| -> f64 {
            mean.iter().zip(image).map(|(mean, pixel)| (mean - f64::from(*pixel)).powi(2)).sum()
        };
        let right = (0..test.len())
            .filter(|index| {
                let image = test.image(*index);
                let nearest = (0..10)
                    .min_by(|a, b| far(&means[*a], image).total_cmp(&far(&means[*b], image)));
                nearest == Some(test.labels[*index] as usize)
            })
            .count();
        assert!(right > 300, "{right} of 500");
    }
}

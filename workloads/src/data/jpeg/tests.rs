//! Files that Pillow wrote, and what libjpeg-turbo makes of them, by Pillow, as PNG.

use super::*;
use crate::data::picture::{Decoder, decode};
use crate::data::{Shape, picture};

macro_rules! samples {
    ($($name:literal),*) => {
        [$((
            include_bytes!(concat!("samples/", $name, ".jpg")).as_slice(),
            include_bytes!(concat!("samples/", $name, ".png")).as_slice(),
        )),*]
    };
}

/// Colours in full, in half the width, in half of both, with restarts; no colours.
const SAMPLES: [(&[u8], &[u8]); 5] = samples!("full", "half", "quarter", "restarts", "grey");
const PROGRESSIVE: &[u8] = include_bytes!("samples/progressive.jpg");

#[test]
fn every_byte_is_that_of_libjpeg() {
    let mut baseline = Baseline::new();
    // Twice, the second time with what the others have left.
    for (jpeg, png) in SAMPLES.iter().chain(&SAMPLES) {
        assert_eq!(baseline.decode(jpeg, 3).unwrap(), decode(png, 3).unwrap());
    }
    let (jpeg, png) = SAMPLES[4];
    assert_eq!(baseline.decode(jpeg, 1).unwrap(), decode(png, 1).unwrap());
}

#[test]
fn processors_without_wide_registers_decode_the_same() {
    let mut baseline = Baseline::new();
    for (jpeg, png) in SAMPLES {
        assert_eq!(baseline.decode_here(jpeg, 3).unwrap(), decode(png, 3).unwrap());
    }
}

#[test]
fn the_general_decoder_agrees_but_for_rounding() {
    for (jpeg, _) in SAMPLES {
        for channels in [1, 3] {
            let own = Baseline::new().decode(jpeg, channels).unwrap();
            let general = picture::decode_jpeg(jpeg, channels).unwrap();
            assert_eq!((own.width, own.height), (general.width, general.height));
            let pairs = own.pixels.iter().zip(&general.pixels);
            let differences = pairs.map(|(own, general)| u64::from(own.abs_diff(*general)));
            let mean = differences.sum::<u64>() as f64 / own.pixels.len() as f64;
            assert!(mean < 1.5, "{channels}: {mean}");
        }
    }
}

#[test]
fn other_files_are_left_to_the_general_decoder() {
    assert!(Baseline::new().decode(PROGRESSIVE, 3).is_none());
    let shape = Shape { rows: 29, columns: 37, channels: 3 };
    let mut target = vec![0; shape.len()];
    Decoder::new(shape).decode_into(PROGRESSIVE, &mut target).unwrap();
    assert_eq!(target, picture::decode_jpeg(PROGRESSIVE, 3).unwrap().pixels);
}

#[test]
fn files_that_end_early_are_left_to_it_too() {
    let mut baseline = Baseline::new();
    for (jpeg, _) in SAMPLES {
        for len in 0..jpeg.len() - 1 {
            assert!(baseline.decode(&jpeg[..len], 3).is_none(), "{len} of {}", jpeg.len());
        }
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        sample in 0..SAMPLES.len(),
        flips in proptest::collection::vec((0..4_000_usize, 0..=255_u8), 1..8),
    ) {
        let mut bytes = SAMPLES[sample].0.to_vec();
        for (at, value) in flips {
            let len = bytes.len();
            bytes[at % len] = value;
        }
        if let Some(picture) = Baseline::new().decode(&bytes, 3) {
            let pixels = u64::from(picture.width) * u64::from(picture.height) * 3;
            assert_eq!(picture.pixels.len() as u64, pixels);
        }
    }
}

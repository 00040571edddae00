//! Who trains on what: an epoch is one order of the whole data set, drawn from (seed, epoch), and
//! a replica's work is a run of positions in it. Runs that do not overlap never show an image
//! twice, whatever number of replicas there are and however often that number changes within the
//! epoch.

use std::ops::Range;

use super::random::Random;

/// The order of `len` images in an epoch.
pub fn order(len: usize, seed: u64, epoch: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..len as u32).collect();
    Random::new(&[seed, epoch]).shuffle(&mut order);
    order
}

/// `whole` in `parts` runs whose lengths differ by at most one, in order. Trailing runs are empty
/// where there are more parts than positions.
pub fn split(whole: Range<u64>, parts: usize) -> Vec<Range<u64>> {
    let (len, parts) = (whole.end.saturating_sub(whole.start), parts as u64);
    (0..parts)
        .map(|part| {
            // u128: the product of a large set and many parts.
            let cut = |part: u64| {
                whole.start + (u128::from(len) * u128::from(part) / u128::from(parts)) as u64
            };
            cut(part)..cut(part + 1)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_cover_the_whole_without_overlap(start in 0..1_000_u64, len in 0..100_000_u64,
                                                 parts in 1..64_usize) {
            let split = split(start..start + len, parts);
            prop_assert_eq!(split.len(), parts);
            let mut position = start;
            for part in &split {
                prop_assert_eq!(part.start, position);
                position = part.end;
            }
            prop_assert_eq!(position, start + len);
            let sizes = split.iter().map(|part| part.end - part.start);
            prop_assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1);
        }

        #[test]
        fn an_epoch_shows_every_image_once(len in 0..2_000_usize, seed: u64, epoch: u64) {
            let mut order = order(len, seed, epoch);
            order.sort_unstable();
            prop_assert!(order.iter().enumerate().all(|(index, image)| index == *image as usize));
        }
    }

    #[test]
    fn epochs_differ_and_repeat() {
        assert_ne!(order(1_000, 1, 0), order(1_000, 1, 1));
        assert_ne!(order(1_000, 1, 0), order(1_000, 2, 0));
        assert_eq!(order(1_000, 1, 5), order(1_000, 1, 5));
    }
}

//! Who trains on what: an epoch is one order of the whole data set, drawn from (seed, epoch), and
//! a replica's work is a run of positions in it. Runs that do not overlap never show an image
//! twice, whatever number of replicas there are and however often that number changes within the
//! epoch.

use std::ops::Range;

use rkyv::{Archive, Deserialize, Serialize};

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

/// How a data set is divided among the members of a federation, once and for all.
#[derive(Debug, Clone, Copy, PartialEq, Archive, Serialize, Deserialize)]
#[allow(missing_docs, reason = "rkyv copies fields without their docs")]
pub struct Partition {
    /// Members of the federation.
    pub parts: u32,
    /// `None`: every member has all classes alike. Else how skewed the classes are: the smaller,
    /// the more (the concentration of Hsu, Qi and Brown 2019).
    pub skew: Option<f64>,
}

/// Which images each member has: indices, ascending. Members that would have none get one each
/// from those that have most, where there are enough images.
pub fn partition(labels: &[u32], partition: Partition, seed: u64) -> Vec<Vec<u32>> {
    const PURPOSE: u64 = 0x9a27;
    let mut random = Random::new(&[seed, PURPOSE]);
    let parts = partition.parts.max(1) as usize;
    let mut members: Vec<Vec<u32>> = vec![Vec::new(); parts];
    match partition.skew {
        None => {
            let mut all: Vec<u32> = (0..labels.len() as u32).collect();
            random.shuffle(&mut all);
            for (member, run) in split(0..all.len() as u64, parts).into_iter().enumerate() {
                members[member].extend_from_slice(&all[run.start as usize..run.end as usize]);
            }
        }
        Some(concentration) => {
            let mut classes: std::collections::BTreeMap<u32, Vec<u32>> = Default::default();
            for (index, label) in labels.iter().enumerate() {
                classes.entry(*label).or_default().push(index as u32);
            }
            for mut images in classes.into_values() {
                random.shuffle(&mut images);
                let shares: Vec<f64> =
                    (0..parts).map(|_| random.gamma(concentration).max(1e-12)).collect();
                let total: f64 = shares.iter().sum();
                let (mut sum, mut from) = (0.0, 0);
                for (member, share) in members.iter_mut().zip(&shares) {
                    sum += share;
                    let to = ((images.len() as f64 * sum / total).round() as usize).max(from);
                    let to = to.min(images.len());
                    member.extend_from_slice(&images[from..to]);
                    from = to;
                }
                // Rounding may leave the last one over.
                members[parts - 1].extend_from_slice(&images[from..]);
            }
        }
    }
    while let Some(empty) = members.iter().position(Vec::is_empty) {
        let Some(most) = members.iter_mut().max_by_key(|member| member.len()) else { break };
        if most.len() < 2 {
            break;
        }
        let image = most.pop();
        members[empty].extend(image);
    }
    members.iter_mut().for_each(|member| member.sort_unstable());
    members
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

    proptest! {
        #[test]
        fn a_partition_gives_every_image_to_one_member(
            labels in prop::collection::vec(0..5_u32, 0..300), parts in 1..9_u32,
            skew in prop::option::of(0.01..100.0_f64), seed: u64)
        {
            let members = partition(&labels, Partition { parts, skew }, seed);
            prop_assert_eq!(members.len(), parts as usize);
            let mut all = members.concat();
            all.sort_unstable();
            prop_assert!(all.iter().enumerate().all(|(index, image)| index == *image as usize));
            prop_assert_eq!(all.len(), labels.len());
            let empty = members.iter().filter(|member| member.is_empty()).count();
            prop_assert_eq!(empty, (parts as usize).saturating_sub(labels.len()));
        }
    }

    #[test]
    fn a_small_concentration_separates_the_classes() {
        let labels: Vec<u32> = (0..1_000).map(|index| index % 10).collect();
        let furthest = |skew| {
            let members = partition(&labels, Partition { parts: 4, skew }, 1);
            let share = |member: &Vec<u32>, label| {
                let of = member.iter().filter(|image| labels[**image as usize] == label).count();
                of as f64 / member.len() as f64
            };
            let shares =
                members.iter().flat_map(|member| (0..10).map(|label| share(member, label)));
            shares.fold(0.0_f64, f64::max)
        };
        let (even, mild, strong) = (furthest(None), furthest(Some(100.0)), furthest(Some(0.1)));
        assert!(even < 0.2 && mild < 0.25 && strong > 0.4, "{even} {mild} {strong}");
    }

    #[test]
    fn epochs_differ_and_repeat() {
        assert_ne!(order(1_000, 1, 0), order(1_000, 1, 1));
        assert_ne!(order(1_000, 1, 0), order(1_000, 2, 0));
        assert_eq!(order(1_000, 1, 5), order(1_000, 1, 5));
    }
}

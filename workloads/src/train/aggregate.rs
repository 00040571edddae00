//! Pure aggregation: what the strategies do with the replicas' results, without replicas.

use std::ops::Range;

use rkyv::{Archive, Deserialize, Serialize};

/// A replica's share of a mean.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// Its values.
    pub values: &'a [f32],
    /// How much they count, for instance in images; not negative.
    pub weight: f64,
}

/// Why there is no mean.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AggregateError {
    /// No part counts.
    #[error("nothing to average: no replica returned a result that counts")]
    Empty,
    /// Parts of different models.
    #[error("part {part} has {found} values, the first one has {expected}")]
    Length {
        /// Which part, from 0.
        part: usize,
        /// Its length.
        found: usize,
        /// The length of the first.
        expected: usize,
    },
    /// A replica diverged.
    #[error(
        "part {part} has a value that is not finite: training diverged; lower train.learning_rate"
    )]
    NotFinite {
        /// Which part, from 0.
        part: usize,
    },
}

/// How results become one.
#[derive(Debug, Clone, Copy, PartialEq, Archive, Serialize, Deserialize)]
#[allow(missing_docs, reason = "rkyv copies variants without their docs")]
pub enum Combine {
    /// The weighted mean (`FedAvg`, `McMahan` et al. 2017; with equal weights, plain parameter
    /// averaging).
    Mean,
    /// By element, the median: withstands nonsense from less than half of the parts (Yin et al.
    /// 2018). Weights only say who counts at all.
    Median,
    /// By element, the mean without this share of the parts at either end (Yin et al. 2018).
    TrimmedMean(f64),
}

/// What parts become, and which of them were left out for values that are not finite.
#[derive(Debug, Clone, PartialEq)]
pub struct Combined {
    /// As long as each part.
    pub values: Vec<f32>,
    /// From 0; always empty with the mean, which refuses them instead.
    pub left_out: Vec<usize>,
}

/// Combines parts, in their order.
///
/// # Errors
/// [`AggregateError`].
pub fn combine(parts: &[Part<'_>], how: Combine) -> Result<Combined, AggregateError> {
    if how == Combine::Mean {
        let values = weighted_average(parts)?;
        return Ok(Combined { values, left_out: Vec::new() });
    }
    let expected = parts.first().ok_or(AggregateError::Empty)?.values.len();
    let (mut counting, mut left_out) = (Vec::new(), Vec::new());
    for (part, each) in parts.iter().enumerate() {
        let found = each.values.len();
        if found != expected {
            return Err(AggregateError::Length { part, found, expected });
        }
        match each.values.iter().all(|value| value.is_finite()) {
            true if each.weight > 0.0 => counting.push(each.values),
            true => {}
            false => left_out.push(part),
        }
    }
    if counting.is_empty() {
        return Err(AggregateError::Empty);
    }
    let cut = match how {
        Combine::TrimmedMean(share) => (counting.len() as f64 * share) as usize,
        // One or two are left in the middle.
        Combine::Mean | Combine::Median => (counting.len() - 1) / 2,
    };
    let mut column = vec![0.0; counting.len()];
    let values = (0..expected)
        .map(|index| {
            for (cell, part) in column.iter_mut().zip(&counting) {
                *cell = part[index];
            }
            column.sort_unstable_by(f32::total_cmp);
            let middle = &column[cut..counting.len() - cut];
            let sum: f64 = middle.iter().map(|value| f64::from(*value)).sum();
            (sum / middle.len() as f64) as f32
        })
        .collect();
    Ok(Combined { values, left_out })
}

/// The weighted mean, element by element, summed in double precision in the order of the parts.
fn weighted_average(parts: &[Part<'_>]) -> Result<Vec<f32>, AggregateError> {
    let total: f64 = parts.iter().map(|part| part.weight).sum();
    let expected = parts.first().ok_or(AggregateError::Empty)?.values.len();
    if total <= 0.0 {
        return Err(AggregateError::Empty);
    }
    for (part, each) in parts.iter().enumerate() {
        let found = each.values.len();
        if found != expected {
            return Err(AggregateError::Length { part, found, expected });
        }
        if !each.values.iter().all(|value| value.is_finite()) {
            return Err(AggregateError::NotFinite { part });
        }
    }
    let mut sums = vec![0.0_f64; expected];
    for part in parts {
        let share = part.weight / total;
        for (sum, value) in sums.iter_mut().zip(part.values) {
            *sum += share * f64::from(*value);
        }
    }
    Ok(sums.into_iter().map(|sum| sum as f32).collect())
}

/// The mean of a block of `gradients` into `mean`, summed in their order.
pub fn mean_into(mean: &mut [f32], gradients: &[&[f32]], block: Range<usize>) {
    let Some((first, rest)) = gradients.split_first() else {
        return mean.fill(0.0);
    };
    mean.copy_from_slice(&first[block.clone()]);
    for gradient in rest {
        for (sum, value) in mean.iter_mut().zip(&gradient[block.clone()]) {
            *sum += value;
        }
    }
    if !rest.is_empty() {
        let share = 1.0 / gradients.len() as f32;
        mean.iter_mut().for_each(|sum| *sum *= share);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts() -> impl Strategy<Value = Vec<(Vec<f32>, f64)>> {
        (1..40_usize).prop_flat_map(|len| {
            let values = prop::collection::vec(-1e3_f32..1e3, len);
            prop::collection::vec((values, 0.1..100.0_f64), 1..6)
        })
    }

    fn borrow(parts: &[(Vec<f32>, f64)]) -> Vec<Part<'_>> {
        parts.iter().map(|(values, weight)| Part { values, weight: *weight }).collect()
    }

    proptest! {
        #[test]
        fn a_mean_lies_between_its_parts(parts in parts()) {
            let mean = weighted_average(&borrow(&parts)).unwrap();
            for (index, mean) in mean.iter().enumerate() {
                let column = parts.iter().map(|(values, _)| values[index]);
                let low = column.clone().fold(f32::INFINITY, f32::min);
                let high = column.fold(f32::NEG_INFINITY, f32::max);
                prop_assert!((low - 1e-3..=high + 1e-3).contains(mean));
            }
        }

        #[test]
        fn equal_parts_are_their_own_mean(values in prop::collection::vec(-1e3_f32..1e3, 1..40),
                                          count in 1..6_usize) {
            let parts = vec![(values.clone(), 1.0); count];
            let mean = weighted_average(&borrow(&parts)).unwrap();
            for (mean, value) in mean.iter().zip(&values) {
                prop_assert!((mean - value).abs() <= value.abs() * 1e-6);
            }
        }

        #[test]
        fn weights_count_by_ratio_and_zero_not_at_all(parts in parts(), factor in 0.1..10.0_f64) {
            let mean = weighted_average(&borrow(&parts)).unwrap();
            let mut scaled = parts.clone();
            scaled.iter_mut().for_each(|(_, weight)| *weight *= factor);
            scaled.push((vec![9e9; mean.len()], 0.0));
            let again = weighted_average(&borrow(&scaled)).unwrap();
            for (a, b) in mean.iter().zip(&again) {
                prop_assert!((a - b).abs() <= 1e-4 + a.abs() * 1e-5);
            }
        }

        #[test]
        fn gradient_mean_is_the_mean_in_blocks_too(parts in parts(), cut in 0.0..1.0_f64) {
            let slices: Vec<&[f32]> = parts.iter().map(|(values, _)| &values[..]).collect();
            let len = slices[0].len();
            let cut = (len as f64 * cut) as usize;
            let mut whole = vec![0.0; len];
            mean_into(&mut whole, &slices, 0..len);
            let mut halves = vec![0.0; len];
            mean_into(&mut halves[..cut], &slices, 0..cut);
            mean_into(&mut halves[cut..], &slices, cut..len);
            prop_assert_eq!(&whole, &halves);
            let equal: Vec<(Vec<f32>, f64)> =
                parts.iter().map(|(values, _)| (values.clone(), 1.0)).collect();
            for (a, b) in whole.iter().zip(weighted_average(&borrow(&equal)).unwrap()) {
                prop_assert!((a - b).abs() <= 1e-3);
            }
        }
    }

    fn robust() -> impl Strategy<Value = Combine> {
        prop_oneof![Just(Combine::Median), (0.0..0.5_f64).prop_map(Combine::TrimmedMean)]
    }

    proptest! {
        #[test]
        fn robust_ones_lie_between_the_parts_whatever_their_order(parts in parts(),
                                                                 how in robust()) {
            let found = combine(&borrow(&parts), how).unwrap().values;
            for (index, value) in found.iter().enumerate() {
                let column = parts.iter().map(|(values, _)| values[index]);
                let low = column.clone().fold(f32::INFINITY, f32::min);
                let high = column.fold(f32::NEG_INFINITY, f32::max);
                prop_assert!((low..=high).contains(value));
            }
            let mut turned = parts.clone();
            turned.reverse();
            prop_assert_eq!(found, combine(&borrow(&turned), how).unwrap().values);
        }

        #[test]
        fn nonsense_from_a_minority_does_not_get_through(
            honest in prop::collection::vec(-1.0..1.0_f32, 3..9),
            nonsense in prop::collection::vec(prop_oneof![Just(f32::NAN), Just(1e30), Just(-1e30)],
                                              0..3))
        {
            prop_assume!(nonsense.len() * 5 < (honest.len() + nonsense.len()) * 2);
            let mut parts: Vec<(Vec<f32>, f64)> =
                honest.iter().map(|value| (vec![*value], 1.0)).collect();
            parts.splice(1..1, nonsense.iter().map(|value| (vec![*value], 1.0)));
            for how in [Combine::Median, Combine::TrimmedMean(0.4)] {
                let found = combine(&borrow(&parts), how).unwrap();
                prop_assert!((-1.0..=1.0).contains(&found.values[0]), "{:?} {:?}", how, found);
                let wrong = nonsense.iter().filter(|value| value.is_nan()).count();
                prop_assert_eq!(found.left_out.len(), wrong);
            }
        }
    }

    #[test]
    fn medians_and_trimmed_means_by_hand() {
        let parts = [1.0, 2.0, 4.0, 100.0].map(|value| (vec![value], 1.0));
        let found = |how| combine(&borrow(&parts), how).unwrap().values[0];
        assert_eq!((found(Combine::Median), found(Combine::TrimmedMean(0.25))), (3.0, 3.0));
        assert_eq!(found(Combine::TrimmedMean(0.0)), 26.75);
        assert_eq!(found(Combine::Mean), 26.75);
    }

    #[test]
    fn refuses_what_has_no_mean() {
        assert_eq!(weighted_average(&[]), Err(AggregateError::Empty));
        let part = |values, weight| Part { values, weight };
        assert_eq!(weighted_average(&[part(&[1.0], 0.0)]), Err(AggregateError::Empty));
        let uneven = [part(&[1.0], 1.0), part(&[1.0, 2.0], 1.0)];
        let error = AggregateError::Length { part: 1, found: 2, expected: 1 };
        assert_eq!(weighted_average(&uneven), Err(error));
        let diverged = [part(&[1.0], 1.0), part(&[f32::NAN], 1.0)];
        assert_eq!(weighted_average(&diverged), Err(AggregateError::NotFinite { part: 1 }));
    }
}

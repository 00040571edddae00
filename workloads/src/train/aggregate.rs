//! Pure aggregation: what the strategies do with the replicas' results, without replicas.

use std::ops::Range;

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

/// The weighted mean, element by element (`FedAvg`, `McMahan` et al. 2017; with equal weights,
/// plain parameter averaging). Summed in double precision, in the order of the parts.
pub fn weighted_average(parts: &[Part<'_>]) -> Result<Vec<f32>, AggregateError> {
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

//! Which GPUs of a worker are whose.
//!
//! The ledger counts amounts; a process has to be told numbers, and before it starts. Whole GPUs
//! are given to one process alone. A fraction is a share of one GPU: it goes where it fills one up,
//! so that whole ones stay free. Where shares of several do not fit any single GPU together, the
//! emptiest one has more than it should: a share is a promise of the scheduler, no limit.

use super::Amount;

/// GPUs that a process holds: the number of each, and how much of it.
pub(crate) type Held = Vec<(u32, Amount)>;

/// All GPUs of a worker, by their number.
#[derive(Debug)]
pub(crate) struct Gpus {
    /// What of each nobody holds; below zero where shares did not fit.
    free: Vec<Amount>,
}

const WHOLE: Amount = Amount::whole(1);
/// A worker that says to have more of them is not believed.
const MOST: i64 = 4_096;

impl Gpus {
    /// As many as make `total`.
    pub(crate) fn new(total: Amount) -> Self {
        let count = (total.0.max(0) + Amount::UNITS - 1) / Amount::UNITS;
        Self { free: vec![WHOLE; count.min(MOST) as usize] }
    }

    /// Takes GPUs that come to `amount`, those with the smallest numbers first.
    pub(crate) fn take(&mut self, amount: Amount) -> Held {
        let whole = (amount.0 / Amount::UNITS).min(MOST) as usize;
        let share = Amount(amount.0 % Amount::UNITS);
        let mut emptiest: Vec<usize> = (0..self.free.len()).collect();
        emptiest.sort_by_key(|gpu| std::cmp::Reverse(self.free[*gpu]));
        let mut held: Held = emptiest.iter().take(whole).map(|gpu| (*gpu as u32, WHOLE)).collect();
        if !share.is_zero() {
            let rest = emptiest.get(whole..).unwrap_or_default();
            let fullest = rest.iter().filter(|gpu| self.free[**gpu] >= share);
            let fullest = fullest.min_by_key(|gpu| self.free[**gpu]).or(rest.first());
            held.extend(fullest.map(|gpu| (*gpu as u32, share)));
        }
        held.sort_unstable();
        for (gpu, amount) in &held {
            self.free[*gpu as usize] -= *amount;
        }
        held
    }

    /// Takes back what a process held.
    pub(crate) fn give(&mut self, held: Held) {
        for (gpu, amount) in held {
            self.free[gpu as usize] += amount;
        }
    }

    /// GP-1: what is free and what `held` names make whole GPUs.
    pub(crate) fn check<'a>(&self, held: impl Iterator<Item = &'a Held>) {
        let mut sum = self.free.clone();
        for (gpu, amount) in held.flatten() {
            sum[*gpu as usize] += *amount;
        }
        assert!(sum.iter().all(|gpu| *gpu == WHOLE), "GP-1: free and held make whole GPUs");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(held: &Held) -> Vec<u32> {
        held.iter().map(|(gpu, _)| *gpu).collect()
    }

    #[test]
    fn whole_ones_are_held_alone_and_come_back() {
        let mut gpus = Gpus::new(Amount::whole(3));
        let first = gpus.take(Amount::whole(1));
        let second = gpus.take(Amount::whole(2));
        assert_eq!((numbers(&first), numbers(&second)), (vec![0], vec![1, 2]));
        gpus.check([&first, &second].into_iter());
        gpus.give(second);
        gpus.give(first);
        gpus.check(std::iter::empty());
        assert_eq!(numbers(&gpus.take(Amount::whole(1))), [0]);
        assert!(gpus.take(Amount::ZERO).is_empty());
    }

    #[test]
    fn shares_fill_one_up_before_they_open_another() {
        let mut gpus = Gpus::new(Amount::from_f64(2.5));
        let half = Amount::from_f64(0.5);
        assert_eq!(numbers(&gpus.take(half)), [0]);
        assert_eq!(numbers(&gpus.take(Amount::whole(1))), [1]);
        assert_eq!(numbers(&gpus.take(half)), [0]);
        let large = Amount::from_f64(0.7);
        assert_eq!(numbers(&gpus.take(large)), [2]);
        // There is none left that has so much: the emptiest of all.
        assert_eq!(gpus.take(Amount::from_f64(0.4)), [(2, Amount::from_f64(0.4))]);
    }

    #[test]
    fn one_and_a_half_are_two() {
        let mut gpus = Gpus::new(Amount::whole(2));
        let held = gpus.take(Amount::from_f64(1.5));
        assert_eq!(held, [(0, WHOLE), (1, Amount::from_f64(0.5))]);
        assert!(Gpus::new(Amount::ZERO).take(Amount::whole(1)).is_empty());
    }
}

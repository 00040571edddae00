//! An amount of a resource in fixed point, so that sums are exact and a ledger closes at zero.

use core::fmt;
use core::iter::Sum;
use core::ops::{Add, AddAssign, Sub, SubAssign};

use rkyv::{Archive, Deserialize, Serialize};

/// An amount of one resource in units of 1/10,000 (as in Ray): `0.5` CPU is `Amount(5_000)`.
/// Memory is counted in bytes, also times 10,000, which leaves room for 900 TB.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Archive, Serialize, Deserialize,
)]
pub struct Amount(pub i64);

impl Amount {
    /// Units in one whole.
    pub const UNITS: i64 = 10_000;
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// A whole number of something.
    pub const fn whole(n: u64) -> Self {
        let limit = (i64::MAX / Self::UNITS) as u64;
        Self((if n > limit { limit } else { n }) as i64 * Self::UNITS)
    }

    /// The nearest amount to `x`; not a number, and anything below zero, are nothing.
    pub fn from_f64(x: f64) -> Self {
        Self((x.max(0.0) * Self::UNITS as f64).round() as i64)
    }

    /// As a floating-point number, for people and for scores.
    pub fn as_f64(self) -> f64 {
        self.0 as f64 / Self::UNITS as f64
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl Add for Amount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Amount {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Amount {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_f64())
    }
}

impl fmt::Debug for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

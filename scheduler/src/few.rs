//! A list that mostly has one element, or none: no larger than that, since there are millions.

use core::ops::{Deref, DerefMut};

/// Read as a slice. More than one element are kept elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Few<T> {
    /// Without an element.
    #[default]
    None,
    /// With one.
    One(T),
    /// With any number of them.
    #[allow(clippy::box_collection, reason = "a vector is three words, and there are few")]
    Many(Box<Vec<T>>),
}

impl<T> Few<T> {
    pub(crate) fn push(&mut self, element: T) {
        *self = match core::mem::take(self) {
            Self::None => Self::One(element),
            Self::One(first) => Self::Many(Box::new(vec![first, element])),
            Self::Many(mut list) => {
                list.push(element);
                Self::Many(list)
            }
        };
    }

    /// Keeps those that `is_kept` says.
    pub(crate) fn retain(&mut self, mut is_kept: impl FnMut(&T) -> bool) {
        match self {
            Self::None => {}
            Self::One(only) => {
                if !is_kept(only) {
                    *self = Self::None;
                }
            }
            Self::Many(list) => list.retain(is_kept),
        }
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::None => &[],
            Self::One(only) => core::slice::from_ref(only),
            Self::Many(list) => list,
        }
    }
}

impl<T> DerefMut for Few<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Self::None => &mut [],
            Self::One(only) => core::slice::from_mut(only),
            Self::Many(list) => list,
        }
    }
}

impl<T> From<Vec<T>> for Few<T> {
    fn from(mut list: Vec<T>) -> Self {
        match list.len() {
            0 | 1 => list.pop().map_or(Self::None, Self::One),
            _ => Self::Many(Box::new(list)),
        }
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        let mut few = Self::None;
        elements.into_iter().for_each(|element| few.push(element));
        few
    }
}

impl<T> IntoIterator for Few<T> {
    type Item = T;
    type IntoIter = core::iter::Chain<core::option::IntoIter<T>, std::vec::IntoIter<T>>;

    fn into_iter(self) -> Self::IntoIter {
        let (only, list) = match self {
            Self::None => (None, Vec::new()),
            Self::One(only) => (Some(only), Vec::new()),
            Self::Many(list) => (None, *list),
        };
        only.into_iter().chain(list)
    }
}

impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = core::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_list() {
        let mut few = Few::default();
        for n in 0..4 {
            assert_eq!(*few, *(0..n).collect::<Vec<u32>>());
            assert_eq!(few.clone().into_iter().collect::<Vec<_>>(), *few);
            assert_eq!(*few.iter().copied().collect::<Few<_>>(), *few);
            assert_eq!(*Few::from(few.to_vec()), *few);
            few.push(n);
        }
        few.retain(|n| n % 2 == 1);
        few[0] += 10;
        assert_eq!(*few, [11, 3]);
        let mut one = Few::One(1);
        one.retain(|_| true);
        assert_eq!(*one, [1]);
        one.retain(|_| false);
        assert!(one.is_empty());
    }
}

//! Many objects as one argument.

use super::argument::{Argument, Arguments, Given, IntoArgument, Parameter};
use super::context::Context;
use super::error::Error;
use super::object::ObjectRef;
use super::value::Value;

/// The values of many objects as one parameter: the task starts when all of them are there. At
/// most 15,000, over all parameters of a task.
///
/// ```
/// use rdist::prelude::*;
///
/// #[rdist::task]
/// fn sum(parts: All<u64>) -> u64 {
///     parts.iter().sum()
/// }
///
/// # #[rdist::task]
/// # fn square(x: u64) -> u64 { x * x }
/// # fn f(cx: &Context) -> Result<()> {
/// let squares: Vec<ObjectRef<u64>> = (0..10_000).map(|x| square.submit(cx, x)).collect();
/// let total = sum.submit(cx, &squares).get()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct All<T>(pub Vec<T>);

impl<T> std::ops::Deref for All<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.0
    }
}

impl<T> IntoIterator for All<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<T: Value> IntoArgument<All<T>> for &[ObjectRef<T>] {
    fn into_argument(self, _: &Context) -> Argument {
        Argument::all(self.iter().map(|object| object.held().clone()).collect())
    }
}

impl<T: Value> IntoArgument<All<T>> for &Vec<ObjectRef<T>> {
    fn into_argument(self, cx: &Context) -> Argument {
        self.as_slice().into_argument(cx)
    }
}

impl<T: Value> IntoArgument<All<T>> for Vec<ObjectRef<T>> {
    fn into_argument(self, _: &Context) -> Argument {
        Argument::all(self.into_iter().map(ObjectRef::into_held).collect())
    }
}

impl<T: Value> Parameter for All<T> {
    type Value = Self;

    fn from_argument(
        arguments: &mut Arguments<'_>,
        given: Given,
        name: &'static str,
    ) -> Result<Self, Error> {
        arguments.all(given, name).map(Self)
    }
}

//! Tasks that make several objects: `#[rdist::task(returns = 3)]` and `(returns = each)`.

use super::argument::Argument;
use super::context::Context;
use super::error::{Error, Failure};
use super::object::ObjectRef;
use super::options::TaskOptions;
use super::value::Value;
use crate::executor::objects::Held;
use crate::executor::process::Encoded;
use crate::wire::executor;

/// Inline values of one task that ride in its one message; what comes after goes to the arena.
const MAX_INLINE_TOTAL_BYTES: u64 = 1 << 20;

/// A tuple, each part of which becomes an object.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no tuple of 2 to 12 values",
    note = "a task with `returns = 3` returns a tuple of three; with `returns = each`, a Vec"
)]
pub trait Several {
    /// The same tuple of references.
    type References;
    /// Parts.
    const COUNT: u32;

    /// All parts, archived.
    #[doc(hidden)]
    fn encode_parts(&self, parts: &mut Parts<'_>) -> Result<(), Error>;

    /// Typed references.
    #[doc(hidden)]
    fn references(made: Made) -> Self::References;
}

/// References to the objects of one task, in order.
#[derive(Debug)]
pub struct Made(Vec<Held>);

macro_rules! several {
    ($count:literal: $($name:ident)*) => {
        impl<$($name: Value),*> Several for ($($name,)*) {
            type References = ($(ObjectRef<$name>,)*);
            const COUNT: u32 = $count;

            #[allow(non_snake_case)]
            fn encode_parts(&self, parts: &mut Parts<'_>) -> Result<(), Error> {
                let ($($name,)*) = self;
                $(parts.push($name)?;)*
                Ok(())
            }

            #[allow(non_snake_case)]
            fn references(made: Made) -> Self::References {
                let mut held = made.0.into_iter();
                $(let $name = held.next().expect("as many references as parts");)*
                ($(ObjectRef::<$name>::of($name),)*)
            }
        }
    };
}

several!(2: A B);
several!(3: A B C);
several!(4: A B C D);
several!(5: A B C D E);
several!(6: A B C D E F);
several!(7: A B C D E F G);
several!(8: A B C D E F G H);
several!(9: A B C D E F G H I);
several!(10: A B C D E F G H I J);
several!(11: A B C D E F G H I J K);
several!(12: A B C D E F G H I J K L);

/// A `Vec`, each element of which becomes an object.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no Vec of values",
    note = "a task with `returns = each` returns a `Vec<T>`"
)]
pub trait List {
    /// The element.
    type Item: Value;

    /// The elements.
    #[doc(hidden)]
    fn items(&self) -> &[Self::Item];
}

impl<T: Value> List for Vec<T> {
    type Item = T;

    fn items(&self) -> &[T] {
        self
    }
}

/// Values of one task that are archived so far.
#[derive(Debug)]
pub struct Parts<'a> {
    cx: &'a Context,
    inline_bytes: u64,
    encoded: Vec<Encoded>,
}

impl<'a> Parts<'a> {
    fn new(cx: &'a Context, count: usize) -> Self {
        Self { cx, inline_bytes: 0, encoded: Vec::with_capacity(count) }
    }

    fn push<T: Value>(&mut self, value: &T) -> Result<(), Error> {
        let process = self.cx.process();
        let mut encoded = process.encode(value)?;
        if matches!(encoded.value, executor::Value::Inline(_)) {
            if self.inline_bytes + encoded.len() > MAX_INLINE_TOTAL_BYTES {
                encoded = process.move_to_arena(encoded)?;
            } else {
                self.inline_bytes += encoded.len();
            }
        }
        self.encoded.push(encoded);
        Ok(())
    }

    /// The first, with the others in it.
    fn finish(self) -> Encoded {
        let mut parts = self.encoded.into_iter();
        match parts.next() {
            Some(first) => Encoded { more: parts.collect(), ..first },
            None => Encoded::of(executor::Value::Inline(Vec::new()), Vec::new()),
        }
    }
}

/// Archives what a task with `returns = 3` returned.
pub fn encode_several<S: Several>(cx: &Context, value: &S) -> Result<Encoded, Failure> {
    let mut parts = Parts::new(cx, S::COUNT as usize);
    value.encode_parts(&mut parts)?;
    Ok(parts.finish())
}

/// Archives what a task with `returns = each` returned.
pub fn encode_each<L: List>(cx: &Context, value: &L) -> Result<Encoded, Failure> {
    let (items, wanted) = (value.items(), cx.running().returns as usize);
    if items.len() != wanted {
        let reason = format!(
            "it returned {} values where its submitter wanted {wanted}; pass it the number",
            items.len()
        );
        return Err(Failure::Refused(reason));
    }
    let mut parts = Parts::new(cx, wanted);
    items.iter().try_for_each(|item| parts.push(item))?;
    Ok(parts.finish())
}

/// Submits a task with `returns = 3`.
pub fn submit_several<S: Several>(
    cx: &Context,
    function: u64,
    options: TaskOptions,
    arguments: Vec<Argument>,
) -> S::References {
    S::references(Made(cx.submit_several(function, S::COUNT, options, arguments)))
}

/// Submits a task with `returns = each`.
pub fn submit_each<L: List>(
    cx: &Context,
    function: u64,
    options: TaskOptions,
    returns: usize,
    arguments: Vec<Argument>,
) -> Vec<ObjectRef<L::Item>> {
    let returns = u32::try_from(returns).unwrap_or(u32::MAX);
    let held = cx.submit_several(function, returns, options, arguments);
    held.into_iter().map(ObjectRef::of).collect()
}

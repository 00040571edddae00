//! Arguments: what a submitter passes, how it travels in a task's body, what the function gets.
//!
//! ```text
//! body      count u32 | 0 u32 | 0 u64 | head.. | data..
//! head      kind u32 (0: here, 1: a dependency, 2: a run of them) | len of the data, number of
//!           the dependency, or how many u32 | number of the first u32 | 0 u32
//! data      archives, each filled up to a multiple of 16
//! ```
//! Numbers are little-endian. Data starts at a multiple of 16, so archives are read in place.

use std::sync::{Arc, OnceLock};

use rdist_scheduler::spec::{Reference, TaskKind, TaskSpec};

use super::context::Context;
use super::error::{Error, Failure};
use super::object::ObjectRef;
use super::value::{self, Aligned, Value};
use super::view::{Lent, LentBytes, View};
use crate::executor::objects::Held;
use crate::executor::process::{Encoded, Process};
use crate::wire::executor::{self, MAX_BODY_BYTES, MAX_DEPENDENCIES};

const ALIGN: usize = 16;
const KIND_HERE: u32 = 0;
const KIND_DEPENDENCY: u32 = 1;
const KIND_ALL: u32 = 2;
/// Most arguments of a function.
const MAX_ARGUMENTS: usize = 256;

/// What can be passed where a function wants a `T`: a `T`, a reference to one, or an
/// [`ObjectRef<T>`] whose value need not exist yet.
///
/// Arguments are checked where a task is submitted:
/// ```compile_fail,E0277
/// # use rdist::prelude::*;
/// #[rdist::task]
/// fn square(x: u64) -> u64 {
///     x * x
/// }
///
/// fn submit(cx: &Context, text: ObjectRef<String>) {
///     square.submit(cx, &text); // not an ObjectRef<u64>
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be passed where the task takes `{T}`",
    label = "pass a `{T}`, a `&{T}`, or an `ObjectRef<{T}>`",
    note = "types of arguments need #[rdist::value] on their definition"
)]
pub trait IntoArgument<T> {
    /// Makes it travel.
    #[doc(hidden)]
    fn into_argument(self, cx: &Context) -> Argument;
}

impl<T: Value> IntoArgument<T> for T {
    fn into_argument(self, cx: &Context) -> Argument {
        Argument::of(&self, cx)
    }
}

impl<T: Value> IntoArgument<T> for &T {
    fn into_argument(self, cx: &Context) -> Argument {
        Argument::of(self, cx)
    }
}

impl<T: Value> IntoArgument<T> for ObjectRef<T> {
    fn into_argument(self, _: &Context) -> Argument {
        Argument(Ok(Passed::Reference(self.into_held())))
    }
}

impl<T: Value> IntoArgument<T> for &ObjectRef<T> {
    fn into_argument(self, _: &Context) -> Argument {
        Argument(Ok(Passed::Reference(self.held().clone())))
    }
}

impl IntoArgument<String> for &str {
    fn into_argument(self, cx: &Context) -> Argument {
        Argument::of(&self.to_owned(), cx)
    }
}

/// An argument on its way.
#[derive(Debug)]
pub struct Argument(Result<Passed, Error>);

#[derive(Debug)]
enum Passed {
    Here { bytes: Vec<u8>, contains: Vec<Held> },
    Reference(Held),
    References(Vec<Held>),
}

impl Argument {
    /// Many objects as one argument.
    pub(crate) fn all(held: Vec<Held>) -> Self {
        Self(Ok(Passed::References(held)))
    }

    fn of<T: Value>(value: &T, cx: &Context) -> Self {
        Self(cx.process().encode(value).map(|encoded| match encoded.value {
            executor::Value::Inline(bytes) => Passed::Here { bytes, contains: encoded.contains },
            executor::Value::Block(_) => Passed::Reference(cx.put_encoded(encoded)),
        }))
    }
}

/// Arguments in the form that a task's description wants.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    pub(crate) body: Vec<u8>,
    pub(crate) dependencies: Vec<Reference>,
    pub(crate) borrowed: Vec<Reference>,
    /// Held until the description is sent.
    pub(crate) held: Vec<Held>,
}

/// Packs a function's arguments. `copies`: small values that are known here travel instead of
/// references to them.
pub(crate) fn pack(arguments: Vec<Argument>, copies: bool, cx: &Context) -> Result<Packed, Error> {
    if arguments.len() > MAX_ARGUMENTS {
        let text = format!("{} arguments; a function takes at most 256", arguments.len());
        return Err(Error::Refused(text));
    }
    let told = |held: &Held| cx.process().told(held);
    let mut packed = Packed::default();
    if arguments.is_empty() {
        return Ok(packed);
    }
    let count = arguments.len();
    let mut heads = Vec::with_capacity(count);
    let mut data = Vec::new();
    let room = MAX_BODY_BYTES - ALIGN * (count + 1);
    for Argument(argument) in arguments {
        let reference = match argument? {
            Passed::Here { bytes, contains } => {
                if data.len() + bytes.len().next_multiple_of(ALIGN) <= room {
                    heads.push((KIND_HERE, bytes.len() as u32, 0));
                    data.extend_from_slice(&bytes);
                    data.resize(data.len().next_multiple_of(ALIGN), 0);
                    packed.borrowed.extend(contains.iter().map(told));
                    packed.held.extend(contains);
                    continue;
                }
                let value = executor::Value::Inline(bytes);
                cx.put_encoded(Encoded::of(value, contains))
            }
            Passed::Reference(held) => match held.plain_bytes().filter(|_| copies) {
                Some(bytes) if data.len() + bytes.len().next_multiple_of(ALIGN) <= room => {
                    heads.push((KIND_HERE, bytes.len() as u32, 0));
                    data.extend_from_slice(bytes);
                    data.resize(data.len().next_multiple_of(ALIGN), 0);
                    continue;
                }
                _ => held,
            },
            Passed::References(held) => {
                heads.push((KIND_ALL, held.len() as u32, packed.dependencies.len() as u32));
                packed.dependencies.extend(held.iter().map(told));
                packed.held.extend(held);
                continue;
            }
        };
        heads.push((KIND_DEPENDENCY, packed.dependencies.len() as u32, 0));
        packed.dependencies.push(told(&reference));
        packed.held.push(reference);
    }
    packed.body.reserve_exact(ALIGN * (count + 1) + data.len());
    if packed.dependencies.len() > MAX_DEPENDENCIES {
        let count = packed.dependencies.len();
        let text = format!(
            "it depends on {count} objects; a task depends on at most {MAX_DEPENDENCIES}: combine \
             them in several steps, or pass a Vec of references as a value"
        );
        return Err(Error::Refused(text));
    }
    let mut line = |first: u32, second: u32, third: u32| {
        for word in [first, second, third, 0] {
            packed.body.extend_from_slice(&word.to_le_bytes());
        }
    };
    line(count as u32, 0, 0);
    heads.into_iter().for_each(|(kind, number, first)| line(kind, number, first));
    packed.body.extend_from_slice(&data);
    Ok(packed)
}

/// Where an argument is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Here { start: usize, len: usize },
    Dependency(usize),
    All { first: usize, count: usize },
}

/// The places of a body's arguments; the error says what is wrong with it.
fn unpack(body: &[u8], dependencies: usize) -> Result<Vec<Place>, String> {
    if body.is_empty() {
        return Ok(Vec::new());
    }
    let word = |at: usize| {
        let bytes = body.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_le_bytes).ok_or_else(|| format!("the body ends at byte {at}"))
    };
    let count = word(0)? as usize;
    if count > MAX_ARGUMENTS {
        return Err(format!("{count} arguments"));
    }
    let mut places = Vec::with_capacity(count);
    let mut start = ALIGN * (count + 1);
    for index in 0..count {
        let head = ALIGN * (index + 1);
        let number = word(head + 4)? as usize;
        match word(head)? {
            KIND_HERE if start + number <= body.len() => {
                places.push(Place::Here { start, len: number });
                start = (start + number).next_multiple_of(ALIGN);
            }
            KIND_DEPENDENCY if number < dependencies => places.push(Place::Dependency(number)),
            KIND_ALL if word(head + 8)? as usize + number <= dependencies => {
                places.push(Place::All { first: word(head + 8)? as usize, count: number });
            }
            kind => return Err(format!("argument {index} has kind {kind} and number {number}")),
        }
    }
    Ok(places)
}

/// The arguments of a task that runs.
#[derive(Debug)]
pub struct Arguments<'a> {
    process: &'static Process,
    places: Vec<Place>,
    next: usize,
    body: AlignedBody<'a>,
    references: &'a [Reference],
    dependencies: &'a [executor::Value],
    /// What views were made of.
    lent: Vec<Arc<Lent>>,
}

#[derive(Debug)]
enum AlignedBody<'a> {
    Lucky(&'a [u8]),
    Copied(Aligned),
}

impl std::ops::Deref for AlignedBody<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Lucky(bytes) => bytes,
            Self::Copied(bytes) => bytes,
        }
    }
}

fn align(bytes: &[u8]) -> AlignedBody<'_> {
    if bytes.as_ptr().align_offset(ALIGN) == 0 {
        return AlignedBody::Lucky(bytes);
    }
    AlignedBody::Copied(value::aligned_copy(bytes))
}

impl<'a> Arguments<'a> {
    pub(crate) fn new(
        process: &'static Process,
        spec: &'a TaskSpec,
        dependencies: &'a [executor::Value],
    ) -> Result<Self, String> {
        if spec.dependencies.len() != dependencies.len() {
            return Err(format!(
                "{} dependencies came with {} values",
                spec.dependencies.len(),
                dependencies.len()
            ));
        }
        // A driver has none; that of a detached actor is told there what to make.
        let packed = if spec.kind == TaskKind::Driver { &[][..] } else { &spec.body };
        let places = unpack(packed, dependencies.len())
            .map_err(|reason| format!("malformed arguments: {reason}"))?;
        let (body, references, lent) = (align(packed), &*spec.dependencies, Vec::new());
        Ok(Self { process, places, next: 0, body, references, dependencies, lent })
    }

    /// The next argument; the macros call it for each parameter in order.
    pub fn next<P: Parameter>(&mut self, name: &'static str) -> Result<P, Failure> {
        let place = self.places.get(self.next).copied();
        self.next += 1;
        let place = place.ok_or_else(|| {
            let count = self.places.len();
            Failure::Refused(format!(
                "there is no argument for `{name}`, only {count}: was the program rebuilt?"
            ))
        })?;
        P::from_argument(self, Given(place), name).map_err(|error| match error {
            decode @ Error::Decode { .. } => Failure::Refused(decode.to_string()),
            other => Failure::Passed(other),
        })
    }

    /// After user code: views that still live keep their objects from now on by themselves.
    pub(crate) fn keep_what_is_used(&self, process: &'static Process) {
        for lent in &self.lent {
            if Arc::strong_count(lent) > 1
                && let Some(reference) = lent.reference
                && lent.kept.get().is_none()
            {
                let _ = lent.kept.set(process.keep(reference));
            }
        }
    }

    /// The values of many objects that were given as one argument.
    pub(crate) fn all<T: Value>(&self, Given(place): Given, name: &str) -> Result<Vec<T>, Error> {
        let Place::All { first, count } = place else {
            let text = format!("`{name}` takes many objects, and was given one");
            return Err(Error::Refused(text));
        };
        (first..first + count).map(|at| self.owned(Place::Dependency(at), name)).collect()
    }

    fn owned<T: Value>(&self, place: Place, name: &str) -> Result<T, Error> {
        let what = || format!("argument `{name}`");
        let revive = |bytes: &[u8]| value::revive(value::check::<T>(bytes, what)?, what);
        match place {
            Place::Here { start, len } => revive(&self.body[start..start + len]),
            Place::Dependency(index) => match &self.dependencies[index] {
                executor::Value::Inline(bytes) => revive(&align(bytes)),
                executor::Value::Block(block) => revive(&self.process.read_block(*block)),
            },
            Place::All { .. } => Err(not_one(name)),
        }
    }

    fn lend(&mut self, place: Place, name: &str) -> Result<Arc<Lent>, Error> {
        let inline = |bytes: &[u8]| LentBytes::Inline(value::aligned_copy(bytes));
        let (bytes, reference) = match place {
            Place::Here { start, len } => (inline(&self.body[start..start + len]), None),
            Place::Dependency(index) => match &self.dependencies[index] {
                executor::Value::Inline(bytes) => (inline(bytes), None),
                executor::Value::Block(block) => {
                    let bytes = LentBytes::Block(self.process.read_block(*block));
                    (bytes, Some(self.references[index]))
                }
            },
            Place::All { .. } => return Err(not_one(name)),
        };
        let lent = Arc::new(Lent { bytes, reference, kept: OnceLock::new() });
        self.lent.push(lent.clone());
        Ok(lent)
    }
}

/// One argument that was given.
#[derive(Debug, Clone, Copy)]
pub struct Given(Place);

/// What a function can take: any [`Value`], a [`View`] of one, or [`All`](crate::All) of many.
#[diagnostic::on_unimplemented(
    message = "a task cannot take `{Self}`",
    label = "not a type that tasks can take",
    note = "put #[rdist::value] on the type's definition"
)]
pub trait Parameter: Sized {
    /// What is passed for it.
    type Value;

    /// Takes the argument.
    #[doc(hidden)]
    fn from_argument(
        arguments: &mut Arguments<'_>,
        given: Given,
        name: &'static str,
    ) -> Result<Self, Error>;
}

impl<T: Value> Parameter for T {
    type Value = T;

    fn from_argument(
        arguments: &mut Arguments<'_>,
        Given(place): Given,
        name: &'static str,
    ) -> Result<Self, Error> {
        arguments.owned(place, name)
    }
}

impl<T: Value> Parameter for View<T> {
    type Value = T;

    fn from_argument(
        arguments: &mut Arguments<'_>,
        Given(place): Given,
        name: &'static str,
    ) -> Result<Self, Error> {
        Self::of_argument(arguments.lend(place, name)?, || format!("argument `{name}`"))
    }
}

fn not_one(name: &str) -> Error {
    Error::Refused(format!("`{name}` takes one object, and was given many"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(words: &[u32], data: &[u8]) -> Vec<u8> {
        let lines = words.chunks(2).flat_map(|pair| {
            // A run of dependencies starts at the second one.
            let first = u32::from(pair[0] == KIND_ALL).to_le_bytes();
            let line = [pair[0].to_le_bytes(), pair[1].to_le_bytes(), first, [0; 4]];
            line.concat()
        });
        lines.chain(data.iter().copied()).collect()
    }

    #[test]
    fn places_of_a_well_formed_body() {
        let body = body(&[3, 0, KIND_HERE, 5, KIND_DEPENDENCY, 1, KIND_HERE, 16], &[7; 32]);
        let places = unpack(&body, 2).unwrap();
        let wanted = [
            Place::Here { start: 64, len: 5 },
            Place::Dependency(1),
            Place::Here { start: 80, len: 16 },
        ];
        assert_eq!(places, wanted);
        assert_eq!(unpack(&[], 0).unwrap(), []);
        let run = self::body(&[1, 0, KIND_ALL, 2], &[]);
        assert_eq!(unpack(&run, 3).unwrap(), [Place::All { first: 1, count: 2 }]);
        assert!(unpack(&run, 2).is_err(), "no third dependency");
    }

    #[test]
    fn malformed_bodies_are_refused() {
        assert!(unpack(&[1], 0).is_err(), "no count");
        assert!(unpack(&body(&[1, 0], &[]), 0).is_err(), "no head");
        assert!(unpack(&body(&[1, 0, KIND_HERE, 17], &[0; 16]), 0).is_err(), "data cut off");
        assert!(unpack(&body(&[1, 0, KIND_DEPENDENCY, 2], &[]), 2).is_err(), "no such dependency");
        assert!(unpack(&body(&[1, 0, 9, 0], &[]), 2).is_err(), "no such kind");
        assert!(unpack(&body(&[257, 0], &[0; 9_000]), 0).is_err(), "too many");
    }
}

//! Values between processes: archived once by whoever makes them, checked once by whoever reads.
//!
//! A value is measured while it is written into a buffer of [`MAX_INLINE_BYTES`]. What fits
//! there rides inside messages. What does not is written a second time, straight into a block of
//! the arena of exactly the measured size: no growing buffer, no copy.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Error as RkyvError;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::ser::{Positional, Writer};
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use super::error::Error;
use crate::executor::objects::Held;
use crate::wire::executor::MAX_INLINE_BYTES;

/// What tasks take and return: anything with rkyv's derives, which [`value`](macro@crate::value)
/// adds in one word. Implemented for every such type.
///
/// ```
/// use rdist::prelude::*;
///
/// #[rdist::value]
/// struct Image {
///     width: u32,
///     pixels: Vec<u8>,
/// }
///
/// #[rdist::task]
/// fn brightness(image: Image) -> f64 {
///     image.pixels.iter().map(|x| f64::from(*x)).sum()
/// }
///
/// # fn f(cx: &Context) -> Result<()> {
/// let image = cx.put(&Image { width: 1, pixels: vec![7] })?;
/// let sum: f64 = brightness.submit(cx, &image).get()?;
/// # Ok(())
/// # }
/// ```
/// Without it, the type cannot be an argument:
/// ```compile_fail,E0277
/// struct Image(Vec<u8>);
///
/// #[rdist::task]
/// fn brightness(image: Image) {}
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel between tasks",
    label = "not a value that tasks can take or return",
    note = "put #[rdist::value] on the type's definition, or wrap foreign types in one of yours"
)]
pub trait Value:
    Archive<
        Archived: for<'a> CheckBytes<HighValidator<'a, RkyvError>>
                      + Deserialize<Self, HighDeserializer<RkyvError>>,
    > + for<'a> Serialize<HighSerializer<ValueWriter, ArenaHandle<'a>, RkyvError>>
    + Sized
    + Send
    + 'static
{
}

impl<T> Value for T
where
    T: Archive + Send + 'static,
    T: for<'a> Serialize<HighSerializer<ValueWriter, ArenaHandle<'a>, RkyvError>>,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, RkyvError>>
        + Deserialize<T, HighDeserializer<RkyvError>>,
{
}

/// Where archives are written: memory of a fixed size. What does not fit is counted, not written.
#[derive(Debug)]
pub struct ValueWriter {
    start: *mut u8,
    room: usize,
    written: usize,
}

impl ValueWriter {
    fn new(target: &mut [u8]) -> Self {
        Self { start: target.as_mut_ptr(), room: target.len(), written: 0 }
    }
}

impl Positional for ValueWriter {
    fn pos(&self) -> usize {
        self.written
    }
}

impl<E> Writer<E> for ValueWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<(), E> {
        let end = self.written.saturating_add(bytes.len());
        if end <= self.room {
            // Safety: `start..start + room` is the memory that `archive` borrowed mutably for as
            // long as this writer lives, and `end <= room`. `bytes` cannot overlap with it: nobody
            // else holds a reference into that memory.
            unsafe {
                let target = self.start.add(self.written);
                target.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            }
        }
        self.written = end;
        Ok(())
    }
}

thread_local! {
    /// Buffer of the first pass; taken while in use, so that a nested encode makes its own.
    static SCRATCH: Cell<Option<AlignedVec>> = const { Cell::new(None) };
    /// References inside the value that this thread is archiving.
    static CONTAINS: RefCell<Option<Vec<Held>>> = const { RefCell::new(None) };
}

/// Notes a reference inside the value that is being archived; called by references themselves.
pub(crate) fn note_contained(held: &Held) {
    CONTAINS.with_borrow_mut(|contains| {
        if let Some(contains) = contains {
            contains.push(held.clone());
        }
    });
}

/// A value in bytes.
#[derive(Debug)]
pub(crate) enum Archived<B> {
    /// At most [`MAX_INLINE_BYTES`].
    Inline(AlignedVec),
    /// Larger, in memory that the caller provided.
    Large(B),
}

/// Archives `value`. Larger ones go into memory from `allocate`, which gets the exact size.
/// Also returns the references inside.
pub(crate) fn archive<T: Value, B: AsMut<[u8]>>(
    value: &T,
    allocate: impl FnOnce(usize) -> Result<B, Error>,
) -> Result<(Archived<B>, Vec<Held>), Error> {
    let outer = CONTAINS.replace(Some(Vec::new()));
    let mut scratch = SCRATCH.take().unwrap_or_else(|| {
        let mut scratch = AlignedVec::with_capacity(MAX_INLINE_BYTES);
        scratch.resize(MAX_INLINE_BYTES, 0);
        scratch
    });
    let measured = write(value, &mut scratch);
    let mut contains = CONTAINS.replace(outer).unwrap_or_default();
    if contains.len() > 1 {
        let mut seen = HashSet::with_capacity(contains.len());
        contains.retain(|held| seen.insert(held.reference.object));
    }
    let archived = measured.and_then(|len| {
        if len <= MAX_INLINE_BYTES {
            let mut inline = AlignedVec::with_capacity(len);
            inline.extend_from_slice(&scratch[..len]);
            return Ok(Archived::Inline(inline));
        }
        let mut target = allocate(len)?;
        let again = write(value, target.as_mut())?;
        if again != len {
            let reason = format!("it took {len} bytes at first and {again} the second time");
            return Err(Error::Encode { what: std::any::type_name::<T>(), reason });
        }
        Ok(Archived::Large(target))
    });
    SCRATCH.set(Some(scratch));
    Ok((archived?, contains))
}

fn write<T: Value>(value: &T, target: &mut [u8]) -> Result<usize, Error> {
    match rkyv::api::high::to_bytes_in(value, ValueWriter::new(target)) {
        Ok(writer) => Ok(writer.written),
        Err(error) => {
            let error: RkyvError = error;
            let reason = error.to_string();
            Err(Error::Encode { what: std::any::type_name::<T>(), reason })
        }
    }
}

/// Checks that `bytes` hold a `T`, all through, and returns its root.
pub(crate) fn check<T: Value>(
    bytes: &[u8],
    what: impl FnOnce() -> String,
) -> Result<&T::Archived, Error> {
    rkyv::access::<T::Archived, RkyvError>(bytes).map_err(|error| Error::Decode {
        what: what(),
        wanted: std::any::type_name::<T>(),
        reason: error.to_string(),
    })
}

/// Makes a `T` from its archive.
pub(crate) fn revive<T: Value>(
    archived: &T::Archived,
    what: impl FnOnce() -> String,
) -> Result<T, Error> {
    rkyv::deserialize::<T, RkyvError>(archived).map_err(|error| Error::Decode {
        what: what(),
        wanted: std::any::type_name::<T>(),
        reason: error.to_string(),
    })
}

/// `bytes` at an address where every archive can be read; copied only where they are not.
pub(crate) fn aligned(bytes: Vec<u8>) -> Aligned {
    if bytes.as_ptr().align_offset(16) == 0 {
        return Aligned::Lucky(bytes.into_boxed_slice());
    }
    aligned_copy(&bytes)
}

/// A copy of `bytes` at such an address.
pub(crate) fn aligned_copy(bytes: &[u8]) -> Aligned {
    let mut copy = AlignedVec::with_capacity(bytes.len());
    copy.extend_from_slice(bytes);
    Aligned::Made(Box::new(copy))
}

/// Bytes at a 16-byte aligned address. Never changed, so the address stays. Small, since a process
/// may have millions of values.
#[derive(Debug)]
pub(crate) enum Aligned {
    /// The allocator aligned them anyway, as it does for all but the smallest sizes.
    Lucky(Box<[u8]>),
    /// Copied.
    Made(Box<AlignedVec>),
}

impl std::ops::Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Lucky(bytes) => bytes,
            Self::Made(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn large(len: usize) -> Result<AlignedVec, Error> {
        let mut block = AlignedVec::with_capacity(len);
        block.resize(len, 0);
        Ok(block)
    }

    #[test]
    fn small_values_are_inline_and_large_ones_take_exactly_one_block() {
        for n in [0, 1, 1_000, 1_024, 2_000, 100_000] {
            let value: Vec<f32> = (0..n).map(|x| x as f32).collect();
            let (archived, contains) = archive(&value, large).unwrap();
            assert!(contains.is_empty());
            let bytes = match archived {
                Archived::Inline(bytes) if n * 4 + 8 <= MAX_INLINE_BYTES => bytes,
                Archived::Large(bytes) if n * 4 + 8 > MAX_INLINE_BYTES => bytes,
                other => panic!("{n} floats went to {other:?}"),
            };
            let root = check::<Vec<f32>>(&bytes, String::new).unwrap();
            assert_eq!(revive::<Vec<f32>>(root, String::new).unwrap(), value);
        }
    }

    #[test]
    fn bytes_of_another_type_are_refused() {
        let (Archived::Inline(bytes), _) = archive(&7_u8, large).unwrap() else { panic!() };
        let error = check::<Vec<String>>(&bytes, || "x".to_owned()).unwrap_err();
        assert!(error.to_string().contains("Vec"), "{error}");
    }
}

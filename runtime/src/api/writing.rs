//! Writing a value where it will lie.

use std::fmt;
use std::ops::{Deref, DerefMut};

use super::context::Context;
use super::error::Error;
use super::object::ObjectRef;
use crate::executor::process::{DraftBytes, Encoded};
use crate::wire::executor::{MAX_INLINE_BYTES, Value};

/// Bytes of an archived `Vec<u8>` behind its elements: a relative offset and a length.
const ROOT_BYTES: usize = 8;
const ROOT_ALIGN: usize = 4;

/// Bytes of the object store that are being written; sealed, they are a `Vec<u8>` to everyone who
/// reads them. The memory may hold anything at first. The first byte is aligned to 64.
pub struct Writing {
    cx: Context,
    target: Target,
    len: usize,
}

enum Target {
    Small(Vec<u8>),
    Block(DraftBytes),
}

impl Writing {
    pub(crate) fn new(cx: Context, len: usize) -> Result<Self, Error> {
        if i32::try_from(len).is_err() {
            let text = format!("a value of {len} bytes; write it as several, below 2 GiB each");
            return Err(Error::Refused(text));
        }
        let whole = len.next_multiple_of(ROOT_ALIGN) + ROOT_BYTES;
        let target = if whole <= MAX_INLINE_BYTES {
            Target::Small(vec![0; whole])
        } else {
            Target::Block(cx.process().create(whole)?)
        };
        Ok(Self { cx, target, len })
    }

    /// Ends the writing: the value can be read from now on, and never changes again.
    pub fn seal(mut self) -> ObjectRef<Vec<u8>> {
        let len = self.len;
        let root = len.next_multiple_of(ROOT_ALIGN);
        let whole = match &mut self.target {
            Target::Small(bytes) => &mut **bytes,
            Target::Block(draft) => draft.as_mut(),
        };
        whole[len..root].fill(0);
        // An archived vector: where its elements are, seen from here, and how many.
        let offset = -(root as i32);
        whole[root..root + 4].copy_from_slice(&offset.to_le_bytes());
        whole[root + 4..].copy_from_slice(&(len as u32).to_le_bytes());
        let value = match self.target {
            Target::Small(bytes) => Value::Inline(bytes),
            Target::Block(draft) => Value::Block(draft.0.seal()),
        };
        ObjectRef::of(self.cx.put_encoded(Encoded::of(value, Vec::new())))
    }
}

impl Deref for Writing {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.target {
            Target::Small(bytes) => &bytes[..self.len],
            Target::Block(draft) => &draft.0[..self.len],
        }
    }
}

impl DerefMut for Writing {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.target {
            Target::Small(bytes) => &mut bytes[..self.len],
            Target::Block(draft) => &mut draft.as_mut()[..self.len],
        }
    }
}

impl fmt::Debug for Writing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Writing({} bytes)", self.len)
    }
}

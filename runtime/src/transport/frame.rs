//! One message on a stream: its length in four bytes, little-endian, then its archive.

use quinn::{ReadExactError, RecvStream, SendStream, WriteError};
use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use crate::wire::{self, Malformed};

/// A message cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The stream or its connection ended.
    #[error("the connection broke: {0}")]
    Broken(#[from] ReadExactError),
    /// Longer than what it may be.
    #[error("a message of {len} bytes, where at most {limit} are allowed")]
    TooLong {
        /// As it says.
        len: usize,
        /// Allowed.
        limit: usize,
    },
    /// No such message.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// Writes one message.
pub async fn write<T>(stream: &mut SendStream, message: &T) -> Result<(), WriteError>
where
    T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>,
{
    let body = wire::encode(message);
    let mut bytes = Vec::with_capacity(4 + body.len());
    bytes.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(&body);
    stream.write_all(&bytes).await
}

/// Reads one message of at most `limit` bytes. `None`: the stream ended before it.
pub async fn read<T>(stream: &mut RecvStream, limit: usize) -> Result<Option<T>, ReadError>
where
    T: Archive,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Error>>
        + Deserialize<T, HighDeserializer<rancor::Error>>,
{
    let mut len = [0; 4];
    match stream.read_exact(&mut len).await {
        Ok(()) => {}
        Err(ReadExactError::FinishedEarly(0)) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let len = u32::from_le_bytes(len) as usize;
    if len > limit {
        return Err(ReadError::TooLong { len, limit });
    }
    let mut body = AlignedVec::<16>::with_capacity(len);
    body.resize(len, 0);
    stream.read_exact(&mut body).await?;
    Ok(Some(wire::decode(&body)?))
}

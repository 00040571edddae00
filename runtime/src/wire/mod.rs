//! Messages between processes, as rkyv archives that are validated before they are read.

pub mod client;
pub mod cluster;
pub mod direct;
pub mod executor;
pub mod files;
pub mod join;

use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Error;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

/// Version of everything in this module; also the ALPN name and part of every program's
/// hand-shake. Grows with every change of a message.
pub const PROTOCOL_VERSION: u32 = 8;

/// Bytes that are no valid message.
#[derive(Debug, Clone, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct Malformed(String);

/// Archives a message.
pub fn encode<T>(message: &T) -> AlignedVec
where
    T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, Error>>,
{
    rkyv::to_bytes::<Error>(message).expect("our own messages archive without errors")
}

/// Reads a message back, after checking every byte of it. `bytes` may lie at any address: an
/// unaligned slice is copied once.
pub fn decode<T>(bytes: &[u8]) -> Result<T, Malformed>
where
    T: Archive,
    T::Archived:
        for<'a> CheckBytes<HighValidator<'a, Error>> + Deserialize<T, HighDeserializer<Error>>,
{
    let malformed = |error: Error| Malformed(error.to_string());
    if bytes.as_ptr().align_offset(16) == 0 {
        return rkyv::from_bytes::<T, Error>(bytes).map_err(malformed);
    }
    let mut aligned = AlignedVec::<16>::with_capacity(bytes.len());
    aligned.extend_from_slice(bytes);
    rkyv::from_bytes::<T, Error>(&aligned).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use super::executor::FromExecutor;
    use super::*;

    #[test]
    fn a_message_survives_the_round_trip_at_any_alignment() {
        let message = FromExecutor::ActorLookup { request: 7, name: "counter".to_owned() };
        let bytes = encode(&message);
        let mut shifted = vec![0_u8; 3];
        shifted.extend_from_slice(&bytes);
        assert_eq!(decode::<FromExecutor>(&bytes).expect("aligned"), message);
        assert_eq!(decode::<FromExecutor>(&shifted[3..]).expect("shifted"), message);
    }

    #[test]
    fn garbage_is_refused() {
        assert!(decode::<FromExecutor>(&[0xff; 64]).is_err());
        assert!(decode::<FromExecutor>(&[]).is_err());
    }
}

//! Moves the bytes of objects and blobs over streams of their own, beside the link.
//!
//! The asker opens a bidirectional stream and writes one [`StreamRequest`]; the other side answers
//! with one [`StreamReply`] and the bytes. An object goes from the source's mapping to the stream
//! and from the stream into the destination's unsealed block; there is no buffer of the whole
//! between them. Two workers of one machine leave the network out: the answer says where the
//! bytes lie, and the asker reads them there. What is still coming is handed on already (`relay`).
//! A connection that breaks ends no pull of an object: over the next one comes what is missing
//! (`worker::network`). Which copy to fetch, and how often to try, is the core's decision.
//!
//! [`StreamRequest`]: crate::wire::cluster::StreamRequest
//! [`StreamReply`]: crate::wire::cluster::StreamReply

mod pull;
mod relay;
mod same_host;
mod serve;

pub(crate) use pull::{PullError, pull, pull_blob};
pub(crate) use relay::{Arrival, Arrivals, serve_arrival};
pub(crate) use serve::{
    reachable, read_request, serve_bytes, serve_file, serve_here, serve_nothing,
};

/// Largest request or reply, archived.
const MAX_HEADER_BYTES: usize = 4 << 10;

/// A stream that broke, or whose other side broke the protocol.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    #[error("the stream broke while reading: {0}")]
    Read(#[from] quinn::ReadExactError),
    #[error("the stream broke while writing: {0}")]
    Write(#[from] quinn::WriteError),
    #[error(transparent)]
    Header(#[from] crate::transport::frame::ReadError),
    #[error("the object ceased to come before it could be handed on")]
    Relay,
    #[error("the stream ended before its header")]
    NoHeader,
}

#[cfg(test)]
mod tests;

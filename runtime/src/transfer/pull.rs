//! The asking side.

use std::path::Path;

use rdist_scheduler::id::ObjectId;
use tokio::io::AsyncWriteExt;

use super::{MAX_HEADER_BYTES, StreamError, same_host};
use crate::store::Incoming;
use crate::transport::{Connection, frame};
use crate::wire::cluster::{HostId, MAX_BLOB_BYTES, Place, StreamReply, StreamRequest};
use crate::wire::files::BlobHash;

/// So much is filled before it is handed on.
const GROWTH_BYTES: usize = 256 << 10;
/// Largest piece that is read at once.
const PIECE_BYTES: usize = 1 << 20;

/// Why bytes did not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PullError {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("the connection broke: {0}")]
    Connection(#[from] quinn::ConnectionError),
    #[error("the worker cannot be reached")]
    Unreachable,
    #[error("it is not there")]
    Missing,
    #[error("{found} bytes were announced where {expected} were expected")]
    Size { found: u64, expected: u64 },
    #[error("the program's bytes do not have the hash that was asked for")]
    Hash,
    #[error("reading the memory of a worker on this machine: {0}")]
    SameHost(std::io::Error),
    #[error("writing {path}: {source}")]
    File { path: String, source: std::io::Error },
}

/// Fills what is left to fill of `block` with the object's bytes; `grow` is called when more of
/// them can be handed on. Where the connection breaks, what has come is there.
pub(crate) async fn pull(
    connection: &Connection,
    object: ObjectId,
    block: &mut Incoming,
    grow: &dyn Fn(),
) -> Result<(), PullError> {
    match pull_from(connection, object, same_host::host(), block, grow).await {
        // Perhaps the processes may not look into each other; the network always works.
        Err(PullError::SameHost(error)) => {
            tracing::debug!(%object, %error, "reading in place failed");
            pull_from(connection, object, None, block, grow).await
        }
        outcome => outcome,
    }
}

async fn pull_from(
    connection: &Connection,
    object: ObjectId,
    host: Option<HostId>,
    block: &mut Incoming,
    grow: &dyn Fn(),
) -> Result<(), PullError> {
    let from = block.filled() as u64;
    let request = StreamRequest::Object { object, host, from };
    let (reply, _send, mut receive) = ask(connection, &request).await?;
    let expected = block.len() as u64;
    match reply {
        StreamReply::Missing => Err(PullError::Missing),
        StreamReply::Bytes(found) | StreamReply::Here(Place { len: found, .. })
            if found != expected =>
        {
            Err(PullError::Size { found, expected })
        }
        StreamReply::Bytes(_) => loop {
            let piece = block.rest(GROWTH_BYTES);
            let len = piece.len();
            if len == 0 {
                return Ok(());
            }
            receive.read_exact(piece).await.map_err(StreamError::from)?;
            block.advance(len);
            grow();
        },
        // The source keeps the bytes until `_send` ends.
        StreamReply::Here(place) => {
            let place = Place { offset: place.offset + from, ..place };
            let rest = block.rest(usize::MAX);
            let len = rest.len();
            same_host::read(&place, rest).await.map_err(PullError::SameHost)?;
            block.advance(len);
            grow();
            Ok(())
        }
    }
}

/// Fetches a blob into the file `path`, checks its hash, and makes it executable. The file
/// appears whole or not at all.
pub(crate) async fn pull_blob(
    connection: &Connection,
    hash: BlobHash,
    path: &Path,
) -> Result<(), PullError> {
    let failed = |source| PullError::File { path: path.display().to_string(), source };
    let (reply, _send, mut receive) = ask(connection, &StreamRequest::Blob(hash)).await?;
    let len = match reply {
        StreamReply::Missing | StreamReply::Here(_) => return Err(PullError::Missing),
        StreamReply::Bytes(len) if len > MAX_BLOB_BYTES => {
            return Err(PullError::Size { found: len, expected: MAX_BLOB_BYTES });
        }
        StreamReply::Bytes(len) => len,
    };
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    if let Some(folder) = path.parent() {
        tokio::fs::create_dir_all(folder).await.map_err(failed)?;
    }
    let mut options = tokio::fs::OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o700);
    let mut file = options.open(&partial).await.map_err(failed)?;
    let mut hasher = blake3::Hasher::new();
    let mut left = usize::try_from(len).unwrap_or(usize::MAX);
    let mut piece = vec![0; PIECE_BYTES.min(left.max(1))];
    while left > 0 {
        let part = PIECE_BYTES.min(left);
        receive.read_exact(&mut piece[..part]).await.map_err(StreamError::from)?;
        hasher.update(&piece[..part]);
        file.write_all(&piece[..part]).await.map_err(failed)?;
        left -= part;
    }
    file.flush().await.map_err(failed)?;
    drop(file);
    if *hasher.finalize().as_bytes() != hash {
        let _ = tokio::fs::remove_file(&partial).await;
        return Err(PullError::Hash);
    }
    tokio::fs::rename(&partial, path).await.map_err(failed)
}

/// The reply, and the stream: dropping its sending side tells the other one that all is done.
async fn ask(
    connection: &Connection,
    request: &StreamRequest,
) -> Result<(StreamReply, quinn::SendStream, quinn::RecvStream), PullError> {
    let (mut send, mut receive) = connection.open_bi().await?;
    frame::write(&mut send, request).await.map_err(StreamError::from)?;
    let reply = frame::read(&mut receive, MAX_HEADER_BYTES).await.map_err(StreamError::from)?;
    Ok((reply.ok_or(StreamError::NoHeader)?, send, receive))
}

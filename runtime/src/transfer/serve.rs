//! The answering side.

use std::path::PathBuf;

use tokio::io::AsyncReadExt;

use super::{MAX_HEADER_BYTES, StreamError};
use crate::transport::frame;
use crate::wire::cluster::{StreamReply, StreamRequest};

/// Largest piece of a file that is held in memory.
const PIECE_BYTES: usize = 1 << 20;

/// Where the bytes of an answer come from.
pub(crate) enum Source<B> {
    /// Memory, for as long as the value lives.
    Memory(B),
    /// A file.
    File(PathBuf),
    /// Nowhere.
    Missing,
}

/// Reads what a stream asks for.
pub(crate) async fn read_request(
    stream: &mut quinn::RecvStream,
) -> Result<StreamRequest, StreamError> {
    frame::read(stream, MAX_HEADER_BYTES).await?.ok_or(StreamError::NoHeader)
}

/// Answers a request.
pub(crate) async fn serve<B: AsRef<[u8]>>(
    stream: &mut quinn::SendStream,
    source: Source<B>,
) -> Result<(), StreamError> {
    match source {
        Source::Missing => frame::write(stream, &StreamReply::Missing).await?,
        Source::Memory(bytes) => {
            let bytes = bytes.as_ref();
            frame::write(stream, &StreamReply::Bytes(bytes.len() as u64)).await?;
            stream.write_all(bytes).await?;
        }
        Source::File(path) => serve_file(stream, path).await?,
    }
    // The other side may have closed already; it has what it needs then.
    let _ = stream.finish();
    Ok(())
}

/// A file that cannot be read is not there; one that shrinks meanwhile ends the stream early,
/// which the reader notices.
async fn serve_file(stream: &mut quinn::SendStream, path: PathBuf) -> Result<(), StreamError> {
    let opened = match tokio::fs::File::open(&path).await {
        Ok(file) => file.metadata().await.map(|metadata| (file, metadata.len())),
        Err(error) => Err(error),
    };
    let Ok((mut file, len)) = opened else {
        return Ok(frame::write(stream, &StreamReply::Missing).await?);
    };
    frame::write(stream, &StreamReply::Bytes(len)).await?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut left = len;
    while left > 0 {
        let read = file.read(&mut piece).await.unwrap_or(0);
        if read == 0 {
            break;
        }
        let part = read.min(usize::try_from(left).unwrap_or(usize::MAX));
        stream.write_all(&piece[..part]).await?;
        left -= part as u64;
    }
    Ok(())
}

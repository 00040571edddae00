//! The answering side.

use std::path::Path;

use bytes::Bytes;
use tokio::io::AsyncReadExt;

use super::{MAX_HEADER_BYTES, StreamError, same_host};
use crate::transport::frame;
use crate::wire::cluster::{HostId, Place, StreamReply, StreamRequest};

/// Largest piece of a file that is held in memory.
const PIECE_BYTES: usize = 1 << 20;

/// Reads what a stream asks for.
pub(crate) async fn read_request(
    stream: &mut quinn::RecvStream,
) -> Result<StreamRequest, StreamError> {
    frame::read(stream, MAX_HEADER_BYTES).await?.ok_or(StreamError::NoHeader)
}

/// Where `place` is, if the asker on `host` can read it there.
pub(crate) fn reachable(place: Option<Place>, host: Option<HostId>) -> Option<Place> {
    place.filter(|_| host.is_some() && host == same_host::host())
}

/// Answers with the place of bytes that stay there until the asker closes its side.
pub(crate) async fn serve_here(
    send: &mut quinn::SendStream,
    receive: &mut quinn::RecvStream,
    place: Place,
) -> Result<(), StreamError> {
    frame::write(send, &StreamReply::Here(place)).await?;
    // However the stream ends, the asker needs the bytes no longer.
    let _ = receive.read_to_end(0).await;
    finish(send);
    Ok(())
}

/// Answers that it is not here.
pub(crate) async fn serve_nothing(stream: &mut quinn::SendStream) -> Result<(), StreamError> {
    frame::write(stream, &StreamReply::Missing).await?;
    finish(stream);
    Ok(())
}

/// Answers with bytes, but for those at the beginning that the asker has. They are encrypted where
/// they lie, and kept until the asker's machine has acknowledged them.
pub(crate) async fn serve_bytes(
    stream: &mut quinn::SendStream,
    bytes: impl AsRef<[u8]> + Send + 'static,
    from: u64,
) -> Result<(), StreamError> {
    let mut bytes = Bytes::from_owner(bytes);
    begin_bytes(stream, bytes.len() as u64).await?;
    // Who has more than there is has something else, and learns that by the length.
    let from = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
    stream.write_chunk(bytes.split_off(from)).await?;
    finish(stream);
    Ok(())
}

/// Answers with a file. One that cannot be read is not there; one that shrinks meanwhile ends the
/// stream early, which the reader notices.
pub(crate) async fn serve_file(
    stream: &mut quinn::SendStream,
    path: &Path,
) -> Result<(), StreamError> {
    let opened = match tokio::fs::File::open(path).await {
        Ok(file) => file.metadata().await.map(|metadata| (file, metadata.len())),
        Err(error) => Err(error),
    };
    let Ok((mut file, len)) = opened else {
        return serve_nothing(stream).await;
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
    finish(stream);
    Ok(())
}

/// Says that so many bytes follow.
pub(super) async fn begin_bytes(
    stream: &mut quinn::SendStream,
    len: u64,
) -> Result<(), StreamError> {
    Ok(frame::write(stream, &StreamReply::Bytes(len)).await?)
}

pub(super) fn finish(stream: &mut quinn::SendStream) {
    // The other side may have closed already; it has what it needs then.
    let _ = stream.finish();
}

//! Bytes on their way to the head: named by their hash, sent where the head lacks them.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{Client, ClientError};
use crate::wire::client::{ClientReply, ClientRequest};
use crate::wire::files::BlobHash;

/// Largest piece of a file that is read at once.
const PIECE_BYTES: usize = 1 << 20;

/// Most blobs that are asked for at once.
const BLOBS_PER_REQUEST: usize = 30_000;

/// Bytes with their hash.
#[derive(Debug, Clone)]
pub(super) struct Blob {
    pub(super) hash: BlobHash,
    pub(super) len: u64,
    pub(super) bytes: Bytes,
}

/// Where a blob's bytes are.
#[derive(Debug, Clone)]
pub(super) enum Bytes {
    File(PathBuf),
    Memory(Arc<[u8]>),
}

impl Blob {
    pub(super) fn of_bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        let hash = *blake3::hash(&bytes).as_bytes();
        Self { hash, len: bytes.len() as u64, bytes: Bytes::Memory(bytes) }
    }
}

impl Client {
    /// Sends those of the blobs that the head lacks.
    pub(super) async fn send_lacking(&self, blobs: Vec<Blob>) -> Result<(), ClientError> {
        for blobs in blobs.chunks(BLOBS_PER_REQUEST) {
            let hashes = blobs.iter().map(|blob| blob.hash).collect();
            let request = ClientRequest::Lacking(hashes);
            let lacking: HashSet<BlobHash> = match self.ask(&request).await? {
                ClientReply::Lacking(lacking) => lacking.into_iter().collect(),
                other => return Err(self.unexpected(other)),
            };
            if lacking.is_empty() {
                continue;
            }
            let lacking: HashMap<BlobHash, &Blob> = blobs
                .iter()
                .filter(|blob| lacking.contains(&blob.hash))
                .map(|blob| (blob.hash, blob))
                .collect();
            self.send(&Vec::from_iter(lacking.into_values())).await?;
        }
        Ok(())
    }

    async fn send(&self, blobs: &[&Blob]) -> Result<(), ClientError> {
        let list = blobs.iter().map(|blob| (blob.hash, blob.len)).collect();
        let (mut stream, receive) = self.open(&ClientRequest::Upload(list)).await?;
        for blob in blobs {
            // A head that refuses stops reading and says why.
            if !send_one(&mut stream, blob).await? {
                break;
            }
        }
        let _ = stream.finish();
        match self.reply(receive).await? {
            ClientReply::Done => Ok(()),
            other => Err(self.unexpected(other)),
        }
    }
}

/// Whether the other side still reads.
async fn send_one(stream: &mut quinn::SendStream, blob: &Blob) -> Result<bool, ClientError> {
    let path = match &blob.bytes {
        Bytes::Memory(bytes) => return Ok(stream.write_all(bytes).await.is_ok()),
        Bytes::File(path) => path,
    };
    let failed = |source| ClientError::File { path: path.clone(), source };
    // What was appended since the hash was taken is not sent.
    let mut file = File::open(path).map_err(failed)?.take(blob.len);
    let mut piece = vec![0; PIECE_BYTES.min(blob.len as usize).max(1)];
    let mut left = blob.len;
    while left > 0 {
        let count = file.read(&mut piece).map_err(failed)?;
        if count == 0 {
            let source = io::Error::other("it became shorter while it was sent");
            return Err(failed(source));
        }
        if stream.write_all(&piece[..count]).await.is_err() {
            return Ok(false);
        }
        left -= count as u64;
    }
    Ok(true)
}

/// Hash and length of a file.
pub(super) fn hash(path: &Path) -> io::Result<(BlobHash, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok((*hasher.finalize().as_bytes(), hasher.count())),
            count => hasher.update(&piece[..count]),
        };
    }
}

/// Hashes of programs that were submitted before: taking one costs 10 ms for a large program, which
/// is more than all the rest of a submit. As in git's index, a file is known by what changes with
/// every write to it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct KnownHashes(HashMap<PathBuf, Known>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    stamp: Stamp,
    hash: BlobHash,
}

/// Device, inode, length, and the times of the last changes of content and of inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp(u64, u64, u64, (i64, i64), (i64, i64));

impl KnownHashes {
    /// Programs that are remembered.
    const MAX: usize = 64;
    /// A file that was changed so lately could be changed again within a tick of the clock.
    const FRESH: Duration = Duration::from_secs(1);

    /// Hash and length of the program at `path`, from the file `memory` if it knows it.
    pub(super) fn hash(memory: &Path, path: &Path) -> io::Result<(BlobHash, u64)> {
        let absolute = std::path::absolute(path)?;
        let metadata = std::fs::metadata(path)?;
        let stamp = Stamp::of(&metadata);
        // A memory that cannot be read is an empty one.
        let text = std::fs::read(memory).unwrap_or_default();
        let mut all: Self = serde_json::from_slice(&text).unwrap_or_default();
        if let Some(known) = all.0.get(&absolute).filter(|known| known.stamp == stamp) {
            return Ok((known.hash, metadata.len()));
        }
        let (hash, len) = hash(path)?;
        if stamp.is_settled() && Stamp::of(&std::fs::metadata(path)?) == stamp {
            if all.0.len() >= Self::MAX {
                all.0.clear();
            }
            all.0.insert(absolute, Known { stamp, hash });
            // Without a memory the next submit takes a little longer.
            let _ = all.write(memory);
        }
        Ok((hash, len))
    }

    /// Several clients may write: the file is replaced whole.
    fn write(&self, memory: &Path) -> io::Result<()> {
        let partial = memory.with_extension(format!("partial-{}", std::process::id()));
        std::fs::write(&partial, serde_json::to_vec(self)?)?;
        std::fs::rename(&partial, memory)
    }
}

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        let times =
            [(metadata.mtime(), metadata.mtime_nsec()), (metadata.ctime(), metadata.ctime_nsec())];
        Self(metadata.dev(), metadata.ino(), metadata.len(), times[0], times[1])
    }

    fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (content, inode) = (self.3.0, self.4.0);
        let last = u64::try_from(content.max(inode)).unwrap_or(u64::MAX);
        now.as_secs().saturating_sub(last) > KnownHashes::FRESH.as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite(path: &Path, text: &str) {
        std::fs::write(path, text).unwrap();
        let old = SystemTime::now() - Duration::from_secs(60);
        File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
    }

    #[test]
    fn a_program_that_changed_is_never_taken_for_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let (memory, program) = (folder.path().join("hashes"), folder.path().join("program"));
        for text in ["one", "two", "six"] {
            rewrite(&program, text);
            let found = KnownHashes::hash(&memory, &program).unwrap();
            assert_eq!(found, (*blake3::hash(text.as_bytes()).as_bytes(), 3));
        }
    }

    #[test]
    fn a_settled_program_is_known_from_memory() {
        let folder = tempfile::tempdir().unwrap();
        let (memory, program) = (folder.path().join("hashes"), folder.path().join("program"));
        std::fs::write(&program, "one").unwrap();
        let stamp = Stamp::of(&std::fs::metadata(&program).unwrap());
        assert!(!stamp.is_settled(), "it was written just now");
        let hash = [7; 32];
        let known = KnownHashes(HashMap::from([(program.clone(), Known { stamp, hash })]));
        known.write(&memory).unwrap();
        assert_eq!(KnownHashes::hash(&memory, &program).unwrap(), (hash, 3));
        std::fs::write(&memory, "no json").unwrap();
        assert_eq!(
            KnownHashes::hash(&memory, &program).unwrap().0,
            *blake3::hash(b"one").as_bytes()
        );
    }
}

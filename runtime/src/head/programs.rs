//! Programs by the hash of their content: uploaded once, verified, put in place whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::wire::client::ClientRefusal;
use crate::wire::cluster::{MAX_PROGRAM_BYTES, ProgramHash};

/// Largest piece that is read from a stream at once.
const PIECE_BYTES: usize = 1 << 20;

/// The folder of all programs.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    folder: PathBuf,
}

impl Programs {
    pub(super) fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where the program is, if it is there.
    pub(super) fn path(&self, program: &ProgramHash) -> PathBuf {
        self.folder.join(blake3::Hash::from_bytes(*program).to_hex().as_str())
    }

    pub(super) fn has(&self, program: &ProgramHash) -> bool {
        self.path(program).is_file()
    }

    /// Takes `bytes` bytes from the stream as the program with that hash.
    pub(super) async fn receive(
        &self,
        stream: &mut quinn::RecvStream,
        program: ProgramHash,
        bytes: u64,
    ) -> Result<(), ClientRefusal> {
        if bytes > MAX_PROGRAM_BYTES {
            let limit = format!("{bytes} bytes, where {MAX_PROGRAM_BYTES} are allowed");
            return Err(ClientRefusal::Upload(limit));
        }
        let failed = |error: io::Error| ClientRefusal::HeadFailed(error.to_string());
        let mut incoming = Temporary::create(&self.folder).map_err(failed)?;
        let mut hasher = blake3::Hasher::new();
        let mut left = bytes;
        // Large pieces: the hash is several times as fast over them as over single packets.
        let mut piece = vec![0; usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES)];
        while left > 0 {
            let len = usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            stream
                .read_exact(&mut piece[..len])
                .await
                .map_err(|error| ClientRefusal::Upload(format!("{left} bytes left: {error}")))?;
            hasher.update(&piece[..len]);
            incoming.file.write_all(&piece[..len]).map_err(failed)?;
            left -= len as u64;
        }
        if *hasher.finalize().as_bytes() != program {
            return Err(ClientRefusal::Upload("its bytes do not have its hash".to_owned()));
        }
        incoming.keep(&self.path(&program)).map_err(failed)
    }
}

/// A file that disappears unless it is kept.
struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    fn create(folder: &Path) -> io::Result<Self> {
        let mut unique = [0_u8; 8];
        getrandom::fill(&mut unique).map_err(|error| io::Error::other(error.to_string()))?;
        let path = folder.join(format!(".{:016x}.new", u64::from_le_bytes(unique)));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o700).open(&path)?;
        Ok(Self { path, file })
    }

    fn keep(self, path: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, path)?;
        File::open(path.parent().unwrap_or(path))?.sync_all()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone already if it was kept.
        let _ = fs::remove_file(&self.path);
    }
}

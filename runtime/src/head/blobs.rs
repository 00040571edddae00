//! Blobs, programs and files of jobs, by the hash of their content: uploaded once, verified, put in
//! place whole, and removed when no job that the head remembers needs them.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::wire;
use crate::wire::client::ClientRefusal;
use crate::wire::cluster::MAX_BLOB_BYTES;
use crate::wire::files::{BlobHash, Content, JobFiles, MAX_MANIFEST_BYTES, Manifest};

/// Largest piece that is read from a stream at once.
const PIECE_BYTES: usize = 1 << 20;

/// A blob that no job needs yet may be on its way to one.
const YOUNG: Duration = Duration::from_secs(3_600);

/// The folder of all blobs.
#[derive(Debug, Clone)]
pub(super) struct Blobs {
    folder: PathBuf,
}

impl Blobs {
    pub(super) fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where the blob is, if it is there.
    pub(super) fn path(&self, blob: &BlobHash) -> PathBuf {
        self.folder.join(blake3::Hash::from_bytes(*blob).to_hex().as_str())
    }

    pub(super) fn has(&self, blob: &BlobHash) -> bool {
        self.path(blob).is_file()
    }

    /// Those that are not here, each once.
    pub(super) fn lacking(&self, blobs: &[BlobHash]) -> Vec<BlobHash> {
        let mut seen = HashSet::new();
        blobs.iter().filter(|blob| seen.insert(**blob) && !self.has(blob)).copied().collect()
    }

    /// Takes these blobs from the stream, one after the other. Those that came whole stay, whatever
    /// becomes of the rest.
    pub(super) async fn receive(
        &self,
        stream: &mut quinn::RecvStream,
        blobs: &[(BlobHash, u64)],
    ) -> Result<(), ClientRefusal> {
        let failed = |error: io::Error| ClientRefusal::HeadFailed(error.to_string());
        for (blob, bytes) in blobs {
            self.receive_one(stream, blob, *bytes).await?;
        }
        // The names are durable with the folder.
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(failed)
    }

    async fn receive_one(
        &self,
        stream: &mut quinn::RecvStream,
        blob: &BlobHash,
        bytes: u64,
    ) -> Result<(), ClientRefusal> {
        if bytes > MAX_BLOB_BYTES {
            let limit = format!("{bytes} bytes, where {MAX_BLOB_BYTES} are allowed");
            return Err(ClientRefusal::Upload(limit));
        }
        super::room::check(&self.folder, bytes)?;
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
        if *hasher.finalize().as_bytes() != *blob {
            let reason = "its bytes do not have its hash; was the file changed meanwhile?";
            return Err(ClientRefusal::Upload(reason.to_owned()));
        }
        incoming.keep(&self.path(blob)).map_err(failed)
    }

    /// Whether all that a job needs is here.
    pub(super) fn check(&self, program: &BlobHash, files: &JobFiles) -> Result<(), ClientRefusal> {
        let missing = |what: &str| ClientRefusal::BlobMissing { what: what.to_owned() };
        if !self.has(program) {
            return Err(missing("the program"));
        }
        for hash in files.manifests() {
            if !self.has(&hash) {
                return Err(missing("the list of the job's files"));
            }
            let manifest = self.manifest(&hash).map_err(ClientRefusal::Files)?;
            let lacks = manifest.files().find(|(blob, _)| !self.has(blob)).map(|(blob, _)| blob);
            if lacks.is_some() {
                let path = manifest.entries.iter().find(|entry| match &entry.content {
                    Content::File { blob, .. } => Some(*blob) == lacks,
                    Content::Link { .. } => false,
                });
                return Err(missing(path.map_or("a file", |entry| entry.path.as_str())));
            }
        }
        Ok(())
    }

    fn manifest(&self, hash: &BlobHash) -> Result<Manifest, String> {
        let path = self.path(hash);
        let len = fs::metadata(&path).map_err(|error| error.to_string())?.len();
        if len > MAX_MANIFEST_BYTES {
            return Err(format!("{len} bytes, where {MAX_MANIFEST_BYTES} are allowed"));
        }
        let bytes = fs::read(&path).map_err(|error| error.to_string())?;
        let manifest: Manifest = wire::decode(&bytes).map_err(|error| error.to_string())?;
        manifest.check().map_err(|error| error.to_string())?;
        Ok(manifest)
    }

    /// Removes what none of these jobs needs; what came lately stays, as its job may follow.
    pub(super) fn clean(&self, jobs: impl Iterator<Item = (BlobHash, JobFiles)>) -> io::Result<()> {
        let mut needed = HashSet::new();
        for (program, files) in jobs {
            needed.insert(self.path(&program));
            for hash in files.manifests() {
                if needed.insert(self.path(&hash))
                    && let Ok(manifest) = self.manifest(&hash)
                {
                    needed.extend(manifest.files().map(|(blob, _)| self.path(&blob)));
                }
            }
        }
        for entry in fs::read_dir(&self.folder)? {
            let (path, metadata) = match entry.and_then(|one| Ok((one.path(), one.metadata()?))) {
                Ok(found) => found,
                // It has just been removed, or renamed.
                Err(_) => continue,
            };
            let old = metadata.modified()?.elapsed().is_ok_and(|age| age > YOUNG);
            if old && metadata.is_file() && !needed.contains(&path) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
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
        fs::rename(&self.path, path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone already if it was kept.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::files::Entry;

    fn store(blobs: &Blobs, bytes: &[u8]) -> BlobHash {
        let hash = *blake3::hash(bytes).as_bytes();
        fs::write(blobs.path(&hash), bytes).unwrap();
        hash
    }

    fn age(blobs: &Blobs, hash: &BlobHash) {
        let file = File::options().write(true).open(blobs.path(hash)).unwrap();
        file.set_modified(std::time::SystemTime::now() - YOUNG * 2).unwrap();
    }

    #[test]
    fn what_no_job_needs_is_removed_when_it_is_old() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::at(folder.path().to_owned());
        let [program, file, old, young] =
            [&b"program"[..], b"file", b"old", b"young"].map(|bytes| store(&blobs, bytes));
        let content = Content::File { blob: file, bytes: 4, executable: false };
        let entries = vec![Entry { path: "file".to_owned(), content }];
        let manifest = store(&blobs, &wire::encode(&Manifest { entries }));
        let files = JobFiles { working: Some(manifest), driver: None };
        for hash in [&program, &file, &manifest, &old] {
            age(&blobs, hash);
        }
        assert_eq!(blobs.check(&program, &files), Ok(()));
        blobs.clean([(program, files)].into_iter()).unwrap();
        let all = [program, file, manifest, young, old];
        assert_eq!(blobs.lacking(&all), [old]);
        blobs.clean(std::iter::empty()).unwrap();
        assert_eq!(blobs.lacking(&all), [program, file, manifest, old]);
    }

    #[test]
    fn a_job_needs_its_program_its_list_and_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::at(folder.path().to_owned());
        let program = store(&blobs, b"program");
        let content = Content::File { blob: [7; 32], bytes: 4, executable: false };
        let entries = vec![Entry { path: "data/x.csv".to_owned(), content }];
        let manifest = store(&blobs, &wire::encode(&Manifest { entries }));
        let with = |hash| JobFiles { working: Some(hash), driver: None };
        let said = |program, files| blobs.check(&program, &files).unwrap_err().to_string();
        assert!(said([1; 32], JobFiles::default()).contains("the program"));
        assert!(said(program, with([2; 32])).contains("the list"));
        assert!(said(program, with(manifest)).contains("data/x.csv"));
        assert!(said(program, with(program)).contains("malformed"));
    }
}

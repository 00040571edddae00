//! Folders that travel with a job: a manifest says what lies where, and every file is a blob.
//!
//! ```text
//! JobFiles ──hash──► manifest's blob ──hashes──► files' blobs
//! ```
//! A blob is bytes named by their BLAKE3 hash. The client sends those that the head lacks, a worker
//! fetches those that it lacks, so of a folder that changed only the changed files travel. The
//! manifest's hash names the version of the folder. A few small files for the driver alone ride in
//! the messages themselves ([`SmallFile`]): to ask for them would take longer than to send them.
#![allow(missing_docs, reason = "rkyv derives archived fields without docs")]

use std::path::{Component, Path};

use rkyv::{Archive, Deserialize, Serialize};

/// BLAKE3 hash of a blob's bytes.
pub type BlobHash = [u8; 32];

/// Most entries of a manifest.
pub const MAX_ENTRIES: usize = 20_000;
/// Largest manifest, archived.
pub const MAX_MANIFEST_BYTES: u64 = 16 << 20;
/// Most bytes of all files of a manifest.
pub const MAX_FOLDER_BYTES: u64 = 64 << 30;

/// Most bytes of all small files of a job, with their names.
pub const MAX_SMALL_BYTES: usize = 8 << 10;

/// A file that rides in a message.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct SmallFile {
    /// A name without `/`.
    pub name: String,
    /// All of it.
    pub bytes: Vec<u8>,
}

impl SmallFile {
    /// Whether these can be written side by side into a folder: plain names, each once, in order.
    pub fn check(files: &[Self]) -> Result<(), ManifestError> {
        let bytes: usize = files.iter().map(|file| file.name.len() + file.bytes.len()).sum();
        if bytes > MAX_SMALL_BYTES {
            return Err(ManifestError::NotSmall);
        }
        let is_name = |name: &str| !matches!(name, "" | "." | "..") && !name.contains(['/', '\0']);
        if let Some(file) = files.iter().find(|file| !is_name(&file.name)) {
            return Err(ManifestError::Outside(file.name.clone()));
        }
        match files.windows(2).find(|pair| pair[0].name >= pair[1].name) {
            Some(pair) => Err(ManifestError::Misplaced(pair[1].name.clone())),
            None => Ok(()),
        }
    }
}

/// The folders of a job, each by the hash of its manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
pub struct JobFiles {
    /// Where the job's processes start, on every worker.
    pub working: Option<BlobHash>,
    /// For the driver alone.
    pub driver: Option<BlobHash>,
}

impl JobFiles {
    /// The manifests.
    pub fn manifests(&self) -> impl Iterator<Item = BlobHash> + use<> {
        [self.working, self.driver].into_iter().flatten()
    }
}

/// What a folder holds, ordered by path. Folders are those that the paths need.
#[derive(Debug, Clone, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
pub struct Manifest {
    /// Each path once.
    pub entries: Vec<Entry>,
}

/// A file or a link of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Entry {
    /// Relative, with `/` between its names.
    pub path: String,
    /// What is there.
    pub content: Content,
}

/// What lies at a path.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Content {
    /// A file.
    File {
        /// Its bytes.
        blob: BlobHash,
        /// Their number.
        bytes: u64,
        /// Whether it can be run.
        executable: bool,
    },
    /// A symbolic link.
    Link {
        /// Where to, as it is written.
        target: String,
    },
}

/// A manifest that would write where it must not, or too much.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// More than [`MAX_ENTRIES`].
    #[error("it lists {0} files, where {MAX_ENTRIES} are allowed")]
    TooMany(usize),
    /// More than [`MAX_FOLDER_BYTES`].
    #[error("its files have more than {MAX_FOLDER_BYTES} bytes")]
    TooLarge,
    /// More than [`MAX_SMALL_BYTES`].
    #[error("its small files have more than {MAX_SMALL_BYTES} bytes")]
    NotSmall,
    /// A path that is not relative, leads out, or is no path.
    #[error("{0:?} is no path inside of a folder")]
    Outside(String),
    /// Paths out of order, twice, or one below a file.
    #[error("{0:?} is out of order, or is twice there, or lies below a file")]
    Misplaced(String),
}

impl Manifest {
    /// Whether it can be unpacked: all paths inside, each once, nothing below a file or a link.
    pub fn check(&self) -> Result<(), ManifestError> {
        if self.entries.len() > MAX_ENTRIES {
            return Err(ManifestError::TooMany(self.entries.len()));
        }
        let bytes = self.files().try_fold(0_u64, |sum, (_, bytes)| sum.checked_add(bytes));
        if bytes.is_none_or(|bytes| bytes > MAX_FOLDER_BYTES) {
            return Err(ManifestError::TooLarge);
        }
        let mut leaves = std::collections::BTreeSet::new();
        for entry in &self.entries {
            let path = Path::new(&entry.path);
            let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
            // What `components` would tidy up is not written as one path alone.
            let tidy = entry.path.split('/').all(|part| !matches!(part, "" | "." | ".."));
            if !path.components().all(plain) || !tidy || entry.path.contains('\0') {
                return Err(ManifestError::Outside(entry.path.clone()));
            }
            let below = path.ancestors().skip(1).any(|above| leaves.contains(above));
            if below || !leaves.insert(path) {
                return Err(ManifestError::Misplaced(entry.path.clone()));
            }
        }
        // A file `a` may come after `a/b` only in a list that is out of order.
        let ordered = |pair: &[Entry]| Path::new(&pair[0].path) < Path::new(&pair[1].path);
        match self.entries.windows(2).find(|pair| !ordered(pair)) {
            Some(pair) => Err(ManifestError::Misplaced(pair[1].path.clone())),
            None => Ok(()),
        }
    }

    /// The blobs of its files, with their sizes.
    pub fn files(&self) -> impl Iterator<Item = (BlobHash, u64)> + '_ {
        self.entries.iter().filter_map(|entry| match entry.content {
            Content::File { blob, bytes, .. } => Some((blob, bytes)),
            Content::Link { .. } => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(paths: &[&str]) -> Manifest {
        let content = Content::File { blob: [0; 32], bytes: 1, executable: false };
        let entry = |path: &&str| Entry { path: (*path).to_owned(), content: content.clone() };
        Manifest { entries: paths.iter().map(entry).collect() }
    }

    #[test]
    fn paths_stay_inside_and_are_there_once() {
        assert_eq!(manifest(&["a", "b/c", "b/d/e", "f.txt"]).check(), Ok(()));
        for outside in ["/etc/passwd", "../x", "a/../../x", "", "a//b", "./a", "a/", "a\0b"] {
            let error = manifest(&[outside]).check().unwrap_err();
            assert_eq!(error, ManifestError::Outside(outside.to_owned()));
        }
        for misplaced in [["a", "a"], ["a", "a/b"], ["b", "a"]] {
            let error = manifest(&misplaced).check().unwrap_err();
            assert_eq!(error, ManifestError::Misplaced(misplaced[1].to_owned()));
        }
    }

    #[test]
    fn small_files_have_plain_names_and_are_small() {
        let file = |name: &str, len| SmallFile { name: name.to_owned(), bytes: vec![0; len] };
        assert_eq!(SmallFile::check(&[file("a", 0), file("b", MAX_SMALL_BYTES - 2)]), Ok(()));
        let large = [file("a", 0), file("b", MAX_SMALL_BYTES - 1)];
        assert_eq!(SmallFile::check(&large), Err(ManifestError::NotSmall));
        for outside in ["", ".", "..", "a/b", "/a", "a\0"] {
            let error = ManifestError::Outside(outside.to_owned());
            assert_eq!(SmallFile::check(&[file(outside, 1)]), Err(error));
        }
        let error = ManifestError::Misplaced("a".to_owned());
        assert_eq!(SmallFile::check(&[file("a", 1), file("a", 1)]), Err(error));
    }

    #[test]
    fn sizes_that_no_disk_holds_are_refused() {
        let mut large = manifest(&["a", "b"]);
        for entry in &mut large.entries {
            entry.content = Content::File { blob: [0; 32], bytes: u64::MAX, executable: false };
        }
        assert_eq!(large.check(), Err(ManifestError::TooLarge));
    }
}

//! Files that travel with a job: collected from a folder, or named one by one.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::WalkBuilder;

use super::upload::{Blob, Bytes, hash};
use crate::wire;
use crate::wire::files::{
    Content, Entry, MAX_ENTRIES, MAX_SMALL_BYTES, Manifest, ManifestError, SmallFile,
};

/// A folder's files that its owner does not want to travel, in the syntax of `.gitignore`.
const IGNORE_FILE: &str = ".rdistignore";

/// How many of the largest files an error names.
const NAMED: usize = 3;

/// Why a folder cannot travel.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// No such folder, or a file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The walk through the folder failed, or its ignore file is malformed.
    #[error("cannot take the files of {}: {reason}", folder.display())]
    Walk {
        /// Which folder.
        folder: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A path that is not UTF-8.
    #[error("{} is not UTF-8 and cannot travel; rename it, or list it in {IGNORE_FILE}",
            .0.display())]
    Name(PathBuf),
    /// A pipe, a socket or a device.
    #[error("{} is neither a file nor a link; list it in {IGNORE_FILE}", .0.display())]
    Special(PathBuf),
    /// More than allowed.
    #[error(
        "the files of {} have {bytes} bytes, where {limit} are allowed; the largest are {largest}; \
         list what the job does not need in {IGNORE_FILE}, or raise the limit", folder.display()
    )]
    TooLarge {
        /// Which folder.
        folder: PathBuf,
        /// All their bytes.
        bytes: u64,
        /// How many may be.
        limit: u64,
        /// Names and sizes, for people.
        largest: String,
    },
    /// What no worker would unpack.
    #[error("these files cannot travel: {0}")]
    Manifest(#[from] ManifestError),
}

/// Files for a job, by the paths that they get in its folder. Nothing is read before the job is
/// submitted, and of what the head has already nothing is sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Files(BTreeMap<String, Source>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Bytes(Arc<[u8]>),
    Link(String),
}

impl Files {
    /// The files of a folder, but those that `.gitignore` or `.rdistignore` name, in it or below,
    /// and those of `.git`. Symbolic links travel as links.
    ///
    /// # Errors
    /// When they have more than `limit` bytes, when there are more than 20,000, and for what cannot
    /// be read.
    pub fn of_folder(folder: &Path, limit: u64) -> Result<Self, FilesError> {
        let unreadable = |source| FilesError::Unreadable { path: folder.to_owned(), source };
        let is_folder = std::fs::metadata(folder).map_err(unreadable)?.is_dir();
        if !is_folder {
            let source = io::Error::new(io::ErrorKind::NotADirectory, "it is no folder");
            return Err(unreadable(source));
        }
        let mut files = Self::default();
        let mut sizes = Vec::new();
        let mut walk = WalkBuilder::new(folder);
        walk.hidden(false).parents(false).git_global(false).git_exclude(false).require_git(false);
        walk.add_custom_ignore_filename(IGNORE_FILE);
        walk.filter_entry(|entry| entry.file_name() != ".git");
        for entry in walk.build() {
            let wrong = |reason: String| FilesError::Walk { folder: folder.to_owned(), reason };
            let entry = entry.map_err(|error| wrong(error.to_string()))?;
            if let Some(error) = entry.error() {
                return Err(wrong(error.to_string()));
            }
            let Some(kind) = entry.file_type().filter(|kind| !kind.is_dir()) else { continue };
            let path = entry.path();
            let name = path.strip_prefix(folder).ok().and_then(Path::to_str);
            let name = name.ok_or_else(|| FilesError::Name(path.to_owned()))?.to_owned();
            let failed = |source| FilesError::Unreadable { path: path.to_owned(), source };
            if kind.is_symlink() {
                let target = std::fs::read_link(path).map_err(failed)?.into_os_string();
                let target = target.into_string().map_err(|_| FilesError::Name(path.to_owned()))?;
                files.0.insert(name, Source::Link(target));
            } else if kind.is_file() {
                sizes.push((std::fs::metadata(path).map_err(failed)?.len(), name.clone()));
                files.0.insert(name, Source::File(path.to_owned()));
            } else {
                return Err(FilesError::Special(path.to_owned()));
            }
            if files.0.len() > MAX_ENTRIES {
                return Err(ManifestError::TooMany(files.0.len()).into());
            }
        }
        let bytes = sizes.iter().map(|(bytes, _)| bytes).sum();
        if bytes <= limit {
            return Ok(files);
        }
        sizes.sort_by_key(|(bytes, _)| Reverse(*bytes));
        let largest: Vec<_> =
            sizes.iter().take(NAMED).map(|(bytes, name)| format!("{name} ({bytes})")).collect();
        let largest = largest.join(", ");
        Err(FilesError::TooLarge { folder: folder.to_owned(), bytes, limit, largest })
    }

    /// Adds a file of this machine.
    pub fn add_file(&mut self, path_in_job: &str, file: PathBuf) {
        self.0.insert(path_in_job.to_owned(), Source::File(file));
    }

    /// Adds a file with these bytes.
    pub fn add_bytes(&mut self, path_in_job: &str, bytes: impl Into<Arc<[u8]>>) {
        self.0.insert(path_in_job.to_owned(), Source::Bytes(bytes.into()));
    }

    /// The paths, in order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// All of them, if they are so few and small that they need no blobs.
    pub(super) fn small(&self) -> Option<Vec<SmallFile>> {
        let small = |(name, source): (&String, &Source)| match source {
            Source::Bytes(bytes) if bytes.len() <= MAX_SMALL_BYTES => {
                Some(SmallFile { name: name.clone(), bytes: bytes.to_vec() })
            }
            _ => None,
        };
        let files: Vec<SmallFile> = self.0.iter().map(small).collect::<Option<_>>()?;
        SmallFile::check(&files).is_ok().then_some(files)
    }

    /// All blobs, that of the manifest last.
    pub(super) fn seal(&self) -> Result<Vec<Blob>, FilesError> {
        let mut blobs = Vec::new();
        let mut entries = Vec::new();
        for (path, source) in &self.0 {
            let content = match source {
                Source::Link(target) => Content::Link { target: target.clone() },
                Source::Bytes(bytes) => {
                    let blob = Blob::of_bytes(bytes.clone());
                    let content = content(&blob, false);
                    blobs.push(blob);
                    content
                }
                Source::File(file) => {
                    let failed = |source| FilesError::Unreadable { path: file.clone(), source };
                    let (hash, len) = hash(file).map_err(failed)?;
                    let mode = std::fs::metadata(file).map_err(failed)?.permissions().mode();
                    let blob = Blob { hash, len, bytes: Bytes::File(file.clone()) };
                    let content = content(&blob, mode & 0o100 != 0);
                    blobs.push(blob);
                    content
                }
            };
            entries.push(Entry { path: path.clone(), content });
        }
        entries.sort_by(|a, b| Path::new(&a.path).cmp(Path::new(&b.path)));
        let manifest = Manifest { entries };
        manifest.check()?;
        blobs.push(Blob::of_bytes(wire::encode(&manifest).into_vec()));
        Ok(blobs)
    }
}

fn content(blob: &Blob, executable: bool) -> Content {
    Content::File { blob: blob.hash, bytes: blob.len, executable }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn manifest(files: &Files) -> Manifest {
        let blobs = files.seal().unwrap();
        let Bytes::Memory(bytes) = &blobs.last().unwrap().bytes else { panic!("no bytes") };
        wire::decode(bytes).unwrap()
    }

    #[test]
    fn a_folder_travels_but_for_what_it_ignores() {
        let folder = folder(&[
            ("main.py", "print(1)"),
            (".hidden", "x"),
            ("src/a.rs", "a"),
            ("src.txt", "between src and its files, as text"),
            ("target/big", "xx"),
            ("notes.tmp", "xx"),
            (".git/config", "xx"),
            (".gitignore", "target/\n"),
            (".rdistignore", "*.tmp\n"),
        ]);
        std::os::unix::fs::symlink("main.py", folder.path().join("link")).unwrap();
        let files = Files::of_folder(folder.path(), 1 << 20).unwrap();
        let paths: Vec<&str> = files.paths().collect();
        let expected =
            [".gitignore", ".hidden", ".rdistignore", "link", "main.py", "src.txt", "src/a.rs"];
        assert_eq!(paths, expected);
        let manifest = manifest(&files);
        assert_eq!(manifest.check(), Ok(()));
        let link = manifest.entries.iter().find(|entry| entry.path == "link").unwrap();
        assert_eq!(link.content, Content::Link { target: "main.py".to_owned() });
    }

    #[test]
    fn the_version_is_the_content() {
        let folder = folder(&[("a", "1"), ("b", "2")]);
        let version = || Files::of_folder(folder.path(), 99).unwrap().seal().unwrap().pop();
        let first = version().unwrap().hash;
        fs::write(folder.path().join("b"), "2").unwrap();
        assert_eq!(version().unwrap().hash, first);
        fs::write(folder.path().join("b"), "3").unwrap();
        assert_ne!(version().unwrap().hash, first);
        let executable = fs::Permissions::from_mode(0o755);
        fs::write(folder.path().join("b"), "2").unwrap();
        fs::set_permissions(folder.path().join("b"), executable).unwrap();
        assert_ne!(version().unwrap().hash, first);
    }

    #[test]
    fn a_folder_that_is_too_large_names_its_largest_files() {
        let folder = folder(&[("small", "1"), ("large", "22222"), ("larger", "333333333")]);
        let error = Files::of_folder(folder.path(), 10).unwrap_err().to_string();
        assert!(error.contains("larger (9), large (5), small (1)"), "{error}");
        assert!(error.contains(IGNORE_FILE), "{error}");
        let missing = Files::of_folder(&folder.path().join("none"), 10).unwrap_err().to_string();
        assert!(missing.contains("none"), "{missing}");
        let file = Files::of_folder(&folder.path().join("small"), 10).unwrap_err().to_string();
        assert!(file.contains("no folder"), "{file}");
    }
}

//! Where MNIST comes from: a folder or a prefix in S3 that the user names, the places where it may
//! already lie, a download from public mirrors, and where none is to be had, drawn digits, which
//! the caller says plainly.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use super::idx::{self, IdxError};
use super::{ImageSet, synthetic};
use crate::s3::{Address, Bucket, S3Error};

/// How many classes there are.
pub const CLASSES: usize = 10;

/// The files' names, without `.gz`, and the SHA-256 of their content unpacked.
const FILES: [(&str, &str); 4] = [
    ("train-images-idx3-ubyte", "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    ("train-labels-idx1-ubyte", "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    ("t10k-images-idx3-ubyte", "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    ("t10k-labels-idx1-ubyte", "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
];
const MIRRORS: [&str; 2] = [
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
];
/// A download has this long before the next mirror is asked.
const DOWNLOAD_SECONDS: &str = "120";
/// Of the drawn set: as many as MNIST has would take seconds to draw and teach nothing more.
const DRAWN: (usize, usize) = (12_000, 2_000);
/// Belongs to the drawn set's folder name: drawn otherwise, it needs another name.
const DRAWN_FOLDER: &str = "mnist-synthetic-1";

/// Where to look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// The user's own folder, or `s3://bucket/prefix`; nothing else is tried.
    pub own: Option<PathBuf>,
    /// `RDIST_DATA`.
    pub data: Option<PathBuf>,
    /// `../shared/data`, seen from the folder that the job was submitted from.
    pub shared: PathBuf,
    /// The user's cache, where downloads go.
    pub cache: Option<PathBuf>,
    /// Mirrors to ask; none: no download.
    pub mirrors: Vec<String>,
}

impl Places {
    /// The places of this process's environment.
    pub fn of_environment(own: Option<PathBuf>, download: bool) -> Self {
        let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let cache = variable("XDG_CACHE_HOME")
            .or_else(|| Some(variable("HOME")?.join(".cache")))
            .map(|cache| cache.join("rdist"));
        let mirrors = if download { MIRRORS.map(str::to_owned).to_vec() } else { Vec::new() };
        let shared = PathBuf::from("../shared/data");
        Self { own, data: variable("RDIST_DATA"), shared, cache, mirrors }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mnist {
    /// To train on.
    pub train: ImageSet,
    /// To test with.
    pub test: ImageSet,
    /// Where it came from.
    pub source: Source,
}

/// Where the digits came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Files that were there.
    Folder(PathBuf),
    /// Files that were fetched now, and lie here from now on.
    Downloaded(PathBuf),
    /// Drawn, with the reasons why nothing better was to be had.
    Drawn(Vec<String>),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "MNIST from {}", folder.display()),
            Self::Downloaded(folder) => write!(f, "MNIST, downloaded to {}", folder.display()),
            Self::Drawn(reasons) if reasons.is_empty() => {
                f.write_str("synthetic digits, drawn (not MNIST), as asked for")
            }
            Self::Drawn(reasons) => write!(
                f,
                "SYNTHETIC DIGITS, drawn here, because MNIST was not to be had ({}); accuracy on \
                 them says nothing about MNIST",
                reasons.join("; ")
            ),
        }
    }
}

/// Why there is no data set.
#[derive(Debug, thiserror::Error)]
pub enum MnistError {
    /// A file is there, but is not what it should be.
    #[error(transparent)]
    Idx(#[from] IdxError),
    /// Objects of S3.
    #[error(transparent)]
    Store(#[from] S3Error),
    /// Nothing in S3 begins with what a file is called.
    #[error(
        "there are no objects that begin with {}; data.path names what stands before train/ and \
         test/, or before the files' names",
        prefixes.join(" or ")
    )]
    NoObjects {
        /// What was looked for.
        prefixes: Vec<String>,
    },
    /// The drawn set did not come back from disk.
    #[error("cannot keep the drawn digits in {folder}: {source}")]
    Write {
        /// Where they should have gone.
        folder: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

/// Finds MNIST, in the order of [`Places`]'s fields; a folder that has some of the files is taken,
/// so that a damaged set is an error and never silently replaced by another.
pub fn find(places: &Places) -> Result<Mnist, MnistError> {
    if let Some(own) = &places.own {
        if let Some(address) = Address::of(own).transpose()? {
            return read_objects(&Bucket::open(&address)?, &address);
        }
        let below = own.join("mnist");
        let folder = if has_any(&below) { below } else { own.clone() };
        return read(&folder, Source::Folder(folder.clone()));
    }
    let mut reasons = Vec::new();
    let cached = places.cache.as_ref().map(|cache| cache.join("mnist"));
    let candidates = [
        places.data.as_ref().map(|data| data.join("mnist")),
        Some(places.shared.join("mnist")),
        cached.clone(),
    ];
    for folder in candidates.into_iter().flatten() {
        if has_any(&folder) {
            return read(&folder, Source::Folder(folder.clone()));
        }
        reasons.push(format!("not in {}", folder.display()));
    }
    if let Some(folder) = &cached {
        for mirror in &places.mirrors {
            match download(mirror, folder) {
                Ok(()) => return read(folder, Source::Downloaded(folder.clone())),
                Err(error) => reasons.push(format!("{mirror}: {error}")),
            }
        }
    }
    drawn(places, reasons)
}

/// Drawn digits, by way of IDX files in the cache where there is one.
pub fn drawn(places: &Places, reasons: Vec<String>) -> Result<Mnist, MnistError> {
    let source = Source::Drawn(reasons);
    let folder = places.cache.as_ref().map(|cache| cache.join(DRAWN_FOLDER));
    if let Some(folder) = folder.as_ref().filter(|folder| has_any(folder)) {
        return read(folder, source);
    }
    let (train, test) = (synthetic::draw(DRAWN.0, 1), synthetic::draw(DRAWN.1, 2));
    if let Some(folder) = folder {
        let write = |into: &Path| {
            let path = |file: usize| into.join(FILES[file].0);
            idx::write(&train, &path(0), &path(1))?;
            idx::write(&test, &path(2), &path(3))
        };
        fill(&folder, write).map_err(|source| MnistError::Write { folder, source })?;
    }
    Ok(Mnist { train, test, source })
}

fn has_any(folder: &Path) -> bool {
    FILES.iter().any(|(name, _)| idx::locate(&folder.join(name)).is_some())
}

fn read(folder: &Path, source: Source) -> Result<Mnist, MnistError> {
    let pair = |images: usize| {
        let path = |file: usize| folder.join(FILES[file].0);
        idx::read(&path(images), &path(images + 1), CLASSES)
    };
    Ok(Mnist { train: pair(0)?, test: pair(2)?, source })
}

/// The folders of S3 that training and test files are in, below the set's.
const PARTS: [&str; 2] = ["train", "test"];

/// From S3, as workload 5 found it: each file is all objects that begin with its name.
fn read_objects(bucket: &Bucket, address: &Address) -> Result<Mnist, MnistError> {
    let file = |file: usize| -> Result<(PathBuf, Vec<u8>), MnistError> {
        let name = FILES[file].0;
        let prefixes = [address.join(PARTS[file / 2]).join(name), address.join(name)];
        for prefix in &prefixes {
            let mut objects = bucket.list(&prefix.key)?;
            // A MinIO server's own, where its disk was copied.
            objects.retain(|object| !object.key.ends_with("xl.meta"));
            if !objects.is_empty() {
                let content = bucket.read(&objects, idx::MAX_BYTES)?;
                return Ok((prefix.to_string().into(), content));
            }
        }
        Err(MnistError::NoObjects { prefixes: prefixes.map(|each| each.to_string()).into() })
    };
    let pair = |images: usize| -> Result<ImageSet, MnistError> {
        let (images, labels) = (file(images)?, file(images + 1)?);
        Ok(idx::of_bytes((&images.0, &images.1), (&labels.0, &labels.1), CLASSES)?)
    };
    let source = Source::Folder(address.to_string().into());
    Ok(Mnist { train: pair(0)?, test: pair(2)?, source })
}

/// All four files from one mirror, checked, then in place at once.
fn download(mirror: &str, folder: &Path) -> Result<(), String> {
    let fetch = |into: &Path| {
        for (name, sha256) in FILES {
            let file = into.join(format!("{name}.gz"));
            let output = Command::new("curl")
                .args(["--fail", "--silent", "--show-error", "--location"])
                .args(["--connect-timeout", "10", "--max-time", DOWNLOAD_SECONDS, "--output"])
                .arg(&file)
                .arg(format!("{mirror}/{name}.gz"))
                .stdin(Stdio::null())
                .output()?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                return Err(io::Error::other(said.trim().to_owned()));
            }
            check(&file, sha256)?;
        }
        Ok(())
    };
    fill(folder, fetch).map_err(|error| error.to_string())
}

/// Compares the content, unpacked, with its published hash.
fn check(zipped: &Path, sha256: &str) -> io::Result<()> {
    // Past the end of the true content there is nothing to compare.
    const LONGEST: u64 = 64 << 20;
    let mut hash = Sha256::new();
    let mut content = flate2::read::GzDecoder::new(fs::File::open(zipped)?).take(LONGEST);
    io::copy(&mut content, &mut hash)?;
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found == sha256 {
        return Ok(());
    }
    let name = zipped.file_name().unwrap_or_default().to_string_lossy();
    Err(io::Error::other(format!("{name} has SHA-256 {found}, expected {sha256}")))
}

/// Makes a folder whole: filled beside its place, then renamed.
fn fill(folder: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let partial = folder.with_file_name(format!("{name}.partial-{}", std::process::id()));
    fs::create_dir_all(&partial)?;
    let filled = write(&partial).and_then(|()| match fs::rename(&partial, folder) {
        // Somebody else filled it meanwhile, with the same.
        Err(_) if has_any(folder) => Ok(()),
        outcome => outcome,
    });
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(folder: &Path) -> Mnist {
        let (train, test) = (synthetic::draw(20, 3), synthetic::draw(10, 4));
        fs::create_dir_all(folder).unwrap();
        let path = |file: usize| folder.join(FILES[file].0);
        idx::write(&train, &path(0), &path(1)).unwrap();
        idx::write(&test, &path(2), &path(3)).unwrap();
        Mnist { train, test, source: Source::Folder(folder.to_owned()) }
    }

    fn places(root: &Path) -> Places {
        Places {
            own: None,
            data: Some(root.join("data")),
            shared: root.join("shared"),
            cache: Some(root.join("cache")),
            mirrors: Vec::new(),
        }
    }

    #[test]
    fn looks_in_order_and_draws_at_last() {
        let root = tempfile::tempdir().unwrap();
        let places = places(root.path());
        let drawn = find(&places).unwrap();
        let text = drawn.source.to_string();
        assert!(text.starts_with("SYNTHETIC") && text.contains("data/mnist"), "{text}");
        assert_eq!(drawn.train.len(), DRAWN.0);
        // The second time it is read from the files that the first one wrote.
        assert_eq!(find(&places).unwrap(), drawn);

        for folder in ["cache/mnist", "shared/mnist", "data/mnist"] {
            let expected = small(&root.path().join(folder));
            assert_eq!(find(&places).unwrap(), expected);
        }
        let own = Places { own: Some(root.path().join("mine")), ..places };
        let error = find(&own).unwrap_err().to_string();
        assert!(error.contains("mine/train-images-idx3-ubyte is missing"), "{error}");
        small(&root.path().join("mine/mnist"));
        assert!(find(&own).is_ok());
    }

    #[test]
    fn a_damaged_set_is_an_error_and_not_replaced() {
        let root = tempfile::tempdir().unwrap();
        let places = places(root.path());
        small(&root.path().join("data/mnist"));
        small(&root.path().join("cache/mnist"));
        let labels = root.path().join("data/mnist").join(FILES[3].0);
        fs::write(&labels, [0, 0, 8, 1, 0, 0]).unwrap();
        assert!(find(&places).unwrap_err().to_string().contains("header"));
        fs::remove_file(&labels).unwrap();
        assert!(find(&places).unwrap_err().to_string().contains("missing"));
    }

    #[test]
    fn a_mirror_with_other_content_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let mirror = root.path().join("mirror");
        fs::create_dir(&mirror).unwrap();
        for (name, _) in FILES {
            let file = fs::File::create(mirror.join(format!("{name}.gz"))).unwrap();
            let mut file = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            io::Write::write_all(&mut file, b"not MNIST").unwrap();
            file.finish().unwrap();
        }
        let mirrors = vec![format!("file://{}", mirror.display())];
        let found = find(&Places { mirrors, ..places(root.path()) }).unwrap();
        let text = found.source.to_string();
        assert!(text.contains("has SHA-256"), "{text}");
        assert!(!root.path().join("cache/mnist").exists());
    }

    /// Real MNIST, where the machine has it: a mirror that serves it fills the cache.
    #[test]
    fn a_true_mirror_fills_the_cache() {
        let Some(data) = std::env::var_os("RDIST_DATA") else {
            eprintln!("skipped: RDIST_DATA names no folder with real MNIST");
            return;
        };
        let root = tempfile::tempdir().unwrap();
        let mirrors = vec![format!("file://{}", Path::new(&data).join("mnist").display())];
        let places = Places { data: None, mirrors, ..places(root.path()) };
        let found = find(&places).unwrap();
        assert_eq!((found.train.len(), found.test.len()), (60_000, 10_000));
        assert_eq!(found.source, Source::Downloaded(root.path().join("cache/mnist")));
        let again = find(&places).unwrap();
        assert_eq!(again.source, Source::Folder(root.path().join("cache/mnist")));
    }

    #[test]
    fn objects_are_files_in_parts() {
        let root = tempfile::tempdir().unwrap();
        let expected = small(&root.path().join("files"));
        let objects = root.path().join("objects");
        fs::create_dir(&objects).unwrap();
        let server = rdist_s3_server::Server::start(&objects).unwrap();
        let path = rdist_s3_server::upload(&server, &root.path().join("files")).unwrap();
        let address = Address::of(Path::new(&path)).unwrap().unwrap();
        let variables = server.environment();
        let bucket = Bucket::with(&address, |name| {
            variables.iter().find(|(each, _)| *each == name).map(|(_, value)| value.clone())
        });
        let bucket = bucket.unwrap();
        let prefix = address.join("train").join(FILES[0].0).key;
        let listed = bucket.list(&prefix).unwrap();
        assert!(listed.len() > 2 && listed.iter().any(|each| each.key.ends_with("xl.meta")));

        let found = read_objects(&bucket, &address).unwrap();
        assert_eq!((found.train, found.test), (expected.train, expected.test));
        assert_eq!(found.source.to_string(), "MNIST from s3://datasets/mnist");

        // Without the last part, the file is cut off; and without any, it is not there.
        let parts: Vec<_> = listed.iter().filter(|each| each.key.contains("part.")).collect();
        bucket.remove(&parts.last().unwrap().key).unwrap();
        let error = read_objects(&bucket, &address).unwrap_err().to_string();
        assert!(error.contains("train/train-images") && error.contains("promises"), "{error}");
        parts.iter().for_each(|part| bucket.remove(&part.key).unwrap());
        let error = read_objects(&bucket, &address).unwrap_err().to_string();
        assert!(error.contains("no objects") && error.contains("s3://datasets/mnist"), "{error}");
    }
}

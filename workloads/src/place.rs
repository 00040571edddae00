//! Small files by their path, wherever they are: on this machine, or as objects of S3 where the
//! path begins with `s3://`. A file is replaced at once or not at all.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use crate::s3::{Address, Bucket, S3Error};

impl From<S3Error> for io::Error {
    fn from(error: S3Error) -> Self {
        let kind = match &error {
            S3Error::NotFound { .. } => io::ErrorKind::NotFound,
            S3Error::Refused { .. } => io::ErrorKind::PermissionDenied,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// Whether a path is one of S3.
pub fn is_remote(path: &Path) -> bool {
    Address::of(path).is_some()
}

fn remote(path: &Path) -> io::Result<Option<(Bucket, Address)>> {
    let Some(address) = Address::of(path).transpose()? else { return Ok(None) };
    Ok(Some((Bucket::open(&address)?, address)))
}

/// The content of a file.
///
/// # Errors
/// The file system's, or those of [`S3Error`].
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    match remote(path)? {
        Some((bucket, address)) => Ok(bucket.read_one(&address.key)?),
        None => fs::read(path),
    }
}

/// Whether it is there.
///
/// # Errors
/// Those of [`S3Error`].
pub fn exists(path: &Path) -> io::Result<bool> {
    let Some((bucket, address)) = remote(path)? else { return Ok(path.exists()) };
    Ok(bucket.list(&address.key)?.iter().any(|object| object.key == address.key))
}

/// Writes a file, and makes its folder; an older one of that name stays whole until then.
///
/// # Errors
/// The file system's, or those of [`S3Error`].
pub fn replace(path: &Path, content: Vec<u8>) -> io::Result<()> {
    match remote(path)? {
        Some((bucket, address)) => Ok(bucket.write(&address.key, content)?),
        None => replace_local(path, &content),
    }
}

/// Writes beside the file, makes it durable, renames.
fn replace_local(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = folder.join(format!(".{name}.partial-{}", std::process::id()));
    let write = || {
        let mut file = File::create(&partial)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        File::open(folder)?.sync_all()
    };
    write().inspect_err(|_| {
        // The reason is told already; what is left over takes room that is probably short.
        let _ = fs::remove_file(&partial);
    })
}

/// Removes a file, if it is there.
///
/// # Errors
/// The file system's, or those of [`S3Error`].
pub fn remove(path: &Path) -> io::Result<()> {
    let removed = match remote(path)? {
        Some((bucket, address)) => bucket.remove(&address.key).map_err(io::Error::from),
        None => fs::remove_file(path),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Moves a file; the folder that it goes to is made. In S3 it is at both places for a moment.
///
/// # Errors
/// The file system's, or those of [`S3Error`].
pub fn rename(path: &Path, to: &Path) -> io::Result<()> {
    if let (Some((bucket, from)), Some(to)) = (remote(path)?, Address::of(to).transpose()?) {
        bucket.copy(&from.key, &to.key)?;
        return Ok(bucket.remove(&from.key)?);
    }
    to.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::rename(path, to)
}

/// Gives a file a second name in the same folder. The file must be one that is replaced, never
/// written to.
///
/// # Errors
/// The file system's, or those of [`S3Error`].
pub fn keep_as(path: &Path, second: &Path) -> io::Result<()> {
    if let (Some((bucket, from)), Some(to)) = (remote(path)?, Address::of(second).transpose()?) {
        return Ok(bucket.copy(&from.key, &to.key)?);
    }
    // A link is made at once or not at all.
    match fs::hard_link(path, second) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            fs::copy(path, second).map(|_| ())
        }
        _ => Ok(()),
    }
}

/// The names of the files in a folder, in no order.
///
/// # Errors
/// The file system's, or those of [`S3Error`].
pub fn names(folder: &Path) -> io::Result<Vec<String>> {
    let Some((bucket, address)) = remote(folder)? else {
        let entries = fs::read_dir(folder)?;
        return entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into())).collect();
    };
    let prefix = address.join("").key;
    let objects = bucket.list(&prefix)?;
    let names = objects.iter().filter_map(|object| object.key.strip_prefix(&prefix));
    Ok(names.filter(|name| !name.contains('/')).map(str::to_owned).collect())
}

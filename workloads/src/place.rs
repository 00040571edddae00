//! Small files by their path, wherever they are: on this machine, or as objects of S3 where the
//! path begins with `s3://`. A file is replaced at once or not at all.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

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
    let partial = partial(path);
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

/// Gives a file a second name in the same folder, in place of the file that had it. The file must
/// be one that is replaced, never written to.
///
/// # Errors
/// The file system's, or those of [`S3Error`].
pub fn keep_as(path: &Path, second: &Path) -> io::Result<()> {
    if let (Some((bucket, from)), Some(to)) = (remote(path)?, Address::of(second).transpose()?) {
        return Ok(bucket.copy(&from.key, &to.key)?);
    }
    let partial = partial(second);
    // One that was left over would be written to, and with it whatever else has its content.
    let absent = |result: io::Result<()>| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    absent(fs::remove_file(&partial))?;
    let linked = fs::hard_link(path, &partial).or_else(|_| fs::copy(path, &partial).map(|_| ()));
    let named = linked.and_then(|()| fs::rename(&partial, second));
    // It stays where both names were the same file's already, or where something failed.
    named.and(absent(fs::remove_file(&partial)))
}

/// What a file is called until it is whole.
fn partial(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.partial-{}", std::process::id()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_name_is_taken_from_the_file_that_had_it() {
        let folder = tempfile::tempdir().unwrap();
        let [newest, old] = ["newest", "old"].map(|name| folder.path().join(name));
        for content in ["1", "2"] {
            replace(&newest, content.into()).unwrap();
            // Twice: it has the name already.
            (0..2).for_each(|_| keep_as(&newest, &old).unwrap());
            assert_eq!(read(&old).unwrap(), content.as_bytes());
        }
        replace(&newest, b"3".to_vec()).unwrap();
        assert_eq!(read(&old).unwrap(), b"2");
        assert_eq!(names(folder.path()).unwrap().len(), 2);
    }
}

//! Values on disk, when the arena has no room for them.
//!
//! ```text
//! file   | magic 8 | length u64 | BLAKE3 of name, length and value 32 | 0 16 | value |
//! ```
//! One file for each object, written beside its name and renamed, so a name never stands for half
//! a value. The files live as long as the worker that wrote them: nothing is synced, and
//! [`Spill::open`] empties the folder. Which values go and when is not decided here. All calls
//! block on the disk: they are for a thread that may.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rdist_scheduler::id::ObjectId;

const MAGIC: [u8; 8] = *b"rdspill1";
const HEADER_BYTES: usize = 64;
const EXTENSION: &str = "spill";
const UNFINISHED: &str = "unfinished";

/// A value that cannot be written to disk, or read back.
#[derive(Debug, thiserror::Error)]
pub enum SpillError {
    /// No room.
    #[error(
        "the disk is full: {needed} bytes of the object store cannot be spilled to {}; free some \
         room there, or start the worker with more --store-memory", folder.display()
    )]
    DiskFull {
        /// Where.
        folder: PathBuf,
        /// Bytes of the value.
        needed: u64,
    },
    /// The file is not what was written.
    #[error("the spilled value {} is damaged: {why}; its task must run again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The kernel refused.
    #[error("cannot {what} the spilled value {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// The folder.
#[derive(Debug, Clone)]
pub struct Spill {
    folder: PathBuf,
}

impl Spill {
    /// Makes the folder, or removes what an earlier worker has spilled there.
    ///
    /// # Errors
    /// [`SpillError::Io`].
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, SpillError> {
        let folder = folder.into();
        fs::create_dir_all(&folder).map_err(failed("make the folder of", &folder))?;
        let files = fs::read_dir(&folder).map_err(failed("list", &folder))?;
        for file in files {
            let path = file.map_err(failed("list", &folder))?.path();
            let is_ours = |ext| ext == EXTENSION || ext == UNFINISHED;
            if path.extension().is_some_and(is_ours) {
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok(Self { folder })
    }

    /// Writes a value.
    ///
    /// # Errors
    /// [`SpillError`]; no file is left then.
    pub fn write(&self, object: ObjectId, value: &[u8]) -> Result<(), SpillError> {
        let path = self.path(object);
        let unfinished = path.with_extension(UNFINISHED);
        let result =
            write_file(&unfinished, object, value).and_then(|()| fs::rename(&unfinished, &path));
        result.map_err(|error| {
            let _ = fs::remove_file(&unfinished);
            if error.kind() == io::ErrorKind::StorageFull {
                let needed = value.len() as u64;
                return SpillError::DiskFull { folder: self.folder.clone(), needed };
            }
            failed("write", &path)(error)
        })
    }

    /// Reads a value of `into.len()` bytes back and checks it. On an error `into` holds anything.
    ///
    /// # Errors
    /// [`SpillError::Io`], [`SpillError::Damaged`].
    pub fn restore(&self, object: ObjectId, into: &mut [u8]) -> Result<(), SpillError> {
        let path = self.path(object);
        let damaged = |why| Err(SpillError::Damaged { path: path.clone(), why });
        let mut file = File::open(&path).map_err(failed("open", &path))?;
        let mut header = [0; HEADER_BYTES];
        let read = file.read_exact(&mut header).and_then(|()| file.read_exact(into));
        match read {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return damaged("it is too short");
            }
            result => result.map_err(failed("read", &path))?,
        }
        match file.read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => return damaged("it is too long"),
            Err(error) => return Err(failed("read", &path)(error)),
        }
        if header != header_of(object, into) {
            return damaged("its checksum does not fit");
        }
        Ok(())
    }

    /// Removes a value; one that is not there is no error.
    ///
    /// # Errors
    /// [`SpillError::Io`].
    pub fn remove(&self, object: ObjectId) -> Result<(), SpillError> {
        let path = self.path(object);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    fn path(&self, object: ObjectId) -> PathBuf {
        self.folder.join(object.to_string().replace('/', "-")).with_extension(EXTENSION)
    }
}

fn write_file(path: &Path, object: ObjectId, value: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(&header_of(object, value))?;
    file.write_all(value)
}

fn header_of(object: ObjectId, value: &[u8]) -> [u8; HEADER_BYTES] {
    let len = (value.len() as u64).to_le_bytes();
    let mut hasher = blake3::Hasher::new();
    hasher.update(object.to_string().as_bytes()).update(&len).update(value);
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..16].copy_from_slice(&len);
    header[16..48].copy_from_slice(hasher.finalize().as_bytes());
    header
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SpillError {
    let path = path.to_owned();
    move |source| SpillError::Io { what, path, source }
}

#[cfg(test)]
mod tests {
    use rdist_scheduler::id::{JobId, TaskId};

    use super::*;

    fn object(index: u32) -> ObjectId {
        TaskId::driver(JobId(1)).object(index)
    }

    #[test]
    fn a_value_comes_back_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let spill = Spill::open(folder.path().join("new")).unwrap();
        let value: Vec<u8> = (0..100_000_u32).map(|x| x as u8).collect();
        spill.write(object(0), &value).unwrap();
        let mut back = vec![0; value.len()];
        spill.restore(object(0), &mut back).unwrap();
        assert_eq!(back, value);
        spill.remove(object(0)).unwrap();
        spill.remove(object(0)).unwrap();
        assert!(matches!(spill.restore(object(0), &mut back), Err(SpillError::Io { .. })));
    }

    #[test]
    fn damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let spill = Spill::open(folder.path()).unwrap();
        let mut back = [0; 1000];
        let mut expect_damage = |bytes: &[u8]| {
            fs::write(spill.path(object(0)), bytes).unwrap();
            let result = spill.restore(object(0), &mut back);
            assert!(matches!(result, Err(SpillError::Damaged { .. })), "{result:?}");
        };
        spill.write(object(0), &[7; 1000]).unwrap();
        let good = fs::read(spill.path(object(0))).unwrap();
        for place in [0, 8, 20, 50, HEADER_BYTES, good.len() - 1] {
            let mut bad = good.clone();
            bad[place] ^= 1;
            expect_damage(&bad);
        }
        expect_damage(&good[..good.len() - 1]);
        expect_damage(&[good.as_slice(), &[0]].concat());
        expect_damage(&[]);
        // Another object's value.
        spill.write(object(1), &[7; 1000]).unwrap();
        let other = fs::read(spill.path(object(1))).unwrap();
        expect_damage(&other);
    }

    #[test]
    fn a_new_worker_starts_with_an_empty_folder() {
        let folder = tempfile::tempdir().unwrap();
        let spill = Spill::open(folder.path()).unwrap();
        spill.write(object(0), &[7; 10]).unwrap();
        fs::write(folder.path().join("half.unfinished"), [1]).unwrap();
        fs::write(folder.path().join("foreign"), [1]).unwrap();
        Spill::open(folder.path()).unwrap();
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1);
    }
}

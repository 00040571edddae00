//! Values on disk, when the arena has no room for them.
//!
//! ```text
//! file   | magic 8 | length u64 | BLAKE3 of name, length and value 32 | 0 16 | value |
//! ```
//! One file for each object, written beside its name and renamed, so a name never stands for half
//! a value. The files live as long as the worker that wrote them: nothing is synced, the folder
//! goes with its [`Spill`], and the folders of workers that were killed go when another one starts
//! ([`Spill::open`]): a worker holds a lock on its own. Which values go and when is not decided
//! here. All calls block on the disk: they are for a thread that may.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rdist_scheduler::id::ObjectId;

const MAGIC: [u8; 8] = *b"rdspill1";
const HEADER_BYTES: usize = 64;
const EXTENSION: &str = "spill";
const UNFINISHED: &str = "unfinished";
const LOCK: &str = "lock";

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

/// One worker's folder.
#[derive(Debug)]
pub struct Spill {
    folder: PathBuf,
    /// Held as long as the worker lives.
    lock: File,
}

impl Spill {
    /// Makes the folder `name` in `parent`, and removes those of workers that are gone.
    ///
    /// # Errors
    /// [`SpillError::Io`].
    pub fn open(parent: &Path, name: &str) -> Result<Self, SpillError> {
        fs::create_dir_all(parent).map_err(failed("make the folder of", parent))?;
        // Nobody may take a folder for left over between its making and its lock.
        let gate = lock_file(&parent.join(LOCK)).map_err(failed("lock the folder of", parent))?;
        gate.lock().map_err(failed("lock the folder of", parent))?;
        let entries = fs::read_dir(parent).map_err(failed("list", parent))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() && is_left_over(&path) {
                empty(&path)?;
            }
        }
        let folder = parent.join(name);
        DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&folder)
            .map_err(failed("make the folder of", &folder))?;
        empty_of_values(&folder)?;
        let lock = lock_file(&folder.join(LOCK)).map_err(failed("lock the folder of", &folder))?;
        lock.try_lock().map_err(|error| failed("lock the folder of", &folder)(error.into()))?;
        Ok(Self { folder, lock })
    }

    /// Where the values are.
    pub fn folder(&self) -> &Path {
        &self.folder
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

impl Drop for Spill {
    fn drop(&mut self) {
        // What cannot be removed now, a later worker removes.
        let _ = empty(&self.folder);
        let _ = self.lock.unlock();
    }
}

fn lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)
}

/// Whether a worker had this folder that lives no longer.
fn is_left_over(folder: &Path) -> bool {
    let lock = File::options().write(true).open(folder.join(LOCK));
    lock.is_ok_and(|lock| lock.try_lock().is_ok())
}

/// Removes a folder with all that we wrote there. Foreign files keep it.
fn empty(folder: &Path) -> Result<(), SpillError> {
    empty_of_values(folder)?;
    let _ = fs::remove_file(folder.join(LOCK));
    let _ = fs::remove_dir(folder);
    Ok(())
}

fn empty_of_values(folder: &Path) -> Result<(), SpillError> {
    for file in fs::read_dir(folder).map_err(failed("list", folder))? {
        let path = file.map_err(failed("list", folder))?.path();
        let is_ours = |extension| extension == EXTENSION || extension == UNFINISHED;
        if path.extension().is_some_and(is_ours) {
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
    }
    Ok(())
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
        let spill = Spill::open(&folder.path().join("new"), "me").unwrap();
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
        let spill = Spill::open(folder.path(), "me").unwrap();
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
    fn a_folder_goes_with_its_worker_and_that_of_a_killed_one_with_the_next() {
        let parent = tempfile::tempdir().unwrap();
        let folders = || {
            let entries = fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap());
            let folders = entries.filter(|entry| entry.path().is_dir());
            let mut names: Vec<_> = folders.map(|entry| entry.file_name()).collect();
            names.sort();
            names
        };
        let alive = Spill::open(parent.path(), "alive").unwrap();
        alive.write(object(0), &[7; 10]).unwrap();
        // As after a kill: files, and a lock that nobody holds.
        let killed = parent.path().join("killed");
        fs::create_dir(&killed).unwrap();
        for name in [LOCK, "a.spill", "half.unfinished"] {
            fs::write(killed.join(name), [1]).unwrap();
        }
        let foreign = parent.path().join("foreign");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("a.spill"), [1]).unwrap();
        let next = Spill::open(parent.path(), "next").unwrap();
        assert_eq!(folders(), ["alive", "foreign", "next"]);
        assert!(foreign.join("a.spill").exists());
        alive.restore(object(0), &mut [0; 10]).unwrap();
        drop((alive, next));
        assert_eq!(folders(), ["foreign"]);
    }
}

//! Folders of jobs on this worker: unpacked once for each version, shared by the processes of all
//! jobs that came with it, removed when the last of these jobs has ended.
//!
//! ```text
//! workers/ID/lock            held while the worker lives
//! workers/ID/files/HASH/     a version of a folder that travelled with a job
//! workers/ID/scratch/JOB/    a job's own place, for its tasks to work in
//! workers/ID/driver/JOB/     the driver's files, where they came in the job's message
//! ```
//! A worker that was killed cleans nothing up: the next one of this machine does.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rdist_scheduler::id::{JobId, WorkerId};
use rustix::fs::FlockOperation;

use crate::config::Home;
use crate::wire::files::{BlobHash, Content, Manifest, SmallFile};

/// See the module's text.
#[derive(Debug)]
pub(super) struct Folders {
    folder: PathBuf,
    blobs: PathBuf,
    /// Who needs which version.
    users: HashMap<BlobHash, BTreeSet<JobId>>,
    _lock: File,
}

impl Folders {
    /// Makes the worker's folder, and removes those of workers that are no more.
    pub(super) fn create(home: &Home, worker: WorkerId) -> io::Result<Self> {
        let folder = home.worker(worker);
        let make = |path: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        make(&folder)?;
        let lock = File::create(folder.join("lock"))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        remove_abandoned(&home.workers(), &folder)?;
        make(&folder.join("files"))?;
        make(&folder.join("scratch"))?;
        Ok(Self { folder, blobs: home.blobs(), users: HashMap::new(), _lock: lock })
    }

    /// Where tasks of `job` may make folders of their own; made here.
    pub(super) fn scratch(&self, job: JobId) -> io::Result<PathBuf> {
        let path = self.folder.join("scratch").join(job.to_string());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        Ok(path)
    }

    /// Writes the small files of a job's driver; where they are then.
    pub(super) fn write(&self, job: JobId, files: &[SmallFile]) -> io::Result<PathBuf> {
        SmallFile::check(files).map_err(io::Error::other)?;
        let path = self.driver(job);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        for file in files {
            fs::write(path.join(&file.name), &file.bytes)?;
        }
        Ok(path)
    }

    /// Notes that `job` needs a version; where it is, and whether it is there already.
    pub(super) fn claim(&mut self, job: JobId, version: BlobHash) -> (PathBuf, bool) {
        self.users.entry(version).or_default().insert(job);
        let path = self.version(&version);
        let is_there = path.is_dir();
        (path, is_there)
    }

    /// The work of unpacking, for a thread that may wait for the disk; all blobs are here.
    pub(super) fn unpacking(
        &self,
        version: BlobHash,
        manifest: Manifest,
    ) -> impl FnOnce() -> io::Result<()> + Send + 'static {
        let (path, blobs) = (self.version(&version), self.blobs.clone());
        move || unpack(&blobs, &manifest, &path)
    }

    /// A job has ended: what only it needed is removed, in a thread that may wait for the disk.
    pub(super) fn job_ended(&mut self, job: JobId) -> impl FnOnce() + Send + 'static {
        let mut unused = vec![self.folder.join("scratch").join(job.to_string()), self.driver(job)];
        let ended = self.users.extract_if(|_, users| users.remove(&job) && users.is_empty());
        let ended: Vec<BlobHash> = ended.map(|(version, _)| version).collect();
        unused.extend(ended.iter().map(|version| self.version(version)));
        move || unused.iter().for_each(|path| remove(path))
    }

    /// Removes everything, at the worker's end.
    pub(super) fn remove_all(&self) {
        remove(&self.folder);
    }

    fn driver(&self, job: JobId) -> PathBuf {
        self.folder.join("driver").join(job.to_string())
    }

    fn version(&self, version: &BlobHash) -> PathBuf {
        self.folder.join("files").join(blake3::Hash::from_bytes(*version).to_hex().as_str())
    }
}

/// Removes a folder with all that is in it, if it is there.
fn remove(path: &Path) {
    // A process that is just being killed may make a file meanwhile.
    for _ in 0..3 {
        match fs::remove_dir_all(path) {
            Ok(()) => return,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            Err(error) => {
                return tracing::warn!(path = %path.display(), %error, "cannot be removed");
            }
        }
    }
    tracing::warn!(path = %path.display(), "cannot be removed: somebody writes into it");
}

/// Removes the folders of workers that do not hold their lock.
fn remove_abandoned(workers: &Path, own: &Path) -> io::Result<()> {
    for entry in fs::read_dir(workers)? {
        let path = entry?.path();
        if path == own {
            continue;
        }
        // A worker without a lock is just being made.
        let Ok(lock) = File::open(path.join("lock")) else { continue };
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            remove(&path);
        }
    }
    Ok(())
}

/// The folder appears whole or not at all. Links come last, so that nothing is written through one.
fn unpack(blobs: &Path, manifest: &Manifest, path: &Path) -> io::Result<()> {
    let partial = path.with_extension("partial");
    remove(&partial);
    fs::DirBuilder::new().mode(0o700).create(&partial)?;
    let place = |path: &str| -> io::Result<PathBuf> {
        let place = partial.join(path);
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent)?;
        }
        Ok(place)
    };
    for entry in &manifest.entries {
        if let Content::File { blob, executable, .. } = &entry.content {
            let (from, to) = (
                blobs.join(blake3::Hash::from_bytes(*blob).to_hex().as_str()),
                place(&entry.path)?,
            );
            fs::copy(&from, &to)?;
            let mode = if *executable { 0o700 } else { 0o600 };
            fs::set_permissions(&to, Permissions::from_mode(mode))?;
        }
    }
    for entry in &manifest.entries {
        if let Content::Link { target } = &entry.content {
            std::os::unix::fs::symlink(target, place(&entry.path)?)?;
        }
    }
    fs::rename(&partial, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::files::Entry;

    fn home() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        fs::create_dir(home.blobs()).unwrap();
        (folder, home)
    }

    fn manifest(home: &Home) -> Manifest {
        let bytes = b"text";
        let blob = *blake3::hash(bytes).as_bytes();
        fs::write(home.blobs().join(blake3::hash(bytes).to_hex().as_str()), bytes).unwrap();
        let file = |path: &str, executable| Entry {
            path: path.to_owned(),
            content: Content::File { blob, bytes: 4, executable },
        };
        let link = Content::Link { target: "b/run".to_owned() };
        let link = Entry { path: "c".to_owned(), content: link };
        Manifest { entries: vec![file("a", false), file("b/run", true), link] }
    }

    #[test]
    fn a_version_lives_as_long_as_a_job_needs_it() {
        let (_folder, home) = home();
        let mut folders = Folders::create(&home, WorkerId(7)).unwrap();
        let (one, two) = (JobId(1), JobId(2));
        let (path, is_there) = folders.claim(one, [1; 32]);
        assert!(!is_there);
        folders.unpacking([1; 32], manifest(&home))().unwrap();
        assert_eq!(folders.claim(two, [1; 32]), (path.clone(), true));
        assert_eq!(fs::read_to_string(path.join("c")).unwrap(), "text", "through the link");
        let mode = |name: &str| fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("a"), mode("b/run")), (0o600, 0o700));
        let scratch = folders.scratch(one).unwrap();
        fs::write(scratch.join("file"), "").unwrap();
        let small = SmallFile { name: "plan".to_owned(), bytes: b"text".to_vec() };
        let driver = folders.write(one, &[small]).unwrap();
        assert_eq!(fs::read_to_string(driver.join("plan")).unwrap(), "text");
        folders.job_ended(one)();
        assert!(path.is_dir() && !scratch.exists() && !driver.exists());
        folders.job_ended(two)();
        assert!(!path.exists());
    }

    #[test]
    fn what_a_dead_worker_left_is_removed_and_a_living_ones_is_not() {
        let (_folder, home) = home();
        let living = Folders::create(&home, WorkerId(1)).unwrap();
        let dead = Folders::create(&home, WorkerId(2)).unwrap();
        let (kept, gone) = (living.scratch(JobId(1)).unwrap(), dead.scratch(JobId(1)).unwrap());
        drop(dead);
        let last = Folders::create(&home, WorkerId(3)).unwrap();
        assert!(kept.is_dir() && !gone.exists());
        last.remove_all();
        assert!(!home.worker(WorkerId(3)).exists());
    }
}

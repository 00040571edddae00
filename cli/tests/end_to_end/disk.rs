//! Disks that are soon full.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A small disk, made of memory, over a folder.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, and says why, where mounting is not allowed.
    pub(crate) fn mount(folder: &Path, size: &str) -> Option<Self> {
        let options = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "rdist-test"])
            .arg(folder)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(folder.to_owned())),
            other => {
                eprintln!("skipped: a small disk cannot be mounted (are you root?): {other:?}");
                None
            }
        }
    }

    /// Leaves so many bytes free; the file that takes the rest.
    pub(crate) fn fill(&self, free: u64) -> PathBuf {
        let disk = rustix::fs::statvfs(&self.0).unwrap();
        let bytes = (disk.f_bavail * disk.f_frsize).saturating_sub(free);
        let file = self.0.join("filler");
        std::fs::write(&file, vec![1; bytes as usize]).unwrap();
        file
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process may have its last file there open.
        let unmount = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmount.unwrap().success());
    }
}

//! Whether the disk of the state folder has room for more work. What was taken goes on writing: a
//! head that cannot make its own state durable ends.

use std::path::Path;

use crate::wire::client::ClientRefusal;

/// Kept free for what jobs that were taken still have to say, and for their ends.
const RESERVE_BYTES: u64 = 4 << 20;

/// Whether so many bytes more fit beside the reserve.
pub(super) fn check(folder: &Path, bytes: u64) -> Result<(), ClientRefusal> {
    // A file system that does not tell says so when something is written.
    let Ok(disk) = rustix::fs::statvfs(folder) else { return Ok(()) };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let needed = bytes.saturating_add(RESERVE_BYTES);
    if free >= needed {
        return Ok(());
    }
    Err(ClientRefusal::DiskFull { folder: folder.display().to_string(), free, needed })
}

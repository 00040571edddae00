//! What the kernel says of a process.

use std::fs;

/// Its memory in bytes; what it shares with others is divided among them.
pub(super) fn pss_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

/// Who started it.
pub(super) fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    field(&status, "PPid:").and_then(|pid| u32::try_from(pid).ok())
}

/// Whom its threads have started.
pub(super) fn children(pid: u32) -> Vec<u32> {
    let lists = threads(pid, "children");
    lists.iter().flat_map(|list| list.split_ascii_whitespace()).flat_map(str::parse).collect()
}

/// Itself and whom it has started.
pub(super) fn with_children(pid: u32) -> Vec<u32> {
    let mut pids = children(pid);
    pids.push(pid);
    pids
}

/// That file of each of its threads.
fn threads(pid: u32, file: &str) -> Vec<String> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    threads.flatten().flat_map(|thread| fs::read_to_string(thread.path().join(file))).collect()
}

/// The number after that word at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_known() {
        let me = std::process::id();
        assert!(pss_bytes(me).unwrap() > 100_000);
        assert!(children(parent(me).unwrap()).contains(&me));
        assert_eq!(pss_bytes(u32::MAX), None);
    }
}

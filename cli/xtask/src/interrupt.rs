//! SIGINT, SIGTERM and SIGHUP become a flag, so that what was started is stopped in order.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

static REQUESTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From here on those signals only set the flag. Children start with the default reaction, as
/// handlers do not survive an exec.
pub(crate) fn catch() -> anyhow::Result<()> {
    let flag = REQUESTED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(flag))?;
    }
    Ok(())
}

/// Whether one of the signals came.
pub(crate) fn requested() -> bool {
    REQUESTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// Asks a child of ours to end.
pub(crate) fn terminate(child: u32) {
    let Some(pid) = i32::try_from(child).ok().and_then(rustix::process::Pid::from_raw) else {
        return;
    };
    // It may have ended by itself; it is not reaped yet, so the id cannot be somebody else's.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
}

/// Waits between two looks at a child; a signal does not shorten it.
pub(crate) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

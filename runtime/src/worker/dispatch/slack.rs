//! Memory that a burst of work has taken goes back to the system when the burst is over: an idle
//! worker is small, whatever it has done.

use std::time::{Duration, Instant};

use super::Dispatch;

/// The next burst may follow soon, and would only take the memory again.
const PATIENCE: Duration = Duration::from_secs(1);

/// Since when the worker has been idle with memory to give back.
#[derive(Default)]
pub(super) struct Slack {
    since: Option<Instant>,
}

impl Dispatch {
    /// When memory is to be given back, if nothing comes before.
    pub(super) fn slack_timeout(&mut self) -> Option<Duration> {
        if !self.core.has_slack() {
            return None;
        }
        let since = *self.slack.since.get_or_insert_with(Instant::now);
        Some((since + PATIENCE).saturating_duration_since(Instant::now()))
    }

    /// After a turn that brought something, or did not.
    pub(super) fn give_slack_back(&mut self, busy: bool) {
        let Some(since) = self.slack.since else { return };
        if busy {
            self.slack.since = None;
        } else if since.elapsed() >= PATIENCE {
            self.slack.since = None;
            self.core.give_slack_back();
            self.table.shrink_to_fit();
            trim_heap();
        }
    }
}

/// Gives free pages in the middle of the heap back; its end goes back by itself.
fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // Safety: it touches nothing but what is free, under the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

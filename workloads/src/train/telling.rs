//! What a replica tells while it trains, so that somebody can watch.

use std::time::{Duration, Instant};

use rdist::prelude::*;
use serde_json::json;

use crate::metric::Tally;

/// Between two times that it tells, at first and at most; in between, a hundredth of its age.
const EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// See the module.
pub(super) struct Telling {
    replica: u32,
    made: Instant,
    last: Instant,
    tally: Tally,
}

impl Telling {
    pub(super) fn of(replica: u32) -> Self {
        let now = Instant::now();
        Self { replica, made: now, last: now, tally: Tally::default() }
    }

    /// How old it is, in seconds.
    pub(super) fn age(&self) -> f64 {
        self.made.elapsed().as_secs_f64()
    }

    /// A call begins: time before it was not spent in training.
    pub(super) fn begin(&mut self) {
        if self.tally.images == 0 {
            self.last = Instant::now();
        }
    }

    /// Counts a batch of an epoch, and tells of all since it was told last if that is a while ago.
    pub(super) fn count(&mut self, cx: &Context, epoch: u64, tally: Tally) {
        self.tally += tally;
        let (now, (least, most)) = (Instant::now(), EVERY);
        let since = now.duration_since(self.last);
        if since < (now.duration_since(self.made) / 100).clamp(least, most) {
            return;
        }
        cx.emit(&json!({
            "event": "step", "replica": self.replica, "epoch": epoch + 1,
            "images": self.tally.images, "train_loss": self.tally.mean_loss(),
            "images_per_second": self.tally.images as f64 / since.as_secs_f64(),
        }));
        (self.last, self.tally) = (now, Tally::default());
    }
}

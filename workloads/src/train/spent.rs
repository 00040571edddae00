//! Where the time of a replica goes.

use std::time::Instant;

use rkyv::{Archive, Deserialize, Serialize};
use serde_json::{Value, json};

use crate::metric::Tally;

/// What a replica has done since it was made, and how long each part of it took, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Archive, Serialize, Deserialize)]
#[allow(missing_docs, reason = "rkyv copies fields without their docs")]
pub struct Spent {
    /// Counted in training.
    pub tally: Tally,
    /// Forward and backward passes, and steps of its own optimiser.
    pub compute: f64,
    /// Waiting for batches: reading, augmenting.
    pub data: f64,
    /// Taking over parameters, reading and applying others' gradients, handing on its own.
    pub merge: f64,
    /// All of its life.
    pub alive: f64,
}

impl Spent {
    /// All time that is none of the others: for calls, and for what they need.
    pub fn wait(&self) -> f64 {
        (self.alive - self.compute - self.data - self.merge).max(0.0)
    }

    /// What came since `before`.
    pub fn since(&self, before: &Self) -> Self {
        let Tally { images, correct, loss } = before.tally;
        Self {
            tally: Tally {
                images: self.tally.images.saturating_sub(images),
                correct: self.tally.correct.saturating_sub(correct),
                loss: self.tally.loss - loss,
            },
            compute: self.compute - before.compute,
            data: self.data - before.data,
            merge: self.merge - before.merge,
            alive: self.alive - before.alive,
        }
    }

    /// Of a round of so many seconds, as an event of the job.
    pub fn event(&self, round: u64, replica: u32, seconds: f64) -> Value {
        json!({
            "event": "replica", "round": round, "replica": replica, "images": self.tally.images,
            "images_per_second": self.tally.images as f64 / seconds.max(1e-9),
            "train_loss": self.tally.mean_loss(), "train_accuracy": self.tally.accuracy(),
            "compute_seconds": self.compute, "data_seconds": self.data,
            "merge_seconds": self.merge, "wait_seconds": self.wait(),
        })
    }
}

/// A clock that is read lap by lap.
pub(super) struct Laps(Instant);

impl Laps {
    /// From now on.
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    /// Seconds since the last reading.
    pub(super) fn lap(&mut self) -> f64 {
        let now = Instant::now();
        now.duration_since(std::mem::replace(&mut self.0, now)).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_work_is_waiting() {
        let tally = Tally { images: 10, correct: 5, loss: 2.0 };
        let first = Spent { tally, compute: 1.0, data: 0.5, merge: 0.25, alive: 2.0 };
        assert_eq!(first.wait(), 0.25);
        let tally = Tally { images: 30, correct: 20, loss: 3.0 };
        let second = Spent { tally, compute: 2.0, data: 1.0, merge: 0.5, alive: 6.0 };
        let event = second.since(&first).event(2, 1, 4.0);
        assert_eq!((&event["images"], &event["images_per_second"]), (&json!(20), &json!(5.0)));
        assert_eq!((&event["train_loss"], &event["train_accuracy"]), (&json!(0.05), &json!(0.75)));
        assert_eq!(event["wait_seconds"], 2.25);
    }
}

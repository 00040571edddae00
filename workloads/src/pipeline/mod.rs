//! Prediction as a pipeline of actors: read, decode, normalise, predict, each a pool; the driver
//! collects. Between stages are bounded queues, in the object store.
//!
//! ```text
//! stage    the stages, how many actors each is worth     flow    which image is where (pure)
//! hand     an actor, which can do any stage's work       crew    actors made, called, replaced
//! collect  what was predicted: once for each image       profile what each activity costs
//! telling  how far it is, who goes where
//! ```
//! The driver hands out calls of a block or batch of images each, so that a hop (a few dozen
//! microseconds) is paid for many images at once; that is why no stages are fused. Only references
//! go through the driver.

mod collect;
mod crew;
pub mod flow;
mod hand;
pub mod profile;
mod queue;
pub mod stage;
mod telling;
mod work;

use std::time::Duration;

use rdist::prelude::*;
use serde_json::json;

pub use collect::{Collect, Predicted, Table};
pub use hand::Duty;
use stage::{Each, Stage};
pub use telling::Moved;

use crate::data::stored::Dataset;
use crate::data::table::Sample;
use crate::train::error::JobError;

/// How the pipeline is to run: keys of `[infer]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `batch`: most images in one.
    pub batch: u32,
    /// `batch_wait`: how long an image waits for a batch to be full.
    pub wait: Duration,
    /// `block`: pictures that are read and decoded with one call.
    pub block: u32,
    /// `queue`: images between two stages.
    pub queue: u32,
    /// `readers`, `decoders`, `normalisers`, `predictors`; `None`: one, and of the predictors one
    /// for each CPU.
    pub actors: Each<Option<u32>>,
    /// `balance`: whether actors go where they are needed.
    pub balance: bool,
    /// `ordered`: whether predictions come out in the order of the images.
    pub ordered: bool,
}

/// What is to be predicted.
pub enum Source<'a> {
    /// Pictures in files, which the driver's machine sees.
    Files(&'a [Sample]),
    /// Pixels in the object store.
    Images(&'a Dataset),
}

/// How a run went.
#[derive(Debug, Clone)]
pub struct Report {
    /// Images that were predicted.
    pub images: u64,
    /// Images that were of no use.
    pub failed: u64,
    /// From the moment when every stage had an actor.
    pub seconds: f64,
    /// Actors at the end.
    pub sizes: Each<u32>,
    /// What each stage has done.
    pub stages: Each<flow::Done>,
    /// Actors that were lost.
    pub losses: u32,
    /// Actors that went to another stage, in order.
    pub moves: Vec<Moved>,
}

impl Report {
    /// The pace of it all.
    pub fn images_per_second(&self) -> f64 {
        self.images as f64 / self.seconds.max(1e-9)
    }

    /// All of it, in a line.
    pub fn summary(&self) -> String {
        let mut text = format!(
            "predicted {} images in {:.2} s: {:.1} images/s",
            self.images,
            self.seconds,
            self.images_per_second()
        );
        for (count, what) in [
            (self.failed as u32, "of no use"),
            (self.losses, "actors lost"),
            (self.moves.len() as u32, "actors moved"),
        ] {
            if count > 0 {
                text += &format!(", {count} {what}");
            }
        }
        text
    }

    /// For people, with a line for each stage.
    pub fn text(&self) -> String {
        let mut text = self.summary() + "\n";
        for stage in Stage::ALL {
            let (done, actors) = (self.stages[stage as usize], self.sizes[stage as usize]);
            if done.calls == 0 {
                continue;
            }
            text += &format!(
                "  {:<9} {actors:>2} {}, {:>5} calls, {:>8.3} ms an image, busy {:>3.0} %, at most \
                 {} waited\n",
                stage.name(),
                if actors == 1 { "actor " } else { "actors" },
                done.calls,
                1e3 * done.cost(),
                100.0 * self.busy(stage),
                done.most_waiting,
            );
        }
        text
    }

    /// Share of the time that the stage's actors worked.
    pub fn busy(&self, stage: Stage) -> f64 {
        let actors = f64::from(self.sizes[stage as usize].max(1));
        self.stages[stage as usize].busy.as_secs_f64() / (actors * self.seconds.max(1e-9))
    }

    /// For programs.
    fn event(&self) -> serde_json::Value {
        let stages = Stage::ALL.map(|stage| {
            let done = self.stages[stage as usize];
            json!({
                "stage": stage.name(), "actors": self.sizes[stage as usize],
                "calls": done.calls, "images": done.images, "busy_seconds": done.busy.as_secs_f64(),
                "seconds_per_image": done.cost(), "most_waiting": done.most_waiting,
            })
        });
        json!({
            "event": "pipeline", "images": self.images, "failed": self.failed,
            "seconds": self.seconds, "images_per_second": self.images_per_second(),
            "actors_lost": self.losses, "actors_moved": self.moves.len(), "stages": stages,
        })
    }
}

/// Predicts every image of a source, each once. `labels` are of its rows
/// ([`NO_LABEL`](crate::data::stored::NO_LABEL) where there is none); `collect` takes every row as
/// it is predicted, or found to be of no use.
///
/// # Errors
/// An error of an actor's code, an image that cost too many actors, or the cluster's.
pub async fn predict(
    cx: &Driver,
    duty: Duty,
    source: &Source<'_>,
    labels: &[u32],
    settings: &Settings,
    collect: Collect,
) -> Result<(Predicted, Report), JobError> {
    let crew = crew::Crew::new(cx.clone(), duty, settings.clone(), collect);
    let (predicted, report) = crew.run(source, labels).await?;
    print!("{}", report.text());
    cx.emit(&report.event());
    Ok((predicted, report))
}

#[cfg(test)]
mod tests;

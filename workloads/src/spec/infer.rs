//! `[infer]`: how test images are predicted.

use std::time::Duration;

use super::document::Section;
use super::{InferSpec, SpecError};
use crate::pipeline::Settings;

pub(super) fn read(mut section: Section<'_>) -> Result<InferSpec, SpecError> {
    let expected = "a saved model or checkpoint (a file, or s3://BUCKET/KEY)";
    let model = section.named("model", "none", MODEL, expected)?;
    let samples = section.integer("samples", 0..=100, 6, SAMPLES)?;
    let batch = section.integer("batch", 1..=4_096, 32, BATCH)? as u32;
    let wait = section.integer("batch_wait", 0..=60_000, 50, WAIT)?;
    let block = section.integer("block", 1..=32, 16, BLOCK)? as u32;
    let queue = section.integer("queue", 1..=65_536, 128, QUEUE)? as u32;
    let mut actors = |key, default: Option<u64>, about| {
        let count = section.integer_or(key, "auto", 1..=1_024, default, about)?;
        Ok(count.map(|count| count as u32))
    };
    let actors = [
        actors("readers", None, READERS)?,
        actors("decoders", None, DECODERS)?,
        actors("normalisers", None, NORMALISERS)?,
        actors("predictors", None, PREDICTORS)?,
    ];
    let balance = section.choice("balance", &[("auto", true), ("off", false)], true, BALANCE)?;
    let ordered = section.flag("ordered", true, ORDERED)?;
    section.finish()?;
    let wait = Duration::from_millis(wait);
    let pipeline = Settings { batch, wait, block, queue, actors, balance, ordered };
    Ok(InferSpec { model, samples, pipeline })
}

const MODEL: &str = "Predict the test images with this saved model or checkpoint (a file, or \
    `s3://bucket/key`) instead of training one.";
const SAMPLES: &str = "How many test images to show with their predicted label.";
const BATCH: &str = "Most images in a batch. Towards the end batches get smaller, so that all \
    predictors end together.";
const WAIT: &str = "Milliseconds that an image waits for its batch to be full.";
const BLOCK: &str = "Pictures that are read, and decoded, with one call.";
const QUEUE: &str = "Images that may wait between two stages; a stage stands still while the \
    queue behind it is full. A queue holds a batch and a block at least.";
const READERS: &str = "Actors that read files, on the driver's machine; `auto` is one. Actors \
    that prepare images hold no CPU: they run on what predictors leave.";
const DECODERS: &str = "Actors that decode and resize pictures; `auto` is one.";
const NORMALISERS: &str = "Actors that make batches of numbers; `auto` is one.";
const PREDICTORS: &str = "Actors that predict, each with a CPU; `auto` follows the CPUs of the \
    cluster (or `train.replicas`), also while it grows.";
const BALANCE: &str = "`auto`: actors go to the stage that all others wait for, and the job says \
    when and why. `rdist profile` recommends numbers to start with.";
const ORDERED: &str = "Whether `predictions.csv` is in the order of the test table, or as \
    predictions come.";

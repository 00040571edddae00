//! The model's way through S3: uploaded by the driver, fetched and tested by a task of its own on
//! whatever worker, which has nothing of the training but the address.

use std::path::{Path, PathBuf};
use std::time::Instant;

use rdist::prelude::*;
use serde_json::{Map, Value, json};

use super::checkpoint::{self, CheckpointError, Saved};
use super::error::JobError;
use super::prepare::Prepared;
use super::trainer::{Recipe, Trainer};
use crate::data::Images;
use crate::data::stored::Dataset;
use crate::device::Processor;
use crate::metric::{Answers, Seen, accuracy};
use crate::spec::OutputSpec;
use crate::{place, tensor};

/// Whether everything that the job is to write can be written.
///
/// # Errors
/// [`CheckpointError::Write`].
pub(super) fn probe(output: &OutputSpec) -> Result<(), JobError> {
    checkpoint::probe(&output.folder)?;
    if output.checkpoints != output.folder {
        checkpoint::probe(&output.checkpoints)?;
    }
    if let Some(folder) = output.upload.as_deref().and_then(Path::parent) {
        checkpoint::probe(folder)?;
    }
    Ok(())
}

/// A model that is uploaded.
pub(super) struct Uploaded {
    /// The file.
    pub(super) from: PathBuf,
    /// How it was trained.
    pub(super) recipe: Recipe,
}

impl Uploaded {
    /// Copies the model to S3 and has it tested from there; returns the figures.
    ///
    /// # Errors
    /// S3's, or the task's.
    pub(super) async fn upload(
        self,
        cx: &Driver,
        to: &Path,
        data: &Prepared,
    ) -> Result<Map<String, Value>, JobError> {
        let failed = |source| CheckpointError::Write { path: to.to_owned(), source };
        let started = Instant::now();
        let content = place::read(&self.from).map_err(failed)?;
        let bytes = content.len();
        place::replace(to, content).map_err(failed)?;
        let seconds = started.elapsed().as_secs_f64();
        println!("model uploaded to {} ({bytes} bytes)", to.display());
        cx.emit(&json!({
            "event": "uploaded", "path": to, "bytes": bytes, "seconds": seconds,
        }));
        let Self { recipe, .. } = self;
        let path = to.display().to_string();
        let tested = test_model.with().cpus(1.0);
        let accuracy: Option<f64> =
            tested.submit(cx, path, recipe, &data.tests.dataset(cx)?).await?;
        let named = accuracy.map(|value| ("uploaded_test_accuracy".to_owned(), json!(value)));
        Ok(named.into_iter().collect())
    }
}

/// Fetches a model, tests it on `test`, and returns its accuracy; `None` where no classes are
/// known.
#[rdist::task]
fn test_model(path: String, recipe: Recipe, test: Dataset) -> Result<Option<f64>, String> {
    tensor::use_leased_threads();
    let text = |error: CheckpointError| error.to_string();
    let saved = Saved::read(Path::new(&path)).map_err(text)?;
    let images = test.open().map_err(|error| error.to_string())?;
    let mut trainer = Trainer::new(Recipe {
        architecture: saved.identity.architecture,
        input: saved.identity.input,
        normal: saved.identity.normal,
        processor: Processor::Cpu,
        ..recipe
    })?;
    if images.shape() != saved.identity.input.shape || !trainer.set_parameters(&saved.parameters) {
        return Err(format!(
            "{path} holds {}, not the job's model; does another job upload to it?",
            saved.identity
        ));
    }
    let answers: Answers = trainer.answers(&images, 0..images.count() as u64);
    let seen = Seen::new(&answers, &images.labels(), saved.identity.classes.len() as u32);
    let accuracy = (accuracy::ACCURACY.of)(&seen);
    if let Some(accuracy) = accuracy {
        let count = seen.pairs.len();
        println!("{path}, fetched: test accuracy {accuracy:.4} of {count} images");
    }
    Ok(accuracy)
}

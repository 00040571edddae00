//! Where a training starts: at first values, at weights from elsewhere, or at its checkpoint.

use std::path::Path;

use rdist::prelude::*;

use super::Standing;
use super::checkpoint::{self, CHECKPOINT_FILE, Identity, Saved};
use super::error::JobError;
use super::trainer::Recipe;
use crate::model::weights;
use crate::spec::Spec;

/// What a training knows when it starts.
pub(super) struct Start {
    pub(super) standing: Standing,
    /// Whether the checkpoint gave it.
    pub(super) resumed: bool,
    /// The best value that was watched so far, and in which round.
    pub(super) best: Option<(f64, u64)>,
}

/// At the checkpoint, where the TOML says so or where this driver has been running before; else
/// at the weights that the TOML names; else at the values that the seed draws.
pub(super) fn start(
    cx: &Driver,
    spec: &Spec,
    recipe: &Recipe,
    identity: &Identity,
) -> Result<Start, JobError> {
    let path = spec.output.checkpoints.join(CHECKPOINT_FILE);
    let again = cx.attempt() > 0;
    if spec.train.resume || (again && checkpoint::exists(&path)?) {
        return resume(cx, &path, identity, again);
    }
    if again {
        println!("the driver was restarted before its first checkpoint: starting anew");
    } else {
        // A restarted driver must not take an older job's checkpoint for its own.
        checkpoint::remove(&path)?;
    }
    let model = recipe.model();
    let mut parameters = model.layout().initial(recipe.seed);
    if let Some(file) = &spec.model.weights {
        let head = recipe.architecture.head();
        let loaded = weights::load(file, model.layout(), head, &mut parameters)?;
        println!("weights of {}: {loaded}", file.display());
    }
    let parameters = cx.put(&parameters)?;
    let standing = Standing { epochs: 0, shown: 0, parameters, optimiser: None };
    Ok(Start { standing, resumed: false, best: None })
}

fn resume(cx: &Driver, path: &Path, identity: &Identity, again: bool) -> Result<Start, JobError> {
    let saved = Saved::read(path)?;
    if !saved.identity.is_like(identity) {
        return Err(JobError::Unfit(format!(
            "{} holds {}, the job trains {identity}",
            path.display(),
            saved.identity
        )));
    }
    let why = if again { "the driver was restarted" } else { "train.resume" };
    println!("{why}: going on from epoch {} of {}", saved.epochs, path.display());
    if saved.shown > 0 {
        println!("of the next epoch, {} images were shown already", saved.shown);
    }
    let parameters = cx.put(&saved.parameters)?;
    let Saved { epochs, shown, optimiser, best, .. } = saved;
    let standing = Standing { epochs, shown, parameters, optimiser };
    Ok(Start { standing, resumed: true, best })
}

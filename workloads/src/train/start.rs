//! Where a training starts: at first values, at weights from elsewhere, or at its checkpoint.

use std::path::Path;

use rdist::prelude::*;

use super::checkpoint::{self, CHECKPOINT_FILE, CheckpointError, Identity, Saved, Terms};
use super::error::JobError;
use super::trainer::Recipe;
use super::{Standing, resume, shelf};
use crate::model::weights;
use crate::spec::{Resume, Spec};

/// What a training knows when it starts.
pub(super) struct Start {
    pub(super) standing: Standing,
    /// Whether the checkpoint gave it.
    pub(super) resumed: bool,
    /// The best value that was watched so far, and in which round.
    pub(super) best: Option<(f64, u64)>,
    /// Members of the federation that the checkpoint is of.
    pub(super) members: Option<u32>,
}

/// At the checkpoint, where the TOML says so or where this driver has been running before; else
/// at the weights that the TOML names; else at the values that the seed draws.
pub(super) fn start(
    cx: &Driver,
    spec: &Spec,
    recipe: &Recipe,
    identity: &Identity,
    terms: &Terms,
) -> Result<Start, JobError> {
    let folder = &spec.output.checkpoints;
    let path = folder.join(CHECKPOINT_FILE);
    let resume = |why: &str| resume::resume(cx, spec, identity, terms, why);
    let (again, is_there) = (cx.attempt() > 0, checkpoint::exists(&path)?);
    match spec.train.resume {
        _ if again && is_there && is_own(&path, spec) => return resume("the driver was restarted"),
        Resume::Always if is_there => return resume("train.resume"),
        Resume::Always => return Err(CheckpointError::Missing { path }.into()),
        Resume::Auto if is_there => match resume("train.resume") {
            Err(reason) if is_of_no_use(&reason) => println!("{reason}; starting anew"),
            resumed => return resumed,
        },
        Resume::Auto => println!("there is no {} to go on from: starting", path.display()),
        Resume::Never if again => {
            println!("the driver was restarted before its first checkpoint: starting anew");
        }
        Resume::Never => {}
    }
    let model = recipe.model();
    let mut parameters = model.layout().initial(recipe.seed);
    if let Some(file) = &spec.model.weights {
        let head = recipe.architecture.head();
        let loaded = weights::load(file, model.layout(), head, &mut parameters)?;
        println!("weights of {}: {loaded}", file.display());
    }
    // After the weights were read, which may be among them.
    if let Some(aside) = shelf::set_aside(folder)? {
        println!("checkpoints of an earlier training are now in {}", aside.display());
    }
    let parameters = cx.put(&parameters)?;
    let standing = Standing { epochs: 0, shown: 0, parameters, optimiser: None };
    Ok(Start { standing, resumed: false, best: None, members: None })
}

/// Whether the checkpoint is one that this job's driver has written before it was lost. An earlier
/// training's may still lie there: its driver may have been lost before that was moved away.
fn is_own(path: &Path, spec: &Spec) -> bool {
    let unknown = spec.run.is_none();
    // One that cannot be read is told of where it is read in earnest.
    unknown || Saved::read(path).map_or(true, |saved| saved.run == spec.run)
}

/// Whether a checkpoint could be read, and is none of this training.
fn is_of_no_use(error: &JobError) -> bool {
    matches!(error, JobError::Unfit(_) | JobError::Checkpoint(CheckpointError::Content { .. }))
}

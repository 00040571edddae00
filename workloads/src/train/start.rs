//! Where a training starts: at first values, at weights from elsewhere, or at its checkpoint.

use rdist::prelude::*;

use super::Standing;
use super::checkpoint::{self, CHECKPOINT_FILE, CheckpointError, Identity, Saved};
use super::error::JobError;
use super::shelf;
use super::trainer::Recipe;
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
) -> Result<Start, JobError> {
    let folder = &spec.output.checkpoints;
    let path = folder.join(CHECKPOINT_FILE);
    let (again, is_there) = (cx.attempt() > 0, checkpoint::exists(&path)?);
    match spec.train.resume {
        // What an earlier training had left was moved away before this one wrote its own.
        _ if again && is_there => return resume(cx, spec, identity, "the driver was restarted"),
        Resume::Always if is_there => return resume(cx, spec, identity, "train.resume"),
        Resume::Always => return Err(CheckpointError::Missing { path }.into()),
        Resume::Auto if is_there => match resume(cx, spec, identity, "train.resume") {
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

/// Whether a checkpoint could be read, and is none of this training.
fn is_of_no_use(error: &JobError) -> bool {
    matches!(error, JobError::Unfit(_) | JobError::Checkpoint(CheckpointError::Content { .. }))
}

fn resume(cx: &Driver, spec: &Spec, identity: &Identity, why: &str) -> Result<Start, JobError> {
    let path = &spec.output.checkpoints.join(CHECKPOINT_FILE);
    let saved = Saved::read(path)?;
    if !saved.identity.is_like(identity) {
        return Err(JobError::Unfit(format!(
            "{} holds {}, the job trains {identity}",
            path.display(),
            saved.identity
        )));
    }
    if let (Some(wanted), Some(members)) = (spec.train.merging.members, saved.members)
        && wanted != members
    {
        return Err(JobError::Unfit(format!(
            "{} is of a federation of {members} members, the job's train.members is {wanted}; \
             without train.members it goes on with those that it has",
            path.display()
        )));
    }
    println!("{why}: going on from epoch {} of {}", saved.epochs, path.display());
    if saved.shown > 0 {
        println!("of the next epoch, {} images were shown already", saved.shown);
    }
    if let Some(aside) = shelf::set_aside_after(&spec.output.checkpoints, saved.epochs)? {
        println!("checkpoints of later epochs are now in {}", aside.display());
    }
    let parameters = cx.put(&saved.parameters)?;
    let Saved { epochs, shown, optimiser, best, members, .. } = saved;
    let standing = Standing { epochs, shown, parameters, optimiser };
    Ok(Start { standing, resumed: true, best, members })
}

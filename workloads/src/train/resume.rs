//! Going on from a checkpoint: what must fit it, what is said where the job differs from the one
//! that wrote it, and which round was the best so far.

use std::path::Path;

use rdist::prelude::*;

use super::checkpoint::{
    self, BEST_FILE, CHECKPOINT_FILE, CheckpointError, Identity, Saved, Terms,
};
use super::error::JobError;
use super::start::Start;
use super::{Standing, shelf};
use crate::spec::Spec;

/// How the number of images to train on is called among the terms.
const IMAGES: &str = "images to train on";
/// Terms that the order of an epoch's images follows from.
const ORDER: [&str; 4] = [IMAGES, "data.split_seed", "train.seed", "train.strategy"];

/// What a training depends on beside its model.
pub(super) fn terms(spec: &Spec, images: usize) -> Terms {
    let mut terms = spec.terms();
    terms.insert(IMAGES.to_owned(), images.to_string());
    terms
}

/// Where the checkpoint of the job's folder stands.
///
/// # Errors
/// It cannot be read, or its state is of no use to the job.
pub(super) fn resume(
    cx: &Driver,
    spec: &Spec,
    identity: &Identity,
    terms: &Terms,
    why: &str,
) -> Result<Start, JobError> {
    let folder = &spec.output.checkpoints;
    let path = folder.join(CHECKPOINT_FILE);
    let mut saved = Saved::read(&path)?;
    check(&path, &saved, spec, identity)?;
    println!("{why}: going on from epoch {} of {}", saved.epochs, path.display());
    let differing = differing(&saved.terms, terms);
    if !differing.is_empty() {
        let told = differing.iter().map(|(key, was, is)| format!("{key} is {is}, was {was}"));
        println!("unlike in the training so far, {}", told.collect::<Vec<_>>().join("; "));
    }
    if saved.shown > 0 && differing.iter().any(|(key, _, _)| ORDER.contains(key)) {
        println!("{} images of the next epoch were in another order: it begins anew", saved.shown);
        saved.shown = 0;
    } else if saved.shown > 0 {
        println!("of the next epoch, {} images were shown already", saved.shown);
    }
    match spec.train.memory() {
        Some(memory) if saved.optimiser.is_none() && saved.epochs > 0 => {
            println!("the checkpoint has no {memory}: that begins anew");
        }
        Some(_) => {}
        None => saved.optimiser = None,
    }
    if let Some(aside) = shelf::set_aside_after(folder, saved.epochs)? {
        println!("checkpoints of later epochs are now in {}", aside.display());
    }
    let measured = |key: &str| key == "train.monitor" || key.starts_with("data.");
    let best = match differing.iter().any(|(key, _, _)| measured(key)) {
        true => None,
        false => best(spec, folder, &saved)?,
    };
    let parameters = cx.put(&saved.parameters)?;
    let Saved { epochs, shown, optimiser, members, .. } = saved;
    let standing = Standing { epochs, shown, parameters, optimiser };
    Ok(Start { standing, resumed: true, best, members })
}

/// Terms that were others, with what they were and are. Of those that only one of both knows,
/// another version of this program, nothing can be said.
fn differing<'a>(before: &'a Terms, now: &'a Terms) -> Vec<(&'a str, &'a str, &'a str)> {
    let both = before.iter().filter_map(|(key, was)| Some((key, was, now.get(key)?)));
    let differing = both.filter(|(_, was, is)| was != is);
    differing.map(|(key, was, is)| (key.as_str(), was.as_str(), is.as_str())).collect()
}

/// Whether the checkpoint's state is one that the job can use.
fn check(path: &Path, saved: &Saved, spec: &Spec, identity: &Identity) -> Result<(), JobError> {
    let path = path.display();
    if !saved.identity.is_like(identity) {
        return Err(JobError::Unfit(format!(
            "{path} holds {}, the job trains {identity}; model.name and \
             data.size must be as they were, or output.folder another folder",
            saved.identity
        )));
    }
    if saved.identity.classes != identity.classes {
        return Err(JobError::Unfit(format!(
            "{path} tells other classes apart than those of the data, or has them in another \
             order; model.weights = \"{path}\" starts a training from its parameters"
        )));
    }
    if let (Some(was), Some(is)) = (saved.memory.as_deref(), spec.train.memory())
        && was != is
    {
        return Err(JobError::Unfit(format!(
            "{path} has {was}, which is of no use to train.strategy = \"{}\" with its {is}; \
             model.weights = \"{path}\" starts a training from its parameters",
            spec.train.strategy.name()
        )));
    }
    match (spec.train.merging.members, saved.members) {
        (Some(is), Some(was)) if was != is => Err(JobError::Unfit(format!(
            "{path} is of a federation of {was} members, train.members is {is}; without \
             train.members it goes on with those that it has"
        ))),
        _ => Ok(()),
    }
}

/// The best round so far, if its model is there to be chosen in the end.
fn best(spec: &Spec, folder: &Path, saved: &Saved) -> Result<Option<(f64, u64)>, CheckpointError> {
    let (Some((_, round)), true) = (saved.best, spec.train.selection.best) else {
        return Ok(saved.best);
    };
    let file = folder.join(BEST_FILE);
    let is_there = checkpoint::exists(&file)?;
    if is_there && Saved::read(&file).is_ok_and(|best| best.epochs == round) {
        return Ok(saved.best);
    }
    if (saved.epochs, saved.shown) == (round, 0) {
        let model = Saved { optimiser: None, memory: None, best: None, ..saved.clone() };
        model.write(&file)?;
        return Ok(saved.best);
    }
    println!("round {round} was the best, but its model was not kept: one of the next is chosen");
    Ok(None)
}

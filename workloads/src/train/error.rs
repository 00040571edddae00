//! What ends a job before its time.

use std::path::PathBuf;

use rdist::scheduler::outcome::{Cause, TaskError};

use super::aggregate::AggregateError;
use super::checkpoint::CheckpointError;
use super::replica::INPUT_LOST;
use crate::data::find::NotFound;
use crate::data::folders::FolderError;
use crate::data::herbarium::HerbariumError;
use crate::data::mnist::MnistError;
use crate::data::picture::PictureError;
use crate::model::weights::WeightsError;
use crate::spec::SpecError;

/// Why a job failed.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The TOML.
    #[error(transparent)]
    Spec(Box<SpecError>),
    /// The data.
    #[error(transparent)]
    Digits(#[from] MnistError),
    /// The data is nowhere.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// Pictures in folders.
    #[error(transparent)]
    Folders(#[from] FolderError),
    /// Pictures with metadata.
    #[error(transparent)]
    Herbarium(#[from] HerbariumError),
    /// Images that cannot be made as the job wants them.
    #[error("{0}; data.size may be smaller")]
    Picture(#[from] PictureError),
    /// Weights from elsewhere.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A table or figures could not be written.
    #[error("cannot write {path}: {source}; output.folder names another folder")]
    Output {
        /// Which file or folder.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// Models on disk.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Results that cannot be combined.
    #[error(transparent)]
    Aggregate(#[from] AggregateError),
    /// A replica's code, or the cluster.
    #[error(transparent)]
    Cluster(#[from] rdist::Error),
    /// Replicas die as fast as they are made.
    #[error(
        "{losses} replicas were lost and no work was done between, the last one because {last}; is \
         there enough memory for them?"
    )]
    TooManyLosses {
        /// How many.
        losses: u32,
        /// What became of the last one.
        last: String,
    },
    /// A picture that the pipeline cannot get through.
    #[error(
        "image {row} of the table was tried again and again, and each time an actor was lost with \
         it, the last one because {last}; data.limit or another table leaves it out"
    )]
    Image {
        /// Which one, from 1.
        row: u64,
        /// What happened last.
        last: String,
    },
    /// A GPU is wanted, and there is none.
    #[error(
        "{place}: train.device is \"{device}\", but {reason}; train.device = \"cpu\" computes on \
         CPUs"
    )]
    Device {
        /// File and line, or the override.
        place: String,
        /// What is wanted.
        device: String,
        /// What is missing, and what to do about it.
        reason: String,
    },
    /// `allreduce` broke its promise.
    #[error(
        "replicas differ after epoch {epoch} (digests {digests:x?}); this is a fault of the \
         program or of a machine's memory"
    )]
    Diverged {
        /// After which epoch.
        epoch: u64,
        /// Digests of the parameters, in the replicas' order.
        digests: Vec<u64>,
    },
    /// The saved model and the data do not fit.
    #[error("{0}")]
    Unfit(String),
    /// An argument of the program.
    #[error("{0}; `rdist-workloads --help` shows the forms")]
    Usage(String),
}

impl From<SpecError> for JobError {
    fn from(error: SpecError) -> Self {
        Self::Spec(Box::new(error))
    }
}

/// What the failure of a replica's call means for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The replica is gone.
    Replica,
    /// The replica lives, but something that it should read was lost with another one.
    Input,
}

/// Whether a failed call is a loss that the job survives; `None`: it is an error of the code.
pub fn loss(error: &rdist::Error) -> Option<Loss> {
    let rdist::Error::Task(TaskError { cause, .. }) = error else { return None };
    match cause {
        Cause::ExecutorDied(_) | Cause::WorkerDied { .. } | Cause::ActorDied(_) => {
            Some(Loss::Replica)
        }
        Cause::ObjectLost | Cause::OwnerDied => Some(Loss::Input),
        Cause::Returned { message } if message.starts_with(INPUT_LOST) => Some(Loss::Input),
        // The code's own errors, cancellation, refusals, limits: trying again changes nothing.
        _ => None,
    }
}

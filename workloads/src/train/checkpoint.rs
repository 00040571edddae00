//! Models on disk, as safetensors: parameters under their PyTorch names, what the optimiser
//! remembers beside them, and in the metadata what is needed to build the model again. A file is
//! replaced whole, so that there is always a whole one; it may be an object of S3.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::json;

use super::optimiser::OptimiserState;
use crate::data::Shape;
use crate::data::augment::Normal;
use crate::data::table::Class;
use crate::model::{Architecture, Input, Model};
use crate::place;

/// The file of a run that goes on.
pub const CHECKPOINT_FILE: &str = "checkpoint.safetensors";
/// The file of the best round so far.
pub const BEST_FILE: &str = "best.safetensors";
/// The file of a finished run.
pub const MODEL_FILE: &str = "model.safetensors";

/// What a model is: all that is needed to build it again and to show it images.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// Which model.
    pub architecture: Architecture,
    /// The images that it takes, and the classes that it tells apart.
    pub input: Input,
    /// How pixels become numbers.
    pub normal: Normal,
    /// In the order of their index.
    pub classes: Vec<Class>,
}

impl Identity {
    /// Whether parameters of one fit the other.
    pub fn is_like(&self, other: &Self) -> bool {
        let sizes = |each: &Self| (each.architecture, each.input.shape, each.input.classes);
        sizes(self) == sizes(other)
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { architecture, input, .. } = self;
        let article = if architecture.name().starts_with(['a', 'i']) { "an" } else { "a" };
        write!(
            f,
            "{article} {} for {} images of {} classes",
            architecture.name(),
            input.shape,
            input.classes
        )
    }
}

/// What a training depends on beside its model: keys with their values in words.
pub type Terms = BTreeMap<String, String>;

/// A model as it is saved.
#[derive(Debug, Clone, PartialEq)]
pub struct Saved {
    /// What it is.
    pub identity: Identity,
    /// Epochs that it was trained.
    pub epochs: u64,
    /// Images of the next epoch that were shown already.
    pub shown: u64,
    /// Its parameters, in the layout's order.
    pub parameters: Vec<f32>,
    /// What the optimiser remembers; `None` in a finished model.
    pub optimiser: Option<OptimiserState>,
    /// The best value that was watched, and in which round.
    pub best: Option<(f64, u64)>,
    /// Members of the federation that trains it; `None`: it is none.
    pub members: Option<u32>,
    /// Of what kind `optimiser` is.
    pub memory: Option<String>,
    /// What it is trained under, by key, in words.
    pub terms: Terms,
    /// The submission that trained it; `None`: nobody knows.
    pub run: Option<String>,
}

/// Why a model could not be saved or loaded.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The disk is full, the folder is read-only, ...
    #[error(
        "cannot write {path}: {source}; output.folder, output.checkpoints and output.upload name \
         other places, and what was there before is untouched"
    )]
    Write {
        /// Which file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// There is nothing to go on from.
    #[error(
        "there is no {path} to go on from; train.resume = \"auto\" starts a training where none \
         is, and output.checkpoints says where else one may be"
    )]
    Missing {
        /// Which file.
        path: PathBuf,
    },
    /// It is not there, or cannot be read.
    #[error(
        "cannot read {path}: {source}; it must be a file that the driver's machine can read, or an \
         object, as s3://bucket/key"
    )]
    Read {
        /// Which file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// It holds something else.
    #[error(
        "{path} is no model of this program: {reason}; infer.model and train.resume want a file \
         that a training has saved, model.weights takes state dicts of others"
    )]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Saved {
    /// The model without its parameters.
    pub fn model(&self) -> Model {
        self.identity.architecture.build(&self.identity.input)
    }

    /// Writes the file, and makes its folder.
    ///
    /// # Errors
    /// [`CheckpointError::Write`]; an older file of that name is then still whole.
    pub fn write(&self, path: &Path) -> Result<(), CheckpointError> {
        let failed = |source| CheckpointError::Write { path: path.to_owned(), source };
        let bytes = self.encode().map_err(|error| failed(io::Error::other(error)))?;
        place::replace(path, bytes).map_err(failed)
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, safetensors::SafeTensorError> {
        let model = self.model();
        let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
        for entry in model.layout().entries() {
            let values = bytes_of(&self.parameters[entry.range.clone()]);
            tensors.push((entry.name.clone(), entry.shape.clone(), values));
        }
        let mut metadata = self.metadata();
        if let Some(state) = &self.optimiser {
            metadata.insert("rdist.optimiser_steps".to_owned(), state.steps.to_string());
            for (index, memory) in state.memories.iter().enumerate() {
                tensors.push((memory_name(index), vec![memory.len()], bytes_of(memory)));
            }
        }
        let mut views = Vec::with_capacity(tensors.len());
        for (name, shape, bytes) in &tensors {
            views.push((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?));
        }
        safetensors::tensor::serialize(views, Some(metadata))
    }

    fn metadata(&self) -> HashMap<String, String> {
        let Identity { architecture, input, normal, classes } = &self.identity;
        let classes: Vec<_> = classes.iter().map(|class| (&class.id, &class.name)).collect();
        let mut metadata: HashMap<String, String> = [
            ("format", "pt".to_owned()),
            ("rdist.model", architecture.name().to_owned()),
            ("rdist.rows", input.shape.rows.to_string()),
            ("rdist.columns", input.shape.columns.to_string()),
            ("rdist.channels", input.shape.channels.to_string()),
            ("rdist.classes", input.classes.to_string()),
            ("rdist.class_names", json!(classes).to_string()),
            ("rdist.normal", json!([normal.mean, normal.deviation]).to_string()),
            ("rdist.epochs", self.epochs.to_string()),
            ("rdist.shown", self.shown.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        if let Some((value, round)) = self.best {
            // Bits, so that it comes back as it was.
            metadata.insert("rdist.best".to_owned(), value.to_bits().to_string());
            metadata.insert("rdist.best_round".to_owned(), round.to_string());
        }
        if let Some(members) = self.members {
            metadata.insert(MEMBERS.to_owned(), members.to_string());
        }
        if let Some(memory) = &self.memory {
            metadata.insert(MEMORY.to_owned(), memory.clone());
        }
        if let Some(run) = &self.run {
            metadata.insert(RUN.to_owned(), run.clone());
        }
        if !self.terms.is_empty() {
            metadata.insert(TERMS.to_owned(), json!(self.terms).to_string());
        }
        metadata
    }

    /// Reads a file that [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// [`CheckpointError::Read`], [`CheckpointError::Content`].
    pub fn read(path: &Path) -> Result<Self, CheckpointError> {
        let bytes = place::read(path)
            .map_err(|source| CheckpointError::Read { path: path.to_owned(), source })?;
        Self::decode(&bytes)
            .map_err(|reason| CheckpointError::Content { path: path.to_owned(), reason })
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let text = |error: safetensors::SafeTensorError| error.to_string();
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(text)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(text)?;
        let metadata = Metadata(header.metadata().clone().unwrap_or_default());
        let best = match metadata.0.contains_key("rdist.best") {
            true => {
                let value = f64::from_bits(metadata.number("rdist.best")?);
                Some((value, metadata.number("rdist.best_round")?))
            }
            false => None,
        };
        let mut saved = Self {
            identity: metadata.identity()?,
            epochs: metadata.number("rdist.epochs")?,
            shown: metadata.number("rdist.shown")?,
            parameters: Vec::new(),
            optimiser: None,
            best,
            members: match metadata.0.contains_key(MEMBERS) {
                true => Some(metadata.within(MEMBERS, 1..=1_000_000)?),
                false => None,
            },
            memory: metadata.0.get(MEMORY).cloned(),
            terms: match metadata.0.get(TERMS) {
                Some(terms) => serde_json::from_str(terms)
                    .map_err(|error| format!("its metadata has a wrong `{TERMS}`: {error}"))?,
                None => Terms::new(),
            },
            run: metadata.0.get(RUN).cloned(),
        };
        let model = saved.model();
        // Before memory is taken for a model that the metadata alone promises.
        for entry in model.layout().entries() {
            tensor(&tensors, &entry.name, &entry.shape)?;
        }
        saved.parameters = vec![0.0; model.layout().len()];
        for entry in model.layout().entries() {
            let values = floats(&tensors, &entry.name, &entry.shape)?;
            saved.parameters[entry.range.clone()].copy_from_slice(&values);
        }
        if metadata.0.contains_key("rdist.optimiser_steps") {
            let steps = metadata.number("rdist.optimiser_steps")?;
            let mut memories = Vec::new();
            while tensors.tensor(&memory_name(memories.len())).is_ok() {
                let name = memory_name(memories.len());
                memories.push(floats(&tensors, &name, &[model.layout().trained()])?);
            }
            saved.optimiser = Some(OptimiserState { steps, memories });
        }
        Ok(saved)
    }
}

const MEMBERS: &str = "rdist.members";
const MEMORY: &str = "rdist.memory";
const TERMS: &str = "rdist.terms";
const RUN: &str = "rdist.run";

/// What a file says of itself.
struct Metadata(HashMap<String, String>);

impl Metadata {
    fn value(&self, key: &str) -> Result<&str, String> {
        let missing = || format!("its metadata has no `{key}`");
        self.0.get(key).map(String::as_str).ok_or_else(missing)
    }

    fn number(&self, key: &str) -> Result<u64, String> {
        let wrong = |error| format!("its metadata has a wrong `{key}`: {error}");
        self.value(key)?.parse::<u64>().map_err(wrong)
    }

    /// A model's size follows from these, and memory is taken for it.
    fn within(&self, key: &str, range: RangeInclusive<u64>) -> Result<u32, String> {
        match self.number(key)? {
            number if range.contains(&number) => Ok(number as u32),
            number => Err(format!("its metadata has a `{key}` of {number}")),
        }
    }

    fn identity(&self) -> Result<Identity, String> {
        let name = self.value("rdist.model")?;
        let known = Architecture::ALL.iter().find(|(each, _)| *each == name);
        let (_, architecture) = *known.ok_or_else(|| format!("the model `{name}` is unknown"))?;
        let smallest = architecture.smallest_side().into();
        let shape = Shape {
            rows: self.within("rdist.rows", smallest..=4_096)?,
            columns: self.within("rdist.columns", smallest..=4_096)?,
            channels: self.within("rdist.channels", 1..=3)?,
        };
        let classes = self.within("rdist.classes", 1..=1_000_000)?;
        let wrong = |key: &str| format!("its metadata has a wrong `{key}`");
        let names = "rdist.class_names";
        let names: Vec<(String, String)> =
            serde_json::from_str(self.value(names)?).map_err(|_| wrong(names))?;
        if names.len() != classes as usize {
            return Err(wrong("rdist.class_names"));
        }
        let normal = "rdist.normal";
        let [mean, deviation] =
            serde_json::from_str(self.value(normal)?).map_err(|_| wrong(normal))?;
        Ok(Identity {
            architecture,
            input: Input { shape, classes: classes.into(), dropout: 0.0 },
            normal: Normal { mean, deviation },
            classes: names.into_iter().map(|(id, name)| Class { id, name }).collect(),
        })
    }
}

fn memory_name(index: usize) -> String {
    format!("optimiser.memory{index}")
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// One of the tensors, if it is as it should be.
fn tensor<'a>(
    tensors: &SafeTensors<'a>,
    name: &str,
    shape: &[usize],
) -> Result<TensorView<'a>, String> {
    let tensor = tensors.tensor(name).map_err(|_| format!("it has no tensor `{name}`"))?;
    if tensor.dtype() != Dtype::F32 || tensor.shape() != shape {
        return Err(format!(
            "its tensor `{name}` is {:?} of shape {:?}, expected F32 of shape {shape:?}",
            tensor.dtype(),
            tensor.shape()
        ));
    }
    Ok(tensor)
}

fn floats(tensors: &SafeTensors<'_>, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
    let values = tensor(tensors, name, shape)?;
    let values = values.data().chunks_exact(4).map(|bytes| {
        let mut word = [0; 4];
        word.copy_from_slice(bytes);
        f32::from_le_bytes(word)
    });
    Ok(values.collect())
}

/// Whether a file is there.
///
/// # Errors
/// [`CheckpointError::Read`]: nobody can tell.
pub fn exists(path: &Path) -> Result<bool, CheckpointError> {
    place::exists(path).map_err(|source| CheckpointError::Read { path: path.to_owned(), source })
}

/// Whether files can be written to a folder, which is made; found out before hours of training.
///
/// # Errors
/// [`CheckpointError::Write`].
pub fn probe(folder: &Path) -> Result<(), CheckpointError> {
    let path = folder.join(".probe");
    let probed = place::replace(&path, b"probe".to_vec()).and_then(|()| place::remove(&path));
    probed.map_err(|source| CheckpointError::Write { path: folder.to_owned(), source })
}

#[cfg(test)]
pub(crate) mod tests;

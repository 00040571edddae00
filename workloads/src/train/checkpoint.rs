//! Models on disk, as safetensors: parameters under their PyTorch names, what the optimiser
//! remembers beside them, and in the metadata what is needed to build the model again. A file is
//! written whole under another name and then renamed, so that there is always a whole one.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::optimiser::OptimiserState;
use crate::model::{Architecture, Model};

/// The file of a run that goes on.
pub const CHECKPOINT_FILE: &str = "checkpoint.safetensors";
/// The file of a finished run.
pub const MODEL_FILE: &str = "model.safetensors";

/// A model as it is saved.
#[derive(Debug, Clone, PartialEq)]
pub struct Saved {
    /// Which model.
    pub architecture: Architecture,
    /// Height of the images that it takes.
    pub rows: u32,
    /// Width of the images that it takes.
    pub columns: u32,
    /// How many classes it tells apart.
    pub classes: u32,
    /// Epochs that it was trained.
    pub epochs: u64,
    /// Its parameters, in the layout's order.
    pub parameters: Vec<f32>,
    /// What the optimiser remembers; `None` in a finished model.
    pub optimiser: Option<OptimiserState>,
}

/// Why a model could not be saved or loaded.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The disk is full, the folder is read-only, ...
    #[error(
        "cannot write {path}: {source}; output.folder names another folder, and what was there \
         before is untouched"
    )]
    Write {
        /// Which file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// It is not there, or cannot be read.
    #[error("cannot read the model {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// It holds something else.
    #[error("{path} is no model of this program: {reason}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Saved {
    /// The model without its parameters.
    pub fn model(&self) -> Box<dyn Model> {
        self.architecture.build(self.rows, self.columns, self.classes as usize, 0.0)
    }

    /// Writes the file, and makes its folder.
    ///
    /// # Errors
    /// [`CheckpointError::Write`]; an older file of that name is then still whole.
    pub fn write(&self, path: &Path) -> Result<(), CheckpointError> {
        let failed = |source| CheckpointError::Write { path: path.to_owned(), source };
        let bytes = self.encode().map_err(|error| failed(io::Error::other(error)))?;
        replace(path, &bytes).map_err(failed)
    }

    fn encode(&self) -> Result<Vec<u8>, safetensors::SafeTensorError> {
        let model = self.model();
        let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
        for entry in model.layout().entries() {
            let values = bytes_of(&self.parameters[entry.range.clone()]);
            tensors.push((entry.name.clone(), entry.shape.clone(), values));
        }
        let mut metadata: HashMap<String, String> = [
            ("format", "pt".to_owned()),
            ("rdist.model", self.architecture.name().to_owned()),
            ("rdist.rows", self.rows.to_string()),
            ("rdist.columns", self.columns.to_string()),
            ("rdist.classes", self.classes.to_string()),
            ("rdist.epochs", self.epochs.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
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

    /// Reads a file that [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// [`CheckpointError::Read`], [`CheckpointError::Content`].
    pub fn read(path: &Path) -> Result<Self, CheckpointError> {
        let bytes = fs::read(path)
            .map_err(|source| CheckpointError::Read { path: path.to_owned(), source })?;
        Self::decode(&bytes)
            .map_err(|reason| CheckpointError::Content { path: path.to_owned(), reason })
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let text = |error: safetensors::SafeTensorError| error.to_string();
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(text)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(text)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let value = |key: &str| {
            let missing = || format!("its metadata has no `{key}`");
            metadata.get(key).map(String::as_str).ok_or_else(missing)
        };
        let number = |key: &str| {
            let wrong = |error| format!("its metadata has a wrong `{key}`: {error}");
            value(key)?.parse::<u64>().map_err(wrong)
        };
        // A model's size follows from these, and memory is taken for it.
        let side = |key: &str| match number(key)? {
            side @ 4..=1_024 => Ok(side as u32),
            side => Err(format!("its metadata has a `{key}` of {side}")),
        };
        let name = value("rdist.model")?;
        let known = Architecture::ALL.iter().find(|(each, _)| *each == name);
        let (_, architecture) = known.ok_or_else(|| format!("the model `{name}` is unknown"))?;
        let classes = match number("rdist.classes")? {
            classes @ 1..=1_000_000 => classes as u32,
            classes => return Err(format!("it has {classes} classes")),
        };
        let mut saved = Self {
            architecture: *architecture,
            rows: side("rdist.rows")?,
            columns: side("rdist.columns")?,
            classes,
            epochs: number("rdist.epochs")?,
            parameters: Vec::new(),
            optimiser: None,
        };
        let model = saved.model();
        for entry in model.layout().entries() {
            saved.parameters.extend(floats(&tensors, &entry.name, &entry.shape)?);
        }
        if metadata.contains_key("rdist.optimiser_steps") {
            let steps = number("rdist.optimiser_steps")?;
            let mut memories = Vec::new();
            while tensors.tensor(&memory_name(memories.len())).is_ok() {
                let name = memory_name(memories.len());
                memories.push(floats(&tensors, &name, &[saved.parameters.len()])?);
            }
            saved.optimiser = Some(OptimiserState { steps, memories });
        }
        Ok(saved)
    }
}

fn memory_name(index: usize) -> String {
    format!("optimiser.memory{index}")
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn floats(tensors: &SafeTensors<'_>, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
    let tensor = tensors.tensor(name).map_err(|_| format!("it has no tensor `{name}`"))?;
    if tensor.dtype() != Dtype::F32 || tensor.shape() != shape {
        return Err(format!(
            "its tensor `{name}` is {:?} of shape {:?}, expected F32 of shape {shape:?}",
            tensor.dtype(),
            tensor.shape()
        ));
    }
    let values = tensor.data().chunks_exact(4).map(|bytes| {
        let mut word = [0; 4];
        word.copy_from_slice(bytes);
        f32::from_le_bytes(word)
    });
    Ok(values.collect())
}

/// Writes beside the file, makes it durable, renames.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = folder.join(format!(".{name}.partial-{}", std::process::id()));
    let write = || {
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        File::open(folder)?.sync_all()
    };
    write().inspect_err(|_| {
        // The reason is told already; what is left over takes room that is probably short.
        let _ = fs::remove_file(&partial);
    })
}

/// Whether files can be written to a folder, which is made; found out before hours of training.
///
/// # Errors
/// [`CheckpointError::Write`].
pub fn probe(folder: &Path) -> Result<(), CheckpointError> {
    let path = folder.join(".probe");
    let probed = replace(&path, b"probe").and_then(|()| fs::remove_file(&path));
    probed.map_err(|source| CheckpointError::Write { path: folder.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(optimiser: bool) -> Saved {
        let architecture = Architecture::Convnet;
        let layout = architecture.build(12, 16, 4, 0.0).layout().clone();
        let memory: Vec<f32> = (0..layout.len()).map(|n| n as f32).collect();
        Saved {
            architecture,
            rows: 12,
            columns: 16,
            classes: 4,
            epochs: 3,
            parameters: layout.initial(1),
            optimiser: optimiser
                .then(|| OptimiserState { steps: 9, memories: vec![memory.clone(), memory] }),
        }
    }

    #[test]
    fn comes_back_as_it_was_saved_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/model.safetensors");
        for saved in [saved(true), saved(false)] {
            saved.write(&path).unwrap();
            assert!(Saved::read(&path).unwrap() == saved);
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file_and_says_where() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        fs::create_dir(&path).unwrap();
        let error = saved(false).write(&path).unwrap_err().to_string();
        assert!(error.contains("model.safetensors") && error.contains("output.folder"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(probe(&file.join("below")).is_err());
        probe(&folder.path().join("new")).unwrap();
    }

    #[test]
    fn other_files_are_refused_with_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m");
        let refused = |bytes: &[u8], piece: &str| {
            fs::write(&path, bytes).unwrap();
            let error = Saved::read(&path).unwrap_err().to_string();
            assert!(error.contains(piece), "{error}");
        };
        let whole = saved(false).encode().unwrap();
        refused(b"hello", "no model");
        refused(&whole[..whole.len() - 4], "no model");
        let text = String::from_utf8_lossy(&whole[8..]).into_owned();
        assert!(text.contains("convnet"));
        let other = |from: &str, to: &str| {
            let at = whole.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
            let mut bytes = whole.clone();
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
            bytes
        };
        refused(&other("convnet", "konvnet"), "konvnet");
        refused(&other("dense2.bias", "dense2.pias"), "dense2.bias");
        refused(&other("rdist.rows\":\"12", "rdist.rows\":\"28"), "shape");
        assert!(Saved::read(&folder.path().join("none")).unwrap_err().to_string().contains("none"));
    }

    /// Python's own reader reads the file, where the machine has it.
    #[test]
    fn python_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        saved(true).write(&path).unwrap();
        let script = "import sys\nfrom safetensors.numpy import load_file\n\
                      t = load_file(sys.argv[1])\n\
                      print(t['conv1.weight'].shape, t['conv1.weight'].dtype, len(t))";
        let output = std::process::Command::new("python3").args(["-c", script]).arg(&path).output();
        let Ok(output) = output else {
            eprintln!("skipped: no python3");
            return;
        };
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        if error.contains("ModuleNotFoundError") {
            eprintln!("skipped: python3 has no safetensors");
            return;
        }
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text.trim(), "(10, 1, 5, 5) float32 10", "{error}");
    }
}

//! State dicts from elsewhere: torchvision's and everybody's who uses its names.

use std::fmt;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors};

use super::{Layout, pickled};

/// Why weights could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// It is not there, or cannot be read.
    #[error(
        "cannot read the weights {path}: {source}; model.weights must name a file that the \
         driver's machine can read"
    )]
    Read {
        /// Which file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// No reader understands it.
    #[error(
        "{path} holds no weights that can be read here: {reason}; safetensors always works: in \
         Python, `safetensors.torch.save_file(model.state_dict(), \"weights.safetensors\")`"
    )]
    Format {
        /// Which file.
        path: PathBuf,
        /// What a reader says.
        reason: String,
    },
    /// A tensor of the model is missing or of another shape.
    #[error(
        "{path} does not fit the model: {reason}; model.name must be the model that the weights \
         are of, and data.size and data.colour what it was trained with, where its layers depend \
         on them"
    )]
    Fit {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// What was taken from a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Tensors of the model that the file had.
    pub taken: usize,
    /// Tensors of the last layer, which were for other classes.
    pub replaced: Vec<String>,
    /// Tensors of the file that the model does not have.
    pub unused: usize,
}

impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tensors taken", self.taken)?;
        if !self.replaced.is_empty() {
            write!(f, ", {} for other classes and begun anew", self.replaced.join(" and "))?;
        }
        if self.unused > 0 {
            write!(f, ", {} left over", self.unused)?;
        }
        Ok(())
    }
}

/// One tensor of a file, as binary32.
pub(crate) struct Named {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f32>,
}

/// Loads a file into `values`, which are laid out as `layout` says. Tensors of the `head` layer may
/// have another shape, and then stay as they are; all others must be there and fit.
///
/// # Errors
/// [`WeightsError`]; `values` may then be changed in part.
pub fn load(
    path: &Path,
    layout: &Layout,
    head: &str,
    values: &mut [f32],
) -> Result<Loaded, WeightsError> {
    let tensors = read(path)?;
    let mut loaded = Loaded::default();
    let misfit = |reason: String| WeightsError::Fit { path: path.to_owned(), reason };
    for entry in layout.entries() {
        let found = tensors.iter().find(|tensor| tensor.name == entry.name);
        match found {
            Some(tensor) if tensor.shape == entry.shape => {
                values[entry.range.clone()].copy_from_slice(&tensor.values);
                loaded.taken += 1;
            }
            Some(_) if entry.name.starts_with(head) => loaded.replaced.push(entry.name.clone()),
            Some(tensor) => {
                return Err(misfit(format!(
                    "its tensor `{}` is of shape {:?}, the model's of shape {:?}",
                    entry.name, tensor.shape, entry.shape
                )));
            }
            None => return Err(misfit(format!("it has no tensor `{}`", entry.name))),
        }
    }
    loaded.unused = tensors.len() - loaded.taken - loaded.replaced.len();
    Ok(loaded)
}

fn read(path: &Path) -> Result<Vec<Named>, WeightsError> {
    let failed = |source| WeightsError::Read { path: path.to_owned(), source };
    let bytes = std::fs::read(path).map_err(failed)?;
    let format = |reason: String| WeightsError::Format { path: path.to_owned(), reason };
    if path.extension().is_some_and(|extension| extension == "safetensors") {
        return read_safetensors(&bytes).map_err(format);
    }
    // What torch.save writes, and libtorch's archives of both kinds.
    let saved = match pickled::read(&bytes) {
        Ok(tensors) => return Ok(tensors),
        Err(reason) => reason,
    };
    let tensors = tch::Tensor::loadz_multi(path).or_else(|_| tch::Tensor::load_multi(path));
    let tensors = tensors.map_err(|error| {
        // What follows the first line are frames of libtorch's stack.
        let archive = error.to_string().lines().next().unwrap_or_default().to_owned();
        format(format!("{saved}; as an archive of libtorch: {archive}"))
    })?;
    Ok(tensors
        .into_iter()
        .map(|(name, tensor)| {
            let tensor = tensor.to_kind(tch::Kind::Float).contiguous();
            let mut values = vec![0.0; tensor.numel()];
            let count = values.len();
            tensor.copy_data(&mut values, count);
            let shape = tensor.size().into_iter().map(|side| side as usize).collect();
            // Archives of modules separate by `|` what state dicts separate by dots.
            Named { name: name.replace('|', "."), shape, values }
        })
        .collect())
}

pub(crate) fn read_safetensors(bytes: &[u8]) -> Result<Vec<Named>, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let mut tensors = Vec::new();
    for (name, tensor) in file.tensors() {
        // Counters of batches: no model here has use for them.
        let Some(values) = floats_of(tensor.dtype(), tensor.data()) else { continue };
        tensors.push(Named { name, shape: tensor.shape().to_vec(), values });
    }
    Ok(tensors)
}

/// Numbers with fractions as binary32; `None`: they are others.
pub(super) fn floats_of(kind: Dtype, data: &[u8]) -> Option<Vec<f32>> {
    fn each<const N: usize>(data: &[u8], float: impl Fn([u8; N]) -> f32) -> Vec<f32> {
        data.as_chunks().0.iter().map(|bytes| float(*bytes)).collect()
    }
    match kind {
        Dtype::F64 => Some(each(data, |bytes| f64::from_le_bytes(bytes) as f32)),
        Dtype::F32 => Some(each(data, f32::from_le_bytes)),
        Dtype::F16 => Some(each(data, |bytes| half(u16::from_le_bytes(bytes)))),
        Dtype::BF16 => {
            Some(each(data, |bytes| f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)))
        }
        _ => None,
    }
}

/// A binary16 as binary32.
fn half(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2.0_f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction / 1_024.0) * 2.0_f32.powi(exponent - 15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Shape;
    use crate::model::layout::{Entry, Initial};
    use crate::model::{Architecture, Input};

    fn model(classes: i64) -> crate::model::Model {
        let shape = Shape { rows: 8, columns: 8, channels: 1 };
        Architecture::Mlp.build(&Input { shape, classes, dropout: 0.0 })
    }

    fn write(path: &Path, layout: &Layout, values: &[f32], kind: tch::Kind) {
        let tensors: Vec<(&str, tch::Tensor)> = layout
            .entries()
            .iter()
            .map(|entry| {
                let shape: Vec<i64> = entry.shape.iter().map(|side| *side as i64).collect();
                let tensor = tch::Tensor::from_slice(&values[entry.range.clone()]).view(&shape[..]);
                (entry.name.as_str(), tensor.to_kind(kind))
            })
            .collect();
        match path.extension().is_some_and(|extension| extension == "safetensors") {
            true => tch::Tensor::write_safetensors(&tensors, path).unwrap(),
            false => tch::Tensor::save_multi(&tensors, path).unwrap(),
        }
    }

    #[test]
    fn state_dicts_come_in_several_formats() {
        let folder = tempfile::tempdir().unwrap();
        let layout = model(3).layout().clone();
        // Exact in all formats.
        let values: Vec<f32> = (0..layout.len()).map(|n| (n % 200) as f32 / 64.0 - 1.0).collect();
        for (name, kind) in [
            ("a.safetensors", tch::Kind::Float),
            ("b.safetensors", tch::Kind::Half),
            ("c.safetensors", tch::Kind::BFloat16),
            ("d.ot", tch::Kind::Float),
        ] {
            let path = folder.path().join(name);
            write(&path, &layout, &values, kind);
            let mut found = vec![0.0; layout.len()];
            let loaded = load(&path, &layout, "dense3.", &mut found).unwrap();
            assert!(found == values, "{name}");
            assert_eq!(loaded, Loaded { taken: 6, ..Loaded::default() });
        }
    }

    /// PyTorch's own file, of `scripts/weights_fixture.py`.
    #[test]
    fn what_pytorch_saved_is_read_whatever_its_memory_looks_like() {
        let entry = |name: &str, shape: &[usize], trained| Entry {
            name: name.to_owned(),
            shape: shape.to_vec(),
            initial: Initial::Constant(0.0),
            trained,
            range: 0..0,
        };
        let layout = Layout::of(vec![
            entry("layer.weight", &[3, 4], true),
            entry("layer.bias", &[3], true),
            entry("norm.running_mean", &[2], false),
            entry("head.weight", &[5, 3], true),
        ]);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/model/state_dict.pt");
        let mut values = vec![-1.0; layout.len()];
        let loaded = load(&path, &layout, "head.", &mut values).unwrap();
        let replaced = vec!["head.weight".to_owned()];
        // The counter of batches is passed over.
        assert_eq!(loaded, Loaded { taken: 3, replaced, unused: 0 });
        let columns = (0..3).flat_map(|row| (0..4).map(move |column| column * 3 + row));
        let weight: Vec<f32> = columns.map(|number| number as f32 / 8.0).collect();
        assert_eq!(values[..12], weight);
        assert_eq!(values[12..15], [0.625, 0.75, 0.875]);
        assert!(values[15..30].iter().all(|value| *value == -1.0), "the head is not that one");
        assert_eq!(values[30..], [0.5, -1.5]);
    }

    #[test]
    fn a_head_for_other_classes_is_begun_anew_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let (other, own) = (model(1_000).layout().clone(), model(3).layout().clone());
        write(&path, &other, &vec![0.5; other.len()], tch::Kind::Float);
        let mut values = vec![0.0; own.len()];
        let loaded = load(&path, &own, "dense3.", &mut values).unwrap();
        assert_eq!(loaded.replaced, ["dense3.weight", "dense3.bias"]);
        let head = own.entries()[4].range.start;
        assert!(
            values[..head].iter().all(|v| *v == 0.5) && values[head..].iter().all(|v| *v == 0.0)
        );
        let error = load(&path, &own, "dense2.", &mut values).unwrap_err().to_string();
        assert!(error.contains("dense3.weight") && error.contains("shape"), "{error}");
        assert!(error.contains("model.name must be"), "{error}");
    }

    #[test]
    fn other_files_are_refused_with_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["w.safetensors", "w.pt", "w.ot"] {
            let path = folder.path().join(name);
            std::fs::write(&path, b"hello").unwrap();
            let error = load(&path, model(3).layout(), "x", &mut []).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("safetensors"), "{error}");
        }
        let error = load(Path::new("none.pt"), model(3).layout(), "x", &mut []).unwrap_err();
        assert!(matches!(error, WeightsError::Read { .. }));
    }

    #[test]
    fn halves_are_what_they_are_elsewhere() {
        for bits in (0..=u16::MAX).step_by(7) {
            let theirs = half_by_libtorch(bits);
            assert!(half(bits) == theirs || half(bits).is_nan() && theirs.is_nan(), "{bits:#x}");
        }
    }

    fn half_by_libtorch(bits: u16) -> f32 {
        let tensor = tch::Tensor::from_slice(&[bits as i16]).view_dtype(tch::Kind::Half);
        tensor.to_kind(tch::Kind::Float).double_value(&[0]) as f32
    }
}

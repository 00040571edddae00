//! Between Rust's slices and libtorch's tensors. Everything `unsafe` of this crate is here,
//! but for a call of what is compiled for processors with AVX2, in `data::jpeg`.

use std::cell::Cell;

use rkyv::rend::f32_le;
use rkyv::vec::ArchivedVec;
use tch::{Device, Kind, Tensor};

use crate::data::Shape;
use crate::model::Layout;
use crate::model::ready::Ready;

/// A model's parameters: one flat run of memory, seen both as a slice and as the tensors that the
/// model computes with. Writing to the slice changes the tensors. On a CPU nothing is copied; a GPU
/// has a copy, which is renewed before the model computes with it.
pub struct Parameters {
    /// Owns the memory; 1-D, contiguous, `f32`, on the CPU, never resized.
    flat: Tensor,
    twin: Option<Twin>,
    /// Where running statistics begin in `flat`.
    statistics: i64,
    /// Views of `flat`, or of its copy, shaped by the layout.
    leaves: Vec<Tensor>,
    /// Those of them that gradients are asked for, with their place in `flat`.
    trained: Vec<(Tensor, std::ops::Range<usize>)>,
}

/// Parameters on another device.
struct Twin {
    flat: Tensor,
    /// The values were changed since it was made.
    stale: Cell<bool>,
}

impl Parameters {
    /// Zeros, for a model that computes on CPUs.
    pub fn new(layout: &Layout) -> Self {
        Self::on(Device::Cpu, layout)
    }

    /// Zeros, for a model that computes on `device`.
    pub fn on(device: Device, layout: &Layout) -> Self {
        Self::with(layout, |flat| (device != Device::Cpu).then(|| flat.to_device(device)))
    }

    fn with(layout: &Layout, twin: impl FnOnce(&Tensor) -> Option<Tensor>) -> Self {
        let flat = Tensor::zeros([layout.len() as i64], (Kind::Float, Device::Cpu));
        let twin = twin(&flat);
        let seen = twin.as_ref().unwrap_or(&flat).shallow_clone();
        let mut trained = Vec::new();
        let leaves = layout
            .entries()
            .iter()
            .map(|entry| {
                let shape: Vec<i64> = entry.shape.iter().map(|side| *side as i64).collect();
                let leaf = seen
                    .narrow(0, entry.range.start as i64, entry.range.len() as i64)
                    .view(&shape[..])
                    // Shares its memory, but starts a graph of its own.
                    .detach();
                if !entry.trained {
                    return leaf;
                }
                let leaf = leaf.set_requires_grad(true);
                trained.push((leaf.shallow_clone(), entry.range.clone()));
                leaf
            })
            .collect();
        let twin = twin.map(|flat| Twin { flat, stale: Cell::new(false) });
        Self { flat, twin, statistics: layout.trained() as i64, leaves, trained }
    }

    /// The tensors, in the layout's order, with the present values.
    pub fn leaves(&self) -> &[Tensor] {
        if let Some(twin) = self.twin.as_ref().filter(|twin| twin.stale.replace(false)) {
            tch::no_grad(|| twin.flat.shallow_clone().copy_(&self.flat));
        }
        &self.leaves
    }

    /// Has running statistics among the values that a forward pass in training has moved on.
    pub fn fetch_statistics(&mut self) {
        let Some(twin) = &self.twin else { return };
        let len = self.flat.numel() as i64 - self.statistics;
        if len > 0 {
            let moved = twin.flat.narrow(0, self.statistics, len);
            tch::no_grad(|| self.flat.narrow(0, self.statistics, len).copy_(&moved));
        }
    }

    /// The values.
    pub fn values(&self) -> &[f32] {
        // Safety: `flat` is contiguous `f32` in CPU memory of `numel` elements, initialised by
        // `zeros`, and lives as long as `self`. Nothing writes to it while the slice lives:
        // libtorch writes to leaves only in a forward pass in training (running statistics),
        // which ends before it returns, and `Parameters` is not `Sync`, so that no other thread
        // runs one.
        unsafe { std::slice::from_raw_parts(self.flat.data_ptr().cast::<f32>(), self.flat.numel()) }
    }

    /// The values, to be changed. No graph may be kept over this: a gradient computed later from
    /// it would mix old activations with new parameters (nobody here keeps one).
    pub fn values_mut(&mut self) -> &mut [f32] {
        if let Some(twin) = &self.twin {
            twin.stale.set(true);
        }
        // Safety: as in `values`; `&mut self` excludes every other slice of it, and calls into
        // libtorch on other threads cannot happen, as `Parameters` is not `Sync`.
        unsafe {
            std::slice::from_raw_parts_mut(self.flat.data_ptr().cast::<f32>(), self.flat.numel())
        }
    }
}

/// Gradients of `loss` by the trained parameters, each to its place in `gradient`.
pub fn gradient(loss: &Tensor, parameters: &Parameters, gradient: &mut [f32]) {
    let leaves: Vec<&Tensor> = parameters.trained.iter().map(|(leaf, _)| leaf).collect();
    let parts = Tensor::run_backward(&[loss], &leaves, false, false);
    for (part, (_, range)) in parts.into_iter().zip(&parameters.trained) {
        let part = part.to_device(Device::Cpu).contiguous();
        part.copy_data(&mut gradient[range.clone()], range.len());
    }
}

/// Images as a model takes them (`n x channels x rows x columns`), from values that lie pixel by
/// pixel. Nothing is copied twice: the tensor keeps their order in memory (PyTorch's
/// `channels_last`), which convolutions on CPUs are fastest with.
pub fn batch(values: &[f32], shape: Shape) -> Tensor {
    let Shape { rows, columns, channels } = shape;
    let count = values.len() / shape.len().max(1);
    let sides = [count as i64, rows.into(), columns.into(), channels.into()];
    Tensor::from_slice(values).view(sides).permute([0, 3, 1, 2])
}

/// Bytes as the values that are to be written there; `None` where they are not aligned for them.
pub fn floats_mut(bytes: &mut [u8]) -> Option<&mut [f32]> {
    // Safety: every pattern of bits is an `f32`, and every `f32` four bytes.
    let (before, values, after) = unsafe { bytes.align_to_mut::<f32>() };
    (before.is_empty() && after.is_empty()).then_some(values)
}

/// Scores of images that lie in `bytes` as [`batch`] takes them; the model reads them there.
/// `None` where they are not aligned for it, or are no whole images.
pub fn scores_in_place(model: &Ready, bytes: &[u8], shape: Shape) -> Option<Tensor> {
    let Shape { rows, columns, channels } = shape;
    // Safety: every pattern of bits is an `f32`.
    let (before, values, after) = unsafe { bytes.align_to::<f32>() };
    if !before.is_empty() || !after.is_empty() || !values.len().is_multiple_of(shape.len().max(1)) {
        return None;
    }
    let count = (values.len() / shape.len().max(1)) as i64;
    let [rows, columns, channels] = [rows, columns, channels].map(i64::from);
    let size = [count, channels, rows, columns];
    let strides = [rows * columns * channels, 1, columns * channels, channels];
    // Safety: `values` holds `count` images of that size, and outlives the tensor, which ends with
    // this function. A forward pass in a `Ready` model writes to no input.
    let images = unsafe {
        let data = values.as_ptr().cast::<u8>();
        Tensor::from_blob(data, &size, &strides, Kind::Float, Device::Cpu)
    };
    let scores = model.forward(&images);
    // Should a model ever hand its input on, what leaves here is a copy.
    let start = values.as_ptr() as usize;
    let lent = (start..start + bytes.len()).contains(&(scores.data_ptr() as usize));
    Some(if lent { scores.copy() } else { scores })
}

/// An archived vector's values, in place.
pub fn floats(archived: &ArchivedVec<f32_le>) -> &[f32] {
    const { assert!(cfg!(target_endian = "little"), "values would have to be swapped") };
    let values: &[f32_le] = archived;
    // Safety: `f32_le` is an `f32` with its bytes in little-endian order, of the same size and
    // alignment; this machine's order is that one. Every pattern of bits is an `f32`.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<f32>(), values.len()) }
}

/// How many threads libtorch computes with: as many as CPUs are leased, which the worker says in
/// `OMP_NUM_THREADS`; one where nobody says.
pub fn use_leased_threads() {
    let leased = std::env::var("OMP_NUM_THREADS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    tch::set_num_threads(std::cmp::max(1, leased));
}

/// Has the allocator keep what tensors free, for the next step's tensors. By itself glibc gives
/// large blocks back to the system, and the next step waits for the same pages to be cleared: a
/// third of a convolutional net's time. To be called before there are other threads, whose blocks
/// would come from elsewhere.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (option, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_MMAP_MAX, 0),
        (libc::M_TRIM_THRESHOLD, i32::MAX),
        (libc::M_TOP_PAD, 64 << 20),
    ] {
        // Safety: it takes two numbers, and keeps its state consistent under a lock. Where it
        // refuses one, all stays as it was.
        unsafe { libc::mallopt(option, value) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Architecture, Input};

    fn model(architecture: Architecture, side: u32) -> crate::model::Model {
        let shape = Shape { rows: side, columns: side, channels: 1 };
        architecture.build(&Input { shape, classes: 3, dropout: 0.0 })
    }

    #[test]
    fn slice_and_tensors_are_the_same_memory() {
        let model = model(Architecture::Mlp, 4);
        let mut parameters = Parameters::new(model.layout());
        for (index, value) in parameters.values_mut().iter_mut().enumerate() {
            *value = index as f32;
        }
        let entry = &model.layout().entries()[2];
        let leaf = parameters.leaves()[2].flatten(0, -1);
        let seen: Vec<f32> = (&leaf).try_into().unwrap();
        assert_eq!(seen, parameters.values()[entry.range.clone()]);
    }

    /// As on a GPU, with a copy that lies on the CPU.
    #[test]
    fn a_copy_follows_the_values_and_gives_statistics_back() {
        let model = model(Architecture::HerbariumConvnet, 16);
        let layout = model.layout();
        let pixels: Vec<f32> = (0..512).map(|pixel| (pixel % 7) as f32 / 7.0).collect();
        let images = Tensor::from_slice(&pixels).view([2, 1, 16, 16]);
        let run = |mut parameters: Parameters| {
            let mut found = Vec::new();
            for seed in [5, 6] {
                parameters.values_mut().copy_from_slice(&layout.initial(seed));
                let mut random = crate::data::random::Random::new(&[1]);
                let scores = model.forward(parameters.leaves(), &images, Some(&mut random));
                parameters.fetch_statistics();
                let mut gradients = vec![0.0; layout.len()];
                gradient(&scores.square().sum(None), &parameters, &mut gradients);
                found.push((gradients, parameters.values().to_vec()));
            }
            found
        };
        let copied = run(Parameters::with(layout, |flat| Some(flat.copy())));
        assert!(copied == run(Parameters::new(layout)));
        assert!(copied[0].1[layout.trained()..] != layout.initial(5)[layout.trained()..]);
    }

    #[test]
    fn a_batch_has_pytorchs_order_of_dimensions() {
        let shape = Shape { rows: 2, columns: 3, channels: 3 };
        let values: Vec<f32> = (0..36).map(|value| value as f32).collect();
        let images = batch(&values, shape);
        assert_eq!(images.size(), [2, 3, 2, 3]);
        // Image 1, channel 2, row 1, column 0: after an image, a row, and two channels.
        assert_eq!(images.double_value(&[1, 2, 1, 0]), f64::from(18 + 9 + 2));
    }

    #[test]
    fn images_are_read_where_they_lie() {
        let shape = Shape { rows: 9, columns: 7, channels: 1 };
        let model = || Architecture::Convnet.build(&Input { shape, classes: 4, dropout: 0.0 });
        let ready = Ready::new(model(), &model().layout().initial(2)).unwrap();
        let mut values: Vec<f32> = (0..3 * 63).map(|value| (value % 11) as f32).collect();
        let expected = ready.forward(&batch(&values, shape));
        // Safety: of `values`' length in bytes, and `u8` has no invalid pattern.
        let bytes = unsafe {
            std::slice::from_raw_parts_mut(values.as_mut_ptr().cast::<u8>(), 4 * values.len())
        };
        assert_eq!(scores_in_place(&ready, bytes, shape), Some(expected));
        assert_eq!(scores_in_place(&ready, &bytes[..4 * 62], shape), None);
        assert_eq!(scores_in_place(&ready, &bytes[1..4 * 63 + 1], shape), None);
        assert!(floats_mut(&mut bytes[2..10]).is_none());
        assert_eq!(floats_mut(&mut bytes[4..12]), Some(&mut [1.0, 2.0][..]));
    }

    #[test]
    fn gradients_match_finite_differences() {
        let model = model(Architecture::Mlp, 4);
        let mut parameters = Parameters::new(model.layout());
        parameters.values_mut().copy_from_slice(&model.layout().initial(5));
        let pixels: Vec<f32> = (0..32).map(|pixel| (pixel % 7) as f32 / 7.0).collect();
        let images = Tensor::from_slice(&pixels).view([2, 1, 4, 4]);
        let labels = Tensor::from_slice(&[0_i64, 2]);
        let loss = |parameters: &Parameters| {
            model.forward(parameters.leaves(), &images, None).cross_entropy_for_logits(&labels)
        };
        let mut found = vec![0.0; model.layout().len()];
        gradient(&loss(&parameters), &parameters, &mut found);
        let value = |loss: Tensor| f64::try_from(&loss).unwrap();
        for index in (0..found.len()).step_by(401) {
            let (before, step) = (parameters.values()[index], 1e-2);
            parameters.values_mut()[index] = before + step;
            let above = value(loss(&parameters));
            parameters.values_mut()[index] = before - step;
            let below = value(loss(&parameters));
            parameters.values_mut()[index] = before;
            let expected = (above - below) / f64::from(2.0 * step);
            assert!((f64::from(found[index]) - expected).abs() < 1e-3, "{index}");
        }
    }
}

//! A model that only predicts, made fast for libtorch: batch norms folded into the
//! convolutions before them, weights in the order in memory that images come in (PyTorch's
//! `channels_last`), no gradients. Scores differ from [`Model::forward`]'s by rounding only.

use tch::{Device, Kind, Tensor};

use super::Model;
use super::layer::{Fold, Pass};
use crate::tensor::Parameters;

/// See the module.
pub struct Ready {
    model: Model,
    device: Device,
    leaves: Vec<Tensor>,
    /// What convolutions add, by the index of their weight.
    folded: Vec<Option<Tensor>>,
}

impl Ready {
    /// With these parameters, in the layout's order, on CPUs; `None`: they are of another model.
    pub fn new(model: Model, values: &[f32]) -> Option<Self> {
        Self::on(Device::Cpu, model, values)
    }

    /// The same on `device`.
    pub fn on(device: Device, model: Model, values: &[f32]) -> Option<Self> {
        let mut parameters = Parameters::new(model.layout());
        let own = parameters.values_mut();
        if own.len() != values.len() {
            return None;
        }
        own.copy_from_slice(values);
        Some(tch::no_grad(|| {
            let mut leaves: Vec<Tensor> = parameters.leaves().iter().map(Tensor::detach).collect();
            let mut folded: Vec<Option<Tensor>> = leaves.iter().map(|_| None).collect();
            for fold in &model.folds {
                let (weight, bias) = fold_one(&leaves, fold);
                leaves[fold.weight] = weight;
                folded[fold.weight] = Some(bias);
            }
            let there = |tensor: Tensor| tensor.to_device(device);
            let leaves = leaves.iter().map(channels_last).map(there).collect();
            let folded = folded.into_iter().map(|bias| bias.map(there)).collect();
            Self { model, device, leaves, folded }
        }))
    }

    /// Scores (`n x classes`, before softmax) of `images` (`n x channels x rows x columns`). Both
    /// are on the CPU, wherever the model is.
    pub fn forward(&self, images: &Tensor) -> Tensor {
        let mut pass = Pass { leaves: &self.leaves, dropout: None, folded: &self.folded };
        let images = images.to_device(self.device);
        tch::no_grad(|| (self.model.layer)(&images, &mut pass)).to_device(Device::Cpu)
    }
}

/// `norm(conv(x))` as one convolution: its weight and its bias.
fn fold_one(leaves: &[Tensor], fold: &Fold) -> (Tensor, Tensor) {
    let [gain, shift, mean, variance] = [0, 1, 2, 3].map(|index| &leaves[fold.norm + index]);
    // In double precision: the norm's own product is rounded once, not twice.
    let double = |tensor: &Tensor| tensor.to_kind(Kind::Double);
    let scale = double(gain) / (double(variance) + fold.epsilon).sqrt();
    let before = fold.bias.map_or_else(|| double(mean).zeros_like(), |bias| double(&leaves[bias]));
    let bias = double(shift) + (before - double(mean)) * &scale;
    let weight = double(&leaves[fold.weight]) * scale.view([-1, 1, 1, 1]);
    (weight.to_kind(Kind::Float), bias.to_kind(Kind::Float))
}

/// The same values; those of a convolution lie channel by channel.
fn channels_last(leaf: &Tensor) -> Tensor {
    match leaf.dim() {
        4 => leaf.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]),
        // Its own memory, so that the flat run of all parameters can go.
        _ => leaf.copy(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Shape;
    use crate::data::random::Random;
    use crate::model::{Architecture, Input};

    /// Of every model, with running statistics that are not those of a fresh one.
    #[test]
    fn folded_models_say_the_same() {
        for (name, architecture) in Architecture::ALL {
            let side = architecture.smallest_side().max(20);
            let shape = Shape { rows: side, columns: side, channels: 3 };
            let model = architecture.build(&Input { shape, classes: 5, dropout: 0.0 });
            let mut values = model.layout().initial(3);
            let mut random = Random::new(&[9]);
            for entry in model.layout().entries() {
                let drawn = entry.range.clone().map(|_| random.between(0.5, 1.5) as f32);
                match entry.name.rsplit('.').next() {
                    Some("running_mean" | "bias") => {
                        let drawn: Vec<f32> = drawn.map(|value| value - 1.0).collect();
                        values[entry.range.clone()].copy_from_slice(&drawn);
                    }
                    Some("running_var") => {
                        let drawn: Vec<f32> = drawn.collect();
                        values[entry.range.clone()].copy_from_slice(&drawn);
                    }
                    _ => {}
                }
            }
            let mut parameters = Parameters::new(model.layout());
            parameters.values_mut().copy_from_slice(&values);
            let pixels: Vec<f32> =
                (0..2 * shape.len()).map(|_| random.between(-1.0, 1.0) as f32).collect();
            let images = crate::tensor::batch(&pixels, shape);
            let plain = tch::no_grad(|| model.forward(parameters.leaves(), &images, None));
            let folds = model.folds.len();
            let ready = Ready::new(model, &values).unwrap();
            let scores = ready.forward(&images);
            let largest = plain.abs().max().double_value(&[]);
            let gap = (&plain - &scores).abs().max().double_value(&[]);
            assert!(gap <= 1e-4 * largest.max(1.0), "{name}: {gap} of {largest}, {folds} folds");
        }
    }

    #[test]
    fn every_convolution_of_a_residual_net_takes_its_norm_in() {
        let shape = Shape { rows: 32, columns: 32, channels: 3 };
        let input = Input { shape, classes: 5, dropout: 0.0 };
        assert_eq!(Architecture::Resnet18.build(&input).folds.len(), 20);
        assert!(Ready::new(Architecture::Resnet18.build(&input), &[0.0]).is_none());
    }
}

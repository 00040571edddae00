//! Models: what parameters they have, and how images become scores.
//!
//! Parameters are one flat run of `f32`, in the order of the [`Layout`]; that is what replicas
//! send each other, what strategies average and what checkpoints hold. Their first values are
//! drawn here from a seed, not by libtorch, so that every machine starts from the same ones.
//! Names and shapes are those of the same model in PyTorch, so its tools can load checkpoints.

pub mod convnet;
pub mod deep_mlp;
pub mod mlp;

use std::ops::Range;

use rkyv::{Archive, Deserialize, Serialize};
use tch::Tensor;

use crate::data::random::Random;

/// Which model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[allow(missing_docs, reason = "rkyv copies variants without their docs")]
pub enum Architecture {
    /// 784 to 128 to 64 to 10; the fastest.
    Mlp,
    /// Two convolutions and two dense layers; the most accurate.
    Convnet,
    /// Twelve dense layers (workload 5).
    DeepMlp,
}

impl Architecture {
    /// Every one, by the name that the TOML uses.
    pub const ALL: [(&'static str, Self); 3] =
        [("mlp", Self::Mlp), ("convnet", Self::Convnet), ("deep_mlp", Self::DeepMlp)];

    /// Its name in the TOML.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, each)| *each == self).map_or("", |(name, _)| name)
    }

    /// The model, for images of a size.
    pub fn build(self, rows: u32, columns: u32, classes: usize, dropout: f64) -> Box<dyn Model> {
        match self {
            Self::Mlp => Box::new(mlp::Mlp::new((rows * columns) as usize, classes, dropout)),
            Self::Convnet => Box::new(convnet::Convnet::new(rows, columns, classes, dropout)),
            Self::DeepMlp => {
                let pixels = (rows * columns) as usize;
                Box::new(deep_mlp::DeepMlp::new(pixels, classes, dropout))
            }
        }
    }

    /// The share of activations that training drops where the TOML does not say.
    pub fn default_dropout(self) -> f64 {
        match self {
            Self::Mlp => 0.0,
            Self::Convnet => 0.25,
            Self::DeepMlp => 0.2,
        }
    }
}

/// A model without its parameters.
pub trait Model: Send {
    /// The parameters that [`Model::forward`] wants.
    fn layout(&self) -> &Layout;

    /// Scores (`n x classes`, before softmax) of `images` (`n x 1 x rows x columns`, 0 to 1).
    /// `parameters` are shaped as the layout says. While training, `dropout` draws what is dropped.
    fn forward(
        &self,
        parameters: &[Tensor],
        images: &Tensor,
        dropout: Option<&mut Random>,
    ) -> Tensor;
}

/// One parameter tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its name in PyTorch's style: `layer.weight`.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// First values lie evenly between minus and plus this.
    bound: f64,
    /// Where it lies in the flat run.
    pub range: Range<usize>,
}

/// The parameters of a model, in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Layout {
    entries: Vec<Entry>,
}

impl Layout {
    /// The entries, in the order of the flat run.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Length of the flat run.
    pub fn len(&self) -> usize {
        self.entries.last().map_or(0, |last| last.range.end)
    }

    /// Whether the model has no parameters.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a layer with a relu behind it: `name.weight` (first dimension: outputs), `name.bias`.
    ///
    /// Its first values keep the scale of activations through any number of layers (He et al.
    /// 2015). With PyTorch's, smaller by 2.4, a deep chain stands still for its first 100 steps.
    fn layer(self, name: &str, weight: &[usize]) -> Self {
        self.scaled(name, weight, 6.0)
    }

    /// Adds the layer that gives the scores. They start small: no class is taken for sure.
    fn scores(self, name: &str, weight: &[usize]) -> Self {
        self.scaled(name, weight, 1.0)
    }

    fn scaled(mut self, name: &str, weight: &[usize], square: f64) -> Self {
        let inputs: usize = weight[1..].iter().product();
        let bound = (square / inputs as f64).sqrt();
        self.entry(format!("{name}.weight"), weight, bound);
        self.entry(format!("{name}.bias"), &weight[..1], 0.0);
        self
    }

    fn entry(&mut self, name: String, shape: &[usize], bound: f64) {
        let (start, size) = (self.len(), shape.iter().product::<usize>());
        let (shape, range) = (shape.to_vec(), start..start + size);
        self.entries.push(Entry { name, shape, bound, range });
    }

    /// First values, drawn from a seed; biases are zero.
    pub fn initial(&self, seed: u64) -> Vec<f32> {
        const PURPOSE: u64 = 0x1a17;
        let mut values = Vec::with_capacity(self.len());
        for (index, entry) in self.entries.iter().enumerate() {
            let mut random = Random::new(&[seed, PURPOSE, index as u64]);
            let mut draw = || random.between(-entry.bound, entry.bound) as f32;
            values.extend(entry.range.clone().map(|_| draw()));
        }
        values
    }
}

/// A chain of dense layers over flattened images, with relu and dropout after each but the last.
fn dense_chain(
    parameters: &[Tensor],
    images: &Tensor,
    share: f64,
    mut dropout: Option<&mut Random>,
) -> Tensor {
    let mut activations = images.flatten(1, -1);
    let layers = parameters.chunks_exact(2);
    let last = layers.len() - 1;
    for (index, layer) in layers.enumerate() {
        activations = activations.linear(&layer[0], Some(&layer[1]));
        if index < last {
            activations = dropped(activations.relu_(), share, dropout.as_deref_mut());
        }
    }
    activations
}

/// Sets a `share` of the activations to zero and scales up the others. Drawn here rather than by
/// libtorch, whose generator is one for the whole process: what is dropped depends on the seed
/// alone.
fn dropped(activations: Tensor, share: f64, dropout: Option<&mut Random>) -> Tensor {
    let Some(random) = dropout.filter(|_| share > 0.0) else { return activations };
    // Each draw of 64 bits decides for four activations.
    let limit = (share * 65_536.0) as u64;
    let kept = (1.0 / (1.0 - share)) as f32;
    let mut mask = vec![0.0_f32; activations.numel()];
    for four in mask.chunks_mut(4) {
        let mut bits = random.bits();
        for each in four {
            *each = if bits & 0xffff < limit { 0.0 } else { kept };
            bits >>= 16;
        }
    }
    let mask = Tensor::from_slice(&mask).view(&activations.size()[..]);
    activations * mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_have_the_sizes_of_the_same_models_elsewhere() {
        let len = |architecture: Architecture| architecture.build(28, 28, 10, 0.0).layout().len();
        assert_eq!(len(Architecture::Mlp), 784 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10);
        let eight = 8 * (512 * 512 + 512);
        assert_eq!(
            len(Architecture::DeepMlp),
            784 * 128 + 128 + 128 * 512 + 512 + eight + 512 * 10 + 10
        );
    }

    #[test]
    fn first_values_repeat_and_keep_to_their_bounds() {
        let model = Architecture::Convnet.build(28, 28, 10, 0.0);
        let layout = model.layout();
        let values = layout.initial(1);
        assert_eq!(values, layout.initial(1));
        assert_ne!(values, layout.initial(2));
        for entry in layout.entries() {
            let part = &values[entry.range.clone()];
            let widest = part.iter().fold(0.0_f32, |widest, value| widest.max(value.abs()));
            let widest = f64::from(widest);
            assert!(widest <= entry.bound && widest >= entry.bound / 2.0, "{}", entry.name);
            assert_eq!(entry.bound == 0.0, entry.name.ends_with("bias"), "{}", entry.name);
        }
    }

    #[test]
    fn activations_keep_their_scale_through_a_deep_chain() {
        let model = Architecture::DeepMlp.build(28, 28, 10, 0.0);
        let values = model.layout().initial(1);
        let mut parameters = crate::tensor::Parameters::new(model.layout());
        parameters.values_mut().copy_from_slice(&values);
        let images = Tensor::ones([1, 1, 28, 28], (tch::Kind::Float, tch::Device::Cpu));
        let scores = tch::no_grad(|| model.forward(parameters.leaves(), &images, None));
        let scale = scores.square().mean(None).double_value(&[]).sqrt();
        assert!((0.2..3.0).contains(&scale), "{scale}");
    }

    #[test]
    fn every_model_scores_images_of_several_sizes() {
        for (name, architecture) in Architecture::ALL {
            for (rows, columns) in [(28, 28), (12, 20)] {
                let model = architecture.build(rows, columns, 7, 0.5);
                let values = model.layout().initial(1);
                let parameters: Vec<Tensor> = model
                    .layout()
                    .entries()
                    .iter()
                    .map(|entry| {
                        let shape: Vec<i64> = entry.shape.iter().map(|side| *side as i64).collect();
                        Tensor::from_slice(&values[entry.range.clone()]).view(&shape[..])
                    })
                    .collect();
                let shape = [3, 1, i64::from(rows), i64::from(columns)];
                let images = Tensor::ones(shape, (tch::Kind::Float, tch::Device::Cpu));
                let once = model.forward(&parameters, &images, None);
                assert_eq!(once.size(), [3, 7], "{name}");
                assert_eq!(once, model.forward(&parameters, &images, None), "{name}");
            }
        }
    }

    #[test]
    fn dropout_drops_its_share_and_keeps_the_mean() {
        let ones = Tensor::ones([100, 1_000], (tch::Kind::Float, tch::Device::Cpu));
        let dropped = dropped(ones, 0.2, Some(&mut Random::new(&[1])));
        let zeros = dropped.eq(0.0).sum(None).int64_value(&[]);
        assert!((19_000..21_000).contains(&zeros), "{zeros}");
        let mean = dropped.mean(None).double_value(&[]);
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
    }
}

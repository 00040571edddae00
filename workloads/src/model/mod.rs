//! Models: what parameters they have, and how images become scores.
//!
//! Parameters are one flat run of `f32`, in the order of the [`Layout`]; that is what replicas
//! send each other, what strategies average and what checkpoints hold. Their first values are
//! drawn here from a seed, not by libtorch, so that every machine starts from the same ones.
//! Names and shapes are those of the same model in PyTorch, so its tools can load checkpoints.

mod breast;
mod convnet;
pub mod layer;
pub mod layout;
mod mlp;
pub(crate) mod pickled;
pub mod ready;
pub mod weights;
mod zoo;

use rkyv::{Archive, Deserialize, Serialize};
use tch::Tensor;

use crate::data::Shape;
use crate::data::random::Random;
use layer::{Builder, Layer, Pass};
pub use layout::{Entry, Layout};
use zoo::resnet::Block;

/// Which model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[allow(missing_docs, reason = "rkyv copies variants without their docs")]
pub enum Architecture {
    /// Pixels to 128 to 64 to classes; the fastest.
    Mlp,
    /// Twelve dense layers (workload 5).
    DeepMlp,
    /// Two convolutions and two dense layers, for digits.
    Convnet,
    /// Five convolutions with batch norm, for photographs of plants (workload 2).
    HerbariumConvnet,
    /// Three convolutions and three dense layers (workload 4).
    BreastConvnet,
    Alexnet,
    Densenet,
    Inception,
    Resnet18,
    Resnet34,
    Resnet50,
    Squeezenet,
    Vgg,
}

/// What a model is made for.
#[derive(Debug, Clone, Copy, PartialEq, Archive, Serialize, Deserialize)]
#[allow(missing_docs, reason = "rkyv copies fields without their docs")]
pub struct Input {
    /// Of its images.
    pub shape: Shape,
    /// How many classes it tells apart.
    pub classes: i64,
    /// Share of activations that training drops.
    pub dropout: f64,
}

impl Input {
    fn channels(&self) -> i64 {
        self.shape.channels.into()
    }
}

impl Architecture {
    /// Every one, by the name that the TOML uses.
    pub const ALL: [(&'static str, Self); 13] = [
        ("mlp", Self::Mlp),
        ("deep_mlp", Self::DeepMlp),
        ("convnet", Self::Convnet),
        ("herbarium_convnet", Self::HerbariumConvnet),
        ("breast_convnet", Self::BreastConvnet),
        ("alexnet", Self::Alexnet),
        ("densenet", Self::Densenet),
        ("inception", Self::Inception),
        ("resnet18", Self::Resnet18),
        ("resnet34", Self::Resnet34),
        ("resnet50", Self::Resnet50),
        ("squeezenet", Self::Squeezenet),
        ("vgg", Self::Vgg),
    ];

    /// Its name in the TOML.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, each)| *each == self).map_or("", |(name, _)| name)
    }

    /// The model, without its parameters.
    pub fn build(self, input: &Input) -> Model {
        let mut builder = Builder::default();
        let b = &mut builder;
        let layer = match self {
            Self::Mlp => mlp::small(b, input),
            Self::DeepMlp => mlp::deep(b, input),
            Self::Convnet => convnet::digits(b, input),
            Self::HerbariumConvnet => convnet::herbarium(b, input),
            Self::BreastConvnet => breast::breast(b, input),
            Self::Alexnet => zoo::alexnet::alexnet(b, input),
            Self::Densenet => zoo::densenet::densenet(b, input),
            Self::Inception => zoo::inception::inception(b, input),
            Self::Resnet18 => zoo::resnet::resnet(b, input, Block::Basic, [2, 2, 2, 2]),
            Self::Resnet34 => zoo::resnet::resnet(b, input, Block::Basic, [3, 4, 6, 3]),
            Self::Resnet50 => zoo::resnet::resnet(b, input, Block::Bottleneck, [3, 4, 6, 3]),
            Self::Squeezenet => zoo::squeezenet::squeezenet(b, input),
            Self::Vgg => zoo::vgg::vgg(b, input),
        };
        let (layout, folds) = builder.finish();
        Model { layout, layer, folds }
    }

    /// The share of activations that training drops where the TOML does not say.
    pub fn default_dropout(self) -> f64 {
        match self {
            Self::Mlp | Self::Densenet | Self::Resnet18 | Self::Resnet34 | Self::Resnet50 => 0.0,
            Self::Convnet => 0.25,
            Self::DeepMlp | Self::HerbariumConvnet | Self::BreastConvnet => 0.2,
            Self::Alexnet | Self::Inception | Self::Squeezenet | Self::Vgg => 0.5,
        }
    }

    /// Pixels that a side of its images must have.
    pub fn smallest_side(self) -> u32 {
        match self {
            Self::Mlp | Self::DeepMlp => 1,
            Self::Convnet => 4,
            Self::BreastConvnet => 14,
            Self::HerbariumConvnet => 16,
            Self::Densenet
            | Self::Resnet18
            | Self::Resnet34
            | Self::Resnet50
            | Self::Squeezenet
            | Self::Vgg => 32,
            Self::Alexnet => 63,
            Self::Inception => 75,
        }
    }

    /// The layer whose shape depends on the number of classes: a state dict of other classes is
    /// loaded without it.
    pub fn head(self) -> &'static str {
        match self {
            Self::Mlp => "dense3.",
            Self::DeepMlp => "dense11.",
            Self::Convnet => "dense2.",
            Self::HerbariumConvnet => "dense.",
            Self::BreastConvnet => "dense3.",
            Self::Alexnet | Self::Vgg => "classifier.6.",
            Self::Densenet => "classifier.",
            Self::Inception | Self::Resnet18 | Self::Resnet34 | Self::Resnet50 => "fc.",
            Self::Squeezenet => "classifier.1.",
        }
    }
}

/// A model without its parameters.
pub struct Model {
    layout: Layout,
    layer: Layer,
    folds: Vec<layer::Fold>,
}

impl Model {
    /// The parameters that [`forward`](Self::forward) wants.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Scores (`n x classes`, before softmax) of `images` (`n x channels x rows x columns`,
    /// normalised). `parameters` are shaped as the layout says. While training, `dropout` draws
    /// what is dropped, and running statistics among the parameters are updated in place.
    pub fn forward(
        &self,
        parameters: &[Tensor],
        images: &Tensor,
        dropout: Option<&mut Random>,
    ) -> Tensor {
        (self.layer)(images, &mut Pass { leaves: parameters, dropout, folded: &[] })
    }
}

#[cfg(test)]
mod tests;

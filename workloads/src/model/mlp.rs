//! A small multi-layer perceptron: pixels, 128, 64, classes.

use tch::Tensor;

use super::{Layout, Model, dense_chain};
use crate::data::random::Random;

/// See the module.
pub struct Mlp {
    layout: Layout,
    dropout: f64,
}

impl Mlp {
    /// For images of `pixels` pixels.
    pub fn new(pixels: usize, classes: usize, dropout: f64) -> Self {
        let layout = Layout::default()
            .layer("dense1", &[128, pixels])
            .layer("dense2", &[64, 128])
            .scores("dense3", &[classes, 64]);
        Self { layout, dropout }
    }
}

impl Model for Mlp {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn forward(
        &self,
        parameters: &[Tensor],
        images: &Tensor,
        dropout: Option<&mut Random>,
    ) -> Tensor {
        dense_chain(parameters, images, self.dropout, dropout)
    }
}

//! The deep multi-layer perceptron of workload 5: pixels, 128, 512, eight times 512, classes,
//! with relu and dropout after every layer but the last.

use tch::Tensor;

use super::{Layout, Model, dense_chain};
use crate::data::random::Random;

/// See the module.
pub struct DeepMlp {
    layout: Layout,
    dropout: f64,
}

impl DeepMlp {
    /// For images of `pixels` pixels.
    pub fn new(pixels: usize, classes: usize, dropout: f64) -> Self {
        let mut layout =
            Layout::default().layer("dense1", &[128, pixels]).layer("dense2", &[512, 128]);
        for index in 3..=10 {
            layout = layout.layer(&format!("dense{index}"), &[512, 512]);
        }
        Self { layout: layout.scores("dense11", &[classes, 512]), dropout }
    }
}

impl Model for DeepMlp {
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

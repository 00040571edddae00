//! A small convolutional net in the manner of LeNet-5: two 5x5 convolutions (10 and 20 channels)
//! with relu and 2x2 pooling, a dense layer of 64, classes.

use tch::Tensor;

use super::{Layout, Model, dropped};
use crate::data::random::Random;

const CHANNELS: [usize; 2] = [10, 20];
const HIDDEN: usize = 64;

/// See the module.
pub struct Convnet {
    layout: Layout,
    dropout: f64,
}

impl Convnet {
    /// For images of at least 4 x 4 pixels.
    pub fn new(rows: u32, columns: u32, classes: usize, dropout: f64) -> Self {
        // Convolutions keep the size, each pooling halves it.
        let flat = CHANNELS[1] * (rows / 4) as usize * (columns / 4) as usize;
        let layout = Layout::default()
            .layer("conv1", &[CHANNELS[0], 1, 5, 5])
            .layer("conv2", &[CHANNELS[1], CHANNELS[0], 5, 5])
            .layer("dense1", &[HIDDEN, flat])
            .scores("dense2", &[classes, HIDDEN]);
        Self { layout, dropout }
    }
}

impl Model for Convnet {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn forward(
        &self,
        parameters: &[Tensor],
        images: &Tensor,
        dropout: Option<&mut Random>,
    ) -> Tensor {
        let mut activations = images.shallow_clone();
        for layer in parameters[..4].chunks_exact(2) {
            activations = activations
                .conv2d(&layer[0], Some(&layer[1]), [1, 1], [2, 2], [1, 1], 1)
                .max_pool2d_default(2)
                // After pooling: the same result as before it, on a quarter of the values.
                .relu_();
        }
        activations = activations.flatten(1, -1).linear(&parameters[4], Some(&parameters[5]));
        dropped(activations.relu_(), self.dropout, dropout)
            .linear(&parameters[6], Some(&parameters[7]))
    }
}

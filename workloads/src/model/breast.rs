//! The net of workload 4, as its Keras original has it: convolutions without padding, batch norm
//! with Keras's epsilon, and one sigmoid at the end that tells two classes apart.

use tch::{Kind, Tensor};

use super::Input;
use super::layer::{Builder, Layer, Window, chain, dropout, flatten, max_pool, relu};

/// Keras's default.
const EPSILON: f64 = 1e-3;

/// Conv 128 3x3 relu, maxpool 2, batch norm, dropout .2; conv 64 3x3 relu, maxpool 2, batch norm,
/// dropout .1; conv 32 2x2 relu, batch norm; flatten; dense 64 relu, dropout .1; dense 16 relu;
/// dense 1 sigmoid. With other than two classes, the last layer has one output for each.
///
/// Relu comes behind pooling here: the values are the same, and there are a quarter as many.
pub(super) fn breast(builder: &mut Builder, input: &Input) -> Layer {
    // Two convolutions lose 2 pixels and pooling halves; the last one loses 1.
    let side = |side: u32| ((i64::from(side) - 2) / 2 - 2) / 2 - 1;
    let flat = 32 * side(input.shape.rows) * side(input.shape.columns);
    // The original's shares are 2, 1, 1 tenths; the TOML's number is the first one.
    let (most, less) = (input.dropout, input.dropout / 2.0);
    let mut layers = vec![
        builder.conv("conv1", input.channels(), 128, Window::square(3, 1, 0)),
        max_pool(2, 2, 0, false),
        relu(),
        builder.norm("norm1", 128, EPSILON),
        dropout(most),
        builder.conv("conv2", 128, 64, Window::square(3, 1, 0)),
        max_pool(2, 2, 0, false),
        relu(),
        builder.norm("norm2", 64, EPSILON),
        dropout(less),
        builder.conv("conv3", 64, 32, Window::square(2, 1, 0)),
        relu(),
        builder.norm("norm3", 32, EPSILON),
        flatten(),
        builder.linear("dense1", flat, 64),
        relu(),
        dropout(less),
        builder.linear("dense2", 64, 16),
        relu(),
    ];
    if input.classes == 2 {
        layers.push(builder.scores("dense3", 16, 1));
        // The softmax of (0, x) gives the sigmoid of x to the second class: the loss and the
        // probability are those of one sigmoid, and everything else sees two scores.
        layers.push(Box::new(|x, _| {
            let zeros = Tensor::zeros(x.size(), (Kind::Float, x.device()));
            Tensor::cat(&[zeros, x.shallow_clone()], 1)
        }));
    } else {
        layers.push(builder.scores("dense3", 16, input.classes));
    }
    chain(layers)
}

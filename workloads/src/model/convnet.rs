//! Small convolutional nets of our own design.

use super::Input;
use super::layer::{Builder, Layer, Window, chain, dropout, flatten, max_pool, mean_to, relu};

/// For digits: 5x5 and 3x3 convolutions of 16 and 32 channels that halve the picture themselves,
/// which costs a third of pooling and is as accurate; a dense layer of 64, classes.
pub(super) fn digits(builder: &mut Builder, input: &Input) -> Layer {
    let half = |side: u32| i64::from(side.div_ceil(2).div_ceil(2));
    let flat = 32 * half(input.shape.rows) * half(input.shape.columns);
    chain(vec![
        builder.conv("conv1", input.channels(), 16, Window::square(5, 2, 2)),
        relu(),
        builder.conv("conv2", 16, 32, Window::square(3, 2, 1)),
        relu(),
        flatten(),
        builder.linear("dense1", flat, 64),
        relu(),
        dropout(input.dropout),
        builder.scores("dense2", 64, input.classes),
    ])
}

/// For photographs of plants (workload 2): five 3x3 convolutions with batch norm, 32 to 192
/// channels, the mean over the picture, classes. About 41 million multiplications for 64x64
/// pixels.
pub(super) fn herbarium(builder: &mut Builder, input: &Input) -> Layer {
    const EPSILON: f64 = 1e-5;
    let mut layers = Vec::new();
    let mut inputs = input.channels();
    for (index, (outputs, stride, pooled)) in
        [(32, 2, false), (64, 1, true), (96, 1, true), (128, 1, true), (192, 1, false)]
            .into_iter()
            .enumerate()
    {
        let number = index + 1;
        let window = Window::square(3, stride, 1);
        layers.push(builder.conv_plain(&format!("conv{number}"), inputs, outputs, window));
        layers.push(builder.norm_behind(&format!("norm{number}"), outputs, EPSILON));
        if pooled {
            layers.push(max_pool(2, 2, 0, false));
        }
        // Behind pooling: the values are the same, and there are a quarter as many.
        layers.push(relu());
        inputs = outputs;
    }
    layers.extend([mean_to(1), flatten(), dropout(input.dropout)]);
    layers.push(builder.scores("dense", inputs, input.classes));
    chain(layers)
}

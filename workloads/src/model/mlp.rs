//! Multi-layer perceptrons: dense layers over flattened images, with relu and dropout behind all
//! but the last.

use super::Input;
use super::layer::{Builder, Layer, chain, dropout, flatten, relu};

/// Pixels, `widths`, classes.
fn perceptron(builder: &mut Builder, input: &Input, widths: &[i64]) -> Layer {
    let mut layers = vec![flatten()];
    let mut inputs = input.shape.len() as i64;
    for (index, width) in widths.iter().enumerate() {
        layers.push(builder.linear(&format!("dense{}", index + 1), inputs, *width));
        layers.extend([relu(), dropout(input.dropout)]);
        inputs = *width;
    }
    let name = format!("dense{}", widths.len() + 1);
    layers.push(builder.scores(&name, inputs, input.classes));
    chain(layers)
}

/// A small one: pixels, 128, 64, classes.
pub(super) fn small(builder: &mut Builder, input: &Input) -> Layer {
    perceptron(builder, input, &[128, 64])
}

/// The deep one of workload 5: pixels, 128, 512, eight times 512, classes.
pub(super) fn deep(builder: &mut Builder, input: &Input) -> Layer {
    let mut widths = [512; 10];
    widths[0] = 128;
    perceptron(builder, input, &widths)
}

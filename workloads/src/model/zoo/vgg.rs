//! VGG with eleven layers and batch norm, torchvision's `vgg11_bn` (Simonyan and Zisserman 2014).

use super::super::Input;
use super::super::layer::{
    Builder, Layer, Window, chain, dropout, flatten, max_pool, mean_to, relu,
};

/// Channels of the convolutions; `None` is a pooling.
const FEATURES: [Option<i64>; 13] = [
    Some(64),
    None,
    Some(128),
    None,
    Some(256),
    Some(256),
    None,
    Some(512),
    Some(512),
    None,
    Some(512),
    Some(512),
    None,
];

/// For pictures of at least 32 pixels a side.
pub(in super::super) fn vgg(builder: &mut Builder, input: &Input) -> Layer {
    let (mut layers, mut index, mut inputs) = (Vec::new(), 0, input.channels());
    for feature in FEATURES {
        let Some(outputs) = feature else {
            layers.push(max_pool(2, 2, 0, false));
            index += 1;
            continue;
        };
        let window = Window::square(3, 1, 1);
        layers.push(builder.conv(&format!("features.{index}"), inputs, outputs, window));
        layers.push(builder.norm_behind(&format!("features.{}", index + 1), outputs, 1e-5));
        layers.push(relu());
        index += 3;
        inputs = outputs;
    }
    layers.extend([mean_to(7), flatten()]);
    for (name, inputs) in [("classifier.0", 512 * 49), ("classifier.3", 4_096)] {
        layers.push(builder.linear(name, inputs, 4_096));
        layers.extend([relu(), dropout(input.dropout)]);
    }
    layers.push(builder.scores("classifier.6", 4_096, input.classes));
    chain(layers)
}

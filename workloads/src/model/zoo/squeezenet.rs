//! `SqueezeNet` 1.0 (Iandola et al. 2016), torchvision's `squeezenet1_0`.

use super::super::Input;
use super::super::layer::{
    Builder, Layer, Window, beside, chain, dropout, flatten, max_pool, mean_to, relu,
};

/// For pictures of at least 32 pixels a side.
pub(in super::super) fn squeezenet(builder: &mut Builder, input: &Input) -> Layer {
    let mut layers = vec![
        builder.conv("features.0", input.channels(), 96, Window::square(7, 2, 0)),
        relu(),
        max_pool(3, 2, 0, true),
    ];
    for (index, inputs, squeezed, expanded) in
        [(3, 96, 16, 64), (4, 128, 16, 64), (5, 128, 32, 128)]
    {
        layers.push(fire(builder, index, inputs, squeezed, expanded));
    }
    layers.push(max_pool(3, 2, 0, true));
    for (index, inputs, squeezed, expanded) in
        [(7, 256, 32, 128), (8, 256, 48, 192), (9, 384, 48, 192), (10, 384, 64, 256)]
    {
        layers.push(fire(builder, index, inputs, squeezed, expanded));
    }
    layers.push(max_pool(3, 2, 0, true));
    layers.push(fire(builder, 12, 512, 64, 256));
    layers.push(dropout(input.dropout));
    layers.push(builder.conv("classifier.1", 512, input.classes, Window::square(1, 1, 0)));
    layers.extend([relu(), mean_to(1), flatten()]);
    chain(layers)
}

fn fire(builder: &mut Builder, index: i64, inputs: i64, squeezed: i64, expanded: i64) -> Layer {
    let name = |part: &str| format!("features.{index}.{part}");
    let squeeze = builder.conv(&name("squeeze"), inputs, squeezed, Window::square(1, 1, 0));
    let one = builder.conv(&name("expand1x1"), squeezed, expanded, Window::square(1, 1, 0));
    let three = builder.conv(&name("expand3x3"), squeezed, expanded, Window::square(3, 1, 1));
    let expand = beside(vec![chain(vec![one, relu()]), chain(vec![three, relu()])]);
    chain(vec![squeeze, relu(), expand])
}

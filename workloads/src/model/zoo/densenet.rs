//! `DenseNet` of 121 layers (Huang et al. 2016), torchvision's `densenet121`.

use tch::Tensor;

use super::super::Input;
use super::super::layer::{
    Builder, Layer, Window, chain, flatten, max_pool, mean_pool, mean_to, relu,
};

const EPSILON: f64 = 1e-5;
/// Channels that each layer adds.
const GROWTH: i64 = 32;
/// Layers in each block.
const LAYERS: [usize; 4] = [6, 12, 24, 16];

/// For pictures of at least 32 pixels a side.
pub(in super::super) fn densenet(builder: &mut Builder, input: &Input) -> Layer {
    let mut layers = vec![
        builder.conv_plain("features.conv0", input.channels(), 64, Window::square(7, 2, 3)),
        builder.norm_behind("features.norm0", 64, EPSILON),
        relu(),
        max_pool(3, 2, 1, false),
    ];
    let mut channels = 64;
    for (index, count) in LAYERS.into_iter().enumerate() {
        let number = index + 1;
        for layer in 1..=count {
            let name = format!("features.denseblock{number}.denselayer{layer}");
            layers.push(dense_layer(builder, &name, channels));
            channels += GROWTH;
        }
        if number < LAYERS.len() {
            let name = format!("features.transition{number}");
            layers.push(builder.norm(&format!("{name}.norm"), channels, EPSILON));
            layers.push(relu());
            let window = Window::square(1, 1, 0);
            let name = format!("{name}.conv");
            layers.push(builder.conv_plain(&name, channels, channels / 2, window));
            layers.push(mean_pool(2, 2, 0));
            channels /= 2;
        }
    }
    layers.push(builder.norm("features.norm5", channels, EPSILON));
    layers.extend([relu(), mean_to(1), flatten()]);
    layers.push(builder.scores("classifier", channels, input.classes));
    chain(layers)
}

/// Its input, with new channels behind.
fn dense_layer(builder: &mut Builder, name: &str, inputs: i64) -> Layer {
    let wide = 4 * GROWTH;
    let layers = chain(vec![
        builder.norm(&format!("{name}.norm1"), inputs, EPSILON),
        relu(),
        builder.conv_plain(&format!("{name}.conv1"), inputs, wide, Window::square(1, 1, 0)),
        builder.norm_behind(&format!("{name}.norm2"), wide, EPSILON),
        relu(),
        builder.conv_plain(&format!("{name}.conv2"), wide, GROWTH, Window::square(3, 1, 1)),
    ]);
    Box::new(move |x, pass| {
        let added = layers(x, pass);
        Tensor::cat(&[x.shallow_clone(), added], 1)
    })
}

//! Residual nets (He et al. 2015).

use super::super::Input;
use super::super::layer::{Builder, Layer, Window, chain, flatten, max_pool, mean_to, relu};

const EPSILON: f64 = 1e-5;

/// What a residual net is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Block {
    /// Two 3x3 convolutions (resnet18, resnet34).
    Basic,
    /// 1x1, 3x3, 1x1, the last one four times as wide (resnet50); the 3x3 has the stride.
    Bottleneck,
}

/// With so many blocks at each of four sizes.
pub(in super::super) fn resnet(
    builder: &mut Builder,
    input: &Input,
    block: Block,
    counts: [usize; 4],
) -> Layer {
    let mut layers = vec![
        builder.conv_plain("conv1", input.channels(), 64, Window::square(7, 2, 3)),
        builder.norm_behind("bn1", 64, EPSILON),
        relu(),
        max_pool(3, 2, 1, false),
    ];
    let mut inputs = 64;
    for (stage, count) in counts.into_iter().enumerate() {
        let width = 64 << stage;
        for index in 0..count {
            let stride = if stage > 0 && index == 0 { 2 } else { 1 };
            let name = format!("layer{}.{index}", stage + 1);
            layers.push(residual(builder, &name, block, inputs, width, stride));
            inputs = if block == Block::Basic { width } else { 4 * width };
        }
    }
    layers.extend([mean_to(1), flatten()]);
    layers.push(builder.scores("fc", inputs, input.classes));
    chain(layers)
}

fn residual(
    builder: &mut Builder,
    name: &str,
    block: Block,
    inputs: i64,
    width: i64,
    stride: i64,
) -> Layer {
    let (windows, outputs): (&[_], i64) = match block {
        Block::Basic => (&[(3, stride, width), (3, 1, width)], width),
        Block::Bottleneck => (&[(1, 1, width), (3, stride, width), (1, 1, 4 * width)], 4 * width),
    };
    let (mut layers, mut channels) = (Vec::new(), inputs);
    for (index, (kernel, stride, outputs)) in windows.iter().enumerate() {
        if index > 0 {
            layers.push(relu());
        }
        let number = index + 1;
        let window = Window::square(*kernel, *stride, kernel / 2);
        layers.push(builder.conv_plain(
            &format!("{name}.conv{number}"),
            channels,
            *outputs,
            window,
        ));
        layers.push(builder.norm_behind(&format!("{name}.bn{number}"), *outputs, EPSILON));
        channels = *outputs;
    }
    let shortcut = (stride != 1 || inputs != outputs).then(|| {
        let window = Window::square(1, stride, 0);
        chain(vec![
            builder.conv_plain(&format!("{name}.downsample.0"), inputs, outputs, window),
            builder.norm_behind(&format!("{name}.downsample.1"), outputs, EPSILON),
        ])
    });
    let layers = chain(layers);
    Box::new(move |x, pass| {
        let changed = layers(x, pass);
        let kept = shortcut.as_ref().map_or_else(|| x.shallow_clone(), |layer| layer(x, pass));
        (changed + kept).relu_()
    })
}

//! Inception v3 (Szegedy et al. 2015), torchvision's `inception_v3` without its auxiliary head,
//! whose entries of a state dict (`AuxLogits.`) are left alone.

use super::super::Input;
use super::super::layer::{
    Builder, Layer, Window, beside, chain, dropout, flatten, max_pool, mean_pool, mean_to, relu,
};

/// Convolution, batch norm, relu under one name.
struct Unit<'a>(&'a mut Builder);

impl Unit<'_> {
    fn of(&mut self, name: &str, inputs: i64, outputs: i64, window: Window) -> Layer {
        chain(vec![
            self.0.conv_plain(&format!("{name}.conv"), inputs, outputs, window),
            self.0.norm_behind(&format!("{name}.bn"), outputs, 1e-3),
            relu(),
        ])
    }

    /// Stride 1, size kept.
    fn same(&mut self, name: &str, inputs: i64, outputs: i64, kernel: [i64; 2]) -> Layer {
        self.of(name, inputs, outputs, Window::same(kernel))
    }

    /// Several of the same size in a row: name, channels, kernel.
    fn row(&mut self, inputs: i64, units: &[(String, i64, [i64; 2])]) -> Layer {
        let mut channels = inputs;
        let mut layers = Vec::new();
        for (name, outputs, kernel) in units {
            layers.push(self.same(name, channels, *outputs, *kernel));
            channels = *outputs;
        }
        chain(layers)
    }
}

/// For pictures of at least 75 pixels a side.
pub(in super::super) fn inception(builder: &mut Builder, input: &Input) -> Layer {
    let mut unit = Unit(builder);
    let mut layers = vec![
        unit.of("Conv2d_1a_3x3", input.channels(), 32, Window::square(3, 2, 0)),
        unit.of("Conv2d_2a_3x3", 32, 32, Window::square(3, 1, 0)),
        unit.same("Conv2d_2b_3x3", 32, 64, [3, 3]),
        max_pool(3, 2, 0, false),
        unit.of("Conv2d_3b_1x1", 64, 80, Window::square(1, 1, 0)),
        unit.of("Conv2d_4a_3x3", 80, 192, Window::square(3, 1, 0)),
        max_pool(3, 2, 0, false),
    ];
    for (name, inputs, pooled) in
        [("Mixed_5b", 192, 32), ("Mixed_5c", 256, 64), ("Mixed_5d", 288, 64)]
    {
        layers.push(five_and_three(&mut unit, name, inputs, pooled));
    }
    layers.push(halve_to_17(&mut unit, "Mixed_6a", 288));
    for (name, width) in
        [("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)]
    {
        layers.push(sevens(&mut unit, name, width));
    }
    layers.push(halve_to_8(&mut unit, "Mixed_7a", 768));
    layers.push(wide(&mut unit, "Mixed_7b", 1_280));
    layers.push(wide(&mut unit, "Mixed_7c", 2_048));
    layers.extend([mean_to(1), dropout(input.dropout), flatten()]);
    layers.push(builder.scores("fc", 2_048, input.classes));
    chain(layers)
}

/// `InceptionA`
fn five_and_three(unit: &mut Unit<'_>, name: &str, inputs: i64, pooled: i64) -> Layer {
    let n = |part: &str| format!("{name}.{part}");
    let one = unit.same(&n("branch1x1"), inputs, 64, [1, 1]);
    let five = unit.row(inputs, &[(n("branch5x5_1"), 48, [1, 1]), (n("branch5x5_2"), 64, [5, 5])]);
    let three = unit.row(
        inputs,
        &[
            (n("branch3x3dbl_1"), 64, [1, 1]),
            (n("branch3x3dbl_2"), 96, [3, 3]),
            (n("branch3x3dbl_3"), 96, [3, 3]),
        ],
    );
    let pool = unit.same(&n("branch_pool"), inputs, pooled, [1, 1]);
    beside(vec![one, five, three, chain(vec![mean_pool(3, 1, 1), pool])])
}

/// `InceptionB`
fn halve_to_17(unit: &mut Unit<'_>, name: &str, inputs: i64) -> Layer {
    let n = |part: &str| format!("{name}.{part}");
    let half = Window::square(3, 2, 0);
    let three = unit.of(&n("branch3x3"), inputs, 384, half);
    let double =
        unit.row(inputs, &[(n("branch3x3dbl_1"), 64, [1, 1]), (n("branch3x3dbl_2"), 96, [3, 3])]);
    let last = unit.of(&n("branch3x3dbl_3"), 96, 96, half);
    beside(vec![three, chain(vec![double, last]), max_pool(3, 2, 0, false)])
}

/// `InceptionC`
fn sevens(unit: &mut Unit<'_>, name: &str, width: i64) -> Layer {
    let n = |part: &str| format!("{name}.{part}");
    let one = unit.same(&n("branch1x1"), 768, 192, [1, 1]);
    let seven = unit.row(
        768,
        &[
            (n("branch7x7_1"), width, [1, 1]),
            (n("branch7x7_2"), width, [1, 7]),
            (n("branch7x7_3"), 192, [7, 1]),
        ],
    );
    let double = unit.row(
        768,
        &[
            (n("branch7x7dbl_1"), width, [1, 1]),
            (n("branch7x7dbl_2"), width, [7, 1]),
            (n("branch7x7dbl_3"), width, [1, 7]),
            (n("branch7x7dbl_4"), width, [7, 1]),
            (n("branch7x7dbl_5"), 192, [1, 7]),
        ],
    );
    let pool = unit.same(&n("branch_pool"), 768, 192, [1, 1]);
    beside(vec![one, seven, double, chain(vec![mean_pool(3, 1, 1), pool])])
}

/// `InceptionD`
fn halve_to_8(unit: &mut Unit<'_>, name: &str, inputs: i64) -> Layer {
    let n = |part: &str| format!("{name}.{part}");
    let half = Window::square(3, 2, 0);
    let three = unit.same(&n("branch3x3_1"), inputs, 192, [1, 1]);
    let three = chain(vec![three, unit.of(&n("branch3x3_2"), 192, 320, half)]);
    let seven = unit.row(
        inputs,
        &[
            (n("branch7x7x3_1"), 192, [1, 1]),
            (n("branch7x7x3_2"), 192, [1, 7]),
            (n("branch7x7x3_3"), 192, [7, 1]),
        ],
    );
    let seven = chain(vec![seven, unit.of(&n("branch7x7x3_4"), 192, 192, half)]);
    beside(vec![three, seven, max_pool(3, 2, 0, false)])
}

/// `InceptionE`
fn wide(unit: &mut Unit<'_>, name: &str, inputs: i64) -> Layer {
    let n = |part: &str| format!("{name}.{part}");
    let one = unit.same(&n("branch1x1"), inputs, 320, [1, 1]);
    let three = unit.same(&n("branch3x3_1"), inputs, 384, [1, 1]);
    let split = beside(vec![
        unit.same(&n("branch3x3_2a"), 384, 384, [1, 3]),
        unit.same(&n("branch3x3_2b"), 384, 384, [3, 1]),
    ]);
    let three = chain(vec![three, split]);
    let double =
        unit.row(inputs, &[(n("branch3x3dbl_1"), 448, [1, 1]), (n("branch3x3dbl_2"), 384, [3, 3])]);
    let split = beside(vec![
        unit.same(&n("branch3x3dbl_3a"), 384, 384, [1, 3]),
        unit.same(&n("branch3x3dbl_3b"), 384, 384, [3, 1]),
    ]);
    let double = chain(vec![double, split]);
    let pool = unit.same(&n("branch_pool"), inputs, 192, [1, 1]);
    beside(vec![one, three, double, chain(vec![mean_pool(3, 1, 1), pool])])
}

//! `AlexNet`, in torchvision's version (Krizhevsky 2014).

use super::super::Input;
use super::super::layer::{
    Builder, Layer, Window, chain, dropout, flatten, max_pool, mean_to, relu,
};

/// For pictures of at least 63 pixels a side.
pub(in super::super) fn alexnet(builder: &mut Builder, input: &Input) -> Layer {
    chain(vec![
        builder.conv("features.0", input.channels(), 64, Window::square(11, 4, 2)),
        relu(),
        max_pool(3, 2, 0, false),
        builder.conv("features.3", 64, 192, Window::square(5, 1, 2)),
        relu(),
        max_pool(3, 2, 0, false),
        builder.conv("features.6", 192, 384, Window::square(3, 1, 1)),
        relu(),
        builder.conv("features.8", 384, 256, Window::square(3, 1, 1)),
        relu(),
        builder.conv("features.10", 256, 256, Window::square(3, 1, 1)),
        relu(),
        max_pool(3, 2, 0, false),
        mean_to(6),
        flatten(),
        dropout(input.dropout),
        builder.linear("classifier.1", 256 * 36, 4_096),
        relu(),
        dropout(input.dropout),
        builder.linear("classifier.4", 4_096, 4_096),
        relu(),
        builder.scores("classifier.6", 4_096, input.classes),
    ])
}

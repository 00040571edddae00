//! The pieces that models are put together from. A [`Builder`] notes each piece's parameters in
//! the layout, and gives back what computes with them.

use tch::Tensor;

use super::layout::{Entry, Initial, Layout};
use crate::data::random::Random;

/// One pass through a model.
pub struct Pass<'a> {
    /// The parameters, in the layout's order.
    pub leaves: &'a [Tensor],
    /// Draws what dropout drops; `None`: the model is not being trained.
    pub dropout: Option<&'a mut Random>,
    /// What convolutions add that have taken in the batch norm behind them, by the index of their
    /// weight; empty where none has.
    pub folded: &'a [Option<Tensor>],
}

impl<'a> Pass<'a> {
    fn folded(&self, weight: usize) -> Option<&'a Tensor> {
        self.folded.get(weight)?.as_ref()
    }
}

/// A batch norm that can become part of the convolution before it; indices of parameters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fold {
    /// Of the convolution.
    pub(super) weight: usize,
    /// Of the convolution.
    pub(super) bias: Option<usize>,
    /// Weight of the norm; its bias, mean and variance come next.
    pub(super) norm: usize,
    pub(super) epsilon: f64,
}

/// Activations to activations.
pub type Layer = Box<dyn Fn(&Tensor, &mut Pass<'_>) -> Tensor + Send + Sync>;

/// How a convolution or a pooling moves over its input: height and width alike, or each its own.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Height and width.
    pub kernel: [i64; 2],
    /// Steps.
    pub stride: [i64; 2],
    /// Zeros around the input.
    pub padding: [i64; 2],
}

impl Window {
    /// A square one.
    pub fn square(kernel: i64, stride: i64, padding: i64) -> Self {
        Self { kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 2] }
    }

    /// One of stride 1 that keeps the size.
    pub fn same(kernel: [i64; 2]) -> Self {
        Self { kernel, stride: [1, 1], padding: [kernel[0] / 2, kernel[1] / 2] }
    }
}

/// Names parameters while a model is put together.
#[derive(Default)]
pub struct Builder {
    entries: Vec<Entry>,
    folds: Vec<Fold>,
    /// Weight and bias of the convolution that was named last.
    conv: Option<(usize, Option<usize>)>,
}

impl Builder {
    /// All that was named, and what can be folded of it.
    pub(super) fn finish(self) -> (Layout, Vec<Fold>) {
        (Layout::of(self.entries), self.folds)
    }

    /// All that was named.
    #[cfg(test)]
    pub(super) fn layout(self) -> Layout {
        self.finish().0
    }

    fn entry(&mut self, name: String, shape: &[usize], initial: Initial, trained: bool) -> usize {
        let shape = shape.to_vec();
        self.entries.push(Entry { name, shape, initial, trained, range: 0..0 });
        self.entries.len() - 1
    }

    /// A weight. Behind it comes a relu, so that its first values keep the scale of activations
    /// through any number of layers (He et al. 2015). With PyTorch's own, smaller by 2.4, a deep
    /// chain stands still for its first 100 steps.
    fn weight(&mut self, name: &str, shape: &[usize]) -> usize {
        let inputs: usize = shape[1..].iter().product();
        let bound = (6.0 / inputs as f64).sqrt();
        self.entry(format!("{name}.weight"), shape, Initial::Even(bound), true)
    }

    fn bias(&mut self, name: &str, outputs: usize) -> usize {
        self.entry(format!("{name}.bias"), &[outputs], Initial::Constant(0.0), true)
    }

    /// A convolution without bias, for a batch norm behind it.
    pub fn conv_plain(&mut self, name: &str, inputs: i64, outputs: i64, window: Window) -> Layer {
        let [height, width] = window.kernel;
        let weight = self.weight(name, &[outputs, inputs, height, width].map(|side| side as usize));
        self.conv = Some((weight, None));
        Box::new(move |x, pass| {
            let bias = pass.folded(weight);
            x.conv2d(&pass.leaves[weight], bias, window.stride, window.padding, [1, 1], 1)
        })
    }

    /// A convolution.
    pub fn conv(&mut self, name: &str, inputs: i64, outputs: i64, window: Window) -> Layer {
        let [height, width] = window.kernel;
        let weight = self.weight(name, &[outputs, inputs, height, width].map(|side| side as usize));
        let bias = self.bias(name, outputs as usize);
        self.conv = Some((weight, Some(bias)));
        Box::new(move |x, pass| {
            let bias = Some(pass.folded(weight).unwrap_or(&pass.leaves[bias]));
            x.conv2d(&pass.leaves[weight], bias, window.stride, window.padding, [1, 1], 1)
        })
    }

    /// Batch normalisation (Ioffe and Szegedy 2015). In training it also moves its running
    /// statistics, a tenth of the way to the batch's; a batch of one value a channel is normalised
    /// by them instead and leaves them as they are.
    pub fn norm(&mut self, name: &str, channels: i64, epsilon: f64) -> Layer {
        const MOMENTUM: f64 = 0.1;
        let shape = [channels as usize];
        let mut entry = |kind: &str, value, trained| {
            self.entry(format!("{name}.{kind}"), &shape, Initial::Constant(value), trained)
        };
        let (weight, bias) = (entry("weight", 1.0, true), entry("bias", 0.0, true));
        let (mean, variance) =
            (entry("running_mean", 0.0, false), entry("running_var", 1.0, false));
        Box::new(move |x, pass| {
            let [weight, bias, mean, variance] =
                [weight, bias, mean, variance].map(|index| Some(&pass.leaves[index]));
            // One value has no variance: the statistics would never be numbers again.
            let values = x.numel() / channels.max(1) as usize;
            let training = pass.dropout.is_some() && values > 1;
            x.batch_norm(weight, bias, mean, variance, training, MOMENTUM, epsilon, false)
        })
    }

    /// A batch norm whose input is the convolution that was named last and nothing else's: a model
    /// that only predicts has it folded into that.
    pub fn norm_behind(&mut self, name: &str, channels: i64, epsilon: f64) -> Layer {
        let norm = self.entries.len();
        let layer = self.norm(name, channels, epsilon);
        let Some((weight, bias)) = self.conv.take() else { return layer };
        self.folds.push(Fold { weight, bias, norm, epsilon });
        Box::new(move |x, pass| match pass.folded(weight) {
            Some(_) => x.shallow_clone(),
            None => layer(x, pass),
        })
    }

    /// A dense layer.
    pub fn linear(&mut self, name: &str, inputs: i64, outputs: i64) -> Layer {
        let weight = self.weight(name, &[outputs as usize, inputs as usize]);
        let bias = self.bias(name, outputs as usize);
        Box::new(move |x, pass| x.linear(&pass.leaves[weight], Some(&pass.leaves[bias])))
    }

    /// The layer that gives the scores. They start small: no class is taken for sure.
    pub fn scores(&mut self, name: &str, inputs: i64, classes: i64) -> Layer {
        let layer = self.linear(name, inputs, classes);
        let weight = self.entries.len() - 2;
        self.entries[weight].initial = Initial::Even((1.0 / inputs as f64).sqrt());
        layer
    }
}

/// One after the other.
pub fn chain(layers: Vec<Layer>) -> Layer {
    Box::new(move |x, pass| {
        let mut activations = x.shallow_clone();
        for layer in &layers {
            activations = layer(&activations, pass);
        }
        activations
    })
}

/// All on the same input; their channels one after the other.
pub fn beside(branches: Vec<Layer>) -> Layer {
    Box::new(move |x, pass| {
        let parts: Vec<Tensor> = branches.iter().map(|branch| branch(x, pass)).collect();
        Tensor::cat(&parts, 1)
    })
}

/// Negative values become zero, in place: only behind a layer whose output nobody else reads.
pub fn relu() -> Layer {
    Box::new(|x, _| x.shallow_clone().relu_())
}

/// The largest of each window.
pub fn max_pool(kernel: i64, stride: i64, padding: i64, ceiling: bool) -> Layer {
    Box::new(move |x, _| x.max_pool2d([kernel; 2], [stride; 2], [padding; 2], [1, 1], ceiling))
}

/// The mean of each window, zeros around it included.
pub fn mean_pool(kernel: i64, stride: i64, padding: i64) -> Layer {
    Box::new(move |x, _| {
        x.avg_pool2d([kernel; 2], [stride; 2], [padding; 2], false, true, None::<i64>)
    })
}

/// The mean over areas, so many in height and width whatever the input's size.
pub fn mean_to(side: i64) -> Layer {
    Box::new(move |x, _| x.adaptive_avg_pool2d([side, side]))
}

/// Channels, height and width as one dimension, in PyTorch's order.
pub fn flatten() -> Layer {
    Box::new(|x, _| x.flatten(1, -1))
}

/// Sets a `share` of the activations to zero and scales up the others, in training. Drawn here
/// rather than by libtorch, whose generator is one for the whole process: what is dropped depends
/// on the seed alone.
pub fn dropout(share: f64) -> Layer {
    // Each draw of 64 bits decides for four activations.
    let limit = (share * 65_536.0) as u64;
    let kept = (1.0 / (1.0 - share)) as f32;
    Box::new(move |x, pass| {
        let Some(random) = pass.dropout.as_deref_mut().filter(|_| share > 0.0) else {
            return x.shallow_clone();
        };
        let mut mask = vec![0.0_f32; x.numel()];
        for four in mask.chunks_mut(4) {
            let mut bits = random.bits();
            for each in four {
                *each = if bits & 0xffff < limit { 0.0 } else { kept };
                bits >>= 16;
            }
        }
        let mask = Tensor::from_slice(&mask).view(&x.size()[..]);
        x * mask.to_device(x.device())
    })
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    #[test]
    fn dropout_drops_its_share_and_keeps_the_mean() {
        let ones = Tensor::ones([100, 1_000], (Kind::Float, tch::Device::Cpu));
        let mut random = Random::new(&[1]);
        let mut pass = Pass { leaves: &[], dropout: Some(&mut random), folded: &[] };
        let dropped = dropout(0.2)(&ones, &mut pass);
        let zeros = dropped.eq(0.0).sum(None).int64_value(&[]);
        assert!((19_000..21_000).contains(&zeros), "{zeros}");
        let mean = dropped.mean(None).double_value(&[]);
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
        let mut pass = Pass { leaves: &[], dropout: None, folded: &[] };
        assert_eq!(dropout(0.2)(&ones, &mut pass), ones);
    }

    #[test]
    fn a_norm_of_one_value_uses_what_it_remembers() {
        let mut builder = Builder::default();
        let norm = builder.norm("bn", 1, 1e-5);
        let layout = builder.layout();
        let mut parameters = crate::tensor::Parameters::new(&layout);
        parameters.values_mut().copy_from_slice(&layout.initial(1));
        let before = parameters.values_mut().to_vec();
        let mut random = Random::new(&[1]);
        let mut pass =
            Pass { leaves: parameters.leaves(), dropout: Some(&mut random), folded: &[] };
        let image = Tensor::from_slice(&[3.0_f32]).view([1, 1, 1, 1]);
        let shown = tch::no_grad(|| norm(&image, &mut pass)).double_value(&[0, 0, 0, 0]);
        assert!((shown - 3.0).abs() < 1e-3, "{shown}");
        assert_eq!(parameters.values_mut().to_vec(), before);
    }

    #[test]
    fn a_norm_trains_by_the_batch_and_tests_by_what_it_remembers() {
        let mut builder = Builder::default();
        let norm = builder.norm("bn", 1, 1e-5);
        let layout = builder.layout();
        assert_eq!((layout.trained(), layout.len()), (2, 4));
        let mut parameters = crate::tensor::Parameters::new(&layout);
        parameters.values_mut().copy_from_slice(&layout.initial(1));
        let images = Tensor::from_slice(&[3.0_f32, 5.0]).view([2, 1, 1, 1]);
        let run = |training: bool| -> Vec<f32> {
            let mut random = Random::new(&[1]);
            let dropout = training.then_some(&mut random);
            let mut pass = Pass { leaves: parameters.leaves(), dropout, folded: &[] };
            let shown = tch::no_grad(|| norm(&images, &mut pass)).flatten(0, -1);
            Vec::try_from(&shown).unwrap()
        };
        let trained = run(true);
        assert!((trained[0] + 1.0).abs() < 1e-4 && (trained[1] - 1.0).abs() < 1e-4);
        // Mean 4, variance 2 without bias: a tenth of the way from 0 and 1.
        let tested = run(false);
        let expected = |x: f32| (x - 0.4) / (1.1_f32 + 1e-5).sqrt();
        assert!((tested[0] - expected(3.0)).abs() < 1e-4, "{tested:?}");
        let values = parameters.values();
        assert!((values[2] - 0.4).abs() < 1e-6 && (values[3] - 1.1).abs() < 1e-6, "{values:?}");
    }
}

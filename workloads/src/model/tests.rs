use super::*;
use crate::tensor::{self, Parameters};

fn input(side: u32, channels: u32, classes: i64, dropout: f64) -> Input {
    Input { shape: Shape { rows: side, columns: side, channels }, classes, dropout }
}

fn started(model: &Model) -> Parameters {
    tensor::use_leased_threads();
    let mut parameters = Parameters::new(model.layout());
    parameters.values_mut().copy_from_slice(&model.layout().initial(1));
    parameters
}

fn ones(input: &Input, count: i64) -> Tensor {
    let Shape { rows, columns, channels } = input.shape;
    let shape = [count, channels.into(), rows.into(), columns.into()];
    Tensor::ones(shape, (tch::Kind::Float, tch::Device::Cpu))
}

#[test]
fn layouts_have_the_sizes_of_the_same_models_elsewhere() {
    let len = |architecture: Architecture, input: Input| {
        let layout = architecture.build(&input).layout().clone();
        (layout.trained(), layout.len() - layout.trained())
    };
    let digits = input(28, 1, 10, 0.0);
    let mlp = 784 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10;
    assert_eq!(len(Architecture::Mlp, digits), (mlp, 0));
    let eight = 8 * (512 * 512 + 512);
    let deep = 784 * 128 + 128 + 128 * 512 + 512 + eight + 512 * 10 + 10;
    assert_eq!(len(Architecture::DeepMlp, digits), (deep, 0));
    // What Keras counts for workload 4's net: 3,584 + 512 + 73,792 + 256 + 8,224 + 128 +
    // 1,722,432 + 1,040 + 17, of which half of each batch norm's is not trained.
    let breast = len(Architecture::BreastConvnet, input(128, 3, 2, 0.2));
    assert_eq!(breast, (1_809_985 - 448, 448));
    // What torchvision's documentation gives for 1,000 classes.
    for (architecture, trained) in [
        (Architecture::Alexnet, 61_100_840),
        (Architecture::Densenet, 7_978_856),
        (Architecture::Inception, 23_834_568),
        (Architecture::Resnet18, 11_689_512),
        (Architecture::Resnet34, 21_797_672),
        (Architecture::Resnet50, 25_557_032),
        (Architecture::Squeezenet, 1_248_424),
        (Architecture::Vgg, 132_868_840),
    ] {
        let found = len(architecture, input(224, 3, 1_000, 0.0)).0;
        assert_eq!(found, trained, "{}", architecture.name());
    }
}

#[test]
fn first_values_repeat_and_keep_to_their_bounds() {
    let model = Architecture::Convnet.build(&input(28, 1, 10, 0.0));
    let layout = model.layout();
    let values = layout.initial(1);
    assert_eq!(values, layout.initial(1));
    assert_ne!(values, layout.initial(2));
    for entry in layout.entries() {
        let part = &values[entry.range.clone()];
        match entry.initial {
            layout::Initial::Even(bound) => {
                let widest =
                    part.iter().fold(0.0_f64, |most, value| most.max(f64::from(value.abs())));
                assert!(widest <= bound && widest >= bound / 2.0, "{}", entry.name);
            }
            layout::Initial::Constant(value) => assert!(part.iter().all(|each| *each == value)),
        }
        assert_eq!(entry.name.ends_with("bias"), entry.initial == layout::Initial::Constant(0.0));
    }
}

#[test]
fn activations_keep_their_scale_through_a_deep_chain() {
    let input = input(28, 1, 10, 0.0);
    let model = Architecture::DeepMlp.build(&input);
    let parameters = started(&model);
    let scores = tch::no_grad(|| model.forward(parameters.leaves(), &ones(&input, 1), None));
    let scale = scores.square().mean(None).double_value(&[]).sqrt();
    assert!((0.2..3.0).contains(&scale), "{scale}");
}

#[test]
fn every_model_takes_images_of_its_smallest_side_and_larger() {
    for (name, architecture) in Architecture::ALL {
        let smallest = architecture.smallest_side();
        let sides = if smallest > 40 { vec![smallest] } else { vec![smallest, smallest + 13] };
        for side in sides {
            let input = input(side, 3, 7, 0.5);
            let model = architecture.build(&input);
            let parameters = started(&model);
            let images = ones(&input, 2);
            tch::no_grad(|| {
                let once = model.forward(parameters.leaves(), &images, None);
                assert_eq!(once.size(), [2, 7], "{name} {side}");
                assert_eq!(once, model.forward(parameters.leaves(), &images, None), "{name}");
            });
            let head = |entry: &&Entry| entry.name.starts_with(architecture.head());
            let sizes: Vec<_> =
                model.layout().entries().iter().filter(head).map(|entry| entry.shape[0]).collect();
            assert_eq!(sizes, [7, 7], "{name}");
        }
    }
}

#[test]
fn one_sigmoid_is_two_scores() {
    let input = input(32, 1, 2, 0.2);
    let model = Architecture::BreastConvnet.build(&input);
    let parameters = started(&model);
    let scores = tch::no_grad(|| model.forward(parameters.leaves(), &ones(&input, 3), None));
    assert_eq!(scores.size(), [3, 2]);
    let second = scores.softmax(1, tch::Kind::Float).select(1, 1);
    let gap = (second - scores.select(1, 1).sigmoid()).abs().max().double_value(&[]);
    assert!(gap < 1e-6 && scores.select(1, 0).eq(0.0).all().int64_value(&[]) == 1);
}

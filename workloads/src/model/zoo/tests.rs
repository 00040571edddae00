use super::super::{Architecture, Input, Model};
use crate::data::Shape;
use crate::data::random::Random;
use crate::tensor::{self, Parameters};

/// The same numbers as in `scripts/model_fixtures.py`.
fn noise(name: &str, count: usize) -> Vec<f64> {
    let seed = name
        .bytes()
        .fold(0x811c_9dc5_u32, |h, byte| (h ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let number = |index: usize| {
        let mut x = (index as u32).wrapping_mul(0x9e37_79b9).wrapping_add(seed);
        for (shift, factor) in [(16, 0x7feb_352d), (15, 0x846c_a68b_u32)] {
            x ^= x >> shift;
            x = x.wrapping_mul(factor);
        }
        x ^= x >> 16;
        f64::from(x) / f64::from(1_u32 << 31) - 1.0
    };
    (0..count).map(number).collect()
}

/// Values of a parameter as in the script.
fn values(name: &str, shape: &[usize]) -> Vec<f32> {
    let inputs: usize = shape[1..].iter().product();
    let value = |drawn: f64| match (name, shape.len()) {
        (name, _) if name.ends_with("running_var") => 1.0 + 0.5 * drawn,
        (_, 2..) => drawn * (6.0 / inputs as f64).sqrt(),
        (name, _) if name.ends_with("weight") => 1.0 + 0.1 * drawn,
        _ => 0.1 * drawn,
    };
    noise(name, shape.iter().product()).into_iter().map(|drawn| value(drawn) as f32).collect()
}

#[test]
fn scores_are_those_of_torchvision() {
    tensor::use_leased_threads();
    let cases: Vec<serde_json::Value> =
        serde_json::from_str(include_str!("fixtures.json")).unwrap();
    assert_eq!(cases.len(), 8);
    for case in cases {
        let name = case["model"].as_str().unwrap();
        let side = case["side"].as_u64().unwrap() as u32;
        let (_, architecture) = Architecture::ALL.iter().find(|(each, _)| *each == name).unwrap();
        let shape = Shape { rows: side, columns: side, channels: 3 };
        let model = architecture.build(&Input { shape, classes: 5, dropout: 0.5 });
        let mut parameters = Parameters::new(model.layout());
        for entry in model.layout().entries() {
            parameters.values_mut()[entry.range.clone()]
                .copy_from_slice(&values(&entry.name, &entry.shape));
        }
        let picture: Vec<f32> =
            noise("picture", shape.len()).into_iter().map(|value| value as f32).collect();
        let side = i64::from(side);
        // The picture lies channel by channel there, and pixel by pixel in a batch here.
        let planes = tch::Tensor::from_slice(&picture).view([1, 3, side, side]);
        let scores = tch::no_grad(|| model.forward(parameters.leaves(), &planes, None));
        let expected: Vec<f64> = serde_json::from_value(case["scores"].clone()).unwrap();
        let largest = expected.iter().fold(0.0_f64, |largest, score| largest.max(score.abs()));
        for (class, expected) in expected.iter().enumerate() {
            let found = scores.double_value(&[0, class as i64]);
            let near = (found - expected).abs() <= largest * 1e-3;
            assert!(near, "{name}, class {class}: {found}, torchvision has {expected}");
        }
    }
}

/// Each family, and the side of the pictures that it was made for.
const FAMILIES: [(Architecture, u32); 8] = [
    (Architecture::Alexnet, 224),
    (Architecture::Densenet, 224),
    (Architecture::Inception, 299),
    (Architecture::Resnet18, 224),
    (Architecture::Resnet34, 224),
    (Architecture::Resnet50, 224),
    (Architecture::Squeezenet, 224),
    (Architecture::Vgg, 224),
];

fn input(side: u32, classes: i64) -> Input {
    Input { shape: Shape { rows: side, columns: side, channels: 3 }, classes, dropout: 0.5 }
}

#[test]
fn only_the_head_knows_how_many_classes_there_are() {
    for (architecture, side) in FAMILIES {
        let [many, few] =
            [1_000, 12].map(|classes| architecture.build(&input(side, classes)).layout().clone());
        let name = architecture.name();
        assert_eq!(many.entries().len(), few.entries().len(), "{name}");
        for (many, few) in many.entries().iter().zip(few.entries()) {
            assert_eq!(many.name, few.name, "{name}");
            if !many.name.starts_with(architecture.head()) {
                assert_eq!(many.shape, few.shape, "{name}: {}", many.name);
                continue;
            }
            assert_eq!((many.shape[0], few.shape[0]), (1_000, 12), "{name}: {}", many.name);
            assert_eq!(many.shape[1..], few.shape[1..], "{name}: {}", many.name);
        }
    }
}

/// A small step against the gradient takes from the loss what the gradient promises, and every
/// weight has a part in it.
#[test]
fn every_family_learns_at_its_proper_size() {
    tensor::use_leased_threads();
    for (architecture, side) in FAMILIES {
        let (name, input) = (architecture.name(), input(side, 12));
        let model = architecture.build(&input);
        let mut parameters = Parameters::new(model.layout());
        parameters.values_mut().copy_from_slice(&model.layout().initial(1));
        let images = pictures(&input, 2);
        let mut gradient = vec![0.0; model.layout().len()];
        let before = loss(&model, &parameters, &images);
        tensor::gradient(&before, &parameters, &mut gradient);
        let before = before.double_value(&[]);
        for entry in model.layout().entries().iter().filter(|e| e.trained && e.shape.len() > 1) {
            let part = &gradient[entry.range.clone()];
            assert!(part.iter().all(|each| each.is_finite()), "{name}: {}", entry.name);
            assert!(part.iter().any(|each| *each != 0.0), "{name}: {} idles", entry.name);
        }
        let square: f64 = gradient.iter().map(|each| f64::from(*each).powi(2)).sum();
        let promised = 0.01 * before;
        let step = (promised / square) as f32;
        let values = parameters.values_mut().iter_mut().zip(&gradient);
        values.for_each(|(value, slope)| *value -= step * slope);
        let taken = before - loss(&model, &parameters, &images).double_value(&[]);
        assert!(
            (0.3..3.0).contains(&(taken / promised)),
            "{name}: {taken} of {before} where {promised} was promised"
        );
    }
}

/// In training, with the same activations dropped each time.
fn loss(model: &Model, parameters: &Parameters, images: &tch::Tensor) -> tch::Tensor {
    let labels = tch::Tensor::from_slice(&[3_i64, 7]);
    let mut dropped = Random::new(&[1]);
    let scores = model.forward(parameters.leaves(), images, Some(&mut dropped));
    scores.cross_entropy_for_logits(&labels)
}

fn pictures(input: &Input, count: usize) -> tch::Tensor {
    let len = count * input.shape.len();
    let values: Vec<f32> = noise("pictures", len).into_iter().map(|value| value as f32).collect();
    let side = i64::from(input.shape.rows);
    tch::Tensor::from_slice(&values).view([count as i64, 3, side, side])
}

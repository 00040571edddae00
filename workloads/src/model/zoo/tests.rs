use super::super::{Architecture, Input};
use crate::data::Shape;
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

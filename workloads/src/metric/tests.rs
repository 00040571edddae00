use serde_json::Value;

use super::*;

fn numbers(value: &Value) -> impl Iterator<Item = f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap())
}

fn classes(value: &Value) -> Vec<u32> {
    numbers(value).map(|number| number as u32).collect()
}

/// What `scripts/metric_fixtures.py` wrote.
fn fixtures() -> Vec<(Seen, Value)> {
    let cases: Vec<Value> = serde_json::from_str(include_str!("fixtures.json")).unwrap();
    let seen = |case: Value| {
        let answers = Answers {
            classes: classes(&case["seen"]),
            certainty: Vec::new(),
            scores: numbers(&case["scores"]).map(|score| score as f32).collect(),
            loss: 0.0,
        };
        let count = case["classes"].as_u64().unwrap() as u32;
        (Seen::new(&answers, &classes(&case["labels"]), count), case)
    };
    cases.into_iter().map(seen).collect()
}

#[test]
fn values_are_those_of_scikit_learn() {
    for (seen, case) in fixtures() {
        for metric in Metric::ALL {
            let found = (metric.of)(&seen);
            let expected = &case[metric.name];
            match (found, expected.as_f64()) {
                (Some(found), Some(expected)) => {
                    assert!((found - expected).abs() < 1e-9, "{}: {found} {expected}", metric.name);
                }
                (found, None) => assert!(found.is_none() || metric.name == "loss"),
                (None, expected) => panic!("{}: none instead of {expected:?}", metric.name),
            }
        }
        let rows: Vec<Vec<u64>> = serde_json::from_value(case["confusion"].clone()).unwrap();
        assert_eq!(Confusion::of(&seen).rows(seen.classes), rows);
    }
}

#[test]
fn nothing_shown_is_no_figure() {
    let seen = Seen::new(&Answers::default(), &[], 2);
    assert!(Metric::ALL.iter().all(|metric| (metric.of)(&seen).is_none()));
}

#[test]
fn images_without_a_label_do_not_count() {
    let answers = Answers {
        classes: vec![1, 0, 1],
        certainty: vec![1.0; 3],
        scores: vec![0.9, 0.2, 0.8],
        loss: 3.0,
    };
    let seen = Seen::new(&answers, &[1, u32::MAX, 0], 2);
    assert_eq!(seen.pairs, [(1, 1), (0, 1)]);
    assert_eq!((loss::LOSS.of)(&seen), Some(1.5));
    assert_eq!((roc_auc::ROC_AUC.of)(&seen), Some(1.0));

    let scores = vec![0.2, 0.3, 0.5, 0.1, 0.1, 0.8, 0.7, 0.2, 0.1];
    let answers = Answers { scores, ..answers };
    let seen = Seen::new(&answers, &[1, u32::MAX, 0], 3);
    assert_eq!(seen.scores, [0.2, 0.3, 0.5, 0.7, 0.2, 0.1]);
    // Of the third class there is nothing to tell.
    assert_eq!((roc_auc::ROC_AUC.of)(&seen), Some(1.0));
}

#[test]
fn too_many_classes_have_no_area() {
    assert_eq!([1, 2, 3, 100, 101].map(scores_of), [0, 1, 3, 100, 0]);
    let seen = Seen::new(&Answers { classes: vec![3, 4], ..Answers::default() }, &[3, 5], 101);
    assert_eq!((roc_auc::ROC_AUC.of)(&seen), None);
}

#[test]
fn better_is_by_direction_and_never_what_is_unknown() {
    let (loss, accuracy) = (loss::LOSS, accuracy::ACCURACY);
    assert!(loss.is_better(Some(1.0), Some(2.0)) && !loss.is_better(Some(2.0), Some(1.0)));
    assert!(accuracy.is_better(Some(2.0), Some(1.0)) && !accuracy.is_better(None, None));
    assert!(accuracy.is_better(Some(0.1), None) && !accuracy.is_better(Some(f64::NAN), None));
}

#[test]
fn tallies_count_by_their_images() {
    let parts = [(1, 1, 4.0), (3, 0, 0.0)];
    let tallies = parts.map(|(images, correct, loss)| Tally { images, correct, loss });
    let sum: Tally = tallies.into_iter().sum();
    assert_eq!((sum.mean_loss(), sum.accuracy()), (Some(1.0), Some(0.25)));
    assert_eq!(Tally::default().mean_loss(), None);
}

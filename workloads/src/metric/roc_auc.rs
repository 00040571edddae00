//! ROC-AUC: the area under the receiver operating characteristic, which is the chance that an
//! image of class 1 gets a higher probability than one of class 0; ties count half (Mann and
//! Whitney 1947). With more classes, the mean of each class against the rest (Provost and Domingos
//! 2000, without their weights), over the classes that occur; up to
//! [`MOST_SCORED`](super::MOST_SCORED) classes.

use super::{Metric, Seen, scores_of};

/// See the module.
pub const ROC_AUC: Metric = Metric { name: "roc_auc", unit: "0 to 1", higher_is_better: true, of };

fn of(seen: &Seen) -> Option<f64> {
    let width = scores_of(seen.classes);
    if width == 0 || seen.scores.len() != seen.pairs.len() * width {
        return None;
    }
    let area = |class: usize| {
        let scores = seen.scores.iter().skip(class).step_by(width).copied();
        // Of two classes, there is the probability of the second alone.
        let label = if width == 1 { 1 } else { class as u32 };
        area(scores.zip(seen.pairs.iter().map(|(of, _)| *of == label)).collect())
    };
    let areas: Vec<f64> = (0..width).filter_map(area).collect();
    (!areas.is_empty()).then(|| areas.iter().sum::<f64>() / areas.len() as f64)
}

/// Of scores, and whether each is of an image of the class; `None` where all are, or none is.
fn area(mut scored: Vec<(f32, bool)>) -> Option<f64> {
    scored.sort_by(|a, b| a.0.total_cmp(&b.0));
    let positives = scored.iter().filter(|(_, positive)| *positive).count() as f64;
    let negatives = scored.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return None;
    }
    // Sum of the ranks of the class, from 1; equal scores share their mean rank.
    let (mut ranks, mut from) = (0.0, 0);
    while from < scored.len() {
        let tied = scored[from..].iter().take_while(|(score, _)| *score == scored[from].0).count();
        let rank = from as f64 + (tied as f64 + 1.0) / 2.0;
        let members = scored[from..from + tied].iter().filter(|(_, positive)| *positive).count();
        ranks += rank * members as f64;
        from += tied.max(1);
    }
    Some((ranks - positives * (positives + 1.0) / 2.0) / (positives * negatives))
}

//! ROC-AUC: the area under the receiver operating characteristic, which is the chance that an
//! image of class 1 gets a higher probability than one of class 0; ties count half (Mann and
//! Whitney 1947). Of two classes only, and only where both occur.

use super::{Metric, Seen};

/// See the module.
pub const ROC_AUC: Metric = Metric { name: "roc_auc", unit: "0 to 1", higher_is_better: true, of };

fn of(seen: &Seen) -> Option<f64> {
    if !seen.is_binary() || seen.positive.len() != seen.pairs.len() {
        return None;
    }
    let labels = seen.pairs.iter().map(|(label, _)| *label == 1);
    let mut scored: Vec<(f32, bool)> = seen.positive.iter().copied().zip(labels).collect();
    scored.sort_by(|a, b| a.0.total_cmp(&b.0));
    let positives = scored.iter().filter(|(_, positive)| *positive).count() as f64;
    let negatives = scored.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return None;
    }
    // Sum of the ranks of class 1, from 1; equal scores share their mean rank.
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

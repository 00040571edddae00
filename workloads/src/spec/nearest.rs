//! What was probably meant by a name that means nothing.

/// The name with the fewest edits to `found`, if it can pass for a slip.
pub(super) fn nearest<'a>(found: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let (distance, name) = names.map(|name| (edits(found, name), name)).min()?;
    (distance <= 1 + name.len() / 3).then(|| name.to_owned())
}

/// Insertions, deletions, replacements and swaps of neighbours between two words (Damerau's
/// distance, optimal string alignment).
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_near_and_other_words_are_not() {
        assert_eq!(edits("trian", "train"), 1);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(nearest("epoch", ["epochs", "batch"].into_iter()), Some("epochs".into()));
        assert_eq!(nearest("zzz", ["mlp", "convnet"].into_iter()), None);
    }
}

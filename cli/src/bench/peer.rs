//! Another scheduler's figures, to be set beside ours: the output of `ray microbenchmark`.

use std::collections::HashMap;

/// Rows by name, units per second.
#[derive(Debug, Default)]
pub(super) struct Peer(HashMap<String, f64>);

impl Peer {
    /// Takes the lines `NAME per second MEAN +- DEVIATION`, and leaves out all others.
    pub(super) fn parse(text: &str) -> Self {
        let row = |line: &str| {
            let (name, figures) = line.split_once(" per second ")?;
            let mean = figures.split_whitespace().next()?.parse().ok()?;
            Some((plain(name), mean))
        };
        Self(text.lines().filter_map(row).collect())
    }

    /// The row of that name.
    pub(super) fn rate(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Without what is in brackets: Ray names its store there.
fn plain(name: &str) -> String {
    name.split_once(" (").map_or(name, |(before, _)| before).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_among_other_lines() {
        let peer = Peer::parse(
            "Tip: set TESTS_TO_RUN\n\
             single client get calls (Plasma Store) per second 4494.07 +- 300.5\n\
             single client put gigabytes per second 1.75 +- 0.67\n\
             nonsense per second of time\n",
        );
        assert_eq!(peer.rate("single client get calls"), Some(4494.07));
        assert_eq!(peer.rate("single client put gigabytes"), Some(1.75));
        assert_eq!(peer.rate("nonsense"), None);
        assert!(Peer::parse("").is_empty());
    }
}

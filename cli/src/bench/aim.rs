//! What the rows are to reach on a machine with two cores, a hundred times Ray and more: each
//! row is shown with its share of that.

/// Rows and units per second.
const AIMS: [(&str, f64); 30] = [
    ("single client get calls", 2e6),
    ("single client put calls", 5e5),
    ("multi client put calls", 5e5),
    ("single client tasks and get batch", 250.0),
    ("single client get object containing 10k refs", 600.0),
    ("single client wait 1k refs", 100.0),
    ("single client tasks sync", 5e4),
    ("single client tasks async", 3e5),
    ("multi client tasks async", 3e5),
    ("1:1 actor calls sync", 1.5e5),
    ("1:1 actor calls async", 1e6),
    ("1:1 actor calls concurrent", 1e6),
    ("1:n actor calls async", 1e6),
    ("n:n actor calls async", 1e6),
    ("n:n actor calls with arg async", 4e5),
    ("1:1 async-actor calls sync", 1.5e5),
    ("1:1 async-actor calls async", 1e6),
    ("1:1 async-actor calls with args async", 4e5),
    ("1:n async-actor calls async", 1e6),
    ("n:n async-actor calls async", 1e6),
    ("placement group create/removal", 1e4),
    ("create actors (light)", 2e5),
    // Two cores.
    ("create actors (own process)", 100.0),
    ("object of 1 MB from one worker to another", 0.5),
    ("object of 100 MB from one worker to another", 1.0),
    ("object of 500 MB from one worker to another", 1.0),
    // A tenth of a second each.
    ("10,000 arguments to one task", 10.0),
    ("3,000 returns of one task", 10.0),
    ("get of 10,000 objects", 10.0),
    // Ten seconds in all.
    ("1,000,000 queued tasks on one worker", 1e5),
];

/// What that row is to reach.
pub(super) fn of(row: &str) -> Option<f64> {
    AIMS.iter().find_map(|(name, aim)| (*name == row).then_some(*aim))
}

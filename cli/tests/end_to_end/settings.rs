//! What `cargo xtask chaos` sets for the tests of faults.

/// A number that the environment sets, or the test's own.
pub(crate) fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().map_or(usual, |text| text.parse().unwrap())
}

/// The test's own seed, or another one that follows from the seed of all.
pub(crate) fn seed(own: u64) -> u64 {
    1_000 * setting("CHAOS_SEED", 0) + own
}

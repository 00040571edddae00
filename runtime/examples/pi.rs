//! Tasks and their results: an estimate of pi by throwing darts, on all CPUs of the cluster.
//!
//! `cargo run --example pi -- 16` runs it on a cluster of this machine, made for the purpose;
//! `rdist submit target/debug/examples/pi -- 16` on the cluster that is there.

use rdist::prelude::*;

const DARTS: u64 = 2_000_000;

/// How many of `darts` hit the quarter circle.
#[rdist::task]
fn throw(seed: u64, darts: u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = || {
        // xorshift64* (Marsaglia 2003, Vigna 2014)
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64
    };
    (0..darts).filter(|_| random().powi(2) + random().powi(2) <= 1.0).count() as u64
}

#[rdist::main]
async fn main(cx: Driver) -> Result<()> {
    let tasks: u64 = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(8);

    // Submitting does not wait: a result that is still to come is an ObjectRef.
    let hits: Vec<ObjectRef<u64>> =
        (1..=tasks).map(|seed| throw.submit(&cx, seed, DARTS)).collect();

    let mut sum = 0;
    for (done, hits) in hits.iter().enumerate() {
        sum += hits.await?;
        let thrown = (done as u64 + 1) * DARTS;
        println!("after {thrown:>9} darts: {:.6}", 4.0 * sum as f64 / thrown as f64);
    }
    Ok(())
}

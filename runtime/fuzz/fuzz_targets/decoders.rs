//! The first byte says who reads the others.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rdist::fuzzing::TARGETS;

fuzz_target!(|data: &[u8]| {
    if let Some((which, bytes)) = data.split_first() {
        let (_, target) = TARGETS[usize::from(*which) % TARGETS.len()];
        target(bytes);
    }
});

//! What the machine itself can do, measured in the same run: no row of bytes can be faster.

use std::hint::black_box;

use super::measure::{Measured, Pace, measure};

/// Larger than the caches.
const BYTES: usize = 256 << 20;

/// A limit's name and its figures, GB per second.
pub(super) fn all(pace: Pace) -> Vec<(&'static str, Measured)> {
    vec![
        ("limit: copy into warm memory, 1 thread, gigabytes", copy(pace, 1)),
        ("limit: copy into warm memory, 2 threads, gigabytes", copy(pace, 2)),
    ]
}

/// Copies between buffers that have been written before; the fastest way that the C library has.
fn copy(pace: Pace, threads: usize) -> Measured {
    let mut buffers: Vec<_> =
        (0..threads).map(|thread| (vec![thread as u8 + 1; BYTES], vec![1; BYTES])).collect();
    let gigabytes = (threads * BYTES) as f64 / 1e9;
    let Ok(measured) = measure(pace, gigabytes, || {
        std::thread::scope(|scope| {
            for (from, to) in &mut buffers {
                scope.spawn(|| to.copy_from_slice(black_box(from)));
            }
        });
        Ok::<(), std::convert::Infallible>(())
    });
    measured
}

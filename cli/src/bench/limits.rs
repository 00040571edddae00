//! What the machine itself can do, measured in the same run: no row of bytes can be faster.

use std::hint::black_box;

use super::measure::{Measured, Pace, measure};
use super::network;
use super::round_trip::Peer;

/// Larger than the caches.
const BYTES: usize = 256 << 20;

/// A limit's name and its figures. No other thread may run in this process yet.
pub(super) fn all(pace: Pace) -> anyhow::Result<Vec<(&'static str, Measured)>> {
    let round_trips = Peer::start()?.round_trips(pace);
    let folder = std::env::temp_dir().join(format!("rdist-bench-limits-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let quic = network::quic(pace, &folder);
    // In the system's temporary place, at worst left to the system.
    let _ = std::fs::remove_dir_all(&folder);
    Ok(vec![
        ("limit: round trip of two processes in shared memory", round_trips),
        ("limit: copy into warm memory, 1 thread, gigabytes", copy(pace, 1)),
        ("limit: copy into warm memory, 2 threads, gigabytes", copy(pace, 2)),
        ("limit: QUIC over loopback, encrypted, gigabytes", quic?),
        ("limit: TCP over loopback, gigabytes", network::tcp(pace)?),
    ])
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

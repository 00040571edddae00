//! What the machine itself can do, measured in the same run: no row of bytes can be faster, and no
//! round trip shorter.

use std::hint::black_box;

use super::measure::{Measured, Pace, measure};
use super::network;
use super::round_trip::Peer;
use super::row::Unit;

/// Larger than the caches.
const BYTES: usize = 256 << 20;

/// Something that the machine does without us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    RoundTrip,
    Copy,
    CopyByTwo,
    Quic,
    QuicInPieces,
    Tcp,
}

impl Limit {
    /// In the order in which they are measured: the round trip before there is a second thread.
    pub(super) const ALL: [Self; 6] =
        [Self::RoundTrip, Self::Copy, Self::CopyByTwo, Self::Quic, Self::QuicInPieces, Self::Tcp];

    /// What bounds a row, where one thing does.
    pub(super) fn of(row: &str) -> Option<Self> {
        match row {
            "single client put gigabytes" => Some(Self::Copy),
            "multi client put gigabytes" => Some(Self::CopyByTwo),
            _ if row.ends_with(" sync") => Some(Self::RoundTrip),
            _ if row.starts_with("object of 1 MB") => Some(Self::QuicInPieces),
            _ if row.starts_with("object of ") => Some(Self::Quic),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RoundTrip => "limit: round trip of two processes in shared memory",
            Self::Copy => "limit: copy into warm memory, 1 thread, gigabytes",
            Self::CopyByTwo => "limit: copy into warm memory, 2 threads, gigabytes",
            Self::Quic => "limit: QUIC over loopback, encrypted, gigabytes",
            Self::QuicInPieces => "limit: the same, 1 MB asked for at a time, gigabytes",
            Self::Tcp => "limit: TCP over loopback, gigabytes",
        }
    }

    pub(super) fn unit(self) -> Unit {
        match self {
            Self::RoundTrip => Unit::Count,
            _ => Unit::Gigabytes,
        }
    }

    /// Measures it. A round trip can be measured as long as this process has one thread.
    pub(super) fn measure(self, pace: Pace) -> anyhow::Result<Measured> {
        match self {
            Self::RoundTrip => Ok(Peer::start()?.round_trips(pace)),
            Self::Copy => Ok(copy(pace, 1)),
            Self::CopyByTwo => Ok(copy(pace, 2)),
            Self::Tcp => network::tcp(pace),
            Self::Quic => quic(pace, network::BYTES),
            Self::QuicInPieces => quic(pace, 1_000_000),
        }
    }
}

fn quic(pace: Pace, each: usize) -> anyhow::Result<Measured> {
    let folder = std::env::temp_dir().join(format!("rdist-bench-limits-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let measured = network::quic(pace, &folder, each);
    // In the system's temporary place, at worst left to the system.
    let _ = std::fs::remove_dir_all(&folder);
    measured
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

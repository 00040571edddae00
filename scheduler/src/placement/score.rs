//! What orders the workers that pass the filter.

use super::Spot;
use super::field::Kind;
use crate::id::WorkerId;
use crate::resource::Resources;

/// The kind to search by: the rarest that the request names. Few workers have GPUs, fewer a
/// given custom resource, all have CPUs.
pub(super) fn rarest(request: &Resources) -> Kind<'_> {
    if let Some((name, _)) = request.custom().next() {
        return Kind::Custom(name);
    }
    if !request.gpu.is_zero() {
        return Kind::Gpu;
    }
    if request.cpu.is_zero() && !request.memory.is_zero() {
        return Kind::Memory;
    }
    Kind::Cpu
}

/// Whether the worker has something rare that the request would only stand in front of.
pub(super) fn wasted(spot: &Spot, request: &Resources) -> bool {
    (request.gpu.is_zero() && !spot.total.gpu.is_zero())
        || (spot.total.custom().next().is_some() && request.custom().next().is_none())
}

/// Decides between equals: a hash of seed and worker (SplitMix64's finaliser).
pub(super) fn tie(seed: u64, worker: WorkerId) -> u64 {
    let x = seed ^ worker.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

//! The atomics of the ring's protocol; the model test puts loom's in their place.

pub(super) use core::sync::atomic::{AtomicU64, Ordering, fence};

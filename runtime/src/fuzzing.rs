//! Everything that reads what others write, as functions of bytes: for `cargo fuzz`
//! (`runtime/fuzz`) and for the bounded, seeded run among the tests (`tests/fuzz.rs`). None may
//! panic, whatever the bytes are.

use std::sync::Arc;

use rcgen::CertificateSigningRequestParams;
use rdist_scheduler::id::ExecutorId;

use crate::ring::{Bell, MIN_RING_BYTES, RingPair, pair_bytes};
use crate::store::Arena;
use crate::transport::{Peer, Token};
use crate::wire::client::{ClientReply, ClientRequest};
use crate::wire::cluster::{HeadToWorker, PeerFrame, StreamReply, StreamRequest, WorkerToHead};
use crate::wire::decode;
use crate::wire::direct::{DirectCall, DirectReply, split};
use crate::wire::executor::{Block, FromExecutor, SocketMessage, ToExecutor};
use crate::wire::files::Manifest;
use crate::wire::join::{JoinReply, JoinRequest};

/// Reads bytes in one way; true when they were something.
pub type Target = fn(&[u8]) -> bool;

/// All of them, by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("from-executor", |bytes| decode::<FromExecutor>(bytes).is_ok()),
    ("to-executor", |bytes| decode::<ToExecutor>(bytes).is_ok()),
    ("socket-message", |bytes| decode::<SocketMessage>(bytes).is_ok()),
    ("worker-to-head", |bytes| decode::<WorkerToHead>(bytes).is_ok()),
    ("head-to-worker", |bytes| decode::<HeadToWorker>(bytes).is_ok()),
    ("peer-frame", |bytes| decode::<PeerFrame>(bytes).is_ok()),
    ("stream-request", |bytes| decode::<StreamRequest>(bytes).is_ok()),
    ("stream-reply", |bytes| decode::<StreamReply>(bytes).is_ok()),
    ("direct-call", |bytes| split(bytes).and_then(|(_, call)| decode::<DirectCall>(call)).is_ok()),
    ("direct-reply", |bytes| {
        split(bytes).and_then(|(_, said)| decode::<DirectReply>(said)).is_ok()
    }),
    ("client-request", |bytes| decode::<ClientRequest>(bytes).is_ok()),
    ("client-reply", |bytes| decode::<ClientReply>(bytes).is_ok()),
    ("join-request", |bytes| decode::<JoinRequest>(bytes).is_ok()),
    ("join-reply", |bytes| decode::<JoinReply>(bytes).is_ok()),
    ("manifest", |bytes| decode::<Manifest>(bytes).is_ok_and(|list| list.check().is_ok())),
    ("token", |bytes| String::from_utf8_lossy(bytes).parse::<Token>().is_ok()),
    ("certificate", |bytes| Peer::of_certificate(&bytes.into()).is_some()),
    ("certificate-request", |bytes| {
        CertificateSigningRequestParams::from_der(&bytes.into()).is_ok()
    }),
    ("link", crate::transport::link::read_anything),
    ("ring", ring),
    ("arena", arena),
];

/// An executor writes the bytes into its ring: the first eight are the index up to which it says
/// to have written, the others lie where frames are.
fn ring(bytes: &[u8]) -> bool {
    let Ok((memory, rings)) = RingPair::create(MIN_RING_BYTES) else { return false };
    let Ok(bell) = Bell::new() else { return false };
    let (index, frames) = bytes.split_at(bytes.len().min(8));
    let second = pair_bytes(MIN_RING_BYTES) / 2;
    let data = second + (second - MIN_RING_BYTES);
    let frames = &frames[..frames.len().min(MIN_RING_BYTES)];
    if rustix::io::pwrite(&memory, index, second as u64).is_err()
        || rustix::io::pwrite(&memory, frames, data as u64).is_err()
    {
        return false;
    }
    let (_, mut receiver) = rings.split(Arc::new(bell));
    let mut found = false;
    // Each frame takes at least its header: there are no more than that.
    for _ in 0..MIN_RING_BYTES {
        match receiver.try_recv() {
            Ok(Some(frame)) => found |= decode::<FromExecutor>(frame).is_ok(),
            Ok(None) | Err(_) => break,
        }
        receiver.release();
    }
    found
}

/// An executor seals blocks wherever the bytes say, and the worker frees some of them.
fn arena(bytes: &[u8]) -> bool {
    let mut arena = Arena::new(64 << 20);
    let executor = ExecutorId(1);
    if arena.grant(executor, 1 << 10).is_err() {
        return false;
    }
    let mut adopted = false;
    let (steps, _) = bytes.as_chunks::<12>();
    for step in steps {
        let number = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| step[at + byte]));
        // Mostly aligned, and sometimes beyond every end.
        let offset = u64::from(number(4)) << (number(0) >> 8 & 31);
        let block = Block { segment: number(0) & 3, offset, len: u64::from(number(8)) };
        if number(0) & 0x80 == 0 {
            adopted |= arena.adopt(executor, block).is_ok();
        } else {
            arena.free(block);
        }
        arena.check_invariants();
    }
    adopted
}

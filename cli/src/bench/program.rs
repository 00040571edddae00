//! The program that is measured: this very binary, as a job of a real cluster. Its rows do what
//! those of the same name do in Ray's `ray_perf.py`: the same batches, results fetched, submitter
//! and executor in processes of their own.

use rdist::prelude::*;

/// What every small call returns.
fn ok() -> Vec<u8> {
    b"ok".to_vec()
}

#[rdist::task]
pub(super) fn small_value() -> Vec<u8> {
    ok()
}

#[rdist::task]
pub(super) fn put_small(cx: &Context, times: u32) -> Result<()> {
    for _ in 0..times {
        cx.put(&0_u64)?;
    }
    Ok(())
}

#[rdist::task]
pub(super) fn put_large(cx: &Context, times: u32, values: u64) -> Result<()> {
    for _ in 0..times {
        cx.put(&zeros(values as usize))?;
    }
    Ok(())
}

/// Fresh zeros, as numpy gets them: large arrays ask for large pages.
fn zeros(values: usize) -> Vec<i64> {
    const PAGE: usize = 4096;
    let zeros = vec![0_i64; values];
    let bytes = zeros.as_ptr().cast::<u8>();
    let skipped = bytes.align_offset(PAGE);
    if let Some(len) = size_of_val(&*zeros).checked_sub(skipped) {
        let start = bytes.wrapping_add(skipped).cast_mut().cast();
        // Safety: pages of this very vector; the advice changes how they are mapped, not what they
        // hold. Where it is not taken, pages are small.
        let _ = unsafe { rustix::mm::madvise(start, len, rustix::mm::Advice::LinuxHugepage) };
    }
    zeros
}

#[rdist::task]
pub(super) fn object_containing_refs(cx: &Context, count: u32) -> Result<Vec<ObjectRef<u64>>> {
    (0..count).map(|_| cx.put(&1_u64)).collect()
}

#[rdist::task]
pub(super) fn call_each(cx: &Context, servers: Vec<ActorHandle<Server>>, calls: u64) -> Result<()> {
    let results: Vec<_> = (0..calls as usize)
        .map(|call| servers[call % servers.len()].small_value().submit())
        .collect();
    cx.get_all(&results)?;
    Ok(())
}

#[rdist::task]
pub(super) fn call_each_async(
    cx: &Context,
    servers: Vec<ActorHandle<AsyncServer>>,
    calls: u64,
) -> Result<()> {
    let results: Vec<_> = (0..calls as usize)
        .map(|call| servers[call % servers.len()].small_value().submit())
        .collect();
    cx.get_all(&results)?;
    Ok(())
}

/// How many objects it was given.
#[rdist::task]
pub(super) fn how_many(values: All<u64>) -> u64 {
    values.len() as u64
}

/// As many objects as it was asked for.
#[rdist::task(returns = each)]
pub(super) fn numbers(count: u64) -> Vec<u64> {
    (0..count).collect()
}

/// Holds what it was given to run with.
pub(super) struct Holder;

#[rdist::actor]
impl Holder {
    pub(super) fn new() -> Self {
        Self
    }
}

/// Answers calls.
pub(super) struct Server;

#[rdist::actor]
impl Server {
    pub(super) fn new() -> Self {
        Self
    }

    pub(super) fn small_value(&self) -> Vec<u8> {
        ok()
    }

    pub(super) fn small_value_of(&self, _value: u64) -> Vec<u8> {
        ok()
    }

    /// Submits tasks, as one of several submitters.
    pub(super) fn tasks(&self, cx: &Context, count: u64) -> Result<()> {
        let results: Vec<_> = (0..count).map(|_| small_value.submit(cx)).collect();
        cx.get_all(&results)?;
        Ok(())
    }
}

/// Calls servers.
pub(super) struct Caller {
    servers: Vec<ActorHandle<Server>>,
}

#[rdist::actor]
impl Caller {
    pub(super) fn new(servers: Vec<ActorHandle<Server>>) -> Self {
        Self { servers }
    }

    pub(super) fn calls(&self, cx: &Context, each: u64) -> Result<()> {
        let call = |server: &ActorHandle<Server>| server.small_value().submit();
        let servers = self.servers.iter();
        let results: Vec<_> =
            servers.flat_map(|server| (0..each).map(move |_| call(server))).collect();
        cx.get_all(&results)?;
        Ok(())
    }

    pub(super) fn calls_with_argument(&self, cx: &Context, each: u64) -> Result<()> {
        let value = cx.put(&0_u64)?;
        let mut results = Vec::new();
        for server in &self.servers {
            results.extend((0..each).map(|_| server.small_value_of(&value).submit()));
        }
        cx.get_all(&results)?;
        Ok(())
    }
}

/// Answers calls on several threads.
pub(super) struct ConcurrentServer;

#[rdist::actor(max_concurrency = 16)]
impl ConcurrentServer {
    pub(super) fn new() -> Self {
        Self
    }

    pub(super) fn small_value(&self) -> Vec<u8> {
        ok()
    }
}

/// Answers calls of which many may be in flight.
pub(super) struct AsyncServer;

#[rdist::actor]
impl AsyncServer {
    pub(super) fn new() -> Self {
        Self
    }

    pub(super) async fn small_value(&self) -> Vec<u8> {
        ok()
    }

    pub(super) async fn small_value_of(&self, _value: u64) -> Vec<u8> {
        ok()
    }
}

/// Calls such servers.
pub(super) struct AsyncCaller {
    servers: Vec<ActorHandle<AsyncServer>>,
}

#[rdist::actor]
impl AsyncCaller {
    pub(super) fn new(servers: Vec<ActorHandle<AsyncServer>>) -> Self {
        Self { servers }
    }

    pub(super) fn calls(&self, cx: &Context, each: u64) -> Result<()> {
        let call = |server: &ActorHandle<AsyncServer>| server.small_value().submit();
        let servers = self.servers.iter();
        let results: Vec<_> =
            servers.flat_map(|server| (0..each).map(move |_| call(server))).collect();
        cx.get_all(&results)?;
        Ok(())
    }
}

//! Calls of actors, and their creation.

use std::time::Instant;

use rdist::prelude::*;

use super::super::measure::measure_parts;
use super::super::program::{
    AsyncCaller, AsyncServer, Caller, ConcurrentServer, Server, call_each, call_each_async,
};
use super::Bench;

/// Light actors that are made at once: as many as a wave of calls has.
const LIGHT: u32 = 1_000;
/// Actors with a process of their own that are made at once.
const PROCESSES: u32 = 10;

impl<'a> Bench<'a> {
    pub(super) fn actors(&self) -> Result<()> {
        let cx = self.cx;
        let some = self.some();
        self.row("1:1 actor calls sync", 1.0, || {
            let server = self.servers(1)?;
            Ok(Box::new(move || server.0[0].small_value().submit().get().map(drop)))
        })?;
        self.row("1:1 actor calls async", 1_000.0, || {
            let server = self.servers(1)?;
            Ok(Box::new(move || self.all((0..1_000).map(|_| server.0[0].small_value().submit()))))
        })?;
        self.row("1:1 actor calls concurrent", 1_000.0, || {
            let server = ConcurrentServer::with().own_process().cpus(0.0).spawn(cx).get()?;
            let server = Ended(vec![server]);
            Ok(Box::new(move || self.all((0..1_000).map(|_| server.0[0].small_value().submit()))))
        })?;
        self.row("1:n actor calls async", 5_000.0 * some as f64, || {
            let servers = self.servers(some)?;
            let caller = self.caller(&servers)?;
            Ok(Box::new(move || {
                let _servers = &servers;
                caller.0[0].calls(5_000).submit().get()
            }))
        })?;
        self.row("n:n actor calls async", 20_000.0, || {
            let servers = self.servers(some)?;
            Ok(Box::new(move || self.all((0..4).map(|_| call_each.submit(cx, &servers.0, 5_000)))))
        })?;
        self.row("n:n actor calls with arg async", 1_000.0 * some as f64, || {
            let servers = self.servers(some)?;
            let callers: Result<Vec<_>> = (0..some).map(|_| self.caller(&servers)).collect();
            let callers = callers?;
            Ok(Box::new(move || {
                let _servers = &servers;
                let calls =
                    |caller: &Ended<Caller>| caller.0[0].calls_with_argument(1_000).submit();
                self.all(callers.iter().map(calls))
            }))
        })
    }

    /// The same of actors whose methods are `async`.
    pub(super) fn async_actors(&self) -> Result<()> {
        let cx = self.cx;
        let some = self.some();
        self.row("1:1 async-actor calls sync", 1.0, || {
            let server = self.async_servers(1)?;
            Ok(Box::new(move || server.0[0].small_value().submit().get().map(drop)))
        })?;
        self.row("1:1 async-actor calls async", 1_000.0, || {
            let server = self.async_servers(1)?;
            Ok(Box::new(move || self.all((0..1_000).map(|_| server.0[0].small_value().submit()))))
        })?;
        self.row("1:1 async-actor calls with args async", 1_000.0, || {
            let server = self.async_servers(1)?;
            Ok(Box::new(move || {
                self.all((0..1_000).map(|x| server.0[0].small_value_of(x).submit()))
            }))
        })?;
        self.row("1:n async-actor calls async", 5_000.0 * some as f64, || {
            let servers = self.async_servers(some)?;
            let caller = AsyncCaller::with().own_process().cpus(0.0);
            let caller = Ended(vec![caller.spawn(cx, &servers.0).get()?]);
            Ok(Box::new(move || {
                let _servers = &servers;
                caller.0[0].calls(5_000).submit().get()
            }))
        })?;
        self.row("n:n async-actor calls async", 20_000.0, || {
            let servers = self.async_servers(some)?;
            Ok(Box::new(move || {
                self.all((0..4).map(|_| call_each_async.submit(cx, &servers.0, 5_000)))
            }))
        })
    }

    /// From the request for many actors until all of them are there; their end is not counted.
    pub(super) fn creation(&self) -> Result<()> {
        self.creation_of("create actors (light)", LIGHT, || {
            Server::with().cpus(0.0).spawn(self.cx)
        })?;
        self.creation_of("create actors (own process)", PROCESSES, || {
            Server::with().own_process().cpus(0.0).spawn(self.cx)
        })
    }

    fn creation_of(
        &self,
        name: &str,
        count: u32,
        spawn: impl Fn() -> rdist::Spawning<Server>,
    ) -> Result<()> {
        self.measured(name, || {
            measure_parts(self.plan.pace, f64::from(count), || {
                let start = Instant::now();
                let spawning: Vec<_> = (0..count).map(|_| spawn()).collect();
                let spawned = spawning.into_iter().map(rdist::Spawning::get);
                let actors = Ended(spawned.collect::<Result<Vec<_>>>()?);
                let taken = start.elapsed();
                let ends: Vec<_> = actors.0.iter().map(ActorHandle::terminate).collect();
                self.cx.get_all(&ends)?;
                Ok(taken)
            })
        })
    }

    /// As many servers as Ray takes on this machine.
    fn some(&self) -> usize {
        (self.plan.cpus / 2).max(1)
    }

    pub(super) fn servers(&self, count: usize) -> Result<Ended<Server>> {
        let spawn = |_| Server::with().own_process().cpus(0.0).spawn(self.cx).get();
        (0..count).map(spawn).collect::<Result<_>>().map(Ended)
    }

    fn caller(&self, servers: &Ended<Server>) -> Result<Ended<Caller>> {
        let caller = Caller::with().own_process().cpus(0.0).spawn(self.cx, &servers.0).get()?;
        Ok(Ended(vec![caller]))
    }

    fn async_servers(&self, count: usize) -> Result<Ended<AsyncServer>> {
        let spawn = |_| AsyncServer::with().own_process().cpus(0.0).spawn(self.cx).get();
        (0..count).map(spawn).collect::<Result<_>>().map(Ended)
    }
}

/// Actors that end with the row that they are for.
pub(super) struct Ended<A: Actor>(pub(super) Vec<ActorHandle<A>>);

impl<A: Actor> Drop for Ended<A> {
    fn drop(&mut self) {
        for actor in &self.0 {
            // What is gone already needs no end.
            let _ = actor.kill();
        }
    }
}

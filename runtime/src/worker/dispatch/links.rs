//! Rings between executors, for direct calls of actors and leased tasks (`rdist_scheduler::local`,
//! `direct` and `lease`): made for the first route or lease between two of them, and told of when
//! one has ended.
//!
//! A granted route is told to the callee first, by a fence, and then to the caller: so whatever the
//! callee was told before is in its ring before any direct call of that route can be. While a call
//! of the actor still waits for an argument from disk (`readers`), there is no route to it.

use std::collections::HashSet;
use std::os::fd::AsFd;

use rdist_scheduler::id::{ActorId, ExecutorId};
use rdist_scheduler::local::LocalEvent;
use rdist_scheduler::outcome::Death;

use super::Dispatch;
use crate::ring::RingPair;
use crate::wire::direct::DIRECT_RING_BYTES;
use crate::wire::executor::ToExecutor;

/// Most rings of one worker; calls between further pairs of executors go by the worker.
const MAX_LINKS: usize = 1_024;

/// Which executors share rings.
#[derive(Default)]
pub(super) struct Links {
    /// Caller and callee.
    pairs: HashSet<(ExecutorId, ExecutorId)>,
    last_fence: u64,
}

impl Dispatch {
    /// Answers an executor that wants to call an actor directly.
    pub(super) fn route(&mut self, to: ExecutorId, actor: ActorId, callee: Option<ExecutorId>) {
        let callee = callee.filter(|_| !self.readers.delays(actor));
        let granted = callee.and_then(|callee| Some((callee, self.fence(to, callee)?)));
        self.send(to, &ToExecutor::Route { actor, granted });
    }

    /// Answers an executor that wants to give tasks to `granted`, the host, itself.
    pub(super) fn lease(&mut self, to: ExecutorId, granted: Option<(ExecutorId, u64)>) {
        let linked = granted.and_then(|(host, number)| Some((host, self.fence(to, host)?, number)));
        self.send(to, &ToExecutor::Lease { granted: linked });
        if let (Some((executor, number)), None) = (granted, linked) {
            self.tell(LocalEvent::LeaseOver { executor, caller: to, number, running: None });
        }
    }

    /// Sets a fence for the calls of `caller`; `None`: there are no rings, or no room for a fence.
    fn fence(&mut self, caller: ExecutorId, callee: ExecutorId) -> Option<u64> {
        self.link(caller, callee)?;
        let number = self.links.last_fence + 1;
        let at = self.executors.get_mut(&callee)?;
        at.send(&ToExecutor::Fence { number, caller }, &self.arena);
        at.flush();
        if at.is_congested() {
            return None;
        }
        self.links.last_fence = number;
        Some(number)
    }

    /// Makes rings for two executors that have none yet.
    fn link(&mut self, caller: ExecutorId, callee: ExecutorId) -> Option<()> {
        let callers_bell = self.executors.get(&caller)?.bell();
        let callees_bell = self.executors.get(&callee)?.bell();
        if self.links.pairs.contains(&(caller, callee)) {
            return Some(());
        }
        if self.links.pairs.len() >= MAX_LINKS {
            return None;
        }
        let memory = match RingPair::memory(DIRECT_RING_BYTES) {
            Ok(memory) => memory,
            Err(error) => {
                tracing::warn!(%error, "actors are called by way of the worker");
                return None;
            }
        };
        let memory = memory.as_fd();
        self.executors.get_mut(&caller)?.link((callee, &callees_bell), true, memory);
        self.executors.get_mut(&callee)?.link((caller, &callers_bell), false, memory);
        self.links.pairs.insert((caller, callee));
        Some(())
    }

    /// An executor has ended: those that share rings with it read them to the end.
    pub(super) fn end_links(&mut self, ended: ExecutorId, death: &Death) {
        let with: Vec<(ExecutorId, ExecutorId)> =
            self.links.pairs.extract_if(|(a, b)| *a == ended || *b == ended).collect();
        for (caller, callee) in with {
            let other = if caller == ended { callee } else { caller };
            let (peer, death) = (ended, death.clone());
            self.send(other, &ToExecutor::LinkEnded { peer, death });
        }
    }
}

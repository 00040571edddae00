//! Values on workers that leave: their owners copy them before they are gone.
//!
//! A worker that is told to leave says so to every worker that it knows or meets. Who owns values
//! with copies there takes one itself where no other copy stays, and then frees those on workers
//! that leave. The worker goes when it owns nothing, runs nothing, and nobody counts on a copy that
//! it has ([`LocalCore::is_idle`]).

use super::LocalCore;
use crate::id::{ObjectId, WorkerId};
use crate::message::PeerMessage;
use crate::object::Value;

impl LocalCore {
    /// Says to every worker that is known that this one leaves.
    pub(super) fn say_leaving(&mut self) {
        let mut peers: Vec<WorkerId> = self.peers.keys().copied().collect();
        peers.sort_unstable();
        for peer in peers {
            self.send(peer, PeerMessage::Leaves);
        }
    }

    /// Whether other workers count on copies of their values here.
    pub(super) fn keeps_copies(&self) -> bool {
        !self.lodgers.is_empty()
            || self.objects.values().any(|entry| {
                let is_here = matches!(&entry.value,
                Value::Arena { copies, .. } if copies.contains(&self.me));
                is_here && !entry.is_owned() && !entry.freed && !self.is_dead(entry.owner)
            })
    }

    /// A worker leaves: what only it has is copied here.
    pub(super) fn worker_leaves(&mut self, worker: WorkerId) {
        if !self.leaving.insert(worker) {
            return;
        }
        self.keeper_gone(worker);
        let mut copies: Vec<ObjectId> = self.peer(worker).copies.iter().copied().collect();
        copies.sort_unstable();
        for object in copies {
            self.keep_from_leaving(object);
        }
    }

    /// An owned value has one copy more, or less: where only workers that leave have it, it is
    /// fetched; else they need it no longer.
    pub(super) fn keep_from_leaving(&mut self, object: ObjectId) {
        if self.leaving.is_empty() {
            return;
        }
        let Some(entry) = self.objects.get(&object).filter(|entry| entry.is_owned()) else {
            return;
        };
        let Value::Arena { copies, .. } = &entry.value else { return };
        let (leave, stay): (Vec<WorkerId>, Vec<WorkerId>) =
            copies.iter().partition(|copy| self.leaving.contains(copy));
        if stay.is_empty() {
            return self.pull(object);
        }
        for copy in leave {
            self.remove_copy(object, copy);
            self.send(copy, PeerMessage::Free { object });
        }
    }
}

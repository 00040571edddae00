//! Values that lie here for several owners.
//!
//! A task that runs again on another worker submits its children anew, owned by that worker, and
//! makes the same calls of actors. Who runs such a child or such a call a second time has its value
//! already, for the first owner. Each of the owners counts on the copy here, and frees it when it
//! needs it no longer. The entry of the object knows one of them, or this worker; *lodgers* are the
//! others. The last one takes the value with it.
//!
//! Only a value without references inside is shared: each owner counts the references inside the
//! value that was made for it, and those that lie in the table are one owner's. Of a value with
//! references the further owners find, in their time, that the copy here is gone.
//!
//! LG-1: what has lodgers lies in the table here, and they are living workers, each once, beside
//! the owner that the entry knows.

use smallvec::SmallVec;

use super::LocalCore;
use crate::few::Few;
use crate::hash::IdMap;
use crate::id::{JobId, ObjectId, WorkerId};
use crate::message::PeerMessage;
use crate::object::{Borrow, ObjectEntry, Value};

/// Further owners of what lies here.
#[derive(Debug, Default)]
pub(super) struct Lodgers(IdMap<ObjectId, Lodged>);

#[derive(Debug)]
struct Lodged {
    /// Bytes.
    size: u64,
    owners: SmallVec<[WorkerId; 2]>,
}

impl Lodgers {
    pub(super) fn has(&self, object: ObjectId) -> bool {
        !self.0.is_empty() && self.0.contains_key(&object)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, object: ObjectId, size: u64, owner: WorkerId) {
        let lodged =
            self.0.entry(object).or_insert_with(|| Lodged { size, owners: SmallVec::new() });
        if !lodged.owners.contains(&owner) {
            lodged.owners.push(owner);
        }
    }

    /// That owner needs it no longer; whether it did.
    pub(super) fn remove(&mut self, object: ObjectId, owner: WorkerId) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let Some(lodged) = self.0.get_mut(&object) else { return false };
        let Some(place) = lodged.owners.iter().position(|other| *other == owner) else {
            return false;
        };
        lodged.owners.remove(place);
        if lodged.owners.is_empty() {
            self.0.remove(&object);
        }
        true
    }

    /// The owner that has waited longest.
    fn first(&self, object: ObjectId) -> Option<(WorkerId, u64)> {
        let lodged = self.0.get(&object)?;
        Some((*lodged.owners.first()?, lodged.size))
    }

    /// The copy here is gone.
    pub(super) fn forget(&mut self, object: ObjectId) {
        if !self.0.is_empty() {
            self.0.remove(&object);
        }
    }

    pub(super) fn forget_worker(&mut self, worker: WorkerId) {
        self.0.retain(|_, lodged| {
            lodged.owners.retain(|owner| *owner != worker);
            !lodged.owners.is_empty()
        });
    }

    pub(super) fn forget_job(&mut self, job: JobId) {
        self.0.retain(|object, _| object.task.job() != job);
    }
}

impl LocalCore {
    /// The value here, which has no references inside, lies here for that owner too.
    pub(super) fn lodge(&mut self, object: ObjectId, size: u64, owner: WorkerId) {
        let Some(entry) = self.objects.get_mut(&object) else { return };
        entry.bare = true;
        if entry.owner == owner {
            // It counts on the copy anew.
            entry.freed = false;
        } else {
            self.lodgers.add(object, size, owner);
        }
    }

    /// Nobody here refers to a borrowed value, and its owner needs it no longer: the next one of
    /// those for whom it lies here is its owner.
    pub(super) fn hand_over(&mut self, object: ObjectId) {
        let me = self.me;
        let Some((owner, size)) = self.lodgers.first(object) else { return };
        self.lodgers.remove(object, owner);
        let Some(entry) = self.objects.get_mut(&object) else { return };
        let former = core::mem::replace(&mut entry.owner, owner);
        let was_kept = core::mem::take(&mut entry.keeps) && !entry.freed;
        entry.borrow = Borrow::Unregistered;
        entry.value = Value::Arena { size, copies: Few::One(me) };
        entry.freed = false;
        entry.asked = false;
        entry.pull_is_stale = entry.pull.is_some();
        self.replicas.end_search(object);
        if let Some(peer) = self.peers.get_mut(&former) {
            peer.borrowed.remove(&object);
        }
        self.peer(owner).borrowed.insert(object);
        if was_kept {
            self.send(former, PeerMessage::NotKept { object });
        }
    }

    /// Nobody refers to an object that was owned here, and its value lies here for others: for the
    /// one that owned it before and still counts this worker, or for the next one.
    pub(super) fn leave_to_lodgers(&mut self, object: ObjectId) {
        let Some((first, size)) = self.lodgers.first(object) else { return };
        let former = self.adopted.remove(&object);
        let owner = former.unwrap_or(first);
        let borrow = if former.is_some() { Borrow::Registered } else { Borrow::Unregistered };
        let mut entry = ObjectEntry::new(owner, borrow);
        entry.value = Value::Arena { size, copies: Few::One(self.me) };
        entry.bare = true;
        entry.freed = !self.lodgers.remove(object, owner);
        self.objects.insert(object, entry);
        self.peer(owner).borrowed.insert(object);
        if former.is_some() {
            self.release(object);
        }
    }

    pub(super) fn check_lodgers(&self) {
        for (object, lodged) in &self.lodgers.0 {
            let entry = self.objects.get(object);
            let is_here = entry.is_some_and(|entry| entry.is_in_table(self.me) && entry.bare);
            assert!(is_here && !lodged.owners.is_empty(), "LG-1: {object:?} lies here: {lodged:?}");
            let mut all = lodged.owners.to_vec();
            all.extend(entry.map(|entry| entry.owner));
            all.sort_unstable();
            assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "LG-1: {object:?}: {all:?}");
            let live = lodged.owners.iter().all(|owner| !self.is_dead(*owner) && *owner != self.me);
            assert!(live, "LG-1: the owners of {object:?} live: {lodged:?}");
        }
    }
}

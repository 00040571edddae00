//! Values that are kept in several copies.
//!
//! A value that was put with replicas lies on its owner and on *keepers*: other workers that the
//! owner chose among the members of the cluster, which the head names to who asks. A keeper that
//! dies, leaves or loses its copy is replaced; where there are too few workers, the next one that
//! joins becomes a keeper. When the owner dies its keepers have their copies until the job ends,
//! and who needs the value asks the members for it, the likely keepers first. References inside
//! the value are counted by its owner alone: what they refer to may be lost with it.
//!
//! RP-1: an owned object with keepers is a replicated one, and a keeper is listed once.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use super::LocalCore;
use crate::few::Few;
use crate::hash::IdMap;
use crate::id::{JobId, ObjectId, WorkerId};
use crate::message::{PeerMessage, Place, ToHead};
use crate::object::{Borrow, ObjectEntry, Value};
use crate::outcome::{Cause, TaskError};

/// Replicated values that are owned here, and those that are looked for.
#[derive(Debug, Default)]
pub(super) struct Replicas {
    /// Workers that can keep something, by the head's last word.
    members: Vec<WorkerId>,
    is_subscribed: bool,
    is_answered: bool,
    owned: IdMap<ObjectId, Kept>,
    searches: IdMap<ObjectId, Search>,
}

/// Who keeps an owned value.
#[derive(Debug, Default)]
struct Kept {
    /// Keepers that it should have.
    wanted: u32,
    keepers: SmallVec<[WorkerId; 2]>,
    /// Who could not, since membership changed.
    refused: SmallVec<[WorkerId; 2]>,
}

/// A value whose owner is dead is looked for.
#[derive(Debug, Default)]
struct Search {
    asked: Option<WorkerId>,
    /// Those are asked who may let it be made again, and no longer those who may have it.
    owners: bool,
    /// Who is asked next, once the members are known.
    left: Option<VecDeque<WorkerId>>,
}

impl Replicas {
    /// Nobody looks for the value any longer.
    pub(super) fn end_search(&mut self, object: ObjectId) {
        if !self.searches.is_empty() {
            self.searches.remove(&object);
        }
    }

    /// Nobody refers to an owned value.
    pub(super) fn forget(&mut self, object: ObjectId) {
        if !self.owned.is_empty() {
            self.owned.remove(&object);
        }
    }

    pub(super) fn forget_job(&mut self, job: JobId) {
        self.owned.retain(|object, _| object.task.job() != job);
        self.searches.retain(|object, _| object.task.job() != job);
    }

    pub(super) fn is_owned(&self, object: ObjectId) -> bool {
        self.owned.contains_key(&object)
    }

    pub(super) fn is_subscribed(&self) -> bool {
        self.is_subscribed
    }

    /// Members but `me`, those first that are the first choice for the object.
    fn ranked(&self, object: ObjectId, me: WorkerId) -> Vec<WorkerId> {
        let mut members: Vec<WorkerId> =
            self.members.iter().copied().filter(|member| *member != me).collect();
        members.sort_by_key(|member| (object.rank_of(*member), *member));
        members
    }

    /// Panics where RP-1 does not hold.
    pub(super) fn check(&self) {
        for (object, kept) in &self.owned {
            let mut keepers = kept.keepers.to_vec();
            keepers.sort_unstable();
            keepers.dedup();
            let are_single = keepers.len() == kept.keepers.len();
            assert!(object.is_replicated() && are_single, "RP-1: keepers of {object:?}");
        }
    }
}

impl LocalCore {
    /// An owned value is to be kept in so many copies.
    pub(super) fn replicate(&mut self, object: ObjectId, copies: u32) {
        self.subscribe_to_members();
        let kept = self.replicas.owned.entry(object).or_default();
        kept.wanted = kept.wanted.max(copies.saturating_sub(1));
        self.fill_replicas(object);
    }

    fn subscribe_to_members(&mut self) {
        if !self.replicas.is_subscribed {
            self.replicas.is_subscribed = true;
            self.send_head(ToHead::MembersWanted);
        }
    }

    /// Finds the keepers that are missing.
    fn fill_replicas(&mut self, object: ObjectId) {
        let Some(kept) = self.replicas.owned.get(&object) else { return };
        let missing = (kept.wanted as usize).saturating_sub(kept.keepers.len());
        if missing == 0 {
            return;
        }
        let Some(Value::Arena { size, .. }) = self.objects.get(&object).map(|entry| &entry.value)
        else {
            return;
        };
        let size = *size;
        let may_keep = |member: &WorkerId| {
            !self.is_dead(*member)
                && !self.leaving.contains(member)
                && !kept.keepers.contains(member)
                && !kept.refused.contains(member)
        };
        let ranked = self.replicas.ranked(object, self.me);
        let chosen: Vec<WorkerId> = ranked.into_iter().filter(may_keep).take(missing).collect();
        for keeper in chosen {
            if let Some(kept) = self.replicas.owned.get_mut(&object) {
                kept.keepers.push(keeper);
            }
            self.peer(keeper);
            let copies = self.sources(object, keeper);
            self.send(keeper, PeerMessage::Replicate { object, size, copies });
        }
    }

    fn fill_all_replicas(&mut self) {
        let mut owned: Vec<ObjectId> = self.replicas.owned.keys().copied().collect();
        owned.sort_unstable();
        for object in owned {
            self.fill_replicas(object);
        }
    }

    /// A worker has no copy any longer, or will not get one.
    pub(super) fn keeper_lost(&mut self, object: ObjectId, keeper: WorkerId) {
        if let Some(kept) = self.replicas.owned.get_mut(&object)
            && let Some(place) = kept.keepers.iter().position(|at| *at == keeper)
        {
            kept.keepers.remove(place);
            self.fill_replicas(object);
        }
    }

    /// A worker is dead, or leaves: others keep what it kept.
    pub(super) fn keeper_gone(&mut self, worker: WorkerId) {
        for kept in self.replicas.owned.values_mut() {
            kept.keepers.retain(|keeper| *keeper != worker);
        }
        self.fill_all_replicas();
    }

    /// A worker is dead: others are asked for what it was asked for.
    pub(super) fn asked_died(&mut self, worker: WorkerId) {
        let asked = self.replicas.searches.iter().filter(|(_, of)| of.asked == Some(worker));
        let mut asked: Vec<ObjectId> = asked.map(|(object, _)| *object).collect();
        asked.sort_unstable();
        for object in asked {
            self.search_on(object);
        }
    }

    /// The head says who there is.
    pub(super) fn members_are(&mut self, members: Vec<WorkerId>) {
        self.replicas.members = members;
        self.replicas.is_answered = true;
        for kept in self.replicas.owned.values_mut() {
            kept.refused.clear();
        }
        self.fill_all_replicas();
        let waits = |search: &Search| search.left.is_none();
        let searches = self.replicas.searches.iter().filter(|(_, search)| waits(search));
        let mut waiting: Vec<ObjectId> = searches.map(|(object, _)| *object).collect();
        waiting.sort_unstable();
        for object in waiting {
            self.search_on(object);
        }
    }

    /// An owner wants a copy to be kept here.
    pub(super) fn keep_copy(
        &mut self,
        from: WorkerId,
        object: ObjectId,
        size: u64,
        copies: Vec<WorkerId>,
    ) {
        let me = self.me;
        let copies: Few<WorkerId> = copies.into_iter().filter(|copy| *copy != me).collect();
        let new = || ObjectEntry::new(from, Borrow::Unregistered);
        let (entry, is_new) = self.objects.get_or_insert_with(object, new);
        if self.draining || copies.is_empty() || entry.owner != from || entry.pull_is_stale {
            if is_new {
                self.objects.swap_remove(&object);
            }
            return self.send(from, PeerMessage::NotKept { object });
        }
        entry.keeps = true;
        if entry.is_readable(me) {
            entry.freed = false;
            return self.send(from, PeerMessage::CopyMade { object });
        }
        if entry.pull.is_none() {
            entry.value = Value::Arena { size, copies };
            entry.asked = false;
        }
        self.peer(from).borrowed.insert(object);
        self.announce(object);
        self.pull(object);
    }

    /// A worker that was to keep a copy has none, or none any longer.
    pub(super) fn not_kept(&mut self, from: WorkerId, object: ObjectId) {
        self.end_reading(object, from);
        if let Some(kept) = self.replicas.owned.get_mut(&object)
            && kept.keepers.contains(&from)
        {
            kept.refused.push(from);
            self.keeper_lost(object, from);
        }
        if self.objects.get(&object).is_some_and(ObjectEntry::is_owned) {
            self.remove_copy(object, from);
        }
    }

    /// Somebody here needs a value whose owner is dead: a keeper may have it.
    pub(super) fn search(&mut self, object: ObjectId) {
        self.subscribe_to_members();
        if self.replicas.searches.contains_key(&object) {
            return;
        }
        self.replicas.searches.insert(object, Search::default());
        self.search_on(object);
    }

    pub(super) fn is_searched(&self, object: ObjectId) -> bool {
        self.replicas.searches.contains_key(&object)
    }

    /// Owners of tasks that run here are asked whether they let it be made again.
    pub(super) fn ask_owners(&mut self, object: ObjectId) {
        let left = Some(self.owners_of_hosted(object.task.job()).into());
        self.replicas.searches.insert(object, Search { asked: None, owners: true, left });
        self.search_on(object);
    }

    /// Asks the next member, when the members are known.
    fn search_on(&mut self, object: ObjectId) {
        let owners = self.replicas.searches.get(&object).is_some_and(|search| search.owners);
        if !owners && !self.replicas.is_answered {
            return;
        }
        let Some(mut search) = self.replicas.searches.remove(&object) else { return };
        let mut left =
            search.left.take().unwrap_or_else(|| self.replicas.ranked(object, self.me).into());
        left.retain(|member| !self.is_dead(*member));
        let Some(member) = left.pop_front() else {
            return if owners { self.not_found(object) } else { self.remake_or_ask(object) };
        };
        let (asked, left) = (Some(member), Some(left));
        self.replicas.searches.insert(object, Search { asked, owners, left });
        self.peer(member);
        let message = match owners {
            true => PeerMessage::OwnerWanted { object },
            false => PeerMessage::Locate { object, fetches: true },
        };
        self.send(member, message);
    }

    /// Answer to a question for the owner.
    pub(super) fn owner_is(&mut self, from: WorkerId, object: ObjectId, owner: Option<WorkerId>) {
        let search = self.replicas.searches.get(&object);
        if !search.is_some_and(|search| search.owners && search.asked == Some(from)) {
            return;
        }
        let living = owner.filter(|owner| *owner != self.me && !self.is_dead(*owner));
        if !living.is_some_and(|owner| self.follow(object, owner)) {
            self.search_on(object);
        }
    }

    /// Nobody has it.
    fn not_found(&mut self, object: ObjectId) {
        if let Some(entry) = self.objects.get_mut(&object)
            && !entry.is_owned()
            && matches!(entry.value, Value::Absent)
        {
            entry.asked = false;
            let error = TaskError { task: object.task, cause: Cause::OwnerDied };
            entry.value = Value::Failed(Arc::new(error));
            self.announce(object);
        }
        self.tell_askers(object, None);
    }

    /// Whether a member that is no owner answered; that is dealt with here.
    pub(super) fn is_found(&mut self, object: ObjectId, from: WorkerId, place: &Place) -> bool {
        let asked = self.replicas.searches.get(&object).and_then(|search| search.asked);
        if asked != Some(from) {
            return false;
        }
        match place {
            Place::At { size, copies } if copies.iter().any(|copy| *copy != self.me) => {
                self.replicas.searches.remove(&object);
                if let Some(entry) = self.objects.get_mut(&object)
                    && matches!(entry.value, Value::Absent)
                {
                    let copies = copies.iter().copied().filter(|copy| *copy != self.me).collect();
                    entry.asked = false;
                    entry.value = Value::Arena { size: *size, copies };
                    self.announce(object);
                }
            }
            Place::Inline => {
                self.replicas.searches.remove(&object);
                match self.objects.get_mut(&object) {
                    Some(entry) if matches!(entry.value, Value::Absent) => {
                        entry.asked = false;
                        entry.value = Value::Inline;
                        self.announce(object);
                    }
                    _ => self.free_value(object),
                }
            }
            _ => self.search_on(object),
        }
        true
    }

    /// A member asks for a value whose owner, as it knows, is dead: answered from the copy here.
    pub(super) fn tell_of_copy(&mut self, object: ObjectId, to: WorkerId) {
        let place = match self.objects.get(&object).map(|entry| &entry.value) {
            Some(Value::Arena { size, copies }) if copies.contains(&self.me) => {
                Place::At { size: *size, copies: vec![self.me] }
            }
            _ => Place::Failed(TaskError { task: object.task, cause: Cause::OwnerDied }),
        };
        self.send(to, PeerMessage::Located { object, place });
    }
}

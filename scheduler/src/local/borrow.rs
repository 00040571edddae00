//! References to objects of other workers, references that other workers have to objects of this
//! one, and messages that wait until such references are counted.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use smallvec::SmallVec;

use super::peers::{Answers, Deferred, Peer, What};
use super::{LocalAction, LocalCore};
use crate::few::Few;
use crate::id::{ObjectId, TaskId, WorkerId};
use crate::message::{PeerMessage, Place};
use crate::object::{Borrow, ObjectEntry, Value, Waiter};
use crate::outcome::{Cause, TaskError};

impl LocalCore {
    pub(super) fn peer(&mut self, worker: WorkerId) -> &mut Peer {
        self.peers.entry(worker).or_insert_with(|| {
            self.head.met.push(worker);
            if self.draining && !self.dead.contains(&worker) {
                let message = PeerMessage::Leaves;
                self.actions.push_back(LocalAction::Send { to: worker, message });
            }
            Peer::default()
        })
    }

    pub(super) fn peer_says(&mut self, from: WorkerId, message: PeerMessage) {
        if self.is_dead(from) || from == self.me {
            return;
        }
        match message {
            PeerMessage::Finished { task, attempt, outcome } => {
                self.peer_finished(from, task, attempt, outcome);
            }
            PeerMessage::Yielded { task, attempt, index, value } => {
                self.peer_yielded(from, (task, attempt), index, value);
            }
            PeerMessage::CreditWanted { task, attempt, wanted } => {
                self.producer_asks(from, (task, attempt), wanted);
            }
            PeerMessage::Credit { task, consumed } => self.credit(from, task, consumed),
            PeerMessage::Consumed { task, count } => self.consumed(task, self.me, count),
            PeerMessage::Settled { task, attempt } => self.settled(from, task, attempt),
            PeerMessage::Call(assignment) => self.called(from, *assignment),
            PeerMessage::Locate { object, fetches } => self.locate(from, object, fetches),
            PeerMessage::Located { object, place } => self.located(from, object, place),
            PeerMessage::Retain { object } => self.peer_retains(from, object),
            PeerMessage::Retained { .. } => self.owner_counts(from),
            PeerMessage::Release { object } => self.peer_releases(from, object),
            PeerMessage::CopyMade { object } => self.copy_made(from, object),
            PeerMessage::CopyLost { object, at } => self.copy_lost(from, object, at),
            PeerMessage::Free { object } => self.freed_by_owner(from, object),
            PeerMessage::Replicate { object, size, copies } => {
                self.keep_copy(from, object, size, copies);
            }
            PeerMessage::OwnerWanted { object } => self.owner_wanted(from, object),
            PeerMessage::OwnerIs { object, owner } => self.owner_is(from, object, owner),
            PeerMessage::NotKept { object } => self.not_kept(from, object),
            PeerMessage::ActorLocate { actor } => self.actor_locate(from, actor),
            PeerMessage::ActorLocated { actor, place } => self.actor_located(from, actor, place),
            PeerMessage::ActorLost { actor, life, death } => self.actor_lost(actor, life, death),
            PeerMessage::ActorSaved { actor, life, number, state, calls } => {
                self.actor_saved(from, (actor, life, number), state, calls);
            }
            PeerMessage::SavedKept { actor, life, number } => {
                self.saved_kept(from, actor, life, number);
            }
            PeerMessage::ActorStateWanted { actor, life } => {
                self.actor_state_wanted(from, actor, life);
            }
            PeerMessage::ActorNotes { actor, life, calls } => {
                self.actor_state_sent(from, (actor, life), None, calls, false);
            }
            PeerMessage::ActorStateSent { actor, life, state, calls } => {
                self.actor_state_sent(from, (actor, life), state, calls, true);
            }
            PeerMessage::CallsSettled { actor, calls } => self.calls_settled(from, actor, calls),
            PeerMessage::ActorKill { actor } => self.actor_kill(from, actor),
            PeerMessage::Cancel { task, attempt, mode } => {
                self.peer_cancels(from, task, attempt, mode);
            }
            PeerMessage::CancelHeard { task, attempt, mode, found } => {
                self.cancel_heard(from, (task, attempt), mode, found);
            }
            PeerMessage::CancelRequested { task, mode } => {
                self.cancel_requested(task, self.me, mode);
            }
            PeerMessage::Leaves => self.worker_leaves(from),
            PeerMessage::Group(message) => self.group_says(from, message),
        }
    }

    /// The owner of what was registered first, and is not answered, counts it.
    fn owner_counts(&mut self, owner: WorkerId) {
        self.peer(owner).retains_answered += 1;
        self.flush_outbox();
    }

    /// The first holder here: the owner is told.
    pub(super) fn register(&mut self, object: ObjectId) {
        let Some(entry) = self.objects.get_mut(&object) else { return };
        let owner = entry.owner;
        if owner == WorkerId::HEAD || self.dead.contains(&owner) {
            return;
        }
        entry.borrow = Borrow::Registered;
        self.outbox.owing.insert(owner);
        let peer = self.peer(owner);
        peer.retains_sent += 1;
        peer.borrowed.insert(object);
        self.send(owner, PeerMessage::Retain { object });
    }

    /// The last holder here is gone: the owner is told, when nothing can be lost by it.
    pub(super) fn release(&mut self, object: ObjectId) {
        let Some(entry) = self.objects.get_mut(&object) else { return };
        let owner = entry.owner;
        match entry.borrow {
            Borrow::Registered => {
                entry.borrow = Borrow::Releasing;
                let until = self.open_answers(owner);
                if until.is_empty() {
                    self.release_now(object);
                } else {
                    self.outbox.waiting.push_back(Deferred { what: What::Release(object), until });
                }
            }
            Borrow::Unregistered => self.drop_unheld(object),
            Borrow::Owned | Borrow::Releasing => {}
        }
    }

    fn release_now(&mut self, object: ObjectId) {
        let Some(entry) = self.objects.get_mut(&object) else { return };
        entry.borrow = Borrow::Unregistered;
        // Whatever it answers comes too late to matter.
        entry.asked = false;
        let owner = entry.owner;
        self.send(owner, PeerMessage::Release { object });
        self.drop_unheld(object);
    }

    /// Drops a borrowed object that nobody holds, unless its owner counts on the copy here, or is
    /// still to be told that nobody does.
    pub(super) fn drop_unheld(&mut self, object: ObjectId) {
        let Some(entry) = self.objects.get(&object) else { return };
        if entry.borrow == Borrow::Releasing {
            return;
        }
        // Whatever copy stays here, nobody needs it to be made again.
        self.forget_maker(object);
        let Some(entry) = self.objects.get(&object) else { return };
        let owner_is_gone = entry.owner == WorkerId::HEAD || self.dead.contains(&entry.owner);
        let is_readable = entry.is_readable(self.me);
        let is_copy = matches!(entry.value, Value::Arena { .. }) && is_readable;
        if !owner_is_gone && (entry.pull.is_some() || (is_copy && !entry.freed)) {
            return;
        }
        if entry.keeps && is_copy && !entry.freed {
            return;
        }
        if self.lodgers.has(object) {
            return self.hand_over(object);
        }
        self.forget_borrowed(object);
        if is_readable {
            self.free_value(object);
        }
    }

    /// An object that another worker owned is made here again, because its maker's maker runs
    /// here now: this worker becomes its owner. The value has to be made anew (see
    /// `object::entry`); the old one stays for those who use it, and with it the registration
    /// with the former owner, who keeps alive what it refers to.
    pub(super) fn adopt(&mut self, object: ObjectId) {
        let Some(entry) = self.objects.get_mut(&object) else { return };
        let (owner, borrow) = (entry.owner, entry.borrow);
        let kept = core::mem::take(&mut entry.keeps);
        let counted = match &entry.value {
            Value::Arena { size, copies } if copies.contains(&self.me) => Some(*size),
            _ => None,
        };
        let counted = counted.filter(|_| entry.bare && !entry.freed && !kept);
        entry.leftover = entry.is_readable(self.me);
        entry.owner = self.me;
        entry.borrow = Borrow::Owned;
        entry.asked = false;
        entry.freed = false;
        entry.value = Value::Absent;
        self.replicas.end_search(object);
        self.tell_askers(object, Some(self.me));
        self.forget_maker(object);
        if let Some(peer) = self.peers.get_mut(&owner) {
            peer.borrowed.remove(&object);
        }
        if kept {
            self.send(owner, PeerMessage::NotKept { object });
        }
        if matches!(borrow, Borrow::Registered | Borrow::Releasing) {
            self.adopted.insert(object, owner);
        }
        if let Some(size) = counted
            && !self.is_dead(owner)
        {
            self.lodge(object, size, owner);
        }
    }

    /// Nobody here uses the old value of an adopted object.
    pub(super) fn drop_leftover(&mut self, object: ObjectId) {
        if self.lodgers.has(object) {
            return;
        }
        if let Some(entry) = self.objects.get_mut(&object)
            && core::mem::take(&mut entry.leftover)
        {
            self.free_value(object);
        }
    }

    /// Nobody here refers to an adopted object: its former owner need not count this worker.
    pub(super) fn give_back_adopted(&mut self, object: ObjectId) {
        let Some(owner) = self.adopted.remove(&object) else { return };
        self.objects.insert(object, ObjectEntry::new(owner, Borrow::Registered));
        self.peer(owner).borrowed.insert(object);
        self.release(object);
    }

    pub(super) fn forget_borrowed(&mut self, object: ObjectId) {
        let Some(entry) = self.objects.swap_remove(&object) else { return };
        self.replicas.end_search(object);
        self.forget_maker(object);
        if let Some(peer) = self.peers.get_mut(&entry.owner) {
            peer.borrowed.remove(&object);
        }
        if entry.keeps && !entry.freed {
            self.send(entry.owner, PeerMessage::NotKept { object });
        }
    }

    /// The owner has no use for the copy here.
    fn freed_by_owner(&mut self, from: WorkerId, object: ObjectId) {
        let me = self.me;
        if self.lodgers.remove(object, from) {
            return;
        }
        let Some(entry) = self.objects.get_mut(&object) else { return };
        if entry.owner != from || entry.is_owned() || !entry.is_readable(me) {
            return;
        }
        entry.freed = true;
        if entry.holders == 0 {
            self.drop_unheld(object);
        }
    }

    fn peer_retains(&mut self, from: WorkerId, object: ObjectId) {
        let exists = self.objects.get(&object).is_some_and(|entry| entry.is_owned());
        if (exists || self.lineage.contains(object.task)) && self.peer(from).borrows.insert(object)
        {
            self.hold(crate::spec::Reference { object, owner: self.me });
        }
        self.send(from, PeerMessage::Retained { object });
    }

    fn peer_releases(&mut self, from: WorkerId, object: ObjectId) {
        if self.peer(from).borrows.remove(&object) {
            self.let_go(object);
        }
    }

    fn locate(&mut self, from: WorkerId, object: ObjectId, fetches: bool) {
        match self.objects.get_mut(&object) {
            Some(entry) if object.is_replicated() && !entry.is_owned() => {
                self.tell_of_copy(object, from);
            }
            None => {
                let error = TaskError { task: object.task, cause: Cause::ObjectLost };
                let place = Place::Failed(error);
                self.send(from, PeerMessage::Located { object, place });
            }
            Some(entry) if matches!(entry.value, Value::Absent) => {
                let waiter = Waiter::Peer { worker: from, fetches };
                if !entry.waiters.contains(&waiter) {
                    entry.waiters.push(waiter);
                }
            }
            Some(_) => self.tell_place(object, from, fetches),
        }
    }

    fn located(&mut self, from: WorkerId, object: ObjectId, place: Place) {
        if self.is_searched(object) && self.is_found(object, from, &place) {
            return;
        }
        let me = self.me;
        let Some(entry) = self.objects.get_mut(&object) else {
            if place == Place::Inline {
                self.free_value(object);
            }
            return;
        };
        if entry.owner != from || entry.is_owned() || entry.is_readable(me) {
            // The bytes that came beside are nobody's, where this worker has become the owner.
            if place == Place::Inline && !entry.is_in_table(me) {
                self.free_value(object);
            }
            return;
        }
        entry.asked = false;
        entry.value = match place {
            Place::Inline => Value::Inline,
            Place::At { size, copies } => {
                let copies: Few<WorkerId> = copies.into_iter().filter(|copy| *copy != me).collect();
                if copies.is_empty() {
                    // It counts a copy here that is none.
                    entry.value = Value::Absent;
                    return self.ask_again(object, me);
                }
                Value::Arena { size, copies }
            }
            Place::Failed(error) => Value::Failed(Arc::new(error)),
        };
        let keeps = entry.keeps && matches!(entry.value, Value::Arena { .. });
        if entry.holders == 0 && entry.pull.is_none() && !keeps {
            // Nobody waits any longer.
            return self.drop_unheld(object);
        }
        self.announce(object);
        if keeps {
            self.pull(object);
        }
    }

    /// Tells the owner that a copy cannot be read, and waits for another place.
    pub(super) fn ask_again(&mut self, object: ObjectId, at: WorkerId) {
        let Some(entry) = self.objects.get_mut(&object) else { return };
        entry.asked = true;
        let owner = entry.owner;
        self.send(owner, PeerMessage::CopyLost { object, at });
    }

    /// References inside a result are counted by its owner.
    fn settled(&mut self, from: WorkerId, task: TaskId, attempt: u32) {
        let Entry::Occupied(mut sent) = self.peer(from).settling.entry((task, attempt)) else {
            return;
        };
        let held = sent.get_mut().remove(0);
        if sent.get().is_empty() {
            sent.remove();
        }
        for object in held {
            self.let_go(object);
        }
    }

    /// What has to be answered before a message to `to` may go.
    fn open_answers(&mut self, to: WorkerId) -> Answers {
        let mut until = Answers::new();
        if self.outbox.owing.is_empty() {
            return until;
        }
        for worker in self.outbox.owing.iter().filter(|worker| **worker != to) {
            if let Some(peer) = self.peers.get(worker) {
                until.push((*worker, peer.retains_sent));
            }
        }
        until
    }

    /// Sends once every `Retain` so far is answered, then forgets the inline values of `free`,
    /// which the message carries, unless they are in use.
    pub(super) fn send_settled(
        &mut self,
        to: WorkerId,
        message: PeerMessage,
        free: SmallVec<[ObjectId; 1]>,
    ) {
        let until = self.open_answers(to);
        for object in &free {
            *self.outbox.carried.entry(*object).or_default() += 1;
        }
        let what = What::Message { to, message, free };
        // What goes to one worker stays in order.
        let is_first = !self.outbox.waiting.iter().any(
            |deferred| matches!(&deferred.what, What::Message { to: other, .. } if *other == to),
        );
        if until.is_empty() && is_first {
            self.send_now(what);
        } else {
            self.outbox.waiting.push_back(Deferred { what, until });
            self.flush_outbox();
        }
    }

    fn send_now(&mut self, what: What) {
        match what {
            What::Message { to, message, free } => {
                self.send(to, message);
                for object in free {
                    self.outbox.carried_once(object);
                    let me = self.me;
                    if !self.objects.get(&object).is_some_and(|entry| entry.is_in_table(me)) {
                        self.free_value(object);
                    }
                }
            }
            What::Release(object) => {
                let Some(entry) = self.objects.get(&object) else { return };
                if entry.borrow != Borrow::Releasing {
                    return;
                }
                // It may have been taken up and let go of again meanwhile.
                let until = self.open_answers(entry.owner);
                if until.is_empty() {
                    self.release_now(object);
                } else {
                    self.outbox.waiting.push_back(Deferred { what, until });
                }
            }
        }
    }

    /// Sends what waits for nothing any longer, in order.
    pub(super) fn flush_outbox(&mut self) {
        let peers = &self.peers;
        self.outbox.owing.retain(|worker| {
            peers.get(worker).is_some_and(|peer| peer.retains_answered < peer.retains_sent)
        });
        while let Some(first) = self.outbox.waiting.front() {
            let is_due = first.until.iter().all(|(worker, count)| {
                self.peers.get(worker).is_none_or(|peer| peer.retains_answered >= *count)
            });
            if !is_due {
                return;
            }
            if let Some(deferred) = self.outbox.waiting.pop_front() {
                self.send_now(deferred.what);
            }
        }
    }
}

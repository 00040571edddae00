//! References and values: who holds an object, what its value is, who waits for it.

use std::sync::Arc;

use super::{LocalAction, LocalCore, Step};
use crate::few::Few;
use crate::id::{ExecutorId, ObjectId, WorkerId};
use crate::message::PeerMessage;
use crate::object::{Borrow, Contained, ObjectEntry, Value, Waiter};
use crate::outcome::TaskError;
use crate::spec::{Assignment, Reference, TaskSpec};

/// Dependencies to look at for where a task should run; more would cost time and change little.
const DEPENDENCIES: usize = 32;

impl LocalCore {
    /// Where what a task reads lies in arenas, as far as this worker knows: the workers with the
    /// most bytes of it first.
    pub(super) fn near(&self, spec: &TaskSpec) -> Vec<WorkerId> {
        let mut found: Vec<(u64, WorkerId)> = Vec::new();
        for dependency in spec.dependencies.iter().take(DEPENDENCIES) {
            let entry = self.objects.get(&dependency.object);
            let Some(Value::Arena { size, copies }) = entry.map(|entry| &entry.value) else {
                continue;
            };
            for copy in copies {
                match found.iter_mut().find(|(_, worker)| worker == copy) {
                    Some((bytes, _)) => *bytes = bytes.saturating_add(*size),
                    None => found.push((*size, *copy)),
                }
            }
        }
        found.sort_by_key(|(bytes, _)| core::cmp::Reverse(*bytes));
        found.truncate(Assignment::NEAR);
        found.into_iter().map(|(_, worker)| worker).collect()
    }

    pub(super) fn put(
        &mut self,
        by: ExecutorId,
        object: ObjectId,
        (size, inline): (u64, bool),
        copies: u32,
        contains: Vec<Reference>,
    ) {
        if !self.listens(by) {
            if !self.objects.contains_key(&object) {
                self.free_value(object);
            }
            return;
        }
        self.has_made(by, object, (size, inline), &contains);
        if copies > 1 && object.is_replicated() {
            self.replicate(object, copies);
        }
    }

    /// A value came for `by`, which refers to it. One of that name that another owner left here is
    /// in the table in its stead, and as good.
    pub(super) fn has_made(
        &mut self,
        by: ExecutorId,
        object: ObjectId,
        (size, inline): (u64, bool),
        contains: &[Reference],
    ) {
        let me = self.me;
        let new = || ObjectEntry::new(me, Borrow::Owned);
        let (entry, _) = self.objects.get_or_insert_with(object, new);
        if !entry.is_owned() {
            self.adopt(object);
        }
        self.hold_by(by, Reference { object, owner: me });
        let value =
            if inline { Value::Inline } else { Value::Arena { size, copies: Few::One(me) } };
        self.set_value(object, value, contains);
    }

    pub(super) fn wanted(&mut self, by: ExecutorId, reference: Reference) {
        if !self.listens(by) {
            return;
        }
        self.hold_by(by, reference);
        let object = reference.object;
        let Some(entry) = self.objects.get_mut(&object) else { return };
        let error = match &entry.value {
            Value::Failed(error) => Some(Arc::clone(error)),
            _ if entry.is_readable(self.me) => None,
            _ => {
                let waiter = Waiter::Executor(by);
                if !entry.waiters.contains(&waiter) {
                    entry.waiters.push(waiter);
                }
                self.seek(object, true);
                return;
            }
        };
        self.act(LocalAction::Deliver { executor: by, object, error });
    }

    pub(super) fn retained(&mut self, by: ExecutorId, reference: Reference) {
        if self.listens(by) {
            self.hold_by(by, reference);
        }
    }

    pub(super) fn released(&mut self, by: ExecutorId, object: ObjectId) {
        if let Some(executor) = self.executors.get_mut(&by)
            && executor.holds.remove(&object)
        {
            self.let_go(object);
        }
    }

    /// `by` refers to the object, if it did not before.
    fn hold_by(&mut self, by: ExecutorId, reference: Reference) {
        if let Some(executor) = self.executors.get_mut(&by)
            && executor.holds.insert(reference.object)
        {
            self.hold(reference);
        }
    }

    /// One holder more.
    pub(super) fn hold(&mut self, reference: Reference) {
        let object = reference.object;
        self.follow_from_dead(reference);
        self.follow_owner(reference);
        if let Some(entry) = self.objects.get_mut(&object) {
            entry.holders += 1;
            match entry.borrow {
                Borrow::Owned | Borrow::Registered => {}
                Borrow::Releasing => entry.borrow = Borrow::Registered,
                Borrow::Unregistered => self.register(object),
            }
            return;
        }
        let is_mine = reference.owner == self.me;
        let borrow = if is_mine { Borrow::Owned } else { Borrow::Unregistered };
        let mut entry = ObjectEntry::new(reference.owner, borrow);
        entry.holders = 1;
        self.objects.insert(object, entry);
        if is_mine {
            // Freed long ago: its task can run again, or it is lost.
            self.steps.push_back(Step::Recover(object));
        } else {
            self.register(object);
        }
    }

    /// What is only waited for here, since nobody refers to it any longer, is taken up again as
    /// another owner's: its task has run again elsewhere. The former owner may have freed it.
    fn follow_owner(&mut self, Reference { object, owner }: Reference) {
        let me = self.me;
        let Some(entry) = self.objects.get_mut(&object) else { return };
        if !entry.is_unreferenced() || entry.is_in_table(me) || entry.owner == owner || owner == me
        {
            return;
        }
        let former = core::mem::replace(&mut entry.owner, owner);
        entry.value = Value::Absent;
        entry.asked = false;
        entry.pull_is_stale = entry.pull.is_some();
        self.replicas.end_search(object);
        if let Some(peer) = self.peers.get_mut(&former) {
            peer.borrowed.remove(&object);
        }
    }

    /// A pull for a former owner has ended, well or not: the value is still to be fetched.
    pub(super) fn stale_pull_ended(&mut self, object: ObjectId, came: bool) {
        let me = self.me;
        let Some(entry) = self.objects.get_mut(&object) else { return };
        entry.pull_is_stale = false;
        let is_unused = entry.is_unreferenced();
        if came && !entry.is_in_table(me) {
            self.free_value(object);
        }
        if is_unused {
            self.drop_unheld(object);
        } else {
            self.announce(object);
        }
    }

    /// One holder less.
    pub(super) fn let_go(&mut self, object: ObjectId) {
        let Some(entry) = self.objects.get_mut(&object) else { return };
        entry.holders -= 1;
        if entry.holders > 0 {
            return;
        }
        if entry.is_owned() {
            self.free_owned(object);
        } else {
            self.release(object);
        }
    }

    /// The table here forgets a value, now or when the last message that carries it is sent.
    pub(super) fn free_value(&mut self, object: ObjectId) {
        if self.outbox.carried.is_empty() || !self.outbox.carried.contains_key(&object) {
            self.act(LocalAction::Free { object });
        }
    }

    /// Nobody refers to an object that is owned here: all copies go.
    fn free_owned(&mut self, object: ObjectId) {
        let Some(entry) = self.objects.swap_remove(&object) else { return };
        self.readings.remove(&object);
        self.replicas.forget(object);
        let is_shared = self.lodgers.has(object);
        if entry.is_in_table(self.me) && !is_shared {
            self.free_value(object);
        }
        if let Value::Arena { copies, .. } = &entry.value {
            let me = self.me;
            for copy in copies.iter().filter(|copy| **copy != me) {
                self.peer(*copy).copies.remove(&object);
                self.send(*copy, PeerMessage::Free { object });
            }
        }
        for reference in entry.contains() {
            self.steps.push_back(Step::LetGo(reference.object));
        }
        if entry.recorded {
            let gone = self.lineage.unuse(object.task);
            self.steps.extend(gone.into_iter().map(Step::LetGo));
        }
        if object.is_stream() {
            self.stream_dropped(object.task);
        }
        if is_shared {
            self.leave_to_lodgers(object);
        } else {
            self.give_back_adopted(object);
        }
    }

    /// An owned object has its value now. A value that is there already stays.
    pub(super) fn set_value(&mut self, object: ObjectId, value: Value, contains: &[Reference]) {
        let Some(entry) = self.objects.get_mut(&object) else { return };
        match (&mut entry.value, value) {
            (Value::Inline, Value::Arena { copies, .. }) => {
                return self.discard_value(object, false, copies[0]);
            }
            (Value::Inline, _) => return,
            (Value::Arena { copies, .. }, Value::Arena { copies: more, .. }) => {
                let me = self.me;
                for copy in more {
                    if !copies.contains(&copy) {
                        copies.push(copy);
                        if copy != me {
                            self.peer(copy).copies.insert(object);
                        }
                        break;
                    }
                }
                return self.announce(object);
            }
            (Value::Arena { .. }, Value::Inline) => {
                return self.discard_value(object, true, self.me);
            }
            (Value::Arena { .. }, _) => return,
            (before, Value::Arena { size, copies }) => {
                let from = copies[0];
                *before = Value::Arena { size, copies };
                if from != self.me {
                    self.peer(from).copies.insert(object);
                    self.keep_from_leaving(object);
                }
            }
            (before, value) => *before = value,
        }
        if let Some(entry) = self.objects.get_mut(&object) {
            // What is readable here has taken the place of what another owner left.
            entry.leftover &= !entry.is_readable(self.me);
        }
        if !contains.is_empty() {
            for reference in contains {
                self.hold(*reference);
            }
            if let Some(entry) = self.objects.get_mut(&object) {
                let contained = Box::new(Contained(contains.into()));
                if let Some(before) = entry.contains.replace(contained) {
                    let before = before.0.iter().map(|reference| Step::LetGo(reference.object));
                    self.steps.extend(before);
                }
            }
        }
        self.announce(object);
    }

    /// An owned object will never have a value.
    pub(super) fn set_failed(&mut self, object: ObjectId, error: &Arc<TaskError>) {
        let Some(entry) = self.objects.get_mut(&object) else { return };
        if !entry.is_owned() || !matches!(entry.value, Value::Absent) {
            return;
        }
        entry.value = Value::Failed(Arc::clone(error));
        if core::mem::take(&mut entry.recorded) {
            let gone = self.lineage.unuse(object.task);
            self.steps.extend(gone.into_iter().map(Step::LetGo));
        }
        self.announce(object);
    }

    /// Serves everybody who waits for the object and can be served.
    pub(super) fn announce(&mut self, object: ObjectId) {
        let Some(entry) = self.objects.get_mut(&object) else { return };
        if entry.waiters.is_empty() || matches!(entry.value, Value::Absent) {
            return;
        }
        let is_readable = entry.is_readable(self.me);
        let failed = match &entry.value {
            Value::Failed(error) => Some(Arc::clone(error)),
            _ => None,
        };
        let waiters = core::mem::take(&mut entry.waiters);
        let mut kept = Vec::new();
        for waiter in waiters {
            match waiter {
                Waiter::Task(key, stamp) => {
                    let Some(task) = self.tasks.current(key, stamp) else { continue };
                    if let Some(error) = &failed {
                        self.steps.push_back(Step::Fail(key, stamp, Arc::clone(error)));
                    } else if is_readable || !task.wants_copies() {
                        self.satisfied(key, stamp);
                    } else {
                        kept.push(waiter);
                    }
                }
                Waiter::Executor(executor) => {
                    // One that has let go of it meanwhile waits no longer.
                    let process = self.executors.get(&executor);
                    if !process.is_some_and(|process| process.holds.contains(&object)) {
                        continue;
                    }
                    if is_readable || failed.is_some() {
                        let error = failed.clone();
                        self.act(LocalAction::Deliver { executor, object, error });
                    } else {
                        kept.push(waiter);
                    }
                }
                Waiter::Peer { worker, fetches } => self.tell_place(object, worker, fetches),
            }
        }
        if let Some(entry) = self.objects.get_mut(&object)
            && !kept.is_empty()
        {
            kept.into_iter().for_each(|waiter| entry.waiters.push(waiter));
            self.pull(object);
        }
    }

    /// Somebody waits for the object: asks where it is, or fetches it (`here`).
    pub(super) fn seek(&mut self, object: ObjectId, here: bool) {
        let Some(entry) = self.objects.get_mut(&object) else { return };
        match entry.value {
            Value::Absent if !entry.is_owned() && !entry.asked => {
                entry.asked = true;
                let owner = entry.owner;
                if self.is_dead(owner) {
                    return self.steps.push_back(Step::LookFor(object));
                }
                self.send(owner, PeerMessage::Locate { object, fetches: here });
            }
            Value::Arena { .. } if here => self.pull(object),
            _ => {}
        }
    }

    /// Fetches a copy, unless that is under way.
    pub(super) fn pull(&mut self, object: ObjectId) {
        let me = self.me;
        let Some(entry) = self.objects.get_mut(&object) else { return };
        let Value::Arena { size, copies } = &entry.value else { return };
        if entry.pull.is_some() || copies.contains(&me) {
            return;
        }
        let Some(&from) = copies.first() else { return };
        let size = *size;
        entry.pull = Some(Box::new(from));
        self.act(LocalAction::Pull { object, size, from });
    }

    pub(super) fn pulled(&mut self, object: ObjectId, size: u64) {
        let me = self.me;
        let Some(entry) = self.objects.get_mut(&object) else {
            return self.free_value(object);
        };
        entry.pull = None;
        if entry.pull_is_stale {
            return self.stale_pull_ended(object, true);
        }
        if entry.is_unreferenced() && !entry.keeps && !entry.is_readable(me) {
            self.forget_borrowed(object);
            return self.free_value(object);
        }
        match &mut entry.value {
            Value::Arena { copies, .. } if !copies.contains(&me) => copies.push(me),
            // Begun for a former owner.
            Value::Absent if entry.borrow == Borrow::Owned => {
                entry.leftover = true;
                return;
            }
            value @ Value::Absent => *value = Value::Arena { size, copies: Few::One(me) },
            Value::Arena { .. } | Value::Inline => {
                // It was made here meanwhile, and it may be that nobody needs it any longer.
                let is_unused = entry.holders == 0 && entry.borrow != Borrow::Owned;
                return if is_unused {
                    self.drop_unheld(object)
                };
            }
            Value::Failed(_) if entry.leftover => return,
            Value::Failed(_) => return self.free_value(object),
        }
        entry.leftover = false;
        entry.asked = false;
        let owner = entry.owner;
        if entry.is_owned() {
            self.keep_from_leaving(object);
        } else {
            self.send(owner, PeerMessage::CopyMade { object });
        }
        self.announce(object);
    }

    /// Answers a worker that asked where an object of this one is. `fetches`: it will get a copy,
    /// from the first place that it is told.
    pub(super) fn tell_place(&mut self, object: ObjectId, to: WorkerId, fetches: bool) {
        use crate::message::Place;
        let Some(entry) = self.objects.get_mut(&object) else { return };
        let place = match &mut entry.value {
            Value::Absent => return,
            Value::Inline => Place::Inline,
            Value::Arena { size, copies } => {
                let size = *size;
                // The next to ask is sent to another copy first.
                if copies.len() > 1 {
                    copies.rotate_left(1);
                }
                let copies = if fetches { None } else { Some(copies.to_vec()) };
                let copies = copies.unwrap_or_else(|| self.sources(object, to));
                Place::At { size, copies }
            }
            Value::Failed(error) => Place::Failed(TaskError::clone(error)),
        };
        self.send(to, PeerMessage::Located { object, place });
    }
}

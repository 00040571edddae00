//! Values whose owner is dead, and how they are found or made again.
//!
//! What a task put, and what its children made, is owned by the worker that ran it. The owner of
//! the task remembers which of that the task's results refer to, and keeps the task's record while
//! somebody refers to it through this worker: when the value is needed and its owner is dead, the
//! task runs again. It puts the same objects, whose new owner is the worker where it runs now, and
//! who knew the former owner follows. A worker that needs such a value and has no record asks the
//! owners of the tasks that it runs, one after the other.
//!
//! LN-2: an object with a maker is borrowed here.

use crate::hash::IdMap;
use crate::id::{JobId, ObjectId, TaskId, WorkerId};
use crate::message::{PeerMessage, Place};
use crate::object::{Borrow, ObjectEntry, Value};
use crate::outcome::Returned;
use crate::spec::TaskSpec;

use super::{LocalCore, Step};

/// Which tasks make what again.
#[derive(Debug, Default)]
pub(super) struct Makers {
    of_object: IdMap<ObjectId, TaskId>,
    objects: IdMap<TaskId, Vec<ObjectId>>,
    /// Who waits to be told the new owner.
    askers: IdMap<ObjectId, Vec<WorkerId>>,
}

impl Makers {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&ObjectId, &TaskId)> {
        self.of_object.iter()
    }

    /// Whether the object is new among those that the task makes. One that another task makes
    /// stays with that one.
    pub(super) fn insert(&mut self, object: ObjectId, task: TaskId) -> bool {
        if self.of_object.contains_key(&object) {
            return false;
        }
        self.of_object.insert(object, task);
        self.objects.entry(task).or_default().push(object);
        true
    }

    fn remove(&mut self, object: ObjectId) -> Option<TaskId> {
        let task = self.of_object.remove(&object)?;
        if let Some(objects) = self.objects.get_mut(&task) {
            objects.retain(|other| *other != object);
            if objects.is_empty() {
                self.objects.remove(&task);
            }
        }
        Some(task)
    }

    /// The task's record was dropped.
    pub(super) fn forget_task(&mut self, task: TaskId) {
        for object in self.objects.remove(&task).into_iter().flatten() {
            self.of_object.remove(&object);
        }
    }

    pub(super) fn forget_job(&mut self, job: JobId) {
        self.of_object.retain(|object, _| object.task.job() != job);
        self.objects.retain(|task, _| task.job() != job);
        self.askers.retain(|object, _| object.task.job() != job);
    }
}

impl LocalCore {
    /// What values that a task of this worker made on `runner` refer to and only it can make again;
    /// who knew it under an owner that is dead follows.
    pub(super) fn made_with(
        &mut self,
        spec: &TaskSpec,
        values: &[Returned],
        runner: WorkerId,
    ) -> Vec<ObjectId> {
        let mut inside = Vec::new();
        for reference in values.iter().flat_map(|value| &value.contains) {
            self.follow_from_dead(*reference);
            let known = || spec.dependencies.iter().chain(&spec.borrowed);
            if reference.owner == runner
                && runner != self.me
                && known().all(|other| other.object != reference.object)
                && !inside.contains(&reference.object)
            {
                inside.push(reference.object);
            }
        }
        inside
    }

    /// Whether the entry is that of another living worker's object.
    pub(super) fn is_borrowed_from(&self, object: ObjectId, owner: WorkerId) -> bool {
        let entry = self.objects.get(&object);
        entry.is_some_and(|entry| !entry.is_owned() && entry.owner == owner)
    }

    /// An entry goes, or its object is owned here now.
    pub(super) fn forget_maker(&mut self, object: ObjectId) {
        if let Some(task) = self.makers.remove(object) {
            let gone = self.lineage.unuse(task);
            self.steps.extend(gone.into_iter().map(Step::LetGo));
        }
        self.tell_askers(object, None);
    }

    /// Somebody here waits for a value whose owner is dead.
    pub(super) fn look_for(&mut self, object: ObjectId) {
        let Some(entry) = self.objects.get(&object) else { return };
        if entry.is_owned() || !self.is_dead(entry.owner) || !matches!(entry.value, Value::Absent) {
            return;
        }
        if object.is_replicated() {
            return self.search(object);
        }
        self.remake_or_ask(object);
    }

    pub(super) fn remake_or_ask(&mut self, object: ObjectId) {
        if !self.remake(object) {
            self.ask_owners(object);
        }
    }

    /// Lets the object's maker run again, unless it does; false: there is none, or it may not.
    fn remake(&mut self, object: ObjectId) -> bool {
        let Some(&task) = self.makers.of_object.get(&object) else { return false };
        self.tasks.find(task, self.me).is_some() || self.run_again(task)
    }

    /// A task has ended: what is still lost, it did not make again.
    pub(super) fn remade(&mut self, task: TaskId) {
        let Some(objects) = self.makers.objects.get(&task) else { return };
        for object in objects.clone() {
            let is_lost = self.objects.get(&object).is_some_and(|entry| {
                entry.asked && matches!(entry.value, Value::Absent) && self.is_dead(entry.owner)
            });
            if is_lost && !self.is_searched(object) {
                self.ask_owners(object);
            }
        }
    }

    /// Owners of tasks of the same job that run here, or wait to.
    pub(super) fn owners_of_hosted(&self, job: JobId) -> Vec<WorkerId> {
        let hosts = self.peers.iter().filter(|(worker, peer)| {
            !self.is_dead(**worker) && peer.hosted.iter().any(|task| task.job() == job)
        });
        let mut owners: Vec<WorkerId> = hosts.map(|(worker, _)| *worker).collect();
        owners.sort_unstable();
        owners
    }

    /// Another worker asks for the owner of an object whose owner, as it knows, is dead.
    pub(super) fn owner_wanted(&mut self, from: WorkerId, object: ObjectId) {
        let me = self.me;
        let answer = |owner| PeerMessage::OwnerIs { object, owner };
        let Some(entry) = self.objects.get(&object) else {
            return self.send(from, answer(None));
        };
        if entry.is_owned() || !self.is_dead(entry.owner) {
            let owner = entry.owner;
            return self.send(from, answer(Some(owner)));
        }
        match entry.value.clone() {
            Value::Inline => self.send(from, PeerMessage::Located { object, place: Place::Inline }),
            Value::Arena { size, copies } if copies.contains(&me) => {
                let place = Place::At { size, copies: vec![me] };
                self.send(from, PeerMessage::Located { object, place });
            }
            Value::Absent if self.makers.of_object.contains_key(&object) => {
                self.remake_for(object, from);
            }
            // Its own search is not waited for: two workers would wait for each other.
            _ => self.send(from, answer(None)),
        }
    }

    /// Lets the object's maker run again for another worker.
    fn remake_for(&mut self, object: ObjectId, asker: WorkerId) {
        let Some(entry) = self.objects.get_mut(&object) else { return };
        // Before the maker begins: it may fail at once, and who asked is told then.
        let was_asked = core::mem::replace(&mut entry.asked, true);
        self.makers.askers.entry(object).or_default().push(asker);
        if !self.remake(object) {
            if let Some(entry) = self.objects.get_mut(&object) {
                entry.asked = was_asked;
            }
            self.tell_askers(object, None);
        }
    }

    pub(super) fn tell_askers(&mut self, object: ObjectId, owner: Option<WorkerId>) {
        if self.makers.askers.is_empty() {
            return;
        }
        for asker in self.makers.askers.remove(&object).unwrap_or_default() {
            self.send(asker, PeerMessage::OwnerIs { object, owner });
        }
    }

    /// A reference names a living owner of what was a dead one's.
    pub(super) fn follow_from_dead(&mut self, reference: crate::spec::Reference) {
        if !self.dead.is_empty() && reference.owner != self.me && !self.is_dead(reference.owner) {
            self.follow(reference.object, reference.owner);
        }
    }

    /// The object of a dead owner has this one now.
    pub(super) fn follow(&mut self, object: ObjectId, owner: WorkerId) -> bool {
        let Some(entry) = self.objects.get_mut(&object) else { return false };
        let is_lost = !entry.is_owned()
            && entry.holders > 0
            && entry.pull.is_none()
            && matches!(entry.value, Value::Absent);
        if !is_lost || !self.dead.contains(&entry.owner) {
            return false;
        }
        entry.owner = owner;
        entry.borrow = Borrow::Unregistered;
        entry.asked = false;
        let is_waited_for = !entry.waiters.is_empty();
        self.replicas.end_search(object);
        self.register(object);
        if is_waited_for {
            self.seek(object, true);
        }
        self.tell_askers(object, Some(owner));
        true
    }

    /// What is made here again had a maker.
    pub(super) fn check_makers(&self) {
        for (object, _) in self.makers.iter() {
            let entry: Option<&ObjectEntry> = self.objects.get(object);
            assert!(entry.is_some_and(|entry| !entry.is_owned()), "LN-2: {object:?} is borrowed");
        }
    }
}

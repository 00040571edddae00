//! Who refers to objects: what `holders` of an entry counts (RF-1), one by one.

use core::fmt;

use super::LocalCore;
use crate::actor::ActorState;
use crate::hash::IdMap;
use crate::id::{ActorId, ExecutorId, ObjectId, TaskId, WorkerId};

/// Who keeps an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// A process of this worker.
    Executor(ExecutorId),
    /// A task that has not ended, by its arguments.
    Task(TaskId),
    /// A value, by a reference inside it.
    Value(ObjectId),
    /// Another worker, for holders there.
    Worker(WorkerId),
    /// A result on its way to that worker, by a reference inside it.
    Result(WorkerId),
    /// An actor that may be made again, by its arguments or by what its creation returned.
    Actor(ActorId),
    /// A stream whose consumer has not taken the item.
    Stream(TaskId),
    /// The memory of how a lost value could be made again.
    Lineage(TaskId),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Executor(executor) => write!(f, "{executor}"),
            Self::Task(task) => write!(f, "{task}"),
            Self::Value(object) => write!(f, "inside {object}"),
            Self::Worker(worker) => write!(f, "{worker}"),
            Self::Result(worker) => write!(f, "a result for {worker}"),
            Self::Actor(actor) => write!(f, "{actor}"),
            Self::Stream(task) => write!(f, "stream of {task}"),
            Self::Lineage(task) => write!(f, "lineage of {task}"),
        }
    }
}

impl LocalCore {
    /// Calls `found` for every reference that this worker counts, in no particular order.
    pub(super) fn each_holder(&self, mut found: impl FnMut(ObjectId, Holder)) {
        for (executor, process) in &self.executors {
            let cut_off = process.cut_off.values().flatten();
            process.holds.iter().chain(cut_off.copied()).for_each(|object| {
                found(object, Holder::Executor(*executor));
            });
        }
        for (_, entry) in self.tasks.iter() {
            let spec = &entry.spec;
            let references = spec.dependencies.iter().chain(&spec.borrowed);
            references.for_each(|one| found(one.object, Holder::Task(spec.id)));
        }
        for (object, entry) in self.objects.iter() {
            entry.contains().iter().for_each(|one| found(one.object, Holder::Value(*object)));
        }
        for (worker, peer) in &self.peers {
            peer.borrows.iter().for_each(|object| found(*object, Holder::Worker(*worker)));
            let settling = peer.settling.values().flatten().flatten();
            settling.for_each(|object| found(*object, Holder::Result(*worker)));
        }
        for (actor, entry) in &self.actors {
            if let (Some(supervised), false) =
                (&entry.supervised, matches!(entry.place, ActorState::Dead(_)))
            {
                super::actors::held_for_life(&supervised.spec, self.me)
                    .for_each(|one| found(one.object, Holder::Actor(*actor)));
            }
        }
        for (task, stream) in &self.streams {
            stream.held(*task).for_each(|object| found(object, Holder::Stream(*task)));
        }
        for record in self.lineage.iter() {
            let task = record.spec.id;
            record.holds.iter().for_each(|object| found(*object, Holder::Lineage(task)));
        }
    }

    /// Who keeps each object, in order.
    pub(super) fn holders(&self) -> IdMap<ObjectId, Vec<Holder>> {
        let mut all: IdMap<ObjectId, Vec<Holder>> = IdMap::default();
        self.each_holder(|object, holder| all.entry(object).or_default().push(holder));
        all.values_mut().for_each(|holders| holders.sort_unstable());
        all
    }
}

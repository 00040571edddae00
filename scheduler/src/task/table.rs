//! The tasks that a worker owns or hosts, and where each of them stands.
//!
//! ```text
//!   plain tasks, drivers, actors' creations              calls of actors
//!
//!   Naming --1--> Waiting --2--> Ready                   Lane --10--> Called (elsewhere)
//!                  |    ^          | 3                    |              |
//!                4 |    | 5        v                   11 |              | 12
//!                  v    |       Starting                  v              v
//!               Spilled-+          | 6                 Mailbox --13--> Running
//!                  | 7             v
//!                  v            Running --8--> (ended)      (short tasks: Ready, Ahead, Running;
//!                  |                                        see `local::ahead`)
//!               Placed --9--> (ended)
//! ```
//! 1 the head granted the actor's name; 2 every dependency is readable here; 3 resources taken, an
//! executor asked for; 4 it has to run elsewhere, and every dependency exists somewhere; 5 the head
//! assigned it here; 6 the executor is there (at once, as a rule); 7 the head says where it is;
//! (and back, when a head that knows nothing comes: the assignment may be lost);
//! 8, 9 its outcome is known: the entry goes, or starts over at `Waiting` with the next attempt, at
//! once or by way of `BackingOff`, where it pauses;
//! 10 the actor lives elsewhere, or 11 here, and earlier calls of the same submitter are under
//! way; 12 the outcome came back; 13 dependencies are readable here, in order for each caller.
//!
//! A task for a placement group goes from `Waiting` to `Grouping` while the group has no place, and
//! from there to `Waiting` or `Placed`; the task that reserves a group is `Grouping` until it is.
//!
//! Invariants: TG-1 each entry is found by its id and owner, and is the only one. TG-2 the queue
//! counts exactly the entries that are `Ready`. TG-3 an entry is `Running` exactly where its
//! executor lists it. TG-4 what is `Ready`, `Starting` or `Running` misses no dependency.

use core::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::group::Slot;
use crate::hash::{BuildIdHasher, IdMap};
use crate::id::{ExecutorId, TaskId, WorkerId};
use crate::message::CancelMode;
use crate::object::Tries;
use crate::spec::{TaskKind, TaskSpec};
use crate::time::Timestamp;

/// Where an entry lies in its table; used again after the entry is gone, so that whoever keeps one
/// keeps the entry's stamp beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TaskKey(pub(crate) u32);

/// One task.
#[derive(Debug)]
pub(crate) struct TaskEntry {
    pub(crate) spec: Arc<TaskSpec>,
    pub(crate) state: TaskState,
    /// Who gets the result.
    pub(crate) owner: WorkerId,
    /// Unique in time; a new one with each state that somebody may keep a note of.
    pub(crate) stamp: u64,
    /// Place among the calls of its submitter.
    pub(crate) order: u64,
    pub(crate) attempt: u32,
    /// Dependencies that it still waits for.
    pub(crate) missing: u32,
    /// Who submitted it here; 0 where it came from elsewhere.
    pub(crate) submitter: ExecutorId,
    /// The bundle of a placement group here that pays for it.
    pub(crate) bundle: Slot,
    /// The head counts it as assigned to this worker.
    pub(crate) assigned: bool,
    /// Its end was asked for: a death of its executor is no reason to run it again.
    pub(crate) cancelled: bool,
    /// What is known of few tasks.
    pub(crate) extra: Option<Box<Extra>>,
}

/// What is known of few tasks: those that had a time limit, or ended other than by a loss.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Extra {
    /// Tries before this one that count against no limit, or another than `max_retries`.
    pub(crate) spared: u32,
    /// Tries that ended in an error which its predicate accepts.
    pub(crate) errors: u32,
    /// Tries that ran over the time limit.
    pub(crate) timeouts: u32,
    /// Tries whose process ran out of memory.
    pub(crate) memory: u32,
    /// This try has run over its time limit, and was told to end.
    pub(crate) timed_out: bool,
    /// Its answer goes to its submitter, who passes it on.
    pub(crate) promised: bool,
    /// It came, or comes, to its executor by a lease, and takes no turns there.
    pub(crate) leased: bool,
    /// It yields, and its submitter has come again: once this try has ended, it begins anew.
    pub(crate) again: bool,
    /// How it was cancelled, where its worker has to be told again.
    pub(crate) cancel: CancelMode,
    /// When its timer strikes.
    pub(crate) due: Option<Timestamp>,
}

/// Where a task stands. See the module's text for the numbered transitions.
#[derive(Debug)]
pub(crate) enum TaskState {
    /// The head is asked for the actor's name.
    Naming,
    /// For dependencies: readable here, or (`!here`) known to exist somewhere.
    Waiting { here: bool },
    /// The group is being placed: this task reserves it, or goes into it.
    Grouping,
    /// For resources, in the queue of that shape.
    Ready { shape: u32 },
    /// It holds its resources; the executor is on its way.
    Starting { executor: ExecutorId },
    /// It runs, as that attempt.
    Running { executor: ExecutorId, attempt: u32, slot: u32, since: Timestamp, blocked: bool },
    /// It waits in the executor for its turn; `force`: its end was asked for, at any cost.
    Ahead { executor: ExecutorId, force: bool },
    /// The head places it; `told`: the head knows. `waits` is what the head says about it.
    Spilled { reason: SpillReason, told: bool, waits: Option<Box<str>> },
    /// It is on that worker.
    Placed { worker: WorkerId },
    /// A call that waits for its dependencies to exist, for its actor, or for earlier calls.
    Lane,
    /// A call that is at the actor's worker, sent to that life of the actor.
    Called { worker: WorkerId, life: u32 },
    /// A call that waits here for dependencies to be readable, or for earlier calls.
    Mailbox,
    /// For its next try, which begins at that time.
    BackingOff { until: Timestamp },
}

/// Why a task is not for this worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpillReason {
    /// It asks for more than the worker has.
    TooLarge,
    /// Its strategy is not to run here.
    Strategy,
    /// An actor for which there is no room now.
    NoRoom,
    /// The head has room elsewhere.
    Requested,
    /// The worker is leaving.
    Draining,
    /// Its job has a quota, which the head keeps.
    Quota,
    /// It was placed by a head that is gone, and may not have arrived.
    HeadLost,
}

impl TaskEntry {
    /// What few tasks have, made where it is not there.
    pub(crate) fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// This try and those before it.
    pub(crate) fn tries(&self) -> Tries {
        let spared = self.extra.as_ref().map_or(0, |extra| extra.spared);
        Tries { attempt: self.attempt, spared }
    }

    pub(crate) fn has_timed_out(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.timed_out)
    }

    /// Its answer goes to its submitter.
    pub(crate) fn is_promised(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.promised)
    }

    /// It runs as what came by a lease.
    pub(crate) fn is_leased(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.leased)
    }

    /// Whether its end, or its wait, is the turn of another task in its executor.
    pub(crate) fn takes_turns(&self) -> bool {
        self.spec.takes_turns() && !self.is_leased()
    }

    pub(crate) fn is_call(&self) -> bool {
        matches!(self.spec.kind, TaskKind::ActorCall { .. })
    }

    /// Whether its dependencies have to be readable here, rather than to exist.
    pub(crate) fn wants_copies(&self) -> bool {
        matches!(self.state, TaskState::Waiting { here: true } | TaskState::Mailbox)
    }
}

/// All tasks by key and by id.
#[derive(Debug, Default)]
pub(crate) struct TaskTable {
    entries: Vec<Option<TaskEntry>>,
    free: Vec<u32>,
    /// Entries that were left when room was given back.
    least_room: usize,
    /// By the ids, which the entries have.
    index: HashTable<TaskKey>,
    /// Tasks whose name is in the index for another owner: when a parent runs again on another
    /// worker, it has the same children there.
    twins: IdMap<TaskId, Vec<TaskKey>>,
    /// Tasks, with their stamps, that wait until another one of the same name is gone.
    rivals: IdMap<TaskId, Vec<(TaskKey, u64)>>,
    stamps: u64,
}

impl TaskTable {
    /// The task of that owner.
    pub(crate) fn find(&self, id: TaskId, owner: WorkerId) -> Option<TaskKey> {
        let key = self.key_of(id)?;
        if self[key].owner == owner {
            return Some(key);
        }
        self.twins_of(id).find(|twin| self[*twin].owner == owner)
    }

    /// Any task of that name.
    pub(crate) fn by_id(&self, id: TaskId) -> Option<&TaskEntry> {
        self.key_of(id).map(|key| &self[key])
    }

    /// The task of that name that runs in `executor`.
    pub(crate) fn find_running(&self, id: TaskId, executor: ExecutorId) -> Option<TaskKey> {
        let runs_there = |key: TaskKey| {
            matches!(self[key].state,
                TaskState::Running { executor: at, .. } if at == executor)
        };
        let key = self.key_of(id)?;
        if runs_there(key) {
            return Some(key);
        }
        self.twins_of(id).find(|twin| runs_there(*twin))
    }

    /// A task of that name, the oldest one.
    fn key_of(&self, id: TaskId) -> Option<TaskKey> {
        let is_it = |key: &TaskKey| id_at(&self.entries, *key) == id;
        self.index.find(hash_of(id), is_it).copied()
    }

    fn twins_of(&self, id: TaskId) -> impl Iterator<Item = TaskKey> + '_ {
        self.twins.get(&id).into_iter().flatten().copied()
    }

    /// Whether a task of the same name and another owner is under way on this worker: an executor
    /// must not see both at a time.
    pub(crate) fn has_rival(&self, key: TaskKey) -> bool {
        if self.twins.is_empty() {
            return false;
        }
        let id = self[key].spec.id;
        let under_way = |other: TaskKey| {
            other != key
                && matches!(
                    self[other].state,
                    TaskState::Starting { .. }
                        | TaskState::Running { .. }
                        | TaskState::Ahead { .. }
                )
        };
        self.twins_of(id).chain(self.key_of(id)).any(under_way)
    }

    /// Waits until a rival is gone.
    pub(crate) fn wait_for_rival(&mut self, key: TaskKey) {
        let stamp = self[key].stamp;
        self[key].missing += 1;
        self.rivals.entry(self[key].spec.id).or_default().push((key, stamp));
    }

    /// Who waited for a task of that name to be gone.
    pub(crate) fn rivals(&mut self, id: TaskId) -> Vec<(TaskKey, u64)> {
        if self.rivals.is_empty() {
            Vec::new()
        } else {
            self.rivals.remove(&id).unwrap_or_default()
        }
    }

    /// The entry, if it is still the one that had this stamp.
    pub(crate) fn current(&self, key: TaskKey, stamp: u64) -> Option<&TaskEntry> {
        self.entries.get(key.0 as usize)?.as_ref().filter(|entry| entry.stamp == stamp)
    }

    pub(crate) fn next_stamp(&mut self) -> u64 {
        self.stamps += 1;
        self.stamps
    }

    /// Gives the entry a new stamp: all notes that others keep of it are void.
    pub(crate) fn restamp(&mut self, key: TaskKey) -> u64 {
        let stamp = self.next_stamp();
        self[key].stamp = stamp;
        stamp
    }

    pub(crate) fn insert(&mut self, mut entry: TaskEntry) -> TaskKey {
        entry.stamp = self.next_stamp();
        entry.order = entry.stamp;
        let id = entry.spec.id;
        let key = match self.free.pop() {
            Some(at) => {
                self.entries[at as usize] = Some(entry);
                TaskKey(at)
            }
            None => {
                self.entries.push(Some(entry));
                TaskKey(u32::try_from(self.entries.len() - 1).expect("fewer than 2^32 tasks"))
            }
        };
        let entries = &self.entries;
        let is_it = |other: &TaskKey| id_at(entries, *other) == id;
        let rehash = |other: &TaskKey| hash_of(id_at(entries, *other));
        match self.index.entry(hash_of(id), is_it, rehash) {
            Entry::Vacant(slot) => drop(slot.insert(key)),
            Entry::Occupied(_) => self.twins.entry(id).or_default().push(key),
        }
        key
    }

    pub(crate) fn remove(&mut self, key: TaskKey) -> TaskEntry {
        let entry = self.entries[key.0 as usize].take().expect("TG-1: a key names an entry");
        self.free.push(key.0);
        let id = entry.spec.id;
        let listed = self.index.find_entry(hash_of(id), |other| *other == key).ok();
        let twins = if self.twins.is_empty() { None } else { self.twins.get_mut(&id) };
        let Some(twins) = twins else {
            if let Some(listed) = listed {
                listed.remove();
            }
            return entry;
        };
        match listed {
            Some(mut listed) => *listed.get_mut() = twins.remove(0),
            None => twins.retain(|twin| *twin != key),
        }
        if twins.is_empty() {
            self.twins.remove(&id);
        }
        entry
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Whether there were many more tasks than there are.
    pub(crate) fn has_slack(&self) -> bool {
        const MANY: usize = 1 << 16;
        let room = self.entries.len();
        room - self.least_room >= MANY && self.len() <= room / 8
    }

    /// Gives back the room behind the last entry, and that in the index.
    pub(crate) fn give_slack_back(&mut self) {
        let end = self.entries.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        self.entries.truncate(end);
        self.least_room = end;
        self.free.retain(|at| (*at as usize) < end);
        self.entries.shrink_to_fit();
        self.free.shrink_to_fit();
        let entries = &self.entries;
        self.index.shrink_to_fit(|key| hash_of(id_at(entries, *key)));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// In order of keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (TaskKey, &TaskEntry)> {
        self.entries
            .iter()
            .enumerate()
            .filter_map(|(at, entry)| entry.as_ref().map(|entry| (TaskKey(at as u32), entry)))
    }
}

fn hash_of(id: TaskId) -> u64 {
    BuildIdHasher::default().hash_one(id)
}

fn id_at(entries: &[Option<TaskEntry>], key: TaskKey) -> TaskId {
    entries[key.0 as usize].as_ref().expect("TG-1: a key names an entry").spec.id
}

impl core::ops::Index<TaskKey> for TaskTable {
    type Output = TaskEntry;

    fn index(&self, key: TaskKey) -> &TaskEntry {
        self.entries[key.0 as usize].as_ref().expect("TG-1: a key names an entry")
    }
}

impl core::ops::IndexMut<TaskKey> for TaskTable {
    fn index_mut(&mut self, key: TaskKey) -> &mut TaskEntry {
        self.entries[key.0 as usize].as_mut().expect("TG-1: a key names an entry")
    }
}

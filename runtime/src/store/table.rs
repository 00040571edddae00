//! Which value each object has on this worker, and which executors may be reading it.
//!
//! The dispatch thread owns the table; it is no place for decisions: the scheduler's core says
//! which objects live, the table says where their bytes are. A *pin* is an executor that was told
//! the value (with a task, or because it asked) and has not yet said that it is done. A *hold* is
//! the worker itself. What is pinned or held is neither freed nor evicted: a removal is carried
//! out when the last of them goes.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use rdist_scheduler::hash::{DenseIdMap, IdMap};
use rdist_scheduler::id::{ExecutorId, ObjectId};

use crate::wire::executor::{Block, Value};

/// Where an object's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// Here.
    Inline(Box<[u8]>),
    /// In the arena.
    Block(Block),
    /// On disk, so many bytes.
    Spilled {
        /// Bytes of the value.
        len: u64,
    },
}

impl Stored {
    /// Bytes of the value.
    pub fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Block(block) => block.len,
            Self::Spilled { len } => *len,
        }
    }

    /// Whether the value has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As executors are told; `None` while it is on disk.
    pub fn to_wire(&self) -> Option<Value> {
        match self {
            Self::Inline(bytes) => Some(Value::Inline(bytes.to_vec())),
            Self::Block(block) => Some(Value::Block(*block)),
            Self::Spilled { .. } => None,
        }
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Table {
    entries: DenseIdMap<ObjectId, Entry>,
    /// How often each executor has pinned what.
    pins: IdMap<ExecutorId, IdMap<ObjectId, u32>>,
    /// Free to be evicted, least recently used first.
    idle: BTreeMap<u64, ObjectId>,
    turn: u64,
}

#[derive(Debug)]
struct Entry {
    stored: Stored,
    /// Pins of all executors, and holds.
    users: u32,
    is_doomed: bool,
    /// The key in `idle`, where it is there.
    idle_since: Option<NonZeroU64>,
}

impl Table {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets an object's value. `Some`: it has one already (its task ran twice); free this one.
    pub fn insert(&mut self, object: ObjectId, stored: Stored) -> Option<Stored> {
        let mut stored = Some(stored);
        let (entry, is_new) = self.entries.get_or_insert_with(object, || {
            let stored = stored.take().expect("taken once, here");
            Entry { stored, users: 0, is_doomed: false, idle_since: None }
        });
        if is_new {
            self.settle(object);
        } else {
            entry.is_doomed = false;
        }
        stored
    }

    /// Moves an object's value, to disk or back; the old one, to be freed. `None`, with nothing
    /// changed, for an object that is not here, or that is in memory and in use.
    pub fn replace(&mut self, object: ObjectId, stored: Stored) -> Option<Stored> {
        let entry = self.entries.get_mut(&object)?;
        if entry.users > 0 && !matches!(entry.stored, Stored::Spilled { .. }) {
            return None;
        }
        let old = std::mem::replace(&mut entry.stored, stored);
        self.settle(object);
        Some(old)
    }

    /// An object's value.
    pub fn get(&self, object: ObjectId) -> Option<&Stored> {
        self.entries.get(&object).filter(|entry| !entry.is_doomed).map(|entry| &entry.stored)
    }

    /// How many use an object: pins and holds.
    pub fn users(&self, object: ObjectId) -> u32 {
        self.entries.get(&object).map_or(0, |entry| entry.users)
    }

    /// An executor is told the value; false: there is none.
    pub fn pin(&mut self, object: ObjectId, executor: ExecutorId) -> bool {
        let is_here = self.hold(object);
        if is_here {
            *self.pins.entry(executor).or_default().entry(object).or_default() += 1;
        }
        is_here
    }

    /// One pin less. `Some`: the object was removed meanwhile, free its value now.
    pub fn unpin(&mut self, object: ObjectId, executor: ExecutorId) -> Option<Stored> {
        let of_executor = self.pins.get_mut(&executor)?;
        let count = of_executor.get_mut(&object)?;
        *count -= 1;
        if *count == 0 {
            of_executor.remove(&object);
        }
        self.drop_users(object, 1)
    }

    /// All of an executor's pins of an object at once.
    pub fn unpin_all(&mut self, object: ObjectId, executor: ExecutorId) -> Option<Stored> {
        let count = self.pins.get_mut(&executor)?.remove(&object)?;
        self.drop_users(object, count)
    }

    /// What an executor has pinned, in no particular order.
    pub fn pinned_by(&self, executor: ExecutorId) -> impl Iterator<Item = ObjectId> {
        self.pins.get(&executor).into_iter().flat_map(|objects| objects.keys().copied())
    }

    /// An executor is gone with all its pins; values to be freed now.
    pub fn executor_died(&mut self, executor: ExecutorId) -> Vec<(ObjectId, Stored)> {
        let pins = self.pins.remove(&executor).unwrap_or_default();
        let free = |(object, count)| Some((object, self.drop_users(object, count)?));
        pins.into_iter().filter_map(free).collect()
    }

    /// The worker itself uses the value; false: there is none.
    pub fn hold(&mut self, object: ObjectId) -> bool {
        let entry = self.entries.get_mut(&object).filter(|entry| !entry.is_doomed);
        let Some(entry) = entry else { return false };
        entry.users += 1;
        self.settle(object);
        true
    }

    /// One hold less. `Some`: the object was removed meanwhile, free its value now.
    pub fn let_go(&mut self, object: ObjectId) -> Option<Stored> {
        self.drop_users(object, 1)
    }

    /// Removes an object. `Some`: free its value now; `None`: it is not here, or the last user
    /// will bring it.
    pub fn remove(&mut self, object: ObjectId) -> Option<Stored> {
        self.entries.get_mut(&object)?.is_doomed = true;
        self.bury(object)
    }

    /// Blocks that nobody uses, the least recently used first: what to spill when room is needed.
    /// (Freeing a living executor's block makes room for that executor.)
    pub fn evictable(&self) -> impl Iterator<Item = (ObjectId, Block)> {
        self.idle.values().filter_map(|object| match self.entries.get(object)?.stored {
            Stored::Block(block) => Some((*object, block)),
            _ => None,
        })
    }

    /// All objects and their values.
    pub fn iter(&self) -> impl Iterator<Item = (ObjectId, &Stored)> {
        let live = self.entries.iter().filter(|(_, entry)| !entry.is_doomed);
        live.map(|(&object, entry)| (object, &entry.stored))
    }

    /// Gives back room that many objects have left.
    pub fn shrink_to_fit(&mut self) {
        self.entries.shrink_to_fit();
        self.pins.values_mut().for_each(IdMap::shrink_to_fit);
    }

    /// Objects, with those that wait for their last user.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn drop_users(&mut self, object: ObjectId, count: u32) -> Option<Stored> {
        let entry = self.entries.get_mut(&object)?;
        debug_assert!(entry.users >= count, "{object} has more users gone than came");
        entry.users = entry.users.saturating_sub(count);
        self.settle(object);
        self.bury(object)
    }

    /// Takes out a removed object that has no user left.
    fn bury(&mut self, object: ObjectId) -> Option<Stored> {
        let entry = self.entries.get(&object)?;
        if !entry.is_doomed || entry.users > 0 {
            return None;
        }
        let entry = self.entries.swap_remove(&object)?;
        if let Some(turn) = entry.idle_since {
            self.idle.remove(&turn.get());
        }
        Some(entry.stored)
    }

    /// Puts an object into `idle`, at the end, or takes it out: by whether it could be evicted.
    fn settle(&mut self, object: ObjectId) {
        let Some(entry) = self.entries.get_mut(&object) else { return };
        if let Some(turn) = entry.idle_since.take() {
            self.idle.remove(&turn.get());
        }
        if entry.users == 0 && matches!(entry.stored, Stored::Block(_)) {
            self.turn += 1;
            entry.idle_since = NonZeroU64::new(self.turn);
            self.idle.insert(self.turn, object);
        }
    }
}

#[cfg(test)]
mod tests {
    use rdist_scheduler::id::{JobId, TaskId};

    use super::*;

    const A: ExecutorId = ExecutorId(1);
    const B: ExecutorId = ExecutorId(2);

    fn object(index: u32) -> ObjectId {
        TaskId::driver(JobId(1)).object(index)
    }

    fn block(offset: u64) -> Stored {
        Stored::Block(Block { segment: 1, offset, len: 64 })
    }

    fn evictable(table: &Table) -> Vec<ObjectId> {
        table.evictable().map(|(object, _)| object).collect()
    }

    #[test]
    fn a_removed_object_lives_until_its_last_user_goes() {
        let mut table = Table::new();
        assert_eq!(table.insert(object(0), block(0)), None);
        assert!(table.pin(object(0), A) && table.pin(object(0), A) && table.pin(object(0), B));
        assert!(table.hold(object(0)));
        assert_eq!(table.remove(object(0)), None);
        assert_eq!(table.get(object(0)), None);
        assert!(!table.pin(object(0), B));
        assert_eq!(table.unpin_all(object(0), A), None);
        assert_eq!(table.executor_died(B), []);
        assert_eq!(table.let_go(object(0)), Some(block(0)));
        assert!(table.is_empty());
    }

    #[test]
    fn a_second_value_comes_back_and_undoes_a_removal() {
        let mut table = Table::new();
        table.insert(object(0), block(0));
        table.pin(object(0), A);
        table.remove(object(0));
        assert_eq!(table.insert(object(0), block(64)), Some(block(64)));
        assert_eq!(table.get(object(0)), Some(&block(0)));
        assert_eq!(table.executor_died(A), []);
        assert_eq!(table.remove(object(0)), Some(block(0)));
    }

    #[test]
    fn only_idle_blocks_are_evictable_and_the_oldest_comes_first() {
        let mut table = Table::new();
        for index in 0..3 {
            table.insert(object(index), block(u64::from(index) * 64));
        }
        table.insert(object(3), Stored::Inline(Box::from([1_u8])));
        table.pin(object(1), A);
        table.pin(object(0), A);
        assert_eq!(evictable(&table), [object(2)]);
        assert_eq!(table.replace(object(1), Stored::Spilled { len: 64 }), None);
        table.unpin(object(0), A);
        assert_eq!(evictable(&table), [object(2), object(0)]);
        assert_eq!(table.replace(object(2), Stored::Spilled { len: 64 }), Some(block(128)));
        assert_eq!(evictable(&table), [object(0)]);
        // What is on disk can come back while someone waits for it.
        assert!(table.pin(object(2), B));
        assert_eq!(table.replace(object(2), block(0)), Some(Stored::Spilled { len: 64 }));
        assert_eq!(evictable(&table), [object(0)]);
        assert_eq!(table.remove(object(0)), Some(block(0)));
        assert_eq!(evictable(&table), []);
    }

    #[test]
    fn unpinning_what_is_not_pinned_does_nothing() {
        let mut table = Table::new();
        table.insert(object(0), block(0));
        assert_eq!(table.unpin(object(0), A), None);
        assert_eq!(table.unpin_all(object(1), A), None);
        table.pin(object(0), B);
        assert_eq!(table.unpin(object(0), A), None);
        assert_eq!(table.remove(object(0)), None);
        assert_eq!(table.unpin(object(0), B), Some(block(0)));
    }
}

//! Sets of objects in which neighbours share a word: a driver may refer to the values of a million
//! tasks, or a task to a million values that it has put.

use crate::hash::IdMap;
use crate::id::{BLOCK_BITS, ObjectBlock, ObjectId};

/// A set of objects.
#[derive(Debug, Clone, Default)]
pub(crate) struct ObjectSet(IdMap<ObjectBlock, u64>);

const _: () = assert!(BLOCK_BITS == u64::BITS);

impl ObjectSet {
    /// Whether it was not there.
    #[inline]
    pub(crate) fn insert(&mut self, object: ObjectId) -> bool {
        let (block, bit) = object.block();
        let word = self.0.entry(block).or_default();
        let before = *word;
        *word |= 1 << bit;
        *word != before
    }

    /// Whether it was there.
    #[inline]
    pub(crate) fn remove(&mut self, object: &ObjectId) -> bool {
        let (block, bit) = object.block();
        let Some(word) = self.0.get_mut(&block) else { return false };
        let before = *word;
        *word &= !(1 << bit);
        let (is_empty, was_there) = (*word == 0, *word != before);
        if is_empty {
            self.0.remove(&block);
        }
        was_there
    }

    #[inline]
    pub(crate) fn contains(&self, object: &ObjectId) -> bool {
        let (block, bit) = object.block();
        self.0.get(&block).is_some_and(|word| word >> bit & 1 != 0)
    }

    /// In no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = ObjectId> {
        self.0.iter().flat_map(|(block, word)| {
            let is_there = move |bit: &u32| word >> bit & 1 != 0;
            (0..BLOCK_BITS).filter(is_there).map(|bit| block.object(bit))
        })
    }

    /// Keeps the objects of the tasks that `is_kept` says, which is the same for all of a job.
    pub(crate) fn retain_jobs(&mut self, is_kept: impl Fn(crate::id::JobId) -> bool) {
        self.0.retain(|block, _| is_kept(block.job()));
    }

    /// Gives back room that many objects have left.
    pub(crate) fn shrink_to_fit(&mut self) {
        self.0.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::id::{JobId, TaskId};

    fn any_object() -> impl Strategy<Value = ObjectId> {
        (1_u32..3, 0_u64..150, 0_u32..150, 0..5).prop_map(|(job, task, index, what)| {
            let task = TaskId::driver(JobId(job)).child(task);
            match what {
                0 | 1 => task.object(0),
                2 => task.object(index),
                3 if index == 0 => task.stream(),
                3 => task.put(index),
                _ => task.put_replicated(index),
            }
        })
    }

    proptest! {
        #[test]
        fn it_holds_what_a_plain_set_holds(
            steps in prop::collection::vec((any_object(), any::<bool>()), 0..300),
        ) {
            let (mut set, mut plain) = (ObjectSet::default(), BTreeSet::new());
            for (object, comes) in steps {
                prop_assert_eq!(set.contains(&object), plain.contains(&object));
                if comes {
                    prop_assert_eq!(set.insert(object), plain.insert(object));
                } else {
                    prop_assert_eq!(set.remove(&object), plain.remove(&object));
                }
            }
            let sorted = |set: &ObjectSet| set.iter().collect::<BTreeSet<_>>();
            prop_assert_eq!(&sorted(&set), &plain);
            prop_assert_eq!(set.iter().count(), plain.len());
            set.retain_jobs(|job| job == JobId(1));
            plain.retain(|object| object.task.job() == JobId(1));
            prop_assert_eq!(&sorted(&set), &plain);
        }
    }

    #[test]
    fn neighbours_share_a_word() {
        let driver = TaskId::driver(JobId(1));
        let mut set = ObjectSet::default();
        for index in 0..6_400 {
            set.insert(driver.child(index).object(0));
            set.insert(driver.put(index as u32));
        }
        assert!(set.0.len() <= 202, "{}", set.0.len());
    }
}

//! Maps by ids for large values: entries lie one after the other, and a table holds their places,
//! four bytes each. A hash table of the entries themselves is more than half empty when it has just
//! grown; what is not said twice here, or looked up by its hash, takes no memory of millions.

use core::hash::{BuildHasher, Hash};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;

use crate::hash::BuildIdHasher;

/// A map in the order of insertion, but that what is removed is replaced by the last entry. The
/// order depends on the history alone.
#[derive(Debug, Clone)]
pub struct DenseIdMap<K, V> {
    /// Where in `entries` each key is.
    places: HashTable<u32>,
    entries: Vec<(K, V)>,
}

impl<K, V> Default for DenseIdMap<K, V> {
    fn default() -> Self {
        Self { places: HashTable::new(), entries: Vec::new() }
    }
}

fn hash_of<K: Hash>(key: &K) -> u64 {
    BuildIdHasher::default().hash_one(key)
}

impl<K: Copy + Eq + Hash, V> DenseIdMap<K, V> {
    #[inline]
    fn place_of(&self, key: &K) -> Option<usize> {
        match &*self.entries {
            [] => None,
            // Worth no look at the table.
            [(only, _)] => (only == key).then_some(0),
            entries => {
                let is_it = |place: &u32| entries[*place as usize].0 == *key;
                self.places.find(hash_of(key), is_it).map(|place| *place as usize)
            }
        }
    }

    /// The value of a key.
    #[inline]
    pub fn get(&self, key: &K) -> Option<&V> {
        self.place_of(key).map(|place| &self.entries[place].1)
    }

    /// The same, to be changed.
    #[inline]
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.place_of(key).map(|place| &mut self.entries[place].1)
    }

    /// Whether the key has a value.
    #[inline]
    pub fn contains_key(&self, key: &K) -> bool {
        self.place_of(key).is_some()
    }

    /// The value of a key, which is `make`'s where it has none; and whether it had none.
    #[inline]
    pub fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> (&mut V, bool) {
        let Self { places, entries } = self;
        let is_it = |place: &u32| entries[*place as usize].0 == key;
        let rehash = |place: &u32| hash_of(&entries[*place as usize].0);
        let (place, is_new) = match places.entry(hash_of(&key), is_it, rehash) {
            Slot::Occupied(slot) => (*slot.get() as usize, false),
            Slot::Vacant(slot) => {
                let place = entries.len();
                slot.insert(u32::try_from(place).expect("fewer than 2^32 entries"));
                (place, true)
            }
        };
        if is_new {
            entries.push((key, make()));
        }
        (&mut entries[place].1, is_new)
    }

    /// Sets the value of a key; the former one.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let mut value = Some(value);
        let (found, is_new) =
            self.get_or_insert_with(key, || value.take().expect("taken once, here"));
        if is_new { None } else { value.map(|value| core::mem::replace(found, value)) }
    }

    /// Takes a value out; the last entry takes its place.
    pub fn swap_remove(&mut self, key: &K) -> Option<V> {
        let Self { places, entries } = self;
        let is_it = |place: &u32| entries[*place as usize].0 == *key;
        let (place, _) = places.find_entry(hash_of(key), is_it).ok()?.remove();
        let (_, value) = entries.swap_remove(place as usize);
        let last = entries.len() as u32;
        if let Some((moved, _)) = entries.get(place as usize) {
            let moved = places.find_mut(hash_of(moved), |place| *place == last);
            *moved.expect("each entry has a place") = place;
        }
        Some(value)
    }

    /// Gives back room that no entry needs.
    pub fn shrink_to_fit(&mut self) {
        let Self { places, entries } = self;
        entries.shrink_to_fit();
        places.shrink_to_fit(|place| hash_of(&entries[*place as usize].0));
    }
}

impl<K, V> DenseIdMap<K, V> {
    /// Entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All entries, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, value)| (key, value))
    }

    /// All keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.entries.iter().map(|(key, _)| key)
    }

    /// All values, in order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.iter().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hash::IdMap;
    use crate::id::{JobId, ObjectId, TaskId};

    fn object(index: u64) -> ObjectId {
        TaskId::driver(JobId(1)).child(index / 2).object((index % 2) as u32)
    }

    proptest! {
        #[test]
        fn it_holds_what_a_hash_map_holds(
            steps in prop::collection::vec((0_u64..40, 0..3), 0..200),
        ) {
            let mut dense = DenseIdMap::default();
            let mut plain = IdMap::default();
            for (at, (index, what)) in steps.into_iter().enumerate() {
                let key = object(index);
                match what {
                    0 => prop_assert_eq!(dense.insert(key, at), plain.insert(key, at)),
                    1 => prop_assert_eq!(dense.swap_remove(&key), plain.remove(&key)),
                    _ => {
                        let is_new = !plain.contains_key(&key);
                        let value = plain.entry(key).or_insert(at);
                        prop_assert_eq!(dense.get_or_insert_with(key, || at), (value, is_new));
                    }
                }
                prop_assert_eq!(dense.len(), plain.len());
                if at % 16 == 0 {
                    dense.shrink_to_fit();
                }
                prop_assert!(plain.iter().all(|(key, value)| dense.get(key) == Some(value)));
            }
            prop_assert!(dense.iter().all(|(key, value)| plain.get(key) == Some(value)));
        }
    }
}

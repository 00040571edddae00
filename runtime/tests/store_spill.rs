//! A full arena makes room by spilling, and what was spilled comes back.
#![allow(clippy::unwrap_used, missing_docs)]

use rdist::scheduler::id::{ExecutorId, JobId, ObjectId, TaskId};
use rdist::store::{Arena, Spill, Stored, Table};

const VALUE_BYTES: usize = 1 << 20;
const COUNT: u32 = 40;

fn object(index: u32) -> ObjectId {
    TaskId::driver(JobId(1)).object(index)
}

/// A worker's store.
struct Store {
    arena: Arena,
    table: Table,
    spill: Spill,
    spilled: u32,
}

impl Store {
    /// Spills the least recently used value.
    fn make_room(&mut self) {
        let (object, block) = self.table.evictable().next().expect("nothing can be evicted");
        let view = self.arena.read(block).unwrap();
        self.spill.write(object, &view).unwrap();
        drop(view);
        let spilled = Stored::Spilled { len: block.len };
        assert_eq!(self.table.replace(object, spilled), Some(Stored::Block(block)));
        assert_eq!(self.arena.free(block), None);
        self.spilled += 1;
    }

    fn create(&mut self, fill: impl FnOnce(&Spill, &mut [u8])) -> Stored {
        let mut incoming = loop {
            match self.arena.create(VALUE_BYTES as u64) {
                Ok(incoming) => break incoming,
                Err(full) => {
                    assert!(full.is_retryable());
                    self.make_room();
                }
            }
        };
        fill(&self.spill, &mut incoming);
        let stored = Stored::Block(self.arena.seal(incoming));
        self.arena.check_invariants();
        stored
    }

    fn read(&mut self, object: ObjectId) -> Vec<u8> {
        if let Some(Stored::Spilled { .. }) = self.table.get(object) {
            let stored = self.create(|spill, into| spill.restore(object, into).unwrap());
            self.table.replace(object, stored).unwrap();
            self.spill.remove(object).unwrap();
        }
        let Some(Stored::Block(block)) = self.table.get(object).cloned() else { panic!() };
        self.arena.read(block).unwrap().to_vec()
    }
}

#[test]
fn more_values_than_memory_are_all_there_and_the_pinned_one_never_moves() {
    let folder = tempfile::tempdir().unwrap();
    let spill = Spill::open(folder.path(), "me").unwrap();
    let arena = Arena::new(16 * VALUE_BYTES as u64);
    let mut store = Store { arena, table: Table::new(), spill, spilled: 0 };
    let pinned = ExecutorId(1);
    for index in 0..COUNT {
        let stored = store.create(|_, into| into.fill(index as u8));
        assert_eq!(store.table.insert(object(index), stored), None);
        if index == 0 {
            assert!(store.table.pin(object(0), pinned));
        }
    }
    let first = store.table.get(object(0)).cloned();
    assert!(store.spilled >= COUNT - 16);
    for index in (0..COUNT).rev() {
        assert!(store.read(object(index)) == vec![index as u8; VALUE_BYTES], "value {index}");
    }
    assert_eq!(store.table.get(object(0)).cloned(), first);
    assert!(matches!(first, Some(Stored::Block(_))));
}

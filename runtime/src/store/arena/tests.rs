use proptest::prelude::*;

use super::*;
use crate::store::memory::Access;

const A: ExecutorId = ExecutorId(1);
const B: ExecutorId = ExecutorId(2);
const MIB: u64 = 1 << 20;

fn block(segment: u32, offset: u64, len: u64) -> Block {
    Block { segment, offset, len }
}

/// A writer's mapping of its grant.
fn write(grant: &Grant, offset: u64, bytes: &[u8]) {
    let memory = Memory::map(&grant.fd, grant.len as usize, Access::Write).unwrap();
    // Safety: nobody else maps this test's segment for writing.
    let region = unsafe { Region::new(Arc::new(memory), offset, bytes.len() as u64) };
    region.unwrap().copy_from_slice(bytes);
}

#[test]
fn a_block_is_granted_sealed_read_and_reclaimed() {
    let mut arena = Arena::new(64 * MIB);
    let grant = arena.grant(A, 5000).unwrap();
    write(&grant, 128, &[7; 5000]);
    let sealed = block(grant.segment, 128, 5000);
    arena.adopt(A, sealed).unwrap();
    assert_eq!(&*arena.read(sealed).unwrap(), &[7; 5000]);
    arena.check_invariants();
    assert_eq!(arena.usage().live, 5056);
    assert_eq!(arena.free(sealed), Some(A));
    assert_eq!(arena.free(sealed), None);
    assert!(arena.read(sealed).is_err());
    assert_eq!(arena.usage().live, 0);
    arena.check_invariants();
}

#[test]
fn impossible_blocks_are_refused() {
    let mut arena = Arena::new(64 * MIB);
    let Grant { segment, len, .. } = arena.grant(A, 1).unwrap();
    arena.adopt(A, block(segment, 640, 100)).unwrap();
    let out_of_place = [
        (0, 0),
        (1, 64),
        (len, 1),
        (len - 64, 65),
        (0, len + 1),
        (0, u64::MAX),
        (u64::MAX - 63, 64),
        (u64::MAX, u64::MAX),
    ];
    for (offset, len) in out_of_place {
        let block = block(segment, offset, len);
        assert_eq!(arena.adopt(A, block), Err(Misbehaved::OutOfPlace(block)));
    }
    // The block's 100 bytes take 128.
    for (offset, len) in [(640, 100), (640, 1), (704, 1), (576, 65), (0, len)] {
        let block = block(segment, offset, len);
        assert_eq!(arena.adopt(A, block), Err(Misbehaved::Overlaps(block)));
    }
    arena.adopt(A, block(segment, 768, 64)).unwrap();
    arena.adopt(A, block(segment, 576, 64)).unwrap();
    let (foreign, unknown) = (block(segment, 0, 64), block(99, 0, 64));
    assert_eq!(arena.adopt(B, foreign), Err(Misbehaved::NotItsOwn(segment)));
    assert_eq!(arena.adopt(A, unknown), Err(Misbehaved::UnknownSegment(99)));
    let incoming = arena.create(64).unwrap();
    let of_worker = incoming.block();
    assert_eq!(arena.adopt(A, of_worker), Err(Misbehaved::NotItsOwn(of_worker.segment)));
    arena.check_invariants();
}

#[test]
fn a_dead_executors_blocks_stay_and_its_segment_becomes_warm() {
    let mut arena = Arena::new(64 * MIB);
    let grant = arena.grant(A, 1).unwrap();
    let sealed = block(grant.segment, 0, 64);
    arena.adopt(A, sealed).unwrap();
    arena.executor_died(A);
    assert_eq!(arena.adopt(A, block(grant.segment, 64, 64)), Err(Misbehaved::NotItsOwn(1)));
    assert!(arena.read(sealed).is_ok());
    assert_eq!(arena.usage().warm, 0);
    assert_eq!(arena.free(sealed), None);
    assert_eq!(arena.usage().warm, grant.len);
    assert_eq!(arena.grant(B, 1).unwrap().segment, grant.segment);
    arena.check_invariants();
}

#[test]
fn a_view_keeps_its_block_from_reuse() {
    let mut arena = Arena::new(64 * MIB);
    let mut incoming = arena.create(1000).unwrap();
    incoming.fill(5);
    let first = arena.seal(incoming);
    let view = arena.read(first).unwrap();
    let clone = view.clone();
    assert_eq!(arena.free(first), None);
    assert_eq!(arena.free(first), None);
    drop(view);
    assert_eq!(arena.sweep(), []);
    let mut other = arena.create(1000).unwrap();
    other.fill(6);
    assert_ne!(other.block(), first);
    assert_eq!(&*clone, &[5; 1000]);
    drop(clone);
    assert_eq!(arena.sweep(), []);
    assert_eq!(arena.create(1000).unwrap().block(), first);
    arena.check_invariants();
}

#[test]
fn a_deferred_free_reaches_the_executor_later() {
    let mut arena = Arena::new(64 * MIB);
    let grant = arena.grant(A, 1).unwrap();
    let sealed = block(grant.segment, 0, 64);
    arena.adopt(A, sealed).unwrap();
    let view = arena.read(sealed).unwrap();
    assert_eq!(arena.free(sealed), None);
    assert!(arena.has_deferred());
    drop(view);
    assert_eq!(arena.sweep(), [(A, sealed)]);
    assert!(!arena.has_deferred());
}

#[test]
fn a_dropped_incoming_block_is_free_after_a_sweep() {
    let mut arena = Arena::new(64 * MIB);
    let incoming = arena.create(1000).unwrap();
    let at = incoming.block();
    std::thread::spawn(move || drop(incoming)).join().unwrap();
    assert!(arena.has_deferred());
    arena.check_invariants();
    arena.sweep();
    assert!(!arena.has_deferred());
    arena.check_invariants();
    assert_eq!(arena.create(1000).unwrap().block(), at);
}

#[test]
fn a_full_arena_says_so_and_has_room_again() {
    let mut arena = Arena::new(16 * MIB);
    let large = arena.create(12 * MIB).unwrap();
    let large = arena.seal(large);
    let error = arena.grant(A, 8 * MIB).unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("--store-memory"), "{error}");
    assert!(!arena.create(17 * MIB).unwrap_err().is_retryable());
    assert!(arena.create(u64::MAX).is_err());
    arena.check_invariants();
    arena.free(large);
    // The warm segment of 12 MiB is given back for one of 16.
    let larger = arena.create(16 * MIB).unwrap();
    assert_eq!(larger.len() as u64, 16 * MIB);
    assert_eq!(arena.usage().committed, 16 * MIB);
    arena.check_invariants();
}

#[test]
fn segments_made_ahead_are_granted_first() {
    let mut arena = Arena::new(64 * MIB);
    arena.warm_up(25 * MIB).unwrap();
    assert_eq!(arena.usage().warm, 24 * MIB);
    assert_eq!(arena.grant(A, 1).unwrap().len, 8 * MIB);
    assert_eq!(arena.grant(A, 9 * MIB).unwrap().len, 16 * MIB);
    assert_eq!(arena.usage().committed, 24 * MIB);
}

#[test]
fn readers_cannot_map_a_segment_writable() {
    let mut arena = Arena::new(64 * MIB);
    let grant = arena.grant(A, 1).unwrap();
    write(&grant, 0, &[3; 64]);
    let (fd, len) = arena.read_only(grant.segment).unwrap();
    assert!(Memory::map(&fd, len as usize, Access::Write).is_err());
    assert!(Memory::map(&fd, len as usize + 1, Access::Read).is_err());
    let memory = Memory::map(&fd, len as usize, Access::Read).unwrap();
    // Safety: the test writes no more.
    let view = unsafe { View::new(Arc::new(memory), 0, 64, None) }.unwrap();
    assert_eq!(&*view, &[3; 64]);
    assert!(arena.read_only(99).is_err());
}

#[derive(Debug, Clone)]
enum Step {
    Grant(u32, u64),
    Adopt(u32, u32, u64, u64),
    Create(u64),
    Seal(prop::sample::Index),
    Drop(prop::sample::Index),
    View(prop::sample::Index),
    Unview,
    Free(prop::sample::Index),
    Die(u32),
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    let executor = || 1..4_u32;
    prop_oneof![
        1 => (executor(), 1..3 * MIB).prop_map(|(e, len)| Step::Grant(e, len)),
        4 => (executor(), 1..8_u32, 0..64_u64, 1..400_u64)
            .prop_map(|(e, segment, at, len)| Step::Adopt(e, segment, at * 64, len)),
        3 => (1..MIB).prop_map(Step::Create),
        2 => index().prop_map(Step::Seal),
        1 => index().prop_map(Step::Drop),
        1 => index().prop_map(Step::View),
        1 => Just(Step::Unview),
        3 => index().prop_map(Step::Free),
        1 => executor().prop_map(Step::Die),
        1 => Just(Step::Sweep),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    /// Whatever happens, the invariants hold, and all room comes back in the end.
    #[test]
    fn invariants_hold(steps in prop::collection::vec(step(), 1..120)) {
        let mut arena = Arena::new(8 * MIB);
        let (mut sealed, mut incoming, mut views) = (Vec::new(), Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Grant(executor, len) => drop(arena.grant(ExecutorId(executor), len)),
                Step::Adopt(executor, segment, offset, len) => {
                    let block = block(segment, offset, len);
                    if arena.adopt(ExecutorId(executor), block).is_ok() {
                        sealed.push(block);
                    }
                }
                Step::Create(len) => incoming.extend(arena.create(len)),
                Step::Seal(index) if !incoming.is_empty() => {
                    let taken = incoming.swap_remove(index.index(incoming.len()));
                    sealed.push(arena.seal(taken));
                }
                Step::Drop(index) if !incoming.is_empty() => {
                    incoming.swap_remove(index.index(incoming.len()));
                }
                Step::View(index) if !sealed.is_empty() => {
                    views.push(arena.read(sealed[index.index(sealed.len())]).unwrap());
                }
                Step::Free(index) if !sealed.is_empty() => {
                    arena.free(sealed.swap_remove(index.index(sealed.len())));
                }
                Step::Unview => drop(views.pop()),
                Step::Die(executor) => arena.executor_died(ExecutorId(executor)),
                Step::Sweep => drop(arena.sweep()),
                Step::Seal(_) | Step::Drop(_) | Step::View(_) | Step::Free(_) => {}
            }
            arena.check_invariants();
        }
        drop((incoming, views));
        for block in sealed {
            arena.free(block);
        }
        (1..4).for_each(|executor| arena.executor_died(ExecutorId(executor)));
        arena.sweep();
        arena.check_invariants();
        let usage = arena.usage();
        prop_assert_eq!((usage.live, usage.blocks, usage.warm), (0, 0, usage.committed));
        prop_assert!(!arena.has_deferred());
    }
}

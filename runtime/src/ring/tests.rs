use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::*;
use crate::wire::executor::{MAX_FRAME_BYTES, MAX_PIECED_FRAME_BYTES};

const SMALL: usize = MIN_RING_BYTES;
/// Longer than any wait of a sound ring on a busy machine.
const LOST: Option<Duration> = Some(Duration::from_secs(60));

/// Where the header's words lie, and where the data starts.
const TAIL: u64 = 0;
const HEAD: u64 = 128;
const DATA: u64 = HEADER_BYTES as u64;

/// Both sides in one process, and the file to scribble in.
struct Both {
    worker: (Sender, Receiver),
    executor: (Sender, Receiver),
    worker_bell: Arc<Bell>,
    executor_bell: Arc<Bell>,
    file: File,
    ring_bytes: usize,
}

fn both(ring_bytes: usize) -> Both {
    let (fd, worker) = RingPair::create(ring_bytes).unwrap();
    let executor = RingPair::attach(&fd, ring_bytes as u64).unwrap();
    let worker_bell = Arc::new(Bell::new().unwrap());
    let executor_bell = Arc::new(Bell::new().unwrap());
    Both {
        worker: worker.split(executor_bell.clone()),
        executor: executor.split(worker_bell.clone()),
        worker_bell,
        executor_bell,
        file: File::from(fd),
        ring_bytes,
    }
}

impl Both {
    /// Writes into the ring from executor to worker, as a hostile executor could.
    fn scribble(&self, at: u64, word: u64) {
        let ring = (HEADER_BYTES + self.ring_bytes) as u64;
        self.file.write_at(&word.to_le_bytes(), ring + at).unwrap();
    }

    /// The same, into the ring from worker to executor.
    fn scribble_back(&self, at: u64, word: u64) {
        self.file.write_at(&word.to_le_bytes(), at).unwrap();
    }
}

/// A frame whose bytes depend on its number.
fn frame(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at + number) as u8).collect()
}

fn header(kind: &[u8; 4], len: u32) -> u64 {
    u64::from(len) | u64::from(u32::from_le_bytes(*kind)) << 32
}

#[test]
fn what_was_written_by_now_has_an_end_while_more_comes() {
    let mut rings = both(SMALL);
    let (sender, receiver) = (&mut rings.executor.0, &mut rings.worker.1);
    let mut send = |number| {
        assert!(sender.try_send(&frame(number, 100)).unwrap());
        sender.publish();
    };
    (0..3).for_each(&mut send);
    let written = receiver.written().unwrap();
    let mut read = 0;
    while !receiver.has_read(written) {
        send(3 + read);
        assert_eq!(receiver.try_recv().unwrap(), Some(&frame(read, 100)[..]));
        read += 1;
    }
    assert_eq!(read, 3);
    rings.scribble(TAIL, 8);
    let receiver = &mut rings.worker.1;
    assert!(receiver.written().is_err() && receiver.try_recv().is_err());
}

#[test]
fn frames_of_all_sizes_keep_their_order_in_both_directions() {
    let mut rings = both(SMALL);
    for number in 0..20_000 {
        let len = number * 7919 % (SMALL / 2 - 15);
        let sent = frame(number, len);
        let pairs = [
            (&mut rings.worker.0, &mut rings.executor.1),
            (&mut rings.executor.0, &mut rings.worker.1),
        ];
        for (sender, receiver) in pairs {
            assert!(sender.try_send(&sent).unwrap());
            assert_eq!(receiver.try_recv().unwrap(), None, "not published yet");
            sender.publish();
            let got = receiver.try_recv().unwrap().unwrap();
            assert_eq!(got, sent);
            assert_eq!(got.as_ptr() as usize % 16, 0);
            assert_eq!(receiver.try_recv().unwrap(), None);
        }
    }
}

#[test]
fn a_full_ring_says_so_and_goes_on_when_it_is_read() {
    let mut rings = both(SMALL);
    let (sender, receiver) = (&mut rings.worker.0, &mut rings.executor.1);
    let mut sent = 0;
    let mut received = 0;
    for _ in 0..100 {
        while sender.try_send(&frame(sent, sent % 300)).unwrap() {
            sent += 1;
        }
        assert!(!sender.is_empty().unwrap());
        for _ in 0..5 {
            let got = receiver.try_recv().unwrap().unwrap();
            assert_eq!(got, frame(received, received % 300));
            received += 1;
        }
        receiver.release();
    }
    while let Some(got) = receiver.try_recv().unwrap() {
        assert_eq!(got, frame(received, received % 300));
        received += 1;
    }
    assert_eq!(received, sent);
    assert!(sender.is_empty().unwrap());
    assert_eq!(sender.free_bytes().unwrap(), SMALL);
}

#[test]
fn the_largest_frame_passes_and_a_larger_one_is_refused() {
    let mut rings = both(DEFAULT_RING_BYTES);
    let (sender, receiver) = (&mut rings.worker.0, &mut rings.executor.1);
    let largest = frame(0, MAX_FRAME_BYTES);
    for _ in 0..9 {
        assert!(sender.try_send(&largest).unwrap());
        sender.publish();
        assert_eq!(receiver.try_recv().unwrap().unwrap(), largest);
    }
    let larger = vec![0; MAX_PIECED_FRAME_BYTES + 1];
    assert!(matches!(sender.try_send(&larger), Err(SendError::TooLarge { .. })));
    assert!(sender.try_send(&[1]).unwrap());
}

/// Frames larger than the ring, between small ones, to a side that copies and one that does not.
#[test]
fn a_large_frame_goes_in_pieces() {
    let mut rings = both(SMALL);
    let frames: Vec<Vec<u8>> =
        [10, SMALL * 5 + 3, 0, SMALL / 2, SMALL * 2].map(|len| frame(len, len)).into();
    let pass = |sender: &mut Sender, receiver: &mut Receiver| {
        let mut arrived = Vec::new();
        for frame in &frames {
            while !sender.try_send(frame).unwrap() {
                while let Some(got) = receiver.try_recv().unwrap() {
                    arrived.push(got.to_vec());
                }
            }
        }
        sender.publish();
        while let Some(got) = receiver.try_recv().unwrap() {
            arrived.push(got.to_vec());
        }
        assert!(arrived == frames, "{:?}", arrived.iter().map(Vec::len).collect::<Vec<_>>());
    };
    pass(&mut rings.worker.0, &mut rings.executor.1);
    pass(&mut rings.executor.0, &mut rings.worker.1);
}

#[test]
fn bad_sizes_and_foreign_descriptors_are_refused() {
    for bytes in [0, 1, SMALL + 1, SMALL / 2, MAX_RING_BYTES * 2] {
        assert!(matches!(RingPair::create(bytes), Err(RingError::Size(_))));
    }
    let (fd, _pair) = RingPair::create(SMALL).unwrap();
    assert!(matches!(RingPair::attach(&fd, u64::MAX), Err(RingError::Size(_))));
    let too_long = RingPair::attach(&fd, SMALL as u64 * 2);
    assert!(matches!(too_long, Err(RingError::Memory { .. })));
    let file = tempfile::tempfile().unwrap();
    file.set_len(pair_bytes(SMALL) as u64).unwrap();
    assert!(matches!(RingPair::attach(&file, SMALL as u64), Err(RingError::Memory { .. })));
}

#[test]
fn hostile_indices_and_lengths_are_refused_for_good() {
    // What is written into the ring, and which word is to blame.
    let message = |len| header(b"mesg", len);
    let cases: &[(&[(u64, u64)], &str)] = &[
        (&[(TAIL, 8)], "tail"),
        (&[(TAIL, SMALL as u64 + 16)], "tail"),
        (&[(TAIL, u64::MAX)], "tail"),
        (&[(TAIL, u64::MAX - 15)], "tail"),
        (&[(TAIL, 64)], "kind of frame"),
        (&[(TAIL, 64), (DATA, message(49))], "length of a frame"),
        (&[(TAIL, 64), (DATA, message(u32::MAX))], "length of a frame"),
        (&[(TAIL, SMALL as u64), (DATA, message(SMALL as u32 - 16))], "length of a frame"),
        (&[(TAIL, 64), (DATA, header(b"skip", 0))], "skip"),
        (&[(TAIL, SMALL as u64), (DATA, header(b"skip", 0))], "skip"),
        (&[(TAIL, 64), (DATA, header(b"evil", 8))], "kind of frame"),
    ];
    for (words, blame) in cases {
        let mut rings = both(SMALL);
        for &(at, word) in *words {
            rings.scribble(at, word);
        }
        let receiver = &mut rings.worker.1;
        let error = receiver.try_recv().unwrap_err();
        assert_eq!(error.what, *blame, "{words:?}");
        assert_eq!(receiver.try_recv().unwrap_err(), error);
        assert!(!receiver.announce_sleep());
    }
}

#[test]
fn an_index_that_moves_backwards_is_refused() {
    let mut rings = both(SMALL);
    rings.executor.0.try_send(&[1; 100]).unwrap();
    rings.executor.0.publish();
    assert!(rings.worker.1.try_recv().unwrap().is_some());
    rings.scribble(TAIL, 16);
    assert_eq!(rings.worker.1.try_recv().unwrap_err().what, "tail");
}

#[test]
fn a_hostile_receiver_cannot_mislead_the_sender() {
    for head in [8, 16, SMALL as u64, u64::MAX, u64::MAX - 15] {
        let mut rings = both(SMALL);
        rings.scribble_back(HEAD, head);
        assert!(rings.worker.0.free_bytes().is_err(), "{head}");
        let mut sent = 0;
        let error = loop {
            match rings.worker.0.try_send(&[1; 100]) {
                Ok(true) => sent += 1,
                Ok(false) => panic!("a head of {head} was believed"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, SendError::Corrupt(_)));
        assert!(sent * 128 <= SMALL);
    }
}

#[test]
fn a_frame_that_changes_while_it_is_read_stays_as_it_was_copied() {
    let mut rings = both(SMALL);
    rings.executor.0.try_send(&[7; 64]).unwrap();
    rings.executor.0.publish();
    let Both { worker, file, ring_bytes, .. } = &mut rings;
    let frame = worker.1.try_recv().unwrap().unwrap();
    let payload = (HEADER_BYTES + *ring_bytes) as u64 + DATA + 16;
    file.write_at(&[9; 64], payload).unwrap();
    assert_eq!(frame, [7; 64]);
}

#[test]
fn random_scribbles_never_panic() {
    let mut seed = 0x1234_5678_9abc_def1_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for _ in 0..2_000 {
        let mut rings = both(SMALL);
        for _ in 0..20 {
            let at = if random() % 2 == 0 { TAIL } else { DATA + random() % 512 * 8 };
            let word = match random() % 4 {
                0 => header(b"mesg", random() as u32 % 5_000),
                1 => header(b"skip", random() as u32 % 5_000),
                2 => (random() % (SMALL as u64 + 64)) & !15,
                _ => random(),
            };
            rings.scribble(at, word);
            for _ in 0..3 {
                if let Ok(Some(frame)) = rings.worker.1.try_recv() {
                    assert!(frame.len() <= SMALL);
                }
            }
        }
    }
}

/// Receives a frame; sleeps at once when there is none, so that every wait tests the bell.
fn recv_sleeping(receiver: &mut Receiver, bell: &Bell) -> Vec<u8> {
    loop {
        if let Some(frame) = receiver.try_recv().unwrap() {
            return frame.to_vec();
        }
        if receiver.announce_sleep() {
            assert!(bell.wait(LOST).unwrap().is_some(), "a wake-up was lost");
            receiver.awake();
        }
    }
}

#[test]
fn no_wake_up_is_lost_between_two_threads() {
    const ROUNDS: usize = 20_000;
    let Both { mut worker, mut executor, worker_bell, executor_bell, .. } = both(SMALL);
    let echo = thread::spawn(move || {
        for _ in 0..ROUNDS {
            let frame = recv_sleeping(&mut executor.1, &executor_bell);
            assert!(executor.0.try_send(&frame).unwrap());
            executor.0.publish();
        }
    });
    for number in 0..ROUNDS {
        let sent = frame(number, number % 100);
        assert!(worker.0.try_send(&sent).unwrap());
        worker.0.publish();
        assert_eq!(recv_sleeping(&mut worker.1, &worker_bell), sent);
    }
    echo.join().unwrap();
}

#[test]
fn a_starved_sender_is_woken_when_there_is_room() {
    const FRAMES: usize = 20_000;
    let Both { mut worker, mut executor, worker_bell, executor_bell, .. } = both(SMALL);
    let has_waited = Arc::new(AtomicBool::new(false));
    let waited = has_waited.clone();
    let source = thread::spawn(move || {
        for number in 0..FRAMES {
            let sent = frame(number, number % 500);
            while !executor.0.try_send(&sent).unwrap() {
                if executor.0.announce_wait() {
                    waited.store(true, Ordering::Relaxed);
                    assert!(executor_bell.wait(LOST).unwrap().is_some(), "a wake-up was lost");
                }
                executor.0.awake();
            }
        }
        executor.0.publish();
    });
    for number in 0..FRAMES {
        assert_eq!(recv_sleeping(&mut worker.1, &worker_bell), frame(number, number % 500));
    }
    source.join().unwrap();
    assert!(has_waited.load(Ordering::Relaxed));
}

#[test]
fn a_bell_remembers_a_ring_and_times_out_without_one() {
    let bell = Bell::new().unwrap();
    assert_eq!(bell.wait(Some(Duration::from_millis(1))).unwrap(), None);
    bell.ring();
    bell.ring();
    assert_eq!(bell.wait(None).unwrap(), Some(Rung::Elsewhere), "twice says nothing of where");
    assert_eq!(bell.drain(), None);
}

#[test]
fn a_bell_says_whether_it_was_rung_from_the_same_core() {
    let cores = sched_getaffinity(None).unwrap();
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| cores.is_set(*core)).collect();
    let stay_on = |core: usize| {
        let mut only = CpuSet::new();
        only.set(core);
        sched_setaffinity(None, &only).unwrap();
    };
    let bell = Bell::new().unwrap();
    thread::scope(|scope| {
        for core in [cores[0], cores[cores.len() - 1]] {
            let (bell, here) = (&bell, cores[0]);
            let ringer = scope.spawn(move || {
                stay_on(core);
                bell.ring();
            });
            ringer.join().unwrap();
            let listener = scope.spawn(move || {
                stay_on(here);
                bell.drain()
            });
            let rung = if core == cores[0] { Rung::FromHere } else { Rung::Elsewhere };
            assert_eq!(listener.join().unwrap(), Some(rung), "{core}");
        }
    });
}

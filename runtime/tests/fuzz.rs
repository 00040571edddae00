//! All that reads what others write (`rdist::fuzzing`), fed with messages that were damaged by
//! seed: it is refused or read, and nothing else. A bounded run of what `cargo fuzz` does for
//! longer in `runtime/fuzz`. `FUZZ_SEED=7` replays a failure; `cargo xtask fuzz --minutes N` tries
//! more of them (`FUZZ_SECONDS`).
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::{Duration, Instant};

use rdist::fuzzing::TARGETS;
use rdist::scheduler::id::{ExecutorId, JobId, TaskId, WorkerId};
use rdist::scheduler::message::{FromHead, Held, PeerMessage, ToHead};
use rdist::scheduler::outcome::{Cause, Outcome, TaskError};
use rdist::scheduler::resource::Resources;
use rdist::wire::client::{
    ClientReply, ClientRequest, JobProgress, JobStatus, Submission, SubmissionId,
};
use rdist::wire::cluster::{
    HeadToWorker, Output, PeerFrame, Registration, Said, StreamReply, StreamRequest, WorkerToHead,
};
use rdist::wire::direct::{DirectCall, DirectReply};
use rdist::wire::encode;
use rdist::wire::executor::{Block, FromExecutor, SocketMessage, ToExecutor, Value};
use rdist::wire::files::{JobFiles, Manifest, SmallFile};
use rdist::wire::join::{JoinReply, JoinRequest, Role};

/// So many inputs for each target, and as many again until the time is over.
const RUNS: u64 = 4_000;

fn failed() -> Outcome {
    let task = TaskId::driver(JobId(1));
    Outcome::Failed(TaskError { task, cause: Cause::Panicked { message: "no".repeat(40) } })
}

fn samples() -> Vec<Vec<u8>> {
    let job = JobId(7);
    let task = TaskId::driver(job).child(3);
    let held = Held { jobs: vec![job], ..Held::default() };
    let registration = Registration {
        worker: WorkerId(3),
        host: "a host with a long enough name to be out of line".to_owned(),
        pid: 1,
        address: "10.0.0.1:4711".to_owned(),
        total: Resources::cpus(4.0),
        labels: vec![("zone".to_owned(), "a".to_owned())],
        store_bytes: 1,
        held,
    };
    let output = Output {
        job,
        worker: WorkerId(3),
        task: Some(task),
        source: "driver".to_owned(),
        stderr: false,
        text: "line\n".repeat(20),
    };
    let small_file = SmallFile { name: "plan.json".to_owned(), bytes: b"{}".to_vec() };
    let submission = Submission {
        id: SubmissionId([9; 16]),
        name: "a job".to_owned(),
        program: [7; 32],
        arguments: vec!["--one".to_owned(), "two and more than that".to_owned()],
        environment: vec![("KEY".to_owned(), "value".to_owned())],
        working_directory: "/somewhere/else".to_owned(),
        files: JobFiles { working: Some([3; 32]), driver: None },
        small_files: vec![small_file],
        weight: 3,
        quota: Resources::cpus(2.0),
        eager_pool: true,
    };
    let status = JobStatus {
        job,
        name: "a job".to_owned(),
        state: JobProgress::Failed { error: "because".repeat(9) },
        attempt: 1,
        submitted_at: 1,
        started_at: Some(2),
        finished_at: None,
        metrics: Some("{}".to_owned()),
    };
    let driver = ToHead::DriverFinished { job, attempt: 1, outcome: failed() };
    let died = FromHead::WorkerDied { worker: WorkerId(3), reason: "silent".repeat(9) };
    let message = PeerMessage::Finished { task, attempt: 0, outcome: failed() };
    let frame = PeerFrame { number: 1, message, values: vec![(task.object(0), vec![1; 100])] };
    let join = JoinRequest {
        role: Role::Worker,
        token: Some((1, [2; 16])),
        stays: true,
        request: vec![3; 300],
    };
    let welcome = SocketMessage::Welcome {
        executor: ExecutorId(1),
        worker: WorkerId(3),
        job,
        ring_bytes: 4_096,
    };
    vec![
        encode(&WorkerToHead::Register(registration)).into_vec(),
        encode(&WorkerToHead::Said { number: 7, said: Said::Output(output) }).into_vec(),
        encode(&WorkerToHead::Core { number: 1, message: driver }).into_vec(),
        encode(&HeadToWorker::Core { number: 1, message: died }).into_vec(),
        encode(&ClientRequest::Submit(submission)).into_vec(),
        encode(&ClientReply::Jobs(vec![status; 3])).into_vec(),
        encode(&frame).into_vec(),
        encode(&StreamRequest::Object { object: task.object(1), host: Some([7; 32]), from: 8 })
            .into_vec(),
        encode(&StreamReply::Bytes(7)).into_vec(),
        encode(&join).into_vec(),
        encode(&JoinReply::Refused(rdist::wire::join::JoinRefusal::Wrong)).into_vec(),
        encode(&Manifest { entries: Vec::new() }).into_vec(),
        encode(&finished(task)).into_vec(),
        encode(&ToExecutor::Recall).into_vec(),
        encode(&welcome).into_vec(),
        in_pair(&encode(&DirectCall::After(7))),
        in_pair(&encode(&DirectReply::Value(vec![7; 40]))),
        include_bytes!("corpus/certificate.der").to_vec(),
        include_bytes!("corpus/certificate-request.der").to_vec(),
        in_ring(&encode(&finished(task))),
        in_link(&encode(&frame)),
        // A block of 64 bytes at the start of the first segment.
        [1_u32, 0, 64].into_iter().flat_map(u32::to_le_bytes).collect(),
    ]
}

/// What an executor says at the end of a task.
fn finished(task: TaskId) -> FromExecutor {
    let values =
        vec![Value::Inline(vec![7; 50]), Value::Block(Block { segment: 1, offset: 64, len: 9 })];
    FromExecutor::Finished { task, attempt: 0, outcome: failed(), values }
}

/// A frame between two executors: a token, and the message.
fn in_pair(message: &[u8]) -> Vec<u8> {
    let mut bytes = 7_u64.to_le_bytes().to_vec();
    bytes.extend([0; 8]);
    bytes.extend(message);
    bytes
}

/// A frame as it lies in a ring: the index behind it, its header, its bytes.
fn in_ring(frame: &[u8]) -> Vec<u8> {
    let room = (16 + frame.len()).next_multiple_of(16) as u64;
    let mut bytes = room.to_le_bytes().to_vec();
    bytes.extend((frame.len() as u32).to_le_bytes());
    bytes.extend(b"mesg");
    bytes.extend([0; 8]);
    bytes.extend(frame);
    bytes
}

/// A hello and a first record, as they come over a link.
fn in_link(frame: &[u8]) -> Vec<u8> {
    let mut bytes = b"link".to_vec();
    bytes.extend(2_u128.to_le_bytes());
    bytes.extend([0; 24]);
    bytes.extend((frame.len() as u32 + 8).to_le_bytes());
    bytes.push(0);
    bytes.extend(1_u64.to_le_bytes());
    bytes.extend(frame);
    bytes
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ word >> 31) % limit as u64) as usize
    }

    /// Damages bytes: single ones, lengths and offsets, ends, and parts of other messages.
    fn damage(&mut self, bytes: &mut Vec<u8>, others: &[Vec<u8>]) {
        const NUMBERS: [u32; 6] = [0, 1, u32::MAX, i32::MAX as u32, 1 << 16, u32::MAX - 15];
        for _ in 0..self.below(6) {
            let at = self.below(bytes.len() + 1);
            match self.below(8) {
                0 => bytes.truncate(at),
                1 => {
                    let number = NUMBERS[self.below(NUMBERS.len())].to_le_bytes();
                    bytes.iter_mut().skip(at & !3).zip(number).for_each(|(to, from)| *to = from);
                }
                2 => {
                    let other = &others[self.below(others.len())];
                    let from = self.below(other.len());
                    let part = other[from..].iter().take(1 + self.below(64)).copied();
                    bytes.splice(at..at, part.collect::<Vec<_>>());
                }
                3 => bytes.extend((0..self.below(32)).map(|n| n as u8)),
                _ => {
                    let value = self.below(256) as u8;
                    bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = value);
                }
            }
        }
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn whole_messages_are_read() {
    let samples = samples();
    for (index, sample) in samples.iter().enumerate() {
        assert!(TARGETS.iter().any(|(_, target)| target(sample)), "sample {index}");
    }
    for (name, target) in TARGETS.iter().filter(|(name, _)| *name != "token") {
        assert!(samples.iter().any(|sample| target(sample)), "no sample for {name}");
    }
}

/// An input by its seed: noise, or a damaged message.
fn input(seed: u64, samples: &[Vec<u8>]) -> Vec<u8> {
    let mut dice = Dice(seed);
    let mut bytes = match dice.below(8) {
        0 => (0..dice.below(400)).map(|_| dice.below(256) as u8).collect(),
        _ => samples[dice.below(samples.len())].clone(),
    };
    dice.damage(&mut bytes, samples);
    bytes
}

#[test]
fn damaged_messages_and_noise_are_survived() {
    let samples = samples();
    let end = Instant::now() + Duration::from_secs(setting("FUZZ_SECONDS").unwrap_or(0));
    let mut seeds = setting("FUZZ_SEED").map_or(0..RUNS, |seed| seed..seed + 1);
    loop {
        for seed in seeds.clone() {
            let bytes = input(seed, &samples);
            for (name, target) in TARGETS {
                let survived = std::panic::catch_unwind(|| target(&bytes));
                assert!(survived.is_ok(), "{name} panicked with FUZZ_SEED={seed}: {bytes:?}");
            }
        }
        if Instant::now() >= end {
            break println!("{} inputs, {} targets each", seeds.end, TARGETS.len());
        }
        seeds = seeds.end..seeds.end + RUNS;
    }
}

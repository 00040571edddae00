//! Every message that comes from another machine, fed with noise and with damaged messages: it is
//! refused or read, and nothing else.
#![allow(clippy::unwrap_used, missing_docs)]

use proptest::prelude::*;
use rdist::scheduler::id::{JobId, TaskId, WorkerId};
use rdist::scheduler::message::{FromHead, Held, PeerMessage, ToHead};
use rdist::scheduler::outcome::{Cause, Outcome, TaskError};
use rdist::scheduler::resource::Resources;
use rdist::wire::client::{ClientReply, ClientRequest, JobProgress, JobStatus, Submission};
use rdist::wire::cluster::{
    HeadToWorker, Output, PeerFrame, Registration, Said, StreamReply, StreamRequest, WorkerToHead,
};
use rdist::wire::join::{JoinReply, JoinRequest, Role};
use rdist::wire::{decode, encode};

/// Reads the bytes as every message there is; returns as how many they could be read.
fn read_as_all(bytes: &[u8]) -> usize {
    [
        decode::<ClientRequest>(bytes).is_ok(),
        decode::<ClientReply>(bytes).is_ok(),
        decode::<WorkerToHead>(bytes).is_ok(),
        decode::<HeadToWorker>(bytes).is_ok(),
        decode::<PeerFrame>(bytes).is_ok(),
        decode::<StreamRequest>(bytes).is_ok(),
        decode::<StreamReply>(bytes).is_ok(),
        decode::<JoinRequest>(bytes).is_ok(),
        decode::<JoinReply>(bytes).is_ok(),
    ]
    .into_iter()
    .filter(|read| *read)
    .count()
}

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
    let submission = Submission {
        name: "a job".to_owned(),
        program: [7; 32],
        arguments: vec!["--one".to_owned(), "two and more than that".to_owned()],
        environment: vec![("KEY".to_owned(), "value".to_owned())],
        working_directory: "/somewhere/else".to_owned(),
        files: rdist::wire::files::JobFiles { working: Some([3; 32]), driver: None },
        weight: 3,
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
    let frame = PeerFrame { message, values: vec![(task.object(0), vec![1; 100])] };
    let join = JoinRequest {
        role: Role::Worker,
        token: Some((1, [2; 16])),
        stays: true,
        request: vec![3; 300],
    };
    vec![
        encode(&WorkerToHead::Register(registration)).into_vec(),
        encode(&WorkerToHead::Said { number: 7, said: Said::Output(output) }).into_vec(),
        encode(&WorkerToHead::Core(driver)).into_vec(),
        encode(&HeadToWorker::Core(died)).into_vec(),
        encode(&ClientRequest::Submit(submission)).into_vec(),
        encode(&ClientReply::Jobs(vec![status; 3])).into_vec(),
        encode(&frame).into_vec(),
        encode(&StreamRequest::Object { object: task.object(1), host: Some([7; 32]) }).into_vec(),
        encode(&join).into_vec(),
    ]
}

#[test]
fn whole_messages_are_read() {
    for (index, sample) in samples().iter().enumerate() {
        assert!(read_as_all(sample) >= 1, "sample {index}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn noise_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        read_as_all(&bytes);
    }

    #[test]
    fn damaged_messages_are_survived(
        which in 0..9_usize,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let mut bytes = samples().swap_remove(which);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        read_as_all(&bytes);
    }
}

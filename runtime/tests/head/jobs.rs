//! Jobs from submission to their end, and who watches them.

use rdist::client::{ClientError, ClientRefusal, JobProgress, JobUpdate, SubmissionId};
use rdist::scheduler::id::{JobId, WorkerId};
use rdist::scheduler::message::FromHead;
use rdist::transport::frame;
use rdist::wire::cluster::{HeadToWorker, Said, StreamReply, StreamRequest};

use crate::worker::Worker;
use crate::{Place, within};

async fn all(mut stream: rdist::client::JobStream) -> Vec<JobUpdate> {
    let mut updates = Vec::new();
    while let Some(update) = within(stream.next()).await.unwrap() {
        updates.push(update);
    }
    updates
}

fn texts(updates: &[JobUpdate]) -> Vec<&str> {
    let mut texts = Vec::new();
    for update in updates {
        if let JobUpdate::Output { text, .. } = update {
            texts.push(text.as_str());
        }
    }
    texts
}

fn words(updates: &[JobUpdate]) -> Vec<&str> {
    let mut words = Vec::new();
    for update in updates {
        if let JobUpdate::State { state, .. } = update {
            words.push(state.word());
        }
    }
    words
}

#[tokio::test]
async fn a_job_goes_from_submission_to_its_metrics() {
    let place = Place::new();
    let _head = place.head();
    let client = place.client().await;
    let mut worker = Worker::join(&place.home).await;
    let job = client.submit(place.job("first")).await.unwrap();
    assert_eq!(job, JobId(1));
    let live = client.watch(job, true).await.unwrap();

    // The job's description comes before its driver.
    let info = worker
        .find(|message| match message {
            HeadToWorker::Job(info) => Some(info),
            HeadToWorker::Core { message: FromHead::Assigned(_), .. } => {
                panic!("the driver came first")
            }
            _ => None,
        })
        .await;
    assert_eq!((info.job, info.name.as_str()), (job, "first"));
    assert_eq!(info.arguments, ["--epochs", "2"]);
    let (assigned, attempt) = worker.expect_driver().await;
    assert_eq!((assigned, attempt), (job, 0));

    worker.say(job, "hello\n");
    for json in [r#"{"event":"epoch","metrics":{"loss":2}}"#, r#"{"metrics":{"loss":1}}"#, "no"] {
        worker.tell(Said::Event { job, json: json.to_owned() });
    }
    worker.finish_driver(job, attempt);
    let updates = all(live).await;
    assert_eq!(texts(&updates), ["hello\n"]);
    assert_eq!(words(&updates).last(), Some(&"succeeded"));
    let events = updates.iter().filter(|u| matches!(u, JobUpdate::Event { .. })).count();
    assert_eq!(events, 2);

    let status = client.job(job).await.unwrap();
    assert_eq!(status.state, JobProgress::Succeeded);
    assert_eq!(status.metrics.as_deref(), Some(r#"{"loss":1}"#));
    assert!(status.started_at >= Some(status.submitted_at));
    assert!(status.finished_at >= status.started_at);
    // Whoever comes later reads the same; whoever wants only news gets the end.
    assert_eq!(all(client.watch(job, true).await.unwrap()).await, updates);
    let late = all(client.watch(job, false).await.unwrap()).await;
    assert_eq!(words(&late), ["succeeded"]);
}

#[tokio::test]
async fn a_job_that_is_submitted_twice_under_one_id_is_one_job() {
    let place = Place::new();
    let head = place.head();
    let client = place.client().await;
    let [first, second] = [SubmissionId::random(), SubmissionId::random()];
    assert_eq!(client.submit_as(first, place.job("once")).await.unwrap(), JobId(1));
    assert_eq!(client.submit_as(first, place.job("once")).await.unwrap(), JobId(1));
    assert_eq!(client.submit_as(second, place.job("once")).await.unwrap(), JobId(2));
    // The first answer was lost with the head that gave it.
    head.kill().unwrap();
    let _head = place.head();
    let client = place.client().await;
    assert_eq!(client.submit_as(first, place.job("once")).await.unwrap(), JobId(1));
    // Nor is an ended job begun again.
    client.stop_job(JobId(1)).await.unwrap();
    assert_eq!(client.submit_as(first, place.job("once")).await.unwrap(), JobId(1));
    let jobs = client.jobs().await.unwrap();
    let states = Vec::from_iter(jobs.iter().map(|job| (job.job, job.state.word())));
    assert_eq!(states, [(JobId(1), "stopped"), (JobId(2), "waiting")]);
}

#[tokio::test]
async fn watchers_miss_nothing_and_see_nothing_twice_whenever_they_come() {
    const LINES: usize = 3_000;
    let place = Place::new();
    let _head = place.head();
    let client = place.client().await;
    let mut worker = Worker::join(&place.home).await;
    let job = client.submit(place.job("chatty")).await.unwrap();
    let (_, attempt) = worker.expect_driver().await;
    let mut watchers = Vec::new();
    for line in 0..LINES {
        worker.say(job, &format!("{line}\n"));
        if line % 300 == 0 {
            let watcher = client.watch(job, true).await.unwrap();
            watchers.push(tokio::spawn(all(watcher)));
        }
    }
    worker.finish_driver(job, attempt);
    let expected: Vec<String> = (0..LINES).map(|line| format!("{line}\n")).collect();
    for watcher in watchers {
        let updates = watcher.await.unwrap();
        assert!(texts(&updates) == expected, "a watcher saw something else");
        assert_eq!(words(&updates).last(), Some(&"succeeded"));
    }
}

#[tokio::test]
async fn a_program_is_sent_once_and_workers_fetch_it() {
    let place = Place::new();
    let _head = place.head();
    let client = place.client().await;
    let content: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    let path = place.program(&content);
    let hash = client.upload(&path).await.unwrap();
    assert_eq!(hash, *blake3::hash(&content).as_bytes());
    let stored = place.home.blobs().join(blake3::Hash::from_bytes(hash).to_hex().as_str());
    let before = std::fs::metadata(&stored).unwrap().modified().unwrap();
    client.upload(&path).await.unwrap();
    assert_eq!(std::fs::metadata(&stored).unwrap().modified().unwrap(), before);
    assert_eq!(std::fs::read_dir(place.home.blobs()).unwrap().count(), 1);

    let worker = Worker::join(&place.home).await;
    let connection = worker.connection.as_ref().unwrap();
    let fetch = async |request: StreamRequest| {
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        frame::write(&mut send, &request).await.unwrap();
        let reply = frame::read::<StreamReply>(&mut receive, 1_000).await.unwrap().unwrap();
        (reply, receive.read_to_end(content.len()).await.unwrap())
    };
    let (reply, bytes) = within(fetch(StreamRequest::Blob(hash))).await;
    assert_eq!(reply, StreamReply::Bytes(content.len() as u64));
    assert!(bytes == content);
    let (reply, _) = within(fetch(StreamRequest::Blob([7; 32]))).await;
    assert_eq!(reply, StreamReply::Missing);
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_error_with_its_path() {
    let place = Place::new();
    let _head = place.head();
    let client = place.client().await;
    let missing = place.folder.path().join("nothing here");
    let request = rdist::client::JobRequest { program: missing, ..place.job("lost") };
    let error = client.submit(request).await.unwrap_err();
    assert!(error.to_string().contains("nothing here"), "{error}");
    let folder = client.upload(place.folder.path()).await.unwrap_err();
    assert!(matches!(folder, ClientError::File { .. }), "{folder}");
}

#[tokio::test]
async fn jobs_stop_when_told_and_unknown_ones_are_named() {
    let place = Place::new();
    let _head = place.head();
    let client = place.client().await;
    let job = client.submit(place.job("stopped")).await.unwrap();
    let explained = client.explain("job-1").await.unwrap();
    assert_eq!(explained["status"], "waiting");
    client.stop_job(job).await.unwrap();
    client.stop_job(job).await.unwrap();
    assert_eq!(client.job(job).await.unwrap().state, JobProgress::Stopped);
    assert_eq!(words(&all(client.watch(job, true).await.unwrap()).await).last(), Some(&"stopped"));

    let unknown = |error: ClientError| {
        let refusal = ClientRefusal::NoJob(JobId(99));
        assert!(matches!(&error, ClientError::Refused(r) if *r == refusal), "{error}");
    };
    unknown(client.stop_job(JobId(99)).await.unwrap_err());
    unknown(client.watch(JobId(99), true).await.unwrap_err());
    unknown(client.explain("job-99").await.unwrap_err());
    assert!(client.explain("nonsense").await.unwrap_err().to_string().contains("nonsense"));
    let error = client.drain_worker(WorkerId(9)).await.unwrap_err();
    assert!(error.to_string().contains("worker-9"), "{error}");
}

#[tokio::test]
async fn a_driver_whose_worker_is_lost_runs_again_elsewhere() {
    let place = Place::new();
    let _head = place.head();
    let client = place.client().await;
    let mut first = Worker::join(&place.home).await;
    let job = client.submit(place.job("survivor")).await.unwrap();
    assert_eq!(first.expect_driver().await, (job, 0));
    let mut second = Worker::join(&place.home).await;
    // Not a farewell: its machine is gone, and the head hears nothing any longer.
    first.endpoint.close("power failure");
    drop(first);
    assert_eq!(second.expect_driver().await, (job, 1));
    second.finish_driver(job, 1);
    let updates = all(client.watch(job, true).await.unwrap()).await;
    assert_eq!(words(&updates).last(), Some(&"succeeded"));
    assert_eq!(client.job(job).await.unwrap().attempt, 1);
    assert_eq!(client.status().await.unwrap().workers.len(), 1);
}

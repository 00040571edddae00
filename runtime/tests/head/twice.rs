//! What a client or a worker says twice counts once. What the cores say to each other has a number
//! of its own, which `rdist-scheduler` tests (`twice`); submissions are tested in `jobs`.

use rdist::client::{Client, JobProgress, JobUpdate, Role};
use rdist::scheduler::id::{JobId, TaskId, WorkerId};
use rdist::scheduler::message::{FromHead, ToHead};
use rdist::scheduler::outcome::{Outcome, Returned};
use rdist::scheduler::spec::{ActorOptions, TaskKind, TaskSpec};
use rdist::wire::cluster::{HeadToWorker, Output, Said, WorkerToHead, WorkerUsage};

use crate::worker::Worker;
use crate::{Place, within};

/// Who is a member, what it has, and whether it drains.
async fn members(client: &Client) -> Vec<(WorkerId, String, bool)> {
    let workers = client.status().await.unwrap().workers.into_iter();
    workers.map(|worker| (worker.worker, worker.available.to_string(), worker.draining)).collect()
}

#[tokio::test]
async fn what_a_client_wants_twice_is_done_once() {
    let place = Place::new();
    let _head = place.head();
    let client = place.client().await;
    let mut stays = Worker::join(&place.home).await;
    let mut goes = Worker::join(&place.home).await;
    let path = place.program(b"a program");
    assert_eq!(client.upload(&path).await.unwrap(), client.upload(&path).await.unwrap());
    assert_eq!(std::fs::read_dir(place.home.blobs()).unwrap().count(), 1);

    let cpus = || "2 CPU".to_owned();
    for _ in 0..2 {
        client.drain_worker(stays.id).await.unwrap();
        let expected = [(stays.id, cpus(), true), (goes.id, cpus(), false)];
        assert_eq!(members(&client).await, expected);
    }
    for _ in 0..2 {
        client.remove_worker(goes.id).await.unwrap();
        assert_eq!(members(&client).await, [(stays.id, cpus(), true)]);
    }
    goes.expect_shutdown().await;
    // The question comes after all that was said before.
    let question = tokio::spawn({
        let client = client.clone();
        async move { client.list(rdist::client::Listed::Tasks, 1).await }
    });
    let mut deaths = 0;
    stays
        .find(|message| match message {
            HeadToWorker::Core { message: FromHead::WorkerDied { worker, .. }, .. } => {
                assert_eq!(worker, goes.id);
                deaths += 1;
                None
            }
            HeadToWorker::Query { .. } => Some(()),
            _ => None,
        })
        .await;
    assert_eq!(deaths, 1);
    question.abort();

    let before = client.token_list().await.unwrap().len();
    client.token_create(Role::Client, None, None).await.unwrap();
    let token = client.token_list().await.unwrap().into_iter().max_by_key(|t| t.created_at);
    let token = token.unwrap();
    for _ in 0..2 {
        client.token_revoke(token.id).await.unwrap();
        let tokens = client.token_list().await.unwrap();
        assert_eq!(tokens.len(), before + 1);
        assert!(tokens.iter().any(|known| known.id == token.id && known.revoked));
    }
}

fn said(worker: &Worker, job: JobId) -> WorkerToHead {
    let output = Output {
        job,
        worker: worker.id,
        task: None,
        source: "driver".to_owned(),
        stderr: false,
        text: "once\n".to_owned(),
    };
    WorkerToHead::Said { number: 1, said: Said::Output(output) }
}

/// A task of the job's that makes a detached actor.
fn detach(job: JobId) -> WorkerToHead {
    let options = ActorOptions { name: Some("lasting".to_owned()), ..ActorOptions::default() };
    let driver = TaskId::driver(job);
    let kind = TaskKind::ActorCreate(Box::new(options));
    WorkerToHead::Detach { spec: TaskSpec { kind, ..TaskSpec::plain(driver.child(1), driver) } }
}

fn finished(job: JobId) -> WorkerToHead {
    let returned = Returned { size: 0, inline: true, contains: Vec::new() };
    let outcome = Outcome::Returned(vec![returned]);
    let message = ToHead::DriverFinished { job, attempt: 0, outcome };
    WorkerToHead::Core { number: 1, message }
}

#[tokio::test]
async fn what_a_worker_says_twice_counts_once() {
    let place = Place::new();
    let _head = place.head();
    let client = place.client().await;
    let mut worker = Worker::join(&place.home).await;
    let alone = [(worker.id, "2 CPU".to_owned(), false)];
    for _ in 0..2 {
        worker.send(&WorkerToHead::Register(worker.registration()));
        worker.expect_registered().await;
        assert_eq!(members(&client).await, alone);
    }
    let job = client.submit(place.job("once")).await.unwrap();
    assert_eq!(worker.expect_driver().await, (job, 0));
    let usage = WorkerUsage { live_bytes: 7, ..WorkerUsage::default() };
    for message in [WorkerToHead::Usage(usage.clone()), said(&worker, job), detach(job)] {
        worker.send(&message);
        worker.send(&message);
    }
    // The actor's own job, of which there is one.
    assert_eq!(worker.expect_driver().await, (JobId(2), 0));
    worker.send(&finished(job));
    worker.send(&finished(job));
    let mut updates = client.watch(job, true).await.unwrap();
    let (mut texts, mut ends) = (Vec::new(), 0);
    while let Some(update) = within(updates.next()).await.unwrap() {
        match update {
            JobUpdate::Output { text, .. } => texts.push(text),
            JobUpdate::State { state: JobProgress::Succeeded, .. } => ends += 1,
            _ => {}
        }
    }
    assert_eq!((texts, ends), (vec!["once\n".to_owned()], 1));
    let jobs = client.jobs().await.unwrap();
    assert_eq!(Vec::from_iter(jobs.iter().map(|job| job.job)), [job, JobId(2)]);
    assert_eq!(client.status().await.unwrap().workers[0].usage, usage);

    worker.send(&WorkerToHead::Leaving { told: true });
    worker.send(&WorkerToHead::Leaving { told: true });
    worker.expect_shutdown().await;
    assert!(members(&client).await.is_empty());
    // It has left, and is not removed: what follows it is welcome.
    Worker::join(&place.home).await;
    assert_eq!(members(&client).await.len(), 1);
}

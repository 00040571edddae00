//! A head that is killed and comes back.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rdist::client::JobProgress;
use rdist::config::HeadConfig;
use rdist::head::Head;
use rdist::head::journal::{Books, SledStore};
use rdist::scheduler::id::{JobId, TaskId, WorkerId};
use rdist::scheduler::message::HeldTask;
use rdist::scheduler::resource::Resources;
use rdist::transport::{Entrance, Tuning, join};
use rdist::wire::cluster::{HeadToWorker, WorkerToHead};

use crate::worker::Worker;
use crate::{Place, within};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_on_disk_at_that_moment() {
    let place = Place::new();
    let _head = place.head();
    let client = place.client().await;
    for round in 1..=5_u32 {
        let job = client.submit(place.job("durable")).await.unwrap();
        // The state as a power failure would leave it right now, while the head runs on.
        let snapshot = place.folder.path().join(format!("snapshot-{round}"));
        copy(&place.home.head().join("state"), &snapshot);
        let books = Books::open(Box::new(SledStore::open(&snapshot).unwrap())).unwrap();
        assert_eq!(books.jobs().len(), round as usize);
        assert!(books.jobs().contains_key(&job));
    }
}

#[tokio::test]
async fn jobs_workers_and_numbers_survive_a_killed_head() {
    let place = Place::new();
    let head = place.head();
    let client = place.client().await;
    let mut worker = Worker::join(&place.home).await;
    let running = client.submit(place.job("running")).await.unwrap();
    assert_eq!(worker.expect_driver().await, (running, 0));
    worker.say(running, "before\n");
    let waiting = client.submit(place.job("ended")).await.unwrap();
    client.stop_job(waiting).await.unwrap();
    let mut watcher = client.watch(running, true).await.unwrap();
    within(async {
        while let Some(update) = watcher.next().await.unwrap() {
            if matches!(update, rdist::client::JobUpdate::Output { .. }) {
                break;
            }
        }
    })
    .await;

    head.kill().unwrap();
    worker.held.assigned.push(HeldTask {
        task: TaskId::driver(running),
        attempt: 0,
        owner: WorkerId::HEAD,
        request: Resources::NONE,
        driver: true,
    });
    // Said while no head is there.
    worker.say(running, "between\n");
    let _head = place.head();
    assert_eq!(worker.expect_registered().await, 2);

    let client = place.client().await;
    let jobs = client.jobs().await.unwrap();
    assert_eq!(jobs.len(), 2);
    assert_eq!(jobs[0].state, JobProgress::Running { worker: worker.id.0 });
    assert_eq!(jobs[1].state, JobProgress::Stopped);
    worker.say(running, "after\n");
    worker.finish_driver(running, 0);
    let mut watcher = client.watch(running, true).await.unwrap();
    let mut said = Vec::new();
    within(async {
        while let Some(update) = watcher.next().await.unwrap() {
            if let rdist::client::JobUpdate::Output { text, .. } = update {
                said.push(text);
            }
        }
    })
    .await;
    // What was not acknowledged when the head died is told again rather than lost.
    said.dedup();
    assert_eq!(said, ["before\n", "between\n", "after\n"]);
    assert_eq!(client.job(running).await.unwrap().state, JobProgress::Succeeded);
    let next = client.submit(place.job("next")).await.unwrap();
    assert_eq!(next.0, 3, "numbers are not used again");
    assert_ne!(Worker::join(&place.home).await.id, worker.id);
}

#[tokio::test]
async fn a_worker_that_was_asked_to_drain_is_told_by_the_next_head() {
    let place = Place::new();
    let head = place.head();
    let mut worker = Worker::join(&place.home).await;
    let client = place.client().await;
    client.drain_worker(worker.id).await.unwrap();
    // The worker has not read it when the head dies.
    head.kill().unwrap();
    let _head = place.head();
    assert_eq!(worker.expect_registered().await, 2);
    worker.find(|message| (message == HeadToWorker::Drain).then_some(())).await;
    let client = place.client().await;
    assert!(client.status().await.unwrap().workers[0].draining);
    // Nothing is placed there meanwhile.
    client.submit(place.job("elsewhere")).await.unwrap();
    let mut other = Worker::join(&place.home).await;
    other.expect_driver().await;
    worker.send(&WorkerToHead::Leaving { told: true });
    worker.expect_shutdown().await;
    assert_eq!(client.status().await.unwrap().workers.len(), 1);
}

#[tokio::test]
async fn a_driver_whose_worker_does_not_come_back_to_a_new_head_runs_again() {
    let place = Place::new();
    let head = place.head();
    let client = place.client().await;
    let mut worker = Worker::join(&place.home).await;
    let job = client.submit(place.job("orphan")).await.unwrap();
    assert_eq!(worker.expect_driver().await, (job, 0));
    head.kill().unwrap();
    worker.endpoint.close("power failure");
    drop(worker);

    let _head = place.head();
    let mut other = Worker::join(&place.home).await;
    let (again, attempt) = other.expect_driver().await;
    assert_eq!(again, job);
    assert!(attempt >= 1);
}

#[tokio::test]
async fn a_worker_that_was_declared_lost_is_told_so_and_comes_back_as_another() {
    let place = Place::new();
    let head = place.head();
    let entrance = Entrance { home: place.home.clone(), head: None, token: None };
    let (admission, _) = entrance.join(Tuning::default()).await.unwrap();
    let identity = admission.identity;
    let mut worker = Worker::with(&identity, &place.home);
    worker.expect_registered().await;
    worker.endpoint.close("away for too long");
    drop(worker);
    let client = place.client().await;
    within(async {
        while !client.status().await.unwrap().workers.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut worker = Worker::with(&identity, &place.home);
    worker.expect_given_up().await;
    assert!(client.status().await.unwrap().workers.is_empty());
    let renewed = join::renew(head.address(), &identity, Tuning::default());
    let next = within(renewed).await.unwrap().identity;
    assert_ne!(next.worker(), identity.worker());
    Worker::with(&next, &place.home).expect_registered().await;
}

#[tokio::test]
async fn a_head_that_restarts_on_its_port_has_its_workers_back_at_once() {
    let place = Place::new();
    let slow =
        |listen| HeadConfig { listen, dead_after: Duration::from_secs(3_600), ..place.config() };
    let head = Head::start(slow(place.config().listen)).unwrap();
    let address = head.address().parse().unwrap();
    let patient = Tuning { dead_after: Duration::from_secs(3_600), ..Tuning::default() };
    let entrance = Entrance { home: place.home.clone(), head: None, token: None };
    let (admission, _) = entrance.join(Tuning::default()).await.unwrap();
    let identity = admission.identity;
    let mut worker = Worker::tuned(&identity, &place.home, patient);
    worker.expect_registered().await;
    head.kill().unwrap();
    let _head = Head::start(slow(address)).unwrap();
    // Any packet brings it to light: here, a line of output.
    worker.say(JobId(1), "is anybody there?\n");
    assert_eq!(worker.expect_registered().await, 2);
}

/// A machine that hangs sends no farewell, and comes back believing that nothing happened.
#[test]
fn a_worker_that_hangs_is_lost_and_told_so_when_it_comes_back() {
    let place = Place::new();
    let _head = place.head();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (here, there) = (runtime(), runtime());
    let mut worker = there.block_on(Worker::join(&place.home));
    // From here on nobody drives the worker's runtime.
    here.block_on(async {
        let client = place.client().await;
        let job = client.submit(place.job("unlucky")).await.unwrap();
        let mut other = Worker::join(&place.home).await;
        let (assigned, _) = other.expect_driver().await;
        assert_eq!(assigned, job);
        within(async {
            while client.status().await.unwrap().workers.len() > 1 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    });
    there.block_on(worker.expect_given_up());
}

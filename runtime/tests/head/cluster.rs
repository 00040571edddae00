//! Members, and questions that they answer.

use std::net::SocketAddr;

use rdist::client::Listed;
use rdist::scheduler::message::FromHead;
use rdist::transport::{Entrance, Tuning};
use rdist::wire::cluster::{HeadToWorker, Query, Things, WorkerToHead};

use crate::worker::Worker;
use crate::{Place, within};

#[tokio::test]
async fn members_hear_of_each_other_and_status_shows_them() {
    let place = Place::new();
    let head = place.head();
    let mut first = Worker::join(&place.home).await;
    let mut second = Worker::join(&place.home).await;
    let ids = (first.id, second.id);
    for (worker, other) in [(&mut first, ids.1), (&mut second, ids.0)] {
        let address = worker
            .find(|message| match message {
                HeadToWorker::Member { worker, address } if worker == other => Some(address),
                _ => None,
            })
            .await;
        // It listens on all addresses, so that it is where its packets come from.
        assert_eq!(address, "127.0.0.1:4711");
    }
    let status = place.client().await.status().await.unwrap();
    assert_eq!(status.address, head.address());
    assert_eq!(status.workers.len(), 2);
    assert_eq!(status.workers[0].host, "test");
    assert!(status.workers.iter().all(|worker| worker.connected && !worker.draining));
    assert_eq!(status.workers[0].available.to_string(), "2 CPU");
}

#[tokio::test]
async fn a_worker_that_moves_is_announced_to_those_that_are_there_and_those_that_come() {
    let place = Place::new();
    let _head = place.head();
    let mut other = Worker::join(&place.home).await;
    let moves = Worker::join(&place.home).await;
    let id = moves.id;
    let address = |message| match message {
        HeadToWorker::Member { worker, address } if worker == id => Some(address),
        _ => None,
    };
    assert_eq!(other.find(address).await, "127.0.0.1:4711");
    // Its network has changed; the connection goes on.
    moves.endpoint.rebind(SocketAddr::from(([127, 0, 0, 2], 0))).unwrap();
    assert_eq!(other.find(address).await, "127.0.0.2:4711");
    let mut late = Worker::join(&place.home).await;
    assert_eq!(late.find(address).await, "127.0.0.2:4711");
    let client = place.client().await;
    let listed = client.status().await.unwrap().workers;
    let addresses = Vec::from_iter(listed.iter().map(|worker| worker.address.as_str()));
    assert_eq!(addresses, ["127.0.0.1:4711", "127.0.0.2:4711", "127.0.0.1:4711"]);
}

#[tokio::test]
async fn lists_merge_what_all_workers_answer_and_wait_for_no_dead_one() {
    let place = Place::new();
    let _head = place.head();
    let mut workers = [Worker::join(&place.home).await, Worker::join(&place.home).await];
    let mute = Worker::join(&place.home).await;
    let client = place.client().await;
    let listing = tokio::spawn({
        let client = client.clone();
        async move { client.list(Listed::Tasks, 3).await.unwrap() }
    });
    for worker in &mut workers {
        let request = worker
            .find(|message| match message {
                HeadToWorker::Query { request, query } => {
                    assert_eq!(query, Query::List { what: Things::Tasks, limit: 3 });
                    Some(request)
                }
                _ => None,
            })
            .await;
        let id = worker.id;
        let json = format!(r#"{{"rows":[{{"task":"of {id}"}},{{"task":"2 of {id}"}}],"total":7}}"#);
        for _ in 0..2 {
            worker.send(&WorkerToHead::Answer { request, json: json.clone() });
        }
    }
    mute.send(&WorkerToHead::Leaving { told: true });
    let listed = within(listing).await.unwrap();
    assert_eq!((listed.rows.len(), listed.total), (3, 14));
    for row in listed.rows {
        assert!(row["task"].as_str().unwrap().ends_with(row["worker"].as_str().unwrap()), "{row}");
    }
    let listed = client.list(Listed::Workers, 1).await.unwrap();
    assert_eq!((listed.rows.len(), listed.total), (1, 2));
    assert_eq!(listed.rows[0]["labels"]["zone"], "a");
}

#[tokio::test]
async fn a_removed_worker_is_ended_and_the_others_hear_that_it_died() {
    let place = Place::new();
    let _head = place.head();
    let client = place.client().await;
    let mut stays = Worker::join(&place.home).await;
    let mut goes = Worker::join(&place.home).await;
    let gone = goes.id;
    client.remove_worker(gone).await.unwrap();
    goes.expect_shutdown().await;
    stays
        .find(|message| match message {
            HeadToWorker::Core { message: FromHead::WorkerDied { worker, .. }, .. } => {
                (worker == gone).then_some(())
            }
            _ => None,
        })
        .await;
    // It dials again on its own, and is told again.
    goes.expect_shutdown().await;
}

#[tokio::test]
async fn a_worker_that_drains_is_told_and_shown() {
    let place = Place::new();
    let _head = place.head();
    let client = place.client().await;
    let mut worker = Worker::join(&place.home).await;
    client.drain_worker(worker.id).await.unwrap();
    worker.find(|message| (message == HeadToWorker::Drain).then_some(())).await;
    assert!(client.status().await.unwrap().workers[0].draining);
    worker.send(&WorkerToHead::Leaving { told: true });
    worker.expect_shutdown().await;
    assert!(client.status().await.unwrap().workers.is_empty());
}

#[tokio::test]
async fn a_worker_cannot_register_as_another() {
    let place = Place::new();
    let _head = place.head();
    let honest = Worker::join(&place.home).await;
    let entrance = Entrance { home: place.home.clone(), head: None, token: None };
    let (admission, _) = entrance.join(Tuning::default()).await.unwrap();
    let mut liar = Worker::with(&admission.identity, &place.home);
    liar.id = honest.id;
    liar.expect_shutdown().await;
    let status = place.client().await.status().await.unwrap();
    assert_eq!(status.workers.len(), 1);
    assert_eq!(status.workers[0].worker, honest.id);
}

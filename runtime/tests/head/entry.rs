//! Who gets in, who does not, and what noise on the port does.

use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use rdist::client::{Client, ClientError, ClientRefusal, Role};
use rdist::config::HeadConfig;
use rdist::head::{Head, HeadError};
use rdist::scheduler::id::WorkerId;
use rdist::transport::discover::{EnterError, Entrance};
use rdist::transport::join::JoinError;
use rdist::transport::{ConnectError, Identity, Peer, Tuning};
use rdist::wire::join::JoinRefusal;

use crate::worker::Worker;
use crate::{Place, within};

async fn enter(place: &Place, token: &str) -> Result<Identity, EnterError> {
    let entrance = Entrance { home: place.home.clone(), head: None, token: Some(token.to_owned()) };
    within(entrance.join(Tuning::default())).await.map(|(admission, _)| admission.identity)
}

fn refusal(result: Result<Identity, EnterError>) -> JoinRefusal {
    match result.unwrap_err() {
        EnterError::Join(JoinError::Refused { refusal, .. }) => refusal,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn tokens_let_in_until_they_are_used_up_expired_or_revoked() {
    let place = Place::new();
    let _head = place.head();
    let client = place.client().await;

    let once = client.token_create(Role::Client, None, Some(1)).await.unwrap();
    assert_eq!(enter(&place, &once).await.unwrap().peer(), Peer::Client);
    assert_eq!(refusal(enter(&place, &once).await), JoinRefusal::UsedUp);

    let expired = client.token_create(Role::Worker, Some(0), None).await.unwrap();
    assert_eq!(refusal(enter(&place, &expired).await), JoinRefusal::Expired);

    let revoked = client.token_create(Role::Worker, None, None).await.unwrap();
    let first = enter(&place, &revoked).await.unwrap();
    let second = enter(&place, &revoked).await.unwrap();
    assert_ne!(first.worker(), second.worker());
    let id = client
        .token_list()
        .await
        .unwrap()
        .iter()
        .find(|t| {
            t.role == Role::Worker
                && t.expires_at.is_none()
                && t.created_at > 0
                && revoked.parse::<rdist::transport::Token>().unwrap().id == t.id
        })
        .unwrap()
        .id;
    client.token_revoke(id).await.unwrap();
    assert_eq!(refusal(enter(&place, &revoked).await), JoinRefusal::Revoked);

    let mut wrong = revoked.parse::<rdist::transport::Token>().unwrap();
    wrong.secret[0] ^= 1;
    assert_eq!(refusal(enter(&place, &wrong.to_string()).await), JoinRefusal::Wrong);
    wrong.id ^= 1;
    assert_eq!(refusal(enter(&place, &wrong.to_string()).await), JoinRefusal::Wrong);

    wrong.cluster.0[0] ^= 1;
    let error = enter(&place, &wrong.to_string()).await.unwrap_err();
    let foreign =
        matches!(error, EnterError::Join(JoinError::Connect(ConnectError::OtherCluster { .. })));
    assert!(foreign, "{error}");
    assert!(matches!(enter(&place, "no token").await, Err(EnterError::Token(_))));
}

#[tokio::test]
async fn a_worker_renews_itself_with_its_certificate_unless_it_was_removed() {
    let place = Place::new();
    let head = place.head();
    let client = place.client().await;
    let identity = enter(&place, &head.join_token()).await.unwrap();
    let renew = async |identity: &Identity| {
        let renewed = rdist::transport::join::renew(head.address(), identity, Tuning::default());
        within(renewed).await.map(|admission| admission.identity)
    };
    let next = renew(&identity).await.unwrap();
    assert_ne!(next.worker(), identity.worker());
    client.remove_worker(next.worker().unwrap()).await.unwrap();
    let error = renew(&next).await.unwrap_err();
    let removed = matches!(error, JoinError::Refused { refusal: JoinRefusal::Removed, .. });
    assert!(removed, "{error}");
    let by_client = place.home.client_identity();
    let error = renew(&Identity::load(&by_client).unwrap()).await.unwrap_err();
    let malformed = matches!(error, JoinError::Refused { refusal: JoinRefusal::Malformed(_), .. });
    assert!(malformed, "{error}");
}

#[tokio::test]
async fn a_worker_rotates_its_certificate_and_stays_who_it_is() {
    let place = Place::new();
    let head = place.head();
    let client = place.client().await;
    let identity = enter(&place, &head.join_token()).await.unwrap();
    let rotate = async |identity: &Identity| {
        let rotated = rdist::transport::join::rotate(head.address(), identity, Tuning::default());
        within(rotated).await.map(|admission| admission.identity)
    };
    let next = rotate(&identity).await.unwrap();
    assert_eq!(next.peer(), identity.peer());
    assert_ne!(next.chain(), identity.chain());
    let last = rotate(&next).await.unwrap();
    assert_eq!(last.peer(), identity.peer());
    client.remove_worker(identity.worker().unwrap()).await.unwrap();
    let error = rotate(&last).await.unwrap_err();
    let removed = matches!(error, JoinError::Refused { refusal: JoinRefusal::Removed, .. });
    assert!(removed, "{error}");
    let by_client = Identity::load(&place.home.client_identity()).unwrap();
    assert!(matches!(rotate(&by_client).await, Err(JoinError::Refused { .. })));
}

#[tokio::test]
async fn the_heads_certificate_changes_while_clients_stay_connected() {
    let place = Place::new();
    let rotate_every = Duration::from_millis(50);
    let head = Head::start(HeadConfig { rotate_every, ..place.config() }).unwrap();
    let first = std::fs::read(place.home.client_identity()).unwrap();
    let client = place.client().await;
    within(async {
        while std::fs::read(place.home.client_identity()).unwrap() == first {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    client.status().await.unwrap();
    place.client().await.status().await.unwrap();
    drop((client, head));
    assert!(!place.home.client_identity().exists());
}

/// A worker's certificate is good for the link and for fetching what its tasks need.
#[tokio::test]
async fn a_worker_submits_nothing_and_reads_no_logs() {
    let place = Place::new();
    let head = place.head();
    let client = place.client().await;
    let job = client.submit(place.job("of somebody else")).await.unwrap();
    let identity = enter(&place, &head.join_token()).await.unwrap();
    for attempt in 0..6 {
        let worker = Client::dial(head.address().to_owned(), &identity).await.unwrap();
        let refused = match attempt {
            0 => worker.submit(place.job("no")).await.map(drop),
            1 => worker.watch(job, true).await.map(drop),
            2 => worker.jobs().await.map(drop),
            3 => worker.stop_job(job).await,
            4 => worker.token_create(Role::Client, None, None).await.map(drop),
            _ => worker.shutdown_head(true).await,
        };
        let error = refused.unwrap_err();
        assert!(matches!(error, ClientError::Broken { .. }), "{attempt}: {error}");
    }
    let jobs = client.jobs().await.unwrap();
    assert_eq!(jobs.len(), 1);
    assert!(!jobs[0].state.is_ended(), "{jobs:?}");
    assert_eq!(client.token_list().await.unwrap().len(), 1, "the one of this folder");
}

#[tokio::test]
async fn read_only_clients_look_and_change_nothing() {
    let place = Place::new();
    let head = place.head();
    let token = place.client().await.token_create(Role::ReadOnly, None, None).await.unwrap();
    let entrance = Entrance {
        home: place.home.clone(),
        head: Some(head.address().to_owned()),
        token: Some(token),
    };
    let looker = Client::connect_with(&entrance).await.unwrap();
    looker.status().await.unwrap();
    looker.jobs().await.unwrap();
    let job = place.client().await.submit(place.job("to be seen")).await.unwrap();
    looker.watch(job, true).await.unwrap();
    looker.explain("job-1").await.unwrap();
    let refused = |error: ClientError| {
        assert!(matches!(error, ClientError::Refused(ClientRefusal::ReadOnly)), "{error}");
    };
    refused(looker.submit(place.job("no")).await.unwrap_err());
    refused(looker.stop_job(job).await.unwrap_err());
    refused(looker.upload(&place.program(b"a program of mine")).await.unwrap_err());
    refused(looker.drain_worker(WorkerId(1)).await.unwrap_err());
    refused(looker.token_revoke(1).await.unwrap_err());
    refused(looker.shutdown_head(true).await.unwrap_err());
    refused(looker.token_create(Role::Client, None, None).await.unwrap_err());
    refused(looker.token_list().await.unwrap_err());
    refused(looker.remove_worker(WorkerId(1)).await.unwrap_err());
}

#[tokio::test]
async fn noise_on_the_port_leaves_the_head_undisturbed() {
    let place = Place::new();
    let head = place.head();
    let noise = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    noise.connect(head.address()).unwrap();
    let mut bytes = [0; 1_200];
    for round in 0..500_usize {
        getrandom::fill(&mut bytes).unwrap();
        if round % 2 == 0 {
            // The long header of a QUIC version 1 Initial packet, then noise.
            bytes[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]);
        }
        let len = if round % 5 == 0 { round } else { bytes.len() };
        let _ = noise.send(&bytes[..len]);
    }
    // Members that speak nonsense.
    let client = place.client().await;
    let identity = Identity::load(&place.home.client_identity()).unwrap();
    let endpoint = rdist::transport::Endpoint::dialer(&identity, Tuning::default()).unwrap();
    let connection = endpoint.connect(head.address(), Peer::Head).await.unwrap();
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send.write_all(&[0xff; 64]).await.unwrap();
    within(connection.closed()).await;
    let identity = enter(&place, &head.join_token()).await.unwrap();
    let endpoint = rdist::transport::Endpoint::dialer(&identity, Tuning::default()).unwrap();
    let connection = endpoint.connect(head.address(), Peer::Head).await.unwrap();
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send.write_all(&[0xff; 64]).await.unwrap();
    within(connection.closed()).await;

    Worker::join(&place.home).await;
    assert_eq!(client.status().await.unwrap().workers.len(), 1);
}

#[tokio::test]
async fn a_worker_that_sends_nonsense_frames_is_ended() {
    let place = Place::new();
    let _head = place.head();
    let mut worker = Worker::join(&place.home).await;
    worker.link.send(vec![0xff; 100]).unwrap();
    worker.expect_shutdown().await;
    assert!(place.client().await.status().await.unwrap().workers.is_empty());
}

#[tokio::test]
async fn one_home_has_one_head_and_its_files_go_with_it() {
    let place = Place::new();
    let error = Client::connect(&place.home).await.unwrap_err();
    assert!(error.to_string().contains("start one with `rdist head start`"), "{error}");

    let head = place.head();
    let files = [place.home.head_file(), place.home.join_token(), place.home.client_identity()];
    for file in &files {
        assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let mode = std::fs::metadata(place.home.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let token = head.join_token();
    let error = Head::start(place.config()).unwrap_err();
    assert!(matches!(error, HeadError::Running { .. }), "{error}");
    assert!(error.to_string().contains(head.address()), "{error}");

    head.shutdown();
    head.wait().unwrap();
    assert!(files.iter().all(|file| !file.exists()));
    let head = place.head();
    assert_eq!(refusal(enter(&place, &token).await), JoinRefusal::Wrong);
    head.kill().unwrap();
    let error = Client::connect(&place.home).await.unwrap_err();
    assert!(matches!(error, ClientError::HeadDied { .. }), "{error}");
}

#[tokio::test]
async fn a_client_can_end_the_head_and_hears_that_it_did() {
    let place = Place::new();
    let head = place.head();
    let mut worker = Worker::join(&place.home).await;
    let client = place.client().await;
    client.shutdown_head(true).await.unwrap();
    worker.expect_shutdown().await;
    within(client.closed()).await;
    head.wait().unwrap();
}

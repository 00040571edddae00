//! The transport over real sockets on loopback: who gets in, who does not, and links that outlive
//! their connections.
#![allow(clippy::unwrap_used, missing_docs)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdist::scheduler::id::WorkerId;
use rdist::transport::Tuning;
use rdist::transport::discover::Target;
use rdist::transport::identity::{Authority, Peer};
use rdist::transport::join::{self, JoinError, Registrar};
use rdist::transport::link::{self, LinkEvent, LinkHandle, LinkServer, Opening};
use rdist::transport::quic::{Arrival, ConnectError, Connection, Endpoint, close};
use rdist::transport::{Identity, Token};
use rdist::wire::join::{JoinRefusal, Role};
use tokio::sync::mpsc;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);
const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn authority() -> Authority {
    let folder = tempfile::tempdir().unwrap();
    Authority::load_or_create(&folder.path().join("ca.pem")).unwrap()
}

fn bind(authority: &Authority, peer: Peer, tuning: Tuning) -> (Endpoint, String) {
    let identity = authority.identity(peer).unwrap();
    let endpoint = Endpoint::bind(LOOPBACK, &identity, tuning).unwrap();
    let address = endpoint.local_address().unwrap().to_string();
    (endpoint, address)
}

/// Accepts members for ever and gives each connection to the channel.
fn members(endpoint: Endpoint) -> mpsc::UnboundedReceiver<Connection> {
    let (found, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let found = found.clone();
            tokio::spawn(async move {
                if let Ok(Arrival::Member(connection)) = incoming.establish().await {
                    let _ = found.send(connection);
                }
            });
        }
    });
    receiver
}

fn worker(authority: &Authority, id: u64) -> Identity {
    authority.identity(Peer::Worker(WorkerId(id))).unwrap()
}

fn dialer(identity: &Identity) -> Endpoint {
    Endpoint::dialer(identity, Tuning::default()).unwrap()
}

#[tokio::test]
async fn members_know_each_other_by_their_certificates() {
    let authority = authority();
    let (head, address) = bind(&authority, Peer::Head, Tuning::default());
    let mut arrived = members(head);
    let endpoint = dialer(&worker(&authority, 5));
    let connection = endpoint.connect(&address, Peer::Head).await.unwrap();
    assert_eq!(connection.peer(), Peer::Head);
    assert_eq!(arrived.recv().await.unwrap().peer(), Peer::Worker(WorkerId(5)));
}

#[tokio::test]
async fn whoever_is_dialled_must_be_the_one_that_was_expected() {
    let authority = authority();
    let (seven, address) = bind(&authority, Peer::Worker(WorkerId(7)), Tuning::default());
    let _arrived = members(seven);
    let endpoint = dialer(&worker(&authority, 5));
    let expected = Peer::Worker(WorkerId(8));
    let error = endpoint.connect(&address, expected).await.unwrap_err();
    assert!(matches!(error, ConnectError::OtherPeer { .. }), "{error}");
    let client = dialer(&authority.identity(Peer::Client).unwrap());
    client.connect(&address, Peer::Worker(WorkerId(7))).await.unwrap();
}

#[tokio::test]
async fn a_client_cannot_play_the_head() {
    let authority = authority();
    let (fake, address) = bind(&authority, Peer::Client, Tuning::default());
    let _arrived = members(fake);
    let endpoint = dialer(&worker(&authority, 5));
    let error = endpoint.connect(&address, Peer::Head).await.unwrap_err();
    assert!(matches!(error, ConnectError::OtherPeer { .. }), "{error}");
}

#[tokio::test]
async fn members_of_another_cluster_are_refused_on_both_sides() {
    let (ours, theirs) = (authority(), authority());
    let (head, address) = bind(&ours, Peer::Head, Tuning::default());
    let mut arrived = members(head);
    let error = dialer(&worker(&theirs, 1)).connect(&address, Peer::Head).await.unwrap_err();
    assert!(matches!(error, ConnectError::OtherCluster { .. }), "{error}");
    // Only the member that follows has got in.
    dialer(&worker(&ours, 2)).connect(&address, Peer::Head).await.unwrap();
    assert_eq!(arrived.recv().await.unwrap().peer(), Peer::Worker(WorkerId(2)));
}

#[tokio::test]
async fn another_version_is_refused_by_an_error_that_names_both() {
    let authority = authority();
    let newer = Tuning { version: 9_001, ..Tuning::default() };
    let (head, address) = bind(&authority, Peer::Head, newer);
    let _arrived = members(head);
    let error = dialer(&worker(&authority, 1)).connect(&address, Peer::Head).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ConnectError::OtherVersion { .. }), "{text}");
    let ours = format!("speaks {}", rdist::wire::PROTOCOL_VERSION);
    assert!(text.contains("version 9001") && text.contains(&ours), "{text}");
}

#[tokio::test]
async fn nobody_at_the_address_is_an_error_that_says_so() {
    let authority = authority();
    let quick = Tuning { dead_after: Duration::from_millis(200), ..Tuning::default() };
    let endpoint = Endpoint::dialer(&worker(&authority, 1), quick).unwrap();
    let taken = std::net::UdpSocket::bind(LOOPBACK).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = endpoint.connect(&address, Peer::Head).await.unwrap_err();
    assert!(matches!(error, ConnectError::Silent { .. }), "{error}");
    let error = endpoint.connect("no port", Peer::Head).await.unwrap_err();
    assert!(matches!(error, ConnectError::Address { .. }), "{error}");
}

/// The other side hangs: its sockets are open, and nobody drives them.
#[test]
fn silence_is_noticed_within_the_time_that_is_told() {
    const DEAD_AFTER: Duration = Duration::from_secs(1);
    let authority = authority();
    let tuning = Tuning { dead_after: DEAD_AFTER, ..Tuning::default() };
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (here, there) = (runtime(), runtime());
    let (head, address) = there.block_on(async { bind(&authority, Peer::Head, tuning.clone()) });
    let dialing = here.spawn(async move {
        let endpoint = Endpoint::dialer(&worker(&authority, 1), tuning).unwrap();
        endpoint.connect(&address, Peer::Head).await.unwrap()
    });
    let accepting = there.spawn(async move { head.accept().await.unwrap().establish().await });
    let pair = std::thread::scope(|scope| {
        let there = scope.spawn(|| there.block_on(accepting).unwrap());
        (here.block_on(dialing).unwrap(), there.join().unwrap())
    });
    let (connection, _other) = pair;
    // It says something once more than it hears.
    let heard = std::time::Instant::now();
    let reason = here.block_on(connection.closed());
    let silent = heard.elapsed();
    assert!(matches!(reason, quinn::ConnectionError::TimedOut), "{reason}");
    let slack = Duration::from_millis(200);
    assert!(silent <= DEAD_AFTER + slack, "{silent:?}");
    assert!(silent >= DEAD_AFTER / 2, "{silent:?}");
}

#[tokio::test]
async fn a_joiner_trusts_nothing_but_the_pinned_authority() {
    let (ours, theirs) = (authority(), authority());
    let (head, address) = bind(&theirs, Peer::Head, Tuning::default());
    let _arrived = members(head);
    let token = Token { role: Role::Worker, cluster: ours.fingerprint(), id: 1, secret: [0; 16] };
    let error = join::join(&address, &token, Tuning::default()).await.unwrap_err();
    let other = matches!(error, JoinError::Connect(ConnectError::OtherCluster { .. }));
    assert!(other, "{error}");
}

#[tokio::test]
async fn a_refusal_reaches_the_joiner_and_a_grant_makes_a_member() {
    let authority = Arc::new(authority());
    let (head, address) = bind(&authority, Peer::Head, Tuning::default());
    let dead_after = Duration::from_secs(8);
    let registrar = Registrar { authority: authority.clone(), dead_after };
    let endpoint = head.clone();
    tokio::spawn(async move {
        let mut answers = vec![Err(JoinRefusal::Expired), Ok(Peer::Worker(WorkerId(3)))];
        answers.reverse();
        while let Some(incoming) = endpoint.accept().await {
            if let Ok(Arrival::Joiner { connection, renews }) = incoming.establish().await {
                let answer = answers.pop().unwrap();
                registrar.answer(connection, renews, async move |_, _| answer).await;
            }
        }
    });
    let token =
        Token { role: Role::Worker, cluster: authority.fingerprint(), id: 1, secret: [0; 16] };
    let error = join::join(&address, &token, Tuning::default()).await.unwrap_err();
    let expired = matches!(error, JoinError::Refused { refusal: JoinRefusal::Expired, .. });
    assert!(expired, "{error}");
    let admission = join::join(&address, &token, Tuning::default()).await.unwrap();
    assert_eq!(admission.identity.worker(), Some(WorkerId(3)));
    assert_eq!(admission.identity.cluster(), authority.fingerprint());
    assert_eq!(admission.dead_after, dead_after);
}

/// A head's links, whose connections the test can kill.
struct Head {
    events: mpsc::UnboundedReceiver<(Peer, LinkEvent)>,
    callers: mpsc::UnboundedReceiver<LinkHandle>,
}

fn serve_links(endpoint: Endpoint) -> Head {
    serve_and_kill(endpoint, u32::MAX)
}

/// Kills the connection after each `every` frames.
fn serve_and_kill(endpoint: Endpoint, every: u32) -> Head {
    let (report, events) = mpsc::unbounded_channel();
    let killer = Mutex::new((None::<Connection>, 0));
    let (called, callers) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut server = LinkServer::new(Arc::new(move |peer, event| {
            let (open, frames) = &mut *killer.lock().unwrap();
            match &event {
                LinkEvent::Connected { connection, .. } => *open = Some(connection.clone()),
                LinkEvent::Frame(_) => *frames += 1,
                _ => {}
            }
            if *frames >= every
                && let Some(connection) = open.take()
            {
                connection.close(close::DONE, "killed by the test");
                *frames = 0;
            }
            let _ = report.send((peer, event));
        }));
        let mut connections = members(endpoint);
        while let Some(connection) = connections.recv().await {
            if let Ok(caller) = link::receive_caller(connection).await {
                let _ = called.send(server.attach(caller));
            }
        }
    });
    Head { events, callers }
}

fn dial(
    endpoint: &Endpoint,
    address: &str,
    opening: Opening,
) -> (LinkHandle, mpsc::UnboundedReceiver<LinkEvent>) {
    let (report, events) = mpsc::unbounded_channel();
    let target = Target::Address(address.to_owned());
    let handle = link::dial(endpoint, target, Peer::Head, opening, move |event| {
        let _ = report.send(event);
    });
    (handle, events)
}

#[tokio::test]
async fn a_link_loses_and_doubles_nothing_over_killed_connections() {
    const FRAMES: u32 = 50_000;
    let authority = authority();
    let (endpoint, address) = bind(&authority, Peer::Head, Tuning::default());
    let mut head = serve_and_kill(endpoint, 5_000);
    let worker = dialer(&worker(&authority, 4));
    let (up, mut worker_events) = dial(&worker, &address, Opening::Plain);
    let down = head.callers.recv().await.unwrap();
    let sender = std::thread::spawn(move || {
        for number in 0..FRAMES {
            let size = if number % 5_000 == 0 { 100_000 } else { 4 };
            let mut frame = number.to_le_bytes().to_vec();
            frame.resize(size, 0);
            up.send(frame.clone()).unwrap();
            down.send(frame).unwrap();
        }
        up
    });
    let number = |frame: &[u8]| u32::from_le_bytes(frame[..4].try_into().unwrap());
    let (mut at_head, mut at_worker, mut killed) = (0, 0, 0);
    while at_head < FRAMES || at_worker < FRAMES {
        tokio::select! {
            event = timeout(PATIENCE, head.events.recv()) => match event.unwrap().unwrap().1 {
                LinkEvent::Frame(frame) => {
                    assert_eq!(number(&frame), at_head);
                    at_head += 1;
                }
                LinkEvent::Disconnected { .. } => killed += 1,
                _ => {}
            },
            event = timeout(PATIENCE, worker_events.recv()) => match event.unwrap().unwrap() {
                LinkEvent::Frame(frame) => {
                    assert_eq!(number(&frame), at_worker);
                    at_worker += 1;
                }
                LinkEvent::Connected { fresh, meeting, .. } => assert_eq!(fresh, meeting == 1),
                _ => {}
            },
        }
    }
    assert!(killed >= 3, "the test killed only {killed} connections");
    sender.join().unwrap().close();
}

#[tokio::test]
async fn a_head_without_memory_is_met_afresh_and_gets_the_announcement_first() {
    let authority = authority();
    let (endpoint, address) = bind(&authority, Peer::Head, Tuning::default());
    let mut head = serve_links(endpoint.clone());
    let worker = dialer(&worker(&authority, 4));
    let (link, mut events) = dial(&worker, &address, Opening::Announced);
    link.send(b"too early".to_vec()).unwrap();
    link.send_lasting(b"log".to_vec()).unwrap();
    let meeting = fresh_meeting(&mut events).await;
    link.begin(meeting, b"register".to_vec()).unwrap();
    assert_eq!(frames(&mut head.events, 2).await, ["register", "log"]);

    // The head is killed and another process takes over its port and its certificates.
    endpoint.close("killed");
    endpoint.wait_idle().await;
    drop((endpoint, head));
    let identity = authority.identity(Peer::Head).unwrap();
    let again = loop {
        match Endpoint::bind(address.parse().unwrap(), &identity, Tuning::default()) {
            Ok(endpoint) => break endpoint,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let mut head = serve_links(again);
    let meeting = fresh_meeting(&mut events).await;
    link.send_lasting(b"more log".to_vec()).unwrap();
    link.begin(meeting, b"register again".to_vec()).unwrap();
    link.send(b"state".to_vec()).unwrap();
    // A lasting frame whose acknowledgement was under way is told to the new head as well.
    let mut got = frames(&mut head.events, 3).await;
    if got[1] == "log" {
        got.remove(1);
        got.extend(frames(&mut head.events, 1).await);
    }
    assert_eq!(got, ["register again", "more log", "state"]);
}

async fn fresh_meeting(events: &mut mpsc::UnboundedReceiver<LinkEvent>) -> u64 {
    loop {
        let event = timeout(PATIENCE, events.recv()).await.unwrap().unwrap();
        if let LinkEvent::Connected { fresh: true, meeting, .. } = event {
            return meeting;
        }
    }
}

async fn frames(
    events: &mut mpsc::UnboundedReceiver<(Peer, LinkEvent)>,
    count: usize,
) -> Vec<String> {
    let mut got = Vec::new();
    while got.len() < count {
        let event = timeout(PATIENCE, events.recv()).await.unwrap().unwrap();
        if let (_, LinkEvent::Frame(frame)) = event {
            got.push(String::from_utf8(frame).unwrap());
        }
    }
    got
}

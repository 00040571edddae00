use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use rdist_scheduler::id::{ObjectId, TaskId, WorkerId};

use super::*;
use crate::store::{Arena, Incoming, View};
use crate::transport::{Authority, Connection, Endpoint, Peer, Tuning};
use crate::wire::cluster::{Place, StreamRequest};

/// Larger than a piece, and not a multiple of one.
const LEN: usize = (3 << 20) + 17;

/// How an object was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Network,
    Memory,
}

/// Two workers on loopback; one has an object.
struct Pair {
    connection: Connection,
    ways: Arc<Mutex<Vec<Way>>>,
    _endpoint: Endpoint,
}

impl Pair {
    /// The source tells every asker of its own machine that the object lies at `place`.
    async fn new(view: View, place: Option<Place>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(&folder.path().join("ca.pem")).unwrap();
        let identity = |id| authority.identity(Peer::Worker(WorkerId(id))).unwrap();
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let source = Endpoint::bind(loopback, &identity(1), Tuning::default()).unwrap();
        let address = source.local_address().unwrap().to_string();
        let ways = Arc::<Mutex<Vec<Way>>>::default();
        tokio::spawn(answer(source, view, place, ways.clone()));
        let endpoint = Endpoint::dialer(&identity(2), Tuning::default()).unwrap();
        let connection = endpoint.connect(&address, Peer::Worker(WorkerId(1))).await.unwrap();
        Self { connection, ways, _endpoint: endpoint }
    }

    async fn pull(&self, block: &mut Incoming) -> Vec<Way> {
        pull(&self.connection, object(), block, &|| {}).await.unwrap();
        std::mem::take(&mut *self.ways.lock().unwrap())
    }
}

async fn answer(source: Endpoint, view: View, place: Option<Place>, ways: Arc<Mutex<Vec<Way>>>) {
    let Ok(crate::transport::Arrival::Member(connection)) =
        source.accept().await.unwrap().establish().await
    else {
        panic!("a member was expected");
    };
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        let request = read_request(&mut receive).await.unwrap();
        let StreamRequest::Object { host, from, .. } = request else { panic!("{request:?}") };
        let place = reachable(place.clone(), host);
        let way = if place.is_some() { Way::Memory } else { Way::Network };
        ways.lock().unwrap().push(way);
        match place {
            Some(place) => serve_here(&mut send, &mut receive, place).await.unwrap(),
            None => serve_bytes(&mut send, view.clone(), from).await.unwrap(),
        }
    }
}

fn object() -> ObjectId {
    TaskId::default().object(1)
}

fn bytes() -> Vec<u8> {
    (0..LEN).map(|index| (index % 251) as u8).collect()
}

/// An arena with the object in it, and where it lies.
fn source() -> (Arena, View, Place) {
    let mut arena = Arena::new(64 << 20);
    let mut block = arena.create(LEN as u64).unwrap();
    block.copy_from_slice(&bytes());
    let block = arena.seal(block);
    let (view, place) = (arena.read(block).unwrap(), arena.place(block).unwrap());
    (arena, view, place)
}

async fn pulled_over(place: impl FnOnce(Place) -> Option<Place>) -> Vec<Way> {
    let (_arena, view, there) = source();
    let pair = Pair::new(view, place(there)).await;
    let mut destination = Arena::new(64 << 20);
    let mut block = destination.create(LEN as u64).unwrap();
    let ways = pair.pull(&mut block).await;
    assert!(block[..] == bytes()[..], "other bytes arrived");
    ways
}

#[tokio::test]
async fn an_object_comes_over_the_network() {
    assert_eq!(pulled_over(|_| None).await, [Way::Network]);
}

#[tokio::test]
async fn on_one_machine_an_object_is_read_where_it_lies() {
    assert_eq!(pulled_over(Some).await, [Way::Memory]);
}

#[tokio::test]
async fn what_cannot_be_read_in_place_comes_over_the_network() {
    let closed = |place| Some(Place { descriptor: i32::MAX, ..place });
    assert_eq!(pulled_over(closed).await, [Way::Memory, Way::Network]);
    let replaced = |place: Place| Some(Place { inode: place.inode ^ 1, ..place });
    assert_eq!(pulled_over(replaced).await, [Way::Memory, Way::Network]);
}

/// A block that comes to the source while it is asked for, and how it comes.
fn arriving(arrivals: &Arrivals) -> (Arena, Incoming, std::rc::Rc<Arrival>) {
    let mut arena = Arena::new(64 << 20);
    let block = arena.create(LEN as u64).unwrap();
    let arrival = arrivals.begin(object(), &block);
    (arena, block, arrival)
}

fn grow(block: &mut Incoming, arrival: &Arrival, bytes: &[u8]) {
    block.rest(bytes.len()).copy_from_slice(bytes);
    block.advance(bytes.len());
    arrival.grow();
}

/// A source that hands on what comes to it, and a connection to it.
async fn relaying(arrivals: std::rc::Rc<Arrivals>) -> (Connection, Endpoint) {
    let (folder, loopback) =
        (tempfile::tempdir().unwrap(), SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let authority = Authority::load_or_create(&folder.path().join("ca.pem")).unwrap();
    let identity = |id| authority.identity(Peer::Worker(WorkerId(id))).unwrap();
    let source = Endpoint::bind(loopback, &identity(1), Tuning::default()).unwrap();
    let address = source.local_address().unwrap().to_string();
    tokio::task::spawn_local(async move {
        let Ok(crate::transport::Arrival::Member(connection)) =
            source.accept().await.unwrap().establish().await
        else {
            panic!("a member was expected");
        };
        while let Ok((mut send, mut receive)) = connection.accept_bi().await {
            let request = read_request(&mut receive).await.unwrap();
            let StreamRequest::Object { from, .. } = request else { panic!("{request:?}") };
            match arrivals.wait(object()).await {
                Some(arrival) => drop(serve_arrival(&mut send, &arrival, from).await),
                None => serve_nothing(&mut send).await.unwrap(),
            }
        }
    });
    let endpoint = Endpoint::dialer(&identity(2), Tuning::default()).unwrap();
    let connection = endpoint.connect(&address, Peer::Worker(WorkerId(1))).await.unwrap();
    (connection, endpoint)
}

#[tokio::test]
async fn what_still_comes_is_handed_on_piece_by_piece() {
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let arrivals = std::rc::Rc::new(Arrivals::default());
            let (connection, _endpoint) = relaying(arrivals.clone()).await;
            let mut destination = Arena::new(64 << 20);
            let mut wanted = destination.create(LEN as u64).unwrap();
            let came = wanted.share();
            let pulling = tokio::task::spawn_local(async move {
                let outcome = pull(&connection, object(), &mut wanted, &|| {}).await;
                (outcome, wanted, connection)
            });
            let (mut arena, mut block, arrival) = arriving(&arrivals);
            let bytes = bytes();
            grow(&mut block, &arrival, &bytes[..LEN / 2]);
            // The front half is there before the rest has come to its source.
            while came.filled() < LEN / 2 - (256 << 10) {
                tokio::task::yield_now().await;
            }
            assert!(came.filled() <= LEN / 2 && !pulling.is_finished());
            grow(&mut block, &arrival, &bytes[LEN / 2..]);
            arrivals.end(object(), true);
            // Sealed and freed meanwhile, it stays until the last reader has it.
            let block = arena.seal(block);
            arena.free(block);
            let (outcome, wanted, connection) = pulling.await.unwrap();
            outcome.unwrap();
            assert!(wanted[..] == bytes[..], "other bytes arrived");
            drop(arrival);

            // What ceases to come fails for the readers too.
            let mut wanted = destination.create(LEN as u64).unwrap();
            let (_arena, mut block, arrival) = arriving(&arrivals);
            grow(&mut block, &arrival, &bytes[..LEN / 2]);
            let fails = async {
                tokio::task::yield_now().await;
                arrivals.end(object(), false);
            };
            let pulled = pull(&connection, object(), &mut wanted, &|| {});
            let (outcome, ()) = tokio::join!(pulled, fails);
            assert!(matches!(outcome, Err(PullError::Stream(_) | PullError::Missing)));
        })
        .await;
}

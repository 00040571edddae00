//! Links to other workers, and pulls from them.
//!
//! A worker is dialled when there is something to say to it, or to fetch from it: among hundreds
//! that all knew each other, signs of life alone would keep all of them busy.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::time::Duration;

use rdist_scheduler::id::{ObjectId, WorkerId};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout_at};

use crate::store::Incoming;
use crate::transfer::{self, Arrival, Arrivals, PullError};
use crate::transport::link::{LinkEvent, LinkHandle, Opening, dial};
use crate::transport::{Connection, Endpoint, Peer, Place, Target};
use crate::worker::inbox::{Inbox, Note};

/// How long a pull goes on without a byte while there is no connection. A worker that is gone for
/// good ends it earlier.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

type Watch = watch::Receiver<Option<Connection>>;

/// See the module's text.
#[derive(Default)]
pub(super) struct Peers {
    /// Where the head says that workers are.
    places: HashMap<WorkerId, Place>,
    links: HashMap<WorkerId, Link>,
    /// Frames for workers of which the head has not told yet.
    early: HashMap<WorkerId, Vec<Vec<u8>>>,
    /// Pulls wait for connections with these, of which it has not told either.
    awaited: HashMap<WorkerId, watch::Sender<Option<Connection>>>,
}

struct Link {
    handle: LinkHandle,
    connection: Watch,
    /// Whether the worker has acknowledged everything, when the link is closed.
    told: oneshot::Receiver<bool>,
}

impl Peers {
    /// A worker can be reached at `address`. A connection to where a known one was before breaks by
    /// itself, and the next one goes there.
    pub(super) fn add(&mut self, endpoint: &Endpoint, worker: WorkerId, address: String) {
        if let Some(place) = self.places.get(&worker) {
            return place.set(address);
        }
        self.places.insert(worker, Place::new(address));
        if self.early.contains_key(&worker) || self.awaited.contains_key(&worker) {
            self.link(endpoint, worker);
        }
    }

    /// The link to a worker, which is dialled with its first use; `None`: the head has not told of
    /// it yet.
    fn link(&mut self, endpoint: &Endpoint, worker: WorkerId) -> Option<&Link> {
        match self.links.entry(worker) {
            Entry::Occupied(link) => Some(link.into_mut()),
            Entry::Vacant(slot) => {
                let place = self.places.get(&worker)?.clone();
                let current = self.awaited.remove(&worker);
                let current = current.unwrap_or_else(|| watch::Sender::new(None));
                let link = open(endpoint, worker, place, current);
                for frame in self.early.remove(&worker).unwrap_or_default() {
                    send(worker, &link.handle, frame);
                }
                Some(slot.insert(link))
            }
        }
    }

    /// A worker is gone for good.
    pub(super) fn remove(&mut self, worker: WorkerId) {
        self.early.remove(&worker);
        self.awaited.remove(&worker);
        self.places.remove(&worker);
        if let Some(link) = self.links.remove(&worker) {
            link.handle.close();
        }
    }

    pub(super) fn send(&mut self, endpoint: &Endpoint, to: WorkerId, frame: Vec<u8>) {
        match self.link(endpoint, to) {
            Some(link) => send(to, &link.handle, frame),
            None => self.early.entry(to).or_default().push(frame),
        }
    }

    /// Closes all links; whether every worker has acknowledged all that was said to it. Takes as
    /// long as a link takes to close.
    pub(super) async fn close(self) -> bool {
        self.links.values().for_each(|link| link.handle.close());
        let mut all = self.early.is_empty();
        for link in self.links.into_values() {
            all &= link.told.await.unwrap_or(false);
        }
        all
    }

    /// The connection with a worker, as it comes and goes.
    pub(super) fn connection(&mut self, endpoint: &Endpoint, worker: WorkerId) -> Watch {
        if let Some(link) = self.link(endpoint, worker) {
            return link.connection.clone();
        }
        self.awaited.entry(worker).or_insert_with(|| watch::Sender::new(None)).subscribe()
    }
}

/// Dials a worker, now and whenever the connection breaks. `current` is told of each connection.
fn open(
    endpoint: &Endpoint,
    worker: WorkerId,
    place: Place,
    current: watch::Sender<Option<Connection>>,
) -> Link {
    let connection = current.subscribe();
    let (closed, told) = oneshot::channel();
    let mut closed = Some(closed);
    let sink = move |event| match event {
        LinkEvent::Connected { connection, .. } => drop(current.send_replace(Some(connection))),
        LinkEvent::Disconnected { reason, .. } => {
            tracing::debug!(%worker, reason, "a worker is out of reach");
            current.send_replace(None);
        }
        LinkEvent::Unreachable(error) => tracing::debug!(%worker, %error, "cannot reach"),
        LinkEvent::Closed { told } => {
            // Nobody waits for it, as a rule.
            let _ = closed.take().map(|closed| closed.send(told));
        }
        LinkEvent::Frame(_) | LinkEvent::Forgotten => {}
    };
    let peer = Peer::Worker(worker);
    let handle = dial(endpoint, Target::Moving(place), peer, Opening::Plain, sink);
    Link { handle, connection, told }
}

fn send(to: WorkerId, link: &LinkHandle, frame: Vec<u8>) {
    if let Err(error) = link.send(frame) {
        tracing::warn!(%to, %error, "a message to a worker is dropped");
    }
}

/// Fills `block` with a copy of `from`, and reports how that went.
pub(super) async fn pull(
    connection: Watch,
    object: ObjectId,
    from: WorkerId,
    mut block: Incoming,
    (inbox, arrivals): (Inbox, Rc<Arrivals>),
) {
    let arrival = arrivals.begin(object, &block);
    let complete = match try_pull(connection, object, &mut block, &arrival).await {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!(%object, %from, %error, "a pull failed");
            false
        }
    };
    // In this order: who asks from now on is answered from the table.
    arrivals.end(object, complete);
    inbox.tell(Note::Pulled { object, from, block, complete });
}

/// Over one connection after the other: that one breaks says nothing of the copy.
async fn try_pull(
    mut watch: Watch,
    object: ObjectId,
    block: &mut Incoming,
    arrival: &Arrival,
) -> Result<(), PullError> {
    let mut grown_at = Instant::now();
    loop {
        let lives = |current: &Option<Connection>| current.as_ref().is_some_and(|c| !c.is_closed());
        let connected = timeout_at(grown_at + CONNECT_TIMEOUT, watch.wait_for(lives)).await;
        let connection = match connected {
            Ok(Ok(connection)) => connection.clone(),
            _ => None,
        };
        let connection = connection.ok_or(PullError::Unreachable)?;
        let before = block.filled();
        match transfer::pull(&connection, object, block, &|| arrival.grow()).await {
            Err(error) if connection.is_closed() => {
                tracing::debug!(%object, %error, filled = block.filled(), "a pull goes on later");
            }
            outcome => return outcome,
        }
        if block.filled() > before {
            grown_at = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use rdist_scheduler::id::TaskId;

    use super::*;
    use crate::store::{Arena, Filled};
    use crate::transport::link::{LinkServer, receive_caller};
    use crate::transport::quic::close;
    use crate::transport::{Arrival, Authority, Tuning, frame};
    use crate::wire::cluster::{StreamReply, StreamRequest};

    const HERE: WorkerId = WorkerId(1);
    const THERE: WorkerId = WorkerId(2);

    async fn serve(endpoint: Endpoint) {
        let mut links = LinkServer::new(Arc::new(|_, _| {}));
        let mut handles = Vec::new();
        while let Some(incoming) = endpoint.accept().await {
            if let Ok(Arrival::Member(connection)) = incoming.establish().await
                && let Ok(caller) = receive_caller(connection).await
            {
                handles.push(links.attach(caller));
            }
        }
    }

    async fn becomes(watch: &mut Watch, connected: bool) {
        let wanted = watch.wait_for(|connection| connection.is_some() == connected);
        let waited = tokio::time::timeout(Duration::from_secs(20), wanted).await;
        drop(waited.expect("the link notices").unwrap());
    }

    /// Two workers.
    fn endpoints() -> (Endpoint, Endpoint) {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(&folder.path().join("ca.pem")).unwrap();
        let bind = |worker| {
            let identity = authority.identity(Peer::Worker(worker)).unwrap();
            let tuning = Tuning { dead_after: Duration::from_millis(500), ..Tuning::default() };
            Endpoint::bind(SocketAddr::from(([127, 0, 0, 1], 0)), &identity, tuning).unwrap()
        };
        (bind(HERE), bind(THERE))
    }

    #[tokio::test]
    async fn a_worker_that_has_moved_is_dialled_where_it_is() {
        let (here, there) = endpoints();
        let address = || there.local_address().unwrap().to_string();
        tokio::spawn(serve(there.clone()));
        let mut peers = Peers::default();
        // Who has an object is known before the head has told where that is.
        let mut watch = peers.connection(&here, THERE);
        peers.add(&here, THERE, address());
        becomes(&mut watch, true).await;
        there.rebind(SocketAddr::from(([127, 0, 0, 2], 0))).unwrap();
        becomes(&mut watch, false).await;
        peers.add(&here, THERE, address());
        becomes(&mut watch, true).await;
    }

    #[tokio::test]
    async fn a_worker_is_dialled_when_there_is_something_to_say_to_it() {
        let (here, there) = endpoints();
        let mut peers = Peers::default();
        peers.add(&here, THERE, there.local_address().unwrap().to_string());
        assert!(peers.links.is_empty());
        peers.send(&here, THERE, b"a word".to_vec());
        let accepted = tokio::time::timeout(Duration::from_secs(20), there.accept()).await;
        assert!(accepted.expect("it calls").is_some());
        peers.remove(THERE);
        assert!(peers.links.is_empty() && peers.places.is_empty());
    }

    const LEN: usize = 1 << 20;
    const HALF: usize = LEN / 2;

    /// Gives half of the bytes and breaks the connection when they are there, then gives what is
    /// asked for; returns where the asker wanted them to begin.
    async fn serve_in_two_parts(endpoint: Endpoint, bytes: Vec<u8>, came: Filled) -> [u64; 2] {
        let mut begins = [u64::MAX; 2];
        for begin in &mut begins {
            let incoming = endpoint.accept().await.unwrap();
            let Ok(Arrival::Member(connection)) = incoming.establish().await else {
                panic!("a member was expected");
            };
            let (mut send, mut receive) = connection.accept_bi().await.unwrap();
            let request = transfer::read_request(&mut receive).await.unwrap();
            let StreamRequest::Object { from, .. } = request else { panic!("{request:?}") };
            *begin = from;
            if from == 0 {
                let header = StreamReply::Bytes(LEN as u64);
                frame::write(&mut send, &header).await.unwrap();
                send.write_all(&bytes[..HALF]).await.unwrap();
                while came.filled() < HALF {
                    tokio::task::yield_now().await;
                }
                connection.close(close::DONE, "it breaks");
            } else {
                transfer::serve_bytes(&mut send, bytes.clone(), from).await.unwrap();
                connection.closed().await;
            }
        }
        begins
    }

    #[tokio::test]
    async fn a_pull_goes_on_over_the_next_connection_with_what_is_missing() {
        let (here, there) = endpoints();
        let address = there.local_address().unwrap().to_string();
        let connect = async || here.connect(&address, Peer::Worker(THERE)).await.unwrap();
        let mut arena = Arena::new(64 << 20);
        let mut block = arena.create(LEN as u64).unwrap();
        let bytes: Vec<u8> = (0..LEN).map(|index| (index % 251) as u8).collect();
        let object = TaskId::default().object(1);
        let arrival = Arrivals::default().begin(object, &block);
        let serving = tokio::spawn(serve_in_two_parts(there, bytes.clone(), block.share()));
        let (first, current) = (connect().await, watch::Sender::new(None));
        current.send_replace(Some(first.clone()));
        let reconnect = async {
            first.closed().await;
            let second = connect().await;
            current.send_replace(Some(second.clone()));
            second
        };
        let pulling = try_pull(current.subscribe(), object, &mut block, &arrival);
        let (pulled, second) = tokio::join!(pulling, reconnect);
        pulled.unwrap();
        assert!(block[..] == bytes[..], "other bytes arrived");
        second.close(close::DONE, "all is there");
        assert_eq!(serving.await.unwrap(), [0, HALF as u64]);
    }
}

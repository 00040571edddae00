//! Links to other workers, and pulls from them.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use rdist_scheduler::id::{ObjectId, WorkerId};
use tokio::sync::{oneshot, watch};

use crate::store::Incoming;
use crate::transfer::{self, Arrival, Arrivals, PullError};
use crate::transport::link::{LinkEvent, LinkHandle, Opening, dial};
use crate::transport::{Connection, Endpoint, Peer, Place, Target};
use crate::worker::inbox::{Inbox, Note};

/// How long a pull waits for a connection. A worker that is gone for good ends the wait earlier.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

type Watch = watch::Receiver<Option<Connection>>;

/// See the module's text.
#[derive(Default)]
pub(super) struct Peers {
    known: HashMap<WorkerId, Known>,
    /// Frames for workers of which the head has not told yet.
    early: HashMap<WorkerId, Vec<Vec<u8>>>,
}

struct Known {
    place: Place,
    link: LinkHandle,
    connection: Watch,
    /// Whether the worker has acknowledged everything, when the link is closed.
    told: oneshot::Receiver<bool>,
}

impl Peers {
    /// A worker can be reached at `address`: dials it when the worker is new. A connection to where
    /// a known one was before breaks by itself, and the next one goes there.
    pub(super) fn add(&mut self, endpoint: &Endpoint, worker: WorkerId, address: String) {
        if let Some(known) = self.known.get(&worker) {
            return known.place.set(address);
        }
        let (current, connection) = watch::channel(None);
        let (closed, told) = oneshot::channel();
        let mut closed = Some(closed);
        let place = Place::new(address);
        let target = Target::Moving(place.clone());
        let sink = move |event| match event {
            LinkEvent::Connected { connection, .. } => drop(current.send(Some(connection))),
            LinkEvent::Disconnected { reason, .. } => {
                tracing::debug!(%worker, reason, "a worker is out of reach");
                let _ = current.send(None);
            }
            LinkEvent::Unreachable(error) => tracing::debug!(%worker, %error, "cannot reach"),
            LinkEvent::Closed { told } => {
                // Nobody waits for it, as a rule.
                let _ = closed.take().map(|closed| closed.send(told));
            }
            LinkEvent::Frame(_) | LinkEvent::Forgotten => {}
        };
        let link = dial(endpoint, target, Peer::Worker(worker), Opening::Plain, sink);
        for frame in self.early.remove(&worker).unwrap_or_default() {
            send(worker, &link, frame);
        }
        self.known.insert(worker, Known { place, link, connection, told });
    }

    /// A worker is gone for good.
    pub(super) fn remove(&mut self, worker: WorkerId) {
        self.early.remove(&worker);
        if let Some(known) = self.known.remove(&worker) {
            known.link.close();
        }
    }

    pub(super) fn send(&mut self, to: WorkerId, frame: Vec<u8>) {
        match self.known.get(&to) {
            Some(known) => send(to, &known.link, frame),
            None => self.early.entry(to).or_default().push(frame),
        }
    }

    /// Closes all links; whether every worker has acknowledged all that was said to it. Takes as
    /// long as a link takes to close.
    pub(super) async fn close(self) -> bool {
        self.known.values().for_each(|known| known.link.close());
        let mut all = self.early.is_empty();
        for known in self.known.into_values() {
            all &= known.told.await.unwrap_or(false);
        }
        all
    }

    /// The connection with a worker, as it comes and goes; `None` for one that is not known.
    pub(super) fn connection(&self, worker: WorkerId) -> Option<Watch> {
        self.known.get(&worker).map(|known| known.connection.clone())
    }
}

fn send(to: WorkerId, link: &LinkHandle, frame: Vec<u8>) {
    if let Err(error) = link.send(frame) {
        tracing::warn!(%to, %error, "a message to a worker is dropped");
    }
}

/// Fills `block` with a copy of `from`, and reports how that went.
pub(super) async fn pull(
    connection: Option<Watch>,
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

async fn try_pull(
    connection: Option<Watch>,
    object: ObjectId,
    block: &mut Incoming,
    arrival: &Arrival,
) -> Result<(), PullError> {
    let mut watch = connection.ok_or(PullError::Unreachable)?;
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, watch.wait_for(Option::is_some)).await;
    let connection = match connected {
        Ok(Ok(connection)) => connection.clone(),
        _ => None,
    };
    let connection = connection.ok_or(PullError::Unreachable)?;
    transfer::pull(&connection, object, block, &|| arrival.grow()).await
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use super::*;
    use crate::transport::link::{LinkServer, receive_caller};
    use crate::transport::{Arrival, Authority, Tuning};

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

    #[tokio::test]
    async fn a_worker_that_has_moved_is_dialled_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(&folder.path().join("ca.pem")).unwrap();
        let bind = |worker| {
            let identity = authority.identity(Peer::Worker(worker)).unwrap();
            let tuning = Tuning { dead_after: Duration::from_millis(500), ..Tuning::default() };
            Endpoint::bind(SocketAddr::from(([127, 0, 0, 1], 0)), &identity, tuning).unwrap()
        };
        let (here, there) = (bind(HERE), bind(THERE));
        let address = || there.local_address().unwrap().to_string();
        tokio::spawn(serve(there.clone()));
        let mut peers = Peers::default();
        peers.add(&here, THERE, address());
        let mut watch = peers.connection(THERE).unwrap();
        becomes(&mut watch, true).await;
        there.rebind(SocketAddr::from(([127, 0, 0, 2], 0))).unwrap();
        becomes(&mut watch, false).await;
        peers.add(&here, THERE, address());
        becomes(&mut watch, true).await;
    }
}

//! Links to other workers, and pulls from them.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use rdist_scheduler::id::{ObjectId, WorkerId};
use tokio::sync::watch;

use crate::store::Incoming;
use crate::transfer::{self, Arrival, Arrivals, PullError};
use crate::transport::link::{LinkEvent, LinkHandle, Opening, dial};
use crate::transport::{Connection, Endpoint, Peer, Target};
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
    link: LinkHandle,
    connection: Watch,
}

impl Peers {
    /// A worker can be reached at `address`: dials it when that is new.
    pub(super) fn add(&mut self, endpoint: &Endpoint, worker: WorkerId, address: String) {
        if self.known.contains_key(&worker) {
            return;
        }
        let (current, connection) = watch::channel(None);
        let target = Target::Address(address);
        let sink = move |event| match event {
            LinkEvent::Connected { connection, .. } => drop(current.send(Some(connection))),
            LinkEvent::Disconnected { reason, .. } => {
                tracing::debug!(%worker, reason, "a worker is out of reach");
                let _ = current.send(None);
            }
            LinkEvent::Unreachable(error) => tracing::debug!(%worker, %error, "cannot reach"),
            LinkEvent::Frame(_) | LinkEvent::Forgotten => {}
        };
        let link = dial(endpoint, target, Peer::Worker(worker), Opening::Plain, sink);
        for frame in self.early.remove(&worker).unwrap_or_default() {
            send(worker, &link, frame);
        }
        self.known.insert(worker, Known { link, connection });
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

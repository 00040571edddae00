//! The link to the head.

use std::cell::Cell;

use tokio::sync::watch;

use crate::transport::link::{LinkEvent, LinkHandle, Opening, dial};
use crate::transport::{Connection, Endpoint, Peer, Target};
use crate::wire::cluster::{HeadToWorker, Said, WorkerToHead};
use crate::wire::{decode, encode};
use crate::worker::inbox::{Inbox, Note};

/// See the module's text.
pub(super) struct Uplink {
    link: LinkHandle,
    connection: watch::Receiver<Option<Connection>>,
    /// Of what jobs say here.
    next_number: Cell<u64>,
}

impl Uplink {
    /// Dials the head, again and again, and reports to `inbox`.
    pub(super) fn dial(endpoint: &Endpoint, target: Target, inbox: Inbox) -> Self {
        let (current, connection) = watch::channel(None);
        let link =
            dial(endpoint, target, Peer::Head, Opening::Announced, move |event| match event {
                LinkEvent::Connected { fresh, meeting, connection } => {
                    let _ = current.send(Some(connection));
                    inbox.tell(Note::HeadFound { fresh, meeting });
                }
                LinkEvent::Frame(bytes) => match decode::<HeadToWorker>(&bytes) {
                    Ok(message) => inbox.tell(Note::FromHead(Box::new(message))),
                    Err(error) => tracing::warn!(%error, "the head sent a malformed message"),
                },
                LinkEvent::Disconnected { reason, .. } => {
                    tracing::warn!(reason, "the head is out of reach; local work goes on");
                    let _ = current.send(None);
                    inbox.tell(Note::HeadLost);
                }
                LinkEvent::Unreachable(error) => tracing::debug!(%error, "the head is unreachable"),
                LinkEvent::Forgotten | LinkEvent::Closed { .. } => {}
            });
        Self { link, connection, next_number: Cell::new(1) }
    }

    pub(super) fn send(&self, frame: Vec<u8>) {
        if let Err(error) = self.link.send(frame) {
            tracing::warn!(%error, "a message to the head is dropped");
        }
    }

    /// What a job said is worth telling also to a head that has forgotten everything; all else
    /// the core tells again by itself.
    pub(super) fn say(&self, said: Said) {
        let number = self.next_number.get();
        self.next_number.set(number + 1);
        let frame = encode(&WorkerToHead::Said { number, said }).into_vec();
        if let Err(error) = self.link.send_lasting(frame) {
            tracing::warn!(%error, "words of a job are dropped");
        }
    }

    pub(super) fn begin(&self, meeting: u64, frame: Vec<u8>) {
        if let Err(error) = self.link.begin(meeting, frame) {
            tracing::error!(%error, "this worker cannot register");
        }
    }

    /// The present connection, as soon as there is one.
    pub(super) async fn connection(&self) -> Option<Connection> {
        let mut watch = self.connection.clone();
        let lives = |current: &Option<Connection>| current.as_ref().is_some_and(|c| !c.is_closed());
        watch.wait_for(lives).await.ok()?.clone()
    }

    /// Ends the link when what was sent is acknowledged, or cannot be.
    pub(super) async fn close(&self) {
        self.link.close();
        let mut watch = self.connection.clone();
        // An error means that the link's task has ended, which is what is waited for.
        while watch.changed().await.is_ok() {}
    }
}

//! A worker that does what a test says.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdist::config::Home;
use rdist::scheduler::id::{JobId, TaskId, WorkerId};
use rdist::scheduler::message::{FromHead, Held, ToHead};
use rdist::scheduler::outcome::{Outcome, Returned};
use rdist::scheduler::resource::Resources;
use rdist::transport::link::{self, LinkEvent, LinkHandle, Opening};
use rdist::transport::{Connection, Endpoint, Entrance, Identity, Peer, Tuning};
use rdist::wire::cluster::{HeadToWorker, Output, Registration, Said, WorkerToHead};
use rdist::wire::{decode, encode};
use tokio::sync::mpsc;

use crate::within;

pub(crate) struct Worker {
    pub(crate) id: WorkerId,
    pub(crate) endpoint: Endpoint,
    pub(crate) link: LinkHandle,
    next_number: AtomicU64,
    pub(crate) held: Held,
    pub(crate) connection: Option<Connection>,
    events: mpsc::UnboundedReceiver<LinkEvent>,
}

impl Worker {
    /// Joins with the token of the state folder and registers.
    pub(crate) async fn join(home: &Home) -> Self {
        let mut worker = Self::arrive(home).await;
        worker.expect_registered().await;
        worker
    }

    /// Joins, but does not wait for an answer to its registration.
    pub(crate) async fn arrive(home: &Home) -> Self {
        let entrance = Entrance { home: home.clone(), head: None, token: None };
        let (admission, _) = entrance.join(tuning()).await.unwrap();
        Self::with(&admission.identity, home)
    }

    pub(crate) fn with(identity: &Identity, home: &Home) -> Self {
        Self::tuned(identity, home, tuning())
    }

    pub(crate) fn tuned(identity: &Identity, home: &Home, tuning: Tuning) -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let endpoint = Endpoint::bind(listen, identity, tuning).unwrap();
        let entrance = Entrance { home: home.clone(), head: None, token: None };
        let (report, events) = mpsc::unbounded_channel();
        let sink = move |event| drop(report.send(event));
        let target = entrance.target();
        let link = link::dial(&endpoint, target, Peer::Head, Opening::Announced, sink);
        let (id, held) = (identity.worker().unwrap(), Held::default());
        let next_number = AtomicU64::new(1);
        Self { id, endpoint, link, next_number, held, connection: None, events }
    }

    pub(crate) fn send(&self, message: &WorkerToHead) {
        self.link.send(encode(message).into_vec()).unwrap();
    }

    fn register(&self, meeting: u64) {
        let frame = encode(&WorkerToHead::Register(self.registration())).into_vec();
        self.link.begin(meeting, frame).unwrap();
    }

    pub(crate) fn registration(&self) -> Registration {
        Registration {
            worker: self.id,
            host: "test".to_owned(),
            pid: 1,
            address: "0.0.0.0:4711".to_owned(),
            total: Resources::cpus(2.0),
            labels: vec![("zone".to_owned(), "a".to_owned())],
            store_bytes: 1 << 20,
            held: self.held.clone(),
        }
    }

    /// The next message of the head; registers whenever the head asks for it.
    pub(crate) async fn next(&mut self) -> HeadToWorker {
        within(async {
            loop {
                match self.events.recv().await.unwrap() {
                    LinkEvent::Connected { fresh, meeting, connection } => {
                        self.connection = Some(connection);
                        if fresh {
                            self.register(meeting);
                        }
                    }
                    LinkEvent::Frame(frame) => return decode::<HeadToWorker>(&frame).unwrap(),
                    _ => {}
                }
            }
        })
        .await
    }

    /// Skips messages until one is of interest.
    pub(crate) async fn find<T>(&mut self, mut wanted: impl FnMut(HeadToWorker) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(self.next().await) {
                return found;
            }
        }
    }

    pub(crate) async fn expect_registered(&mut self) -> u64 {
        self.find(|message| match message {
            HeadToWorker::Registered { epoch } => Some(epoch),
            _ => None,
        })
        .await
    }

    pub(crate) async fn expect_shutdown(&mut self) {
        self.find(|message| (message == HeadToWorker::Shutdown).then_some(())).await;
    }

    pub(crate) async fn expect_given_up(&mut self) {
        self.find(|message| (message == HeadToWorker::GivenUp).then_some(())).await;
    }

    /// Waits until a driver is assigned here: its job and attempt.
    pub(crate) async fn expect_driver(&mut self) -> (JobId, u32) {
        self.find(|message| match message {
            HeadToWorker::Core { message: FromHead::Assigned(assignments), .. } => {
                let driver = &assignments[0];
                assert_eq!(driver.owner, WorkerId::HEAD);
                assert_eq!(driver.spec.id, TaskId::driver(driver.spec.id.job()));
                Some((driver.spec.id.job(), driver.attempt))
            }
            _ => None,
        })
        .await
    }

    pub(crate) fn finish_driver(&self, job: JobId, attempt: u32) {
        let returned = Returned { size: 0, inline: true, contains: Vec::new() };
        let outcome = Outcome::Returned(vec![returned]);
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let message = ToHead::DriverFinished { job, attempt, outcome };
        self.send(&WorkerToHead::Core { number, message });
    }

    pub(crate) fn say(&self, job: JobId, text: &str) {
        let output = Output {
            job,
            worker: self.id,
            task: None,
            source: "driver".to_owned(),
            stderr: false,
            text: text.to_owned(),
        };
        self.tell(Said::Output(output));
    }

    pub(crate) fn tell(&self, said: Said) {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let frame = encode(&WorkerToHead::Said { number, said }).into_vec();
        self.link.send_lasting(frame).unwrap();
    }
}

fn tuning() -> Tuning {
    Tuning { dead_after: Duration::from_secs(1), ..Tuning::default() }
}

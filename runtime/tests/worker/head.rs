//! A head that does what a test says, and lets everybody in.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rdist::config::{Home, WorkerConfig};
use rdist::scheduler::id::{JobId, WorkerId};
use rdist::scheduler::resource::Resources;
use rdist::transport::link::{LinkEvent, LinkHandle, LinkServer, receive_caller};
use rdist::transport::{Arrival, Authority, Endpoint, Peer, Registrar, Token, Tuning};
use rdist::wire::cluster::{HeadToWorker, JobInfo, WorkerToHead};
use rdist::wire::join::Role;
use rdist::wire::{decode, encode};
use rdist::worker::{Worker, WorkerHandle};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::program::GO;
use crate::within;

/// What the test's own program is called among the blobs. Nobody hashes what is there already.
const PROGRAM: [u8; 32] = [7; 32];

pub(crate) struct Head {
    folder: TempDir,
    address: SocketAddr,
    token: String,
    links: Arc<Mutex<HashMap<WorkerId, LinkHandle>>>,
    heard: mpsc::UnboundedReceiver<(WorkerId, WorkerToHead)>,
    admitted: Arc<AtomicU64>,
}

impl Head {
    /// Must be called inside a tokio runtime.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        for folder in [home.head(), home.blobs()] {
            std::fs::create_dir(folder).unwrap();
        }
        let program = home.blobs().join(hex(&PROGRAM));
        std::os::unix::fs::symlink(std::env::current_exe().unwrap(), program).unwrap();
        let authority = Arc::new(Authority::load_or_create(&home.head().join("ca.pem")).unwrap());
        let cluster = authority.fingerprint();
        let token = Token { role: Role::Worker, cluster, id: 1, secret: [0; 16] }.to_string();
        let identity = authority.identity(Peer::Head).unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let endpoint = Endpoint::bind(listen, &identity, Tuning::default()).unwrap();
        let address = endpoint.local_address().unwrap();
        let dead_after = Tuning::default().dead_after;
        let registrar = Registrar { authority, dead_after };
        let (report, heard) = mpsc::unbounded_channel();
        let (links, admitted) = (Arc::default(), Arc::default());
        let acceptor = Acceptor {
            registrar,
            report,
            links: Arc::clone(&links),
            admitted: Arc::clone(&admitted),
        };
        tokio::spawn(acceptor.run(endpoint));
        Self { folder, address, token, links, heard, admitted }
    }

    /// Starts a worker in this process, on a thread that waits until it is registered.
    pub(crate) fn start_worker(&self) -> tokio::task::JoinHandle<WorkerHandle> {
        let config = WorkerConfig {
            home: Home::at(self.folder.path()),
            head: Some(self.address.to_string()),
            token: Some(self.token.clone()),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            advertise: None,
            resources: Resources::cpus(2.0),
            labels: Vec::new(),
            store_bytes: 64 << 20,
            spill_folder: None,
            spill_limit: None,
            rotate_every: WorkerConfig::ROTATE_EVERY,
        };
        tokio::task::spawn_blocking(move || Worker::start(config).unwrap())
    }

    /// How a job is run whose program is `program`.
    pub(crate) fn job(&self, job: JobId) -> JobInfo {
        let go = self.go().to_str().unwrap().to_owned();
        let arguments = ["--exact", "executor_child", "--nocapture"];
        JobInfo {
            job,
            name: "twice".to_owned(),
            program: PROGRAM,
            arguments: arguments.map(str::to_owned).to_vec(),
            environment: vec![(GO.to_owned(), go)],
            working_directory: "/tmp".to_owned(),
            files: Default::default(),
            small_files: Vec::new(),
            weight: 2,
            quota: Resources::cpus(2.0),
            eager_pool: true,
        }
    }

    /// The file that the job's driver waits for.
    pub(crate) fn go(&self) -> PathBuf {
        self.folder.path().join("go")
    }

    /// How many were let in.
    pub(crate) fn admitted(&self) -> u64 {
        self.admitted.load(Ordering::Relaxed)
    }

    pub(crate) fn send(&self, to: WorkerId, message: &HeadToWorker) {
        self.links.lock().unwrap()[&to].send(encode(message).into_vec()).unwrap();
    }

    /// The next message of a worker.
    pub(crate) async fn next(&mut self) -> (WorkerId, WorkerToHead) {
        within(self.heard.recv()).await.unwrap()
    }

    /// What was not heard yet of workers that have ended, which is when they know that all of it
    /// is here.
    pub(crate) fn rest(mut self) -> Vec<WorkerToHead> {
        std::iter::from_fn(|| self.heard.try_recv().ok()).map(|(_, message)| message).collect()
    }
}

fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Acceptor {
    registrar: Registrar,
    report: mpsc::UnboundedSender<(WorkerId, WorkerToHead)>,
    links: Arc<Mutex<HashMap<WorkerId, LinkHandle>>>,
    admitted: Arc<AtomicU64>,
}

impl Acceptor {
    async fn run(self, endpoint: Endpoint) {
        let report = self.report;
        let mut server = LinkServer::new(Arc::new(move |peer, event| {
            let (Peer::Worker(worker), LinkEvent::Frame(frame)) = (peer, event) else { return };
            // The test may be over.
            let _ = report.send((worker, decode(&frame).unwrap()));
        }));
        while let Some(incoming) = endpoint.accept().await {
            match incoming.establish().await.unwrap() {
                Arrival::Joiner { connection, renews } => {
                    let worker = WorkerId(1 + self.admitted.fetch_add(1, Ordering::Relaxed));
                    let admit = async |_, _| Ok(Peer::Worker(worker));
                    self.registrar.answer(connection, renews, admit).await;
                }
                Arrival::Member(connection) => {
                    let Peer::Worker(worker) = connection.peer() else { panic!("{connection:?}") };
                    let caller = receive_caller(connection).await.unwrap();
                    // Before its first word is heard.
                    let mut links = self.links.lock().unwrap();
                    links.insert(worker, server.attach(caller));
                }
            }
        }
    }
}

//! An S3 server (s3s) that keeps objects as files of a folder, and MNIST as workload 5 found it in
//! its store: for tests, and for trying jobs out without a store of one's own. It is a real server
//! that checks signatures, but one for a single machine: it listens on the loopback interface.

mod mnist;

use std::net::SocketAddr;
use std::path::Path;
use std::thread::JoinHandle;

use anyhow::Context as _;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub use mnist::{upload, write_parts};

/// The buckets that are there from the start: for data, and for models.
pub const BUCKETS: [&str; 2] = ["datasets", "models"];
const ACCESS_KEY: &str = "rdist";
const REGION: &str = "us-east-1";

/// A server that runs in a thread of its own. Dropping it ends it.
pub struct Server {
    address: SocketAddr,
    secret: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server on a free port of this machine; its objects lie below `root`, which is
    /// there and has a folder for each bucket.
    ///
    /// # Errors
    /// The folder cannot be used, or no port is to be had.
    pub fn start(root: &Path) -> anyhow::Result<Self> {
        for bucket in BUCKETS {
            std::fs::create_dir_all(root.join(bucket))
                .with_context(|| format!("cannot make a bucket in {}", root.display()))?;
        }
        let mut secret = [0_u8; 20];
        getrandom::fill(&mut secret)
            .map_err(|error| anyhow::anyhow!("no random secret is to be had: {error}"))?;
        let secret: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let files = FileSystem::new(root)
            .map_err(|error| anyhow::anyhow!("cannot serve {}: {error:?}", root.display()))?;
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, secret.clone()));
        let service = service.build();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, service) => {}
                    // Connections end with the runtime.
                    _ = stopped => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("s3-server".to_owned()).spawn(serve)?;
        Ok(Self { address, secret, stop: Some(stop), thread: Some(thread) })
    }

    /// What a client of this server wants in its environment.
    pub fn environment(&self) -> [(&'static str, String); 4] {
        [
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", self.secret.clone()),
        ]
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.stop.take().map(|stop| stop.send(()));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn serve(listener: TcpListener, service: S3Service) {
    let http = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        let connection = http.serve_connection(TokioIo::new(socket), service.clone()).into_owned();
        // A client that breaks off is no matter for the others.
        tokio::spawn(async move { connection.await.ok() });
    }
}

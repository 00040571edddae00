//! A real head with real clients over real sockets; workers are played by the tests.
#![allow(clippy::unwrap_used, missing_docs)]

mod cluster;
mod entry;
mod files;
mod jobs;
mod restart;
mod twice;
mod worker;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rdist::client::{Client, JobRequest};
use rdist::config::{HeadConfig, Home};
use rdist::head::{Head, HeadHandle};
use tempfile::TempDir;

/// Nothing here takes longer unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A state folder, and what may run with it.
struct Place {
    folder: TempDir,
    home: Home,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join("home"));
        Self { folder, home }
    }

    fn config(&self) -> HeadConfig {
        HeadConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            dead_after: Duration::from_secs(1),
            ..HeadConfig::new(self.home.clone())
        }
    }

    fn head(&self) -> HeadHandle {
        Head::start(self.config()).unwrap()
    }

    async fn client(&self) -> Client {
        Client::connect(&self.home).await.unwrap()
    }

    fn program(&self, content: &[u8]) -> PathBuf {
        let path = self.folder.path().join("program");
        fs::write(&path, content).unwrap();
        path
    }

    fn job(&self, name: &str) -> JobRequest {
        JobRequest {
            name: name.to_owned(),
            program: self.program(b"a program"),
            arguments: vec!["--epochs".to_owned(), "2".to_owned()],
            environment: vec![("KEY".to_owned(), "value".to_owned())],
            working_directory: "/tmp".to_owned(),
            ..Default::default()
        }
    }
}

/// Waits for what must come true.
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it took too long")
}

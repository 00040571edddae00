//! Programs from the head, and the processes that run them.

use std::path::{Path, PathBuf};

use rdist_scheduler::outcome::Death;
use tokio::sync::{Mutex, mpsc};

use super::Command;
use super::uplink::Uplink;
use crate::transfer;
use crate::wire::cluster::{JobInfo, Output, ProgramHash, Said};
use crate::worker::inbox::{Inbox, Note};
use crate::worker::launch::{self, Launch, Processes};

/// See the module's text.
pub(super) struct Launcher {
    programs: PathBuf,
    inbox: Inbox,
    processes: Processes,
    commands: mpsc::UnboundedSender<Command>,
    /// One fetch at a time; whoever comes second finds the file.
    fetching: Mutex<()>,
}

impl Launcher {
    pub(super) fn new(
        programs: PathBuf,
        inbox: Inbox,
        processes: Processes,
        commands: mpsc::UnboundedSender<Command>,
    ) -> Self {
        Self { programs, inbox, processes, commands, fetching: Mutex::new(()) }
    }

    /// Runs an executor until it ends, and reports that.
    pub(super) async fn launch(&self, launch: Launch, job: &JobInfo, uplink: &Uplink) {
        let executor = launch.executor;
        let death = match self.program(job.program, uplink).await {
            Ok(program) => {
                let commands = self.commands.clone();
                let output = move |output: Output| {
                    // The receiver lives as long as this thread's loop.
                    let _ = commands.send(Command::Say(Said::Output(output)));
                };
                launch::run(launch, job, &program, &self.processes, output).await
            }
            Err(reason) => Death::NotStarted { reason },
        };
        self.inbox.tell(Note::ExecutorEnded { executor, death });
    }

    /// The program's file, fetched from the head if it is not here yet.
    async fn program(&self, hash: ProgramHash, uplink: &Uplink) -> Result<PathBuf, String> {
        let name = blake3::Hash::from_bytes(hash).to_hex();
        let path = self.programs.join(name.as_str());
        let _alone = self.fetching.lock().await;
        if is_file(&path).await {
            return Ok(path);
        }
        let failed = |why: String| format!("the program {name} cannot be fetched: {why}");
        let connection = uplink.connection().await;
        let connection = connection.ok_or_else(|| failed("there is no head".to_owned()))?;
        let pulled = transfer::pull_program(&connection, hash, &path).await;
        pulled.map_err(|error| failed(error.to_string()))?;
        Ok(path)
    }
}

async fn is_file(path: &Path) -> bool {
    tokio::fs::metadata(path).await.is_ok_and(|metadata| metadata.is_file())
}

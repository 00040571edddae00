//! A job's updates, as they come.

use std::collections::VecDeque;

use super::JobUpdate;
use crate::transport::Connection;
use crate::wire::client::MAX_UPDATE_BYTES;

/// Largest piece that is read at once.
const PIECE_BYTES: usize = 256 << 10;

/// Watching ended before the job did.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The head went away; the job may go on. Connect again and watch again.
    #[error(
        "the head at {address} went away: {reason}; the job may go on, `rdist logs -f JOB` \
             follows it again"
    )]
    Broken {
        /// Which head.
        address: String,
        /// What happened.
        reason: String,
    },
    /// A line that is no update.
    #[error("the head at {address} sent an update that cannot be read: {reason}")]
    Malformed {
        /// Which head.
        address: String,
        /// What is wrong.
        reason: String,
    },
}

/// What a job says. The last update is a [`JobUpdate::State`] that has ended.
#[derive(Debug)]
pub struct JobStream {
    receive: quinn::RecvStream,
    connection: Connection,
    address: String,
    buffer: Vec<u8>,
    ready: VecDeque<JobUpdate>,
    ended: bool,
    finished: bool,
}

impl JobStream {
    pub(super) fn new(receive: quinn::RecvStream, connection: Connection, address: String) -> Self {
        let (buffer, ready) = (Vec::new(), VecDeque::new());
        Self { receive, connection, address, buffer, ready, ended: false, finished: false }
    }

    /// The next update; `None` when the job has ended and has said all. Cancel safe.
    pub async fn next(&mut self) -> Result<Option<JobUpdate>, WatchError> {
        loop {
            if let Some(update) = self.ready.pop_front() {
                if let JobUpdate::State { state, .. } = &update {
                    self.ended = state.is_ended();
                }
                return Ok(Some(update));
            }
            if self.finished {
                return match self.ended {
                    true => Ok(None),
                    false => Err(self.broken("it ended".to_owned())),
                };
            }
            match self.receive.read_chunk(PIECE_BYTES, true).await {
                Ok(Some(chunk)) => self.take(&chunk.bytes)?,
                Ok(None) => self.finished = true,
                Err(error) => return Err(self.broken(error.to_string())),
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), WatchError> {
        let malformed = |address: &str, reason: String| WatchError::Malformed {
            address: address.to_owned(),
            reason,
        };
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
            self.buffer.extend_from_slice(&rest[..at]);
            rest = &rest[at + 1..];
            let update = serde_json::from_slice(&self.buffer)
                .map_err(|error| malformed(&self.address, error.to_string()))?;
            self.ready.push_back(update);
            self.buffer.clear();
        }
        self.buffer.extend_from_slice(rest);
        if self.buffer.len() > MAX_UPDATE_BYTES {
            return Err(malformed(&self.address, "it is too long".to_owned()));
        }
        Ok(())
    }

    fn broken(&self, reason: String) -> WatchError {
        let closed = self.connection.quinn().close_reason();
        let reason = closed.map_or(reason, |closed| closed.to_string());
        WatchError::Broken { address: self.address.clone(), reason }
    }
}

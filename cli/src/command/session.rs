//! One command's conversation with the head, and what becomes of it when the head goes away.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdist::client::{Client, ClientError, JobRequest, SubmissionId};
use rdist::config::Home;
use rdist::scheduler::id::JobId;
use rdist::transport::{Entrance, Identity, event_loop};

use crate::arguments;

/// Connects to the head that the options name, and lets `work` talk to it.
pub(super) fn run<T>(
    options: &arguments::Client,
    work: impl AsyncFnOnce(&mut Client) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let runtime = event_loop().context("cannot start the event loop")?;
    runtime.block_on(async {
        let mut client = connect(options).await?;
        let outcome = work(&mut client).await;
        client.close().await;
        outcome
    })
}

/// With the certificate that the head left in the state folder, or with a token.
pub(super) async fn connect(options: &arguments::Client) -> Result<Client, ClientError> {
    let home = Home::from_environment();
    let Some(head) = &options.head else { return Client::connect(&home).await };
    if options.token.is_none()
        && let Ok(identity) = Identity::load(&home.client_identity())
    {
        return Client::dial(head.clone(), &identity).await;
    }
    let (head, token) = (options.head.clone(), options.token.clone());
    Client::connect_with(&Entrance { home, head, token }).await
}

/// Has the head take a job, over as many connections as it takes: under one id, so that a head that
/// took it and was lost before it said so takes no second one. `client` is the last of them.
pub(super) async fn submit(
    client: &mut Client,
    options: &arguments::Client,
    request: JobRequest,
) -> Result<JobId, ClientError> {
    let (id, mut patience) = (SubmissionId::random(), Patience::default());
    loop {
        let error = match client.submit_as(id, request.clone()).await {
            Err(error @ ClientError::Broken { .. }) => error,
            outcome => return outcome,
        };
        patience.begin(&error);
        if patience.has_ended(&error) {
            return Err(error);
        }
        *client = loop {
            match connect_again(client, options).await {
                Ok(client) => break client,
                Err(error) if patience.has_ended(&error) => return Err(error),
                Err(_) => Patience::pause().await,
            }
        };
    }
}

/// The connection of `client` is lost. A token may have been good for once, so that the certificate
/// that it gave is used again.
pub(super) async fn connect_again(
    client: &Client,
    options: &arguments::Client,
) -> Result<Client, ClientError> {
    match options.head {
        Some(_) => client.dial_again().await,
        None => Client::connect(&Home::from_environment()).await,
    }
}

/// Waits for a head that has gone away. A killed one that starts again knows everything still.
#[derive(Debug, Default)]
pub(super) struct Patience {
    lost_at: Option<Instant>,
}

impl Patience {
    /// A head that is away for longer is given up.
    const LIMIT: Duration = Duration::from_secs(60);
    /// Between two tries to reach it.
    const PAUSE: Duration = Duration::from_millis(100);

    /// It was lost, for the first time or once more while it is waited for.
    pub(super) fn begin(&mut self, error: &dyn Display) {
        if self.lost_at.is_none() {
            self.lost_at = Some(Instant::now());
            let seconds = Self::LIMIT.as_secs();
            eprintln!("{error}; waiting up to {seconds} s for it to come back");
        }
    }

    /// Whether trying again is of no use: the head says no, was stopped on purpose, was never
    /// lost, or is away for too long.
    pub(super) fn has_ended(&self, error: &ClientError) -> bool {
        let away = matches!(
            error,
            ClientError::HeadDied { .. } | ClientError::Connect(_) | ClientError::Broken { .. }
        );
        !away || self.lost_at.is_none_or(|lost| lost.elapsed() > Self::LIMIT)
    }

    /// Between two tries.
    pub(super) async fn pause() {
        tokio::time::sleep(Self::PAUSE).await;
    }
}

//! One command's conversation with the head.

use anyhow::Context as _;
use rdist::client::{Client, ClientError};
use rdist::config::Home;
use rdist::transport::{Entrance, Identity, event_loop};

use crate::arguments;

/// Connects to the head that the options name, and lets `work` talk to it.
pub(super) fn run<T>(
    options: &arguments::Client,
    work: impl AsyncFnOnce(&Client) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let runtime = event_loop().context("cannot start the event loop")?;
    runtime.block_on(async {
        let client = connect(options).await?;
        let outcome = work(&client).await;
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

//! One command's conversation with the head.

use anyhow::Context as _;
use rdist::client::Client;
use rdist::config::Home;

use crate::arguments;

/// Connects to the head that the options name, and lets `work` talk to it.
pub(super) fn run<T>(
    options: &arguments::Client,
    work: impl AsyncFnOnce(&Client) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the event loop")?;
    runtime.block_on(async {
        let client = connect(options).await?;
        let outcome = work(&client).await;
        client.close().await;
        outcome
    })
}

async fn connect(options: &arguments::Client) -> anyhow::Result<Client> {
    let home = Home::from_environment();
    Ok(Client::connect(&home).await?)
}

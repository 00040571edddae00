//! What the loopback network can carry at this moment: the limits of moving objects.
//!
//! Both sides are threads of this process, one for the sender and one for the receiver, as with two
//! workers. QUIC is quinn with the settings of this project and nothing on top; TCP is not
//! encrypted.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use rdist::scheduler::id::WorkerId;
use rdist::transport::{Arrival, Authority, Endpoint, Identity, Peer, Tuning};

use super::measure::{Measured, Pace, measure};

/// Moved in one run.
pub(super) const BYTES: usize = 100_000_000;
const GIGABYTES: f64 = BYTES as f64 / 1e9;

fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// GB per second over one TCP connection.
pub(super) fn tcp(pace: Pace) -> anyhow::Result<Measured> {
    let listener = TcpListener::bind(loopback()).context("a port for TCP")?;
    let mut stream = TcpStream::connect(listener.local_addr()?)?;
    let (mut source, _) = listener.accept()?;
    let sender = std::thread::spawn(move || {
        let bytes = vec![1; BYTES];
        // Each request is one byte; the end of the stream is the end.
        while matches!(source.read(&mut [0]), Ok(1)) && source.write_all(&bytes).is_ok() {}
    });
    let mut into = vec![0; BYTES];
    let measured = measure(pace, GIGABYTES, || {
        stream.write_all(&[1])?;
        stream.read_exact(&mut into)
    })?;
    drop(stream);
    if sender.join().is_err() {
        bail!("the sender over TCP panicked");
    }
    Ok(measured)
}

/// GB per second over one QUIC connection, by `each` bytes that are asked for at a time. `folder`
/// takes a certificate authority of its own.
pub(super) fn quic(pace: Pace, folder: &Path, each: usize) -> anyhow::Result<Measured> {
    let authority = Authority::load_or_create(&folder.join("limit-ca.pem"))?;
    let identity = |id| authority.identity(Peer::Worker(WorkerId(id)));
    let (started, address) = std::sync::mpsc::sync_channel(1);
    let source = identity(1)?;
    let sender = std::thread::spawn(move || send(&source, &started, each));
    let runtime = runtime()?;
    let measured = runtime.block_on(async {
        let endpoint = Endpoint::dialer(&identity(2)?, Tuning::default())?;
        let address = address.recv().context("the sender over QUIC has ended")?;
        let connection = endpoint.connect(&address, Peer::Worker(WorkerId(1))).await?;
        anyhow::Ok((endpoint, connection))
    });
    let (endpoint, connection) = measured?;
    let mut into = vec![0; each];
    let measured = measure(pace, each as f64 / 1e9, || {
        runtime.block_on(async {
            let (mut send, mut receive) = connection.open_bi().await?;
            send.write_all(&[1]).await?;
            receive.read_exact(&mut into).await?;
            anyhow::Ok(())
        })
    })?;
    connection.close(0, "measured");
    runtime.block_on(endpoint.wait_idle());
    match sender.join() {
        Ok(sent) => sent.map(|()| measured),
        Err(_) => bail!("the sender over QUIC panicked"),
    }
}

fn send(
    identity: &Identity,
    started: &std::sync::mpsc::SyncSender<String>,
    each: usize,
) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let endpoint = Endpoint::bind(loopback(), identity, Tuning::default())?;
        started.send(endpoint.local_address()?.to_string())?;
        let incoming = endpoint.accept().await.context("nobody called")?;
        let Arrival::Member(connection) = incoming.establish().await? else {
            bail!("a stranger called")
        };
        let bytes = Bytes::from(vec![1; each]);
        // Until the receiver closes the connection.
        while let Ok((mut send, mut receive)) = connection.accept_bi().await {
            receive.read_exact(&mut [0]).await?;
            send.write_chunk(bytes.clone()).await?;
            send.finish()?;
        }
        Ok(())
    })
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

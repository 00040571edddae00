//! One UDP port, mutual TLS, tuned QUIC: dial somebody by address and expected name, accept
//! members and joiners.
//!
//! Everything here runs on the caller's tokio runtime; one current-thread runtime for each
//! endpoint measures best ([`super::event_loop`]). Not here: what members say.

use core::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::ConnectionError;
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use rustls::pki_types::CertificateDer;
use tokio::runtime::{Handle, RuntimeFlavor};

pub use super::error::{AcceptError, BindError, ConnectError};
use super::identity::{Fingerprint, Identity, Peer};
use super::reset::{RandomIds, ResetKey};
use super::tls;
use super::tuning::{DATAGRAM_BYTES, Transports, Tuning, is_loopback};

/// Reasons for which a connection is closed on purpose.
pub mod close {
    /// It has served its purpose.
    pub const DONE: u32 = 0;
    /// The dialled side speaks another protocol version, which the reason's text names.
    pub const VERSION: u32 = 1;
    /// The other side may not be here; the text says why.
    pub const REFUSED: u32 = 2;
    /// The other side sent what no honest peer sends.
    pub const VIOLATION: u32 = 3;
    /// A newer connection of the same peer has taken over.
    pub const REPLACED: u32 = 4;
}

/// Socket buffers that are asked for; the system may grant less.
const SOCKET_BUFFER_BYTES: usize = 8 << 20;
/// The last packets of a process get so long.
const FAREWELL: Duration = Duration::from_millis(2);
/// Turns of the event loop in which a client's last packets go out.
const LAST_TURNS: u32 = 8;

/// A UDP port with the identity that it shows.
#[derive(Clone)]
pub struct Endpoint {
    inner: quinn::Endpoint,
    /// What it shows where it dials; `None`: nothing yet.
    member: Arc<Mutex<Option<Arc<QuicClientConfig>>>>,
    /// How it answers callers on this machine; `None`: nobody.
    loopback: Arc<Mutex<Option<Arc<quinn::ServerConfig>>>>,
    transports: Transports,
    tuning: Tuning,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({:?})", self.inner.local_addr())
    }
}

impl Endpoint {
    /// One that dials and is dialled. Must be called inside a tokio runtime.
    pub fn bind(
        listen: SocketAddr,
        identity: &Identity,
        tuning: Tuning,
    ) -> Result<Self, BindError> {
        let config = quinn::EndpointConfig::default();
        Self::bind_configured(listen, identity, tuning, config)
    }

    /// One that tells the peers of its earlier life at once that their connections are gone, if
    /// that life had the same `secret` and the same port. Without it they wait until it has been
    /// silent for too long.
    pub fn bind_again(
        listen: SocketAddr,
        identity: &Identity,
        tuning: Tuning,
        secret: [u8; 32],
    ) -> Result<Self, BindError> {
        let mut config = quinn::EndpointConfig::new(Arc::new(ResetKey(secret)));
        // The usual generator knows its own ids only, and stays silent about those of its
        // predecessor.
        config.cid_generator(|| Box::new(RandomIds));
        Self::bind_configured(listen, identity, tuning, config)
    }

    fn bind_configured(
        listen: SocketAddr,
        identity: &Identity,
        tuning: Tuning,
        config: quinn::EndpointConfig,
    ) -> Result<Self, BindError> {
        let transports = Transports::new(&tuning);
        let server = tls::server(identity, tuning.version)?;
        let member = shared(Some(tls::member(identity, tuning.version)?));
        let [network, loopback] = server_configs(server, &transports);
        let inner = open(listen, Some(network), config)?;
        Ok(Self { inner, member, loopback: shared(Some(loopback)), transports, tuning })
    }

    /// Shows another identity from now on, to whoever calls and to whoever is dialled. Connections
    /// that there are go on as they are.
    pub fn rotate(&self, identity: &Identity) -> Result<(), BindError> {
        let server = tls::server(identity, self.tuning.version)?;
        let member = tls::member(identity, self.tuning.version)?;
        let [network, loopback] = server_configs(server, &self.transports);
        self.inner.set_server_config(Some(network));
        *lock(&self.loopback) = Some(Arc::new(loopback));
        *lock(&self.member) = Some(Arc::new(member));
        Ok(())
    }

    /// Goes on from another address of this machine, as when its network has changed: connections
    /// that it has made migrate.
    pub fn rebind(&self, listen: SocketAddr) -> Result<(), BindError> {
        let failed = |source| BindError::Address { address: listen, source };
        self.inner.rebind(socket(listen)?).map_err(failed)
    }

    /// One that only dials, for a client.
    pub fn dialer(identity: &Identity, tuning: Tuning) -> Result<Self, BindError> {
        Self::silent(Some(tls::member(identity, tuning.version)?), tuning)
    }

    /// One that only asks for a certificate.
    pub fn stranger(tuning: Tuning) -> Result<Self, BindError> {
        Self::silent(None, tuning)
    }

    fn silent(member: Option<QuicClientConfig>, tuning: Tuning) -> Result<Self, BindError> {
        let inner = open(unspecified(), None, quinn::EndpointConfig::default())?;
        let transports = Transports::new(&tuning);
        Ok(Self { inner, member: shared(member), loopback: shared(None), transports, tuning })
    }

    /// Where it listens.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// How it behaves.
    pub fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    /// Dials a member at `HOST:PORT`, and checks that it is `expected`.
    pub async fn connect(&self, address: &str, expected: Peer) -> Result<Connection, ConnectError> {
        let member = lock(&self.member).clone();
        let Some(crypto) = member else {
            return Err(ConnectError::Tls("a stranger dials nobody but to join".to_owned()));
        };
        self.connect_with(address, expected, crypto).await
    }

    /// Dials a head to ask it for a certificate: `pin` is all that is known of it.
    pub(super) async fn connect_as_stranger(
        &self,
        address: &str,
        pin: Fingerprint,
    ) -> Result<Connection, ConnectError> {
        let crypto = tls::stranger(pin, self.tuning.version)
            .map_err(|error| ConnectError::Tls(error.to_string()))?;
        self.connect_with(address, Peer::Head, Arc::new(crypto)).await
    }

    /// Dials a head to ask it for a new certificate in the place of `identity`.
    pub(super) async fn connect_for_renewal(
        &self,
        address: &str,
        identity: &Identity,
    ) -> Result<Connection, ConnectError> {
        let crypto = tls::renewal(identity, self.tuning.version)
            .map_err(|error| ConnectError::Tls(error.to_string()))?;
        self.connect_with(address, Peer::Head, Arc::new(crypto)).await
    }

    async fn connect_with(
        &self,
        address: &str,
        expected: Peer,
        crypto: Arc<QuicClientConfig>,
    ) -> Result<Connection, ConnectError> {
        let mut last = ConnectError::Address {
            address: address.to_owned(),
            reason: "no address of this kind of network".to_owned(),
        };
        for target in self.resolve(address).await? {
            match self.connect_one(address, target, expected, crypto.clone()).await {
                Err(error @ (ConnectError::Silent { .. } | ConnectError::Address { .. })) => {
                    last = error;
                }
                settled => return settled,
            }
        }
        Err(last)
    }

    async fn resolve(&self, address: &str) -> Result<Vec<SocketAddr>, ConnectError> {
        let wrong = |reason: String| ConnectError::Address { address: address.to_owned(), reason };
        let v6 = self.local_address().map_err(|error| wrong(error.to_string()))?.is_ipv6();
        let found =
            tokio::net::lookup_host(address).await.map_err(|error| wrong(error.to_string()))?;
        Ok(found.filter(|target| v6 || target.is_ipv4()).collect())
    }

    async fn connect_one(
        &self,
        address: &str,
        target: SocketAddr,
        expected: Peer,
        crypto: Arc<QuicClientConfig>,
    ) -> Result<Connection, ConnectError> {
        let failed = |error: &ConnectionError| {
            ConnectError::of(address, expected, self.tuning.version, error)
        };
        let mut config = quinn::ClientConfig::new(crypto);
        config.transport_config(self.transports.of(target));
        let connecting =
            self.inner.connect_with(config, target, &expected.dns_name()).map_err(|error| {
                ConnectError::Address { address: address.to_owned(), reason: error.to_string() }
            })?;
        let inner = connecting.await.map_err(|error| failed(&error))?;
        if alpn(&inner).as_deref() == Some(tls::ALPN_FALLBACK) {
            let reason = inner.closed().await;
            return Err(failed(&reason));
        }
        Ok(Connection { inner, peer: expected })
    }

    /// The next caller; `None` after [`Self::close`]. Do [`Incoming::establish`] in a task of its
    /// own, so that a slow caller delays nobody.
    pub async fn accept(&self) -> Option<Incoming> {
        let inner = self.inner.accept().await?;
        let is_here = is_loopback(inner.remote_address());
        let loopback = if is_here { lock(&self.loopback).clone() } else { None };
        Some(Incoming { inner, loopback, version: self.tuning.version })
    }

    /// Ends all connections and takes no new ones.
    pub fn close(&self, reason: &str) {
        self.inner.close(close::DONE.into(), reason.as_bytes());
    }

    /// Waits until the other sides know of the end, as far as they still answer.
    pub async fn wait_idle(&self) {
        self.inner.wait_idle().await;
    }

    /// Lets the last packets out of a process that is done; waits for no answer to them.
    pub async fn farewell(&self) {
        // Too late is as good: this only spares the other side a timeout.
        let _ = tokio::time::timeout(FAREWELL, self.inner.wait_idle()).await;
    }

    /// The same for a process that somebody waits for, on an event loop of one thread: it takes no
    /// time.
    pub async fn short_farewell(&self) {
        if Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread {
            return self.farewell().await;
        }
        for _ in 0..LAST_TURNS {
            tokio::task::yield_now().await;
        }
    }
}

fn shared<T>(value: Option<T>) -> Arc<Mutex<Option<Arc<T>>>> {
    Arc::new(Mutex::new(value.map(Arc::new)))
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How callers are answered: those from the network, and those on this machine.
fn server_configs(crypto: QuicServerConfig, transports: &Transports) -> [quinn::ServerConfig; 2] {
    let crypto = Arc::new(crypto);
    [&transports.network, &transports.loopback].map(|transport| {
        let mut server = quinn::ServerConfig::with_crypto(crypto.clone());
        server.transport_config(transport.clone());
        server
    })
}

fn unspecified() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 0))
}

fn open(
    listen: SocketAddr,
    server: Option<quinn::ServerConfig>,
    mut config: quinn::EndpointConfig,
) -> Result<quinn::Endpoint, BindError> {
    let failed = |source| BindError::Address { address: listen, source };
    let socket = socket(listen)?;
    config
        .max_udp_payload_size(DATAGRAM_BYTES)
        .map_err(|error| failed(io::Error::other(error.to_string())))?;
    quinn::Endpoint::new(config, server, socket, Arc::new(quinn::TokioRuntime)).map_err(failed)
}

fn socket(listen: SocketAddr) -> Result<UdpSocket, BindError> {
    let failed = |source| BindError::Address { address: listen, source };
    let socket = UdpSocket::bind(listen).map_err(failed)?;
    // The system caps these; smaller buffers cost speed, not correctness.
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER_BYTES);
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER_BYTES);
    Ok(socket)
}

fn alpn(connection: &quinn::Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}

/// A caller whose hand-shake has not ended.
#[derive(Debug)]
pub struct Incoming {
    inner: quinn::Incoming,
    /// How it is answered, if it comes from this machine.
    loopback: Option<Arc<quinn::ServerConfig>>,
    version: u32,
}

/// Who called.
#[derive(Debug)]
pub enum Arrival {
    /// A member of the cluster.
    Member(Connection),
    /// Somebody who wants a certificate; `renews`: a worker shows the one that it has.
    Joiner {
        /// The connection; one stream with a join request is all that it is good for.
        connection: quinn::Connection,
        /// Who the caller is already.
        renews: Option<Peer>,
    },
}

impl Incoming {
    /// Ends the hand-shake and says who called.
    pub async fn establish(self) -> Result<Arrival, AcceptError> {
        let address = self.inner.remote_address();
        let failed = |source| AcceptError::Handshake { address, source };
        let accepted = match self.loopback {
            Some(config) => self.inner.accept_with(config),
            None => self.inner.accept(),
        };
        let connection = accepted.map_err(failed)?.await.map_err(failed)?;
        let name = alpn(&connection).unwrap_or_default();
        let peer = certified(&connection);
        if name == tls::join_alpn(self.version) {
            return Ok(Arrival::Joiner { connection, renews: peer });
        }
        if name != tls::member_alpn(self.version) {
            connection.close(close::VERSION.into(), self.version.to_string().as_bytes());
            return Err(AcceptError::OtherVersion { address, ours: self.version });
        }
        match peer {
            Some(peer) => Ok(Arrival::Member(Connection { inner: connection, peer })),
            None => {
                connection.close(close::REFUSED.into(), b"no certificate of a member was shown");
                Err(AcceptError::Nobody { address })
            }
        }
    }
}

fn certified(connection: &quinn::Connection) -> Option<Peer> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    Peer::of_certificate(chain.first()?)
}

/// A connection with a member whose certificate was checked.
#[derive(Debug, Clone)]
pub struct Connection {
    inner: quinn::Connection,
    peer: Peer,
}

impl Connection {
    /// Who is at the other end.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Where its packets come from.
    pub fn remote_address(&self) -> SocketAddr {
        self.inner.remote_address()
    }

    /// A new stream.
    pub async fn open_bi(&self) -> Result<(quinn::SendStream, quinn::RecvStream), ConnectionError> {
        self.inner.open_bi().await
    }

    /// The next stream that the other side opens, in its order.
    pub async fn accept_bi(
        &self,
    ) -> Result<(quinn::SendStream, quinn::RecvStream), ConnectionError> {
        self.inner.accept_bi().await
    }

    /// Whether it has ended, for whatever reason.
    pub fn is_closed(&self) -> bool {
        self.inner.close_reason().is_some()
    }

    /// Waits for the end of the connection.
    pub async fn closed(&self) -> ConnectionError {
        self.inner.closed().await
    }

    /// Ends it; `code` is one of [`close`].
    pub fn close(&self, code: u32, reason: &str) {
        self.inner.close(code.into(), reason.as_bytes());
    }

    /// The connection as quinn knows it, for its statistics.
    pub fn quinn(&self) -> &quinn::Connection {
        &self.inner
    }
}

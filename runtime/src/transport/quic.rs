//! One UDP port, mutual TLS, tuned QUIC: dial somebody by address and expected name, accept
//! members and joiners.
//!
//! Everything here runs on the caller's tokio runtime; one current-thread runtime for each
//! endpoint measures best (design note in this module's `Tuning`). Not here: what members say.

use core::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::crypto::rustls::{HandshakeData, QuicClientConfig};
use quinn::{ConnectionError, TransportConfig, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::runtime::{Handle, RuntimeFlavor};

use super::congestion::TolerantConfig;
pub use super::error::{AcceptError, BindError, ConnectError};
use super::identity::{Fingerprint, Identity, Peer};
use super::reset::{RandomIds, ResetKey};
use super::tls;
use crate::wire::PROTOCOL_VERSION;

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

/// How an endpoint behaves.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// A peer that is silent for so long is gone. Idle connections are kept alive well within it.
    pub dead_after: Duration,
    /// The protocol's version; tests set others.
    pub version: u32,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { dead_after: Duration::from_secs(3), version: PROTOCOL_VERSION }
    }
}

/// Most bytes in flight on one stream, and on a connection.
const STREAM_WINDOW_BYTES: u32 = 16 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// Largest datagram. quinn hands ten of them to the system at once, and that takes 65,507 bytes:
/// 6,500 move a fifth more over loopback than 4,000, which move twice as much as 1,452; of 8,000
/// and more fewer fit, and a third is moved. Paths that carry less are found out.
const DATAGRAM_BYTES: u16 = 6_500;
/// Socket buffers that are asked for; the system may grant less.
const SOCKET_BUFFER_BYTES: usize = 8 << 20;
/// Round trip that is assumed before one was measured: a lost first packet is repeated after about
/// three of these.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// The last packets of a process get so long.
const FAREWELL: Duration = Duration::from_millis(2);
/// Turns of the event loop in which a client's last packets go out.
const LAST_TURNS: u32 = 8;
/// How many tasks run before the event loop looks at its main future and at sockets again. tokio's
/// own 61 let the packets by which a new connection finds out the largest datagram of its path go
/// before the requests that it was made for.
const EVENT_INTERVAL: u32 = 8;
/// Streams that a peer may have open at once.
const STREAMS: u32 = 1_024;

impl Tuning {
    fn transport(&self) -> Arc<TransportConfig> {
        let mut config = TransportConfig::default();
        let idle = self.dead_after.try_into().unwrap_or_else(|_| VarInt::MAX.into());
        let mut discovery = quinn::MtuDiscoveryConfig::default();
        discovery.upper_bound(DATAGRAM_BYTES);
        config
            .initial_rtt(INITIAL_RTT)
            .max_idle_timeout(Some(idle))
            .keep_alive_interval(Some(self.dead_after / 4))
            .stream_receive_window(STREAM_WINDOW_BYTES.into())
            .receive_window(CONNECTION_WINDOW_BYTES.into())
            .send_window(CONNECTION_WINDOW_BYTES.into())
            .max_concurrent_bidi_streams(STREAMS.into())
            .max_concurrent_uni_streams(0_u32.into())
            .datagram_receive_buffer_size(None)
            .congestion_controller_factory(Arc::new(TolerantConfig))
            .mtu_discovery_config(Some(discovery));
        Arc::new(config)
    }
}

/// An event loop of one thread, for who talks over an [`Endpoint`].
///
/// # Errors
/// Where the system has no descriptors for it.
pub fn event_loop() -> io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().event_interval(EVENT_INTERVAL).build()
}

/// A UDP port with the identity that it shows.
#[derive(Clone)]
pub struct Endpoint {
    inner: quinn::Endpoint,
    /// What it shows where it dials; `None`: nothing yet.
    member: Arc<Mutex<Option<Arc<QuicClientConfig>>>>,
    transport: Arc<TransportConfig>,
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
        let transport = tuning.transport();
        let server = server_config(identity, &tuning, &transport)?;
        let inner = open(listen, Some(server), config)?;
        let member = shown(Some(tls::member(identity, tuning.version)?));
        Ok(Self { inner, member, transport, tuning })
    }

    /// Shows another identity from now on, to whoever calls and to whoever is dialled. Connections
    /// that there are go on as they are.
    pub fn rotate(&self, identity: &Identity) -> Result<(), BindError> {
        let server = server_config(identity, &self.tuning, &self.transport)?;
        let member = tls::member(identity, self.tuning.version)?;
        self.inner.set_server_config(Some(server));
        *self.member.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(member));
        Ok(())
    }

    /// One that only dials, for a client.
    pub fn dialer(identity: &Identity, tuning: Tuning) -> Result<Self, BindError> {
        let member = shown(Some(tls::member(identity, tuning.version)?));
        let inner = open(unspecified(), None, quinn::EndpointConfig::default())?;
        Ok(Self { inner, member, transport: tuning.transport(), tuning })
    }

    /// One that only asks for a certificate.
    pub fn stranger(tuning: Tuning) -> Result<Self, BindError> {
        let inner = open(unspecified(), None, quinn::EndpointConfig::default())?;
        Ok(Self { inner, member: shown(None), transport: tuning.transport(), tuning })
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
        let member = self.member.lock().unwrap_or_else(PoisonError::into_inner).clone();
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
        config.transport_config(self.transport.clone());
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
        Some(Incoming { inner, version: self.tuning.version })
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

fn shown(config: Option<QuicClientConfig>) -> Arc<Mutex<Option<Arc<QuicClientConfig>>>> {
    Arc::new(Mutex::new(config.map(Arc::new)))
}

fn server_config(
    identity: &Identity,
    tuning: &Tuning,
    transport: &Arc<TransportConfig>,
) -> Result<quinn::ServerConfig, BindError> {
    let crypto = Arc::new(tls::server(identity, tuning.version)?);
    let mut server = quinn::ServerConfig::with_crypto(crypto);
    server.transport_config(transport.clone());
    Ok(server)
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
    let socket = UdpSocket::bind(listen).map_err(failed)?;
    // The system caps these; smaller buffers cost speed, not correctness.
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER_BYTES);
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER_BYTES);
    config
        .max_udp_payload_size(DATAGRAM_BYTES)
        .map_err(|error| failed(io::Error::other(error.to_string())))?;
    quinn::Endpoint::new(config, server, socket, Arc::new(quinn::TokioRuntime)).map_err(failed)
}

fn alpn(connection: &quinn::Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}

/// A caller whose hand-shake has not ended.
#[derive(Debug)]
pub struct Incoming {
    inner: quinn::Incoming,
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
        let connection = self.inner.accept().map_err(failed)?.await.map_err(failed)?;
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

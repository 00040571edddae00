//! How connections behave, over a network and within a machine, and the event loop that they like.

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use quinn::{TransportConfig, VarInt};

use super::congestion::TolerantConfig;
use crate::wire::PROTOCOL_VERSION;

/// How an endpoint behaves.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// A peer that is silent for so long is gone. Idle connections are kept alive well within it.
    /// Of two sides that say different times, the shorter one counts.
    pub dead_after: Duration,
    /// The protocol's version; tests set others.
    pub version: u32,
}

impl Tuning {
    /// What may be chosen for [`Self::dead_after`]: less is an ordinary delay of a busy machine or
    /// network.
    pub const DEAD_AFTER: RangeInclusive<Duration> =
        Duration::from_millis(500)..=Duration::from_secs(3_600);
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
pub(super) const DATAGRAM_BYTES: u16 = 6_500;
/// Round trip that is assumed before one was measured: a lost first packet is repeated after about
/// three of these.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// How many tasks run before the event loop looks at its main future and at sockets again. tokio's
/// own 61 let the packets by which a new connection finds out the largest datagram of its path go
/// before the requests that it was made for.
const EVENT_INTERVAL: u32 = 8;
/// Streams that a peer may have open at once. quinn makes room for all of them with each
/// connection.
const STREAMS: u32 = 256;

/// How often in `dead_after` an idle connection says that it lives.
const SIGNS_OF_LIFE: u32 = 5;

impl Tuning {
    fn transport(&self) -> TransportConfig {
        let mut config = TransportConfig::default();
        // The first sign that stays without an answer starts quinn's idle timer anew.
        let sign = self.dead_after / SIGNS_OF_LIFE;
        let idle = (self.dead_after - sign).try_into().unwrap_or_else(|_| VarInt::MAX.into());
        let mut discovery = quinn::MtuDiscoveryConfig::default();
        discovery.upper_bound(DATAGRAM_BYTES);
        config
            .initial_rtt(INITIAL_RTT)
            .max_idle_timeout(Some(idle))
            .keep_alive_interval(Some(sign))
            .stream_receive_window(STREAM_WINDOW_BYTES.into())
            .receive_window(CONNECTION_WINDOW_BYTES.into())
            .send_window(CONNECTION_WINDOW_BYTES.into())
            .max_concurrent_bidi_streams(STREAMS.into())
            .max_concurrent_uni_streams(0_u32.into())
            .datagram_receive_buffer_size(None)
            .congestion_controller_factory(Arc::new(TolerantConfig))
            .mtu_discovery_config(Some(discovery));
        config
    }
}

/// How connections behave.
#[derive(Debug, Clone)]
pub(super) struct Transports {
    /// Over a network, whose largest datagram is found out.
    pub(super) network: Arc<TransportConfig>,
    /// Within this machine: any datagram comes through, and to find that out would take as many
    /// packets as a short request.
    pub(super) loopback: Arc<TransportConfig>,
}

impl Transports {
    pub(super) fn new(tuning: &Tuning) -> Self {
        let mut loopback = tuning.transport();
        loopback.initial_mtu(DATAGRAM_BYTES).mtu_discovery_config(None);
        Self { network: Arc::new(tuning.transport()), loopback: Arc::new(loopback) }
    }

    pub(super) fn of(&self, peer: SocketAddr) -> Arc<TransportConfig> {
        if is_loopback(peer) { self.loopback.clone() } else { self.network.clone() }
    }
}

pub(super) fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// An event loop of one thread, for who talks over an [`Endpoint`](super::Endpoint).
///
/// # Errors
/// Where the system has no descriptors for it.
pub fn event_loop() -> io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().event_interval(EVENT_INTERVAL).build()
}

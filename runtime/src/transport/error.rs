//! What can go wrong between two endpoints, in words that name both sides.

use std::io;
use std::net::SocketAddr;

use quinn::{ConnectionError, VarInt};

use super::identity::Peer;
use super::quic::close;
use super::tls::TlsError;

/// An endpoint cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is taken, or is not this machine's.
    #[error("cannot listen on UDP {address}: {source}; choose another with --listen HOST:PORT")]
    Address {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Its certificates are of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A peer cannot be reached.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// The address means nothing.
    #[error("{address} is no address that can be reached: {reason}; write HOST:PORT")]
    Address {
        /// As it was given.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// Nobody answers.
    #[error("nobody answers at {address}: {reason}; check that it runs and that UDP gets through")]
    Silent {
        /// Where.
        address: String,
        /// What happened.
        reason: String,
    },
    /// Another version.
    #[error(
        "{address} speaks version {theirs} of the protocol, this rdist speaks {ours}: use the \
             same release on both sides"
    )]
    OtherVersion {
        /// Where.
        address: String,
        /// Its version, or `another`.
        theirs: String,
        /// Ours.
        ours: u32,
    },
    /// Its certificate is of another CA.
    #[error(
        "{address} belongs to another cluster (its certificate has another CA): check the \
             address, or join again with a token of that cluster"
    )]
    OtherCluster {
        /// Where.
        address: String,
    },
    /// It is somebody else of the cluster.
    #[error("at {address} is not {expected}: {reason}")]
    OtherPeer {
        /// Where.
        address: String,
        /// Who should be there.
        expected: Peer,
        /// What TLS says.
        reason: String,
    },
    /// It does not want this peer.
    #[error("{address} refused the connection: {reason}")]
    Refused {
        /// Where.
        address: String,
        /// What it says.
        reason: String,
    },
    /// Own certificates are of no use.
    #[error("{0}")]
    Tls(String),
}

/// Alerts of TLS as QUIC error codes (RFC 9001, 4.8).
const fn alert(number: u64) -> u64 {
    0x100 + number
}

impl ConnectError {
    /// What a broken connection to `address` means.
    pub fn of(address: &str, expected: Peer, ours: u32, error: &ConnectionError) -> Self {
        let address = address.to_owned();
        match error {
            ConnectionError::TransportError(error) => match u64::from(error.code) {
                // Unknown authority; or a signature that its authority did not make.
                code if code == alert(48) || code == alert(51) => Self::OtherCluster { address },
                code if (alert(40)..alert(50)).contains(&code) => {
                    Self::OtherPeer { address, expected, reason: error.reason.clone() }
                }
                _ => Self::Silent { address, reason: error.to_string() },
            },
            ConnectionError::ConnectionClosed(frame) => match u64::from(frame.error_code) {
                code if code == alert(120) => {
                    Self::OtherVersion { address, theirs: "another".to_owned(), ours }
                }
                code if (alert(0)..=alert(255)).contains(&code) => Self::Refused {
                    address,
                    reason: format!(
                        "it does not accept this certificate ({}); join again with a token",
                        String::from_utf8_lossy(&frame.reason)
                    ),
                },
                _ => Self::Silent { address, reason: error.to_string() },
            },
            ConnectionError::ApplicationClosed(frame) => {
                let reason = String::from_utf8_lossy(&frame.reason).into_owned();
                if frame.error_code == VarInt::from(close::VERSION) {
                    return Self::OtherVersion { address, theirs: reason, ours };
                }
                Self::Refused { address, reason }
            }
            other => Self::Silent { address, reason: other.to_string() },
        }
    }
}

/// A caller that is turned away.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The hand-shake failed.
    #[error("a hand-shake with {address} failed: {source}")]
    Handshake {
        /// Where from.
        address: SocketAddr,
        /// Why.
        source: ConnectionError,
    },
    /// It speaks another version.
    #[error("{address} speaks another version of the protocol than {ours}")]
    OtherVersion {
        /// Where from.
        address: SocketAddr,
        /// Our version.
        ours: u32,
    },
    /// It shows no certificate, or one that names nobody.
    #[error("{address} shows no certificate of a member")]
    Nobody {
        /// Where from.
        address: SocketAddr,
    },
}

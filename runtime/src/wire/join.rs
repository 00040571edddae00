//! Between somebody without a certificate and the head: the only bytes that the head reads from a
//! stranger.
//!
//! ```text
//! joiner ──JoinRequest──► head      one stream, one message of at most MAX_JOIN_BYTES
//! joiner ◄──JoinReply──── head      then the connection ends
//! ```
//! The joiner knows the head by the CA fingerprint in its token; the head knows the joiner by the
//! token's secret, or by a worker's certificate that it wants to have renewed.
#![allow(missing_docs, reason = "rkyv derives archived fields without docs")]

use core::fmt;

use rdist_scheduler::id::WorkerId;
use rkyv::{Archive, Deserialize, Serialize};

/// Largest [`JoinRequest`], and largest [`JoinReply`].
pub const MAX_JOIN_BYTES: usize = 16 << 10;

/// What a token lets its bearer become.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize,
)]
pub enum Role {
    /// A worker daemon.
    Worker,
    /// Somebody who submits and stops jobs and changes the cluster.
    Client,
    /// Somebody who looks.
    ReadOnly,
}

impl Role {
    /// The word for people and for certificates.
    pub fn word(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Client => "client",
            Self::ReadOnly => "read-only",
        }
    }

    /// The role that `word` names.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Worker, Self::Client, Self::ReadOnly].into_iter().find(|role| role.word() == word)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Asks for a certificate.
#[derive(Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct JoinRequest {
    /// What to become.
    pub role: Role,
    /// The token's id and secret; `None`: the connection's own certificate speaks for it.
    pub token: Option<(u64, [u8; 16])>,
    /// The worker whose certificate speaks for it wants another one and stays who it is, instead of
    /// becoming a new incarnation.
    pub stays: bool,
    /// A certificate signing request in DER. Only its key counts.
    pub request: Vec<u8>,
}

/// Answer.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum JoinReply {
    /// Welcome.
    Granted {
        /// The certificate in DER.
        certificate: Vec<u8>,
        /// The worker's new id; 0 for other roles.
        worker: WorkerId,
        /// Milliseconds of silence after which the head gives a worker up.
        dead_after_ms: u64,
    },
    /// No.
    Refused(JoinRefusal),
}

/// Why somebody may not join.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, thiserror::Error)]
pub enum JoinRefusal {
    /// No such token, or another secret.
    #[error("the head does not know this token; make one with `rdist token create`")]
    Wrong,
    /// Too old.
    #[error("the token has expired; make a new one with `rdist token create`")]
    Expired,
    /// Taken back.
    #[error("the token was revoked; make a new one with `rdist token create`")]
    Revoked,
    /// Used up.
    #[error("the token is used up; make a new one with `rdist token create`")]
    UsedUp,
    /// It is for something else.
    #[error("the token makes a {granted}; try `rdist token create --role {wanted}`")]
    OtherRole {
        /// What it is for.
        granted: Role,
        /// What was asked.
        wanted: Role,
    },
    /// A worker that the head has removed wants back in with its old certificate.
    #[error("this worker was removed from the cluster; join again with a token")]
    Removed,
    /// No token and no certificate, or a request that cannot be read.
    #[error("the request to join is malformed: {0}")]
    Malformed(String),
    /// The head could not keep its books.
    #[error("the head failed: {0}; its log says more")]
    HeadFailed(String),
}

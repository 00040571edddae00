//! How a worker or a client gets its certificate, and how the head gives it.

use std::sync::Arc;
use std::time::Duration;

use rdist_scheduler::id::WorkerId;
use rustls::pki_types::CertificateDer;

use super::frame;
use super::identity::{Authority, Fingerprint, Identity, IdentityError, Peer, new_request};
use super::quic::{BindError, ConnectError, Connection, Endpoint, close};
use super::token::Token;
use super::tuning::Tuning;
use crate::wire::PROTOCOL_VERSION;
use crate::wire::join::{JoinRefusal, JoinReply, JoinRequest, MAX_JOIN_BYTES, Role};

/// A joiner that has not said its wish by then is turned away.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Somebody could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// No socket, or no certificates.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The head cannot be reached, or is another one.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The head said no.
    #[error("the head at {address} refused: {refusal}")]
    Refused {
        /// Which head.
        address: String,
        /// Why.
        refusal: JoinRefusal,
    },
    /// The head did not answer as it should.
    #[error("the head at {address} gave no proper answer: {reason}")]
    Answer {
        /// Which head.
        address: String,
        /// What happened.
        reason: String,
    },
    /// The key, or what came back for it, is of no use.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// What the head gives to who may join.
#[derive(Debug, Clone)]
pub struct Admission {
    /// Who it is from now on.
    pub identity: Identity,
    /// Silence after which the head gives a worker up.
    pub dead_after: Duration,
}

/// Asks the head at `address` for an identity with a token's role. Needs a tokio runtime.
pub async fn join(address: &str, token: &Token, tuning: Tuning) -> Result<Admission, JoinError> {
    let endpoint = Endpoint::stranger(tuning)?;
    let connection = endpoint.connect_as_stranger(address, token.cluster).await?;
    let proof = Proof { token: Some((token.id, token.secret)), stays: false };
    let admission = ask(&connection, address, token.cluster, token.role, proof).await;
    endpoint.farewell().await;
    admission
}

/// Asks the head for a new incarnation of a worker that has a certificate already.
pub async fn renew(
    address: &str,
    identity: &Identity,
    tuning: Tuning,
) -> Result<Admission, JoinError> {
    ask_as_worker(address, identity, tuning, false).await
}

/// Asks the head for a new certificate and key of a worker that runs, which stays who it is.
pub async fn rotate(
    address: &str,
    identity: &Identity,
    tuning: Tuning,
) -> Result<Admission, JoinError> {
    ask_as_worker(address, identity, tuning, true).await
}

async fn ask_as_worker(
    address: &str,
    identity: &Identity,
    tuning: Tuning,
    stays: bool,
) -> Result<Admission, JoinError> {
    let endpoint = Endpoint::stranger(tuning)?;
    let connection = endpoint.connect_for_renewal(address, identity).await?;
    let proof = Proof { token: None, stays };
    let renewed = ask(&connection, address, identity.cluster(), Role::Worker, proof).await;
    endpoint.farewell().await;
    renewed
}

/// Why the head should grant a request.
struct Proof {
    token: Option<(u64, [u8; 16])>,
    /// The worker whose certificate speaks for it stays who it is.
    stays: bool,
}

async fn ask(
    connection: &Connection,
    address: &str,
    cluster: Fingerprint,
    role: Role,
    Proof { token, stays }: Proof,
) -> Result<Admission, JoinError> {
    let (key, request) = new_request()?;
    let answer = |reason: String| JoinError::Answer { address: address.to_owned(), reason };
    let broken = |error: quinn::ConnectionError| {
        JoinError::from(ConnectError::of(address, Peer::Head, PROTOCOL_VERSION, &error))
    };
    let (mut send, mut receive) = connection.open_bi().await.map_err(broken)?;
    let message = JoinRequest { role, token, stays, request };
    let reply = async {
        frame::write(&mut send, &message).await.map_err(|error| answer(error.to_string()))?;
        frame::read::<JoinReply>(&mut receive, MAX_JOIN_BYTES)
            .await
            .map_err(|error| answer(error.to_string()))
    };
    let reply = match reply.await {
        Ok(reply) => reply,
        Err(error) => {
            return Err(connection.quinn().close_reason().map_or(error, broken));
        }
    };
    let authority = shown_authority(connection.quinn(), cluster)
        .ok_or_else(|| answer("it did not show its CA".to_owned()))?;
    connection.close(close::DONE, "joined");
    match reply {
        Some(JoinReply::Granted { certificate, dead_after_ms, .. }) => {
            let identity = Identity::new(&key, certificate.into(), authority).map_err(answer)?;
            Ok(Admission { identity, dead_after: Duration::from_millis(dead_after_ms) })
        }
        Some(JoinReply::Refused(refusal)) => {
            Err(JoinError::Refused { address: address.to_owned(), refusal })
        }
        None => Err(answer("it ended the stream".to_owned())),
    }
}

/// The CA that the other side showed, and that was expected.
fn shown_authority(
    connection: &quinn::Connection,
    cluster: Fingerprint,
) -> Option<CertificateDer<'static>> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    chain.into_iter().find(|certificate| Fingerprint::of(certificate) == cluster)
}

/// The head's side: gives certificates to who may join.
#[derive(Debug, Clone)]
pub struct Registrar {
    /// Signs them.
    pub authority: Arc<Authority>,
    /// What joiners are told with theirs.
    pub dead_after: Duration,
}

impl Registrar {
    /// Serves one joiner: reads the request, lets `decide` look into the books, answers.
    ///
    /// `decide` gets the request and the worker that shows its certificate, redeems the token
    /// durably and says who the joiner is to be.
    pub async fn answer<D, F>(&self, connection: quinn::Connection, renews: Option<Peer>, decide: D)
    where
        D: FnOnce(JoinRequest, Option<WorkerId>) -> F,
        F: Future<Output = Result<Peer, JoinRefusal>>,
    {
        let renewed = match renews {
            Some(Peer::Worker(worker)) => Some(worker),
            _ => None,
        };
        let exchange = async {
            let (mut send, mut receive) = connection.accept_bi().await.ok()?;
            let reply = match frame::read::<JoinRequest>(&mut receive, MAX_JOIN_BYTES).await {
                Ok(Some(request)) => self.reply_to(request, renewed, decide).await,
                Ok(None) => return None,
                Err(error) => JoinReply::Refused(JoinRefusal::Malformed(error.to_string())),
            };
            frame::write(&mut send, &reply).await.ok()?;
            send.finish().ok()?;
            // The joiner ends the connection when it has the answer.
            Some(connection.closed().await)
        };
        if tokio::time::timeout(JOIN_TIMEOUT, exchange).await.is_err() {
            tracing::debug!(from = %connection.remote_address(), "a joiner took too long");
        }
        connection.close(close::REFUSED.into(), b"one request to join is all that is allowed here");
    }

    async fn reply_to<D, F>(
        &self,
        request: JoinRequest,
        renewed: Option<WorkerId>,
        decide: D,
    ) -> JoinReply
    where
        D: FnOnce(JoinRequest, Option<WorkerId>) -> F,
        F: Future<Output = Result<Peer, JoinRefusal>>,
    {
        let signing_request = request.request.clone();
        // Before the token is spent: a request that cannot be granted must cost nothing.
        if let Err(error) = self.authority.grant(&signing_request, Peer::ReadOnly) {
            return JoinReply::Refused(JoinRefusal::Malformed(error.to_string()));
        }
        let peer = match decide(request, renewed).await {
            Ok(peer) => peer,
            Err(refusal) => return JoinReply::Refused(refusal),
        };
        match self.authority.grant(&signing_request, peer) {
            Ok(certificate) => JoinReply::Granted {
                certificate: certificate.to_vec(),
                worker: match peer {
                    Peer::Worker(worker) => worker,
                    _ => WorkerId::HEAD,
                },
                dead_after_ms: u64::try_from(self.dead_after.as_millis()).unwrap_or(u64::MAX),
            },
            Err(error) => JoinReply::Refused(JoinRefusal::HeadFailed(error.to_string())),
        }
    }
}

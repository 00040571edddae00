//! TLS 1.3 configurations: mutual, with the cluster's CA as the only root.
//!
//! The version of the protocol is part of the application protocol's name (ALPN):
//!
//! ```text
//! rdist/V         members, who show a certificate
//! rdist-join/V    somebody who wants a certificate
//! rdist-version   offered by all, taken when V differs: the side that was dialled closes at once
//!                 and names its V in the reason, so that both versions stand in the error
//! ```
//! Sessions are never resumed: each connection shows its certificates.

use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::CipherSuite::TLS13_AES_128_GCM_SHA256;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, version,
};

use super::identity::{Fingerprint, Identity};

/// ALPN that every version offers last.
pub(super) const ALPN_FALLBACK: &[u8] = b"rdist-version";

/// A configuration that cannot be made from these certificates.
#[derive(Debug, thiserror::Error)]
#[error("the certificates are of no use: {0}; remove them and join again")]
pub struct TlsError(String);

fn unusable(error: impl core::fmt::Display) -> TlsError {
    TlsError(error.to_string())
}

/// ALPN name of members.
pub(super) fn member_alpn(version: u32) -> Vec<u8> {
    format!("rdist/{version}").into_bytes()
}

/// ALPN name of those who want to become members.
pub(super) fn join_alpn(version: u32) -> Vec<u8> {
    format!("rdist-join/{version}").into_bytes()
}

/// With AES-128 and SHA-256 first, for which processors have instructions: the SHA-384 of the suite
/// that rustls prefers is computed without any.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

fn roots(authority: &CertificateDer<'static>) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).map_err(unusable)?;
    Ok(Arc::new(roots))
}

/// For the side that is dialled.
pub(super) fn server(identity: &Identity, version: u32) -> Result<QuicServerConfig, TlsError> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots(identity.authority())?, provider())
            .allow_unauthenticated()
            .build()
            .map_err(unusable)?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain(), identity.key())
        .map_err(unusable)?;
    config.alpn_protocols = vec![member_alpn(version), join_alpn(version), ALPN_FALLBACK.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    QuicServerConfig::try_from(config).map_err(unusable)
}

/// For a member that dials another one.
pub(super) fn member(identity: &Identity, version: u32) -> Result<QuicClientConfig, TlsError> {
    known(identity, member_alpn(version))
}

/// For a worker that wants its certificate renewed.
pub(super) fn renewal(identity: &Identity, version: u32) -> Result<QuicClientConfig, TlsError> {
    known(identity, join_alpn(version))
}

fn known(identity: &Identity, alpn: Vec<u8>) -> Result<QuicClientConfig, TlsError> {
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(unusable)?
        .with_root_certificates(roots(identity.authority())?)
        .with_client_auth_cert(identity.chain(), identity.key())
        .map_err(unusable)?;
    finish(config, alpn)
}

/// For somebody who knows nothing but the CA's fingerprint.
pub(super) fn stranger(pin: Fingerprint, version: u32) -> Result<QuicClientConfig, TlsError> {
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { pin, provider: provider() }))
        .with_no_client_auth();
    finish(config, join_alpn(version))
}

fn finish(mut config: rustls::ClientConfig, alpn: Vec<u8>) -> Result<QuicClientConfig, TlsError> {
    config.alpn_protocols = vec![alpn, ALPN_FALLBACK.to_vec()];
    config.resumption = Resumption::disabled();
    QuicClientConfig::try_from(config).map_err(unusable)
}

/// Trusts the CA with that fingerprint, which the other side shows in its chain, and nothing else.
#[derive(Debug)]
struct Pinned {
    pin: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = intermediates
            .iter()
            .find(|certificate| Fingerprint::of(certificate) == self.pin)
            .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
                .build()
                .map_err(|error| Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only TLS 1.3 is spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

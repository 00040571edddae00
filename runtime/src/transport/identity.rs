//! Who is who: the cluster's CA, the certificates that it issues, and the files that hold them.
//!
//! A certificate names its owner in one DNS subject alternative name, so that TLS itself checks
//! whom a dialer expects: `head.rdist`, `worker-7.rdist`, `client.rdist`, `read-only.rdist`.
//! Files are PEM with mode 0600: private key, certificate, CA certificate, in this order.

use core::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rdist_scheduler::id::WorkerId;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::extensions::GeneralName;

use crate::wire::join::Role;

/// The last label of every name.
const DOMAIN: &str = "rdist";
/// How long a certificate authority lives.
const AUTHORITY_AGE: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// How long a certificate lives. Workers and clients get a new one with every start, and the head
/// and workers now and then while they run.
const CERTIFICATE_AGE: Duration = Duration::from_secs(30 * 24 * 3600);
/// How old a daemon lets its certificate become: a head that is away for two weeks locks nobody
/// out.
pub const ROTATION_PERIOD: Duration = Duration::from_secs(10 * 24 * 3600);
/// Clocks may differ by so much.
const CLOCK_SKEW: Duration = Duration::from_secs(24 * 3600);

/// Somebody at the other end of a connection, as its certificate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// The head.
    Head,
    /// A worker's incarnation.
    Worker(WorkerId),
    /// Somebody who submits jobs.
    Client,
    /// Somebody who looks.
    ReadOnly,
}

impl Peer {
    /// Its name in certificates.
    pub fn dns_name(self) -> String {
        match self {
            Self::Head => format!("head.{DOMAIN}"),
            Self::Worker(worker) => format!("worker-{}.{DOMAIN}", worker.0),
            Self::Client => format!("client.{DOMAIN}"),
            Self::ReadOnly => format!("read-only.{DOMAIN}"),
        }
    }

    /// Whose name it is.
    pub fn from_dns_name(name: &str) -> Option<Self> {
        match name.strip_suffix(DOMAIN)?.strip_suffix('.')? {
            "head" => Some(Self::Head),
            "client" => Some(Self::Client),
            "read-only" => Some(Self::ReadOnly),
            other => {
                let digits = other.strip_prefix("worker-")?;
                let worker = WorkerId(digits.parse().ok()?);
                (digits == worker.0.to_string() && worker != WorkerId::HEAD)
                    .then_some(Self::Worker(worker))
            }
        }
    }

    /// The one name in a certificate that was already verified.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let names = parsed.subject_alternative_name().ok()??;
        match names.value.general_names.as_slice() {
            [GeneralName::DNSName(name)] => Self::from_dns_name(name),
            _ => None,
        }
    }

    /// What a token's bearer becomes; `worker` counts for workers alone.
    pub fn of_role(role: Role, worker: WorkerId) -> Self {
        match role {
            Role::Worker => Self::Worker(worker),
            Role::Client => Self::Client,
            Role::ReadOnly => Self::ReadOnly,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => f.write_str("the head"),
            Self::Worker(worker) => write!(f, "{worker}"),
            Self::Client => f.write_str("a client"),
            Self::ReadOnly => f.write_str("a read-only client"),
        }
    }
}

/// BLAKE3 hash of a CA certificate in DER: what a token pins.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Of that certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(*blake3::hash(certificate).as_bytes())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", blake3::Hash::from_bytes(self.0).to_hex())
    }
}

/// What went wrong with certificates and their files.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} is no identity ({reason}); remove it and join again", path.display())]
    Malformed {
        /// Where.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The cryptography refused.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// A private key, its certificate, and the CA that vouches for it.
pub struct Identity {
    key: PrivatePkcs8KeyDer<'static>,
    certificate: CertificateDer<'static>,
    authority: CertificateDer<'static>,
    peer: Peer,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone_key(),
            certificate: self.certificate.clone(),
            authority: self.authority.clone(),
            peer: self.peer,
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?} of {:?})", self.peer, self.cluster())
    }
}

impl Identity {
    /// Puts the parts together; says what is wrong where they name nobody.
    pub fn new(
        key: &KeyPair,
        certificate: CertificateDer<'static>,
        authority: CertificateDer<'static>,
    ) -> Result<Self, String> {
        Self::from_parts(key.serialize_der().into(), certificate, authority)
    }

    fn from_parts(
        key: PrivatePkcs8KeyDer<'static>,
        certificate: CertificateDer<'static>,
        authority: CertificateDer<'static>,
    ) -> Result<Self, String> {
        let peer = Peer::of_certificate(&certificate)
            .ok_or_else(|| "its certificate names no part of a cluster".to_owned())?;
        Ok(Self { key, certificate, authority, peer })
    }

    /// Who one is with it.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// The worker's id, where it is a worker's identity.
    pub fn worker(&self) -> Option<WorkerId> {
        match self.peer {
            Peer::Worker(worker) => Some(worker),
            _ => None,
        }
    }

    /// Which cluster it belongs to.
    pub fn cluster(&self) -> Fingerprint {
        Fingerprint::of(&self.authority)
    }

    /// The CA's certificate.
    pub fn authority(&self) -> &CertificateDer<'static> {
        &self.authority
    }

    /// Own certificate and the CA's, as TLS sends them.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.clone(), self.authority.clone()]
    }

    /// The private key.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }

    /// Writes it to a file of mode 0600, whole or not at all.
    pub fn save(&self, path: &Path) -> Result<(), IdentityError> {
        let mut text = pem_text("PRIVATE KEY", self.key.secret_pkcs8_der());
        text.push_str(&pem_text("CERTIFICATE", &self.certificate));
        text.push_str(&pem_text("CERTIFICATE", &self.authority));
        write_private(path, text.as_bytes())
    }

    /// Reads it from a file.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let (key, mut certificates) = load_parts(path)?;
        let malformed = |reason| IdentityError::Malformed { path: path.to_owned(), reason };
        let (Some(authority), Some(certificate), None) =
            (certificates.pop(), certificates.pop(), certificates.pop())
        else {
            return Err(malformed("it must hold two certificates".to_owned()));
        };
        Self::from_parts(key, certificate, authority).map_err(malformed)
    }
}

/// A new key and the request for its certificate in DER.
pub fn new_request() -> Result<(KeyPair, Vec<u8>), IdentityError> {
    let key = KeyPair::generate()?;
    let request = CertificateParams::default().serialize_request(&key)?;
    Ok((key, request.der().to_vec()))
}

/// The cluster's certificate authority; the head alone has it.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({:?})", self.fingerprint())
    }
}

impl Authority {
    /// The one in that file; a new one if there is no such file.
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        if path.exists() { Self::load(path) } else { Self::create(path) }
    }

    fn create(path: &Path) -> Result<Self, IdentityError> {
        let key = KeyPair::generate()?;
        let mut params = aged(CertificateParams::default(), AUTHORITY_AGE);
        params.distinguished_name.push(DnType::CommonName, "rdist cluster");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.der().clone();
        let mut text = key.serialize_pem();
        text.push_str(&pem_text("CERTIFICATE", &certificate));
        write_private(path, text.as_bytes())?;
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    fn load(path: &Path) -> Result<Self, IdentityError> {
        let malformed = |reason: String| IdentityError::Malformed { path: path.to_owned(), reason };
        let (key, mut certificates) = load_parts(path)?;
        let (Some(certificate), None) = (certificates.pop(), certificates.pop()) else {
            return Err(malformed("it must hold one certificate".to_owned()));
        };
        let key = KeyPair::try_from(&key).map_err(|error| malformed(error.to_string()))?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|error| malformed(error.to_string()))?;
        Ok(Self { issuer, certificate })
    }

    /// What tokens pin.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// A secret for `purpose` that stays the same over restarts.
    pub fn secret(&self, purpose: &str) -> [u8; 32] {
        blake3::derive_key(purpose, self.issuer.key().serialized_der())
    }

    /// Its certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A certificate for the key of `request` (a signing request in DER), which says that its
    /// owner is `peer`. Nothing else of the request counts.
    pub fn grant(
        &self,
        request: &[u8],
        peer: Peer,
    ) -> Result<CertificateDer<'static>, IdentityError> {
        let request = CertificateSigningRequestParams::from_der(&request.into())?;
        self.sign(&request.public_key, peer)
    }

    /// A new key with a certificate.
    pub fn identity(&self, peer: Peer) -> Result<Identity, IdentityError> {
        let key = KeyPair::generate()?;
        let certificate = self.sign(&key, peer)?;
        Ok(Identity {
            key: key.serialize_der().into(),
            certificate,
            authority: self.certificate.clone(),
            peer,
        })
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        peer: Peer,
    ) -> Result<CertificateDer<'static>, IdentityError> {
        let name = peer.dns_name();
        let mut params = aged(CertificateParams::default(), CERTIFICATE_AGE);
        params.distinguished_name.push(DnType::CommonName, name.as_str());
        params.subject_alt_names = vec![SanType::DnsName(Ia5String::try_from(name)?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if matches!(peer, Peer::Head | Peer::Worker(_)) {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        Ok(params.signed_by(key, &self.issuer)?.der().clone())
    }
}

fn aged(mut params: CertificateParams, age: Duration) -> CertificateParams {
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + age).into();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
}

fn load_parts(
    path: &Path,
) -> Result<(PrivatePkcs8KeyDer<'static>, Vec<CertificateDer<'static>>), IdentityError> {
    let text = fs::read(path).map_err(|source| IdentityError::File {
        doing: "read",
        path: path.to_owned(),
        source,
    })?;
    let malformed = |error: rustls::pki_types::pem::Error| IdentityError::Malformed {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let key = PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(malformed)?;
    let certificates =
        CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(malformed)?;
    Ok((key, certificates))
}

fn pem_text(label: &str, bytes: &[u8]) -> String {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(bytes);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in body.as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// Writes a file that only its owner can read: whole or not at all, also after a power cut.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    let failed = |source| IdentityError::File { doing: "write", path: path.to_owned(), source };
    let mut unique = [0_u8; 8];
    getrandom::fill(&mut unique).map_err(|error| failed(io::Error::other(error.to_string())))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{:016x}.new", u64::from_le_bytes(unique)));
    let temporary = path.with_file_name(name);
    let write = || {
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|source| {
        // Best effort: the error that matters is the first one.
        let _ = fs::remove_file(&temporary);
        failed(source)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn names_go_both_ways_and_look_alikes_are_refused() {
        for peer in [Peer::Head, Peer::Worker(WorkerId(7)), Peer::Client, Peer::ReadOnly] {
            assert_eq!(Peer::from_dns_name(&peer.dns_name()), Some(peer));
        }
        for name in [
            "worker-0.rdist",
            "worker-07.rdist",
            "worker-+7.rdist",
            "head",
            "headrdist",
            "head.rdist.evil",
            "evil.head.rdist",
            "worker-.rdist",
            "",
        ] {
            assert_eq!(Peer::from_dns_name(name), None, "{name}");
        }
    }

    #[test]
    fn the_authority_and_its_identities_survive_their_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let first = Authority::load_or_create(&path).unwrap();
        let again = Authority::load_or_create(&path).unwrap();
        assert_eq!(first.fingerprint(), again.fingerprint());

        let identity = again.identity(Peer::Worker(WorkerId(3))).unwrap();
        let file = folder.path().join("worker.pem");
        identity.save(&file).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let loaded = Identity::load(&file).unwrap();
        assert_eq!(loaded.peer(), Peer::Worker(WorkerId(3)));
        assert_eq!(loaded.cluster(), first.fingerprint());
        assert_eq!(loaded.chain(), identity.chain());
    }

    #[test]
    fn a_request_cannot_name_its_own_role() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(&folder.path().join("ca.pem")).unwrap();
        let key = KeyPair::generate().unwrap();
        let greedy = CertificateParams::new(vec!["head.rdist".to_owned()]).unwrap();
        let request = greedy.serialize_request(&key).unwrap();
        let certificate = authority.grant(request.der(), Peer::Client).unwrap();
        assert_eq!(Peer::of_certificate(&certificate), Some(Peer::Client));
    }

    #[test]
    fn files_that_hold_something_else_are_refused_with_their_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.pem");
        for content in
            ["", "nonsense", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
        {
            fs::write(&path, content).unwrap();
            let error = Identity::load(&path).unwrap_err();
            assert!(matches!(error, IdentityError::Malformed { .. }), "{error}");
            assert!(error.to_string().contains("client.pem"));
        }
    }
}

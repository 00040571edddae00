//! How an endpoint speaks for its predecessor on the same port: stateless resets whose tokens
//! follow from a secret that both had.

use std::time::Duration;

/// Makes the tokens of stateless resets (RFC 9000, 10.3.2) from the connection's id.
pub(super) struct ResetKey(pub(super) [u8; 32]);

impl quinn::crypto::HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature: &mut [u8]) {
        let hash = blake3::keyed_hash(&self.0, data);
        let len = signature.len().min(self.signature_len());
        signature[..len].copy_from_slice(&hash.as_bytes()[..len]);
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), quinn::crypto::CryptoError> {
        let given: [u8; 32] = signature.try_into().map_err(|_| quinn::crypto::CryptoError)?;
        // Compared in constant time.
        match blake3::keyed_hash(&self.0, data) == blake3::Hash::from_bytes(given) {
            true => Ok(()),
            false => Err(quinn::crypto::CryptoError),
        }
    }
}

/// Connection ids that are nothing but random.
pub(super) struct RandomIds;

impl RandomIds {
    const LEN: usize = 8;
}

impl quinn::ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> quinn::ConnectionId {
        let mut id = [0; Self::LEN];
        getrandom::fill(&mut id).expect("the system's random numbers do not fail after start");
        quinn::ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        Self::LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

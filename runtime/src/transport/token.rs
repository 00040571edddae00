//! Tokens: what somebody without a certificate shows to the head, and what the head keeps of them.
//!
//! ```text
//! text     base64url, no padding, of 58 bytes:
//!          version (1) | role (1) | CA fingerprint (32) | token id (8) | secret (16)
//! record   id, role, BLAKE3 hash of the secret, expiry, uses left, revoked
//! ```
//! The secret is 16 random bytes, so that a plain hash of it tells nobody anything.
#![allow(missing_docs, reason = "rkyv derives archived fields without docs")]

use core::fmt;
use core::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rkyv::{Archive, Deserialize, Serialize};

use super::identity::Fingerprint;
use crate::wire::join::{JoinRefusal, Role};

/// Version of the text form.
const VERSION: u8 = 1;
/// Bytes of the text form before base64.
const LEN: usize = 58;

/// A token as its bearer has it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// What it is for.
    pub role: Role,
    /// Whose cluster.
    pub cluster: Fingerprint,
    /// Its number in the head's books.
    pub id: u64,
    /// What proves that it is the one.
    pub secret: [u8; 16],
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} {:016x} of {:?})", self.role, self.id, self.cluster)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0_u8; LEN];
        bytes[0] = VERSION;
        bytes[1] = match self.role {
            Role::Worker => 0,
            Role::Client => 1,
            Role::ReadOnly => 2,
        };
        bytes[2..34].copy_from_slice(&self.cluster.0);
        bytes[34..42].copy_from_slice(&self.id.to_le_bytes());
        bytes[42..58].copy_from_slice(&self.secret);
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

/// Text that is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenTextError {
    /// Cut off, mistyped, or something else.
    #[error("this is no token: it must be {} letters, digits, - and _; copy it as a whole from \
             `rdist token create` or from the head's join.token", (LEN * 4).div_ceil(3))]
    Malformed,
    /// Made by a newer head.
    #[error(
        "this token has format {0}, and this rdist knows format {VERSION}: use the head's \
             version of rdist"
    )]
    OtherVersion(u8),
}

impl FromStr for Token {
    type Err = TokenTextError;

    fn from_str(text: &str) -> Result<Self, TokenTextError> {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim()).map_err(|_| TokenTextError::Malformed)?;
        let bytes: [u8; LEN] = bytes.try_into().map_err(|_| TokenTextError::Malformed)?;
        if bytes[0] != VERSION {
            return Err(TokenTextError::OtherVersion(bytes[0]));
        }
        let role = match bytes[1] {
            0 => Role::Worker,
            1 => Role::Client,
            2 => Role::ReadOnly,
            _ => return Err(TokenTextError::Malformed),
        };
        let (mut cluster, mut id, mut secret) = ([0; 32], [0; 8], [0; 16]);
        cluster.copy_from_slice(&bytes[2..34]);
        id.copy_from_slice(&bytes[34..42]);
        secret.copy_from_slice(&bytes[42..58]);
        Ok(Self { role, cluster: Fingerprint(cluster), id: u64::from_le_bytes(id), secret })
    }
}

/// A token as the head keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Its number.
    pub id: u64,
    /// What it is for.
    pub role: Role,
    /// BLAKE3 hash of its secret.
    pub secret_hash: [u8; 32],
    /// When it was made, in seconds since 1970.
    pub created_at: u64,
    /// When it ends, in seconds since 1970.
    pub expires_at: Option<u64>,
    /// How often it may still be used.
    pub uses_left: Option<u32>,
    /// Taken back.
    pub revoked: bool,
}

/// What a new token is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenTerms {
    /// What it is for.
    pub role: Role,
    /// Seconds until it ends.
    pub ttl_seconds: Option<u64>,
    /// How often it may be used.
    pub uses: Option<u32>,
}

impl TokenRecord {
    /// A new token: its record for the head's books, its text for its bearer.
    pub fn create(
        cluster: Fingerprint,
        terms: TokenTerms,
        now: u64,
    ) -> Result<(Self, Token), getrandom::Error> {
        let (mut id, mut secret) = ([0; 8], [0; 16]);
        getrandom::fill(&mut id)?;
        getrandom::fill(&mut secret)?;
        let id = u64::from_le_bytes(id);
        let record = Self {
            id,
            role: terms.role,
            secret_hash: *blake3::hash(&secret).as_bytes(),
            created_at: now,
            expires_at: terms.ttl_seconds.map(|ttl| now.saturating_add(ttl)),
            uses_left: terms.uses,
            revoked: false,
        };
        Ok((record, Token { role: terms.role, cluster, id, secret }))
    }

    /// Uses it once, or says why not. Whoever does not know the secret learns nothing else.
    pub fn redeem(&mut self, secret: &[u8; 16], role: Role, now: u64) -> Result<(), JoinRefusal> {
        // blake3::Hash compares in constant time.
        if blake3::hash(secret) != blake3::Hash::from_bytes(self.secret_hash) {
            return Err(JoinRefusal::Wrong);
        }
        if self.revoked {
            return Err(JoinRefusal::Revoked);
        }
        if self.expires_at.is_some_and(|end| now >= end) {
            return Err(JoinRefusal::Expired);
        }
        if self.role != role {
            return Err(JoinRefusal::OtherRole { granted: self.role, wanted: role });
        }
        match &mut self.uses_left {
            Some(0) => Err(JoinRefusal::UsedUp),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(terms: TokenTerms) -> (TokenRecord, Token) {
        TokenRecord::create(Fingerprint([9; 32]), terms, 1_000).unwrap()
    }

    const TERMS: TokenTerms = TokenTerms { role: Role::Worker, ttl_seconds: None, uses: None };

    #[test]
    fn text_goes_both_ways_and_broken_text_is_refused() {
        let (_, token) = token(TERMS);
        let text = token.to_string();
        assert_eq!(text.parse::<Token>().unwrap(), token);
        assert_eq!(format!(" {text}\n").parse::<Token>().unwrap(), token);
        assert_eq!(text[1..].parse::<Token>(), Err(TokenTextError::Malformed));
        assert_eq!("".parse::<Token>(), Err(TokenTextError::Malformed));
        assert_eq!("ä".repeat(39).parse::<Token>(), Err(TokenTextError::Malformed));
        assert_eq!(
            format!("Ag{}", &text[2..]).parse::<Token>(),
            Err(TokenTextError::OtherVersion(2))
        );
        assert!(!format!("{token:?}").contains(&text));
    }

    #[test]
    fn every_way_to_be_refused_has_its_own_name() {
        let (mut record, token) =
            token(TokenTerms { ttl_seconds: Some(60), uses: Some(1), ..TERMS });
        let other = JoinRefusal::OtherRole { granted: Role::Worker, wanted: Role::Client };
        assert_eq!(record.redeem(&[0; 16], Role::Worker, 1_000), Err(JoinRefusal::Wrong));
        assert_eq!(record.redeem(&token.secret, Role::Client, 1_000), Err(other));
        assert_eq!(record.redeem(&token.secret, Role::Worker, 1_060), Err(JoinRefusal::Expired));
        assert_eq!(record.redeem(&token.secret, Role::Worker, 1_059), Ok(()));
        assert_eq!(record.redeem(&token.secret, Role::Worker, 1_059), Err(JoinRefusal::UsedUp));
        record.revoked = true;
        assert_eq!(record.redeem(&token.secret, Role::Worker, 1_059), Err(JoinRefusal::Revoked));
        assert_eq!(record.redeem(&[0; 16], Role::Worker, 1_059), Err(JoinRefusal::Wrong));
    }
}

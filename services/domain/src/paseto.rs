//! PASETO v4.public: one signature format, one algorithm, a key id in the footer.
//!
//! Source: PASETO specification, Version 4, "v4.public" and "Authentication Padding" (PAE).
//! Invariant: whatever single strict Ed25519 verification refuses is refused here too, in a batch or alone.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

/// The header of every such text.
pub const HEADER: &str = "v4.public.";
/// Longer texts are refused unread: the largest document we sign stays well below it.
pub const LENGTH_MAX: usize = 256 * 1024;
const SIGNATURE_LENGTH: usize = 64;

/// Why a signed text was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// Not of the form `v4.public.<payload>.<footer>`.
    #[error("not a v4.public text")]
    Malformed,
    /// No trusted key has the footer's id.
    #[error("signed with an unknown key")]
    UnknownKey,
    /// The signature does not hold.
    #[error("signature does not hold")]
    BadSignature,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Footer<'a> {
    kid: &'a str,
}

/// A key that signs, with the id that verifiers know it by.
pub struct SigningKeyWithId {
    kid: String,
    key: SigningKey,
}

impl std::fmt::Debug for SigningKeyWithId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKeyWithId({})", self.kid)
    }
}

impl SigningKeyWithId {
    /// A key under an id; the id must be a slug so that it needs no escaping in the footer.
    #[must_use]
    pub fn new(kid: impl Into<String>, key: SigningKey) -> Self {
        Self {
            kid: kid.into(),
            key,
        }
    }

    /// The id.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public half.
    #[must_use]
    pub fn verifying_key(&self) -> VerifyingKey {
        self.key.verifying_key()
    }

    /// Signs `message` for one purpose; `purpose` is the implicit assertion: signed, not carried.
    #[must_use]
    pub fn sign(&self, message: &[u8], purpose: &str) -> String {
        let footer = format!("{{\"kid\":\"{}\"}}", self.kid);
        let signed = pae(&[
            HEADER.as_bytes(),
            message,
            footer.as_bytes(),
            purpose.as_bytes(),
        ]);
        let signature = self.key.sign(&signed);
        let mut payload = Vec::with_capacity(message.len() + SIGNATURE_LENGTH);
        payload.extend_from_slice(message);
        payload.extend_from_slice(&signature.to_bytes());
        format!("{HEADER}{}.{}", B64.encode(payload), B64.encode(footer))
    }
}

/// The public keys that are believed, by id.
#[derive(Clone, Debug, Default)]
pub struct TrustedKeys {
    keys: BTreeMap<String, VerifyingKey>,
}

/// A text taken apart, not yet believed.
pub(crate) struct Parsed {
    pub(crate) message: Vec<u8>,
    pub(crate) signature: Signature,
    pub(crate) key: VerifyingKey,
    pub(crate) signed: Vec<u8>,
}

impl TrustedKeys {
    /// From pairs of id and 32-byte public key. A key of small or mixed order is refused: only for keys in the
    /// prime-order group does a batch say what single verification says.
    pub fn new(keys: impl IntoIterator<Item = (String, [u8; 32])>) -> Result<Self, Untrusted> {
        let mut trusted = BTreeMap::new();
        for (kid, bytes) in keys {
            let key = VerifyingKey::from_bytes(&bytes).map_err(|_| Untrusted::Malformed)?;
            let point = curve25519_dalek::edwards::CompressedEdwardsY(bytes)
                .decompress()
                .ok_or(Untrusted::Malformed)?;
            if key.is_weak() || !point.is_torsion_free() {
                return Err(Untrusted::Malformed);
            }
            trusted.insert(kid, key);
        }
        Ok(Self { keys: trusted })
    }

    /// The ids of the keys, in order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    /// The keys with their ids, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, [u8; 32])> {
        self.keys
            .iter()
            .map(|(kid, key)| (kid.as_str(), key.to_bytes()))
    }

    /// The message of a text that a trusted key signed for `purpose`.
    pub fn verify(&self, text: &str, purpose: &str) -> Result<Vec<u8>, Untrusted> {
        let parsed = self.parse(text, purpose)?;
        parsed
            .key
            .verify_strict(&parsed.signed, &parsed.signature)
            .map_err(|_| Untrusted::BadSignature)?;
        Ok(parsed.message)
    }

    pub(crate) fn parse(&self, text: &str, purpose: &str) -> Result<Parsed, Untrusted> {
        if text.len() > LENGTH_MAX {
            return Err(Untrusted::Malformed);
        }
        let body = text.strip_prefix(HEADER).ok_or(Untrusted::Malformed)?;
        let (payload, footer) = body.split_once('.').ok_or(Untrusted::Malformed)?;
        let mut message = B64.decode(payload).map_err(|_| Untrusted::Malformed)?;
        let footer = B64.decode(footer).map_err(|_| Untrusted::Malformed)?;
        let kid = serde_json::from_slice::<Footer<'_>>(&footer)
            .map_err(|_| Untrusted::Malformed)?
            .kid;
        let key = *self.keys.get(kid).ok_or(Untrusted::UnknownKey)?;
        let at = message
            .len()
            .checked_sub(SIGNATURE_LENGTH)
            .ok_or(Untrusted::Malformed)?;
        let signature = Signature::from_slice(&message[at..]).map_err(|_| Untrusted::Malformed)?;
        message.truncate(at);
        let signed = pae(&[HEADER.as_bytes(), &message, &footer, purpose.as_bytes()]);
        Ok(Parsed {
            message,
            signature,
            key,
            signed,
        })
    }
}

/// The message that a text carries, whoever signed it.
pub(crate) fn unverified(text: &str) -> Result<Vec<u8>, Untrusted> {
    if text.len() > LENGTH_MAX {
        return Err(Untrusted::Malformed);
    }
    let body = text.strip_prefix(HEADER).ok_or(Untrusted::Malformed)?;
    let (payload, _) = body.split_once('.').ok_or(Untrusted::Malformed)?;
    let mut message = B64.decode(payload).map_err(|_| Untrusted::Malformed)?;
    let at = message.len().checked_sub(SIGNATURE_LENGTH);
    message.truncate(at.ok_or(Untrusted::Malformed)?);
    Ok(message)
}

/// Pre-authentication encoding: the number of pieces, then each with its length, little-endian 64 bits.
fn pae(pieces: &[&[u8]]) -> Vec<u8> {
    let length = |n: usize| (n as u64 & (u64::MAX >> 1)).to_le_bytes();
    let total: usize = pieces.iter().map(|piece| piece.len() + 8).sum();
    let mut out = Vec::with_capacity(8 + total);
    out.extend_from_slice(&length(pieces.len()));
    for piece in pieces {
        out.extend_from_slice(&length(piece.len()));
        out.extend_from_slice(piece);
    }
    out
}

#[cfg(test)]
mod tests;
